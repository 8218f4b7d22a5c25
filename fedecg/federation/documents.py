"""What tasks and replies are made of: hazards, grids, counts, moments, heads of ledgers; each a strict model.

In:  values of the evaluation and privacy rooms. Out: documents with bounds far beyond any study, and back.
Called by `tasks` and by every other module whose documents travel.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from fedecg.config import Section
from fedecg.errors import FederationError
from fedecg.evaluation import Concordance, PairSquares, RiskTimeGrid, SiteCounts
from fedecg.evaluation.cells import CellPairs, Runs
from fedecg.privacy.ledger import Head

__all__ = [
    "ALL",
    "AlignmentFigures",
    "Code",
    "Count",
    "CountsDocument",
    "GridDocument",
    "HazardDocument",
    "JoinedPart",
    "LedgerHead",
    "Part",
    "PartCounts",
    "RiskMoments",
    "RoundSums",
    "Run",
    "SignedSum",
]

# Bounds far beyond any study, so that no sum over sites can overflow.
Count = Annotated[int, Field(ge=0, le=2**40)]
Code = Annotated[str, Field(pattern=r"^FECG-[0-9]{3}$")]
Run = Annotated[str, Field(pattern=r"^[0-9a-f]{0,32}$")]  # a random name of one
Sum = Annotated[float, Field(ge=0, le=1e100)]
SignedSum = Annotated[float, Field(ge=-1e100, le=1e100)]
Part = Literal["train", "validation", "test"]
JoinedPart = Literal[Part, "align"]  # align: ECGs without a known outcome, which nothing evaluates
FARTHEST_RISK = 50.0
ALL = "all sites"  # whose name masked sums bear; no site has it


class HazardDocument(Section):
    """Baseline cumulative hazard: left edges of the time bins, `edges_days` (B,), and `cumulative` (B,)."""

    edges_days: list[float]
    cumulative: list[Sum]


class GridDocument(Section):
    """Cuts of the joint (time, risk, event) histogram: inner cuts only, both ends open."""

    time_cuts_days: list[float]
    risk_cuts: list[float]


class CountsDocument(Section):
    """What one site knows of its concordance: cells (T, R, 2) flattened, its exact pair counts and their squares."""

    cells: list[Count]
    concordant: Count
    discordant: Count
    tied_risk: Count
    credit_squares: Sum
    mixed_squares: Sum
    comparable_squares: Sum
    # Pairs within sites as their own cells tell them (`CellPairs`): in sums of several sites only.
    within: Annotated[list[Count], Field(min_length=7, max_length=7)] | None = None
    # Places of the grid's cuts that the site has kept, where it has merged cells that were too small; None: all. The
    # patients of merged bins then stand in the first of them.
    time_kept: list[Count] | None = None
    risk_kept: list[Count] | None = None
    withheld: bool = False  # not evaluated: too small; the noughts say nothing

    @staticmethod
    def of(counts: SiteCounts) -> CountsDocument:
        """From the evaluation room's type."""
        pairs = counts.pairs
        kept = (None, None) if counts.runs is None else [places.tolist() for places in counts.runs.kept]
        return CountsDocument(
            time_kept=kept[0],
            risk_kept=kept[1],
            cells=[int(cell) for cell in counts.cells.ravel()],
            concordant=pairs.concordant,
            discordant=pairs.discordant,
            tied_risk=pairs.tied_risk,
            credit_squares=counts.squares.credit,
            mixed_squares=counts.squares.mixed,
            comparable_squares=counts.squares.comparable,
        )

    def counts(self, grid: RiskTimeGrid) -> SiteCounts:
        """Back to the evaluation room's type.

        Raises:
            FederationError: FECG-503 if the number of cells is not that of the grid.
        """
        expected = math.prod(grid.shape)
        if len(self.cells) != expected:
            raise FederationError(
                "FECG-503",
                "cells of a reply",
                found=f"{len(self.cells)} numbers",
                expected=f"{expected} numbers",
            )
        pairs = Concordance.from_counts(self.concordant, self.discordant, self.tied_risk)
        squares = PairSquares(self.credit_squares, self.mixed_squares, self.comparable_squares)
        cells = np.array(self.cells, dtype=np.int64).reshape(grid.shape)
        within = None if self.within is None else CellPairs(*self.within)
        return SiteCounts(cells, pairs, squares, within, self._runs(cells))

    def _runs(self, cells: NDArray[np.int64]) -> Runs | None:
        """Bins that the site has merged; FECG-503 unless they are runs of the grid's with everybody in their first."""
        if self.time_kept is None and self.risk_kept is None:
            return None
        cuts = [bins - 1 for bins in cells.shape[:2]]
        kept = [
            list(range(most)) if places is None else places
            for places, most in zip((self.time_kept, self.risk_kept), cuts, strict=True)
        ]
        rising = all(
            places == sorted({place for place in places if place < most})
            for places, most in zip(kept, cuts, strict=True)
        )
        runs = Runs.between(np.array(kept[0]), np.array(kept[1]), cells.shape) if rising else None
        if runs is None or not runs.holds(cells):
            raise FederationError(
                "FECG-503",
                "cells of a reply",
                found="merged bins that are none of the grid's, or patients in the midst of them",
                expected="rising places of the grid's cuts, patients in the first bin of each run",
            )
        return runs

    def with_pairs_told(self, grid: RiskTimeGrid) -> CountsDocument:
        """The same, ready to be added to those of other sites without losing which pairs are within sites."""
        return self.model_copy(update={"within": list(self.counts(grid).told)})


class PartCounts(Section):
    """Patients and events of one part of a site's cohort."""

    patients: Count
    events: Count
    withheld: bool = False  # fewer than the site's thresholds; the noughts say nothing

    @model_validator(mode="after")
    def _events_are_of_patients(self) -> PartCounts:
        if self.events > self.patients:
            raise ValueError("expected at most one event a patient")
        return self


class RiskMoments(Section):
    """Sums of the log hazard over validation patients: the evaluation grid is centred on their mean.

    Log hazards count as at most +-50 here, so that a single one gone astray does not move the grid.
    """

    patients: Count
    sum: SignedSum
    square_sum: Sum

    @model_validator(mode="after")
    def _of_some_patients(self) -> RiskMoments:
        most = self.patients * FARTHEST_RISK**2 * (1 + 1e-9)
        if not self.sum**2 <= self.patients * self.square_sum * (1 + 1e-9) <= self.patients * most:
            raise ValueError("expected the moments of as many log hazards within +-50")
        return self

    @staticmethod
    def of(log_hazard: NDArray[np.float64]) -> RiskMoments:
        """From (n,) log hazards."""
        bounded = np.clip(log_hazard, -FARTHEST_RISK, FARTHEST_RISK)
        total, squares = float(bounded.sum()), float(np.square(bounded).sum())
        return RiskMoments(patients=len(log_hazard), sum=total, square_sum=squares)


class LedgerHead(Section):
    """How far a site's ledger went when it answered: what the coordinator returns, so that an older one is noticed."""

    sequence: Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @staticmethod
    def of(head: Head) -> LedgerHead:
        """From the privacy room's type."""
        return LedgerHead(sequence=head.sequence, sha256=head.sha256)

    def head(self) -> Head:
        """Back to the privacy room's type."""
        return Head(self.sequence, self.sha256)


class RoundSums(Section):
    """Sums under the weights that a site received: hazard sums by exit bin, validation counts and moments.

    A hazard sum is negative where more enter late than leave; summed from a bin to the last they never are.
    """

    train_exp_sums: list[SignedSum]
    validation: CountsDocument
    risk: RiskMoments
    train_events: list[Count] | None = None  # by exit bin, of those who answered (masked sums)


class AlignmentFigures(Section):
    """What a site says of its alignment round, unless that must stay at home (`PrivacySettings.tells_of_alignment`).

    How many records of what alignment learns from state something, and, in rounds in which it is looked at, on how many
    records which effective ranks were found, of embeddings and of targets (`fedecg.training.collapse`).
    """

    stated: Count
    records: Count = 0
    rank: Annotated[float, Field(ge=0, le=2**40)] | None = None
    target_rank: Annotated[float, Field(ge=0, le=2**40)] | None = None

    @model_validator(mode="after")
    def _ranks_of_some_records(self) -> AlignmentFigures:
        if not (self.rank is None) == (self.target_rank is None) == (self.records == 0):
            raise ValueError("expected both ranks with the records that they are of, or none of the three")
        return self
