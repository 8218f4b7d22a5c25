"""The plan of an evaluation, from the settings and what is public: mean and spread of the log hazard, the baseline.

In:  `[evaluation]` of the settings, grids, two moments, the model's baseline. Out: `AssessmentPlan`.
Called by the coordinator of a study, and by `fedecg.prediction` where one hospital evaluates a finished model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort import SUBGROUPS
from fedecg.config import EvaluationSettings
from fedecg.evaluation.assessment import AssessmentPlan
from fedecg.evaluation.calibration import FARTHEST
from fedecg.evaluation.grid import RiskTimeGrid, risk_grid
from fedecg.objectives import Baseline

__all__ = ["DAYS_A_YEAR", "assessment_plan"]

CALIBRATION_GROUPS = 10
DAYS_A_YEAR = 365.25

Float64 = NDArray[np.float64]


def assessment_plan(
    settings: EvaluationSettings,
    grid: RiskTimeGrid,
    edges_days: Float64,
    moments: tuple[float, float],
    baseline: Baseline,
) -> AssessmentPlan:
    """What every site is asked.

    Groups of risk have cuts at the quantiles of a normal log hazard with the mean and spread given: about equally
    large, and as public as those two.

    Args:
        settings: horizons, number of groups, tau of Uno's C.
        grid: cuts of time and risk of the concordances.
        edges_days: (B,) public grid of the life tables, days, rising from 0; the horizons are added to it.
        moments: mean and standard deviation of the log hazard.
        baseline: the hazard that ships with the model.
    """
    horizons = np.array(settings.horizons_years) * DAYS_A_YEAR
    mean, spread = moments
    return AssessmentPlan(
        grid=grid,
        edges_days=np.union1d(edges_days, horizons),
        group_cuts=risk_grid(mean, spread, settings.risk_groups),
        calibration_cuts=risk_grid(mean, spread, CALIBRATION_GROUPS),
        horizons_days=horizons,
        tau_days=settings.tau_years * DAYS_A_YEAR,
        centre=float(np.clip(mean, -FARTHEST, FARTHEST)),
        subgroups=SUBGROUPS,
        baseline=baseline,
        min_at_risk=settings.min_at_risk,
    )
