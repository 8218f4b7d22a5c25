"""The end of a study: evaluate what validation chose, ship it, and ask the sites for every figure about it.

In:  the best weights and the baseline hazard. Out: the model, `assessment.json`, `explanation.json`, `baselines.json`.
Called by the study once its rounds are done. Once the model is saved, what fails costs figures only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fedecg.config import StudySettings
from fedecg.evaluation import assessment_entry
from fedecg.explanation import mixes_leads
from fedecg.explanation.documents import ExplainReply, ExplainTask, joined_models, sums_of_nobody
from fedecg.explanation.entry import explanation_entry
from fedecg.explanation.verdicts import write_verdicts
from fedecg.federation.baselines import BaselinesReply, BaselinesTask
from fedecg.federation.documents import Part
from fedecg.federation.hazard import HazardState
from fedecg.federation.rounds import validation_entry
from fedecg.federation.sums import AssessReply, AssessTask, PlanDocument
from fedecg.model import BaselineFile, Network, save_model
from fedecg.objectives import Baseline
from fedecg.text import Bank
from fedecg_server.assessment import checked_sums, study_plan
from fedecg_server.baselines import baselines_entry, checked_baselines
from fedecg_server.explanation import Explained, checked_explanation, risk_cuts
from fedecg_server.questions import Questions, concordance_of
from fedecg_server.run_folder import RunFolder
from fedecg_server.shelf import Shelved
from fedecg_server.shipped import shipped_baseline, shipped_population
from fedecg_server.stability import Repeats
from fedecg_server.stage import Candidate

__all__ = ["Conclusion"]


@dataclass
class Conclusion:
    """What is asked and written once the rounds are done.

    Args:
        settings: the study.
        folder: of the run.
        questions: to its sites.
        network: holds the chosen weights.
        bank: of the study.
        hazard: its grids and baseline.
        best: the chosen weights.
    """

    settings: StudySettings
    folder: RunFolder
    questions: Questions
    network: Network
    bank: Bank
    hazard: HazardState
    best: Candidate

    @property
    def parts(self) -> list[Part]:
        """Validation, and the test part where any site has one."""
        has_test = any("test" in parts for parts in self.questions.parts.values())
        return ["validation", "test"] if has_test else ["validation"]

    def ship(self) -> dict[str, Any]:
        """Evaluate once, on a grid centred on the chosen weights, and save the model; C by part.

        Raises:
            FederationError: FECG-507 fewer usable replies than the quorum.
        """
        self.questions.consortium.journal.enter("evaluate")
        self.hazard.grid = self.hazard.grid_for(self.best.moments)
        replies = self.questions.evaluate(self.hazard, self.best.vector, self.parts, self.best.rounds)
        self.shipped: BaselineFile = shipped_baseline(self.hazard, replies)
        save_model(
            self.folder.model,
            self.network,
            self.settings.signals,
            self.bank.sha256,
            self.shipped
            if any(self.shipped.cumulative_hazard)
            else None,  # of no event there is no risk to tell
            shipped_population(self.hazard, replies),
        )
        return {part: validation_entry(concordance_of(replies, part, self.hazard)) for part in self.parts}

    def assess(self) -> None:
        """Every figure of the evaluation, on the last part."""
        part = self.parts[-1]
        baseline = Baseline(np.array(self.shipped.edges_days), np.array(self.shipped.cumulative_hazard))
        plan = study_plan(self.settings, self.hazard.grid, self.best.moments, baseline)
        fields = self.questions.consortium.task_fields("survival", self.best.rounds)
        task = AssessTask(**fields, plan=PlanDocument.of(plan), part=part)
        masked = self.questions.masked
        check = partial(checked_sums, plan, sites=1 if masked is None else len(masked.keys))
        sums = self.questions.sums("assess", task, self.best.vector, AssessReply, check)
        if sums:
            entry = assessment_entry(plan, part, sums)
            if masked is not None:  # one total has no strata
                entry["log-rank-by-site"] |= {"chi-square": None, "p-value": None}
            self.folder.keep_assessment(entry)

    def explain(self, repeats: Repeats) -> None:
        """Whether the attention of the chosen weights is true.

        Args:
            repeats: trains the models of other seeds.
        """
        others, untested = repeats.models()
        part, members = self.parts[-1], self.questions.consortium.members
        task = ExplainTask(
            **self.questions.consortium.task_fields("survival", self.best.rounds),
            part=part,
            models=1 + len(others),
            risk_cuts=risk_cuts(self.settings, self.best.moments),
        )
        nobody = sums_of_nobody(self.network, self.settings.seed, task.models)

        def check(site: str, reply: ExplainReply) -> Explained:
            return checked_explanation(self.settings, self.bank, part, nobody, members[site], reply)

        vector = joined_models([self.best.vector.whole(), *(other.whole() for other in others)])
        found = self.questions.sums("explain", task, vector, ExplainReply, check)
        if not found:
            return
        sums = {site: tests for site, (tests, _) in found.items()}
        groups = {site: own for site, (_, own) in found.items()}
        mixed = mixes_leads(self.network)
        entry = explanation_entry(part, sums, mixed, groups, repeats.seeds_of, untested)
        self.folder.keep_explanation(entry)
        write_verdicts(self.folder.model, entry)

    def compare(self, initial: Shelved) -> None:
        """What each site reaches alone, and with age and sex.

        Args:
            initial: weights that alignment began with.
        """
        part = self.parts[-1]
        fields = self.questions.consortium.task_fields("align", 0)
        task = BaselinesTask(**fields, grid=self.hazard.grid_document, part=part)
        check = partial(checked_baselines, self.hazard, part)
        replies = self.questions.sums("baselines", task, initial, BaselinesReply, check)
        if replies:
            self.folder.keep_baselines(baselines_entry(self.hazard.grid, part, replies))
