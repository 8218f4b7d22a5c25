"""Disclosure control where plain sums are made: what of a site's sums is merged, and what stays at home.

In:  the site's data, its thresholds, log hazards. Out: the documents of a reply, in which a number that is withheld is
     marked as such, never a nought that could be taken for one. Called by `fedecg_client.work`.

With masked or noised sums nothing of it applies: nobody reads a single site's. Thresholds of 0 (simulations) change not
a bit of what is sent.

    part below the thresholds     nothing of it leaves, marked `withheld`; a training part: the site does not take part
    hazard sums, life table       times are moved to the ends of bins that hold enough (`fedecg.privacy.disclosure`)
    cells of concordance          merged, and which cuts were kept stands beside them; or `withheld`
    Brier score                   from the same moved times
    calibration of the hazard     sums over the whole part
    risk groups                   where all of them, and what lies between their cuts and those of the cells, are enough
    subgroups                     those that are large enough, with companions where a total would tell
    AUC, Uno's C, decision curve  withheld: their bins of risk are too many to be large enough
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort import Cohort, subgroup_members
from fedecg.config import StudySettings, load_site
from fedecg.errors import PolicyError
from fedecg.evaluation import (
    AssessmentPlan,
    Concordance,
    PairSquares,
    RiskTimeGrid,
    SiteCounts,
    SiteSums,
    site_sums,
)
from fedecg.evaluation.assessment import absolute_risk
from fedecg.evaluation.brier import brier_sums
from fedecg.evaluation.life_table import LifeTable, life_table
from fedecg.evaluation.subgroups import SubgroupSums
from fedecg.federation.documents import CountsDocument, JoinedPart, Part, PartCounts, RiskMoments
from fedecg.federation.sums import CONCORDANCE, PARTS, Withheld
from fedecg.privacy.disclosure import (
    Thresholds,
    coarse_days,
    coarse_entry_days,
    few,
    group_edges,
    merged_counts,
    safe_edges,
    small_between,
    small_members,
)
from fedecg.privacy.withdrawal import admit_cohort
from fedecg.training import SiteData

__all__ = [
    "admit",
    "assessed",
    "coarse",
    "counts_of",
    "learned_from",
    "moments_of",
    "parts_told",
    "refuse_few",
    "rows_told",
    "thresholds_of",
    "too_few",
]

Floats = NDArray[np.float64]

# The same for every study, so that no two studies' bins of time tell of the days between them; 30 is the usual
# survival.grid-days, and a study's cuts that are not among these are not kept.
PUBLIC_DAYS = np.arange(0.0, 36_525.0, 30.0)
NOTHING_IS_SMALL = Thresholds(0, 0)
FINE: tuple[Withheld, ...] = ("auc", "uno", "decision")


def thresholds_of(folder: Path, settings: StudySettings) -> Thresholds:
    """Those of site.toml where sums are plain; none where nobody reads a single site's sums."""
    if settings.privacy.sums != "plain":
        return NOTHING_IS_SMALL
    privacy = load_site(folder / "site.toml").privacy
    return Thresholds(privacy.threshold_patients, privacy.threshold_events)


def parts_told(
    parts: Mapping[JoinedPart, PartCounts], cohort: Cohort, thresholds: Thresholds
) -> dict[JoinedPart, PartCounts]:
    """What a site says when it joins: parts that are too small without their numbers."""
    return {
        part: PartCounts(patients=0, events=0, withheld=True) if _few(cohort, part, thresholds) else counts
        for part, counts in parts.items()
    }


def refuse_few(cohort: Cohort, thresholds: Thresholds) -> None:
    """An update of a handful of patients is theirs.

    Raises:
        PolicyError: FECG-453, in the part train, or in the part align of a site that has no other to learn from.
    """
    part: JoinedPart = "train" if (cohort.part == "train").any() else "align"
    if _few(cohort, part, thresholds):
        raise PolicyError(
            "FECG-453",
            f"{part} part of the cohort",
            found=f"fewer than {thresholds.patients} patients without the event, or {thresholds.events} events",
            expected="at least so many (privacy.threshold-patients, privacy.threshold-events)",
            fix="A study with masked sums can take a site of this size; or lower the thresholds in site.toml.",
        )


def learned_from(patients: int, cohort: Cohort, thresholds: Thresholds) -> int:
    """How many patients a site says that it has learned from: without an "align" part that is too small to be told."""
    if thresholds.nothing_is_small:
        return patients
    few_aligned = _few(cohort, "align", thresholds)
    return min(patients, int((cohort.part == "train").sum())) if few_aligned else patients


def admit(folder: Path, cohort: Cohort, thresholds: Thresholds) -> None:
    """Sums over this cohort may leave, after those over others that have left.

    Raises:
        PolicyError: FECG-452, FECG-450. RunError: FECG-601.
    """
    if not thresholds.nothing_is_small:
        _admit(folder, cohort, thresholds)


@lru_cache(maxsize=64)
def _admit(folder: Path, cohort: Cohort, thresholds: Thresholds) -> None:
    """Once a cohort that was read: an error is not kept."""
    parts = {}
    for part in ("train", "validation", "test", "align"):
        inside = cohort.part == part
        if inside.any() and not _few(cohort, part, thresholds):
            parts[part] = _counted(cohort, inside)
    admit_cohort(folder, parts, thresholds.patients)


def _counted(cohort: Cohort, inside: NDArray[np.bool_]) -> dict[str, str]:
    """What sums tell of each patient, by name: outcome, age and sex, of all records, in whatever order they stand."""
    some = cohort.select(inside)
    names = some.patient.tolist() if some.names is None else some.names
    columns = (some.event, some.follow_up_days, some.entry_days, some.died, some.age_years, some.female)
    told: dict[str, list[str]] = {}
    for name, *row in zip(names, *columns, strict=True):
        told.setdefault(str(name), []).append(str([float(value) for value in row]))
    return {name: "".join(sorted(rows)) for name, rows in told.items()}


def coarse(site: SiteData, thresholds: Thresholds) -> SiteData:
    """The site with times moved to the ends of bins that hold enough; what hazard sums are made of."""
    return site if thresholds.nothing_is_small else _coarse(site, thresholds)


def too_few(site: SiteData, part: Part, thresholds: Thresholds) -> bool:
    """Whether nothing of a part may leave."""
    return _few(site.cohort, part, thresholds)


def rows_told(site: SiteData, part: Part, thresholds: Thresholds) -> NDArray[np.int64]:
    """Rows of a part of which sums may leave: all or none."""
    return site.rows(part)[: 0 if too_few(site, part, thresholds) else None]


def moments_of(scores: Floats, site: SiteData, part: Part, thresholds: Thresholds) -> RiskMoments:
    """Moments of the log hazard; of nobody where the part is too small."""
    return RiskMoments.of(scores[:0] if too_few(site, part, thresholds) else scores)


def counts_of(
    scores: Floats, site: SiteData, part: Part, grid: RiskTimeGrid, thresholds: Thresholds
) -> CountsDocument:
    """What leaves of a part's concordance: cells of the grid, merged where they must be, and exact counts of pairs."""
    counts = _counts(scores, site, site.rows(part), grid, thresholds)
    if counts is not None:
        return CountsDocument.of(counts)
    return CountsDocument.of(_nobody(grid)).model_copy(update={"withheld": True})


def assessed(
    sums: SiteSums, scores: Floats, site: SiteData, part: Part, plan: AssessmentPlan, thresholds: Thresholds
) -> tuple[SiteSums, tuple[Withheld, ...]]:
    """The sums that may leave, and the names of the parts that may not, which are those of nobody.

    Args:
        sums: of all patients of the part.
        scores: (n,) their log hazards.
        site, part: whose.
        plan: of the study.
        thresholds: of the site.
    """
    if thresholds.nothing_is_small:
        return sums, ()
    rows, nobody = site.rows(part), _sums_of_nobody(plan)
    counts = _counts(scores, site, rows, plan.grid, thresholds)
    if counts is None:
        return nobody, (CONCORDANCE, *PARTS)
    event, one_each = site.events(rows), _one_each(site.cohort, rows)
    moved = coarse(site, thresholds).follow_up_days(rows)
    probability = absolute_risk(scores, plan.baseline, plan.horizons_days)
    cuts = plan.grid.risk_cuts if counts.runs is None else plan.grid.risk_cuts[counts.runs.kept[1]]
    life = _life(scores, site, rows, plan, cuts, thresholds)
    cuts = cuts if life is None else np.union1d(cuts, plan.group_cuts)
    risk = (
        None
        if small_between(
            scores[one_each], event[one_each], np.union1d(cuts, plan.calibration_cuts), thresholds
        )
        else sums.risk
    )
    subgroups = _subgroups(sums.subgroups, site.cohort.select(rows[one_each]), thresholds)
    kept_back: dict[Withheld, bool] = {
        "life": life is None, "risk": risk is None, "subgroups": subgroups is not sums.subgroups
    }  # fmt: skip
    return replace(
        nobody,
        concordance=counts,
        life=life or nobody.life,
        brier=brier_sums(moved, event, probability, plan.horizons_days, plan.min_at_risk),
        hazard=sums.hazard,
        risk=risk or nobody.risk,
        subgroups=subgroups,
    ), (*FINE, *(name for name, is_so in kept_back.items() if is_so))


def _life(
    scores: Floats,
    site: SiteData,
    rows: NDArray[np.int64],
    plan: AssessmentPlan,
    risk_cuts: Floats,
    thresholds: Thresholds,
) -> LifeTable | None:
    """The life table of groups of risk in bins of time that hold enough; None where none do.

    Nor where its groups, beside the released cells, would tell of the few whose risk lies between two cuts.
    """
    days, cause = site.follow_up_days(rows), site.cause(rows)
    groups = np.searchsorted(plan.group_cuts, scores, side="right")
    one = _one_each(site.cohort, rows)
    edges = group_edges(days[one], cause[one], groups[one], len(plan.group_cuts) + 1, PUBLIC_DAYS, thresholds)
    cuts = np.union1d(risk_cuts, plan.group_cuts)
    if edges is None or small_between(scores[one], cause[one] == 1, cuts, thresholds):
        return None
    return life_table(coarse_days(days, edges), cause, scores, plan.edges_days, plan.group_cuts)


@lru_cache(maxsize=8)
def _coarse(site: SiteData, thresholds: Thresholds) -> SiteData:
    cohort = site.cohort
    follow_up, entry = cohort.follow_up_days.copy(), cohort.entry_days.copy()
    parts: tuple[Part, ...] = ("train", "validation", "test")
    for part in parts:
        rows = site.rows(part)
        edges = _edges(site, rows, thresholds)
        follow_up[rows] = coarse_days(cohort.follow_up_days[rows], edges)
        before = PUBLIC_DAYS[edges[-1] >= PUBLIC_DAYS]  # an entry stays before its exit
        entry[rows] = coarse_entry_days(cohort.entry_days[rows], thresholds, before, _one_each(cohort, rows))
    return replace(site, cohort=_with_times(cohort, follow_up, entry))


def _with_times(cohort: Cohort, follow_up: Floats, entry: Floats) -> Cohort:
    return replace(cohort, follow_up_days=follow_up, entry_days=entry)


def _edges(site: SiteData, rows: NDArray[np.int64], thresholds: Thresholds) -> Floats:
    counted = rows[_one_each(site.cohort, rows)]
    return safe_edges(site.follow_up_days(counted), site.events(counted), PUBLIC_DAYS, thresholds)


def _counts(
    scores: Floats, site: SiteData, rows: NDArray[np.int64], grid: RiskTimeGrid, thresholds: Thresholds
) -> SiteCounts | None:
    edges = np.zeros(0) if thresholds.nothing_is_small else _edges(site, rows, thresholds)
    counted = _one_each(site.cohort, rows)
    days, event = site.follow_up_days(rows), site.events(rows)
    return merged_counts(days, event, scores, grid, edges, thresholds, counted)


def _one_each(cohort: Cohort, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places in `rows` of the first record of every patient: thresholds are of distinct patients."""
    _, first = np.unique(cohort.patient[rows], return_index=True)
    return np.sort(first)


def _few(cohort: Cohort, part: str, thresholds: Thresholds) -> bool:
    """Whether a part has too few patients; those without a known outcome have no events to count."""
    rows = np.flatnonzero(cohort.part == part)
    patients = rows[_one_each(cohort, rows)]
    if part == "align":
        return 0 < len(patients) < thresholds.patients
    return few(len(patients), int(cohort.event[patients].sum()), thresholds)


def _subgroups(sums: SubgroupSums, patients: Cohort, thresholds: Thresholds) -> SubgroupSums:
    """Without the subgroups that are too small, or whose complement is; `patients`: a record of every one."""
    members = subgroup_members(patients)
    events = (members & patients.event[:, None]).sum(axis=0)
    everybody = len(patients), int(patients.event.sum())
    hidden = small_members(members.sum(axis=0), events, *everybody, thresholds)
    if not hidden.any():
        return sums
    columns = {
        name: np.where(hidden, 0, getattr(sums, name))
        for name in SubgroupSums.__dataclass_fields__
        if name != "names"
    }
    return SubgroupSums(sums.names, **columns)


def _nobody(grid: RiskTimeGrid) -> SiteCounts:
    cells = np.zeros(grid.shape, dtype=np.int64)
    return SiteCounts(cells, Concordance.from_counts(0, 0, 0), PairSquares(0.0, 0.0, 0.0))


def _sums_of_nobody(plan: AssessmentPlan) -> SiteSums:
    none = np.zeros(0)
    return site_sums(none, none, none, np.zeros((0, len(plan.subgroups)), dtype=np.bool_), plan)
