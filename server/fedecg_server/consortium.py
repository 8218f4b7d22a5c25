"""The sites of a study as the server reaches them: who has joined, one exchange with all of them, bounded waits.

In:  a Flower grid, the settings, the lock. Out: checked replies by site name; who was late, rejected, or away.
Called by the study and its stages. Only the public push and pull of the Grid are used: its own send_and_receive
sleeps 3 s between looks and, without a deadline, waits for ever for a site that has gone.

An exchange ends when everybody has answered; or, once the quorum has, when the others have had twice their usual
time and `grace-s`; or at `deadline-s`. Below the quorum it goes on, up to `patience-s`, while anybody may still
come: whoever comes back is asked again. A site that is still busy with an earlier task is not asked before it has
answered, or Flower has answered for it: its late reply is dropped, and from then on it takes part again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Generic, TypeVar

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedecg.config import FederationSettings, Stage
from fedecg.errors import FederationError
from fedecg.federation.documents import LedgerHead
from fedecg.federation.lock import StudyLock
from fedecg.federation.messages import pack, read_reply, reply_sha256, size_bytes, told_head
from fedecg.federation.tasks import JoinReply, JoinTask
from fedecg.progress import Progress
from fedecg_server.journal import Journal

__all__ = ["COMES_BACK", "Consortium", "Gathered", "Member", "Names"]

Reply = TypeVar("Reply")
Names = Callable[[], Mapping[int, str]]  # node id -> the name under which its key was added

FIRST_LOOK_S, LONGEST_LOOK_S, SHARE_OF_ELAPSED = 0.05, 2.0, 0.02
ROLL_CALL_EVERY_S = 1.0
GREET_AGAIN_S = 20.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # before a site that failed is asked again
UNUSUAL_S = 10.0  # beyond twice its usual time: a site is said to be waited for
USUAL_OF = 5  # exchanges of a kind whose median time is a site's usual one
UNREACHABLE = "FECG-508"
# Its process or line; its hours; its rounds of the day; somebody there looks at its first message first.
COMES_BACK = {UNREACHABLE, "FECG-418", "FECG-419", "FECG-449"}


@dataclass(frozen=True)
class Member:
    """A site that has joined: its node and what it said of itself."""

    node: int
    joined: JoinReply


@dataclass
class Gathered(Generic[Reply]):
    """What came of an exchange, by site name."""

    expected: list[str]
    replies: dict[str, Reply] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)  # site -> FECG code
    late: list[str] = field(default_factory=list)
    bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class _Asked:
    site: str
    kind: str
    at_s: float
    exchange: int


@dataclass
class _Exchange(Generic[Reply]):
    """One exchange while it lasts."""

    number: int
    kind: str
    content: Callable[[], RecordDict]
    read: Callable[[str, Message], Reply]
    start_s: float
    gathered: Gathered[Reply]
    at_most_s: float | None
    content_for: Callable[[str], RecordDict] | None = None
    enough_s: float | None = None  # seconds after the start when the quorum had answered
    failed: dict[str, tuple[str, int]] = field(default_factory=dict)  # site -> last passing code, how often
    again_s: dict[str, float] = field(default_factory=dict)  # not to be asked before

    @property
    def open(self) -> list[str]:
        """Sites that have neither answered nor been rejected for good."""
        done = self.gathered
        return [site for site in done.expected if site not in done.replies and site not in done.rejected]

    @property
    def elapsed_s(self) -> float:
        """Since the exchange began."""
        return time.monotonic() - self.start_s


@dataclass
class Consortium:
    """The sites of a study.

    Args:
        grid: the Flower grid of the run.
        settings: quorum and waits.
        lock: what the sites are asked to join.
        journal: told of every wait and every change of a site.
        progress: warns on the screen.
        names: node id -> registered name, read anew at every roll call; None: whoever connects (simulations).
        run: name of the run.
    """

    grid: Grid
    settings: FederationSettings
    lock: StudyLock
    journal: Journal
    progress: Progress
    names: Names | None = None
    run: str = ""
    members: dict[str, Member] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)  # site or node -> code
    received: dict[str, str] = field(default_factory=dict)  # site -> sha256 of its reply to the last exchange
    accepted: dict[str, str] = field(
        default_factory=dict
    )  # the same, once a checkpoint holds what it brought
    ledgers: dict[str, LedgerHead] = field(default_factory=dict)  # site -> farthest head of its ledger seen
    usual_s: dict[tuple[str, str], list[float]] = field(default_factory=dict)  # (site, kind) -> last times
    _asked: dict[str, _Asked] = field(default_factory=dict)  # by message id: tasks that are out
    _greeted: dict[str, int] = field(default_factory=dict)  # by message id: nodes that were greeted
    _greet_s: dict[int, float] = field(default_factory=dict)  # node -> not to be greeted before
    _online: set[int] = field(default_factory=set)
    _called_s: float = float("-inf")
    _exchanges: int = 0

    def join(self) -> None:
        """Greet whoever connects until all are there; or the quorum is, and `grace-s` have passed.

        Raises:
            FederationError: FECG-513 two sites of one name; FECG-507 fewer sites than the quorum in time.
        """
        start = time.monotonic()
        enough_s: float | None = None
        while not self._complete(enough_s, time.monotonic() - start):
            self._roll_call()
            self._pull_greetings()
            elapsed = time.monotonic() - start
            if enough_s is None and len(self.members) >= self.settings.quorum:
                enough_s = elapsed
            if self._complete(enough_s, elapsed):
                break
            self._wait_to_join(elapsed)
        for name, code in self.refused.items():
            self.progress.warn(f"{name} cannot take part: {code}")
        if enough_s is None:
            raise FederationError(
                "FECG-507",
                "joined sites",
                found=f"{len(self.members)} of {len(self._online)} nodes",
                expected=f"at least {self.settings.quorum} (federation.quorum)",
                fix=f"Codes of those refused: {', '.join(self.refused.values()) or 'none'}.",
            )

    def ask(
        self,
        kind: str,
        content: Callable[[], RecordDict],
        read: Callable[[str, Message], Reply],
        sites: Collection[str] | None = None,
        at_most_s: float | None = None,
        content_for: Callable[[str], RecordDict] | None = None,
    ) -> Gathered[Reply]:
        """One exchange; ends as the module says, with or without the quorum.

        Args:
            kind: Flower's message type.
            content: makes the record; all sites that are asked at once get the same one.
            read: reads and checks a site's reply; a FederationError rejects it under its code.
            sites: names; None: all members.
            at_most_s: wait so long for these sites and no longer, whatever the quorum.
            content_for: makes a record for one site, where each gets its own.
        """
        self._exchanges += 1
        gathered = Gathered[Reply](expected=sorted(self.members if sites is None else sites))
        exchange = _Exchange(
            self._exchanges, kind, content, read, time.monotonic(), gathered, at_most_s, content_for
        )
        self._called_s = float("-inf")
        arrived: dict[str, str] = {}
        while True:
            self._roll_call()
            self._send(exchange)
            arrived |= self._pull(exchange)
            self._pull_greetings()
            if self._over(exchange):
                break
            self.journal.wait(
                exchange.open, exchange.elapsed_s, self._allowed_s(exchange), self._is_waiting(exchange)
            )
            time.sleep(_look_s(exchange.elapsed_s))
        self.received = {site: arrived[site] for site in gathered.replies}
        return self._closed(exchange)

    def expected(self) -> list[str]:
        """Who should take part: the sites of the lock that are still registered; without a list, whoever has joined."""
        registered = set(self.lock.sites) if self.names is None else set(self.names().values())
        return sorted(set(self.members) | (set(self.lock.sites) & registered))

    def task_fields(self, stage: Stage, number: int) -> dict[str, Any]:
        """What every task carries."""
        return {
            "lock_sha256": self.lock.sha256(),
            "run": self.run,
            "stage": stage,
            "round": number,
            "bank_sha256": self.lock.bank_sha256,
            "space_sha256": self.lock.space_sha256,
            "frequencies_sha256": self.lock.frequencies_sha256,
            "settings": self.lock.settings,
            "accepted": self.accepted,
            "rejected": self.journal.left_out,
            "ledger": self.ledgers,
        }

    def _over(self, exchange: _Exchange[Reply]) -> bool:
        still_open = exchange.open
        if not still_open:
            return True
        if exchange.enough_s is None:
            possible = len(exchange.gathered.replies) + len(still_open)
            hopeless = possible < self.settings.quorum and exchange.at_most_s is None
            return hopeless or exchange.elapsed_s >= self._allowed_s(exchange)
        working = any(asked.exchange == exchange.number for asked in self._asked.values())
        return not working or exchange.elapsed_s >= self._allowed_s(exchange)

    def _allowed_s(self, exchange: _Exchange[Reply]) -> float:
        """How long the exchange may last, as things stand."""
        settings = self.settings
        if exchange.at_most_s is not None:
            return exchange.at_most_s
        if exchange.enough_s is None:
            return max(settings.deadline_s, settings.patience_s)
        busy = [asked.site for asked in self._asked.values() if asked.exchange == exchange.number]
        times = [self.usual_s.get((site, exchange.kind)) for site in busy]
        if not all(times):  # a site whose pace is not known yet
            return settings.deadline_s
        slowest = max((median(time_s) for time_s in times if time_s), default=0.0)
        return min(settings.deadline_s, max(exchange.enough_s, 2 * slowest) + settings.grace_s)

    def _is_waiting(self, exchange: _Exchange[Reply]) -> bool:
        """Whether those at work are too few for the quorum, or take longer than they usually do."""
        working = {asked.site for asked in self._asked.values() if asked.exchange == exchange.number}
        if len(exchange.gathered.replies) + len(working) < self.settings.quorum:
            return True
        times = [self.usual_s.get((site, exchange.kind)) for site in working]
        if not times or not all(times):
            return False
        return exchange.elapsed_s > 2 * max(median(time_s) for time_s in times if time_s) + UNUSUAL_S

    def _closed(self, exchange: _Exchange[Reply]) -> Gathered[Reply]:
        """What came of it; whoever has not answered is late, rejected for the moment, or away."""
        gathered, busy = exchange.gathered, {asked.site for asked in self._asked.values()}
        for site in exchange.open:
            code = exchange.failed.get(site, (None, 0))[0]
            if site in busy:
                gathered.late.append(site)
                self.journal.mark(site, "late")
                self.journal.event("late", site=site, kind=exchange.kind)
            elif code:
                gathered.rejected[site] = code
            else:
                self.journal.mark(site, "offline")
        gathered.seconds = round(exchange.elapsed_s, 3)
        gathered.replies = dict(sorted(gathered.replies.items()))
        gathered.rejected = dict(sorted(gathered.rejected.items()))
        return gathered

    def _send(self, exchange: _Exchange[Reply]) -> None:
        """To every open site that is there and has nothing else to do."""
        busy, now = {asked.site for asked in self._asked.values()}, time.monotonic()
        names = [
            site
            for site in exchange.open
            if site not in busy
            and site in self.members  # a site of the checkpoint may not be back yet
            and self.members[site].node in self._online
            and exchange.again_s.get(site, 0.0) <= now
        ]
        if not names:
            return
        # One record for all, and none between two pushes: each costs the server a model.
        if exchange.content_for is None:
            contents = [exchange.content()] * len(names)
        else:
            contents = [exchange.content_for(site) for site in names]
        sizes = [size_bytes(content) for content in contents]
        messages = [
            Message(content, self.members[site].node, exchange.kind)
            for site, content in zip(names, contents, strict=True)
        ]
        identities = list(self.grid.push_messages(messages))
        for site, identity, size in zip(names, identities, sizes, strict=False):
            if identity:
                self._asked[identity] = _Asked(site, exchange.kind, now, exchange.number)
                exchange.gathered.bytes += size
                self.journal.mark(site, "working")
            else:
                _ask_again(exchange, site, None)

    def _pull(self, exchange: _Exchange[Reply]) -> dict[str, str]:
        """Take what has come; site -> sha256 of the replies that were accepted."""
        arrived: dict[str, str] = {}
        if not self._asked:
            return arrived
        for message in self.grid.pull_messages(set(self._asked)):
            asked = self._asked.pop(message.metadata.reply_to_message_id, None)
            if asked is not None and asked.exchange != exchange.number:
                self.journal.event(
                    "readmitted", site=asked.site
                )  # too late for its own exchange, free for this one
            elif asked is not None and self._take(exchange, asked, message):
                arrived[asked.site] = reply_sha256(message.content)
            del message  # the next one is fetched once there is room for it
        return arrived

    def _take(self, exchange: _Exchange[Reply], asked: _Asked, message: Message) -> bool:
        """Whether the reply was accepted."""
        site, gathered = asked.site, exchange.gathered
        took_s = time.monotonic() - asked.at_s
        self._note_ledger(site, message)
        if message.has_error() and message.metadata.src_node_id != self.members[site].node:
            _ask_again(exchange, site, None)  # Flower itself answers for a node that has gone
            self.journal.mark(site, "offline")
            return False
        try:
            gathered.replies[site] = exchange.read(site, message)
        except FederationError as error:
            self._reject(exchange, site, error.code)
            return False
        gathered.bytes += size_bytes(message.content)
        self.usual_s[site, exchange.kind] = [*self.usual_s.get((site, exchange.kind), []), took_s][-USUAL_OF:]
        self.journal.mark(site, "answered", seconds=took_s)
        if exchange.enough_s is None and len(gathered.replies) >= self.settings.quorum:
            exchange.enough_s = exchange.elapsed_s
        return True

    def _note_ledger(self, site: str, message: Message) -> None:
        """What a site has released stays released, whatever becomes of this reply."""
        head = None if message.has_error() else told_head(message.content)
        known = self.ledgers.get(site)
        if head is not None and (known is None or head.sequence > known.sequence):
            self.ledgers[site] = head

    def _reject(self, exchange: _Exchange[Reply], site: str, code: str) -> None:
        if code in COMES_BACK:
            _ask_again(exchange, site, code)
        else:
            exchange.gathered.rejected[site] = code
        self.journal.mark(site, "rejected", code)
        self.journal.event("rejected", site=site, code=code, kind=exchange.kind)

    def _roll_call(self) -> None:
        """Who is connected; nodes that are not known yet are greeted. At most once a second."""
        now = time.monotonic()
        if now - self._called_s < ROLL_CALL_EVERY_S:
            return
        self._called_s = now
        known = None if self.names is None else self.names()
        online = set(self.grid.get_node_ids())
        self._online = online if known is None else online & set(known)
        mine = {member.node for member in self.members.values()}
        for node in sorted(self._online - mine - set(self._greeted.values())):
            later = known is not None and self.lock.sites and known[node] not in self.lock.sites
            if (
                not later and self._greet_s.get(node, 0.0) <= now
            ):  # who was added since takes part in the next run
                self._greet_s[node] = now + GREET_AGAIN_S
                (identity,) = self.grid.push_messages(
                    [Message(pack(JoinTask(lock=self.lock, run=self.run)), node, "query.join")]
                )
                if identity:
                    self._greeted[identity] = node

    def _pull_greetings(self) -> None:
        if not self._greeted:
            return
        for message in self.grid.pull_messages(set(self._greeted)):
            node = self._greeted.pop(message.metadata.reply_to_message_id, None)
            if node is not None:
                self._admit(node, message)

    def _admit(self, node: int, message: Message) -> None:
        known = {} if self.names is None else self.names()
        try:
            joined, _ = read_reply(message, JoinReply)
            self._check(joined, known.get(node))
        except FederationError as error:
            if error.code == "FECG-513":  # nobody can say which of the two it is
                raise
            name = known.get(node, f"node {node}")
            self.refused[name] = error.code
            self.journal.mark(name, "refused", error.code)
            self.journal.event("refused", site=name, code=error.code)
            return
        self.refused.pop(joined.site, None)
        self.members[joined.site] = Member(node, joined)
        self.journal.mark(joined.site, "online")
        self.journal.event("join", site=joined.site)

    def _check(self, joined: JoinReply, registered: str | None) -> None:
        """The same code and study, and no name but its own.

        Raises:
            FederationError: FECG-510 other code; FECG-518 another lock; FECG-519 not the name of its key;
                FECG-513 a name that another node has.
        """
        if joined.code_fingerprint != self.lock.code_fingerprint:
            raise FederationError(
                "FECG-510", "code of a site", found="another fingerprint", expected="the same"
            )
        if joined.lock_sha256 != self.lock.sha256():
            raise FederationError(
                "FECG-518", "lock of a site", found="another sha256", expected="that of the study it was sent"
            )
        if registered is not None and joined.site != registered:
            raise FederationError(
                "FECG-519",
                "name of a site",
                found="another than its key was added under",
                expected=registered,
                fix="Use the name in site.toml that the coordinator gave to `fedecg-server site add`.",
            )
        if registered is None and joined.site in self.members:
            raise FederationError(
                "FECG-513",
                "site names",
                found=f"{joined.site} twice",
                expected="one node a site",
                fix="Give every site its own name in site.toml.",
            )

    def _complete(self, enough_s: float | None, elapsed: float) -> bool:
        """Whether the greeting is over: all there, or time is up."""
        if enough_s is not None:
            absent = [name for name in self.expected() if name not in self.members]
            return (not self._greeted and not absent) or elapsed - enough_s >= self.settings.grace_s
        if self.lock.sites:
            return elapsed >= self.settings.patience_s
        heard_all = len(self._online) >= self.settings.quorum and not self._greeted
        return heard_all or elapsed >= self.settings.deadline_s

    def _wait_to_join(self, elapsed: float) -> None:
        absent = [name for name in self.expected() if name not in self.members]
        at_most = self.settings.patience_s if self.lock.sites else self.settings.deadline_s
        self.journal.wait(absent, elapsed, at_most, len(self.members) < self.settings.quorum)
        time.sleep(_look_s(elapsed))


def _ask_again(exchange: _Exchange[Reply], site: str, code: str | None) -> None:
    """A site that failed for the moment is asked again after a pause, 1, 2, 4 .. 30 s."""
    times = exchange.failed.get(site, ("", 0))[1]
    if code:
        exchange.failed[site] = (code, times + 1)
    exchange.again_s[site] = time.monotonic() + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**times)


def _look_s(elapsed: float) -> float:
    """Pause before the next look: never more than 2 % late, and no storm of requests in a long round."""
    return min(LONGEST_LOOK_S, max(FIRST_LOOK_S, SHARE_OF_ELAPSED * elapsed))
