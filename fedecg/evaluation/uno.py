"""Uno's concordance up to tau, free of the censoring of each site, from additive sums.

In:  a site's times, events and risks; the study's truncation time tau and its public grid.
Out: `UnoSums`, which add up over sites, and `UnoConcordance`: C of all patients up to tau.
Called by the site (`uno_sums`) and by the coordinator (`uno_concordance`).

A pair (event in i of site a at t_i < tau; j of site b not yet gone) is seen in this order only if both are still
uncensored at t_i, with probability G_a(t_i) G_b(t_i). Weighting each seen pair by 1 / (G_a(t_i) G_b(t_i)) makes C
estimate P(risk_i > risk_j | T_i < T_j, T_i < tau), whatever the sites' follow-up. Within a site that is Uno's weight
1 / G(t_i)^2, and those pairs are counted exactly; j counts if t_j > t_i, or if censored at t_i (as scikit-survival).

Across sites, a site sends on the grid, up to tau:
    events            sum of 1 / G_a(t_i) by (time bin, risk bin);
    comparators       for each time bin, by risk bin: its patients who leave later, its events in the bin, its
                      censored patients in the bin; each times the bin's representative of 1 / G_b, which is its
                      time average over the bin.
Pairs with a comparator who leaves later are comparable, and their order is known unless the risk bin is the same.
Pairs in one time bin are comparable or not. Both are open. The estimate counts an open order of risk half, and pairs
in one time bin as comparable as often as they are within sites, where the times are known (separately for two events
and for an event and a censored patient; half where no site has such a pair). A time bin in which everybody leaves at
its left edge is settled: two events in it are not comparable, an event and a censored patient are. Where all bins are
so (an edge at every distinct time) and each risk bin holds one distinct risk, C is exact: 1 / G_b is then flat in the
bin.

Horizon rule, as in `censoring`, with tau as horizon: a site contributes if at least `min_at_risk` of its patients are
followed up to tau (time >= tau, for events count before tau) and G > 0 until then. A site with shorter follow-up
cannot tell of the late events and contributes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedecg.evaluation.auc import pairs_by_bin
from fedecg.evaluation.censoring import (
    MIN_AT_RISK,
    CensoringCurve,
    added,
    censoring_curve,
    checked_horizons,
    ratio,
)
from fedecg.evaluation.concordance import among_later_exits
from fedecg.evaluation.grid import RiskTimeGrid
from fedecg.evaluation.inputs import Outcomes, checked_outcomes

__all__ = ["UnoConcordance", "UnoSums", "uno_concordance", "uno_sums"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class UnoSums:
    """One site's sums for Uno's C, on B time bins up to tau and R risk bins; all but the plan add up with `+`.

    Attributes:
        tau_days: truncation time, public.
        time_cuts_days: (B - 1,) cuts between time bins, those of the grid between 0 and tau, public.
        risk_cuts: (R - 1,) cuts between risk bins, public.
        sites, patients: sites that contribute, and all their patients.
        events: their events before tau.
        event_weight: (B, R) sum of 1 / G(t_i) over events before tau by time and risk bin, in patients.
        comparator_weight: (3, B, R) patients who leave after the bin (or at tau or later), events in the bin,
            censored in the bin, by risk bin; times the time average of 1 / G in the bin.
        own_pairs: (3, B, 3) weight of the site's own binned pairs: kinds as in `comparator_weight`; by the event's
            time bin; the event in the higher, the same, the lower risk bin.
        shared_bin: (2, 2, B) weight of the site's own pairs in one time bin: two events (without a patient's pair
            with himself), event and censored; all such pairs, those of them that are comparable; by time bin.
        off_edge: (B,) int64, patients who leave inside the time bin, not at its left edge.
        within_credit: exact weight of the site's own concordant pairs + half of those tied in risk.
        within_pairs: exact weight of the site's own comparable pairs.
    """

    tau_days: float
    time_cuts_days: Float64
    risk_cuts: Float64
    sites: int
    patients: int
    events: int
    event_weight: Float64
    comparator_weight: Float64
    own_pairs: Float64
    shared_bin: Float64
    off_edge: NDArray[np.int64]
    within_credit: float
    within_pairs: float

    def __add__(self, other: UnoSums) -> UnoSums:
        return added(self, other, plan=("tau_days", "time_cuts_days", "risk_cuts"))


@dataclass(frozen=True)
class UnoConcordance:
    """Uno's C of a federation up to tau; NaN where nothing is comparable.

    Attributes:
        tau_days: truncation time.
        c_index: estimate over all pairs; exact for one site.
        ordering_lower, ordering_upper: C with every open pair at its worst and its best, *given the weights*. They
            bound what bins hide of the order of patients, not the error of one representative 1 / G a bin across
            sites, hence are no guaranteed bounds of C.
        stratified: exact C over the pairs within sites; NaN where no site has a comparable pair.
        sites, patients, events: that contribute; events before tau.
    """

    tau_days: float
    c_index: float
    ordering_lower: float
    ordering_upper: float
    stratified: float
    sites: int
    patients: int
    events: int


def uno_sums(
    time: ArrayLike,
    event: ArrayLike,
    risk: ArrayLike,
    tau_days: float,
    grid: RiskTimeGrid,
    min_at_risk: int = MIN_AT_RISK,
) -> UnoSums:
    """A site's sums for Uno's C, in O(n log n).

    Args:
        time: (n,) days to the event or the last contact, >= 0.
        event: (n,) 1/True = event seen, 0/False = censored.
        risk: (n,) no unit; larger means earlier event; the same score at every site. Equal risks are tied
            (scikit-survival also ties those within 1e-8).
        tau_days: events before tau count; > 0, public.
        grid: cuts that all sites of the study use; cuts of time at or beyond tau are not used.
        min_at_risk: fewest patients followed up to tau with whom the site contributes.

    Raises:
        CohortError: FECG-235..238, columns that cannot be used.
        FederationError: FECG-535, tau is not a positive number of days.

    Source: Uno et al. 2011, Stat Med 30:1105-17, for one site; across sites, the weight derived above.
    """
    outcomes = checked_outcomes(time, event, risk)
    (tau,) = checked_horizons(tau_days, "tau_days")
    cuts = grid.time_cuts_days
    edges = np.concatenate([[0.0], cuts[(cuts > 0) & (cuts < tau)], [tau]])
    # One order for every order of patients: sums of floats then agree to the last bit.
    outcomes = outcomes.rows(np.lexsort((outcomes.risk, outcomes.event, outcomes.time)))
    curve = censoring_curve(outcomes.time, outcomes.event)
    followed = np.count_nonzero(outcomes.time >= tau)
    contributes = outcomes.time.size > 0 and followed >= min_at_risk and curve.at(np.nextafter(tau, 0)) > 0
    if not contributes:
        nobody = outcomes.rows(np.empty(0, dtype=np.intp))
        return _sums(nobody, censoring_curve(nobody.time, nobody.event), edges, grid.risk_cuts)
    return _sums(outcomes, curve, edges, grid.risk_cuts)


def uno_concordance(sums: UnoSums) -> UnoConcordance:
    """Uno's C of all patients in the sums.

    Args:
        sums: of one site, or added up over sites.
    """
    # Equal to the last bit for one site; elsewhere a difference of rounded sums may fall just below 0.
    across = np.maximum(pairs_by_bin(sums.event_weight, sums.comparator_weight) - sums.own_pairs, 0)
    settled = sums.off_edge == 0
    later = across[0].sum(axis=0) + across[2, settled].sum(axis=0)
    shared = across[1:, ~settled].sum(axis=1)
    told = sums.shared_bin[..., ~settled].sum(axis=-1)
    credit, pairs = sums.within_credit + later[0], sums.within_pairs + later.sum()
    chance = np.nan_to_num(ratio(told[:, 1], told[:, 0]), nan=0.5)
    comparable = chance @ shared
    estimate = ratio(
        credit + later[1] / 2 + comparable[0] + comparable[1] / 2,
        pairs + comparable.sum(),
    )
    # A pair that can only raise C is left out at worst and counted at best; one that can only lower it, vice versa.
    higher, same, lower = shared.sum(axis=0)
    ordering_lower = float(ratio(credit, pairs + same + lower))
    ordering_upper = float(ratio(credit + later[1] + higher + same, pairs + higher + same))
    return UnoConcordance(
        tau_days=sums.tau_days,
        c_index=float(np.clip(estimate, ordering_lower, ordering_upper)),
        ordering_lower=ordering_lower,
        ordering_upper=ordering_upper,
        stratified=float(ratio(sums.within_credit, sums.within_pairs)),
        sites=sums.sites,
        patients=sums.patients,
        events=sums.events,
    )


def _sums(outcomes: Outcomes, curve: CensoringCurve, edges: Float64, risk_cuts: Float64) -> UnoSums:
    """Sums of a site that contributes, or of nobody."""
    tau = float(edges[-1])
    rows = np.flatnonzero(outcomes.event & (outcomes.time < tau))
    weight = 1 / curve.at(outcomes.time[rows])
    representative = curve.mean_weight(edges)
    time_bin = np.searchsorted(edges[1:], outcomes.time, side="right")  # the last: tau or later
    risk_bin = np.searchsorted(risk_cuts, outcomes.risk, side="right")
    shape = (edges.size, risk_cuts.size + 1)
    cell = np.ravel_multi_index((time_bin, risk_bin), shape)
    size = shape[0] * shape[1]
    by_cell = np.bincount(cell[rows], weights=weight, minlength=size).reshape(shape).astype(np.float64)
    events = np.bincount(cell[outcomes.event], minlength=size).reshape(shape)
    exits = np.bincount(cell, minlength=size).reshape(shape)
    later = exits.sum(axis=0) - np.cumsum(exits, axis=0)
    counts = np.stack([later, events, exits - events])[:, :-1]
    event_weight, comparator_weight = by_cell[:-1], counts * representative[:, None]
    after, lower_after, tied_after = among_later_exits(outcomes, rows)
    return UnoSums(
        tau_days=tau,
        time_cuts_days=edges[1:-1],
        risk_cuts=risk_cuts,
        sites=int(outcomes.time.size > 0),
        patients=outcomes.time.size,
        events=rows.size,
        event_weight=event_weight,
        comparator_weight=comparator_weight,
        own_pairs=pairs_by_bin(event_weight, comparator_weight),
        shared_bin=_shared_bin(outcomes, rows, weight * representative[time_bin[rows]], edges),
        off_edge=np.bincount(time_bin[outcomes.time > edges[time_bin]], minlength=edges.size)[:-1],
        within_credit=float(np.sum(weight**2 * (lower_after + tied_after / 2))),
        within_pairs=float(np.sum(weight**2 * after)),
    )


def _shared_bin(outcomes: Outcomes, rows: NDArray[np.intp], pair_weight: Float64, edges: Float64) -> Float64:
    """(2, 2, B) weight of pairs in one time bin: two events, event and censored; all, those comparable.

    Args:
        outcomes: of the site.
        rows: (e,) patients with an event before tau.
        pair_weight: (e,) weight of each of their pairs in their own time bin.
        edges: (B + 1,) days, from 0 to tau.
    """
    moment = outcomes.time[rows]
    time_bin = np.searchsorted(edges[1:], moment, side="right")
    start, end = edges[time_bin], edges[time_bin + 1]
    events, censored = np.sort(moment), np.sort(outcomes.time[~outcomes.event])
    events_end, censored_end = np.searchsorted(events, end), np.searchsorted(censored, end)
    pairs = [
        [
            events_end - np.searchsorted(events, start) - 1,
            events_end - np.searchsorted(events, moment, side="right"),
        ],
        [censored_end - np.searchsorted(censored, start), censored_end - np.searchsorted(censored, moment)],
    ]
    by_bin = [
        np.bincount(time_bin, weights=pair_weight * of_kind, minlength=edges.size - 1)
        for kind in pairs
        for of_kind in kind
    ]
    return np.reshape(by_bin, (2, 2, edges.size - 1)).astype(np.float64)  # of nobody, bincount gives integers
