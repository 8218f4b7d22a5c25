"""A study from the first greeting to the last figure: join, align, survive, choose, evaluate.

In:  a Flower grid, the settings, a run folder. Out: files in the run folder. Called by the ServerApp.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from flwr.serverapp import Grid

from fedecg.config import StudySettings
from fedecg.errors import FedecgError
from fedecg.federation.few_sites import refuse_few_sites
from fedecg.federation.hazard import HazardState, check_events
from fedecg.federation.masked import refuse_unmaskable
from fedecg.federation.noised import refuse_more_than_noise
from fedecg.federation.noised_hazard import NoisedHazard
from fedecg.federation.rounds import RoundRecord, alignment_notes, validation_entry
from fedecg.model import load_vector
from fedecg.progress import Progress
from fedecg.report.privacy_section import site_level_lines
from fedecg_server.attendance import Names
from fedecg_server.conclusion import Conclusion
from fedecg_server.noised import NoisedConclusion
from fedecg_server.outcome import nothing_to_evaluate
from fedecg_server.questions import concordance_of
from fedecg_server.run_folder import RunFolder
from fedecg_server.shelf import Shelved, shelve
from fedecg_server.stability import Book, Repeats
from fedecg_server.stage import AlignRounds, Candidate, StageRounds, SurvivalRounds, repeat_label
from fedecg_server.study_result import STAGES, privacy_entry, study_result
from fedecg_server.study_state import StudyState, Vector

__all__ = ["Study", "run_study"]

LABELS = {"align": "alignment rounds", "survival": "survival rounds"}
NO_THRESHOLDS = (
    "masked sums: the sites' thresholds are not held on totals, and a site that misses an exchange gives away how many "
    "patients and events it has"
)


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
        for line in site_level_lines(result) if folder.resumable else ():  # a simulation prints its summary
            progress.say(line)
        study.journal.end(str(result["status"]))
    except FedecgError as error:
        folder.fail(error)
        study.journal.end("failed", error.code)
        raise


@dataclass
class Study(StudyState):
    """The stages of a study, one after the other."""

    _counted_s: float = 0.0  # up to when the seconds of a stage are counted

    def join(self) -> None:
        """Ask every node who it is; names must be different and the code the same.

        Raises:
            FederationError: FECG-513 two sites of one name; FECG-507 fewer sites than the quorum; FECG-512 no events;
                FECG-563, FECG-564 too few for differential privacy of sites, for masked sums. SettingsError: FECG-565
                settings that masks rule out.
        """
        federation = self.settings.federation
        if self.lock.sites:
            refuse_few_sites(self.settings, len(self.lock.sites))
        if self.masked is not None:
            refuse_unmaskable(self.settings)
        self.journal.enter("join")
        if len(list(self.grid.get_node_ids())) < federation.quorum:
            self.progress.say(f"waiting for {federation.quorum} sites")
        self.consortium.join()
        members = self.consortium.members.values()
        self.releases.sites = len(self.lock.sites) or len(members)
        if forced := refuse_few_sites(self.settings, self.releases.sites):
            self.progress.warn(forced)
        self._tell_at_the_start()
        if self.masked is not None:
            self.masked.begin()
            parts = [self.masked.parts.get("train")]
        else:
            parts = [member.joined.parts.get("train") for member in members]
        if not self.private:  # else nobody has said how many there are
            check_events(sum(part.events for part in parts if part), len(members))

    def _tell_at_the_start(self) -> None:
        """What is planned to be spent, and what is not protected; also in status.json, where a supervisor reads it."""
        if self.settings.privacy.mode == "client":
            self.journal.notes = [
                note for note in (self.releases.planned(), self.releases.weakness()) if note
            ]
        if self.masked is not None:
            self.journal.notes.append(NO_THRESHOLDS)
        members = self.consortium.members.items()
        if note := nothing_to_evaluate({name: member.joined.parts for name, member in members}):
            self.journal.notes.append(note)
        for note in self.journal.notes:
            self.progress.warn(note)

    def align(self) -> None:
        """Stage 1: alignment pretraining; the network then holds what was learned."""
        self.initial = self._shelved("align")
        start = self.resumed.pop("align", self.initial)
        rounds = AlignRounds(
            self.settings,
            self.consortium,
            self._keep,
            partial(self._save, "align", None),
            masked=self.masked,
            remembered=self.memory_of("align"),
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
            remembered=self.memory_of("survival"),
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
            return study_result(self, best, evaluation) | {"privacy": privacy_entry(self, last)}
        end = Conclusion(self.settings, self.folder, self.questions, self.network, self.bank, hazard, best)
        evaluation = end.ship()
        end.assess()
        if self.settings.evaluation.explain:
            end.explain(self._repeats())
        if self.settings.evaluation.baselines and self.initial is not None:
            end.compare(self.initial)
        trained_s = sum(self.seconds.values()) - other_s  # again, with other seeds
        self.seconds["evaluation"] = time.monotonic() - start - trained_s
        return study_result(self, best, evaluation)

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
        for line in alignment_notes(record, self.records[:-1]):
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
            self.memory_of,
        )


def _note(record: RoundRecord) -> str:
    if not record.loss:
        return "no figures leave the sites"
    loss = sum(record.loss.values()) / len(record.loss)
    stratified = (record.validation or {}).get("stratified")
    return f"loss {loss:.3f}" + (f", validation C {stratified:.3f}" if stratified else "")
