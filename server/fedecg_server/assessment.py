"""The final evaluation: its plan from what the coordinator knows, its figures from the sites' sums.

In:  settings, time and risk grids, the shipped baseline. Out: the plan that every site gets; `assessment.json`.
Called by `study` once, with the chosen weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np

from fedecg.config import StudySettings
from fedecg.evaluation import (
    AssessmentPlan,
    RiskTimeGrid,
    SiteSums,
    assess,
    check_site_sums,
    detectable_difference,
    risk_grid,
)
from fedecg.federation.messages import RiskMoments
from fedecg.federation.sums import AssessReply
from fedecg.objectives import Baseline, public_grid
from fedecg_server.hazard import pooled_moments

__all__ = ["assessment_entry", "assessment_plan", "checked_sums"]

CALIBRATION_GROUPS = 10
DAYS_A_YEAR = 365.25


def assessment_plan(
    settings: StudySettings, grid: RiskTimeGrid, moments: Sequence[RiskMoments], baseline: Baseline
) -> AssessmentPlan:
    """What every site is asked.

    Groups of risk have cuts at the quantiles of a normal log hazard with the validation patients' mean and spread:
    public, and about equally large.

    Args:
        settings: the study.
        grid: cuts of time and risk of the concordances.
        moments: of the log hazard on every site's validation part.
        baseline: the hazard that ships with the model.
    """
    wanted, survival = settings.evaluation, settings.survival
    horizons = np.array(wanted.horizons_years) * DAYS_A_YEAR
    mean, spread = pooled_moments(moments)
    return AssessmentPlan(
        grid=grid,
        edges_days=np.union1d(public_grid(survival.grid_days, survival.horizon_days), horizons),
        group_cuts=risk_grid(mean, spread, wanted.risk_groups),
        calibration_cuts=risk_grid(mean, spread, CALIBRATION_GROUPS),
        horizons_days=horizons,
        tau_days=wanted.tau_years * DAYS_A_YEAR,
        centre=float(np.clip(mean, -100, 100)),
        baseline=baseline,
        min_at_risk=wanted.min_at_risk,
    )


def checked_sums(plan: AssessmentPlan, site: str, reply: AssessReply) -> SiteSums:
    """A site's sums, in the plan's shapes and free of contradictions.

    Raises:
        FederationError: FECG-503, FECG-521..527, FECG-533.
    """
    sums = reply.sums(plan)
    check_site_sums(sums, plan, site)
    return sums


def assessment_entry(plan: AssessmentPlan, part: str, sites: Mapping[str, SiteSums]) -> dict[str, Any]:
    """All figures as they are written to assessment.json; NaN and infinity become null.

    Args:
        plan: what was asked.
        part: of the cohorts, "test" or "validation".
        sites: site name -> checked sums.
    """
    result = assess(sites, plan.horizons_days)
    pooled = result.concordance
    smallest = detectable_difference(pooled.stratified, pooled.events, pooled.patients)
    asked = {
        "part": part,
        "horizons-days": plan.horizons_days,
        "group-cuts": plan.group_cuts,
        "calibration-cuts": plan.calibration_cuts,
        "min-at-risk": plan.min_at_risk,
        "minimal-detectable-difference": smallest,
    }
    entry: dict[str, Any] = _plain(asked | vars(result))
    return entry


def _plain(value: object) -> Any:
    """Dataclasses, arrays and numbers as JSON has them, names in kebab-case."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name).replace("_", "-"): _plain(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
