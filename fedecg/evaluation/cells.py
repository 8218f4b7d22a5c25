"""What counts by (time bin, risk bin, event) tell of the pairs among the patients in them.

In:  cells (..., T, R, 2): patients by time bin, risk bin and event (0 = censored, 1 = event).
Out: pairs by kind, exact and in O(cells), or each patient's expected pairs. Called by `counts` and `bounds`.

A site may have merged neighbouring bins before it told of them (`fedecg.privacy.disclosure`): then a cell says that a
patient is somewhere in a run of bins, and two patients' order is known where their runs do not overlap.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["CellPairs", "Placed", "Runs", "cell_pairs", "expected_pairs", "in_the_middle", "run_pairs"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


class CellPairs(NamedTuple):
    """Pairs of patients by what their cells tell; pairs of two censored patients in one time bin are left out.

    In different time bins, the earlier an event, hence comparable:
        concordant, discordant: the earlier in the higher, the lower risk bin.
        same_risk: both in one risk bin; order of risk unknown.
    In one time bin, comparable or not:
        both_events: two events (not comparable if their times are equal), in any risk bins.
        event_higher, event_lower, event_level: an event and a censored patient, by the event's risk bin.
    """

    concordant: int
    discordant: int
    same_risk: int
    both_events: int
    event_higher: int
    event_lower: int
    event_level: int

    @property
    def certain(self) -> int:
        """Pairs that are comparable in any case."""
        return self.concordant + self.discordant + self.same_risk

    @property
    def event_and_censored(self) -> int:
        """Pairs of an event and a censored patient in one time bin, comparable if the event is not later."""
        return self.event_higher + self.event_lower + self.event_level


class Runs(NamedTuple):
    """Which bins a site has merged: for the first bin of each run the last one; other bins hold nobody.

    Attributes:
        time_last: (T,) bin index, >= its own place.
        risk_last: (R,) the same for risk bins.
    """

    time_last: Int64
    risk_last: Int64

    @staticmethod
    def between(time_kept: Int64, risk_kept: Int64, shape: tuple[int, ...]) -> Runs:
        """From the places (rising) of the cuts that were kept, of a grid of `shape` (T, R, 2)."""
        return Runs(_last_of_runs(time_kept, shape[0]), _last_of_runs(risk_kept, shape[1]))

    @property
    def kept(self) -> tuple[Int64, Int64]:
        """Places of the cuts of time and of risk that were kept, rising."""
        time, risk = (_ends_of_runs(last)[:-1] for last in self)
        return time, risk

    def holds(self, cells: Int64) -> bool:
        """Whether all patients stand in first bins of runs, as they must."""
        firsts = np.zeros(cells.shape[:2], dtype=np.bool_)
        firsts[np.ix_(*(np.append(0, kept + 1) for kept in self.kept))] = True
        return not cells[~firsts].any()


class Placed(NamedTuple):
    """Patients at the corners of their runs of bins: four (T, R, 2) tables, the same where nothing was merged.

    Named by time, then risk: `first_last` counts everybody in the first time bin and the last risk bin of a run.
    Those of several sites add up.
    """

    first_first: Int64
    first_last: Int64
    last_first: Int64
    last_last: Int64

    @staticmethod
    def of(cells: Int64, runs: Runs | None) -> Placed:
        """From cells that hold the patients of a run in its first bins."""
        if runs is None:
            return Placed(cells, cells, cells, cells)
        late = _moved(cells, runs.time_last, axis=0)
        return Placed(cells, _moved(cells, runs.risk_last, 1), late, _moved(late, runs.risk_last, 1))


def cell_pairs(cells: Int64) -> CellPairs:
    """What cells tell of the pairs among their patients, exactly, in O(cells).

    Args:
        cells: (..., T, R, 2) patients; with leading axes, pairs within each table, added up over the tables.
    """
    censored, event = cells[..., 0], cells[..., 1]
    later = _running(censored + event, axis=-2, reverse=True)
    events_in_bin = event.sum(axis=-1)
    return CellPairs(
        concordant=int(np.sum(event * _running(later, axis=-1))),
        discordant=int(np.sum(event * _running(later, axis=-1, reverse=True))),
        same_risk=int(np.sum(event * later)),
        both_events=int(np.sum(events_in_bin * (events_in_bin - 1) // 2)),
        event_higher=int(np.sum(event * _running(censored, axis=-1))),
        event_lower=int(np.sum(event * _running(censored, axis=-1, reverse=True))),
        event_level=int(np.sum(event * censored)),
    )


def run_pairs(placed: Placed) -> CellPairs:
    """The same of patients in runs of bins: what is certain is what holds wherever in its run each patient is.

    Where nothing was merged, that of `cell_pairs`. Pairs whose runs of time overlap count as of one time bin, those
    whose runs of risk overlap as of one risk bin.
    """
    (c_ff, e_ff), (c_fl, e_fl), (c_lf, e_lf), (c_ll, e_ll) = (
        (table[..., 0], table[..., 1]) for table in placed
    )
    time, risk = -2, -1

    def pairs(event: Int64, other: Int64, later: bool | None, lower: bool | None) -> int:
        """Events, each times the others who are later (or earlier) and at lower (or higher) risk; None: either."""
        for axis, after in ((time, later), (risk, None if lower is None else not lower)):
            if after is None:
                event, other = event.sum(axis, keepdims=True), other.sum(axis, keepdims=True)
            else:
                other = _running(other, axis, reverse=after)
        return int(np.sum(event * other))

    events, censored = int(e_ff.sum()), int(c_ff.sum())
    certain = pairs(e_lf, e_fl + c_fl, later=True, lower=None)
    concordant = pairs(e_lf, e_fl + c_fl, later=True, lower=True)
    discordant = pairs(e_ll, e_ff + c_ff, later=True, lower=False)
    one_bin = events * censored - pairs(e_lf, c_ff, True, None) - pairs(e_ff, c_lf, False, None)
    higher = pairs(e_ff, c_fl, None, True) - pairs(e_lf, c_fl, True, True) - pairs(e_ff, c_ll, False, True)
    lower = pairs(e_fl, c_ff, None, False) - pairs(e_ll, c_ff, True, False) - pairs(e_fl, c_lf, False, False)
    return CellPairs(
        concordant=concordant,
        discordant=discordant,
        same_risk=certain - concordant - discordant,
        both_events=events * (events - 1) // 2 - pairs(e_lf, e_ff, later=True, lower=None),
        event_higher=higher,
        event_lower=lower,
        event_level=one_bin - higher - lower,
    )


def expected_pairs(cells: Int64, comparable_share: float) -> tuple[Float64, Float64]:
    """(credit, comparable) of one patient of each cell, where what cells leave open counts by expectation.

    An open order of risk counts half; two events in one time bin are comparable.

    Args:
        cells: (..., T, R, 2) patients; pairs are those within each table.
        comparable_share: 0..1, how many pairs of an event and a censored patient in one time bin are comparable.

    Returns:
        Two (..., T, R, 2) float64 arrays: concordant pairs + half of the tied ones, and comparable pairs. Cells
        without patients hold numbers without meaning.
    """
    censored, event = cells[..., 0], cells[..., 1]
    credit, comparable = np.zeros(cells.shape), np.zeros(cells.shape)
    later = _running(censored + event, axis=-2, reverse=True)
    earlier = _running(event, axis=-2)
    events_in_bin = event.sum(axis=-1, keepdims=True)
    # as the later patient: events in earlier time bins
    credit[...] = (_running(earlier, axis=-1, reverse=True) + 0.5 * earlier)[..., None]
    comparable[...] = earlier.sum(axis=-1, keepdims=True)[..., None]
    # as the earlier one, an event: patients in later time bins; other events and censored patients in its own
    credit[..., 1] += _running(later, axis=-1) + 0.5 * later + 0.5 * (events_in_bin - 1)
    credit[..., 1] += comparable_share * (_running(censored, axis=-1) + 0.5 * censored)
    comparable[..., 1] += later.sum(axis=-1, keepdims=True) + events_in_bin - 1
    comparable[..., 1] += comparable_share * censored.sum(axis=-1, keepdims=True)
    # a censored patient: events in its own time bin
    credit[..., 0] += comparable_share * (_running(event, axis=-1, reverse=True) + 0.5 * event)
    comparable[..., 0] += comparable_share * events_in_bin
    return credit, comparable


def _running(counts: Int64, axis: int, reverse: bool = False) -> Int64:
    """Patients in all bins before (with `reverse`: after) each bin along an axis, that bin left out."""
    if reverse:
        return np.flip(_running(np.flip(counts, axis), axis), axis)
    return np.cumsum(counts, axis=axis) - counts


def in_the_middle(cells: Int64, runs: Runs | None) -> Int64:
    """Patients in the middle of their runs of bins, (T, R, 2): where they are likely, for what is only estimated."""
    if runs is None:
        return cells
    time, risk = ((np.arange(last.size) + last) // 2 for last in runs)
    return _moved(_moved(cells, time, 0), risk, 1)


def _last_of_runs(kept: Int64, bins: int) -> Int64:
    """(bins,) the last bin of the run that begins here; cut k lies between bins k and k + 1."""
    last = np.arange(bins)
    firsts = np.concatenate([[0], np.asarray(kept, dtype=np.int64) + 1])
    last[firsts] = np.append(firsts[1:] - 1, bins - 1)
    return last


def _ends_of_runs(last: Int64) -> Int64:
    """Last bin of each run, rising."""
    ends = [int(last[0])]
    while ends[-1] < len(last) - 1:
        ends.append(int(last[ends[-1] + 1]))
    return np.array(ends, dtype=np.int64)


def _moved(cells: Int64, target: Int64, axis: int) -> Int64:
    """Cells with what stands at each place of an axis added at its target."""
    moved = np.zeros_like(cells)
    np.add.at(np.moveaxis(moved, axis, 0), target, np.moveaxis(cells, axis, 0))
    return moved
