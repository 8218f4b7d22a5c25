"""The pooled baseline hazard from sums: time bins, sums of hazards by exit bin, Breslow's estimate.

In:  follow-up (N,) days, events (N,) bool, log hazards (N,), as numpy float64; or sums of them over sites.
Out: bin edges, sums that may leave a site, and a `Baseline`. Called by `fedecg.training` (at a site) and by
     `fedecg.federation` (at the coordinator). Pure.

Bins are **left-closed**: bin b holds edges_days[b] <= t < edges_days[b + 1], the last bin is open to the
right, and edges_days[0] = 0. Whoever leaves between two event times is then counted at the earlier one, where
he was still at risk, and not at the later one: with an edge at every event time the binned likelihood is the
exact one.

Left truncation: who enters at entry_days > 0 is at risk at the event times after it, so from the first bin that starts
later (`first_bin`); whoever enters at 0 from the first bin on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import ModelError

__all__ = [
    "Baseline",
    "breslow",
    "breslow_variance",
    "event_counts",
    "event_time_grid",
    "exit_bin",
    "first_bin",
    "hazard_sums",
    "merge_bins",
    "pooled_ratio",
    "public_grid",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


def public_grid(grid_days: float, horizon_days: float) -> Floats:
    """Left edges (bins,) in days of the grid that all sites share: 0, grid, 2 grid, ... and the horizon.

    The last bin starts at the horizon and is open, so that nobody is left out. The bin before it is shorter
    where the horizon is no multiple of the grid.
    """
    edges = np.arange(np.ceil(horizon_days / grid_days)) * grid_days
    return np.append(edges[edges < horizon_days], horizon_days)


def event_time_grid(event: Booleans, follow_up_days: Floats) -> Floats:
    """Left edges (bins,) in days, one at every event time: the exact grid, for sums that stay at a site."""
    return np.union1d(0.0, follow_up_days[event])


def exit_bin(follow_up_days: Floats, edges_days: Floats) -> Integers:
    """Bin (N,) in which each patient leaves, by event or censoring.

    Args:
        follow_up_days: (N,), days > 0.
        edges_days: (bins,), left edges, ascending from 0.
    """
    return np.searchsorted(edges_days, follow_up_days, side="right").astype(np.int64) - 1


def event_counts(event: Booleans, exit_bin: Integers, n_bins: int) -> Integers:
    """Events (n_bins,) by exit bin; these add up over sites."""
    return np.bincount(exit_bin[event], minlength=n_bins).astype(np.int64)


def first_bin(entry_days: Floats, event: Booleans, exit_bin: Integers, edges_days: Floats) -> Integers:
    """First bin (N,) in which each patient is at risk; `exit_bin + 1` for one who is in no risk set at all.

    An event is always at risk in its own bin, also where it entered inside that bin.

    Args:
        entry_days: (N,), days >= 0 from which the patient is observed; 0 = from the start.
        event: (N,), bool.
        exit_bin: (N,), of the same patients.
        edges_days: (bins,), left edges, ascending from 0.
    """
    later = np.where(entry_days > 0, np.searchsorted(edges_days, entry_days, side="right"), 0)
    return np.minimum(later, exit_bin + ~event).astype(np.int64)


def hazard_sums(
    log_hazard: Floats, exit_bin: Integers, n_bins: int, exp_bound: float, first_bin: Integers | None = None
) -> Floats:
    """Sums (n_bins,) of exp(log hazard), by exit bin less by entry bin; these add up over sites.

    Summed from bin s to the last, they are the sum over the risk set of s. Without late entries all are >= 0.

    Args:
        log_hazard: (N,), dropout and masking off.
        exit_bin: (N,), in 0 .. n_bins - 1.
        n_bins: number of bins.
        exp_bound: exp is continued linearly beyond this log hazard, as in `survival.linear_exp`.
        first_bin: (N,), first bin at risk, in 0 .. exit_bin + 1; None: all are at risk from bin 0 on.
    """
    hazard = np.exp(np.minimum(log_hazard, exp_bound)) * (1 + np.maximum(log_hazard - exp_bound, 0))
    leaving = np.bincount(exit_bin, weights=hazard, minlength=n_bins).astype(np.float64)
    if first_bin is None or not first_bin.any():
        return leaving
    late = first_bin > 0
    return leaving - np.bincount(first_bin[late] - 1, weights=hazard[late], minlength=n_bins)


def merge_bins(events_per_grid_bin: Integers, bins: int) -> Integers:
    """Join neighbouring grid bins to about `bins` bins of similar event counts.

    Each joined bin starts at a grid bin with events (the first at grid bin 0), holds events, and reaches to
    the start of the next; the last is open. There are never more than grid bins with events. Without any
    events the result is one bin.

    Args:
        events_per_grid_bin: (grid bins,), events of all sites.
        bins: how many are wanted, >= 1.

    Returns:
        Indices of the grid bins at which the joined bins start; `grid[indices]` are their edges.
    """
    occupied = np.flatnonzero(events_per_grid_bin)
    wanted = min(bins, len(occupied))
    starts, held, left = [0], 0, int(events_per_grid_bin.sum())
    for position, grid_bin in enumerate(occupied):
        still_wanted = wanted - len(starts)  # bins to open after the present one
        # The present bin is full at its fair share of what is left, or when every later grid bin is needed.
        full = held * (still_wanted + 1) >= left or len(occupied) - position <= still_wanted
        if held and still_wanted and full:
            starts.append(int(grid_bin))
            left -= held
            held = 0
        held += int(events_per_grid_bin[grid_bin])
    return np.array(starts, dtype=np.int64)


def breslow(events: Integers, exp_sums: Floats) -> Floats:
    """Breslow's cumulative baseline hazard H0 (bins,) from sums over sites.

    W[s] is the sum of `exp_sums` over the bins >= s, which is the risk set at s; H0[b] is the sum over the
    bins s <= b of events[s] / W[s]. A bin without events adds 0.

    Args:
        events: (bins,), events by exit bin.
        exp_sums: (bins,), `hazard_sums` of the same patients.

    Raises:
        ModelError: FECG-322, a bin has events and a risk sum that is not finite and > 0.

    Source: Breslow 1972, discussion of Cox 1972.
    """
    risk = np.cumsum(exp_sums[::-1])[::-1]
    occupied = events > 0
    wrong = int(np.sum(~(np.isfinite(risk[occupied]) & (risk[occupied] > 0))))
    if wrong:
        raise ModelError(
            "FECG-322",
            "risk sums of the baseline hazard",
            found=f"{wrong} of {int(occupied.sum())} bins with events whose sum is not finite and positive",
            expected="sums of exp(log hazard) > 0 over the same patients as the events",
            fix="Take events and sums from the same sites; where both agree, lower survival.learning-rate.",
        )
    steps = np.zeros(len(risk))
    steps[occupied] = events[occupied] / risk[occupied]
    return np.cumsum(steps)


def breslow_variance(events: Integers, exp_sums: Floats) -> Floats:
    """Variance (bins,) of Breslow's H0 with the log hazards taken as known: running sum of events / W^2.

    Args:
        events, exp_sums: as for `breslow`, which has accepted them.

    Source: Andersen, Gill 1982, Ann Stat 10:1100-20 (the term for H0 alone).
    """
    risk = np.cumsum(exp_sums[::-1])[::-1]
    steps = np.zeros(len(risk))
    steps[events > 0] = events[events > 0] / risk[events > 0] ** 2
    return np.cumsum(steps)


def pooled_ratio(cumulative_hazard: Floats, exp_sums: Floats, events: Integers) -> float:
    """Expected events under H0 over observed events; 1 exactly when H0 is fresh.

    The safeguard against a stale H0: with sums at new weights and the H0 of older ones, a value far from 1
    says that the log hazards have moved as a whole. A fresh H0 from `breslow` re-centres itself (a shift of
    all log hazards by c divides it by exp(c)); a stale H0 is re-centred by dividing it by this ratio.

    Args:
        cumulative_hazard: (bins,), the H0 in use.
        exp_sums: (bins,), `hazard_sums` under the present weights.
        events: (bins,), events of the same patients.

    Returns:
        sum(exp_sums * H0) / sum(events); without events 1, for there is nothing to correct.
    """
    total = int(events.sum())
    return float(exp_sums @ cumulative_hazard) / total if total else 1.0


@dataclass(frozen=True)
class Baseline:
    """Baseline cumulative hazard: a step function of the days since the ECG.

    Args:
        edges_days: (bins,), left edges, ascending from 0; the last bin is open.
        cumulative_hazard: (bins,), H0 in each bin, not decreasing.

    Raises:
        ModelError: FECG-321, edges or hazards are not as above (it may come from a message or a file).
    """

    edges_days: Floats
    cumulative_hazard: Floats

    def __post_init__(self) -> None:
        problem = _baseline_problem(self.edges_days, self.cumulative_hazard)
        if problem:
            raise ModelError(
                "FECG-321",
                "baseline hazard",
                found=problem,
                expected="edges in days ascending from 0 and, for each, a finite hazard that does not fall",
                fix="Build it with `merge_bins` and `breslow`.",
            )

    def at(self, follow_up_days: Floats) -> Floats:
        """H0 (N,) at each follow-up (N,) in days: the value of the bin in which the patient leaves."""
        return self.cumulative_hazard[exit_bin(follow_up_days, self.edges_days)]

    def reached(self, days: Floats) -> Floats:
        """H0 (N,) on given days: a bin's events are spread evenly over it, so half of its step after half of it.

        `at` gives a patient who leaves in a bin the whole of its step, as the likelihood of binned times has it; on a
        day that is not tied to events, such as a horizon, that would be up to a bin too much. Beyond the last edge
        all has been reached.
        """
        inside = np.interp(days, self.edges_days, np.concatenate([[0.0], self.cumulative_hazard[:-1]]))
        return np.asarray(np.where(days > self.edges_days[-1], self.cumulative_hazard[-1], inside))

    def exposure(self, entry_days: Floats, event: Booleans, follow_up_days: Floats) -> Floats:
        """H0 (N,) that each patient has been exposed to between entry and exit; `at` where all enter at 0."""
        last = exit_bin(follow_up_days, self.edges_days)
        first = first_bin(entry_days, event, last, self.edges_days)
        before = np.concatenate([[0.0], self.cumulative_hazard])
        return np.asarray(before[last + 1] - before[first])


def _baseline_problem(edges_days: Floats, cumulative_hazard: Floats) -> str:
    if edges_days.ndim != 1 or edges_days.shape != cumulative_hazard.shape or not edges_days.size:
        return "shapes that do not match"
    if not (np.isfinite(edges_days).all() and np.isfinite(cumulative_hazard).all()):
        return "values that are not finite"
    if edges_days[0] != 0 or (np.diff(edges_days) <= 0).any():
        return "edges out of order"
    if (np.diff(cumulative_hazard, prepend=0.0) < 0).any():
        return "a cumulative hazard that falls or is negative"
    return ""
