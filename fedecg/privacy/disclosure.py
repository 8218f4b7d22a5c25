"""Disclosure control of plain sums: neighbouring cells are merged at the site until each holds enough patients.

In:  a part's follow-up, events, risks; the study's grid; the site's thresholds. Out: bins of time that hold enough, and
     counts whose cells do; or None, where even 2 x 2 cells do not: "not evaluated: too small". Called by the client
     before plain sums leave. Thresholds of 0 leave everything as it is.

Two steps, because times never change and risks do:
    time    once for a part of a cohort all days are cut into bins that hold enough patients (`safe_edges`). Every time
            that a sum is made of is moved to the end of its bin first (`coarse_days`), so that whatever edges are asked
            for later, each sum, and each difference of two sums, is over whole bins.
    cells   of (time, risk, event): cuts of time are those of these bins. For every number of bins of risk, down to two,
            bins of time are merged as far as they must be, to two at least; of what is large enough then the table is
            taken that leaves the fewest pairs open, hence the bounds of C narrowest (`merged_counts`). Merging time
            until only two bins are left, before risk is merged at all, would leave most pairs open.

Guarantees:
    Every cell (bin of time, bin of risk) that leaves holds at least `patients` patients without the event and at least
    `events` with it; none is empty, so that nothing is told of where nobody is, either.
    Tables of one part under any weights and grids have bins of time that are unions of the same `safe_edges`: no
    difference of their totals over the risk is of fewer patients.
    Nothing is said of sums that are no counts: a hazard sum is one of real numbers over such a bin; pair counts, their
    squares and moments are over all patients of the part.

What is not protected: cuts are chosen from the data, and so tell a little of them; risks change from round to round,
and two rounds' tables, or two grids of risk that a coordinator asks for, differ by whose risk lies between their cuts.
Masked or noised sums are for whom that is too much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedecg.evaluation import RiskTimeGrid, SiteCounts, site_counts
from fedecg.evaluation.cells import Runs

__all__ = [
    "Thresholds", "coarse_days", "coarse_entry_days", "few", "group_edges", "merged_counts", "safe_edges",
    "small_between", "small_members",
]  # fmt: skip

Days = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

FEWEST_BINS = 2  # of time and of risk; a table of fewer says nothing of order


@dataclass(frozen=True)
class Thresholds:
    """The smallest numbers that leave a site in plain.

    Attributes:
        patients: distinct patients behind a number.
        events: events behind a number that tells of events.
    """

    patients: int
    events: int

    @property
    def nothing_is_small(self) -> bool:
        """Whether everything may leave."""
        return self.patients <= 0 and self.events <= 0


def few(patients: int, events: int, thresholds: Thresholds) -> bool:
    """Whether the number of patients, of events or of the others would tell of fewer than the thresholds.

    Nobody at all is not few: an absent part has nothing to protect.
    """
    if patients == 0:
        return False
    return patients - events < thresholds.patients or events < thresholds.events


def safe_edges(time: Days, event: Bools, edges_days: Days, thresholds: Thresholds) -> Days:
    """Left edges of bins of time, a subset of `edges_days`, each with enough events and enough other patients.

    Args:
        time: (n,) days, > 0.
        event: (n,).
        edges_days: (B,) left edges, rising from 0; the last bin is open.
        thresholds: of the site.

    Returns:
        (b,) rising, the first that of `edges_days`; that one alone where the part as a whole is small.
    """
    exits = np.clip(np.searchsorted(edges_days, time, side="right") - 1, 0, None)
    seen = np.bincount(exits[event], minlength=len(edges_days))
    others = np.bincount(exits[~event], minlength=len(edges_days))
    starts = _filled(np.stack([others, seen], axis=1)[:, None], thresholds)
    return np.asarray(edges_days[starts], dtype=np.float64)


def coarse_days(time: Days, edges_days: Days) -> Days:
    """(n,) the last moment of each patient's bin; in the last, open bin its beginning, which tells nobody's time.

    Order between bins is kept; what falls together is at one time.
    """
    ends = np.append(np.nextafter(edges_days[1:], -np.inf), np.nextafter(edges_days[-1], np.inf))
    return np.asarray(ends[np.searchsorted(edges_days, time, side="right") - 1], dtype=np.float64)


def coarse_entry_days(
    entry: Days, thresholds: Thresholds, edges_days: Days, counted: Int64 | None = None
) -> Days:
    """(n,) days at which patients come under observation, moved to the beginning of bins with enough of them; 0 stays.

    Late entries that are fewer than the threshold count from day 0. `counted`: as for `merged_counts`.
    """
    late = entry > 0
    if not late.any():
        return entry
    each = entry if counted is None else entry[counted]
    places = np.searchsorted(edges_days, each[each > 0], side="right") - 1
    counts = np.bincount(places, minlength=len(edges_days))
    starts = _filled(np.stack([counts, counts], axis=1)[:, None], replace(thresholds, events=0))
    bins = edges_days[starts]
    moved = bins[np.searchsorted(bins, entry, side="right") - 1]
    return np.where(late, moved, 0.0)


def merged_counts(
    time: Days,
    event: Bools,
    risk: Days,
    grid: RiskTimeGrid,
    edges_days: Days,
    thresholds: Thresholds,
    counted: Int64 | None = None,
) -> SiteCounts | None:
    """A part's counts with bins of the grid merged so that every cell is large enough; None where 2 x 2 are not.

    Pairs within the site are exact whatever is merged, and counted over all patients.

    Args:
        time, event, risk: (n,) as for `site_counts`.
        grid: of the study.
        edges_days: of the part, from `safe_edges`: only their cuts of time are used.
        thresholds: of the site.
        counted: places of one record of every patient, where patients have several: cells that hold enough of these
            hold enough patients; None: every record is another patient's.
    """
    fine = site_counts(time, event, risk, grid)
    if thresholds.nothing_is_small:
        return fine
    one_each = fine if counted is None else site_counts(time[counted], event[counted], risk[counted], grid)
    allowed = np.flatnonzero(np.isin(grid.time_cuts_days, edges_days))  # cuts that may be kept
    by_time = np.add.reduceat(one_each.cells, np.append(0, allowed + 1), axis=0)
    best: SiteCounts | None = None
    for bins in range(fine.cells.shape[1], FEWEST_BINS - 1, -1):
        risk_starts = _even(by_time.sum(axis=(0, 2)), bins)
        time_starts = _filled(np.add.reduceat(by_time, risk_starts, axis=1), thresholds)
        if len(risk_starts) >= FEWEST_BINS and len(time_starts) >= FEWEST_BINS:
            merged = _merged(fine, allowed[time_starts[1:] - 1], risk_starts[1:] - 1)
            if best is None or _open_pairs(merged) < _open_pairs(best):
                best = merged
    return best


def _open_pairs(counts: SiteCounts) -> int:
    """Pairs whose order the cells leave open: what makes the bounds of C wide."""
    told = counts.told
    return told.same_risk + told.both_events + told.event_and_censored


def group_edges(
    time: Days, cause: Int64, group: Int64, groups: int, edges_days: Days, thresholds: Thresholds
) -> Days | None:
    """Bins of time that hold enough of every group of risk: unions of `safe_edges`; None where not even one does.

    Args:
        time: (n,) days.
        cause: (n,) 0 = censored, 1 = event, 2 = dead before it; where anybody died, these must be enough, too.
        group: (n,) 0 .. groups - 1.
        edges_days: as for `safe_edges`.
    """
    edges = safe_edges(time, cause == 1, edges_days, thresholds)
    exits = np.searchsorted(edges, time, side="right") - 1
    kinds = 3 if (cause == 2).any() else 2
    table = np.zeros((len(edges), groups, kinds), dtype=np.int64)
    np.add.at(table, (exits, group, cause), 1)
    # As rows of (others, events): deaths are others of a group of their own.
    rows = [np.stack([table[..., 0], table[..., 1]], axis=-1)]
    if kinds == 3:
        rows.append(
            np.stack([table[..., 2], np.full_like(table[..., 2], max(thresholds.events, 1))], axis=-1)
        )
    stacked = np.concatenate(rows, axis=1)
    if not _enough(stacked.sum(axis=0), thresholds):
        return None
    return np.asarray(edges[_filled(stacked, thresholds)], dtype=np.float64)


def small_between(risk: Days, event: Bools, cuts: Days, thresholds: Thresholds) -> bool:
    """Whether few patients lie between two neighbouring cuts: two tables with these cuts would tell of them.

    Args:
        risk, event: (n,).
        cuts: of all tables together, rising.
    """
    between = np.searchsorted(cuts, risk, side="right")
    patients = np.bincount(between, minlength=len(cuts) + 1)
    events = np.bincount(between[event], minlength=len(cuts) + 1)
    pairs = zip(patients.tolist(), events.tolist(), strict=True)
    return any(few(some, seen, thresholds) for some, seen in pairs)


def small_members(
    patients: Int64, events: Int64, all_patients: int, all_events: int, thresholds: Thresholds
) -> Bools:
    """(S,) which subgroups are withheld: those that are small themselves, or that leave a small rest of the whole.

    Where exactly one of several is small, the smallest other one goes with it: a total would tell.
    """
    numbers = zip(patients.tolist(), events.tolist(), strict=True)
    hidden = np.array(
        [
            few(some, seen, thresholds) or few(all_patients - some, all_events - seen, thresholds)
            for some, seen in numbers
        ],
        dtype=np.bool_,
    )
    others = np.flatnonzero(~hidden & (patients > 0))
    if hidden.sum() == 1 and others.size:
        hidden[others[np.argmin(patients[others])]] = True
    return hidden


def _merged(fine: SiteCounts, time_kept: Int64, risk_kept: Int64) -> SiteCounts:
    """Counts on a coarser grid: the patients of each run of bins stand in its first."""
    starts = (np.append(0, time_kept + 1), np.append(0, risk_kept + 1))
    cells = np.zeros_like(fine.cells)
    cells[np.ix_(*starts)] = np.add.reduceat(
        np.add.reduceat(fine.cells, starts[0], axis=0), starts[1], axis=1
    )
    return replace(fine, cells=cells, runs=Runs.between(time_kept, risk_kept, fine.cells.shape))


def _filled(table: Int64, thresholds: Thresholds) -> Int64:
    """Places at which bins of time begin, from the first on as short as they may be; what is left over joins the last.

    Args:
        table: (T, R, 2) others and events.
    """
    starts, held = [0], np.zeros(table.shape[1:], dtype=np.int64)
    for at, row in enumerate(table):
        if at and _enough(held, thresholds) and _enough(table[at:].sum(axis=0), thresholds):
            starts, held = [*starts, at], np.zeros_like(held)
        held = held + row
    return np.array(starts, dtype=np.int64)


def _enough(cells: Int64, thresholds: Thresholds) -> bool:
    """(R, 2) others and events: each at least its threshold."""
    return bool((cells[:, 0] >= thresholds.patients).all() and (cells[:, 1] >= thresholds.events).all())


def _even(patients: Int64, bins: int) -> Int64:
    """Places at which so many bins of risk begin, with about equal numbers of patients; fewer where risks are tied."""
    reached = np.cumsum(patients)
    wanted = reached[-1] * np.arange(1, bins) / bins
    cuts = np.searchsorted(reached, wanted, side="left") + 1
    return np.unique(np.append(0, cuts[cuts < len(patients)]))
