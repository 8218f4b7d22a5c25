"""Brier score of predicted event probabilities under censoring, from additive sums.

In:  a site's times, events and predicted probabilities of an event by each horizon.
Out: `BrierSums`, which add up over sites, and `Brier`: score, null model, scaled and integrated score.
Called by the site (`brier_sums`) and by the coordinator (`brier`).

BS(t) = 1/n sum over cases of (1 - p)^2 / G(T_i) + sum over controls of p^2 / G(t), with each site's own G
(`censoring`). n counts every patient of the sites that contribute at t, also those censored before it, as in
scikit-survival: one site's figures equal `sksurv.metrics.brier_score` and `integrated_brier_score`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedecg.errors import CohortError
from fedecg.evaluation.censoring import (
    MIN_AT_RISK,
    HorizonGroups,
    added,
    checked_horizons,
    horizon_groups,
    ratio,
)
from fedecg.evaluation.inputs import checked_outcomes

__all__ = ["Brier", "BrierSums", "brier", "brier_sums"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class BrierSums:
    """One site's Brier sums at K horizons; all but the horizons add up over sites with `+`.

    A site that does not contribute at a horizon has 0 there in every sum.

    Attributes:
        horizons_days: (K,) days, public, the same at every site.
        sites: (K,) int64, sites that contribute.
        patients: (K,) int64, all patients of those sites.
        cases: (K,) int64, their events at or before the horizon.
        at_risk: (K,) int64, their patients followed beyond the horizon (controls).
        case_weight: (K,) sum over cases of 1 / G(T_i), in patients.
        control_weight: (K,) sum over controls of 1 / G(horizon), in patients.
        case_loss: (K,) sum over cases of (1 - p)^2 / G(T_i), in patients.
        control_loss: (K,) sum over controls of p^2 / G(horizon), in patients.
        squared_loss: (K,) sum over both of the square of a patient's weighted loss, for the standard error.
    """

    horizons_days: Float64
    sites: Int64
    patients: Int64
    cases: Int64
    at_risk: Int64
    case_weight: Float64
    control_weight: Float64
    case_loss: Float64
    control_loss: Float64
    squared_loss: Float64

    def __add__(self, other: BrierSums) -> BrierSums:
        return added(self, other, plan=("horizons_days",))


@dataclass(frozen=True, eq=False)
class Brier:
    """Brier scores of a federation at K horizons; NaN where no site contributes.

    Attributes:
        horizons_days: (K,) days.
        score: (K,) Brier score, >= 0, smaller is better; weights can take it above 1.
        se: (K,) its standard error over patients, the weights taken as known; NaN for one patient.
        event_fraction: (K,) weighted fraction with the event by the horizon, over the contributing patients.
        null_score: (K,) score of the null model, which predicts `event_fraction` for everybody: the constant that
            scores best on these patients.
        scaled: (K,) 1 - score / null_score; 0 = the null model, 1 = perfect; NaN where there are no cases.
        integrated: trapezoid of `score` over the horizons that have one, divided by their range; NaN for fewer than
            two. The contributing sites may be fewer at later horizons: see `sites`.
        integrated_until_days: the last horizon in that integral, days; NaN as `integrated`.
        sites, patients, cases, at_risk: (K,) int64, as in `BrierSums`.
    """

    horizons_days: Float64
    score: Float64
    se: Float64
    event_fraction: Float64
    null_score: Float64
    scaled: Float64
    integrated: float
    integrated_until_days: float
    sites: Int64
    patients: Int64
    cases: Int64
    at_risk: Int64


def brier_sums(
    time: ArrayLike,
    event: ArrayLike,
    risk_at_horizons: ArrayLike,
    horizons_days: ArrayLike,
    min_at_risk: int = MIN_AT_RISK,
) -> BrierSums:
    """A site's sums for the Brier score.

    Args:
        time: (n,) days to the event or the last contact, >= 0.
        event: (n,) 1/True = event seen, 0/False = censored.
        risk_at_horizons: (n, K) predicted probability of an event at or before each horizon, in [0, 1].
        horizons_days: (K,) days > 0, strictly increasing, public.
        min_at_risk: fewest patients beyond a horizon with whom the site contributes there.

    Raises:
        CohortError: FECG-235..237 columns that cannot be used, FECG-534 probabilities that cannot be.
        FederationError: FECG-535, horizons that cannot be used.

    Source: Graf et al. 1999, Stat Med 18:2529-45.
    """
    outcomes = checked_outcomes(time, event, time)  # a Brier score has no ranking risk; time stands in for it
    horizons = checked_horizons(horizons_days)
    probability = _checked_probabilities(risk_at_horizons, (outcomes.time.size, horizons.size))
    groups = horizon_groups(outcomes, horizons, min_at_risk)
    counts = np.array([_counts(at, outcomes.time.size) for at in groups], dtype=np.int64).T
    sums = np.array([_sums(at, p) for at, p in zip(groups, probability.T, strict=True)]).T
    return BrierSums(horizons, *counts, *sums)


def brier(sums: BrierSums) -> Brier:
    """Brier score, null model, scaled and integrated score of all patients in the sums.

    Args:
        sums: of one site, or added up over sites.

    Source: Graf et al. 1999, Stat Med 18:2529-45; scaled score as in Steyerberg et al. 2010, Epidemiology 21:128-38.
    """
    loss = sums.case_loss + sums.control_loss
    score = ratio(loss, sums.patients)
    fraction = ratio(sums.case_weight, sums.case_weight + sums.control_weight)
    null_loss = sums.case_weight * (1 - fraction) ** 2 + sums.control_weight * fraction**2
    null_score = ratio(null_loss, sums.patients)
    variance = ratio(np.maximum(sums.squared_loss - loss * score, 0), sums.patients - 1)
    integrated, until_days = _integrated(score, sums.horizons_days)
    return Brier(
        horizons_days=sums.horizons_days,
        score=score,
        se=np.sqrt(ratio(variance, sums.patients)),
        event_fraction=fraction,
        null_score=null_score,
        scaled=1 - ratio(score, null_score),
        integrated=integrated,
        integrated_until_days=until_days,
        sites=sums.sites,
        patients=sums.patients,
        cases=sums.cases,
        at_risk=sums.at_risk,
    )


def _counts(groups: HorizonGroups | None, patients: int) -> tuple[int, int, int, int]:
    """(sites, patients, cases, at risk) of a site at one horizon."""
    return (1, patients, groups.cases.size, groups.controls.size) if groups else (0, 0, 0, 0)


def _sums(groups: HorizonGroups | None, probability: Float64) -> tuple[float, float, float, float, float]:
    """The five sums of a site at one horizon; `fsum`, so that the order of patients leaves no trace."""
    if groups is None:
        return 0.0, 0.0, 0.0, 0.0, 0.0
    case_loss = groups.case_weight * (1 - probability[groups.cases]) ** 2
    control_loss = groups.control_weight * probability[groups.controls] ** 2
    return (
        math.fsum(groups.case_weight),
        groups.control_weight * groups.controls.size,
        math.fsum(case_loss),
        math.fsum(control_loss),
        math.fsum(np.append(case_loss, control_loss) ** 2),
    )


def _integrated(score: Float64, horizons_days: Float64) -> tuple[float, float]:
    """Mean score between the first and the last horizon that have one; horizons without one are the last ones."""
    scored = np.isfinite(score)
    if np.count_nonzero(scored) < 2:
        return math.nan, math.nan
    days = horizons_days[scored]
    return float(np.trapezoid(score[scored], days) / (days[-1] - days[0])), float(days[-1])


def _checked_probabilities(risk_at_horizons: ArrayLike, shape: tuple[int, int]) -> Float64:
    try:
        probability = np.asarray(risk_at_horizons, dtype=np.float64)
    except (TypeError, ValueError):  # numpy's own message would print the value
        probability = np.full(shape, np.nan)
    if probability.size == 0 and shape[0] == 0:
        probability = probability.reshape(shape)  # an empty list has no second axis
    # NaN fails both comparisons
    outside = np.count_nonzero(~((probability >= 0) & (probability <= 1)))
    if probability.shape == shape and not outside:
        return probability
    raise CohortError(
        "FECG-534",
        "risk_at_horizons",
        found=f"shape {probability.shape}, {outside} of {probability.size} values that are not in [0, 1]",
        expected=f"shape {shape} (patients, horizons), probabilities of an event by each horizon, in [0, 1]",
        fix="Give absolute risks, not log hazards; one column a horizon.",
    )
