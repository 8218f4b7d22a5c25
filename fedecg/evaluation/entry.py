"""An evaluation as a document of JSON, from which reports and tables are made.

In:  the plan, each site's checked sums. Out: `assessment.json`.
Called by the coordinator of a study, and by `fedecg.prediction` where one hospital evaluates a finished model;
`plain_json` also by `fedecg.explanation`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from fedecg.evaluation.assessment import AssessmentPlan, SiteSums, assess
from fedecg.evaluation.power import detectable_difference

__all__ = ["assessment_entry", "plain_json"]


def assessment_entry(plan: AssessmentPlan, part: str, sites: Mapping[str, SiteSums]) -> dict[str, Any]:
    """All figures as they are written to assessment.json; NaN and infinity become null.

    Args:
        plan: what was asked.
        part: of the cohorts, "test" or "validation".
        sites: site name -> checked sums; who withholds all of them is named under "withheld" and nowhere else.
    """
    withheld = {name: one.withheld for name, one in sites.items() if one.withheld}
    evaluated = {name: one for name, one in sites.items() if "concordance" not in one.withheld}
    result = assess(evaluated or sites, plan.horizons_days)
    pooled = result.concordance
    # Two unrelated risks of the same patients, each with the error of the stratified C.
    paired_se = math.sqrt(2) * pooled.stratified_se
    smallest = detectable_difference(pooled.stratified, pooled.events, pooled.patients, paired_se=paired_se)
    smallest = replace(smallest, approximate=True)
    asked = {
        "part": part,
        "horizons-days": plan.horizons_days,
        "group-cuts": plan.group_cuts,
        "calibration-cuts": plan.calibration_cuts,
        "min-at-risk": plan.min_at_risk,
        "minimal-detectable-difference": smallest,
    }
    told = {"withheld": withheld} if withheld else {}
    return {**plain_json(asked), **plain_json(result), **plain_json(told)}


def plain_json(value: object) -> Any:
    """Dataclasses, arrays and numbers as JSON has them; names of fields in kebab-case, keys (sites) as they are.

    NaN and infinity become null.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {
            field.name.replace("_", "-"): plain_json(getattr(value, field.name)) for field in fields(value)
        }
    if isinstance(value, Mapping):
        return {str(name): plain_json(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray):
        return plain_json(value.tolist())
    if isinstance(value, list | tuple):
        return [plain_json(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
