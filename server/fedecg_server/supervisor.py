"""`fedecg-server start`: keeps the coordinator's processes running until the study has ended.

In:  the coordinator's folder. Out: a finished run, or a code; lines of progress on stderr; an exit status.
Called by the command line. It runs in the foreground and loads neither torch nor a study; it starts, watches and
restarts the SuperLink and the app host, and submits the study again whenever its run is lost. Whatever ends it, its
children end too, and the next start goes on from `run/state`.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from fedecg.codes import CODES
from fedecg.errors import RunError
from fedecg.progress import Progress
from fedecg.report.privacy_section import site_level_lines
from fedecg_server.coordinator import Coordinator
from fedecg_server.host_process import HostEvent, HostProcess
from fedecg_server.narrator import Narrator
from fedecg_server.room import no_room
from fedecg_server.server_lock import only_one, stop_running
from fedecg_server.sites import register_all
from fedecg_server.submit import SubmissionError, submit_study
from fedecg_server.superlink import SuperLink
from fedecg_server.unfinished import check_same_study
from fedecg_server.watch import Pages, watch

__all__ = ["start", "stop"]

TICK_S, LOOK_AGAIN_S = 0.2, 0.1
TAKEN_WITHIN_S = 60.0  # a submitted run that nobody takes
FAILURES = 5  # without a new round: something that waiting does not mend
HEALTHY_S = 900.0  # without any failure: earlier ones no longer count
LONGEST_PAUSE_S = 16.0
PROBE_EVERY_S, MOST_MISSES = (
    10.0,
    12,
)  # a SuperLink that runs and does not answer: two minutes, it may be busy
NOT_READY, KEYS_REFUSED = "FECG-682", "FECG-675"
BELOW_QUORUM, NOT_WRITTEN = "FECG-507", "FECG-601"
STATUS, ROUNDS, RESULT, FAILED, STUDY = (
    "status.json",
    "rounds.json",
    "result.json",
    "failed.json",
    "study.toml",
)  # run_folder.py has them too, but loads torch
PARTIAL, PARTIAL_STATUS = "completed-partial", 5
NEEDS_A_PERSON = 3
STATUS_OF_CLASS = {"1": 3, "2": 3, "3": 3, "4": 4}  # first digit of a code -> exit status; else 1


def start(coordinator: Coordinator, resume: bool = False, new: bool = False) -> int:
    """Run the study to its end, in the foreground.

    Args:
        coordinator: the folder.
        resume: go on with a run, also with one that ended with a code; refuse if there is none.
        new: put an earlier run aside (run-DATE-TIME) and begin another.

    Returns:
        0 completed, or stopped on request; 5 completed without some sites; else the status of the study's code.

    Raises:
        RunError: FECG-681 .. FECG-688, FECG-692, and what `SuperLink.start` and `register_all` raise.
    """
    progress = Progress("coordinator")
    with only_one(coordinator), _asked_to_stop() as asked:
        ended = _opened(coordinator, resume, new, progress)
        if ended is not None:
            return ended
        with watch(coordinator, progress) as pages:
            return Supervisor(coordinator, progress, asked, pages).run()


def stop(coordinator: Coordinator, timeout_s: float = 30.0) -> int:
    """Stop the running coordinator; its state is kept.

    Args:
        coordinator: the folder.
        timeout_s: how long it is waited for.

    Raises:
        RunError: FECG-689 if it still runs then, or if whoever holds its lock cannot be told.
    """
    stopped = stop_running(coordinator, timeout_s)
    Progress("coordinator").say("stopped" if stopped else "not running")
    return 0


class Supervisor:
    """Keeps both processes and one run alive.

    Args:
        coordinator: the folder.
        progress: where lines go.
        asked: whether somebody has asked it to stop.
        pages: the dashboard and the metrics, if they are served.
    """

    def __init__(
        self, coordinator: Coordinator, progress: Progress, asked: StopRequest, pages: Pages | None = None
    ) -> None:
        self.coordinator, self.progress, self.asked, self.pages = coordinator, progress, asked, pages
        self.link, self.host = SuperLink(coordinator), HostProcess(coordinator)
        self.narrator = Narrator(coordinator.run / STATUS, progress)
        self.run_id: str | None = None  # of the run that was submitted last, while it is alive
        self.submitted_s = 0.0
        self.taken = self.host_ready = False
        self.pause_until_s = 0.0
        self.failures, self.failed_s, self.rounds = 0, 0.0, 0
        self.probe_s, self.misses = 0.0, 0

    def run(self) -> int:
        """From nothing to the end of the study."""
        try:
            self.link.check()
            self.host.start()  # loads torch while the SuperLink starts
            self.link.launch(self.asked)
            if not self.asked():
                self._register()
                self.progress.say(f"sites reach port {self.coordinator.settings.port}")
            while not self.asked():
                ended = self._turn()
                if ended is not None:
                    return ended
                time.sleep(TICK_S)
            self.progress.say("stopping; `fedecg-server start` goes on with the study")
            return 0
        finally:
            self.host.stop()
            self.link.stop()

    def _turn(self) -> int | None:
        """Look at everything once; the exit status if the study has ended."""
        for event in self.host.events():
            self._hear(event)
        self.narrator.look()
        self._tend()
        if self.run_id is None:
            ended = verdict(self.coordinator, self.progress)
            if ended is not None:
                return ended
        if time.monotonic() >= self.pause_until_s:
            self._mend()
        return None

    def _tend(self) -> None:
        """Keep logs bounded and pages served; end what runs and stands still: the next turn starts another."""
        self.link.tend()
        self.host.tend()
        if self.host.stands_still:
            self.progress.warn(f"the app host has stood still for {self.host.patience_s:.0f} s; it is ended")
            self.host.stop(within_s=0.0)
        if self.pages:
            self.pages.tend()
        if time.monotonic() - self.probe_s < PROBE_EVERY_S:
            return
        self.probe_s = time.monotonic()
        self.misses = 0 if not self.link.alive or self.link.answers() else self.misses + 1
        if self.misses >= MOST_MISSES:
            self.misses = 0
            self.link.stop(within_s=0.0)

    def _mend(self) -> None:
        """Start again whatever is not there; one thing a turn."""
        if not self.link.alive:
            self._restart_link()
        elif not self.host.alive:
            self._restart_host()
        elif self.run_id is None:
            self._submit()
        elif not self.taken and self.host_ready and time.monotonic() - self.submitted_s > TAKEN_WITHIN_S:
            self.run_id = None
            self._failed("nobody took the submitted run")

    def _hear(self, event: HostEvent) -> None:
        if event.event == "ready":
            self.host_ready, self.submitted_s = True, time.monotonic()
        elif event.event == "refused" and event.run == self.run_id:
            raise RunError(
                "FECG-688",
                "submitted bundle",
                found="another hash than that of the installed fedecg",
                expected="the bundle as `fedecg.federation.bundle` makes it",
                fix="Is the flwr that is installed the one that fedecg was installed with? pip check.",
            )
        elif event.event == "refused":
            self.progress.warn("somebody submitted another bundle; it was not run")
        elif event.event == "taken":
            self.taken = self.taken or event.run == self.run_id
        elif event.run == self.run_id:
            self._run_ended(event)

    def _run_ended(self, event: HostEvent) -> None:
        self.run_id = None
        if event.event == "completed" and not (self.coordinator.run / RESULT).exists():
            self._failed("the study ended without a result")
        elif event.event == "failed" and not (self.coordinator.run / FAILED).exists():
            self._failed(
                f"the study ended with {event.details} (log/app.log), which could not be written down"
            )
        elif event.event == "crashed":
            self._failed(f"the study stopped with {event.details} (log/app.log)")
        elif event.event == "lost":
            self._failed("the run was lost at the SuperLink")

    def _restart_link(self) -> None:
        self._failed("the SuperLink ended (log/superlink.log)")
        try:
            self.link.start(self.asked)
        except RunError as error:
            if error.code != NOT_READY:
                raise
            return  # counted at the next turn
        self.progress.say("the SuperLink runs again")

    def _restart_host(self) -> None:
        self.host.stop()
        self.run_id, self.host_ready = None, False
        if verdict(self.coordinator, None) is not None:
            return
        self._failed("the app host ended (log/app.log)")
        self.host.start()

    def _submit(self) -> None:
        try:
            self.run_id = submit_study(self.coordinator, self.asked)
        except SubmissionError as error:
            if not self.asked():
                self._failed(str(error))
            return
        self.taken, self.submitted_s = False, time.monotonic()

    def _register(self) -> None:
        try:
            register_all(self.coordinator)
        except RunError as error:
            if error.code != KEYS_REFUSED:
                raise
            self.progress.warn(str(error))  # the other sites are registered, and the quorum decides

    def _failed(self, what: str) -> None:
        """Count a failure, and wait longer after each; too many without a new round are the end.

        Raises:
            RunError: FECG-687; FECG-692 if the disk is full.
        """
        now, rounds = time.monotonic(), _rounds(self.coordinator)
        if rounds != self.rounds or now - self.failed_s > HEALTHY_S:
            self.failures = 0
        self.failures, self.failed_s, self.rounds = self.failures + 1, now, rounds
        full = no_room(self.coordinator)
        if self.failures >= FAILURES and full:
            raise RunError(
                "FECG-692",
                "coordinator's disk",
                found=f"{full}; the last failure: {what}",
                expected="room for what a round writes",
                fix="Make room on that disk. Nothing half-written is taken for whole: then fedecg-server start goes on "
                "(a service that restarts does so by itself).",
            )
        if self.failures >= FAILURES:
            raise RunError(
                "FECG-687",
                "coordinator",
                found=f"{self.failures} failures without a new round; the last: {what}",
                expected="a study that goes on",
                fix="Mend the cause that log/app.log or log/superlink.log names, then: fedecg-server start.",
            )
        self.progress.warn(f"{what}; {full}" if full else what)
        # The first failure is mended at once.
        self.pause_until_s = now + min(LONGEST_PAUSE_S, 2.0 ** (self.failures - 1) - 1.0)


def verdict(coordinator: Coordinator, progress: Progress | None) -> int | None:
    """How the run has ended: an exit status, said in a line; None if it has not.

    Args:
        coordinator: the folder.
        progress: where the line goes; None: nowhere.
    """
    result, failed = _read(coordinator.run / RESULT), _read(coordinator.run / FAILED)
    if isinstance(result, dict):
        status = str(result.get("status", "completed"))
        line = f"{status}; everything is in {coordinator.run.name}/"
        spent = site_level_lines(result)
        code = PARTIAL_STATUS if status == PARTIAL else 0
    elif isinstance(failed, dict):
        line, spent = f"the study ended: {failed.get('message')}", ()
        code = STATUS_OF_CLASS.get(str(failed.get("code"))[5:6], 1)
    else:
        return None
    if progress:
        progress.say(line)
        for words in spent:
            progress.say(words)
        for words in _causes(coordinator, failed) if isinstance(failed, dict) else ():
            progress.say(words)
    return code


def _causes(coordinator: Coordinator, failed: dict[str, Any]) -> Iterator[str]:
    """What stopped a study that ended with a code, as far as the folder tells, and where it is mended."""
    status = _read(coordinator.run / STATUS)
    sites = status.get("sites") if isinstance(status, dict) and failed.get("code") == BELOW_QUORUM else None
    for site in sites or []:
        code = site.get("code")
        if site.get("state") in ("rejected", "refused") and code:
            yield f"{site.get('name')}: {code} {CODES.get(code, '')}; at that site: fedecg-client doctor"
    if failed.get("code") == NOT_WRITTEN and (full := no_room(coordinator)):
        yield full


def _opened(coordinator: Coordinator, resume: bool, new: bool, progress: Progress) -> int | None:
    """Make the run folder ready; the exit status if there is nothing left to run.

    Raises:
        RunError: FECG-686 if there is no run to resume; FECG-520 if it cannot go on with study.toml as it is now.
    """
    begun = any((coordinator.run / name).exists() for name in (STUDY, STATUS, FAILED))
    finished = (coordinator.run / RESULT).exists()
    if resume and (finished or not begun):
        raise RunError(
            "FECG-686",
            "run to resume",
            found="one that is finished" if finished else "none that was begun",
            expected="an unfinished run, or one that ended with a code",
            fix="Begin one: fedecg-server start, or, beside a finished one, fedecg-server start --new.",
        )
    if not new and not finished:
        check_same_study(coordinator.run, coordinator.study())
    if new and (begun or finished):
        aside = coordinator.run.with_name(f"run-{datetime.now():%Y%m%d-%H%M%S}")
        coordinator.run.rename(aside)
        progress.say(f"the earlier run is in {aside.name}/")
    elif resume:
        (coordinator.run / FAILED).unlink(missing_ok=True)
    coordinator.run.mkdir(mode=0o700, exist_ok=True)
    ended = verdict(coordinator, progress)
    if ended is not None:
        progress.say("nothing to do; another run: fedecg-server start --new")
        if (coordinator.run / FAILED).exists():
            progress.say("when its cause is mended, it goes on with: fedecg-server resume")
            return max(ended, NEEDS_A_PERSON)  # a service manager must not begin it again and again
    return ended


def _rounds(coordinator: Coordinator) -> int:
    entries = _read(coordinator.run / ROUNDS)
    return len(entries) if isinstance(entries, list) else 0


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


class StopRequest:
    """Whether a signal has asked for the end."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        return self.asked

    def ask(self, _number: int, _frame: FrameType | None) -> None:
        """Signal handler."""
        self.asked = True


@contextmanager
def _asked_to_stop() -> Iterator[StopRequest]:
    request = StopRequest()
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    earlier = {number: signal.signal(number, request.ask) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
