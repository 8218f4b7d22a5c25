"""A study from the first greeting to the last figure: join, align, survive, choose, evaluate.

In:  a Flower grid, the settings, a run folder. Out: files in the run folder. Called by the ServerApp.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from secrets import token_hex
from typing import Any

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedecg.config import Stage, StudySettings, settings_sha256
from fedecg.errors import FedecgError, RunError
from fedecg.federation.documents import PartCounts
from fedecg.federation.hazard import HazardState, check_events
from fedecg.federation.lock import StudyLock
from fedecg.federation.masked import refuse_unmaskable
from fedecg.federation.noised import refuse_more_than_noise
from fedecg.federation.noised_hazard import NoisedHazard
from fedecg.federation.rounds import RoundRecord, alignment_notes, alignment_summary, validation_entry
from fedecg.fingerprint import code_fingerprint
from fedecg.model import Network, build_network, load_aligned, load_vector, tensors_of_stage, to_vector
from fedecg.progress import Progress
from fedecg.text import load_bank
from fedecg_server.array_file import Stored
from fedecg_server.attendance import Names
from fedecg_server.concluded import Concluded
from fedecg_server.conclusion import Conclusion
from fedecg_server.consortium import Consortium
from fedecg_server.journal import Journal
from fedecg_server.lock import study_lock
from fedecg_server.masked import MaskedSums
from fedecg_server.noised import NoisedConclusion, spent_by_sites
from fedecg_server.questions import Questions, concordance_of
from fedecg_server.run_folder import RunFolder
from fedecg_server.run_state import BestDocument, RunState, read_state, write_state
from fedecg_server.shelf import Shelved, shelve
from fedecg_server.stability import Book, Repeats
from fedecg_server.stage import AlignRounds, Candidate, StageRounds, SurvivalRounds, repeat_label

__all__ = ["Study", "run_study"]

Vector = NDArray[np.float32]

STAGES: tuple[Stage, ...] = ("align", "survival")
LABELS = {"align": "alignment rounds", "survival": "survival rounds"}
NOT_COMPARED = float("-inf")


def run_study(
    grid: Grid,
    settings: StudySettings,
    folder: RunFolder,
    progress: Progress,
    names: Names | None = None,
    site_keys: Mapping[str, str] | None = None,
) -> None:
    """Run both stages, or what is left of them, and write what came out; `result.json` is written last.

    Args:
        grid: the Flower grid of the run.
        settings: of the study.
        folder: of the run; a resumable one goes on from its checkpoint.
        progress: says how far it is.
        names: node id -> registered name; None: whoever connects (simulations).
        site_keys: name -> fingerprint of its key.

    Raises:
        FederationError: too few sites, no events, or a round below the quorum.
        RunError: FECG-520, FECG-546 a run that cannot be resumed.
        SettingsError, ModelError: FECG-560, FECG-386 what differential privacy rules out.
    """
    refuse_more_than_noise(settings)
    study = Study(grid, settings, folder, progress, names, site_keys or {})
    try:
        study.resume_or_begin()
        study.join()
        study.align()
        result = study.conclude(*study.survive())
        folder.finish(result, settings)
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
    site_keys: Mapping[str, str] = field(default_factory=dict)
    records: list[RoundRecord] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    trained: dict[str, Shelved] = field(default_factory=dict)  # stage -> weights after its last round
    norms: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # stage -> site -> of its updates
    done: dict[str, int] = field(default_factory=dict)  # stage -> rounds that a checkpoint holds
    survey: dict[str, Any] = field(default_factory=dict)  # a SurveyReply, or a NoisedSurveyReply
    late_survey: dict[str, Any] = field(default_factory=dict)  # of sites that came in the survival stage
    resumed: dict[str, Shelved] = field(default_factory=dict)  # arrays of a checkpoint
    best: Candidate | None = None
    initial: Shelved | None = None  # weights with which alignment began
    survival_start: Shelved | None = None
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
        self.run = token_hex(8)
        registered = [] if self.names is None else self.names().values()
        self.lock: StudyLock = study_lock(settings, registered, self.site_keys)
        self.journal = Journal(self.folder.path)
        self.consortium = Consortium(
            self.grid, settings.federation, self.lock, self.journal, self.progress, self.names, self.run
        )
        masked = settings.privacy.sums == "masked"
        self.masked = MaskedSums(settings, self.consortium) if masked else None
        self.questions = Questions(settings, self.consortium, self.progress, masked=self.masked)

    @property
    def private(self) -> bool:
        """Whether the study has differential privacy of patients."""
        return self.settings.privacy.mode == "sample"

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
        self.questions.concluded = Concluded(self.folder.path if self.folder.resumable else None, self.run)
        self.journal.head = {"study": self.settings.name, "run": self.run, "lock": self.lock.sha256()}
        self.journal.event("start" if found is None else "resume", run=self.run, lock=self.lock.sha256())
        self.journal.write()

    def _resume(self, state: RunState, arrays: dict[str, Shelved]) -> None:
        # The list of sites is the run's own: whoever was added since takes part in the next one.
        kept = {"sites": state.lock.sites, "site_keys": state.lock.site_keys}
        expected = self.lock.model_copy(update=kept)
        if state.lock != expected:
            raise RunError(
                "FECG-520",
                "checkpoint of the run",
                found="other settings, another code bank or another version of fedecg than now",
                expected="those with which the run began",
                fix="Restore study.toml and the installed version, or begin a new run: fedecg-server start --new.",
            )
        self.run, self.lock, self.consortium.lock = state.run, expected, expected
        self.consortium.run = state.run
        self.records = [RoundRecord.of(entry) for entry in state.records]
        self.folder.resume(self.records)
        self.journal.resume(self.records)
        self.seconds, self.norms = dict(state.seconds), dict(state.norms)
        self.consortium.accepted, self.consortium.refused = dict(state.accepted), dict(state.refused)
        self.consortium.ledgers = dict(state.ledgers)
        self.consortium.usual_s = {
            (site, kind): times for site, kinds in state.usual_s.items() for kind, times in kinds.items()
        }
        self.survey, self.questions.parts = dict(state.survey), dict(state.parts)
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
            FederationError: FECG-513 two sites of one name; FECG-507 fewer sites than the quorum; FECG-512 no events;
                FECG-564 too few for masked sums. SettingsError: FECG-565 settings that they rule out.
        """
        federation = self.settings.federation
        if self.masked is not None:
            refuse_unmaskable(self.settings)
        self.journal.enter("join")
        if len(list(self.grid.get_node_ids())) < federation.quorum:
            self.progress.say(f"waiting for {federation.quorum} sites")
        self.consortium.join()
        members = self.consortium.members.values()
        if self.masked is not None:
            self.masked.begin()
            parts = [self.masked.parts.get("train")]
        else:
            parts = [member.joined.parts.get("train") for member in members]
        if not self.private:  # else nobody has said how many there are
            check_events(sum(part.events for part in parts if part), len(members))

    def align(self) -> None:
        """Stage 1: alignment pretraining; the network then holds what was learned."""
        self.initial = self._shelved("align")
        start = self.resumed.pop("align", self.initial)
        rounds = AlignRounds(
            self.settings, self.consortium, self._keep, partial(self._save, "align", None), masked=self.masked
        )
        load_vector(self.network, self._names("align"), self._rounds(rounds, start).whole())

    def survive(self) -> tuple[HazardState, Candidate]:
        """Stage 2: survey, Cox rounds, validation of the last weights; returns what validation chose."""
        start = self.survival_start = self._shelved("survival")
        surveyed = not self.survey
        if surveyed:
            self.journal.enter("survey")
            self.survey = dict(self.questions.survey(start))
        hazard = self._hazard()
        for site, reply in self.late_survey.items():
            hazard.admit(site, reply, self.questions.parts[site])
        if surveyed:
            self._save("survival", hazard, 0, start)
        if "cumulative" in self.resumed:
            hazard.restore(self.resumed["cumulative"].whole(), self.resumed["risk_cuts"].whole())
        rounds = SurvivalRounds(
            self.settings,
            self.consortium,
            self._keep,
            partial(self._save, "survival", hazard),
            masked=self.masked,
            hazard=hazard,
        )
        rounds.best = self.best
        rounds.survey_newcomers = partial(self._survey_newcomers, hazard)
        self._survival = rounds
        if not self.settings.survival.rounds and not self.settings.align.rounds:
            self.progress.warn("no round of either stage: the figures are those of an untrained network")
        rounds.current = self._rounds(rounds, self.resumed.pop("survival", start)).whole()
        return hazard, self._judge_last(rounds)

    def _hazard(self) -> HazardState:
        if self.private:
            return NoisedHazard(self.settings, self.survey)
        return HazardState(self.settings, self.survey, self.questions.parts)

    def _judge_last(self, rounds: SurvivalRounds) -> Candidate:
        """Validate the weights of the last round, too; returns what validation chose, without validation the last."""
        if self.private:
            return rounds.consider(self.settings.survival.rounds, None, [])
        replies = self.questions.evaluate(rounds.hazard, rounds.current, ["validation"])
        validation = validation_entry(concordance_of(replies, "validation", rounds.hazard))
        number = self.settings.survival.rounds
        stage = repeat_label("validation", rounds.repeat) if rounds.repeat else "validation"
        names = self.questions.answered or sorted(replies)
        last = RoundRecord(stage, number, names, names, validation=validation)
        last.weights_evaluated = number
        self.folder.keep(last)
        if not rounds.repeat:
            self.journal.c_index = validation
        return rounds.consider(number, validation, [reply.risk for reply in replies.values()])

    def _survey_newcomers(self, hazard: HazardState, vector: Vector) -> None:
        newcomers: dict[str, Any] = dict(self.questions.survey_newcomers(hazard.events, vector))
        for site, reply in newcomers.items():
            self.late_survey[site] = reply
            hazard.admit(site, reply, self.questions.parts[site])

    def _save(self, stage: Stage, hazard: HazardState | None, done: int, vector: Vector | Shelved) -> None:
        """Where the study stands after a round; arrays that are not trained any more stay as they were."""
        if not self.folder.resumable:
            return
        accepted = self.consortium.received
        arrays: dict[str, Stored] = {**self.trained, stage: vector}
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
            parts=self.questions.parts,
            survey=self.survey,
            late_survey=self.late_survey,
            best=best,
            norms=self.norms,
            accepted=accepted,
            ledgers=self.consortium.ledgers,
            usual_s=_by_site(self.consortium.usual_s),
            refused=self.refused,
            seconds=self.seconds,
            records=[record.entry() for record in self.records],
        )
        write_state(self.folder.path, state, arrays)
        self.consortium.accepted = accepted  # only now: what was acknowledged must not be lost

    def conclude(self, hazard: HazardState, best: Candidate) -> dict[str, Any]:
        """Evaluate the best weights once, on validation and test; write the model; return the result."""
        start, other_s = time.monotonic(), sum(self.seconds.values())
        load_vector(self.network, self._names("survival"), best.vector.whole())
        if isinstance(hazard, NoisedHazard):
            last = NoisedConclusion(
                self.settings, self.folder, self.questions, self.network, self.bank, hazard, best.vector
            )
            evaluation = last.ship()
            self.seconds["evaluation"] = time.monotonic() - start
            return self._result(best, evaluation) | {"privacy": self._privacy(last)}
        end = Conclusion(self.settings, self.folder, self.questions, self.network, self.bank, hazard, best)
        evaluation = end.ship()
        end.assess()
        if self.settings.evaluation.explain:
            end.explain(self._repeats())
        if self.settings.evaluation.baselines and self.initial is not None:
            end.compare(self.initial)
        trained_s = sum(self.seconds.values()) - other_s  # again, with other seeds
        self.seconds["evaluation"] = time.monotonic() - start - trained_s
        return self._result(best, evaluation)

    def _result(self, best: Candidate, evaluation: dict[str, Any]) -> dict[str, Any]:
        survival = [record for record in self.records if record.stage == "survival"]
        exchanged = sum(record.bytes for record in survival) / max(sum(len(r.expected) for r in survival), 1)
        incomplete = any(record.missing or record.rejected or record.late for record in self.records)
        return {
            "status": "completed-partial" if self.refused or incomplete else "completed",
            "run": self.run,
            "lock-sha256": self.lock.sha256(),
            "sites": [self._site_entry(name) for name in sorted(self.consortium.members)],
            "refused": self.refused,
            "parts-of-all-sites": _of_all(self.masked),
            "rounds": {
                stage: sum(r.stage == stage and not r.repeated for r in self.records) for stage in STAGES
            },
            "best-round": best.rounds,
            "alignment": alignment_summary(self.records),
            "evaluation": evaluation,
            "privacy": {"mode": self.settings.privacy.mode, "sums": self.settings.privacy.sums, "sites": []},
            "bytes-per-round": exchanged,
            "seconds": {stage: round(took, 3) for stage, took in self.seconds.items()},
            "code-fingerprint": code_fingerprint(),
            "settings-sha256": settings_sha256(self.settings),
        }

    def _privacy(self, end: NoisedConclusion) -> dict[str, Any]:
        """Mode, and what the study cost each site, as far as its replies have come."""
        joined = {name: member.joined for name, member in self.consortium.members.items()}
        budgets = {name: reply.budget for name, reply in joined.items() if reply.budget is not None}
        sites = spent_by_sites(budgets, {**self.survey, **self.late_survey}, self.records, end.spends)
        privacy = self.settings.privacy
        return {"mode": privacy.mode, "sums": privacy.sums, "unit": "patient", "sites": sites}

    def _rounds(self, rounds: StageRounds, start: Vector | Shelved) -> Shelved:
        label, title = rounds.label, LABELS[rounds.stage]
        rounds.norms = self.norms.setdefault(label, {})
        self._counted_s = time.monotonic()
        title = f"{title}, seed {rounds.repeat}" if rounds.repeat else title
        with self.progress.task(title, rounds.schedule.rounds) as self._advance:
            vector = rounds.run(np.asarray(start), self.done.get(label, 0))
            self.trained[label] = shelve(vector, self.folder.path)
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
        for line in alignment_notes(record):
            self.progress.warn(line)
        if record.repeated:
            self.progress.warn(f"{record.stage} round {record.round} repeated with a fresh baseline hazard")
        self._advance(record.round, _note(record))

    def _repeats(self) -> Repeats:
        """The study's training, ready to be done again with other seeds."""
        assert self.survival_start is not None

        def survey(vector: Vector, repeat: int) -> HazardState:
            replies: dict[str, Any] = dict(self.questions.survey(vector, repeat))
            return HazardState(self.settings, replies, {site: self.questions.parts[site] for site in replies})

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
            Book(self.questions.concluded, self.folder, self.records, self.seconds),
        )

    def _site_entry(self, name: str) -> dict[str, Any]:
        if self.masked is not None:  # only what all have together is known
            return {"name": name}
        parts = self.consortium.members[name].joined.parts
        if self.private:
            return {"name": name, "patients": None, "events": None, "parts": {}}
        known = not any(counts.withheld for counts in parts.values())
        return {
            "name": name,
            "patients": sum(counts.patients for part, counts in parts.items() if part != "align")
            if known
            else None,
            "events": sum(part.events for part in parts.values()) if known else None,
            "parts": {part: _part_entry(counts) for part, counts in parts.items()},
        }

    def _names(self, stage: Stage) -> tuple[str, ...]:
        return tensors_of_stage(self.network, self.settings, stage)

    def _vector(self, stage: Stage) -> Vector:
        return to_vector(self.network, self._names(stage))

    def _shelved(self, stage: Stage) -> Shelved:
        return shelve(self._vector(stage), self.folder.path)


def _of_all(masked: MaskedSums | None) -> dict[str, Any] | None:
    """Patients and events by part where no site's own are known."""
    return None if masked is None else {part: counts.model_dump() for part, counts in masked.parts.items()}


def _by_site(times: dict[tuple[str, str], list[float]]) -> dict[str, dict[str, list[float]]]:
    out: dict[str, dict[str, list[float]]] = {}
    for (site, kind), seconds in times.items():
        out.setdefault(site, {})[kind] = seconds
    return out


def _note(record: RoundRecord) -> str:
    if not record.loss:
        return "no figures leave the sites"
    loss = sum(record.loss.values()) / len(record.loss)
    stratified = (record.validation or {}).get("stratified")
    return f"loss {loss:.3f}" + (f", validation C {stratified:.3f}" if stratified else "")


def _part_entry(counts: PartCounts) -> dict[str, int | None]:
    """What a site withholds is not known, and no nought."""
    return {
        "patients": None if counts.withheld else counts.patients,
        "events": None if counts.withheld else counts.events,
    }
