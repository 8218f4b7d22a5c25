"""The end of a study with differential privacy: noised histograms, the model, and what it cost each site.

In:  the last round's weights, the baseline hazard, the sites. Out: the model, C by part, spends by site.
Called by the study in the place of `Conclusion`. What the sites answer is all that there is: no assessment, no
explanation, no baselines.

First a look at validation patients: a histogram with public risk cuts. Those of the next follow from it, those of the
test part from both (post-processing): bins hold about equal numbers of patients wherever the log hazards came to lie.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from flwr.app import MessageType

from fedecg.config import StudySettings
from fedecg.errors import FederationError
from fedecg.evaluation import NoisedConcordance, NoisedCounts, RiskTimeGrid, noised_concordance
from fedecg.federation.documents import GridDocument, Part
from fedecg.federation.noised import NoisedEvaluateReply, NoisedSurveyReply, check_evaluation
from fedecg.federation.noised_hazard import NoisedHazard, histogram_noise, shipped_sums
from fedecg.federation.rounds import RoundRecord
from fedecg.federation.spent import Budget, SpendDocument, site_entry
from fedecg.federation.tasks import EvaluateTask
from fedecg.model import BaselineFile, Network, PopulationFile, save_model
from fedecg.objectives import Baseline
from fedecg.text import Bank
from fedecg_server.questions import Questions
from fedecg_server.run_folder import RunFolder
from fedecg_server.shelf import Shelved
from fedecg_server.shipped import merged_population

__all__ = ["NoisedConclusion", "concordance_entry", "spent_by_sites"]

PARTS: tuple[Part, ...] = ("validation", "test")

Spends = dict[str, list[SpendDocument]]


@dataclass
class NoisedConclusion:
    """What is asked and written once the rounds are done.

    Args:
        settings: the study.
        folder: of the run.
        questions: to its sites.
        network: holds the last round's weights.
        bank: of the study.
        hazard: its grids and baseline.
        vector: the same weights, to be sent.
    """

    settings: StudySettings
    folder: RunFolder
    questions: Questions
    network: Network
    bank: Bank
    hazard: NoisedHazard
    vector: Shelved
    spends: Spends = field(default_factory=dict)

    def ship(self) -> dict[str, Any]:
        """Look where the risks lie, evaluate validation, then test; save the model in between; C by part.

        Raises:
            FederationError: FECG-507 fewer usable replies than the quorum, but for test.
        """
        self.questions.consortium.journal.enter("evaluate")
        self.hazard.cut_where_risks_are(self.hazard.look, self._look())
        replies = self._ask("validation")
        figures = {"validation": self._concordance(replies, "validation")}
        baseline, variance = shipped_sums(self.settings, replies)
        save_model(
            self.folder.model,
            self.network,
            self.settings.signals,
            self.bank.sha256,
            _shipped(baseline, variance.tolist()),
            self._population(replies),
        )
        self.hazard.cut_where_risks_are(self.hazard.grid, replies)
        try:  # the model is safe: sites that cannot answer cost figures, not the study
            figures["test"] = self._concordance(self._ask("test"), "test")
        except FederationError as error:
            self.questions.progress.warn(f"no answers about the test part: {error}")
            figures["test"] = concordance_entry(
                noised_concordance([NoisedCounts(np.zeros(self.hazard.grid.shape), 0.0)])
            )
        return figures

    def _look(self) -> Mapping[str, NoisedEvaluateReply]:
        return self._asked("validation", self.hazard.look, [], look=True)

    def _ask(self, part: Part) -> Mapping[str, NoisedEvaluateReply]:
        return self._asked(part, self.hazard.grid, self.hazard.edges_days.tolist(), look=False)

    def _asked(
        self, part: Part, grid: RiskTimeGrid, edges_days: list[float], *, look: bool
    ) -> Mapping[str, NoisedEvaluateReply]:
        task = EvaluateTask(
            **self.questions.consortium.task_fields("survival", self.settings.survival.rounds),
            grid=GridDocument(time_cuts_days=grid.time_cuts_days.tolist(), risk_cuts=grid.risk_cuts.tolist()),
            edges_days=edges_days,
            parts=[part],
        )
        check = partial(check_evaluation, self.settings, grid.shape, [part], look=look)
        replies = self.questions.ask(MessageType.EVALUATE, task, self.vector, NoisedEvaluateReply, check)
        for site, reply in replies.items():
            self.spends.setdefault(site, []).extend(reply.spends)
        return replies

    def _concordance(self, replies: Mapping[str, NoisedEvaluateReply], part: Part) -> dict[str, Any]:
        tables = [
            NoisedCounts(
                np.array(replies[site].cells[part]).reshape(self.hazard.grid.shape),
                histogram_noise(replies[site]),
            )
            for site in sorted(replies)
        ]
        return concordance_entry(noised_concordance(tables))

    def _population(self, replies: Mapping[str, NoisedEvaluateReply]) -> PopulationFile | None:
        """Patients by risk bin as the noised histogram shows them, merged until noise is small against them."""
        cells = np.sum([reply.cells["validation"] for reply in replies.values()], axis=0)
        patients = np.maximum(cells.reshape(self.hazard.grid.shape).sum(axis=(0, 2)), 0.0)
        return merged_population(self.hazard.grid.risk_cuts.tolist(), np.rint(patients).astype(int).tolist())


def concordance_entry(result: NoisedConcordance) -> dict[str, Any]:
    """The keys of a federated C without noise; nothing is guaranteed, so there are no bounds."""
    return {
        "stratified": result.stratified,
        "stratified-ci-low": result.stratified_low,
        "stratified-ci-high": result.stratified_high,
        "global": result.c_index,
        "bounds": None,
        "lower": None,
        "upper": None,
        "ci-low": result.ci_low,
        "ci-high": result.ci_high,
        "events": max(0, round(result.events)),
        "few-events": result.few_events,
        "noised": True,
    }


def spent_by_sites(
    budgets: Mapping[str, Budget],
    survey: Mapping[str, NoisedSurveyReply],
    records: Iterable[RoundRecord],
    conclusion: Mapping[str, list[SpendDocument]],
) -> list[dict[str, Any]]:
    """What every site's replies cost, by phase; the survey belongs to survival training."""
    told: dict[str, Spends] = {
        site: {"align": [], "survival": [], "evaluate": []} for site in sorted(budgets)
    }
    for site, reply in survey.items():
        told[site]["survival"].extend(reply.spends)
    for record in records:
        for site, spends in record.spends.items():
            told[site][record.stage].extend(SpendDocument.model_validate(spend) for spend in spends)
    for site, spends_at_end in conclusion.items():
        told[site]["evaluate"].extend(spends_at_end)
    return [site_entry(site, budgets[site], phases) for site, phases in told.items()]


def _shipped(baseline: Baseline, variance: list[float]) -> BaselineFile:
    return BaselineFile(
        edges_days=baseline.edges_days.tolist(),
        cumulative_hazard=baseline.cumulative_hazard.tolist(),
        variance=[value if math.isfinite(value) else 0.0 for value in variance],
    )
