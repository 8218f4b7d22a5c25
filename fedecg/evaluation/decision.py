"""Net benefit of acting on a predicted risk, from additive sums: the decision curve.

In:  at a site: outcomes, predicted probabilities by each horizon, the study's public thresholds.
Out: `DecisionSums`, which add up over sites, and `DecisionCurve`. Called by `assessment`.

At threshold p whoever has a predicted risk of at least p is treated. With the patients of the sites that contribute at
a horizon (`censoring`), weighted by their site's own censoring,
    net benefit = true positives / n - false positives / n * p / (1 - p),
where n is the weight of all cases and controls. To treat nobody has 0; to treat all has it at a predicted risk of 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedecg.evaluation.censoring import (
    MIN_AT_RISK,
    HorizonGroups,
    added,
    checked_horizons,
    horizon_groups,
    ratio,
)
from fedecg.evaluation.inputs import checked_outcomes

__all__ = ["THRESHOLDS", "DecisionCurve", "DecisionSums", "decision_curve", "decision_sums"]

Float64 = NDArray[np.float64]

# Public and fixed: 0.5 % to 50 %, closer where heart failure risks are.
THRESHOLDS: Float64 = np.concatenate([np.arange(1, 20) * 0.005, np.arange(10, 51) * 0.01])
THRESHOLDS.setflags(write=False)


@dataclass(frozen=True, eq=False)
class DecisionSums:
    """One site's treated patients at K horizons and H thresholds; all but the horizons add up with `+`.

    Attributes:
        horizons_days: (K,) days, public.
        case_weight, control_weight: (K,) weight of all cases and of all controls, in patients.
        treated_cases: (K, H) weight of the cases with a predicted risk at or above each of `THRESHOLDS`.
        treated_controls: (K, H) the same of the controls.
    """

    horizons_days: Float64
    case_weight: Float64
    control_weight: Float64
    treated_cases: Float64
    treated_controls: Float64

    def __add__(self, other: DecisionSums) -> DecisionSums:
        return added(self, other, plan=("horizons_days",))


@dataclass(frozen=True, eq=False)
class DecisionCurve:
    """Net benefit at K horizons and H thresholds; NaN at a horizon at which no site contributes.

    Attributes:
        horizons_days: (K,) days.
        thresholds: (H,) predicted risks from which on a patient is treated.
        model: (K, H) net benefit of treating by the model, in true positives a patient.
        treat_all: (K, H) that of treating everybody; treating nobody has 0.
    """

    horizons_days: Float64
    thresholds: Float64
    model: Float64
    treat_all: Float64


def decision_sums(
    time: ArrayLike,
    event: ArrayLike,
    probability: Float64,
    horizons_days: ArrayLike,
    min_at_risk: int = MIN_AT_RISK,
) -> DecisionSums:
    """A site's sums for the decision curve; nobody at all is a site of zeros.

    Args:
        time: (n,) days to the event or the last contact, >= 0.
        event: (n,) 1/True = event seen, 0/False = censored.
        probability: (n, K) predicted probability of an event by each horizon (`absolute_risk`).
        horizons_days: (K,) days > 0, rising, public.
        min_at_risk: fewest patients beyond a horizon with whom the site contributes there.

    Raises:
        CohortError: FECG-235..237, columns that cannot be used. FederationError: FECG-535, horizons.
    """
    outcomes = checked_outcomes(time, event, time)  # no ranking risk is needed; time stands in for it
    horizons = checked_horizons(horizons_days)
    groups = horizon_groups(outcomes, horizons, min_at_risk)
    totals = np.array([_totals(at) for at in groups])
    treated = np.stack([_treated(at, risk) for at, risk in zip(groups, probability.T, strict=True)])
    return DecisionSums(horizons, totals[:, 0], totals[:, 1], treated[:, 0], treated[:, 1])


def decision_curve(sums: DecisionSums) -> DecisionCurve:
    """Net benefit of all patients in the sums.

    Source: Vickers, Elkin 2006, Med Decis Making 26:565-74; with censoring: Vickers et al. 2008, BMC Med Inform
        Decis Mak 8:53 (there by Kaplan-Meier, here by weights, which agree where nobody is left out).
    """
    everybody = (sums.case_weight + sums.control_weight)[:, None]
    odds = THRESHOLDS / (1 - THRESHOLDS)
    model = ratio(sums.treated_cases - odds * sums.treated_controls, everybody)
    treat_all = ratio(sums.case_weight[:, None] - odds * sums.control_weight[:, None], everybody)
    return DecisionCurve(sums.horizons_days, THRESHOLDS, model, treat_all)


def _totals(groups: HorizonGroups | None) -> tuple[float, float]:
    if groups is None:
        return 0.0, 0.0
    return float(groups.case_weight.sum()), groups.control_weight * groups.controls.size


def _treated(groups: HorizonGroups | None, risk: Float64) -> Float64:
    """(2, H) weight of treated cases and controls at each threshold."""
    if groups is None:
        return np.zeros((2, THRESHOLDS.size))
    cases = _at_or_above(risk[groups.cases], groups.case_weight)
    controls = _at_or_above(risk[groups.controls], np.full(groups.controls.size, groups.control_weight))
    return np.stack([cases, controls])


def _at_or_above(risk: Float64, weight: Float64) -> Float64:
    order = np.argsort(risk, kind="stable")
    from_here = np.append(np.cumsum(weight[order][::-1])[::-1], 0.0)
    return np.asarray(from_here[np.searchsorted(risk[order], THRESHOLDS, side="left")])
