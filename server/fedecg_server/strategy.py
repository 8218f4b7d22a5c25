"""How a stage's rounds run: tasks out, replies checked, added up by site name, weights on.

In:  study settings, the joined sites, a flat vector. Out: the vector after the last round and one record a round.
`AlignStrategy` and `SurvivalStrategy` are Flower strategies; the ServerApp runs one after the other.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from numpy.typing import NDArray

from fedecg.config import Section, Stage, StudySettings
from fedecg.errors import FederationError
from fedecg.federation import aggregation
from fedecg.federation.messages import (
    JoinReply,
    PartCounts,
    RiskMoments,
    TrainReply,
    TrainTask,
    from_record,
    pack,
    read_reply,
    size_bytes,
    to_record,
)
from fedecg.federation.rounds import RoundRecord, check_quorum
from fedecg_server.exchange import send_and_receive
from fedecg_server.hazard import HazardState

__all__ = ["AlignStrategy", "Candidate", "Member", "StageStrategy", "SurvivalStrategy", "settings_document"]

Vector = NDArray[np.float32]
Keep = Callable[[RoundRecord], None]


def settings_document(settings: StudySettings) -> dict[str, object]:
    """What a site is told of the study: all but the coordinator's own paths and what concerns a simulation."""
    return settings.model_dump(
        by_alias=True,
        exclude={"data": True, "partition": True, "federation": {"backend"}, "align": {"start"}},
    )


@dataclass(frozen=True)
class Member:
    """A site that has joined: its node and what it said of itself."""

    node: int
    joined: JoinReply


@dataclass
class Accepted:
    """Replies of one round that passed every check, by site name."""

    record: RoundRecord
    replies: dict[str, TrainReply] = field(default_factory=dict)
    updates: dict[str, Vector] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """Weights that validation has judged: after how many rounds, their stratified C, their log-hazard moments."""

    rounds: int
    score: float
    vector: Vector
    moments: list[RiskMoments]


class StageStrategy(Strategy):
    """Rounds of one stage with quorum and deadline.

    Args:
        settings: the study.
        sites: site name -> who joined under it.
        bank_sha256: the code bank that the sites must hold.
        keep: called with each round's record.
    """

    stage: ClassVar[Stage]

    def __init__(
        self, settings: StudySettings, sites: Mapping[str, Member], bank_sha256: str, keep: Keep
    ) -> None:
        self.settings, self.bank_sha256, self.keep = settings, bank_sha256, keep
        self.sites = dict(sorted(sites.items()))
        self.names = {member.node: name for name, member in self.sites.items()}
        self.current: Vector = np.zeros(0, dtype=np.float32)
        self.sent_bytes, self.sent_at_s = 0, 0.0

    @abstractmethod
    def task(self, server_round: int) -> TrainTask:
        """What every site is asked to do in this round."""

    def digest(self, accepted: Accepted) -> bool:
        """Take what the replies say beside the update; False throws the round away and repeats it."""
        del accepted
        return True

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message a site: weights and task."""
        del config, grid
        self.current = from_record(arrays)
        return self.messages(self.task(server_round), MessageType.TRAIN)

    def messages(self, task: Section, kind: str) -> list[Message]:
        """The same content to every site; each gets a record of its own."""
        out = [Message(pack(task, self.current), member.node, kind) for member in self.sites.values()]
        self.sent_bytes = sum(size_bytes(message.content) for message in out)
        self.sent_at_s = time.monotonic()
        return out

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check every reply, then average; None if the round must be repeated.

        Raises:
            FederationError: FECG-507 fewer usable replies than the quorum.
        """
        accepted = self.accept(server_round, replies)
        if len(accepted.replies) < self.settings.federation.quorum:
            self.keep(accepted.record)
        check_quorum(accepted.record, self.settings.federation.quorum)
        if not self.digest(accepted):
            accepted.record.repeated = True
            self.keep(accepted.record)
            return None, None
        weights = {
            site: aggregation.aggregation_weight(self.settings, self.stage, reply.patients, reply.events)
            for site, reply in accepted.replies.items()
        }
        combine = aggregation.COMBINE[self.settings.federation.algorithm]
        vector = combine(accepted.updates, weights)
        self.keep(accepted.record)
        return to_record(vector), None

    def accept(self, server_round: int, replies: Iterable[Message]) -> Accepted:
        """Sort replies into answered and rejected; a rejected one is named with its code and left out."""
        accepted = Accepted(RoundRecord(stage=self.stage, round=server_round, expected=list(self.sites)))
        record = accepted.record
        record.bytes = self.sent_bytes
        for message in replies:
            site = self.names.get(message.metadata.src_node_id)
            if site is None:  # Flower itself answers for a node that has gone: the site is missing
                continue
            try:
                reply, update = read_reply(message, TrainReply)
                record.bytes += size_bytes(message.content)
                self.check(site, server_round, reply)
                accepted.updates[site] = aggregation.check_update(update, len(self.current))
                accepted.replies[site] = reply
            except FederationError as error:
                record.rejected[site] = error.code
        record.seconds = round(time.monotonic() - self.sent_at_s, 3)
        record.answered = sorted(accepted.replies)
        record.loss = {site: accepted.replies[site].loss for site in record.answered}
        return accepted

    def check(self, site: str, server_round: int, reply: TrainReply) -> None:
        """A reply must be this site's, of this round and of the same code.

        Raises:
            FederationError: FECG-509 another site or round; FECG-510 other code; FECG-515 more patients than joined.
        """
        if reply.site != site or reply.round != server_round:
            raise FederationError(
                "FECG-509",
                "reply",
                found="another site's or another round's",
                expected="the reply to this round's task",
            )
        joined = self.sites[site].joined
        if reply.code_fingerprint != joined.code_fingerprint:
            raise FederationError(
                "FECG-510",
                "code of a site",
                found="another fingerprint",
                expected="the one it joined with",
                fix="Install the same version of fedecg at every site.",
            )
        train = joined.parts.get("train", PartCounts(patients=0, events=0))
        if reply.patients > train.patients or reply.events > train.events:
            raise FederationError(
                "FECG-515",
                "patients and events of a reply",
                found="more than the site joined with",
                expected=f"at most {train.patients} and {train.events}",
            )

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """None: evaluation rides on the training reply."""
        del server_round, arrays, config, grid
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """None: evaluation rides on the training reply."""
        del server_round, replies
        return None

    def summary(self) -> None:
        """Nothing is logged: the run folder says it all."""

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run the rounds; unlike Flower's own loop each wait is bounded and each round is kept."""
        del evaluate_config, evaluate_fn
        arrays, config, result = initial_arrays, train_config or ConfigRecord(), Result()
        for server_round in range(1, num_rounds + 1):
            arrays = self.run_round(grid, server_round, arrays, config, timeout)
        result.arrays = arrays
        return result

    def run_round(
        self, grid: Grid, server_round: int, arrays: ArrayRecord, config: ConfigRecord, timeout: float
    ) -> ArrayRecord:
        """One round; if `digest` asked for a repetition, one more with what it learned."""
        for _ in range(MAX_ATTEMPTS):
            messages = self.configure_train(server_round, arrays, config, grid)
            after, _ = self.aggregate_train(server_round, send_and_receive(grid, messages, timeout))
            if after is not None:
                return after
        raise FederationError(
            "FECG-511",
            f"baseline hazard of {self.stage} round {server_round}",
            found=f"a fit outside [1/3, 3] in {MAX_ATTEMPTS} attempts",
            expected="sum of exp(log hazard) x H0 near the number of events",
            fix="Lower [survival] learning-rate.",
        )


MAX_ATTEMPTS = 3


class AlignStrategy(StageStrategy):
    """Stage 1: the update is all that comes back."""

    stage = "align"

    def task(self, server_round: int) -> TrainTask:
        """Weights and settings."""
        return TrainTask(
            stage=self.stage,
            round=server_round,
            bank_sha256=self.bank_sha256,
            settings=settings_document(self.settings),
        )


class SurvivalStrategy(StageStrategy):
    """Stage 2: the tasks carry the baseline hazard, the replies bring its next sums and the validation counts."""

    stage = "survival"

    def __init__(
        self,
        settings: StudySettings,
        sites: Mapping[str, Member],
        bank_sha256: str,
        keep: Keep,
        hazard: HazardState,
    ) -> None:
        super().__init__(settings, sites, bank_sha256, keep)
        self.hazard = hazard
        self.best: Candidate | None = None

    def task(self, server_round: int) -> TrainTask:
        """Weights, settings, the baseline hazard of one round ago and the evaluation grid."""
        return TrainTask(
            stage=self.stage,
            round=server_round,
            bank_sha256=self.bank_sha256,
            settings=settings_document(self.settings),
            hazard=self.hazard.document,
            grid=self.hazard.grid_document,
        )

    def check(self, site: str, server_round: int, reply: TrainReply) -> None:
        """Its sums must fit the study's grids and each other, too."""
        super().check(site, server_round, reply)
        self.hazard.check_round(site, reply.sums)

    def digest(self, accepted: Accepted) -> bool:
        """Refresh the baseline from the sums of the sites that answered, and evaluate the weights that were sent."""
        replies = [accepted.replies[site] for site in accepted.record.answered]
        moments = [reply.sums.risk for reply in replies if reply.sums]
        usable = self.hazard.digest(accepted.record, accepted.replies)
        self.consider(accepted.record.round - 1, accepted.record.validation, moments)
        return usable

    def consider(
        self, after_rounds: int, validation: dict[str, object] | None, moments: list[RiskMoments]
    ) -> Candidate:
        """Keep the weights just evaluated if their stratified C on validation is the best so far; returns the best."""
        stratified = (validation or {}).get("stratified")
        score = float(stratified) if isinstance(stratified, float) else float("-inf")
        if self.best is None or score >= self.best.score:
            self.best = Candidate(after_rounds, score, self.current, moments)
        return self.best
