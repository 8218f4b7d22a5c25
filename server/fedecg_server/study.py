"""A study from the first greeting to the last figure: join, align, survive, choose, evaluate.

In:  a Flower grid, the settings, a run folder. Out: files in the run folder. Called by the ServerApp.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from secrets import token_hex
from typing import Any, TypeVar

import numpy as np
from flwr.app import Message, MessageType
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedecg.config import Section, Stage, StudySettings, settings_sha256
from fedecg.errors import FedecgError, FederationError, RunError
from fedecg.evaluation import GlobalConcordance, assessment_entry
from fedecg.explanation import mixes_leads
from fedecg.explanation.documents import ExplainReply, ExplainTask, joined_models, sums_of_nobody
from fedecg.explanation.entry import explanation_entry
from fedecg.explanation.verdicts import write_verdicts
from fedecg.federation.baselines import BaselinesReply, BaselinesTask
from fedecg.federation.hazard import HazardState, check_events, check_survey, federated_concordance
from fedecg.federation.lock import StudyLock
from fedecg.federation.messages import (
    EvaluateReply,
    EvaluateTask,
    Part,
    PartCounts,
    SurveyReply,
    SurveyTask,
    pack,
    read_reply,
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
from fedecg_server.baselines import baselines_entry, checked_baselines
from fedecg_server.consortium import COMES_BACK, Consortium, Names
from fedecg_server.explanation import Explained, checked_explanation, risk_cuts
from fedecg_server.journal import Journal
from fedecg_server.lock import study_lock
from fedecg_server.run_folder import RunFolder
from fedecg_server.run_state import BestDocument, RunState, read_state, write_state
from fedecg_server.shipped import shipped_baseline, shipped_population
from fedecg_server.stability import Repeats
from fedecg_server.stage import AlignRounds, Candidate, StageRounds, SurvivalRounds, repeat_label

__all__ = ["Study", "run_study"]

Vector = NDArray[np.float32]
Parts = Mapping[str, Mapping[Part, PartCounts]]
Reply = TypeVar("Reply", SurveyReply, EvaluateReply, AssessReply, ExplainReply, BaselinesReply)
Sums = TypeVar("Sums")

STAGES: tuple[Stage, ...] = ("align", "survival")
LABELS = {"align": "alignment rounds", "survival": "survival rounds"}
NOT_COMPARED = float("-inf")
NO_ANSWER = "no answer"


def run_study(
    grid: Grid,
    settings: StudySettings,
    folder: RunFolder,
    progress: Progress,
    names: Names | None = None,
) -> None:
    """Run both stages, or what is left of them, and write what came out; `result.json` is written last.

    Args:
        grid: the Flower grid of the run.
        settings: of the study.
        folder: of the run; a resumable one goes on from its checkpoint.
        progress: says how far it is.
        names: node id -> registered name; None: whoever connects (simulations).

    Raises:
        FederationError: too few sites, no events, or a round below the quorum.
        RunError: FECG-520, FECG-546 a run that cannot be resumed.
    """
    study = Study(grid, settings, folder, progress, names)
    try:
        study.resume_or_begin()
        study.join()
        study.align()
        result = study.conclude(*study.survive())
        folder.finish(result)
        study.journal.end(str(result["status"]))
    except FedecgError as error:
        folder.fail(error)
        study.journal.end("failed", error.code)
        raise


@dataclass
class Study:
    """The state that goes from stage to stage."""

    grid: Grid
    settings: StudySettings
    folder: RunFolder
    progress: Progress
    names: Names | None = None
    records: list[RoundRecord] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    trained: dict[str, Vector] = field(default_factory=dict)  # stage -> weights after its last round
    norms: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # stage -> site -> of its updates
    done: dict[str, int] = field(default_factory=dict)  # stage -> rounds that a checkpoint holds
    survey: dict[str, SurveyReply] = field(default_factory=dict)
    late_survey: dict[str, SurveyReply] = field(
        default_factory=dict
    )  # of sites that came in the survival stage
    parts: dict[str, dict[Part, PartCounts]] = field(default_factory=dict)  # of the sites that were surveyed
    resumed: dict[str, NDArray[Any]] = field(default_factory=dict)  # arrays of a checkpoint
    best: Candidate | None = None
    survival_start: Vector = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    _survival: SurvivalRounds | None = None
    _counted_s: float = 0.0  # up to when the seconds of a stage are counted

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
        self.initial = self._vector("align")
        self.run = token_hex(8)
        registered = [] if self.names is None else self.names().values()
        self.lock: StudyLock = study_lock(settings, registered)
        self.journal = Journal(self.folder.path)
        self.consortium = Consortium(
            self.grid, settings.federation, self.lock, self.journal, self.progress, self.names
        )

    @property
    def refused(self) -> dict[str, str]:
        """Site or node -> code."""
        return self.consortium.refused

    def resume_or_begin(self) -> None:
        """Take up a checkpoint if there is one, else make room for a new run.

        Raises:
            RunError: FECG-520 the checkpoint is of another study, or of other code; FECG-546 it is damaged.
        """
        found = read_state(self.folder.path) if self.folder.resumable else None
        if found is None:
            self.folder.begin(self.settings)
        else:
            self._resume(*found)
        self.journal.head = {"study": self.settings.name, "run": self.run, "lock": self.lock.sha256()}
        self.journal.event("start" if found is None else "resume", run=self.run, lock=self.lock.sha256())
        self.journal.write()

    def _resume(self, state: RunState, arrays: dict[str, NDArray[Any]]) -> None:
        # The list of sites is the run's own: whoever was added since takes part in the next one.
        expected = self.lock.model_copy(update={"sites": state.lock.sites})
        if state.lock != expected:
            raise RunError(
                "FECG-520",
                "checkpoint of the run",
                found="other settings, another code bank or another version of fedecg than now",
                expected="those with which the run began",
                fix="Restore study.toml and the installed version, or begin a new run: fedecg-server start --new.",
            )
        self.run, self.lock, self.consortium.lock = state.run, expected, expected
        self.records = [RoundRecord.of(entry) for entry in state.records]
        self.folder.resume(self.records)
        self.journal.resume(self.records)
        self.seconds, self.norms = dict(state.seconds), dict(state.norms)
        self.consortium.accepted, self.consortium.refused = dict(state.accepted), dict(state.refused)
        self.survey, self.parts = dict(state.survey), dict(state.parts)
        self.late_survey = dict(state.late_survey)
        self.done = {state.stage: state.done}
        if state.stage == "survival":
            self.done["align"] = self.settings.align.rounds
        self.resumed = arrays
        if state.best:
            score = NOT_COMPARED if state.best.score is None else state.best.score
            self.best = Candidate(state.best.rounds, score, arrays["best"], state.best.moments)
        self.progress.say(f"going on after {state.stage} round {state.done}")

    def join(self) -> None:
        """Ask every node who it is; names must be different and the code the same.

        Raises:
            FederationError: FECG-513 two sites of one name; FECG-507 fewer sites than the quorum; FECG-512 no events.
        """
        federation = self.settings.federation
        self.journal.enter("join")
        if len(list(self.grid.get_node_ids())) < federation.quorum:
            self.progress.say(f"waiting for {federation.quorum} sites")
        self.consortium.join()
        members = self.consortium.members.values()
        parts = [member.joined.parts.get("train") for member in members]
        check_events(sum(part.events for part in parts if part), len(members))

    def align(self) -> None:
        """Stage 1: alignment pretraining; the network then holds what was learned."""
        start = self.resumed.get("align", self._vector("align"))
        rounds = AlignRounds(self.settings, self.consortium, self._keep, partial(self._save, "align", None))
        load_vector(self.network, self._names("align"), self._rounds(rounds, start))

    def survive(self) -> tuple[HazardState, Candidate]:
        """Stage 2: survey, Cox rounds, validation of the last weights; returns what validation chose."""
        start = self.survival_start = self._vector("survival")
        if not self.survey:
            self._survey(start)
        hazard = HazardState(self.settings, self.survey, self.parts)
        for site, reply in self.late_survey.items():
            hazard.admit(site, reply, self.parts[site])
        if "cumulative" in self.resumed:
            hazard.restore(self.resumed["cumulative"], self.resumed["risk_cuts"])
        rounds = SurvivalRounds(
            self.settings, self.consortium, self._keep, partial(self._save, "survival", hazard), hazard=hazard
        )
        rounds.best = self.best
        rounds.survey_newcomers = partial(self._survey_newcomers, hazard)
        self._survival = rounds
        if not self.settings.survival.rounds and not self.settings.align.rounds:
            self.progress.warn("no round of either stage: the figures are those of an untrained network")
        rounds.current = self._rounds(rounds, self.resumed.get("survival", start))
        return hazard, self._judge_last(rounds)

    def _judge_last(self, rounds: SurvivalRounds) -> Candidate:
        """Validate the weights of the last round, too; returns what validation chose."""
        replies = self._evaluate(rounds.hazard, rounds.current, ["validation"])
        validation = validation_entry(_concordance(replies, "validation", rounds.hazard))
        number = self.settings.survival.rounds
        stage = repeat_label("validation", rounds.repeat) if rounds.repeat else "validation"
        last = RoundRecord(stage, number, list(replies), sorted(replies), validation=validation)
        last.weights_evaluated = number
        self.folder.keep(last)
        if not rounds.repeat:
            self.journal.c_index = validation
        return rounds.consider(number, validation, [reply.risk for reply in replies.values()])

    def _survey(self, vector: Vector) -> None:
        """Events and sums on the public grid, once a run."""
        task = SurveyTask(**self._common("survival", 0))
        self.parts = {site: dict(member.joined.parts) for site, member in self.consortium.members.items()}
        self.journal.enter("survey")
        check = partial(check_survey, self.settings, self.parts)
        self.survey = self._ask("query.survey", task, vector, SurveyReply, check)
        self.parts = {site: self.parts[site] for site in self.survey}

    def _survey_newcomers(self, hazard: HazardState, vector: Vector) -> None:
        """Events of the sites that were away at the survey; whoever does not answer soon is asked in the next round."""
        members = self.consortium.members
        away = {NO_ANSWER, *COMES_BACK}
        newcomers = [
            site
            for site in sorted(set(members) - set(hazard.events))
            if self.refused.get(site, NO_ANSWER) in away  # a survey that was rejected stays so
        ]
        if not newcomers:
            return
        task = SurveyTask(**self._common("survival", 0))
        parts = {site: dict(members[site].joined.parts) for site in newcomers}

        def read(site: str, message: Message) -> SurveyReply:
            document, _ = read_reply(message, SurveyReply)
            _check_name(site, document)
            check_survey(self.settings, parts, site, document)
            return document

        gathered = self.consortium.ask(
            "query.survey", lambda: pack(task, vector), read, newcomers, self.settings.federation.grace_s
        )
        for site, reply in gathered.replies.items():
            self.progress.say(f"{site} takes part from now on")
            self.refused.pop(site, None)
            self.late_survey[site], self.parts[site] = reply, parts[site]
            hazard.admit(site, reply, parts[site])

    def _common(self, stage: Stage, number: int) -> dict[str, Any]:
        """What every task carries."""
        return {
            "lock_sha256": self.lock.sha256(),
            "stage": stage,
            "round": number,
            "bank_sha256": self.bank.sha256,
            "settings": self.lock.settings,
            "accepted": self.consortium.accepted,
        }

    def _save(self, stage: Stage, hazard: HazardState | None, done: int, vector: Vector) -> None:
        """Where the study stands after a round; arrays that are not trained any more stay as they were."""
        if not self.folder.resumable:
            return
        arrays: dict[str, NDArray[Any]] = {**self.trained, stage: vector}
        best = None
        if hazard is not None:
            arrays |= {"cumulative": hazard.cumulative, "risk_cuts": hazard.grid.risk_cuts}
            candidate = self._survival.best if self._survival else None
            if candidate is not None:
                arrays["best"] = candidate.vector
                score = None if candidate.score == NOT_COMPARED else candidate.score
                best = BestDocument(rounds=candidate.rounds, score=score, moments=candidate.moments)
        state = RunState(
            run=self.run,
            lock=self.lock,
            stage=stage,
            done=done,
            parts=self.parts,
            survey=self.survey,
            late_survey=self.late_survey,
            best=best,
            norms=self.norms,
            accepted=self.consortium.accepted,
            refused=self.refused,
            seconds=self.seconds,
            records=[record.entry() for record in self.records],
        )
        write_state(self.folder.path, state, arrays)

    def conclude(self, hazard: HazardState, best: Candidate) -> dict[str, Any]:
        """Evaluate the best weights once, on validation and test; write the model; return the result."""
        hazard.grid = hazard.grid_for(best.moments)
        parts = self._parts()
        self.journal.enter("evaluate")
        start, other_s = time.monotonic(), sum(self.seconds.values())
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
        if self.settings.evaluation.baselines:
            self._baselines(hazard, parts[-1])
        trained_s = sum(self.seconds.values()) - other_s  # again, with other seeds
        self.seconds["evaluation"] = time.monotonic() - start - trained_s
        survival = [record for record in self.records if record.stage == "survival"]
        exchanged = sum(record.bytes for record in survival) / max(sum(len(r.expected) for r in survival), 1)
        incomplete = any(record.missing or record.rejected or record.late for record in self.records)
        return {
            "status": "completed-partial" if self.refused or incomplete else "completed",
            "run": self.run,
            "lock-sha256": self.lock.sha256(),
            "sites": [self._site_entry(name) for name in sorted(self.consortium.members)],
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

    def _rounds(self, rounds: StageRounds, start: Vector) -> Vector:
        label, title = rounds.label, LABELS[rounds.stage]
        rounds.norms = self.norms.setdefault(label, {})
        self._counted_s = time.monotonic()
        title = f"{title}, seed {rounds.repeat}" if rounds.repeat else title
        with self.progress.task(title, rounds.schedule.rounds) as self._advance:
            self.trained[label] = rounds.run(start, self.done.get(label, 0))
        return self.trained[label]

    def _keep(self, record: RoundRecord) -> None:
        """After each round: on disk, on the screen, and never a silent subset."""
        self.records.append(record)
        now = time.monotonic()
        self.seconds[record.stage] = self.seconds.get(record.stage, 0.0) + now - self._counted_s
        self._counted_s = now
        self.folder.keep(record)
        # The status tells the study's own C-index.
        self.journal.keep(record if record.stage in STAGES else replace(record, validation=None))
        for site, code in record.rejected.items():
            self.progress.warn(f"{record.stage} round {record.round}: {site} left out ({code})")
        if record.missing or record.late:
            absent = ", ".join([*record.missing, *record.late])
            self.progress.warn(f"{record.stage} round {record.round}: no answer from {absent}")
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

        def read(site: str, message: Message) -> Reply:
            document, _ = read_reply(message, reply)
            _check_name(site, document)
            check(site, document)
            return document

        gathered = self.consortium.ask(kind, lambda: pack(task, vector), read, self.parts)
        absent = [site for site in gathered.expected if site not in gathered.replies | gathered.rejected]
        failed = gathered.rejected | dict.fromkeys(absent, NO_ANSWER)
        for site, code in sorted(failed.items()):
            self.progress.warn(f"{kind}: {site} left out ({code})")
            self.refused[site] = code
        if len(gathered.replies) < self.settings.federation.quorum:
            raise FederationError(
                "FECG-507",
                kind,
                found=f"{len(gathered.replies)} usable replies",
                expected=f"at least {self.settings.federation.quorum} (federation.quorum)",
                fix=f"Left out: {', '.join(f'{site} ({code})' for site, code in sorted(failed.items()))}.",
            )
        return gathered.replies

    def _evaluate(self, hazard: HazardState, vector: Vector, parts: list[Part]) -> dict[str, EvaluateReply]:
        task = EvaluateTask(
            **self._common("survival", self.settings.survival.rounds),
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
            **self._common("survival", best.rounds),
            plan=PlanDocument.of(plan),
            part=part,
        )
        sums = self._sums("assess", task, best.vector, AssessReply, partial(checked_sums, plan))
        if sums:
            self.folder.keep_assessment(assessment_entry(plan, part, sums))

    def _explain(self, best: Candidate, part: Part) -> None:
        """Whether the attention of the chosen weights, which the network holds by now, is true."""
        repeats = self._repeats()
        others, untested = repeats.models()
        task = ExplainTask(
            **self._common("survival", best.rounds),
            part=part,
            models=1 + len(others),
            risk_cuts=risk_cuts(self.settings, best.moments),
        )
        nobody = sums_of_nobody(self.network, self.settings.seed, task.models)

        def check(site: str, reply: ExplainReply) -> Explained:
            member = self.consortium.members[site]
            return checked_explanation(self.settings, self.bank, part, nobody, member, reply)

        vector = joined_models([best.vector, *others])
        found = self._sums("explain", task, vector, ExplainReply, check)
        if not found:
            return
        sums = {site: tests for site, (tests, _) in found.items()}
        groups = {site: own for site, (_, own) in found.items()}
        mixed = mixes_leads(self.network)
        entry = explanation_entry(part, sums, mixed, groups, repeats.seeds_of, untested)
        self.folder.keep_explanation(entry)
        write_verdicts(self.folder.model, entry)

    def _baselines(self, hazard: HazardState, part: Part) -> None:
        """What each site reaches alone, and with age and sex."""
        task = BaselinesTask(**self._common("align", 0), grid=hazard.grid_document, part=part)
        check = partial(checked_baselines, hazard, part)
        replies = self._sums("baselines", task, self.initial, BaselinesReply, check)
        if replies:
            self.folder.keep_baselines(baselines_entry(hazard.grid, part, replies))

    def _repeats(self) -> Repeats:
        """The study's training, ready to be done again with other seeds."""

        def survey(vector: Vector, repeat: int) -> HazardState:
            task = SurveyTask(**self._common("survival", 0) | {"repeat": repeat})
            check = partial(check_survey, self.settings, self.parts)
            replies = self._ask("query.survey", task, vector, SurveyReply, check)
            return HazardState(self.settings, replies, {site: self.parts[site] for site in replies})

        return Repeats(
            self.settings,
            self.consortium,
            self.bank,
            self.survival_start,
            self._rounds,
            self._keep,
            survey,
            self._judge_last,
            self.progress,
        )

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
        self.journal.enter(question)

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
        members = self.consortium.members.values()
        has_test = any("test" in member.joined.parts for member in members)
        return ["validation", "test"] if has_test else ["validation"]

    def _site_entry(self, name: str) -> dict[str, Any]:
        parts = self.consortium.members[name].joined.parts
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


def _check_name(
    site: str, document: SurveyReply | EvaluateReply | AssessReply | ExplainReply | BaselinesReply
) -> None:
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
