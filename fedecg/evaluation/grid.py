"""The study's public grid of times and risks, on which sites count their patients.

In:  what is public in a study: the sum of events by day range, mean and spread of the risk.
Out: `RiskTimeGrid`, cuts in days and in risk; both axes are open at both ends, so that nobody falls outside.
Called by the coordinator, sent to the sites, used by `counts`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from fedecg.errors import FederationError

__all__ = ["RiskTimeGrid", "risk_grid", "time_grid"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RiskTimeGrid:
    """Cuts between bins. Bin k holds values v with cuts[k-1] <= v < cuts[k].

    Attributes:
        time_cuts_days: (T-1,) days, strictly increasing; empty = one time bin.
        risk_cuts: (R-1,) in units of the risk, strictly increasing; empty = one risk bin.

    Raises:
        FederationError: FECG-526, cuts that are not finite or not strictly increasing.
    """

    time_cuts_days: Float64
    risk_cuts: Float64

    def __post_init__(self) -> None:
        for name in ("time_cuts_days", "risk_cuts"):
            cuts = np.array(getattr(self, name), dtype=np.float64)
            if cuts.ndim != 1 or not np.isfinite(cuts).all() or not (np.diff(cuts) > 0).all():
                bad = int(np.count_nonzero(~np.isfinite(cuts))) + int(np.count_nonzero(~(np.diff(cuts) > 0)))
                raise FederationError(
                    "FECG-526",
                    name,
                    found=f"{cuts.ndim} dimension(s), {bad} places that are not finite or do not increase",
                    expected="one row of finite, strictly increasing cuts",
                )
            cuts.setflags(write=False)
            object.__setattr__(self, name, cuts)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, R, 2): time bins, risk bins, censored or event."""
        return self.time_cuts_days.size + 1, self.risk_cuts.size + 1, 2


def risk_grid(mean: float, sd: float, bins: int) -> Float64:
    """Cuts at the quantiles of a normal risk: bins of about equal numbers of patients, hence fewest pairs in one bin.

    A grid of 2 k bins has every cut of the grid of k bins, so finer grids are nested in coarser ones.

    Args:
        mean: of the risk over all patients of the study, finite.
        sd: its standard deviation, >= 0; a spread below a millionth (all risks equal) is replaced by that.
        bins: number of bins, >= 1.

    Returns:
        (bins - 1,) strictly increasing.
    """
    spread = max(sd, 1e-6 * max(1.0, abs(mean)))
    return np.asarray(mean + spread * ndtri(np.arange(1, bins) / bins), dtype=np.float64)


def time_grid(edges_days: ArrayLike, events: ArrayLike, bins: int) -> Float64:
    """Merge a fine public grid of event counts into time bins of similar numbers of events.

    The last cut lies behind the last event: patients who are censored at the end of the study are then known to have
    outlived every event, which settles most pairs.

    Args:
        edges_days: (P,) upper edges of the fine grid, days, strictly increasing.
        events: (P,) events of all sites that fall below each edge and not below the one before.
        bins: number of time bins, >= 1.

    Returns:
        (at most bins - 1,) cuts in days, strictly increasing; none where there is no event.
    """
    edges, seen = np.asarray(edges_days, dtype=np.float64), np.cumsum(np.asarray(events))
    if bins < 2 or not seen.size or not seen[-1]:
        return np.empty(0)
    wanted = np.arange(1, bins) / (bins - 1) * seen[-1]
    return np.asarray(edges[np.unique(np.searchsorted(seen, wanted, side="left"))])
