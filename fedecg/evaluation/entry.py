"""An evaluation as a document of JSON, from which reports and tables are made.

In:  the plan, each site's checked sums. Out: `assessment.json`.
Called by the coordinator of a study, and by `fedecg.prediction` where one hospital evaluates a finished model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np

from fedecg.evaluation.assessment import AssessmentPlan, SiteSums, assess
from fedecg.evaluation.power import detectable_difference

__all__ = ["assessment_entry"]


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
