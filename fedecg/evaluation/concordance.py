"""Harrell's concordance index, exact, in O(n log n).

In:  follow-up times, events and risks of n patients.
Out: integer pair counts (`Concordance`), of all pairs, of pairs within a stratum, or a patient's own pairs.
Called by `intervals`, `counts`, training (best round), the comparison table and `benchmarks/concordance.py`.

A pair is comparable if the earlier exit is an event: t_i < t_j with an event in i, or t_i = t_j with an event in i
and j censored. Two events at the same time are not comparable (lifelines and scikit-survival have the same rule).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedecg.evaluation.inputs import Outcomes, checked_outcomes, checked_strata

__all__ = [
    "Concordance",
    "PairCounts",
    "among_later_exits",
    "concordance",
    "pair_counts",
    "stratified_concordance",
]

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Concordance:
    """Pair counts and the index that they give; counts of disjoint sets of pairs add up with `+`.

    Attributes:
        c_index: (concordant + tied_risk / 2) / comparable; NaN where nothing is comparable.
        concordant: comparable pairs in which the patient with the earlier event has the higher risk.
        discordant: comparable pairs in which that patient has the lower risk.
        tied_risk: comparable pairs with equal risks.
        comparable: the sum of the three.
    """

    c_index: float
    concordant: int
    discordant: int
    tied_risk: int
    comparable: int

    @classmethod
    def from_counts(cls, concordant: int, discordant: int, tied_risk: int) -> Concordance:
        """The index that three counts of pairs give."""
        comparable = concordant + discordant + tied_risk
        c_index = (2 * concordant + tied_risk) / (2 * comparable) if comparable else math.nan
        return cls(c_index, concordant, discordant, tied_risk, comparable)

    def __add__(self, other: Concordance) -> Concordance:
        return Concordance.from_counts(
            self.concordant + other.concordant,
            self.discordant + other.discordant,
            self.tied_risk + other.tied_risk,
        )


class PairCounts(NamedTuple):
    """Each patient's comparable pairs, as the earlier and as the later of the two; each sums to twice the total."""

    concordant: Int64  # (n,)
    discordant: Int64  # (n,)
    tied_risk: Int64  # (n,)


def concordance(time: ArrayLike, event: ArrayLike, risk: ArrayLike) -> Concordance:
    """Exact concordance of a risk with the order of events.

    Assumes that censoring is independent of the risk; with heavy, uneven censoring C depends on the follow-up.

    Args:
        time: (n,) days to the event or the last contact, >= 0; only the order counts.
        event: (n,) 1/True = event seen, 0/False = censored.
        risk: (n,) no unit; larger means earlier event.

    Returns:
        Counts of pairs; `c_index` is NaN where no pair is comparable (no event, one patient, nobody).

    Raises:
        CohortError: FECG-235..238, columns that cannot be used.

    Source: Harrell et al. 1996, Stat Med 15:361-87; counts equal those of lifelines.utils.concordance_index.
    """
    return _count_pairs(checked_outcomes(time, event, risk))


def stratified_concordance(
    time: ArrayLike, event: ArrayLike, risk: ArrayLike, stratum: ArrayLike
) -> Concordance:
    """Concordance over the pairs within a stratum (a site): strata's integer counts added up.

    Args:
        time: (n,) days, as in `concordance`.
        event: (n,) 1/True = event seen, 0/False = censored.
        risk: (n,) no unit; need not be comparable between strata.
        stratum: (n,) label of each patient's stratum, of any sortable kind.

    Raises:
        CohortError: FECG-235..238, columns that cannot be used.
    """
    outcomes = checked_outcomes(time, event, risk)
    total = Concordance.from_counts(0, 0, 0)
    for rows in checked_strata(stratum, outcomes.time.size):
        total += _count_pairs(outcomes.rows(rows))
    return total


def pair_counts(time: ArrayLike, event: ArrayLike, risk: ArrayLike) -> PairCounts:
    """How each patient's own comparable pairs are ordered; what the influence function of C is made of.

    Args:
        time: (n,) days, as in `concordance`.
        event: (n,) 1/True = event seen, 0/False = censored.
        risk: (n,) no unit; larger means earlier event.

    Returns:
        Three (n,) int64 arrays; a pair counts for both of its patients.

    Raises:
        CohortError: FECG-235..238, columns that cannot be used.
    """
    outcomes = checked_outcomes(time, event, risk)
    event_rows = np.flatnonzero(outcomes.event)
    before, lower, tied = _among_earlier_events(outcomes)
    after, lower_after, tied_after = among_later_exits(outcomes, event_rows)
    concordant = before - lower - tied
    discordant = lower
    concordant[event_rows] += lower_after
    discordant[event_rows] += after - lower_after - tied_after
    tied[event_rows] += tied_after
    return PairCounts(concordant, discordant, tied)


def _count_pairs(outcomes: Outcomes) -> Concordance:
    before, lower, tied = _among_earlier_events(outcomes)
    comparable, discordant, tied_risk = int(before.sum()), int(lower.sum()), int(tied.sum())
    return Concordance.from_counts(comparable - discordant - tied_risk, discordant, tied_risk)


def _among_earlier_events(outcomes: Outcomes) -> tuple[Int64, Int64, Int64]:
    """For every patient: earlier events that make a pair with it; those of lower risk; those of equal risk.

    A censored patient also pairs with events at its own time, an event does not.
    """
    time, event, risk = outcomes
    in_time = np.flatnonzero(event)[np.argsort(time[event])]
    event_time = time[in_time]
    before = np.empty(time.size, dtype=np.int64)
    before[event] = np.searchsorted(event_time, time[event], side="left")
    # Searches in sorted order stay in the processor's cache.
    by_time = np.flatnonzero(~event)[np.argsort(time[~event])]
    before[by_time] = np.searchsorted(event_time, time[by_time], side="right")
    return before, *_lower_and_tied(risk[in_time], before, risk)


def among_later_exits(outcomes: Outcomes, event_rows: NDArray[np.intp]) -> tuple[Int64, Int64, Int64]:
    """For every event: later exits that make a pair with it; those of lower risk; those of equal risk."""
    time, event, risk = outcomes
    _, moment = np.unique(time, return_inverse=True)
    exit_order = 2 * moment + ~event  # at one time, events leave before censored patients
    latest_first = np.argsort(-exit_order)
    after = time.size - np.searchsorted(np.sort(exit_order), exit_order[event_rows], side="right")
    return after, *_lower_and_tied(risk[latest_first], after, risk[event_rows])


def _lower_and_tied(
    point_risk: NDArray[np.float64], first: Int64, risk: NDArray[np.float64]
) -> tuple[Int64, Int64]:
    """For every query: how many of the first `first[q]` points have a risk below, and equal to, `risk[q]`."""
    by_risk = np.argsort(point_risk)
    ordered = point_risk[by_risk]
    rank = np.empty(by_risk.size, dtype=np.int32)
    rank[by_risk] = np.arange(by_risk.size, dtype=np.int32)
    query = np.argsort(risk)  # neighbouring queries then read neighbouring memory
    first, risk = first[query], risk[query]
    not_above = np.searchsorted(ordered, risk, side="right")
    below = _count_below(rank, first, not_above)
    equal = np.zeros_like(below)
    # Only risks that a point has can be tied; for the others "not above" is "below".
    shared = np.flatnonzero(not_above > 0)
    shared = shared[ordered[not_above[shared] - 1] == risk[shared]]
    strictly = _count_below(rank, first[shared], np.searchsorted(ordered, risk[shared], side="left"))
    equal[shared] = below[shared] - strictly
    below[shared] = strictly
    lower, tied = np.empty_like(below), np.empty_like(equal)
    lower[query], tied[query] = below, equal
    return lower, tied


def _count_below(rank: NDArray[np.int32], first: NDArray[np.integer], limit: NDArray[np.integer]) -> Int64:
    """For every query: how many of the first `first[q]` points have `rank < limit[q]`; all queries at once.

    Descends a wavelet tree (Grossi et al. 2003) from the highest bit of the rank. At each level the points lie
    grouped by their higher bits, in their first order inside a group; a query stands in the group of its limit, just
    behind the points that count. Where the limit's bit is set, points with that bit 0 are below it and are counted.
    Ranks are 0..m-1 once each, padded to a power of two, so that a group's bounds follow from the limit alone.
    """
    levels = int(rank.size).bit_length()  # 2**levels > m, hence limit = m has a place too
    points = np.arange(1 << levels, dtype=np.int32)
    points[: rank.size] = rank
    zeros_before = np.zeros(points.size + 1, dtype=np.int32)
    position, limit = first.astype(np.int32), limit.astype(np.int32)
    below = np.zeros(position.size, dtype=np.int32)
    for bit in reversed(range(levels)):
        half = 1 << bit
        is_zero = (points & half) == 0
        np.cumsum(is_zero, out=zeros_before[1:])
        group = limit & -(2 * half)  # where the query's group starts; half of the points before it are zeros
        zeros = zeros_before[position] - (group >> 1)
        goes_up = (limit & half) != 0
        below += zeros * goes_up
        position = np.where(goes_up, position - zeros + half, group + zeros)
        pairs_of_halves = (points[is_zero].reshape(-1, half), points[~is_zero].reshape(-1, half))
        points = np.stack(pairs_of_halves, axis=1).ravel()
    return below.astype(np.int64)
