"""Where a study stands: what goes from stage to stage, and what a checkpoint of it holds.

In:  a Flower grid, the settings, a run folder. Out: a study that begins, or goes on where another process stopped.
Called by the study (`study`), which runs its stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedecg.config import Stage, StudySettings
from fedecg.errors import RunInputError
from fedecg.federation.hazard import HazardState
from fedecg.federation.lock import StudyLock
from fedecg.federation.rounds import RoundRecord
from fedecg.model import (
    Network,
    Piece,
    build_network,
    learned_pieces,
    load_aligned,
    load_finished,
    tensors_of_stage,
    to_vector,
)
from fedecg.progress import Progress
from fedecg.text import load_bank
from fedecg_server.array_file import Stored
from fedecg_server.attendance import Names
from fedecg_server.between_rounds import BetweenRounds, RememberedDocument
from fedecg_server.concluded import Concluded
from fedecg_server.consortium import Consortium
from fedecg_server.heads import farther, keep_heads, read_heads
from fedecg_server.journal import Journal
from fedecg_server.lock import study_lock
from fedecg_server.masked import MaskedSums
from fedecg_server.questions import Questions
from fedecg_server.run_folder import RunFolder
from fedecg_server.run_state import BestDocument, RunState, read_state, write_state
from fedecg_server.shelf import Shelved, shelve
from fedecg_server.site_releases import SiteReleases
from fedecg_server.stage import Candidate, SurvivalRounds, repeat_label

__all__ = ["StudyState", "Vector"]

Vector = NDArray[np.float32]

NOT_COMPARED = float("-inf")


@dataclass
class StudyState:
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
    _remembered: dict[Stage, BetweenRounds] = field(default_factory=dict)
    _resumed_memory: tuple[Stage, RememberedDocument] | None = None

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
        if settings.survival.start:
            load_finished(self.network, settings.survival.start, settings.signals, self.bank.sha256)
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
        self.releases = SiteReleases(settings)

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
            RunError: FECG-520 the checkpoint is of another study, or of other code; FECG-546 it is damaged;
                FECG-547 as `read_heads`.
        """
        coordinator = self.folder.path.parent
        heads = read_heads(coordinator) if self.folder.resumable else {}
        found = read_state(self.folder.path) if self.folder.resumable else None
        self.releases.folder = self.folder.path if self.folder.resumable else None
        self.releases.resume(0 if found is None else found[0].releases)
        if found is None:
            self.folder.begin(self.settings)
        else:
            self._resume(*found)
        if self.folder.resumable:  # the sites of other studies are not told of
            own = {site: head for site, head in heads.items() if site in (self.lock.sites or heads)}
            self.consortium.ledgers = farther(self.consortium.ledgers, own)
            self.consortium.keep_ledgers = lambda seen: keep_heads(coordinator, farther(seen, heads))
        self.questions.concluded = Concluded(self.folder.path if self.folder.resumable else None, self.run)
        self.journal.head = {"study": self.settings.name, "run": self.run, "lock": self.lock.sha256()}
        self.journal.event("start" if found is None else "resume", run=self.run, lock=self.lock.sha256())
        self.journal.write()

    def _resume(self, state: RunState, arrays: dict[str, Shelved]) -> None:
        # The list of sites is the run's own: whoever was added since takes part in the next one.
        kept = {"sites": state.lock.sites, "site_keys": state.lock.site_keys}
        expected = self.lock.model_copy(update=kept)
        if state.lock != expected:
            raise RunInputError(
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
        self._resumed_memory = state.stage, state.remembered
        if state.best:
            score = NOT_COMPARED if state.best.score is None else state.best.score
            self.best = Candidate(state.best.rounds, score, arrays["best"], state.best.moments)
        self.progress.say(f"going on after {state.stage} round {state.done}")

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
        remembered = self._remembered.get(stage)
        if remembered is not None:
            arrays |= remembered.arrays()
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
            remembered=remembered.document() if remembered else RememberedDocument(),
            releases=len(self.releases.counted),
            seconds=self.seconds,
            records=[record.entry() for record in self.records],
        )
        write_state(self.folder.path, state, arrays)
        self.consortium.accepted = accepted  # only now: what was acknowledged must not be lost

    def memory_of(self, stage: Stage, repeat: int = 0) -> BetweenRounds:
        """What the algorithm remembers in a stage: of a checkpoint, or nothing yet."""
        names, schedule = self._names(stage), getattr(self.settings, stage)

        def pieces(number: int) -> tuple[Piece, ...]:
            return learned_pieces(self.network, names, schedule, number)

        document = None
        if self._resumed_memory and not repeat and self._resumed_memory[0] == stage:
            document = self._resumed_memory[1]
        arrays = None if document is None else self.resumed
        of_sites = self.settings.privacy.mode == "client"
        label = repeat_label(stage, repeat) if repeat else stage
        noise = self.releases.noise_for(label, pieces) if of_sites else None
        memory = BetweenRounds(self.settings.federation, pieces(1)[-1].stop, pieces, arrays, document, noise)
        if not repeat:
            self._remembered[stage] = memory
        return memory

    def _names(self, stage: Stage) -> tuple[str, ...]:
        return tensors_of_stage(self.network, self.settings, stage)

    def _vector(self, stage: Stage) -> Vector:
        return to_vector(self.network, self._names(stage))

    def _shelved(self, stage: Stage) -> Shelved:
        return shelve(self._vector(stage), self.folder.path)


def _by_site(times: dict[tuple[str, str], list[float]]) -> dict[str, dict[str, list[float]]]:
    out: dict[str, dict[str, list[float]]] = {}
    for (site, kind), seconds in times.items():
        out.setdefault(site, {})[kind] = seconds
    return out
