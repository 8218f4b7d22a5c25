"""What a site tells of its evaluation: counts of patients and of pairs, no risk, no time.

In:  a site's outcomes and risks, and the study's public grid of times and risks.
Out: `SiteCounts`: patients by (time bin, risk bin, event) and the site's exact pair counts.
Called by the site (`site_counts`), by the coordinator at its border (`validate_site_counts`), then by `bounds`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedecg.errors import FederationError
from fedecg.evaluation.cells import CellPairs, Placed, Runs, cell_pairs, run_pairs
from fedecg.evaluation.concordance import Concordance, concordance
from fedecg.evaluation.grid import RiskTimeGrid
from fedecg.evaluation.inputs import checked_outcomes
from fedecg.evaluation.intervals import PairSquares

__all__ = ["SiteCounts", "site_counts", "validate_site_counts"]

ROUNDING = 1 + 1e-9

Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SiteCounts:
    """One site's evaluation, additive over sites.

    Attributes:
        cells: (T, R, 2) int64, patients by time bin, risk bin and event (0 = censored, 1 = event).
        pairs: exact counts over the pairs within the site, from its own times and risks.
        squares: what the standard error of the stratified C is made of, exact on any grid.
        within: pairs within sites as their own cells tell them, where these counts are the sum of several sites
            (secure sums); None: one site's, which follow from its cells.
        runs: bins that the site has merged, whose patients stand in the first bin of each run; None: none.
    """

    cells: Int64
    pairs: Concordance
    squares: PairSquares
    within: CellPairs | None = None
    runs: Runs | None = None

    @property
    def told(self) -> CellPairs:
        """Pairs within the site, or within the sites, as cells tell them."""
        if self.within is not None:
            return self.within
        cells = self.cells.astype(np.int64)
        return cell_pairs(cells) if self.runs is None else run_pairs(Placed.of(cells, self.runs))


def site_counts(time: ArrayLike, event: ArrayLike, risk: ArrayLike, grid: RiskTimeGrid) -> SiteCounts:
    """Count a site's patients and pairs; no patient at all is a site of zeros.

    Args:
        time: (n,) days to the event or the last contact, >= 0.
        event: (n,) 1/True = event seen, 0/False = censored.
        risk: (n,) no unit; larger means earlier event; the same score at every site.
        grid: cuts that all sites of the study use.

    Raises:
        CohortError: FECG-235..238, columns that cannot be used.
    """
    outcomes = checked_outcomes(time, event, risk)
    cell = np.ravel_multi_index(
        (
            np.searchsorted(grid.time_cuts_days, outcomes.time, side="right"),
            np.searchsorted(grid.risk_cuts, outcomes.risk, side="right"),
            outcomes.event.astype(np.intp),
        ),
        grid.shape,
    )
    cells = np.bincount(cell, minlength=int(np.prod(grid.shape))).reshape(grid.shape)
    return SiteCounts(cells.astype(np.int64), concordance(*outcomes), PairSquares.of(outcomes))


def validate_site_counts(counts: SiteCounts, grid: RiskTimeGrid, site: str = "") -> None:
    """Refuse counts that no set of patients has; for the coordinator, before anything is added up.

    Args:
        counts: as received.
        grid: the grid that the site was told to use.
        site: name of the site, for the message.

    Raises:
        FederationError: FECG-521 cells of the wrong shape or kind, FECG-522 negative cells,
            FECG-523 pair counts that contradict themselves, FECG-524 pair counts that contradict the cells.
    """
    where = f"site {site}: " if site else ""
    cells, pairs = counts.cells, counts.pairs
    if cells.shape != grid.shape or not np.issubdtype(cells.dtype, np.integer):
        raise FederationError(
            "FECG-521",
            where + "cells",
            found=f"shape {cells.shape} of {cells.dtype}",
            expected=f"whole numbers of shape {grid.shape} (time bins, risk bins, event)",
            fix="The site must use the study's grid and this version of fedecg.",
        )
    negative = int(np.count_nonzero(cells < 0))
    if negative:
        raise FederationError(
            "FECG-522",
            where + "cells",
            found=f"{negative} negative counts",
            expected="counts of patients, >= 0",
        )
    parts = (pairs.concordant, pairs.discordant, pairs.tied_risk)
    wrong = sum(part < 0 for part in parts)
    if wrong or sum(parts) != pairs.comparable:
        raise FederationError(
            "FECG-523",
            where + "pairs",
            found=f"{wrong} negative counts" if wrong else "a total that its parts do not add up to",
            expected="concordant + discordant + tied_risk = comparable, all >= 0",
        )
    squares = counts.squares
    sums = (squares.credit, squares.mixed, squares.comparable)
    if not (0 <= sums[0] <= sums[1] * ROUNDING and sums[1] <= sums[2] * ROUNDING and math.isfinite(sums[2])):
        raise FederationError(
            "FECG-523",
            where + "squares",
            found="sums of squares out of order",
            expected="0 <= credit <= mixed <= comparable: no patient has more concordant than comparable pairs",
        )
    _refuse_impossible_pairs(pairs, counts.told, where)


def _refuse_impossible_pairs(pairs: Concordance, told: CellPairs, where: str) -> None:
    """Each count must lie between the pairs that the cells make certain and those that they allow."""
    open_order = told.both_events + told.event_level
    allowed = {
        "concordant": (told.concordant, told.concordant + told.same_risk + open_order + told.event_higher),
        "discordant": (told.discordant, told.discordant + told.same_risk + open_order + told.event_lower),
        "tied_risk": (0, told.same_risk + open_order),
        "comparable": (told.certain, told.certain + told.both_events + told.event_and_censored),
    }
    for column, (least, most) in allowed.items():
        found = getattr(pairs, column)
        if not least <= found <= most:
            raise FederationError(
                "FECG-524",
                f"{where}pairs.{column}",
                found=f"{found} pairs",
                expected=f"{least} to {most}, as the site's own cells allow",
                fix="Cells and pairs must come from the same patients and the same weights.",
            )
