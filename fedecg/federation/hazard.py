"""What a study knows of time and risk: the pooled baseline hazard and the evaluation grid.

In:  the survey's sums, then each round's sums. Out: the documents that the next task carries, and the federated
C-index of the weights that were sent. Used by the server, and by a site that trains alone (baselines).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedecg.config import StudySettings
from fedecg.errors import FederationError
from fedecg.evaluation import (
    DAYS_A_YEAR,
    GlobalConcordance,
    RiskTimeGrid,
    global_concordance,
    risk_grid,
    time_grid,
    validate_site_counts,
)
from fedecg.federation.documents import (
    ALL,
    CountsDocument,
    GridDocument,
    HazardDocument,
    JoinedPart,
    Part,
    PartCounts,
    RiskMoments,
    RoundSums,
)
from fedecg.federation.rounds import RoundRecord, validation_entry
from fedecg.federation.tasks import EvaluateReply, SurveyReply, TrainReply
from fedecg.objectives import breslow, merge_bins, pooled_ratio, public_grid

__all__ = [
    "HazardState",
    "check_events",
    "check_exp_sums",
    "check_part_counts",
    "check_survey",
    "federated_concordance",
    "pooled_moments",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Arrays = TypeVar("Arrays", Floats, Integers)

RATIO_BOUNDS = (1 / 3, 3.0)


class HazardState:
    """Baseline hazard and evaluation grid, both made of sums alone.

    Args:
        settings: the study.
        survey: site name -> its checked sums on the public grid, under the weights that start the stage.
        parts: site name -> patients and events of each part, as it joined with.

    Raises:
        FederationError: FECG-512 no events at any site.
    """

    def __init__(
        self,
        settings: StudySettings,
        survey: Mapping[str, SurveyReply],
        parts: Mapping[str, Mapping[JoinedPart, PartCounts]],
    ) -> None:
        self.settings, self.parts = settings, dict(parts)
        public = public_grid(settings.survival.grid_days, settings.survival.horizon_days)
        sums = {site: np.array(reply.train_events, dtype=np.int64) for site, reply in sorted(survey.items())}
        events = _total(sums.values())
        check_events(int(events.sum()), len(survey))
        self._starts = starts = merge_bins(events, settings.survival.bins)
        self.edges_days = public[starts]
        # The baseline that ships is read at horizons: on the fine grid, and with every horizon an edge.
        horizons = np.array(settings.evaluation.horizons_years) * DAYS_A_YEAR
        self.shipped_edges_days = np.union1d(public, horizons)
        self.events = {site: np.add.reduceat(column, starts) for site, column in sums.items()}
        exp_sums = _total(np.add.reduceat(np.array(survey[site].train_exp_sums), starts) for site in sums)
        self.cumulative = breslow(_total(self.events.values()), exp_sums)
        self.time_cuts_days = time_grid(public[1:], events[:-1], settings.evaluation.time_bins)
        self.grid = self.grid_for([reply.risk for reply in survey.values()])

    @property
    def document(self) -> HazardDocument:
        """The baseline that the next task carries."""
        return HazardDocument(edges_days=self.edges_days.tolist(), cumulative=self.cumulative.tolist())

    @property
    def grid_document(self) -> GridDocument:
        """The evaluation grid that the next task carries."""
        return GridDocument(
            time_cuts_days=self.grid.time_cuts_days.tolist(), risk_cuts=self.grid.risk_cuts.tolist()
        )

    def admit(self, site: str, reply: SurveyReply, parts: Mapping[JoinedPart, PartCounts]) -> None:
        """A site that was away when the others were surveyed takes part from now on; the bins stay as they are."""
        events = np.array(reply.train_events, dtype=np.int64)
        self.events[site] = np.add.reduceat(events, self._starts)
        self.parts[site] = parts

    def tell_all(self, parts: Mapping[JoinedPart, PartCounts], events: Sequence[int] | None = None) -> None:
        """Masked sums: whoever has answered now, together, has these patients and, by exit bin, these events."""
        self.parts = {ALL: dict(parts)}
        if events is not None:
            self.events = {ALL: np.array(events, dtype=np.int64)}

    def restore(self, cumulative: Floats, risk_cuts: Floats) -> None:
        """Take up the baseline and the evaluation grid of a checkpoint."""
        self.cumulative = cumulative
        self.grid = RiskTimeGrid(time_cuts_days=self.time_cuts_days, risk_cuts=risk_cuts)

    def grid_for(self, moments: Sequence[RiskMoments]) -> RiskTimeGrid:
        """Time cuts of the study, risk cuts centred on the mean log hazard of the sites' validation patients."""
        risk_cuts = risk_grid(*pooled_moments(moments), self.settings.evaluation.risk_bins)
        return RiskTimeGrid(time_cuts_days=self.time_cuts_days, risk_cuts=risk_cuts)

    def digest(self, record: RoundRecord, replies: Mapping[str, TrainReply]) -> bool:
        """Evaluate the weights that were sent, refresh the baseline; False if it had drifted too far to be used.

        The new baseline takes its shape from the fresh sums and only half (on the log scale) of their change of
        level: the sites are moving their mean log hazard towards the old level at the same time. With k the share
        of the way they go in a round, the misfit shrinks by |1/2 - k| a round for any k from 0 to 1; with the full
        change it would turn over and over, |k| (docs/survival.md).
        """
        sums = {site: replies[site].sums for site in sorted(replies)}
        present = {site: part for site, part in sums.items() if part is not None}
        counts = {site: part.validation for site, part in present.items()}
        record.weights_evaluated = record.round - 1
        record.validation = validation_entry(federated_concordance(counts, self.grid))
        exp_sums: Floats = _total(np.array(part.train_exp_sums) for part in present.values())
        events: Integers = _total(self.events[site] for site in present)
        ratio = pooled_ratio(self.cumulative, exp_sums, events)
        self.grid = self.grid_for([part.risk for part in present.values()])
        survival = self.settings.survival
        in_use = survival.loss == "cox-pooled" and survival.baseline == "shared"
        record.hazard_ratio = ratio if in_use else None
        repeat = in_use and not RATIO_BOUNDS[0] <= ratio <= RATIO_BOUNDS[1]
        damping = math.sqrt(ratio) if in_use and not repeat else 1.0
        # Intercepts of "grouped" are departures from the survey's baseline; without an event nothing can be said.
        if survival.loss != "grouped" and events.any():
            self.cumulative = breslow(events, exp_sums) * damping
        return not repeat

    def check_round(self, site: str, sums: RoundSums | None) -> None:
        """Sums of a round must fit this study's grids and each other, before anything is added up.

        Raises:
            FederationError: FECG-503 missing or of another length; FECG-515 other patients than the site joined with;
                FECG-516 a negative risk set; a code of the evaluation room where counts contradict themselves.
        """
        if sums is None:
            raise FederationError(
                "FECG-503", f"sums of {site}", found="none", expected="those of a survival round"
            )
        check_exp_sums(site, sums.train_exp_sums, len(self.cumulative))
        self.check_counts(site, "validation", sums.validation)

    def check_evaluation(self, parts: Sequence[str], site: str, reply: EvaluateReply) -> None:
        """The same for the replies to an evaluation; raises as `check_round`."""
        bins = len(self.shipped_edges_days)
        check_exp_sums(site, reply.validation_exp_sums, bins)
        _check_length(f"events of {site}", reply.validation_events, bins)
        _check_total(site, "validation", reply.validation_events, self.parts[site])
        if set(reply.counts) != set(parts):
            found = ", ".join(sorted(reply.counts)) or "none"
            raise FederationError("FECG-503", f"parts of {site}", found=found, expected=", ".join(parts))
        for part, counts in reply.counts.items():
            self.check_counts(site, part, counts)

    def check_counts(self, site: str, part: Part, document: CountsDocument) -> None:
        """Counts must fit the grid, each other, and the part that the site joined with; raises as `check_round`."""
        check_part_counts(self.grid, self.parts[site], site, part, document)


def check_part_counts(
    grid: RiskTimeGrid,
    joined: Mapping[JoinedPart, PartCounts],
    site: str,
    part: Part,
    document: CountsDocument,
) -> None:
    """Counts must fit the grid, each other, and the part that the site joined with; raises as `check_round`."""
    if document.within is not None and site != ALL:
        raise FederationError(
            "FECG-503", f"{part} counts of {site}", found="pairs of several sites", expected="those of one"
        )
    counts = document.counts(grid)
    validate_site_counts(counts, grid, site)
    told = int(counts.cells.sum()), int(counts.cells[..., 1].sum())
    there = joined.get(part, PartCounts(patients=0, events=0))
    # Fewer are those that are left when patients have withdrawn; of cells that are too small a site tells nothing.
    if told[0] > there.patients or told[1] > there.events or (document.withheld and any(told)):
        _refuse_total(site, part)


def pooled_moments(moments: Sequence[RiskMoments]) -> tuple[float, float]:
    """Mean and standard deviation of the log hazard over all sites' patients; 0 and 0 of nobody."""
    patients = max(sum(part.patients for part in moments), 1)
    mean = sum(part.sum for part in moments) / patients
    variance = sum(part.square_sum for part in moments) / patients - mean**2
    return mean, math.sqrt(max(variance, 0.0))


def check_events(events: int, sites: int) -> None:
    """A study without a single training event has nothing to learn from.

    Raises:
        FederationError: FECG-512.
    """
    if not events:
        raise FederationError(
            "FECG-512",
            "training events",
            found=f"0 at {sites} site(s)",
            expected="at least 1 event",
            fix="Check the event column of the cohort tables, or lengthen follow-up.",
        )


def check_survey(
    settings: StudySettings,
    parts: Mapping[str, Mapping[JoinedPart, PartCounts]],
    site: str,
    reply: SurveyReply,
) -> None:
    """Sums of a survey must be as long as the public grid.

    Raises:
        FederationError: FECG-503, FECG-516 as for a round; FECG-515 other events than the site joined with.
    """
    bins = len(public_grid(settings.survival.grid_days, settings.survival.horizon_days))
    _check_length(f"events of {site}", reply.train_events, bins)
    check_exp_sums(site, reply.train_exp_sums, bins)
    _check_total(site, "train", reply.train_events, parts[site])


def federated_concordance(counts: Mapping[str, CountsDocument], grid: RiskTimeGrid) -> GlobalConcordance:
    """Stratified and global C of the sites' checked counts, added up in the order of site names."""
    return global_concordance([counts[site].counts(grid) for site in sorted(counts)])


def _check_length(what: str, column: Sequence[float], expected: int) -> None:
    if len(column) != expected:
        raise FederationError(
            "FECG-503", what, found=f"{len(column)} numbers", expected=f"{expected} numbers"
        )


def check_exp_sums(site: str, sums: Sequence[float], expected: int) -> None:
    """Of the right length, and no risk set negative beyond rounding."""
    _check_length(f"hazard sums of {site}", sums, expected)
    risk = np.cumsum(np.array(sums[::-1]))
    negative = int(np.sum(risk < -1e-9 * np.abs(risk).max(initial=0.0)))
    if negative:
        raise FederationError(
            "FECG-516",
            f"hazard sums of {site}",
            found=f"{negative} of {expected} risk sets that are negative",
            expected="sums over the patients at risk, >= 0",
            fix="Sums of exits and of late entries must come from the same patients.",
        )


def _check_total(
    site: str, part: Part, events: Sequence[int], parts: Mapping[JoinedPart, PartCounts]
) -> None:
    if sum(events) > parts.get(part, PartCounts(patients=0, events=0)).events:
        _refuse_total(site, part)


def _refuse_total(site: str, part: Part) -> NoReturn:
    raise FederationError(
        "FECG-515",
        f"{part} part of {site}",
        found="more patients or events than it joined with",
        expected="the cohort with which it joined",
        fix="A site's tables must not change during a study.",
    )


def _total(parts: Iterable[Arrays]) -> Arrays:
    """Sum of the sites' arrays, in the order in which they come: that of the site names."""
    total: Arrays = np.sum(np.stack(list(parts)), axis=0)
    return total
