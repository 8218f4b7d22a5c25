"""Does the model serve everybody? Concordance and calibration of subgroups, from additive sums.

In:  at a site: outcomes, log hazards, the baseline at each follow-up, who belongs to which subgroup.
Out: `SubgroupSums`, which add up over sites, and `Subgroup` figures. Called by `assessment`.

C counts pairs within a site and a subgroup: exact. A subgroup may overlap another (sex and age), or be empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedecg.evaluation.calibration import poisson_ratio
from fedecg.evaluation.censoring import added
from fedecg.evaluation.concordance import concordance
from fedecg.evaluation.inputs import checked_outcomes
from fedecg.evaluation.intervals import FEW_EVENTS, PairSquares, logit_interval

__all__ = ["Subgroup", "SubgroupSums", "subgroup_figures", "subgroup_sums"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SubgroupSums:
    """One site's subgroups; all but the names add up over sites with `+`.

    Attributes:
        names: of the S subgroups, public.
        patients, events: (S,) int64.
        concordant, discordant, tied_risk: (S,) int64, pairs within the site and the subgroup.
        expected: (S,) events that the model expects over the follow-up.
        credit_squares, mixed_squares, comparable_squares: (S,) `PairSquares`, for the standard error.
    """

    names: tuple[str, ...]
    patients: Int64
    events: Int64
    concordant: Int64
    discordant: Int64
    tied_risk: Int64
    expected: Float64
    credit_squares: Float64
    mixed_squares: Float64
    comparable_squares: Float64

    def __add__(self, other: SubgroupSums) -> SubgroupSums:
        return added(self, other, plan=("names",))


@dataclass(frozen=True)
class Subgroup:
    """One subgroup; NaN where there are no comparable pairs, or nothing is expected.

    Attributes:
        patients, events, comparable: counts over all sites.
        c_index, ci_low, ci_high: C of the pairs within a site and the subgroup, with its 95 % interval.
        few_events: too few for the interval to be trusted.
        ratio, ratio_low, ratio_high: observed / expected events, exact Poisson 95 % interval.
    """

    patients: int
    events: int
    comparable: int
    c_index: float
    ci_low: float
    ci_high: float
    few_events: bool
    ratio: float
    ratio_low: float
    ratio_high: float


def subgroup_sums(
    time: ArrayLike,
    event: ArrayLike,
    risk: ArrayLike,
    cumulative_hazard: Float64,
    names: tuple[str, ...],
    members: NDArray[np.bool_],
) -> SubgroupSums:
    """A site's sums by subgroup; a subgroup without patients is a column of zeros.

    Args:
        time: (n,) days to the event or the last contact, >= 0.
        event: (n,) 1/True = event seen, 0/False = censored.
        risk: (n,) log hazard.
        cumulative_hazard: (n,) the model's baseline at each patient's own follow-up (`Baseline.at`).
        names: of the S subgroups.
        members: (n, S) bool.

    Raises:
        CohortError: FECG-235..238, columns that cannot be used.
    """
    outcomes = checked_outcomes(time, event, risk)
    expected = cumulative_hazard * np.exp(np.minimum(outcomes.risk, 700.0))
    rows = [np.flatnonzero(column) for column in members.T]
    counts = [concordance(*outcomes.rows(own)) for own in rows]
    squares = [PairSquares.of(outcomes.rows(own)) for own in rows]
    return SubgroupSums(
        names=names,
        patients=np.array([own.size for own in rows], dtype=np.int64),
        events=np.array([outcomes.event[own].sum() for own in rows], dtype=np.int64),
        concordant=np.array([one.concordant for one in counts], dtype=np.int64),
        discordant=np.array([one.discordant for one in counts], dtype=np.int64),
        tied_risk=np.array([one.tied_risk for one in counts], dtype=np.int64),
        expected=np.array([expected[own].sum() for own in rows], dtype=np.float64),
        credit_squares=np.array([own.credit for own in squares], dtype=np.float64),
        mixed_squares=np.array([own.mixed for own in squares], dtype=np.float64),
        comparable_squares=np.array([own.comparable for own in squares], dtype=np.float64),
    )


def subgroup_figures(sums: SubgroupSums) -> dict[str, Subgroup]:
    """Name -> figures, in the order of the names."""
    return {name: _figures(sums, at) for at, name in enumerate(sums.names)}


def _figures(sums: SubgroupSums, at: int) -> Subgroup:
    events = int(sums.events[at])
    comparable = int(sums.concordant[at] + sums.discordant[at] + sums.tied_risk[at])
    c_index = (
        float(2 * sums.concordant[at] + sums.tied_risk[at]) / (2 * comparable) if comparable else math.nan
    )
    squares = PairSquares(
        float(sums.credit_squares[at]), float(sums.mixed_squares[at]), float(sums.comparable_squares[at])
    )
    se = squares.se(c_index, comparable)
    ci_low, ci_high = logit_interval(c_index, c_index, c_index, se, events)
    ratio, ratio_low, ratio_high = poisson_ratio(events, float(sums.expected[at]))
    return Subgroup(
        patients=int(sums.patients[at]),
        events=events,
        comparable=comparable,
        c_index=c_index,
        ci_low=ci_low,
        ci_high=ci_high,
        few_events=events < FEW_EVENTS,
        ratio=ratio,
        ratio_low=ratio_low,
        ratio_high=ratio_high,
    )
