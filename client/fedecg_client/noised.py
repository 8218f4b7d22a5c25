"""What a site does with each task of a study with differential privacy: four kinds of thing leave, each paid for first.

In:  the site's workplace, a task, the weights it carries. Out: the reply and, after training, the new weights.
Called by the ClientApp in the place of `work`; data and network are opened as they are there (`opened`).

Guarantees:
    Everything in a reply that depends on a patient is a release of `fedecg.privacy` (the update: `dp_steps`; sums:
    `releases`), and what it costs is in the ledger, on the disk, before it is computed. Counts, losses, steps and
    pair counts stay at home; a log hazard that is not a number is no error, which would tell of a patient.
    A task that comes again gets the reply that was kept, byte for byte (`outbox`); if none was finished, the work is
    done anew, with new noise, as a new spend, for which the budget must have room.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedecg.config import SiteSettings, StudySettings, load_site, parse_settings
from fedecg.errors import CohortError
from fedecg.evaluation import RiskTimeGrid
from fedecg.federation.documents import HazardDocument, LedgerHead, Part
from fedecg.federation.noised import (
    NoisedEvaluateReply,
    NoisedSurveyReply,
    evaluate_spends,
    is_look,
    noised_edges,
    survey_spends,
    train_spends,
)
from fedecg.federation.spent import NoisedSums, SpendDocument
from fedecg.federation.tasks import EvaluateTask, SurveyTask, Task, TrainReply, TrainTask
from fedecg.federation.transfer import encoded
from fedecg.fingerprint import code_fingerprint
from fedecg.model import Network, to_vector
from fedecg.objectives import exit_bin, first_bin
from fedecg.privacy.accountant import Noise, Spend
from fedecg.privacy.dp_steps import Protection
from fedecg.privacy.ledger import Purpose
from fedecg.privacy.releases import noised_events, noised_hazard_sums, noised_histogram, refuse_several
from fedecg.training import SiteData, log_hazards, train_align, train_survival
from fedecg_client import work
from fedecg_client.budget import noise_here, spend_here
from fedecg_client.opened import Weights, opened, statements, trained_names
from fedecg_client.workplace import Workplace, phase_of

__all__ = ["evaluate", "is_private", "survey", "train"]

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

SUMMED: tuple[Part, ...] = ("train", "validation", "test")  # parts of which sums leave

log = logging.getLogger("fedecg.client")


def is_private(task: Task) -> bool:
    """Whether the task's study has differential privacy of patients."""
    return parse_settings(StudySettings, task.settings).privacy.mode == "sample"


def survey(place: Workplace, task: SurveyTask, weights: Weights) -> tuple[NoisedSurveyReply, None]:
    """Noised events and hazard sums of the training part; nothing is trained."""
    desk = _Desk.open(place, task, weights)
    spends = survey_spends(desk.noise)
    head = desk.spend(spends)
    reply = NoisedSurveyReply(
        site=desk.site.name,
        train_events=desk.events("train", desk.noise.train_sums),
        train_exp_sums=desk.hazard_sums("train", desk.noise.train_sums),
        spends=_documents(spends),
        ledger=head,
    )
    return reply, None


def train(place: Workplace, task: TrainTask, weights: Weights) -> tuple[TrainReply, Weights]:
    """One local round of DP-SGD; every `hazard-every` rounds hazard sums under the weights that came."""
    desk = _Desk.open(place, task, weights)
    settings, site, network = desk.settings, desk.site, desk.network
    names = trained_names(network, settings, task.stage)
    received = to_vector(network, names)
    spends = train_spends(settings, task.stage, task.round, desk.noise)
    head = desk.spend(spends)
    due = any(spend.mechanism == "hazard" for spend in spends)
    sums = desk.hazard_sums("train", desk.noise.train_sums) if due else None
    protection = Protection.of(settings.privacy, desk.noise.training)
    vectors = statements(settings)
    if task.stage == "align":
        trained = train_align(network, site, settings, task.round, vectors, place.watch, dp=protection)
    else:
        baseline = work.baseline_of(_hazard_of(task, settings, site.name))
        trained = train_survival(
            network, site, settings, task.round, baseline, place.watch, vectors, dp=protection
        )
    log.info("%s: %s round %d, mean loss %.3g", site.name, task.stage, task.round, trained.loss)
    reply = TrainReply(
        site=site.name,
        round=task.round,
        patients=0,
        events=0,
        steps=0,
        loss=None,
        code_fingerprint=code_fingerprint(),
        noised=NoisedSums(spends=_documents(spends), train_exp_sums=sums),
        ledger=head,
    )
    return reply, encoded(to_vector(network, names), received, settings.federation.transfer)


def evaluate(place: Workplace, task: EvaluateTask, weights: Weights) -> tuple[NoisedEvaluateReply, None]:
    """A noised histogram of each part asked for; with validation, if no look, the sums of the baseline that ships."""
    desk = _Desk.open(place, task, weights)
    grid, noise = work.evaluation_grid(task.grid), desk.noise
    look = is_look(task)
    spends = evaluate_spends(task.parts, noise, look=look)
    head = desk.spend(spends)
    asked = "validation" in task.parts and not look
    scales: dict[Part, float] = {"validation": noise.validation, "test": noise.test}
    reply = NoisedEvaluateReply(
        site=desk.site.name,
        cells={part: desk.cells(part, grid, scales[part]) for part in task.parts},
        validation_events=desk.events("validation", noise.validation) if asked else None,
        validation_exp_sums=desk.hazard_sums("validation", noise.validation) if asked else None,
        spends=_documents(spends),
        ledger=head,
    )
    return reply, None


@dataclass(frozen=True, eq=False)
class _Desk:
    """A task's data, network and noise; what it gives is noised, and has been paid for if `spend` was called."""

    place: Workplace
    own: SiteSettings
    task: Task
    site: SiteData
    network: Network
    settings: StudySettings
    noise: Noise

    @staticmethod
    def open(place: Workplace, task: Task, weights: Weights) -> _Desk:
        """Open everything that can fail before anything is spent.

        Raises:
            PolicyError: as `noise_here`; FECG-439 a patient in two rows of a part. CohortError: FECG-440 late entries
                that the study does not provide for.
        """
        own = load_site(place.folder / "site.toml")
        site, network, settings = opened(place.folder, task, weights)
        _refuse_late_entries(site, settings)
        for part in SUMMED:
            refuse_several(site.cohort.patient[site.rows(part)])
        noise = noise_here(place.folder, own, settings, task.run)
        return _Desk(place, own, task, site, network, settings, noise)

    def spend(self, spends: Sequence[Spend]) -> LedgerHead:
        """Write it down; afterwards, and not before, it may be computed."""
        purpose = Purpose(self.settings.name, self.task.run, phase_of(self.task), self.task.round)
        return LedgerHead.of(spend_here(self.place.folder, self.own, purpose, spends))

    def events(self, part: Part, noise_multiplier: float) -> list[float]:
        """(ii)"""
        rows = self.site.rows(part)
        edges_days = noised_edges(self.settings)
        last = exit_bin(self.site.follow_up_days(rows), edges_days)
        patient, event = self.site.cohort.patient[rows], self.site.events(rows)
        released = noised_events(event, last, len(edges_days), patient, part, noise_multiplier)
        return [float(value) for value in released.values]

    def hazard_sums(self, part: Part, noise_multiplier: float) -> list[float]:
        """(iii)"""
        rows = self.site.rows(part)
        edges_days = noised_edges(self.settings)
        event, last = self.site.events(rows), exit_bin(self.site.follow_up_days(rows), edges_days)
        first = first_bin(self.site.entry_days(rows), event, last, edges_days)
        privacy = self.settings.privacy
        released = noised_hazard_sums(
            self._scores(rows),
            last,
            len(edges_days),
            privacy.hazard_clip,
            self.site.cohort.patient[rows],
            part,
            noise_multiplier,
            first if privacy.entry_times else None,
        )
        return [float(value) for value in released.values]

    def cells(self, part: Part, grid: RiskTimeGrid, noise_multiplier: float) -> list[float]:
        """(iv)"""
        rows = self.site.rows(part)
        released = noised_histogram(
            self.site.follow_up_days(rows),
            self.site.events(rows),
            self._scores(rows),
            grid,
            self.site.cohort.patient[rows],
            part,
            noise_multiplier,
        )
        return [float(value) for value in released.values.ravel()]

    def _scores(self, rows: Rows) -> Floats:
        return log_hazards(self.network, self.site, rows, finite=False)


def _hazard_of(task: TrainTask, settings: StudySettings, site: str) -> HazardDocument | None:
    """The baseline of all, or that of this site's own noised sums."""
    if settings.survival.loss == "cox-pooled" and settings.survival.baseline == "site":
        return task.own_hazards.get(site)
    return task.hazard


def _refuse_late_entries(site: SiteData, settings: StudySettings) -> None:
    late = int(np.sum(site.entry_days(np.arange(len(site.cohort))) > 0))
    if late and not settings.privacy.entry_times:
        raise CohortError(
            "FECG-440",
            "column entry_days of the cohort table",
            found=f"{late} of {len(site.cohort)} patients who enter after their ECG",
            expected="0, in a study with privacy.entry-times = false",
            fix="Leave them out, or ask the coordinator for entry-times = true (hazard sums: sqrt 2 of the noise).",
        )


def _documents(spends: Sequence[Spend]) -> list[SpendDocument]:
    return [SpendDocument.of(spend) for spend in spends]
