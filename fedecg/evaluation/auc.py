"""Cumulative/dynamic AUC at horizons under censoring, from additive sums, with guaranteed bounds.

In:  a site's times, events and risks; the study's horizons and its public cuts of the risk.
Out: `AucSums`, which add up over sites, and `TimeDependentAuc`: the AUC of all patients between its bounds.
Called by the site (`auc_sums`) and by the coordinator (`time_dependent_auc`).

At horizon t, AUC = sum over (case i, control j) of w_i w_j [risk_i > risk_j, ties half] / sum of w_i w_j, where a case
(event at T_i <= t) at site a weighs 1 / G_a(T_i) and a control (T_j > t) at site b weighs 1 / G_b(t). Pairs within a
site are exact. The weight of cross-site pairs by risk bin is that of the pooled bins minus that of each site's own
bins: a case in the higher bin is concordant for certain, in the lower one discordant, and a pair in one bin is open.
The lower bound counts open pairs as discordant, the upper one as concordant, the estimate half. The denominator is
exact, so the bounds hold for certain for this weighted figure, and finer (nested) cuts leave fewer open pairs.
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
from fedecg.evaluation.grid import RiskTimeGrid
from fedecg.evaluation.inputs import checked_outcomes

__all__ = ["AucSums", "TimeDependentAuc", "auc_sums", "pairs_by_bin", "time_dependent_auc"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class AucSums:
    """One site's sums for the AUC at K horizons and R risk bins; all but the plan add up over sites with `+`.

    A site that does not contribute at a horizon (see `censoring`) has 0 there in every sum.

    Attributes:
        horizons_days: (K,) days, public, the same at every site.
        risk_cuts: (R - 1,) cuts between risk bins, public, the same at every site.
        sites: (K,) int64, sites that contribute.
        patients: (K,) int64, all patients of those sites.
        cases: (K,) int64, their events at or before the horizon.
        controls: (K,) int64, their patients followed beyond the horizon.
        case_weight: (K, R) sum of 1 / G(T_i) over cases by risk bin, in patients.
        control_weight: (K, R) sum of 1 / G(horizon) over controls by risk bin, in patients.
        own_pairs: (K, 3) weight of the site's own pairs by its bins: case in the higher, the same, the lower bin.
        within_credit: (K,) exact weight of the site's own concordant pairs + half of the tied ones.
        within_pairs: (K,) exact weight of the site's own pairs.
    """

    horizons_days: Float64
    risk_cuts: Float64
    sites: Int64
    patients: Int64
    cases: Int64
    controls: Int64
    case_weight: Float64
    control_weight: Float64
    own_pairs: Float64
    within_credit: Float64
    within_pairs: Float64

    def __add__(self, other: AucSums) -> AucSums:
        return added(self, other, plan=("horizons_days", "risk_cuts"))


@dataclass(frozen=True, eq=False)
class TimeDependentAuc:
    """Cumulative/dynamic AUC of a federation at K horizons; NaN where there is no case or no control.

    Attributes:
        horizons_days: (K,) days.
        auc: (K,) estimate over all pairs; exact for one site.
        lower, upper: (K,) the AUC lies between them for certain.
        stratified: (K,) exact AUC over the pairs within sites alone; NaN where no site has a pair.
        sites, patients, cases, controls: (K,) int64, as in `AucSums`.
    """

    horizons_days: Float64
    auc: Float64
    lower: Float64
    upper: Float64
    stratified: Float64
    sites: Int64
    patients: Int64
    cases: Int64
    controls: Int64


def auc_sums(
    time: ArrayLike,
    event: ArrayLike,
    risk: ArrayLike,
    horizons_days: ArrayLike,
    grid: RiskTimeGrid,
    min_at_risk: int = MIN_AT_RISK,
) -> AucSums:
    """A site's sums for the cumulative/dynamic AUC, in O(K n log n).

    Args:
        time: (n,) days to the event or the last contact, >= 0.
        event: (n,) 1/True = event seen, 0/False = censored.
        risk: (n,) no unit; larger means earlier event; the same score at every site. Equal risks are tied
            (scikit-survival also ties those within 1e-8).
        horizons_days: (K,) days > 0, strictly increasing, public.
        grid: of the study; its risk cuts are used.
        min_at_risk: fewest patients beyond a horizon with whom the site contributes there.

    Raises:
        CohortError: FECG-235..238, columns that cannot be used.
        FederationError: FECG-535, horizons that cannot be used.

    Source: Uno et al. 2007, J Am Stat Assoc 102:527-37; Hung, Chiang 2010, Can J Stat 38:8-26.
    """
    outcomes = checked_outcomes(time, event, risk)
    horizons = checked_horizons(horizons_days)
    # One order for every order of patients: sums of floats then agree to the last bit.
    outcomes = outcomes.rows(np.lexsort((outcomes.event, outcomes.time, outcomes.risk)))
    risk_bin = np.searchsorted(grid.risk_cuts, outcomes.risk, side="right")
    groups = horizon_groups(outcomes, horizons, min_at_risk)
    sites, patients, cases, controls = np.array(
        [_counts(at, outcomes.time.size) for at in groups], dtype=np.int64
    ).T
    bins = np.array([_by_risk_bin(at, risk_bin, grid.risk_cuts.size + 1) for at in groups])
    credit, pairs = np.array([_exact_pairs(at, outcomes.risk) for at in groups]).T
    case_weight, control_weight = bins[:, 0], bins[:, 1]
    own_pairs = pairs_by_bin(case_weight, control_weight)
    return AucSums(
        horizons_days=horizons,
        risk_cuts=grid.risk_cuts,
        sites=sites,
        patients=patients,
        cases=cases,
        controls=controls,
        case_weight=case_weight,
        control_weight=control_weight,
        own_pairs=own_pairs,
        within_credit=credit,
        within_pairs=pairs,
    )


def time_dependent_auc(sums: AucSums) -> TimeDependentAuc:
    """Cumulative/dynamic AUC of all patients in the sums.

    Args:
        sums: of one site, or added up over sites.
    """
    pooled = pairs_by_bin(sums.case_weight, sums.control_weight)
    # Equal to the last bit for one site; elsewhere a difference of rounded sums may fall just below 0.
    across = np.maximum(pooled - sums.own_pairs, 0)
    higher, same = across[:, 0], across[:, 1]
    pairs = sums.within_pairs + across.sum(axis=1)
    return TimeDependentAuc(
        horizons_days=sums.horizons_days,
        auc=ratio(sums.within_credit + higher + same / 2, pairs),
        lower=ratio(sums.within_credit + higher, pairs),
        upper=ratio(sums.within_credit + higher + same, pairs),
        stratified=ratio(sums.within_credit, sums.within_pairs),
        sites=sums.sites,
        patients=sums.patients,
        cases=sums.cases,
        controls=sums.controls,
    )


def pairs_by_bin(weight: Float64, other_weight: Float64) -> Float64:
    """Weight of all pairs of one patient of each kind, by the order of their risk bins.

    Args:
        weight: (..., R) weight of the patients whose event comes first, by risk bin.
        other_weight: (..., R) weight of the others.

    Returns:
        (..., 3): the first in the higher, the same, the lower bin.
    """
    up_to = np.cumsum(other_weight, axis=-1)
    by_order = (up_to - other_weight, other_weight, up_to[..., -1:] - up_to)
    return np.stack([np.sum(weight * others, axis=-1) for others in by_order], axis=-1)


def _counts(groups: HorizonGroups | None, patients: int) -> tuple[int, int, int, int]:
    """(sites, patients, cases, controls) of a site at one horizon."""
    return (1, patients, groups.cases.size, groups.controls.size) if groups else (0, 0, 0, 0)


def _by_risk_bin(groups: HorizonGroups | None, risk_bin: NDArray[np.intp], bins: int) -> Float64:
    """(2, R) weight of cases and of controls by risk bin."""
    if groups is None:
        return np.zeros((2, bins))
    cases = np.bincount(risk_bin[groups.cases], weights=groups.case_weight, minlength=bins)
    controls = np.bincount(risk_bin[groups.controls], minlength=bins)
    return np.stack([cases, groups.control_weight * controls])


def _exact_pairs(groups: HorizonGroups | None, risk: Float64) -> tuple[float, float]:
    """(credit, pairs) of a site's own pairs; `risk` ascending."""
    if groups is None:
        return 0.0, 0.0
    controls = risk[groups.controls]
    below = np.searchsorted(controls, risk[groups.cases], side="left")
    not_above = np.searchsorted(controls, risk[groups.cases], side="right")
    credit = groups.control_weight * np.sum(groups.case_weight * (below + not_above) / 2)
    return float(credit), float(groups.control_weight * controls.size * np.sum(groups.case_weight))
