"""`fedecg-server start`: keeps the coordinator's processes running until the study has ended.

In:  the coordinator's folder. Out: a finished run, or a code; lines of progress on stderr; an exit status.
Called by the command line. It runs in the foreground and loads neither torch nor a study; it starts, watches and
restarts the SuperLink and the app host, and submits the study again whenever its run is lost. Whatever ends it, its
children end too, and the next start goes on from `run/state`.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from fedecg.errors import FedecgError, RunError
from fedecg.progress import Progress
from fedecg_server.coordinator import Coordinator
from fedecg_server.host_process import HostEvent, HostProcess
from fedecg_server.narrator import Narrator
from fedecg_server.room import no_room
from fedecg_server.server_lock import only_one, stop_running
from fedecg_server.sites import register_all
from fedecg_server.submit import SUBMIT_S, SubmissionError, submit_study
from fedecg_server.superlink import READY_S, SuperLink
from fedecg_server.verdict import FAILED, RESULT, STATUS, json_or_none, opened, put_aside, verdict
from fedecg_server.waits import Waits
from fedecg_server.watch import Pages, watch

__all__ = ["start", "stop"]

TICK_S, LOOK_AGAIN_S = 0.2, 0.1
TAKEN_WITHIN_S = 60.0  # a submitted run that nobody takes
FAILURES = 5  # without a new round: something that waiting does not mend
HEALTHY_S = 900.0  # without any failure: earlier ones no longer count
LONGEST_PAUSE_S = 16.0
PROBE_EVERY_S = 10.0
MOST_MISSES = 12  # of a SuperLink that runs and does not answer: two minutes, it may be busy
REGISTER_S = 40.0  # another command's turn and an unheard call
REGISTER_AGAIN_S = 30.0
SILENT_S = 15.0  # an app host that has missed three times to say that it is alive
NOT_READY, KEYS_REFUSED = "FECG-682", "FECG-675"
ROUNDS = "rounds.json"


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
        ended = opened(coordinator, resume, new, progress)
        if ended is not None:
            return ended
        with watch(coordinator, progress) as pages:
            return Supervisor(coordinator, progress, asked, pages).run(resume, new)


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
        self.pause_until_s, self.pause_s, self.paused_for = 0.0, 0.0, ""
        self.registered, self.register_s, self.register_said = False, 0.0, ""
        self.waits = Waits(coordinator)
        self.failures, self.failed_s, self.rounds = 0, 0.0, 0
        self.probe_s, self.misses = 0.0, 0

    def run(self, resume: bool = False, new: bool = False) -> int:
        """From nothing to the end of the study.

        Args:
            resume: take an earlier verdict away, once the SuperLink runs: a resumption that comes to nothing leaves it.
            new: put an earlier run aside, then, too.
        """
        try:
            self.link.check()
            self.host.start()  # loads torch while the SuperLink starts
            self.waits.say("the SuperLink to answer", READY_S)
            self.link.launch(self.asked)
            if not self.asked():
                self._register(first=True)
                self.progress.say(f"sites reach port {self.coordinator.settings.port}")
                if new:
                    put_aside(self.coordinator, self.progress)
                if resume:
                    (self.coordinator.run / FAILED).unlink(missing_ok=True)
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
            self.waits.over()

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
        self._tell_wait()
        return None

    def _tell_wait(self) -> None:
        """What this turn leaves to be waited for, beside what the study itself waits for."""
        if time.monotonic() < self.pause_until_s:
            self.waits.say(f"a pause, since {self.paused_for}", self.pause_s)
        elif self.misses:
            self.waits.say("the SuperLink, which does not answer", PROBE_EVERY_S * MOST_MISSES)
        elif not self.host_ready:
            self.waits.say("the app host to be ready", self.host.patience_s)
        elif self.host.silent_s > SILENT_S:
            self.waits.say("the app host, which is silent", self.host.patience_s)
        elif self.run_id is not None and not self.taken:
            self.waits.say("the app host to take the study", TAKEN_WITHIN_S)
        else:
            self.waits.over()

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
        elif not self.registered and time.monotonic() >= self.register_s:
            self._register()
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
        self.waits.say("the SuperLink to answer", READY_S)
        try:
            self.link.start(self.asked)
        except RunError as error:
            if error.code != NOT_READY:
                raise
            return  # counted at the next turn
        self.progress.say("the SuperLink runs again")
        self._register()  # whoever was removed while it was away

    def _restart_host(self) -> None:
        self.host.stop()
        self.run_id, self.host_ready = None, False
        if verdict(self.coordinator, None) is not None:
            return
        self._failed("the app host ended (log/app.log)")
        self.host.start()

    def _submit(self) -> None:
        self.waits.say("the SuperLink to be given the study", SUBMIT_S)
        try:
            self.run_id = submit_study(self.coordinator, self.asked)
        except SubmissionError as error:
            if not self.asked():
                self._failed(str(error))
            return
        self.taken, self.submitted_s = False, time.monotonic()

    def _register(self, first: bool = False) -> None:
        """Make the SuperLink's list of nodes that of sites.json; what fails is tried again while the study goes on.

        Args:
            first: nothing runs yet, so that a list that cannot be used is the end.
        """
        self.registered, self.register_s = False, time.monotonic() + REGISTER_AGAIN_S
        self.waits.say("the SuperLink to take the list of sites", REGISTER_S)
        try:
            register_all(self.coordinator)
        except FedecgError as error:
            if first and error.code != KEYS_REFUSED:
                raise
            if str(error) != self.register_said:
                self.progress.warn(str(error))  # the other sites are registered, and the quorum decides
            self.register_said = str(error)
            return
        self.registered, self.register_said = True, ""

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
        self.pause_s, self.paused_for = min(LONGEST_PAUSE_S, 2.0 ** (self.failures - 1) - 1.0), what
        self.pause_until_s = now + self.pause_s


def _rounds(coordinator: Coordinator) -> int:
    entries = json_or_none(coordinator.run / ROUNDS)
    return len(entries) if isinstance(entries, list) else 0


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
