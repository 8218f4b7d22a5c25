"""Who is there: sites are greeted as they connect, checked, and known by name from then on.

In:  a Flower grid, the lock that sites are asked to join. Out: members by site name; who was refused, and why.
Called by the consortium, whose exchanges look at who is connected, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid

from fedecg.config import FederationSettings
from fedecg.errors import FederationError
from fedecg.federation.lock import StudyLock
from fedecg.federation.messages import pack, read_reply
from fedecg.federation.tasks import JoinReply, JoinTask
from fedecg.progress import Progress
from fedecg_server.exchange import look_s
from fedecg_server.journal import Journal

__all__ = ["Attendance", "Member", "Names"]

Names = Callable[[], Mapping[int, str]]  # node id -> the name under which its key was added

ROLL_CALL_EVERY_S = 1.0
GREET_AGAIN_S = 20.0


@dataclass(frozen=True)
class Member:
    """A site that has joined: its node and what it said of itself."""

    node: int
    joined: JoinReply


@dataclass
class Attendance:
    """The sites that have joined, and those that knock.

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
    _greeted: dict[str, int] = field(default_factory=dict)  # by message id: nodes that were greeted
    _greet_s: dict[int, float] = field(default_factory=dict)  # node -> not to be greeted before
    _online: set[int] = field(default_factory=set)
    _called_s: float = float("-inf")

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
            self._wait_to_join(elapsed, enough_s)
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

    def expected(self) -> list[str]:
        """Who should take part: the sites of the lock that are still registered; without a list, whoever has joined."""
        registered = set(self.lock.sites) if self.names is None else set(self.names().values())
        return sorted(set(self.members) | (set(self.lock.sites) & registered))

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

    def _wait_to_join(self, elapsed: float, enough_s: float | None) -> None:
        absent = [name for name in self.expected() if name not in self.members]
        if enough_s is not None:  # the quorum is there: only the grace is left
            at_most = enough_s + self.settings.grace_s
        else:
            at_most = self.settings.patience_s if self.lock.sites else self.settings.deadline_s
        self.journal.wait(absent, elapsed, at_most, len(self.members) < self.settings.quorum)
        time.sleep(look_s(elapsed))
