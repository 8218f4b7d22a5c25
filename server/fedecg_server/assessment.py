"""The final evaluation: its plan from what the coordinator knows, and the check of what the sites answer.

In:  settings, time and risk grids, the shipped baseline, replies. Out: the plan that every site gets; checked sums.
Called by `study` once, with the chosen weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedecg.config import StudySettings
from fedecg.evaluation import AssessmentPlan, RiskTimeGrid, SiteSums, assessment_plan, check_site_sums
from fedecg.federation.documents import RiskMoments
from fedecg.federation.hazard import pooled_moments
from fedecg.federation.sums import AssessReply
from fedecg.objectives import Baseline, public_grid

__all__ = ["checked_sums", "study_plan"]


def study_plan(
    settings: StudySettings, grid: RiskTimeGrid, moments: Sequence[RiskMoments], baseline: Baseline
) -> AssessmentPlan:
    """What every site of a study is asked; see `fedecg.evaluation.assessment_plan`.

    Args:
        settings: the study.
        grid: cuts of time and risk of the concordances.
        moments: of the log hazard on every site's validation part.
        baseline: the hazard that ships with the model.
    """
    edges_days = public_grid(settings.survival.grid_days, settings.survival.horizon_days)
    return assessment_plan(settings.evaluation, grid, edges_days, pooled_moments(moments), baseline)


def checked_sums(plan: AssessmentPlan, site: str, reply: AssessReply, *, sites: int = 1) -> SiteSums:
    """A site's sums, in the plan's shapes and free of contradictions; those of several sites where sums are masked.

    Raises:
        FederationError: FECG-503, FECG-521..527, FECG-533.
    """
    sums = reply.sums(plan)
    check_site_sums(sums, plan, site, sites)
    return sums
