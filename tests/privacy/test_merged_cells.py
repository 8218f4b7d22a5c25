"""Merged cells: none below the thresholds, in no difference of two tables either; bounds of C hold the truth still."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedecg.evaluation import RiskTimeGrid, concordance, global_concordance, site_counts, validate_site_counts
from fedecg.evaluation.cells import Placed, Runs, cell_pairs, run_pairs
from fedecg.privacy.disclosure import (
    Thresholds,
    coarse_days,
    coarse_entry_days,
    few,
    merged_counts,
    safe_edges,
)

STUDY = Thresholds(10, 5)
PUBLIC = np.arange(0.0, 3660.0, 30.0)
GRID = RiskTimeGrid(PUBLIC[[6, 12, 18, 30, 42, 60, 80, 100]], np.linspace(-1.5, 1.5, 9))


def patients(seed: int, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Simulated follow-up (days), events and risks."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=number)
    to_event = rng.exponential(1500 * np.exp(-risk))
    censored = rng.uniform(100, 3600, size=number)
    return np.minimum(to_event, censored) + 0.5, to_event <= censored, risk


def released(counts) -> np.ndarray:
    """(t, r, 2) the cells as the site has merged them."""
    first_time, first_risk = (
        np.flatnonzero(np.bincount(_firsts(last), minlength=len(last))) for last in counts.runs
    )
    return counts.cells[np.ix_(first_time, first_risk)]


def _firsts(last: np.ndarray) -> np.ndarray:
    """Where runs begin: at 0 and behind the end of each run."""
    starts, at = [], 0
    while at < len(last):
        starts.append(at)
        at = int(last[at]) + 1
    return np.array(starts)


@given(seed=st.integers(0, 10_000), number=st.integers(0, 900), bins=st.sampled_from([2, 5, 9]))
@settings(max_examples=60, deadline=None)
def test_no_cell_that_leaves_is_below_a_threshold(seed: int, number: int, bins: int) -> None:
    time, event, risk = patients(seed, number)
    grid = RiskTimeGrid(GRID.time_cuts_days, GRID.risk_cuts[: bins - 1])
    counts = merged_counts(time, event, risk, grid, safe_edges(time, event, PUBLIC, STUDY), STUDY)
    if counts is None:
        return
    cells = released(counts)
    assert cells.sum() == counts.cells.sum() == number
    assert min(cells.shape[:2]) >= 2
    assert (cells[..., 0] >= STUDY.patients).all()
    assert (cells[..., 1] >= STUDY.events).all()
    validate_site_counts(counts, grid)


@given(seed=st.integers(0, 10_000), sizes=st.lists(st.integers(60, 500), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_the_bounds_hold_the_pooled_c_whatever_sites_have_merged(seed: int, sizes: list[int]) -> None:
    sites = [patients(seed + number, size) for number, size in enumerate(sizes)]
    thresholds = [Thresholds(0, 0), STUDY, Thresholds(20, 8), Thresholds(3, 2)]
    counts = [
        merged_counts(*site, GRID, safe_edges(site[0], site[1], PUBLIC, limit), limit)
        for site, limit in zip(sites, thresholds, strict=False)
    ]
    told = [(site, one) for site, one in zip(sites, counts, strict=True) if one is not None]
    if not told:
        return
    time, event, risk = (np.concatenate([site[column] for site, _ in told]) for column in range(3))
    found = global_concordance([one for _, one in told])
    truth = concordance(time, event, risk).c_index
    assert found.lower - 1e-12 <= truth <= found.upper + 1e-12
    assert found.lower <= found.c_index <= found.upper
    fine = global_concordance([site_counts(*site, GRID) for site, _ in told])
    assert found.lower <= fine.lower + 1e-12
    assert found.upper >= fine.upper - 1e-12
    assert found.stratified == fine.stratified  # pairs within sites are exact whatever is merged


@given(seed=st.integers(0, 10_000), tables=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_pairs_of_runs_are_those_that_counting_one_by_one_finds(seed: int, tables: int) -> None:
    rng = np.random.default_rng(seed)
    placed, people = [], []
    for _ in range(tables):
        kept = [np.flatnonzero(rng.random(size) < 0.5) for size in (4, 3)]
        runs = Runs.between(*kept, (5, 4, 2))
        firsts = [_firsts(last) for last in runs]
        cells = np.zeros((5, 4, 2), dtype=np.int64)
        for _ in range(rng.integers(0, 9)):
            t, r = (int(rng.choice(first)) for first in firsts)
            event = int(rng.integers(2))
            cells[t, r, event] += 1
            people.append((t, int(runs.time_last[t]), r, int(runs.risk_last[r]), event))
        placed.append(Placed.of(cells, runs))
    assert run_pairs(Placed(*(sum(each) for each in zip(*placed, strict=True)))) == _one_by_one(people)


def _one_by_one(people: list[tuple[int, int, int, int, int]]) -> tuple[int, ...]:
    kinds = [0] * 7
    for one, other in combinations(people, 2):
        first, second = (one, other) if one[1] < other[0] else (other, one)
        if first[1] < second[0]:  # certainly earlier
            if first[4]:
                kinds[0 if first[2] > second[3] else 1 if first[3] < second[2] else 2] += 1
        elif one[4] and other[4]:
            kinds[3] += 1
        elif one[4] or other[4]:
            event, censored = (one, other) if one[4] else (other, one)
            kinds[4 if event[2] > censored[3] else 5 if event[3] < censored[2] else 6] += 1
    return tuple(kinds)


def test_where_nothing_is_merged_both_ways_of_counting_agree() -> None:
    cells = np.random.default_rng(0).integers(0, 9, size=(6, 5, 2))
    assert run_pairs(Placed.of(cells, None)) == cell_pairs(cells)
    every = Runs(np.arange(6), np.arange(5))
    assert run_pairs(Placed.of(cells, every)) == cell_pairs(cells)


def test_thresholds_of_nought_leave_the_counts_as_they_were() -> None:
    time, event, risk = patients(1, 50)
    nought = Thresholds(0, 0)
    counts = merged_counts(time, event, risk, GRID, safe_edges(time, event, PUBLIC, nought), nought)
    plain = site_counts(time, event, risk, GRID)
    assert counts.runs is None
    assert np.array_equal(counts.cells, plain.cells)
    assert counts.pairs == plain.pairs


def test_time_is_merged_before_risk_and_a_site_that_is_too_small_is_told_so() -> None:
    time, event, risk = patients(3, 2000)
    edges = safe_edges(time, event, PUBLIC, STUDY)
    large = released(merged_counts(time, event, risk, GRID, edges, STUDY))
    assert large.shape[0] < len(GRID.time_cuts_days) + 1
    small = patients(3, 40)
    assert merged_counts(*small, GRID, safe_edges(*small[:2], PUBLIC, STUDY), STUDY) is None


@given(seed=st.integers(0, 10_000), number=st.integers(1, 600))
@settings(max_examples=50, deadline=None)
def test_sums_by_any_edges_and_their_differences_are_of_enough_patients(seed: int, number: int) -> None:
    """Whatever edges a coordinator asks for: what was moved to the ends of bins falls into whole bins."""
    time, event, _ = patients(seed, number)
    edges = safe_edges(time, event, PUBLIC, STUDY)
    coarse = coarse_days(time, edges)
    rng = np.random.default_rng(seed)
    asked = [np.append(0.0, np.sort(rng.uniform(1, 3700, size=6))) for _ in range(2)]
    tables = [
        np.stack(
            [np.histogram(coarse[which], np.append(some, np.inf))[0].cumsum() for which in (~event, event)]
        )
        for some in asked
    ]
    if few(number, int(event.sum()), STUDY):
        assert len(edges) == 1
        return
    for sums, least in zip(zip(*tables, strict=True), (STUDY.patients, STUDY.events), strict=True):
        totals = np.unique(np.concatenate(sums))  # of patients until a day; any two may be subtracted
        steps = np.diff(np.append(0, totals))
        assert ((steps == 0) | (steps >= least)).all()
    assert (coarse >= time)[time < edges[-1]].all()
    order = np.argsort(time)
    assert (np.diff(coarse[order]) >= 0).all()


def test_late_entries_are_moved_back_to_bins_of_enough_and_a_few_of_them_to_day_nought() -> None:
    entry = np.concatenate([np.zeros(50), np.full(4, 40.0), np.linspace(100, 400, 30)])
    moved = coarse_entry_days(entry, STUDY, PUBLIC)
    assert (moved <= entry).all()
    values, counts = np.unique(moved, return_counts=True)
    assert len(values) > 2
    assert (counts >= 10).all()
    lonely = np.concatenate([np.zeros(50), [200.0, 300.0]])
    assert (coarse_entry_days(lonely, STUDY, PUBLIC) == 0).all()
    assert (coarse_entry_days(np.zeros(3), STUDY, PUBLIC) == 0).all()


@pytest.mark.parametrize(
    ("number", "events", "is_few"),
    [
        (0, 0, False),
        (9, 5, True),
        (15, 5, False),
        (15, 4, True),
        (14, 5, True),
        (100, 0, True),
        (100, 95, True),
    ],
)
def test_a_part_is_few_by_patients_by_events_and_by_the_others(
    number: int, events: int, is_few: bool
) -> None:
    assert few(number, events, STUDY) is is_few


def test_several_records_of_a_patient_count_once() -> None:
    """Five copies of everybody: cells hold enough patients, not enough records of a few."""
    time, event, risk = patients(4, 400)
    once = merged_counts(time, event, risk, GRID, safe_edges(time, event, PUBLIC, STUDY), STUDY)
    copies = [np.tile(column, 5) for column in (time, event, risk)]
    first = np.arange(400)
    edges = safe_edges(time, event, PUBLIC, STUDY)
    counted = merged_counts(*copies, GRID, edges, STUDY, first)
    assert np.array_equal(counted.cells, 5 * once.cells)
    small = [column[:150] for column in (time, event, risk)]  # too few people, whatever is copied
    copies = [np.tile(column, 5) for column in small]
    assert merged_counts(*copies, GRID, safe_edges(*copies[:2], PUBLIC, STUDY), STUDY) is not None
    edges = safe_edges(*small[:2], PUBLIC, STUDY)
    assert merged_counts(*copies, GRID, edges, STUDY, np.arange(150)) is None
