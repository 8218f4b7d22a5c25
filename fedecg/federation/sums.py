"""The evaluation's plan and sums as documents: what the coordinator asks of every site, what each sends back.

In:  `AssessmentPlan` and `SiteSums` of the evaluation room. Out: documents that `messages` packs, and back.
Called by both sides. Every array of the sums travels flat under the name `part.field`; its shape is not sent but
follows from the plan, so that a site cannot choose it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fedecg.config import Section
from fedecg.evaluation import VERSION, AssessmentPlan, RiskTimeGrid, SiteSums, site_sums
from fedecg.federation.arrays import flat_arrays, read_arrays
from fedecg.federation.documents import CountsDocument, GridDocument, HazardDocument, Part, SignedSum
from fedecg.federation.tasks import Task
from fedecg.objectives import Baseline

__all__ = ["CONCORDANCE", "PARTS", "AssessReply", "AssessTask", "PlanDocument", "Withheld"]

Withheld = Literal["concordance", "life", "brier", "auc", "uno", "hazard", "risk", "decision", "subgroups"]
CONCORDANCE: Literal["concordance"] = "concordance"
PARTS: tuple[Withheld, ...] = ("life", "brier", "auc", "uno", "hazard", "risk", "decision", "subgroups")
# Fields that repeat the plan: known to both sides, never sent.
PUBLIC = {
    "edges_days",
    "group_cuts",
    "horizons_days",
    "risk_cuts",
    "time_cuts_days",
    "tau_days",
    "centre",
    "names",
}
SIGNED = {
    "hazard.event_sum",
    "hazard.moments",
}  # sums of centred log hazards; all others are of counts and weights


class PlanDocument(Section):
    """`fedecg.evaluation.AssessmentPlan`, field by field."""

    grid: GridDocument
    edges_days: list[float]
    group_cuts: list[float]
    calibration_cuts: list[float]
    horizons_days: Annotated[list[float], Field(min_length=1)]
    tau_days: float
    centre: float
    subgroups: list[str]
    baseline: HazardDocument
    min_at_risk: Annotated[int, Field(ge=1)]

    @staticmethod
    def of(plan: AssessmentPlan) -> PlanDocument:
        """From the evaluation room's type."""
        return PlanDocument(
            grid=GridDocument(
                time_cuts_days=plan.grid.time_cuts_days.tolist(), risk_cuts=plan.grid.risk_cuts.tolist()
            ),
            edges_days=plan.edges_days.tolist(),
            group_cuts=plan.group_cuts.tolist(),
            calibration_cuts=plan.calibration_cuts.tolist(),
            horizons_days=plan.horizons_days.tolist(),
            tau_days=plan.tau_days,
            centre=plan.centre,
            subgroups=list(plan.subgroups),
            baseline=HazardDocument(
                edges_days=plan.baseline.edges_days.tolist(),
                cumulative=plan.baseline.cumulative_hazard.tolist(),
            ),
            min_at_risk=plan.min_at_risk,
        )

    def plan(self) -> AssessmentPlan:
        """Back to the evaluation room's type.

        Raises:
            FederationError: FECG-526 cuts that do not rise.
            ModelError: FECG-321 a baseline that is none.
        """
        return AssessmentPlan(
            grid=RiskTimeGrid(np.array(self.grid.time_cuts_days), np.array(self.grid.risk_cuts)),
            edges_days=np.array(self.edges_days),
            group_cuts=np.array(self.group_cuts),
            calibration_cuts=np.array(self.calibration_cuts),
            horizons_days=np.array(self.horizons_days),
            tau_days=self.tau_days,
            centre=self.centre,
            subgroups=tuple(self.subgroups),
            baseline=Baseline(np.array(self.baseline.edges_days), np.array(self.baseline.cumulative)),
            min_at_risk=self.min_at_risk,
        )


class AssessTask(Task):
    """Evaluate given weights on one part of each site's cohort; nothing is trained."""

    plan: PlanDocument
    part: Part


class AssessReply(Section):
    """A site's sums: counts of its concordance, and every other array, flat, under `part.field`."""

    site: str
    version: Literal[1]  # of the sums: `fedecg.evaluation.VERSION`
    concordance: CountsDocument
    arrays: dict[str, list[SignedSum]]
    withheld: list[
        Withheld
    ] = []  # parts of the sums that would tell of too few patients: their noughts say nothing

    @staticmethod
    def of(site: str, sums: SiteSums, withheld: Sequence[Withheld] = ()) -> AssessReply:
        """From the evaluation room's type."""
        arrays = flat_arrays({part: getattr(sums, part) for part in PARTS}, PUBLIC)
        return AssessReply(
            site=site,
            version=VERSION,
            concordance=CountsDocument.of(sums.concordance).model_copy(
                update={"withheld": CONCORDANCE in withheld}
            ),
            arrays=arrays,
            withheld=list(withheld),
        )

    def sums(self, plan: AssessmentPlan) -> SiteSums:
        """Back to the evaluation room's type, in the shapes of the plan.

        Raises:
            FederationError: FECG-503 arrays that are missing, unknown, of another length or kind; as
                `CountsDocument.counts` and `LifeTable`.
        """
        nobody = np.zeros((0, len(plan.subgroups)), dtype=np.bool_)
        empty = site_sums(np.zeros(0), np.zeros(0), np.zeros(0), nobody, plan)
        parts = read_arrays(self.arrays, {part: getattr(empty, part) for part in PARTS}, PUBLIC, SIGNED)
        return replace(
            empty, concordance=self.concordance.counts(plan.grid), withheld=tuple(self.withheld), **parts
        )
