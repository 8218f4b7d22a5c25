"""What counts by (time bin, risk bin, event) tell of the pairs among the patients in them.

In:  cells (..., T, R, 2): patients by time bin, risk bin and event (0 = censored, 1 = event).
Out: pairs by kind, exact and in O(cells), or each patient's expected pairs. Called by `counts` and `bounds`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["CellPairs", "cell_pairs", "expected_pairs"]

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
