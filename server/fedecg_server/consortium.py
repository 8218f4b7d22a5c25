"""The sites of a study as the server reaches them: one exchange with all of them, bounded waits.

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
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

from flwr.app import Message, RecordDict

from fedecg.config import Stage
from fedecg.errors import FederationError
from fedecg.federation.documents import LedgerHead
from fedecg.federation.messages import reply_sha256, size_bytes, told_head
from fedecg_server.attendance import Attendance
from fedecg_server.exchange import COMES_BACK, Asked, Exchange, Gathered, ask_again, look_s
from fedecg_server.heads import Heads

__all__ = ["Consortium"]

Reply = TypeVar("Reply")

UNUSUAL_S = 10.0  # beyond twice its usual time: a site is said to be waited for
USUAL_OF = 5  # exchanges of a kind whose median time is a site's usual one


@dataclass
class Consortium(Attendance):
    """The sites of a study: those that have joined, and what is asked of them."""

    received: dict[str, str] = field(default_factory=dict)  # site -> sha256 of its reply to the last exchange
    accepted: dict[str, str] = field(
        default_factory=dict
    )  # the same, once a checkpoint holds what it brought
    ledgers: dict[str, LedgerHead] = field(default_factory=dict)  # site -> farthest head of its ledger seen
    keep_ledgers: Callable[[Heads], None] = lambda _: None  # called with every new one
    usual_s: dict[tuple[str, str], list[float]] = field(default_factory=dict)  # (site, kind) -> last times
    _asked: dict[str, Asked] = field(default_factory=dict)  # by message id: tasks that are out
    _exchanges: int = 0

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
        exchange = Exchange(
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
            time.sleep(look_s(exchange.elapsed_s))
        self.received = {site: arrived[site] for site in gathered.replies}
        return self._closed(exchange)

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

    def _over(self, exchange: Exchange[Reply]) -> bool:
        still_open = exchange.open
        if not still_open:
            return True
        if exchange.enough_s is None:
            possible = len(exchange.gathered.replies) + len(still_open)
            hopeless = possible < self.settings.quorum and exchange.at_most_s is None
            return hopeless or exchange.elapsed_s >= self._allowed_s(exchange)
        working = any(asked.exchange == exchange.number for asked in self._asked.values())
        return not working or exchange.elapsed_s >= self._allowed_s(exchange)

    def _allowed_s(self, exchange: Exchange[Reply]) -> float:
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

    def _is_waiting(self, exchange: Exchange[Reply]) -> bool:
        """Whether those at work are too few for the quorum, or take longer than they usually do."""
        working = {asked.site for asked in self._asked.values() if asked.exchange == exchange.number}
        if len(exchange.gathered.replies) + len(working) < self.settings.quorum:
            return True
        times = [self.usual_s.get((site, exchange.kind)) for site in working]
        if not times or not all(times):
            return False
        return exchange.elapsed_s > 2 * max(median(time_s) for time_s in times if time_s) + UNUSUAL_S

    def _closed(self, exchange: Exchange[Reply]) -> Gathered[Reply]:
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

    def _send(self, exchange: Exchange[Reply]) -> None:
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
                self._asked[identity] = Asked(site, exchange.kind, now, exchange.number)
                exchange.gathered.bytes += size
                self.journal.mark(site, "working")
            else:
                ask_again(exchange, site, None)

    def _pull(self, exchange: Exchange[Reply]) -> dict[str, str]:
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

    def _take(self, exchange: Exchange[Reply], asked: Asked, message: Message) -> bool:
        """Whether the reply was accepted."""
        site, gathered = asked.site, exchange.gathered
        took_s = time.monotonic() - asked.at_s
        self._note_ledger(site, message)
        if message.has_error() and message.metadata.src_node_id != self.members[site].node:
            ask_again(exchange, site, None)  # Flower itself answers for a node that has gone
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
            self.keep_ledgers(self.ledgers)

    def _reject(self, exchange: Exchange[Reply], site: str, code: str) -> None:
        if code in COMES_BACK:
            ask_again(exchange, site, code)
        else:
            exchange.gathered.rejected[site] = code
        self.journal.mark(site, "rejected", code)
        self.journal.event("rejected", site=site, code=code, kind=exchange.kind)
