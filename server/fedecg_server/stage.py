"""How a stage's rounds run: tasks out, replies checked, added up by site name, weights on.

In:  study settings, the sites that have joined, a flat vector. Out: the vector after the last round, a record a round.
An update is checked when it comes and put on disk until all are there, so that memory does not grow with the sites.
`AlignRounds` and `SurvivalRounds` are run by the study, one after the other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from flwr.app import Message, MessageType
from numpy.typing import NDArray

from fedecg.config import Stage, StageSettings, StudySettings
from fedecg.errors import FederationError
from fedecg.federation import aggregation
from fedecg.federation.documents import ALL, JoinedPart, RiskMoments
from fedecg.federation.hazard import HazardState
from fedecg.federation.messages import pack, read_reply
from fedecg.federation.noised import check_train
from fedecg.federation.noised_hazard import NoisedHazard
from fedecg.federation.participation import taking_part
from fedecg.federation.rounds import RoundRecord, check_quorum
from fedecg.federation.tasks import TrainReply, TrainTask
from fedecg.federation.transfer import decoded
from fedecg_server.between_rounds import BetweenRounds
from fedecg_server.consortium import Consortium
from fedecg_server.exchange import Gathered
from fedecg_server.masked import MaskedSums, Opened
from fedecg_server.shelf import Shelved, shelve
from fedecg_server.train_checks import check_asked, check_joined

__all__ = ["AlignRounds", "Answer", "Candidate", "StageRounds", "SurvivalRounds", "repeat_label"]

Vector = NDArray[np.float32]
MAX_ATTEMPTS = 3


def repeat_label(stage: str, repeat: int) -> str:
    """A stage that is trained again with another seed, or its validation, as rounds.json names it."""
    return f"{stage}, seed {repeat}"


@dataclass(frozen=True)
class Answer:
    """A site's reply, its update on disk, and how far that has moved the weights."""

    reply: TrainReply
    update: Shelved
    norm: float


@dataclass(frozen=True)
class Candidate:
    """Weights that validation has judged: after how many rounds, their stratified C, their log-hazard moments."""

    rounds: int
    score: float
    vector: Shelved
    moments: list[RiskMoments]


@dataclass
class StageRounds(ABC):
    """Rounds of one stage.

    Args:
        settings: the study.
        consortium: the sites.
        keep: called with each round's record.
        save: called with the number of rounds that are done and the weights after them.
        norms: site -> norms of its updates so far.
        repeat: 0 = the study itself; else the stage is trained again, with another seed (`stability`).
        masked: adds up updates and sums so that nobody sees one site's; None: plain ones.
        remembered: what the algorithm keeps from round to round; None: an algorithm that keeps nothing.
    """

    stage: ClassVar[Stage]
    learned_from: ClassVar[tuple[JoinedPart, ...]] = ("train",)

    settings: StudySettings
    consortium: Consortium
    keep: Callable[[RoundRecord], None]
    save: Callable[[int, Vector], None]
    current: Vector = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    norms: dict[str, list[float]] = field(default_factory=dict)
    repeat: int = 0
    masked: MaskedSums | None = None
    remembered: BetweenRounds | None = None

    @property
    def label(self) -> str:
        """As the book of rounds names the stage."""
        return repeat_label(self.stage, self.repeat) if self.repeat else self.stage

    @property
    def schedule(self) -> StageSettings:
        """The stage's own settings."""
        stage: StageSettings = getattr(self.settings, self.stage)
        return stage

    def run(self, vector: Vector, done: int = 0) -> Vector:
        """The rounds that are not done yet; returns the weights after the last.

        Raises:
            FederationError: FECG-507 a round below the quorum; FECG-511 a baseline that cannot be kept.
        """
        for number in range(done + 1, self.schedule.rounds + 1):
            self.consortium.journal.enter(self.label, self.schedule.rounds, number)
            vector = self.run_round(number, vector)
            self.save(number, vector)
        return vector

    def run_round(self, number: int, vector: Vector) -> Vector:
        """One round; if `digest` asked for a repetition, one more with what it learned."""
        self.current = vector
        for _ in range(MAX_ATTEMPTS):
            after = self.attempt(number)
            if after is not None:
                return after
        raise FederationError(
            "FECG-511",
            f"baseline hazard of {self.label} round {number}",
            found=f"a fit outside [1/3, 3] in {MAX_ATTEMPTS} attempts",
            expected="sum of exp(log hazard) x H0 near the number of events",
            fix="Lower [survival] learning-rate.",
        )

    def attempt(self, number: int) -> Vector | None:
        """Tasks out, replies in, weights on; None if the round must be repeated."""
        if self.masked is not None:
            return self.masked_attempt(number, self.masked)
        task, drawn, kept = self.task(number), self.drawn(number), self.memory
        carried = kept.to_send(self.current, self.shares())
        gathered = self.consortium.ask(
            MessageType.TRAIN,
            lambda: pack(task, carried),
            lambda site, message: self.read(site, number, message),
            [site for site in self.sites() if site in drawn],
        )
        self.leave_out_exploding(gathered)
        self.name_the_absent(gathered, drawn)
        record = self.record(number, gathered)
        if len(record.answered) < self.settings.federation.quorum:
            self.keep(record)
        check_quorum(record, self.settings.federation.quorum)
        replies = {site: answer.reply for site, answer in gathered.replies.items()}
        if not self.digest(record, replies):
            record.repeated = True
            self.keep(record)
            return None
        weights = {
            site: aggregation.aggregation_weight(self.settings, self.stage, reply.patients, reply.events)
            for site, reply in replies.items()
        }
        updates = {site: answer.update for site, answer in gathered.replies.items()}
        steps = {site: reply.steps for site, reply in replies.items()}
        vector = kept.next_weights(number, self.current, updates, weights, steps)
        self.keep(record)
        return vector

    def masked_attempt(self, number: int, masked: MaskedSums) -> Vector | None:
        """The same, where only the sum over the sites that answer is known."""
        opened = masked.ask(MessageType.TRAIN, self.task(number), self.current, TrainReply)
        gathered, reply = opened.gathered, opened.reply
        self.name_the_absent(gathered, self.drawn(number))
        record = self.book(number, gathered)
        record.loss = {} if reply.loss is None else {ALL: reply.loss}
        check_quorum(record, self.settings.federation.quorum)
        self.check_all(number, opened)
        if not self.digest(record, {ALL: reply}):
            record.repeated = True
            self.keep(record)
            return None
        self.keep(record)
        return self.memory.after_sum(number, self.current, opened.change)

    @property
    def memory(self) -> BetweenRounds:
        """What the algorithm keeps; made here for those that keep nothing."""
        if self.remembered is None:
            assert self.settings.privacy.mode != "client"  # the study gives those that add noise
            self.remembered = BetweenRounds(self.settings.federation, len(self.current), lambda _: ())
        return self.remembered

    def shares(self) -> dict[str, float]:
        """Site -> its weight in an average over all sites that have joined."""
        shares = {}
        for site, member in self.consortium.members.items():
            parts = [member.joined.parts[part] for part in self.learned_from if part in member.joined.parts]
            patients, events = sum(part.patients for part in parts), sum(part.events for part in parts)
            shares[site] = aggregation.aggregation_weight(self.settings, self.stage, patients, events)
        return shares

    def check_all(self, number: int, opened: Opened[TrainReply]) -> None:
        """What `check` asks of one site, of all together; each has checked its own.

        Raises:
            FederationError: FECG-509, FECG-510, FECG-515.
        """
        reply, parts = opened.reply, opened.parts
        check_asked(reply.round == number)
        learned = [parts[part] for part in self.learned_from if part in parts]
        check_joined(reply, self.consortium.lock.code_fingerprint, learned)

    def drawn(self, number: int) -> set[str]:
        """Who should take part in a round: everybody, or as many as `federation.fraction` says."""
        could = {*self.consortium.expected(), *self.sites()}
        return set(taking_part(could, self.settings.federation, self.settings.seed, self.label, number))

    def name_the_absent(self, gathered: Gathered[Any], drawn: set[str]) -> None:
        """Sites that were not asked stand in the record, too: with the code that keeps them out, if there is one.

        Args:
            drawn: who should have taken part.
        """
        should = drawn & set(self.consortium.expected())
        for site in should:
            code = self.consortium.refused.get(site, "")
            if site not in gathered.expected and code.startswith("FECG-"):
                gathered.rejected[site] = code
        gathered.expected = sorted({*gathered.expected, *should})

    @abstractmethod
    def task(self, number: int) -> TrainTask:
        """What every site is asked to do in this round."""

    def sites(self) -> list[str]:
        """Who is asked."""
        return self.consortium.expected()

    def digest(self, record: RoundRecord, replies: dict[str, TrainReply]) -> bool:
        """Take what the replies say beside the update; False throws the round away and repeats it."""
        del record, replies
        return True

    def read(self, site: str, number: int, message: Message) -> Answer:
        """A reply and its update, checked.

        Raises:
            FederationError: whatever makes the reply unusable.
            RunError: FECG-601 no room on disk for the update.
        """
        reply, update = read_reply(message, TrainReply)
        self.check(site, number, reply)
        weights = decoded(update, self.current, self.settings.federation.transfer)
        checked = aggregation.check_update(weights, len(self.current))
        norm = aggregation.update_norm(checked, self.current)
        return Answer(reply, shelve(checked, self.consortium.journal.folder), norm)

    def check(self, site: str, number: int, reply: TrainReply) -> None:
        """A reply must be this site's, of this round and of the same code.

        Raises:
            FederationError: FECG-509 another site or round; FECG-510 other code; FECG-515 more patients than joined.
        """
        check_asked(reply.site == site and reply.round == number)
        check_train(self.settings, site, reply, self.stage)
        joined = self.consortium.members[site].joined
        learned = [joined.parts[part] for part in self.learned_from if part in joined.parts]
        check_joined(reply, joined.code_fingerprint, learned)

    def leave_out_exploding(self, gathered: Gathered[Answer]) -> None:
        """Finite updates can be absurd, too: reject those far beyond the others' and the site's own.

        With differential privacy of sites they are clipped instead: who is left out may not depend on others' updates.
        """
        if self.settings.privacy.mode == "client":
            return
        lengths = {site: answer.norm for site, answer in gathered.replies.items()}
        for site in aggregation.exploding(lengths, self.norms, aggregation.norm(self.current)):
            del gathered.replies[site]
            gathered.rejected[site] = "FECG-545"
            self.consortium.journal.mark(site, "rejected", "FECG-545")
            self.consortium.journal.event("rejected", site=site, code="FECG-545", kind="train")
        for site in gathered.replies:
            self.norms.setdefault(site, []).append(lengths[site])

    def record(self, number: int, gathered: Gathered[Answer]) -> RoundRecord:
        """The round as it happened."""
        record = self.book(number, gathered)
        replies = {site: answer.reply for site, answer in gathered.replies.items()}
        record.loss = {site: reply.loss for site, reply in replies.items() if reply.loss is not None}
        record.spends = {
            site: [spend.model_dump() for spend in reply.noised.spends]
            for site, reply in replies.items()
            if reply.noised is not None
        }
        record.alignment = {
            site: answer.reply.alignment.model_dump(by_alias=True)
            for site, answer in gathered.replies.items()
            if answer.reply.alignment is not None
        }
        return record

    def book(self, number: int, gathered: Gathered[Any]) -> RoundRecord:
        """Who took part in a round, and what it cost."""
        return RoundRecord(
            stage=self.label,
            round=number,
            expected=gathered.expected,
            answered=sorted(gathered.replies),
            rejected=gathered.rejected,
            late=gathered.late,
            bytes=gathered.bytes,
            seconds=gathered.seconds,
        )

    def common(self, number: int) -> dict[str, object]:
        """What every task of the stage carries."""
        fields = {"repeat": self.repeat, "controls": self.memory.control_rounds}
        return self.consortium.task_fields(self.stage, number) | fields


class AlignRounds(StageRounds):
    """Stage 1: the update is all that comes back."""

    stage = "align"
    learned_from = ("train", "align")

    def task(self, number: int) -> TrainTask:
        """Weights and settings."""
        return TrainTask.model_validate(self.common(number))


@dataclass
class SurvivalRounds(StageRounds):
    """Stage 2: the tasks carry the baseline hazard, the replies bring its next sums and the validation counts.

    Args:
        hazard: the baseline and the grids; knows who was surveyed.
        best: weights that validation judged best so far.
        survey_newcomers: called with the weights before each round, with which it asks whoever has not been surveyed.
    """

    stage = "survival"

    hazard: HazardState = None  # type: ignore[assignment]
    best: Candidate | None = None
    survey_newcomers: Callable[[Vector], None] = lambda _: None

    def run_round(self, number: int, vector: Vector) -> Vector:
        """As every round; whoever has come since the survey is surveyed first."""
        self.survey_newcomers(vector)
        if number == self.settings.survival.freeze_rounds + 1:
            self.norms.clear()  # how far a site moves the risk head is no measure of how far it moves all
        return super().run_round(number, vector)

    def sites(self) -> list[str]:
        """Those whose events the survey has told."""
        return sorted(self.hazard.events)

    def task(self, number: int) -> TrainTask:
        """Weights, settings, the baseline hazard of one round ago and the evaluation grid."""
        fields = self.common(number) | {"hazard": self.hazard.document}
        if isinstance(self.hazard, NoisedHazard):  # nobody counts validation patients
            return TrainTask.model_validate(fields | {"own_hazards": self.hazard.own_documents()})
        return TrainTask.model_validate(fields | {"grid": self.hazard.grid_document})

    def check(self, site: str, number: int, reply: TrainReply) -> None:
        """Its sums must fit the study's grids and each other, too."""
        super().check(site, number, reply)
        if not isinstance(self.hazard, NoisedHazard):
            self.hazard.check_round(site, reply.sums)

    def check_all(self, number: int, opened: Opened[TrainReply]) -> None:
        """Its sums, and the events of the sites that have answered, must fit the study's grids, too."""
        super().check_all(number, opened)
        sums = opened.reply.sums
        self.hazard.tell_all(opened.parts, sums.train_events if sums else None)
        self.hazard.check_round(ALL, sums)

    def digest(self, record: RoundRecord, replies: dict[str, TrainReply]) -> bool:
        """Refresh the baseline from the sums of the sites that answered, and evaluate the weights that were sent."""
        moments = [replies[site].sums.risk for site in sorted(replies) if replies[site].sums]  # type: ignore[union-attr]
        usable = self.hazard.digest(record, replies)
        self.consider(record.round - 1, record.validation, moments)
        return usable

    def consider(
        self, after_rounds: int, validation: dict[str, object] | None, moments: list[RiskMoments]
    ) -> Candidate:
        """Keep the weights just evaluated if their stratified C on validation is the best so far; returns the best.

        Where validation cannot choose (`StudySettings.validation_chooses`), the last weights are taken.
        """
        stratified = (validation or {}).get("stratified")
        comparable = self.settings.validation_chooses
        score = float(stratified) if comparable and isinstance(stratified, float) else float("-inf")
        if self.best is None or score >= self.best.score:
            kept = shelve(self.current, self.consortium.journal.folder)
            self.best = Candidate(after_rounds, score, kept, moments)
        return self.best
