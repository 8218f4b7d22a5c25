"""The site's agent: one process that stays, joins its coordinator, and has each message answered by a warm worker.

In:  a site's folder (site.toml, ca.crt, node.key). Out: replies to the coordinator; state/ of the folder.
Called by `fedecg-client start`, under systemd or in a terminal; ends on SIGTERM or Ctrl-C.

    pull a message -> is its bundle ours? -> fetch its objects -> worker -> reply

A message in hand is kept (its head, a few kB) until its reply is sent, so that it is not lost when the agent, the
worker or the line dies: whoever comes back within the time that a node counts as online goes on with it, and the app's
checkpoint and outbox make that cheap and equal to the bit. Faults that pass are waited out for ever; those that someone
must mend end the agent with a code, unless the same settings have worked before in this process.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from fedecg.config import SiteSettings, load_site
from fedecg.errors import PolicyError, RunError
from fedecg.federation.bundle import bundle_sha256
from fedecg_client.bare_codes import record_bare_code
from fedecg_client.environment import set_environment
from fedecg_client.faults import AWAY, LinkError, RunOverError, StoppedError, credentials, version_error
from fedecg_client.in_hand import InHand, Kept
from fedecg_client.own_node import OwnNode
from fedecg_client.running import only_one
from fedecg_client.site_status import SiteStatus, now
from fedecg_client.worker import (
    START_S,
    UNKNOWN_FAULT,
    TaskLimitError,
    Worker,
    WorkerDiedError,
)

if TYPE_CHECKING:
    from fedecg_client.link import Link
    from fedecg_client.wire import Announced, Reply

__all__ = ["run_agent"]

FLOWER = "1.39."
BUSY_POLL_S, IDLE_POLL_S, POLL_GROWTH = 0.05, 1.0, 1.05  # about 30 s from the first to the second
FIRST_WAIT_S, MOST_WAIT_S, MOST_WAIT_AWAY_S, JITTER = 1.0, 30.0, 10.0, 0.2
AWARE_S = 3.0  # a coordinator looks for replies at least this often, and then sees that the node is offline
OTHER_VERSION, INTERRUPTED = (
    "FECG-642",
    "FECG-604",
)  # what the coordinator is told of a foreign bundle, of a stop
MOST_DEATHS, MOST_BEGUN = 2, 5  # of one message: by a worker's death; with agents that were killed besides


def run_agent(folder: Path) -> int:
    """Run a site's agent until it is told to stop.

    Args:
        folder: the site's folder.

    Returns:
        0 after SIGTERM or SIGINT: the worker ended, the node offline.

    Raises:
        SettingsError: FECG-101..103, site.toml cannot be used.
        RunError: FECG-641 (another agent runs), 642 (versions), 643 (CA or key), 644-647 (the coordinator's
            certificate or port), each with its fix.
    """
    folder = folder.resolve()
    site = load_site(folder / "site.toml")
    state = folder / "state"
    state.mkdir(mode=0o700, exist_ok=True)
    stop = threading.Event()
    with only_one(state), stopping_on_signals(stop):
        status = SiteStatus(state, site.name)
        try:
            agent = Agent(folder, site, status, open_link(site, stop), stop)
            return agent.run()
        except RunError as error:
            status.event("refused", code=error.code)
            status.say("refused", code=error.code, connected=False, worker_pid=None)
            raise


def open_link(site: SiteSettings, stop: threading.Event) -> Link:
    """The line to the coordinator, not connected yet.

    Raises:
        RunError: FECG-642 or 643.
    """
    set_environment()
    if not version("flwr").startswith(FLOWER):
        raise version_error(f"flwr {version('flwr')}")
    try:
        from fedecg_client.link import Link, load_credentials
    except ImportError:
        raise version_error("a Flower whose inside is not that of 1.39") from None
    if site.server is None:
        raise credentials("site.toml", "no [server]")
    return Link(site.server.address, load_credentials(site.server), stop)


@contextmanager
def stopping_on_signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set `stop`; nothing is raised in the middle of anything."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class Agent:
    """The loop. Everything that it does can be interrupted, and is then done again."""

    def __init__(
        self, folder: Path, site: SiteSettings, status: SiteStatus, link: Link, stop: threading.Event
    ) -> None:
        self.folder, self.site, self.status, self.link, self.stop = folder, site, status, link, stop
        self.worker = Worker(folder, stop, self._tell)
        self.node = OwnNode(folder)
        self.kept = Kept(folder / "state" / "in-hand.json")
        self.node_id: int | None = None  # of this process: while it is set, the node counts as online
        self.in_hand: InHand | None = None
        self.has_worked = self.reply_may_be_lost = False
        self.poll_s, self.waits, self.tasks_done = BUSY_POLL_S, 0, 0
        self._run: tuple[int, str] | None = None  # the last run that was asked for, and its bundle
        link.on_heard = self.kept.touch

    def run(self) -> int:
        """Serve until stopped."""
        self.status.event("start")
        self.status.say("connecting")
        try:
            if self.node.elsewhere:  # a copy of a site that may be at work
                self.kept.forget()
            self.in_hand = self.kept.left(self.status)
            while True:
                try:
                    self._connect()
                    while True:
                        self._serve()
                except LinkError as fault:
                    if fault.lasting and not self.has_worked:
                        raise fault.error from None
                    self._wait(fault)
        except StoppedError:
            self._leave()
            return 0
        except RunError:
            self._go_offline()
            raise
        finally:
            self.worker.end()
            self.link.close()

    def _connect(self) -> None:
        """Be online as the node of this key. The worker is up before the first message can come."""
        self.link.reopen()
        before = self.node_id or self.node.read()
        if before is not None and (self.node_id or self.in_hand) and not self.reply_may_be_lost:
            before = self._go_on_as(before)
        if (before is not None and self.node_id is None) or self.reply_may_be_lost:
            self._clear_online(before)
        if self.worker.pid is None:
            self.link.knock()  # what someone must mend is told before the seconds that torch takes
            self._start_worker()
        if self.node_id is None:
            self.node_id = self.link.activate()
            self.node.keep(self.node_id)
        self.has_worked, self.waits, self.poll_s = True, 0, BUSY_POLL_S
        self.status.online()

    def _go_on_as(self, node_id: int) -> int | None:
        """As a node that is online still; None if the coordinator does not know it."""
        try:
            self.link.adopt(node_id)
        except LinkError as fault:
            if fault.error.code == AWAY or fault.lasting:
                raise
            self.node_id, self._run = None, None
            self._drop("unknown")
            return None
        self.node_id = node_id
        return node_id

    def _clear_online(self, node_id: int | None) -> None:
        """Take back an "online" that nobody stands behind: left by a kill, or with a message lost on the way.

        Offline, and for long enough that the coordinator sees it, the message becomes an error there at once,
        instead of being waited for.
        """
        if node_id is not None:
            self.link.deactivate(node_id)
            self.node_id = None
            if self.reply_may_be_lost:
                self.status.say(
                    waiting_for="coordinator: to see that this site was offline", at_most_s=AWARE_S
                )
                if self.stop.wait(AWARE_S):
                    raise StoppedError
        self.reply_may_be_lost = False

    def _serve(self) -> None:
        """Wait for one message, or go on with the one in hand, until its reply is sent."""
        if self.worker.pid is None:
            self._start_worker()
        try:
            if self.in_hand is None:
                self._pull()
            if self.in_hand is not None:
                self._answer(self.in_hand)
        except RunOverError:
            self._drop("run-ended")

    def _pull(self) -> None:
        try:
            received = self.link.pull()
        except LinkError as fault:
            self.reply_may_be_lost = fault.sent
            raise
        if received is None:
            self._tell()
            if self.stop.wait(self.poll_s):
                raise StoppedError
            self.poll_s = min(IDLE_POLL_S, self.poll_s * POLL_GROWTH)
            return
        self.poll_s = BUSY_POLL_S
        self.in_hand = InHand(received)
        self.kept.keep(self.in_hand)

    def _answer(self, hand: InHand) -> None:
        if hand.reply is None:
            self.status.say("working", code=None, connected=True, waiting_for=None, at_most_s=None)
            began = time.monotonic()
            hand.reply = self._as_announced(hand, self._reply_to(hand))
            hand.seconds = time.monotonic() - began
        if not hand.sent:
            self._record(hand.reply)
            self.link.push(hand.reply, tell=partial(self._told, hand))
            hand.sent = True
        with suppress(RunOverError):  # it was the last reply of its run
            self.link.confirm(hand.received)  # not before: whoever is killed half-way needs the task again
        self._let_go()
        self.tasks_done += 1
        self.status.event("reply", seconds=round(hand.seconds, 3))
        self.status.say(
            "idle",
            tasks_done=self.tasks_done,
            last_reply=now(),
            received_bytes=self.link.received_bytes,
            sent_bytes=self.link.sent_bytes,
        )

    def _record(self, reply: Reply) -> None:
        """A code by itself leaves all the same where it cannot be recorded: who waits must learn that nothing comes."""
        try:
            record_bare_code(self.folder, self.site, reply)
        except PolicyError as error:
            self.status.event("unrecorded", code=error.code)

    def _told(self, hand: InHand, announced: Announced) -> None:
        hand.announced = announced
        self.kept.keep(hand)

    def _as_announced(self, hand: InHand, reply: Reply) -> Reply:
        """The reply as an agent that was killed announced it: the coordinator waits for the rest of that one."""
        same = hand.announced and hand.announced.reply_with(reply)
        if not same or not hand.announced:
            return reply
        self.link.go_on(same, hand.announced)
        return same

    def _reply_to(self, hand: InHand) -> Reply:
        """The worker's reply, or an error that says why there is none."""
        from fedecg_client.wire import error_reply

        if self._bundle(hand.received.run_id) != bundle_sha256():
            self.status.event("foreign-bundle", code=OTHER_VERSION)
            return error_reply(hand.received, "bundle", OTHER_VERSION)
        contents = self.link.fetch(hand.received)
        while hand.deaths < MOST_DEATHS and hand.begun < MOST_BEGUN:
            if self.worker.pid is None:
                self._start_worker()
            hand.begun += 1
            if hand.begun > 1:
                self.kept.keep(hand)
            try:
                return self.worker.ask(hand.received, contents, self.site.policy.task_limit_s)
            except WorkerDiedError:
                hand.deaths += 1
                self.status.event("worker-died", times=hand.deaths)
                if self.stop.wait(0.2):  # systemd stops agent and worker together
                    raise StoppedError from None
            except TaskLimitError:
                self.status.event("task-too-long", at_most_s=self.site.policy.task_limit_s)
                return error_reply(hand.received, "crashed", INTERRUPTED)
        return error_reply(hand.received, "crashed", UNKNOWN_FAULT)

    def _bundle(self, run_id: int) -> str:
        if self._run is None or self._run[0] != run_id:
            self._run = (run_id, self.link.bundle_sha256(run_id))
        return self._run[1]

    def _start_worker(self) -> None:
        """Whatever kills it (memory is short, say) may pass; a worker that ends by itself cannot work here."""
        while True:
            self.status.say(
                code=None, waiting_for="worker: started; expected torch and the app loaded", at_most_s=START_S
            )
            try:
                self.worker.start()
                break
            except WorkerDiedError:
                self.status.event("worker-died", times=0)
                self.status.say(
                    waiting_for="worker: ended before it was ready; started again after a pause",
                    at_most_s=MOST_WAIT_AWAY_S,
                )
                if self.stop.wait(MOST_WAIT_AWAY_S):
                    raise StoppedError from None
        self.status.event("worker-start")
        self.status.say(worker_pid=self.worker.pid, waiting_for=None, at_most_s=None)

    def _wait(self, fault: LinkError) -> None:
        """Back-off: 1, 2, 4 .. s and jitter, said in status.json; shorter while nobody is at home there."""
        most_s = MOST_WAIT_AWAY_S if fault.error.code == AWAY else MOST_WAIT_S
        wait_s = min(most_s, FIRST_WAIT_S * 2**self.waits) * random.uniform(1 - JITTER, 1 + JITTER)
        self.waits = min(self.waits + 1, 10)
        self.status.waits(fault.error, wait_s, most_s)
        if self.stop.wait(wait_s):
            raise StoppedError

    def _leave(self) -> None:
        """Say goodbye within a few seconds: an error for the message in hand, then offline."""
        from fedecg_client.wire import error_reply

        self.worker.end()
        hand = self.in_hand
        with suppress(RunOverError, LinkError):
            if hand is not None and hand.reply is None and self.node_id is not None:
                reply = error_reply(hand.received, "stopped", INTERRUPTED)
                self._record(reply)
                self.link.push(reply, last=True)
        self._go_offline()
        self._let_go()
        self.status.event("stop")
        self.status.say(
            "stopped", code=None, connected=False, waiting_for=None, at_most_s=None, worker_pid=None
        )

    def _go_offline(self) -> None:
        with suppress(LinkError):
            if self.node_id is not None:
                self.link.deactivate(self.node_id, last=True)
                self.node.forget()  # else the next agent clears it

    def _drop(self, why: str) -> None:
        if self.in_hand is not None:
            self.status.event("dropped", why=why)
        self._let_go()
        self.status.say("idle")

    def _let_go(self) -> None:
        self.in_hand = None
        self.kept.forget()

    def _tell(self) -> None:
        self.status.say(worker_pid=self.worker.pid)
