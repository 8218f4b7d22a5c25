"""A study from the first greeting to the last figure: join, align, survive, choose, evaluate.

In:  a Flower grid, the settings, a run folder. Out: files in the run folder. Called by the ServerApp.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
from flwr.app import Message, MessageType
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedecg.config import Section, Stage, StageSettings, StudySettings, settings_sha256
from fedecg.errors import FederationError
from fedecg.evaluation import GlobalConcordance, assessment_entry
from fedecg.explanation import FaithfulnessSums, mixes_leads
from fedecg.explanation.documents import ExplainReply, ExplainTask, sums_of_nobody
from fedecg.explanation.entry import explanation_entry
from fedecg.federation.messages import (
    EvaluateReply,
    EvaluateTask,
    JoinReply,
    JoinTask,
    Part,
    SurveyReply,
    SurveyTask,
    from_record,
    pack,
    read_reply,
    to_record,
)
from fedecg.federation.rounds import RoundRecord, validation_entry
from fedecg.federation.sums import AssessReply, AssessTask, PlanDocument
from fedecg.fingerprint import code_fingerprint
from fedecg.model import (
    BaselineFile,
    Network,
    build_network,
    load_aligned,
    load_vector,
    save_model,
    stage_tensors,
    to_vector,
)
from fedecg.objectives import Baseline
from fedecg.progress import Progress
from fedecg.text import load_bank
from fedecg_server.assessment import checked_sums, study_plan
from fedecg_server.exchange import send_and_receive, wait_for_nodes
from fedecg_server.explanation import checked_explanation
from fedecg_server.hazard import HazardState, check_events, check_survey, federated_concordance
from fedecg_server.run_folder import RunFolder
from fedecg_server.shipped import shipped_baseline, shipped_population
from fedecg_server.strategy import (
    AlignStrategy,
    Candidate,
    Member,
    StageStrategy,
    SurvivalStrategy,
    settings_document,
)

__all__ = ["run_study"]

Vector = NDArray[np.float32]
Reply = TypeVar("Reply", SurveyReply, EvaluateReply, AssessReply, ExplainReply)
Sums = TypeVar("Sums")

STAGES: tuple[Stage, ...] = ("align", "survival")
LABELS = {"align": "alignment rounds", "survival": "survival rounds"}


def run_study(grid: Grid, settings: StudySettings, folder: RunFolder, progress: Progress) -> None:
    """Run both stages and write what came out; `result.json` is written last.

    Raises:
        FederationError: too few sites, no events, or a round below the quorum.
    """
    folder.begin(settings)
    study = Study(grid, settings, folder, progress)
    study.join()
    study.align()
    folder.finish(study.conclude(*study.survive()))


@dataclass
class Study:
    """The state that goes from stage to stage."""

    grid: Grid
    settings: StudySettings
    folder: RunFolder
    progress: Progress
    sites: dict[str, Member] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)  # site or node -> code
    records: list[RoundRecord] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    trained: dict[str, Vector] = field(default_factory=dict)  # stage -> weights after its last round

    def __post_init__(self) -> None:
        settings = self.settings
        self.bank = load_bank(settings.align.bank)
        self.network: Network = build_network(
            settings.model,
            settings.signals.samples,
            self.bank.vectors.shape[1],
            settings.seed,
            settings.align.temperature,
            settings.survival.intercepts,
        )
        if settings.align.start:
            load_aligned(self.network, settings.align.start, settings.signals, self.bank.sha256)

    def join(self) -> None:
        """Ask every node who it is; names must be different and the code the same.

        Raises:
            FederationError: FECG-513 two sites of one name; FECG-507 fewer sites than the quorum; FECG-512 no events.
        """
        federation = self.settings.federation
        if len(list(self.grid.get_node_ids())) < federation.quorum:
            self.progress.say(f"waiting for {federation.quorum} sites, at most {federation.deadline_s:.0f} s")
        nodes = wait_for_nodes(self.grid, federation.quorum, federation.deadline_s)
        content = [Message(pack(JoinTask(study=self.settings.name)), node, "query.join") for node in nodes]
        for message in send_and_receive(self.grid, content, federation.deadline_s):
            self._admit(message)
        for name, code in self.refused.items():
            self.progress.warn(f"{name} cannot take part: {code}")
        if len(self.sites) < federation.quorum:
            raise FederationError(
                "FECG-507",
                "joined sites",
                found=f"{len(self.sites)} of {len(nodes)} nodes",
                expected=f"at least {federation.quorum} (federation.quorum)",
                fix=f"Codes of those refused: {', '.join(self.refused.values()) or 'none'}.",
            )
        parts = [member.joined.parts.get("train") for member in self.sites.values()]
        check_events(sum(part.events for part in parts if part), len(self.sites))

    def _admit(self, message: Message) -> None:
        node = message.metadata.src_node_id
        try:
            member, _ = read_reply(message, JoinReply)
            if member.code_fingerprint != code_fingerprint():
                raise FederationError(
                    "FECG-510", "code of a site", found="another fingerprint", expected="the same"
                )
        except FederationError as error:
            self.refused[f"node {node}"] = error.code
            return
        if member.site in self.sites:
            raise FederationError(
                "FECG-513",
                "site names",
                found=f"{member.site} twice",
                expected="one node a site",
                fix="Give every site its own name in site.toml.",
            )
        self.sites[member.site] = Member(node, member)

    def align(self) -> None:
        """Stage 1: alignment pretraining; the network then holds what was learned."""
        start = self._vector("align")
        strategy = AlignStrategy(self.settings, self.sites, self.bank.sha256, self._keep)
        load_vector(self.network, self._names("align"), self._rounds(strategy, start))

    def survive(self) -> tuple[HazardState, Candidate]:
        """Stage 2: survey, Cox rounds, validation of the last weights; returns what validation chose."""
        start = self._vector("survival")
        task = SurveyTask(
            stage="survival",
            round=0,
            bank_sha256=self.bank.sha256,
            settings=settings_document(self.settings),
        )
        parts = {site: member.joined.parts for site, member in self.sites.items()}
        check = partial(check_survey, self.settings, parts)
        survey = self._ask("query.survey", task, start, SurveyReply, check)
        hazard = HazardState(self.settings, survey, parts)
        surveyed = {site: self.sites[site] for site in survey}
        strategy = SurvivalStrategy(self.settings, surveyed, self.bank.sha256, self._keep, hazard)
        if not self.settings.survival.rounds and not self.settings.align.rounds:
            self.progress.warn("no round of either stage: the figures are those of an untrained network")
        strategy.current = self._rounds(strategy, start)
        replies = self._evaluate(hazard, strategy.current, ["validation"])
        validation = validation_entry(_concordance(replies, "validation", hazard))
        rounds = self.settings.survival.rounds
        last = RoundRecord("validation", rounds, list(self.sites), sorted(replies), validation=validation)
        last.weights_evaluated = rounds
        self.folder.keep(last)
        moments = [reply.risk for reply in replies.values()]
        return hazard, strategy.consider(rounds, validation, moments)

    def conclude(self, hazard: HazardState, best: Candidate) -> dict[str, Any]:
        """Evaluate the best weights once, on validation and test; write the model; return the result."""
        hazard.grid = hazard.grid_for(best.moments)
        parts = self._parts()
        start = time.monotonic()
        replies = self._evaluate(hazard, best.vector, parts)
        shipped = shipped_baseline(hazard, replies)
        load_vector(self.network, self._names("survival"), best.vector)
        save_model(
            self.folder.model,
            self.network,
            self.settings.signals,
            self.bank.sha256,
            shipped,
            shipped_population(hazard, replies),
        )
        self._assess(hazard, best, parts[-1], shipped)
        if self.settings.evaluation.explain:
            self._explain(best, parts[-1])
        self.seconds["evaluation"] = time.monotonic() - start
        survival = [record for record in self.records if record.stage == "survival"]
        exchanged = sum(record.bytes for record in survival) / max(sum(len(r.expected) for r in survival), 1)
        partial = bool(self.refused) or any(record.missing or record.rejected for record in self.records)
        return {
            "status": "completed-partial" if partial else "completed",
            "sites": [self._site_entry(name) for name in sorted(self.sites)],
            "refused": self.refused,
            "rounds": {
                stage: sum(r.stage == stage and not r.repeated for r in self.records) for stage in STAGES
            },
            "best-round": best.rounds,
            "evaluation": {part: validation_entry(_concordance(replies, part, hazard)) for part in parts},
            "bytes-per-round": exchanged,
            "seconds": {stage: round(took, 3) for stage, took in self.seconds.items()},
            "code-fingerprint": code_fingerprint(),
            "settings-sha256": settings_sha256(self.settings),
        }

    def _rounds(self, strategy: StageStrategy, start: Vector) -> Vector:
        settings: StageSettings = getattr(self.settings, strategy.stage)
        began = time.monotonic()
        with self.progress.task(LABELS[strategy.stage], settings.rounds) as self._advance:
            deadline_s = self.settings.federation.deadline_s
            result = strategy.start(self.grid, to_record(start), settings.rounds, deadline_s)
        self.seconds[strategy.stage] = time.monotonic() - began
        self.trained[strategy.stage] = from_record(result.arrays)
        return self.trained[strategy.stage]

    def _keep(self, record: RoundRecord) -> None:
        """After each round: on disk, on the screen, and never a silent subset."""
        self.records.append(record)
        self.folder.keep(record)
        for site, code in record.rejected.items():
            self.progress.warn(f"{record.stage} round {record.round}: {site} left out ({code})")
        if record.missing:
            self.progress.warn(
                f"{record.stage} round {record.round}: no answer from {', '.join(record.missing)}"
            )
        if record.repeated:
            self.progress.warn(f"{record.stage} round {record.round} repeated with a fresh baseline hazard")
        self._advance(record.round, _note(record))

    def _ask(
        self,
        kind: str,
        task: Section,
        vector: Vector,
        reply: type[Reply],
        check: Callable[[str, Reply], None],
    ) -> dict[str, Reply]:
        """One exchange without training; sites that fail are warned of and left out."""
        messages = [Message(pack(task, vector), member.node, kind) for member in self.sites.values()]
        names = {member.node: name for name, member in self.sites.items()}
        replies: dict[str, Reply] = {}
        failed: dict[str, str] = dict.fromkeys(self.sites, "no answer")
        for message in send_and_receive(self.grid, messages, self.settings.federation.deadline_s):
            site = names.get(message.metadata.src_node_id)
            if site is None:  # Flower itself answers for a node that has gone
                continue
            try:
                document, _ = read_reply(message, reply)
                _check_name(site, document)
                check(site, document)
                replies[site] = document
                del failed[site]
            except FederationError as error:
                failed[site] = error.code
        for site, code in failed.items():
            self.progress.warn(f"{kind}: {site} left out ({code})")
            self.refused[site] = code
        if len(replies) < self.settings.federation.quorum:
            raise FederationError(
                "FECG-507",
                kind,
                found=f"{len(replies)} usable replies",
                expected=f"at least {self.settings.federation.quorum} (federation.quorum)",
                fix=f"Left out: {', '.join(f'{site} ({code})' for site, code in failed.items())}.",
            )
        return dict(sorted(replies.items()))

    def _evaluate(self, hazard: HazardState, vector: Vector, parts: list[Part]) -> dict[str, EvaluateReply]:
        task = EvaluateTask(
            stage="survival",
            round=self.settings.survival.rounds,
            bank_sha256=self.bank.sha256,
            settings=settings_document(self.settings),
            grid=hazard.grid_document,
            edges_days=hazard.shipped_edges_days.tolist(),
            parts=parts,
        )
        return self._ask(
            MessageType.EVALUATE, task, vector, EvaluateReply, partial(hazard.check_evaluation, parts)
        )

    def _assess(self, hazard: HazardState, best: Candidate, part: Part, shipped: BaselineFile) -> None:
        """Every figure of the chosen weights on one part."""
        baseline = Baseline(np.array(shipped.edges_days), np.array(shipped.cumulative_hazard))
        plan = study_plan(self.settings, hazard.grid, best.moments, baseline)
        task = AssessTask(
            stage="survival",
            round=best.rounds,
            bank_sha256=self.bank.sha256,
            settings=settings_document(self.settings),
            plan=PlanDocument.of(plan),
            part=part,
        )
        sums = self._sums("assess", task, best.vector, AssessReply, partial(checked_sums, plan))
        if sums:
            self.folder.keep_assessment(assessment_entry(plan, part, sums))

    def _explain(self, best: Candidate, part: Part) -> None:
        """Whether the attention of the chosen weights, which the network holds by now, is true."""
        task = ExplainTask(
            stage="survival",
            round=best.rounds,
            bank_sha256=self.bank.sha256,
            settings=settings_document(self.settings),
            part=part,
        )
        nobody = sums_of_nobody(self.network, self.settings.seed)

        def check(site: str, reply: ExplainReply) -> FaithfulnessSums:
            return checked_explanation(self.settings, part, nobody, self.sites[site], reply)

        sums = self._sums("explain", task, best.vector, ExplainReply, check)
        if sums:
            self.folder.keep_explanation(explanation_entry(part, sums, mixes_leads(self.network)))

    def _sums(
        self,
        question: str,
        task: Section,
        vector: Vector,
        reply: type[Reply],
        checked: Callable[[str, Reply], Sums],
    ) -> dict[str, Sums]:
        """One more exchange of sums. The model is safe by now: sites that cannot answer cost figures, not the study."""
        sums: dict[str, Sums] = {}

        def check(site: str, document: Reply) -> None:
            sums[site] = checked(site, document)

        try:
            self._ask(f"query.{question}", task, vector, reply, check)
        except FederationError as error:
            self.progress.warn(f"no answers to {question}: {error}")
            return {}
        return sums

    def _parts(self) -> list[Part]:
        """Validation, and the test part where any site has one."""
        has_test = any("test" in member.joined.parts for member in self.sites.values())
        return ["validation", "test"] if has_test else ["validation"]

    def _site_entry(self, name: str) -> dict[str, Any]:
        parts = self.sites[name].joined.parts
        return {
            "name": name,
            "patients": sum(part.patients for part in parts.values()),
            "events": sum(part.events for part in parts.values()),
            "parts": {part: counts.model_dump() for part, counts in parts.items()},
        }

    def _names(self, stage: Stage) -> tuple[str, ...]:
        return stage_tensors(self.network, stage, getattr(self.settings, stage).reconstruction > 0)

    def _vector(self, stage: Stage) -> Vector:
        return to_vector(self.network, self._names(stage))


def _check_name(site: str, document: SurveyReply | EvaluateReply | AssessReply | ExplainReply) -> None:
    if document.site != site:
        raise FederationError(
            "FECG-509", "reply", found="another site's name", expected="the one it joined with"
        )


def _concordance(replies: Mapping[str, EvaluateReply], part: Part, hazard: HazardState) -> GlobalConcordance:
    counts = {site: reply.counts[part] for site, reply in replies.items() if part in reply.counts}
    return federated_concordance(counts, hazard.grid)


def _note(record: RoundRecord) -> str:
    loss = sum(record.loss.values()) / max(len(record.loss), 1)
    stratified = (record.validation or {}).get("stratified")
    return f"loss {loss:.3f}" + (f", validation C {stratified:.3f}" if stratified else "")
