"""The federation's C: exact where it can be, bounds that always hold, an estimate close to the pooled value."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedecg.errors import FederationError
from fedecg.evaluation import (
    RiskTimeGrid,
    concordance,
    concordance_interval,
    global_concordance,
    risk_grid,
    site_counts,
    stratified_concordance,
    stratified_interval,
    time_grid,
    validate_site_counts,
)
from fedecg.evaluation.cells import cell_pairs, expected_pairs

TINY = 1e-12  # the bounds are ratios of whole numbers, rounded once
patient = st.tuples(st.integers(0, 5), st.booleans(), st.integers(-3, 3), st.integers(0, 3))
federations = st.lists(patient, min_size=1, max_size=30)
cuts = st.lists(st.integers(-3, 6), max_size=5, unique=True).map(sorted)


def columns(rows):
    time, event, risk, site = (np.array(column) for column in zip(*rows, strict=True))
    return time.astype(float), event.astype(bool), risk.astype(float), site


def federated(time, event, risk, site, grid):
    sites = []
    for name in np.unique(site):
        inside = site == name
        sites.append(site_counts(time[inside], event[inside], risk[inside], grid))
        validate_site_counts(sites[-1], grid, str(name))
    return global_concordance(sites)


def grid_of(time_cuts, risk_cuts):
    return RiskTimeGrid(np.array(time_cuts, dtype=float), np.array(risk_cuts, dtype=float))


def study(patients, sites, seed, follow_up="mixed", days=3650.0):
    """Sites that differ in baseline and mean risk; days are whole; about 6 % events."""
    rng = np.random.default_rng(seed)
    site = rng.integers(sites, size=patients)
    truth = rng.normal(size=patients) + 0.3 * rng.normal(size=sites)[site]
    baseline = 0.05 / days * np.exp(0.4 * rng.normal(size=sites))[site]
    failure = rng.exponential(1, patients) / (baseline * np.exp(truth))
    ends = rng.uniform(30, days, patients)
    if follow_up != "even":
        ends = np.where(rng.random(patients) < (1.0 if follow_up == "one day" else 0.6), days, ends)
    time = np.ceil(np.minimum(failure, ends))
    return time, failure <= ends, truth + 0.5 * rng.normal(size=patients), site


def study_grid(time, event, risk, time_bins, risk_bins):
    edges = np.arange(30.0, 7305, 30)
    events = np.bincount(np.searchsorted(edges, time[event], side="right"), minlength=edges.size + 1)[:-1]
    return RiskTimeGrid(time_grid(edges, events, time_bins), risk_grid(risk.mean(), risk.std(), risk_bins))


@settings(max_examples=300, deadline=None)
@given(federations, cuts, cuts)
def test_bounds_hold_whatever_the_ties_sites_and_cuts(rows, time_cuts, risk_cuts):
    time, event, risk, site = columns(rows)
    result = federated(time, event, risk, site, grid_of(time_cuts, risk_cuts))
    pooled = concordance(time, event, risk)
    assert result.comparable_low <= pooled.comparable <= result.comparable_high
    if pooled.comparable:
        assert result.lower - TINY <= pooled.c_index <= result.upper + TINY
    if not math.isnan(result.c_index):
        assert 0 <= result.lower <= result.c_index <= result.upper <= 1
        assert result.ci_low <= result.lower + TINY
        assert result.ci_high >= result.upper - TINY


@settings(max_examples=200, deadline=None)
@given(federations, cuts, cuts)
def test_bounds_hold_where_all_but_one_are_censored(rows, time_cuts, risk_cuts):
    time, _, risk, site = columns(rows)
    event = np.arange(len(rows)) == 0
    result = federated(time, event, risk, site, grid_of(time_cuts, risk_cuts))
    pooled = concordance(time, event, risk)
    if pooled.comparable:
        assert result.lower - TINY <= pooled.c_index <= result.upper + TINY
        assert result.few_events


@settings(max_examples=150, deadline=None)
@given(federations, cuts, cuts, cuts, cuts)
def test_finer_nested_cuts_shrink_the_bounds(rows, time_cuts, risk_cuts, more_time, more_risk):
    cohort = columns(rows)
    coarse = federated(*cohort, grid_of(time_cuts, risk_cuts))
    fine = federated(*cohort, grid_of(sorted({*time_cuts, *more_time}), sorted({*risk_cuts, *more_risk})))
    assume(not math.isnan(fine.lower))
    assert coarse.lower - TINY <= fine.lower <= fine.upper <= coarse.upper + TINY
    assert coarse.comparable_low <= fine.comparable_low <= fine.comparable_high <= coarse.comparable_high


@settings(max_examples=200, deadline=None)
@given(federations)
def test_a_bin_for_every_time_and_risk_leaves_only_the_order_within_a_day_open(rows):
    time, event, risk, site = columns(rows)
    time = time + 0.25 * ~event  # events and censorings on one day, told apart as the rule for ties does
    assume(len(set(time[event])) == event.sum() and len(set(risk)) == len(risk))
    fine = grid_of(sorted(set(time)), sorted(set(risk)))
    result, pooled = federated(time, event, risk, site, fine), concordance(time, event, risk)
    assert result.comparable_low == result.comparable_high == pooled.comparable
    if pooled.comparable:
        assert result.lower == result.upper == result.c_index == pooled.c_index


@settings(max_examples=100, deadline=None)
@given(federations, cuts, cuts)
def test_stratified_c_is_exact_and_the_order_of_sites_changes_nothing(rows, time_cuts, risk_cuts):
    time, event, risk, site = columns(rows)
    grid = grid_of(time_cuts, risk_cuts)
    result = federated(time, event, risk, site, grid)
    exact = stratified_concordance(time, event, risk, site)
    assert result.comparable_within == exact.comparable
    assert result.stratified == exact.c_index or math.isnan(exact.c_index)
    assert repr(federated(time, event, risk, 3 - site, grid)) == repr(result)


@settings(max_examples=100, deadline=None)
@given(federations, cuts, cuts)
def test_one_site_alone_has_the_exact_index_and_empty_sites_change_nothing(rows, time_cuts, risk_cuts):
    time, event, risk, _ = columns(rows)
    grid = grid_of(time_cuts, risk_cuts)
    alone = global_concordance([site_counts(time, event, risk, grid)])
    exact = concordance(time, event, risk)
    if exact.comparable:
        assert alone.lower == alone.upper == alone.c_index == alone.stratified == exact.c_index
    empty = site_counts([], [], [], grid)
    assert repr(global_concordance([empty, site_counts(time, event, risk, grid), empty])) == repr(alone)


def arrangements(cells):
    """C of every order of three patients' times and risks that keeps them in their bins."""
    for times in permutations((0.1, 0.2, 0.3)):
        for risks in permutations((0.1, 0.2, 0.3)):
            time = np.array([t + times[i] for i, (t, _, _) in enumerate(cells)])
            risk = np.array([r + risks[i] for i, (_, r, _) in enumerate(cells)])
            yield concordance(time, [e for _, _, e in cells], risk).c_index


@pytest.mark.parametrize(
    "cells",
    [
        [(0, 0, 1), (1, 0, 0), (1, 1, 0)],  # order of risk open
        [(0, 1, 1), (0, 0, 0), (1, 2, 0)],  # comparable or not, concordant if so
        [(0, 0, 1), (0, 1, 0), (1, 0, 0)],  # comparable or not, discordant if so
        [(0, 0, 1), (0, 1, 1), (1, 0, 0)],  # two events in one time bin
        [(0, 0, 1), (0, 0, 1), (0, 0, 0)],  # nothing known
    ],
)
def test_bounds_are_reached_by_some_arrangement_of_three_sites_of_one_patient(cells):
    grid = grid_of([1], [1, 2])
    sites = [site_counts([t + 0.5], [e], [r + 0.5], grid) for t, r, e in cells]
    result = global_concordance(sites)
    values = [value for value in arrangements(cells) if not math.isnan(value)]
    assert min(values) == pytest.approx(result.lower, abs=TINY)
    assert max(values) == pytest.approx(result.upper, abs=TINY)


def test_two_sites_by_hand():
    # A: event in the first year, high risk. B: event in the first year, low risk; censored later, high risk.
    grid = grid_of([365], [0])
    a = site_counts([100], [1], [1.0], grid)
    b = site_counts([200, 900], [1, 0], [-1.0, 2.0], grid)
    result = global_concordance([a, b])
    # B's own pair is discordant. Across: A's event against B's event (order open), against B's censored (risk open).
    assert (result.lower, result.upper, result.c_index) == (0.0, pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert (result.comparable_within, result.comparable_low, result.comparable_high) == (1, 2, 3)
    assert (result.patients, result.events, result.stratified, result.few_events) == (3, 2, 0.0, True)


@pytest.mark.parametrize("follow_up", ["one day", "even", "mixed"])
@pytest.mark.parametrize(("patients", "sites"), [(6000, 5), (10_000, 30)])
def test_24_by_50_bins_come_within_0_005_of_the_pooled_value(follow_up, patients, sites):
    for seed in range(5):
        time, event, risk, site = study(patients, sites, seed, follow_up)
        result = federated(time, event, risk, site, study_grid(time, event, risk, 24, 50))
        pooled = concordance(time, event, risk).c_index
        assert abs(result.c_index - pooled) <= 0.002
        assert result.lower <= pooled <= result.upper
        assert result.upper - result.lower < 0.06


def test_a_coarse_grid_of_8_by_8_is_still_close_and_bounded():
    time, event, risk, site = study(6000, 5, seed=1)
    result = federated(time, event, risk, site, study_grid(time, event, risk, 8, 8))
    pooled = concordance(time, event, risk).c_index
    assert result.lower <= pooled <= result.upper
    assert abs(result.c_index - pooled) <= 0.01


def test_standard_errors_from_cells_agree_with_those_of_raw_risks():
    time, event, risk, site = study(6000, 5, seed=2)
    result = federated(time, event, risk, site, study_grid(time, event, risk, 24, 50))
    assert result.se == pytest.approx(concordance_interval(time, event, risk).se, rel=0.03)
    within = stratified_interval(time, event, risk, site)
    assert result.stratified_se == pytest.approx(within.se, rel=0.03)
    assert result.stratified_ci_low == pytest.approx(within.ci_low, abs=0.002)
    assert result.stratified_ci_high == pytest.approx(within.ci_high, abs=0.002)


@settings(max_examples=50, deadline=None)
@given(federations, cuts, cuts)
def test_expected_pairs_of_patients_add_up_to_those_of_the_cells(rows, time_cuts, risk_cuts):
    time, event, risk, _ = columns(rows)
    cells = site_counts(time, event, risk, grid_of(time_cuts, risk_cuts)).cells
    credit, comparable = expected_pairs(cells, 0.25)
    told = cell_pairs(cells)
    total = told.certain + told.both_events + 0.25 * told.event_and_censored
    concordant = told.concordant + 0.5 * (told.same_risk + told.both_events)
    concordant += 0.25 * (told.event_higher + 0.5 * told.event_level)
    assert np.sum(cells * comparable) == pytest.approx(2 * total)
    assert np.sum(cells * credit) == pytest.approx(2 * concordant)


def test_a_federation_without_events_has_no_index_and_says_so():
    grid = grid_of([1], [0])
    result = global_concordance([site_counts([1, 2], [0, 0], [1, 2], grid)] * 2)
    for value in (result.c_index, result.lower, result.upper, result.se, result.ci_low, result.stratified):
        assert math.isnan(value)
    assert result.few_events


def test_no_site_at_all_is_refused():
    with pytest.raises(FederationError, match=r"FECG-525 evaluation: found 0 sites with counts"):
        global_concordance([])
