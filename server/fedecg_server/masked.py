"""Masked sums at the coordinator: keys once a run, then two messages a sum, of which it learns the total alone.

In:  a task, weights. Out: one reply that stands for all sites that answered (`ALL`), and the sum of their updates.
Called by the study, its questions and its rounds in place of the exchange of plain replies. What is guaranteed, and
what is not: `fedecg.privacy.masking`.

Who takes part is settled when the run begins, or is resumed: a site that comes later has no key that the others know,
and takes part from the next run on. A site that is lost in any exchange is back in the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Generic, TypeVar, cast

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray

from fedecg.config import Section, Stage, StudySettings
from fedecg.errors import FederationError
from fedecg.federation.aggregation import aggregation_weight
from fedecg.federation.documents import JoinedPart, PartCounts
from fedecg.federation.masked import (
    CensusReply,
    CensusTask,
    KeysReply,
    KeysTask,
    MaskedReply,
    UnmaskReply,
    UnmaskTask,
    as_bytes,
    parted_vector,
    read_total,
)
from fedecg.federation.masking_terms import KeyEntry, Masking, signed_by
from fedecg.federation.messages import pack, read_reply
from fedecg.federation.tasks import Task, TrainReply
from fedecg.privacy.fixed_point import MOST_SHARES, update_of_words
from fedecg.privacy.masking import FEWEST_SITES, Circle, Opening, Words, added, opened_sum, threshold_of
from fedecg_server.consortium import Consortium
from fedecg_server.exchange import Gathered

__all__ = ["MaskedSums", "Opened"]

Reply = TypeVar("Reply", bound=Section)
Weights = NDArray[np.float32]
UNLIKE = "FECG-567"
LEARNED_FROM: Mapping[Stage, tuple[JoinedPart, ...]] = {"align": ("train", "align"), "survival": ("train",)}


@dataclass(frozen=True, eq=False)
class Opened(Generic[Reply]):
    """A sum.

    Attributes:
        reply: of all sites that answered, as if of one.
        parts: their patients and events.
        change: (P,) weighted mean of how far they have moved the weights, with differential privacy of sites the sum;
            empty where nothing was trained.
        gathered: who answered the first message, who was rejected or late, bytes and seconds of both.
    """

    reply: Reply
    parts: dict[JoinedPart, PartCounts]
    change: NDArray[np.float64]
    gathered: Gathered[MaskedReply]


@dataclass
class _Running:
    """Masked words as they come: only sums are kept, one for each layout that any site has sent."""

    sums: dict[str, Words] = field(default_factory=dict)
    sites: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reply: MaskedReply, words: Words) -> None:
        """One more site's; sizes of updates belong to the layout."""
        key = f"{words.update.size} {reply.model_dump_json(include={'layout', 'same'})}"
        before = self.sums.get(key)
        self.sums[key] = words if before is None else added([before, words])
        self.sites.setdefault(key, []).append(reply.site)

    def largest(self, gathered: Gathered[MaskedReply]) -> Words | None:
        """The sum of the most sites that have sent the same kind of numbers; the others are left out, FECG-567."""
        keys = sorted(self.sites, key=lambda key: (-len(self.sites[key]), min(self.sites[key])))
        for site in (site for key in keys[1:] for site in self.sites[key]):
            del gathered.replies[site]
            gathered.rejected[site] = UNLIKE
        return self.sums[keys[0]] if keys else None


@dataclass
class MaskedSums:
    """The masked sums of one run.

    Args:
        settings: the study.
        consortium: its sites.
    """

    settings: StudySettings
    consortium: Consortium
    keys: dict[str, KeyEntry] = field(default_factory=dict)
    parts: dict[JoinedPart, PartCounts] = field(default_factory=dict)  # of all sites together

    def begin(self) -> None:
        """Ask every site for its key, then how many patients there are in all.

        Raises:
            FederationError: FECG-564 fewer than 3 sites, or than the threshold.
        """
        task = KeysTask(**self.consortium.task_fields("align", 0))
        gathered = self.consortium.ask("query.keys", lambda: pack(task), self._read_key)
        self.keys = dict(gathered.replies)
        if len(self.keys) < FEWEST_SITES:
            Circle({name: bytes.fromhex(entry.key) for name, entry in self.keys.items()})
        quorum = max(self.consortium.settings.quorum, threshold_of(len(self.keys)))
        self.consortium.settings = self.consortium.settings.model_copy(update={"quorum": quorum})
        census = CensusTask(**self.consortium.task_fields("align", 0))
        self.parts = self.ask("query.census", census, None, CensusReply).parts

    def ask(self, kind: str, task: Task, weights: Weights | None, reply: type[Reply]) -> Opened[Reply]:
        """One masked sum: words under masks, then the shares that open the sum of the sites that answered.

        Raises:
            FederationError: FECG-564 fewer sites than the threshold in either message; FECG-566, FECG-567 what came
                does not fit together; FECG-506 an update of nobody.
        """
        masking = Masking(number=token_hex(16), keys=self.keys, scale=self._scale(task.stage))
        sent, running = task.model_copy(update={"masking": masking}), _Running()
        gathered = self.consortium.ask(
            kind,
            lambda: pack(sent, weights),
            lambda site, message: self._read(sent, running, site, message),
            self.keys,
        )
        circle, masked = masking.circle(), running.largest(gathered)
        if masked is None or len(gathered.replies) < circle.threshold:
            raise _too_few(kind, gathered, circle.threshold)
        openings = self._openings(sent, gathered)
        commitments = {
            site: {name: bytes.fromhex(one) for name, one in reply.commitments.items()}
            for site, reply in gathered.replies.items()
        }
        words = opened_sum(circle, masked, commitments, openings)
        first = next(iter(gathered.replies.values()))
        total = read_total(reply, first.layout, first.same, words, len(gathered.replies))
        change = self._mean(task.stage, masking, cast(Reply, total.reply), total.update)
        return Opened(cast(Reply, total.reply), total.parts, change, gathered)

    def _openings(self, task: Task, gathered: Gathered[MaskedReply]) -> dict[str, Opening]:
        """The second message, to each site with what the others have sealed for it."""
        answered = sorted(gathered.replies)

        def content(site: str) -> UnmaskTask:
            bundles = {name: reply.bundles.get(site, "") for name, reply in gathered.replies.items()}
            fields = {name: getattr(task, name) for name in Task.model_fields}
            return UnmaskTask(**fields, answered=answered, bundles=bundles)

        tag = gathered.replies[answered[0]].tag
        shares = self.consortium.ask(
            "query.unmask",
            lambda: pack(task),
            lambda site, message: _read_opening(tag, site, message),
            answered,
            content_for=lambda site: pack(content(site)),
        )
        gathered.bytes += shares.bytes
        gathered.seconds = round(gathered.seconds + shares.seconds, 3)
        return shares.replies

    def _mean(
        self, stage: Stage, masking: Masking, reply: Section, update: NDArray[np.uint32]
    ) -> NDArray[np.float64]:
        """(P,) weighted mean of the changes, from the sum of the sites' shares of it; as `_scale` says, or the sum."""
        if not isinstance(reply, TrainReply):
            return np.zeros(0)
        weight = aggregation_weight(self.settings, stage, reply.patients, reply.events)
        if weight <= 0:
            raise FederationError(
                "FECG-506",
                "aggregation weights",
                found="0 over all sites",
                expected="at least one patient (or event, where weights are events)",
                fix='Use [federation] weight = "patients", or a loss that is a sum over patients.',
            )
        if weight > MOST_SHARES * masking.scale:
            raise FederationError(
                "FECG-567",
                "weights of masked updates",
                found=f"{weight / masking.scale:.3g} times those of all patients",
                expected=f"at most {MOST_SHARES:g}: beyond, sums may overflow",
                fix="A site's tables must not change during a study; begin a new run.",
            )
        return update_of_words(update, self.settings.privacy.masked_bound) * (masking.scale / weight)

    def _scale(self, stage: Stage) -> float:
        """Weight of all patients that a stage learns from.

        With differential privacy of sites each has weight 1, and shares of 1 in all sites' number give their sum.
        """
        if self.settings.privacy.mode == "client":
            return float(len(self.keys))
        parts = [self.parts[part] for part in LEARNED_FROM[stage] if part in self.parts]
        patients, events = sum(part.patients for part in parts), sum(part.events for part in parts)
        return aggregation_weight(self.settings, stage, patients, events)

    def _read_key(self, site: str, message: Message) -> KeyEntry:
        """A key that the site has signed with the key under which it was added."""
        reply, _ = read_reply(message, KeysReply)
        lock = self.consortium.lock
        signer = signed_by(reply.entry, lock.sha256(), self.consortium.run, site)
        if reply.site != site or (lock.site_keys and lock.site_keys.get(site) != signer.fingerprint):
            raise FederationError(
                "FECG-568",
                f"key of {site} for masked sums",
                found="another site's, or one signed with another key",
                expected="a key signed with the key under which the site was added",
                fix="If the site has renewed its key: remove it, add it again, and begin a new run.",
            )
        return reply.entry

    def _read(self, task: Task, running: _Running, site: str, message: Message) -> MaskedReply:
        """A site's reply, whose words are added to the sum."""
        reply, vector = read_reply(message, MaskedReply)
        assert task.masking is not None
        if reply.site != site or reply.tag != task.masking.tag(task.run).hex():
            raise FederationError(
                "FECG-509",
                "reply",
                found="another site's or another sum's",
                expected="the reply to this task",
            )
        running.add(reply, parted_vector(vector, reply.layout))
        return reply


def _read_opening(tag: str, site: str, message: Message) -> Opening:
    reply, _ = read_reply(message, UnmaskReply)
    if reply.site != site or reply.tag != tag:
        raise FederationError(
            "FECG-509", "shares", found="another site's or another sum's", expected="those of this sum"
        )
    own = {name: as_bytes(share) for name, share in reply.own.items()}
    pairs = {
        name: {lost: as_bytes(share) for lost, share in shares.items()}
        for name, shares in reply.pairs.items()
    }
    return Opening(own, pairs)


def _too_few(kind: str, gathered: Gathered[MaskedReply], threshold: int) -> FederationError:
    rejected = ", ".join(f"{site} ({code})" for site, code in sorted(gathered.rejected.items())) or "none"
    return FederationError(
        "FECG-564",
        f"masked sum ({kind})",
        found=f"{len(gathered.replies)} usable replies (rejected: {rejected})",
        expected=f"at least {threshold} of {len(gathered.expected)} sites",
        fix="More than two thirds of the sites of a run must answer; the sum stays closed.",
    )
