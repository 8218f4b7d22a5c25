"""Concordance of a whole federation from sites' counts, with bounds that hold for certain.

In:  `SiteCounts` of all sites, on one grid.
Out: `GlobalConcordance`: stratified C (exact), global C with guaranteed bounds, and their 95 % intervals.
Called by the coordinator after each evaluation.

Pairs within a site are known exactly. Pairs across sites are known by their cells: pooled cells' pairs minus the
pairs of each site's own cells. A cross-site pair can be
    known         different time bins (the earlier an event) and different risk bins;
    of open order different time bins, one risk bin: comparable, but concordant, discordant or tied;
    open          one time bin: two events, or an event and a censored patient; comparable or not.
Bounds take every pair at the extreme that its cells allow. A pair that can only be concordant or not comparable
raises C = N / D if it counts (N <= D), so the upper bound counts it and the lower bound leaves it out; one that can
only be discordant or not comparable, the other way round; one that can be anything is concordant above, discordant
below. No arrangement of patients inside the cells gives a C outside, and finer (nested) cells leave fewer choices.
Where sites have merged bins of their own (`SiteCounts.runs`), "one bin" is "runs of bins that overlap": the same holds.

The estimate between them counts an open order half, two events in one time bin as comparable, and an event and a
censored patient in one time bin as comparable as often as such pairs are within sites, where the exact count is known
(always, where follow-up ends for all on one day; half the time, where it ends evenly).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import FederationError
from fedecg.evaluation.cells import CellPairs, Placed, cell_pairs, expected_pairs, in_the_middle, run_pairs
from fedecg.evaluation.concordance import Concordance
from fedecg.evaluation.counts import SiteCounts
from fedecg.evaluation.intervals import FEW_EVENTS, influence_se, logit_interval

__all__ = ["GlobalConcordance", "global_concordance"]

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class GlobalConcordance:
    """Concordance over all pairs of a federation, and over the pairs within sites.

    Attributes:
        c_index: estimate of the pooled C; NaN where nothing is comparable.
        lower, upper: the pooled C lies between them for certain.
        se: standard error of the estimate from the cells (sampling of patients alone, not of sites); too small where
            a handful of risk bins leaves most pairs open, but then the bounds are far apart.
        ci_low, ci_high: [lower - q se, upper + q se] on the logit scale, q about 2 (`logit_interval`).
        stratified: exact C over the pairs within sites, the primary measure; NaN where nothing is comparable.
        stratified_se, stratified_ci_low, stratified_ci_high: its standard error, exact as well, and 95 % interval.
        comparable_within: comparable pairs within sites, exact.
        comparable_low, comparable_high: fewest and most comparable pairs of the pooled patients.
        patients, events: over all sites.
        few_events: fewer than `FEW_EVENTS` events; print "too few events" beside the interval.
    """

    c_index: float
    lower: float
    upper: float
    se: float
    ci_low: float
    ci_high: float
    stratified: float
    stratified_se: float
    stratified_ci_low: float
    stratified_ci_high: float
    comparable_within: int
    comparable_low: int
    comparable_high: int
    patients: int
    events: int
    few_events: bool


def global_concordance(sites: Sequence[SiteCounts]) -> GlobalConcordance:
    """Add sites' counts up; the order of the sites does not matter.

    Args:
        sites: counts of every site, validated by `validate_site_counts` on one grid; sites may be empty.

    Raises:
        FederationError: FECG-525, no site at all.
    """
    if not sites:
        raise FederationError(
            "FECG-525",
            "evaluation",
            found="0 sites with counts",
            expected="at least one",
            fix="See the sites' logs.",
        )
    pooled = np.sum([in_the_middle(site.cells, site.runs) for site in sites], axis=0)
    exact = sum((site.pairs for site in sites), start=Concordance.from_counts(0, 0, 0))
    within = CellPairs(*(sum(kind) for kind in zip(*(site.told for site in sites), strict=True)))
    everywhere = _pairs_of_all(sites, pooled)
    across = CellPairs(*(all_pairs - own for all_pairs, own in zip(everywhere, within, strict=True)))
    share = _comparable_share(exact, within)
    if exact.comparable + across.certain + across.both_events == 0:
        share = (
            share or 0.5
        )  # nothing but pairs that may be comparable: there are bounds, so there is an estimate
    lower, estimate, upper = _bounds(exact, across, share)
    events = int(pooled[..., 1].sum())
    se = influence_se(*expected_pairs(pooled, share), pooled)
    ci_low, ci_high = logit_interval(lower, upper, estimate, se, events)
    squares = reduce(add, (site.squares for site in sites))
    se_within = squares.se(exact.c_index, exact.comparable)
    within_low, within_high = logit_interval(exact.c_index, exact.c_index, exact.c_index, se_within, events)
    comparable_low = exact.comparable + across.certain
    return GlobalConcordance(
        c_index=estimate,
        lower=lower,
        upper=upper,
        se=se,
        ci_low=ci_low,
        ci_high=ci_high,
        stratified=exact.c_index,
        stratified_se=se_within,
        stratified_ci_low=within_low,
        stratified_ci_high=within_high,
        comparable_within=exact.comparable,
        comparable_low=comparable_low,
        comparable_high=comparable_low + across.both_events + across.event_and_censored,
        patients=int(pooled.sum()),
        events=events,
        few_events=events < FEW_EVENTS,
    )


def _pairs_of_all(sites: Sequence[SiteCounts], pooled: Int64) -> CellPairs:
    """Pairs among all patients as cells tell them; sites may have merged different bins."""
    if all(site.runs is None for site in sites):
        return cell_pairs(pooled)
    placed = [Placed.of(site.cells, site.runs) for site in sites]
    return run_pairs(Placed(*(np.sum(tables, axis=0) for tables in zip(*placed, strict=True))))


def _comparable_share(exact: Concordance, within: CellPairs) -> float:
    """Share of the pairs of an event and a censored patient in one time bin that are comparable, within sites."""
    if not within.event_and_censored:
        return 0.5
    comparable = exact.comparable - within.certain - within.both_events
    return min(1.0, max(0.0, comparable / within.event_and_censored))


def _bounds(exact: Concordance, across: CellPairs, share: float) -> tuple[float, float, float]:
    """(lower, estimate, upper) of C; twice the concordant pairs throughout, as ties count half."""
    concordant = 2 * (exact.concordant + across.concordant) + exact.tied_risk
    comparable = exact.comparable + across.certain
    anything = across.both_events + across.event_level
    # Where only pairs are left that may not be comparable, C is that of the pairs of one kind, or nothing.
    lower = _ratio(
        concordant,
        2 * (comparable + anything + across.event_lower),
        1.0 if across.event_higher else math.nan,
    )
    upper = _ratio(
        concordant + 2 * (across.same_risk + anything + across.event_higher),
        2 * (comparable + anything + across.event_higher),
        0.0 if across.event_lower else math.nan,
    )
    estimate = _ratio(
        concordant
        + across.same_risk
        + across.both_events
        + share * (2 * across.event_higher + across.event_level),
        2 * (comparable + across.both_events + share * across.event_and_censored),
        math.nan,
    )
    return lower, float(np.clip(estimate, lower, upper)), upper


def _ratio(part: float, whole: float, otherwise: float) -> float:
    return part / whole if whole else otherwise
