"""Cumulative/dynamic AUC from sums: exact at one site, bounded for certain and close across sites."""

from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sksurv.datasets import load_flchain, load_gbsg2, load_whas500
from sksurv.metrics import cumulative_dynamic_auc
from sksurv.util import Surv

from fedecg.errors import CohortError, FederationError
from fedecg.evaluation import RiskTimeGrid, risk_grid
from fedecg.evaluation.auc import auc_sums, pairs_by_bin, time_dependent_auc
from fedecg.evaluation.censoring import censoring_curve

TINY = 1e-12
patient = st.tuples(st.integers(0, 8), st.booleans(), st.integers(-3, 3), st.integers(0, 2))
federations = st.lists(patient, min_size=1, max_size=30)
risk_cuts = st.lists(st.integers(-3, 4), max_size=5, unique=True).map(sorted)
HORIZONS = np.array([2.0, 4, 7])


def columns(rows):
    time, event, risk, site = (np.array(column) for column in zip(*rows, strict=True))
    return time.astype(float), event.astype(bool), risk.astype(float), site


def grid_of(cuts):
    return RiskTimeGrid(np.empty(0), np.array(cuts, dtype=float))


def federated(time, event, risk, site, grid, horizons=HORIZONS, min_at_risk=1):
    parts = [
        auc_sums(time[at], event[at], risk[at], horizons, grid, min_at_risk)
        for at in (site == name for name in dict.fromkeys(site.tolist()))
    ]
    return reduce(add, parts)


def by_definition(time, event, risk, site, horizons, min_at_risk=1):
    """All pairs of all sites, each weighted by the curves of its two patients' sites."""
    aucs = []
    for horizon in horizons:
        case_weight, control_weight = np.zeros(time.size), np.zeros(time.size)
        for name in np.unique(site):
            at = site == name
            curve = censoring_curve(time[at], event[at])
            if np.sum(time[at] > horizon) >= min_at_risk:
                cases, controls = at & event & (time <= horizon), at & (time > horizon)
                case_weight[cases] = 1 / curve.at(time[cases])
                control_weight[controls] = 1 / curve.at(horizon)
        pairs = case_weight[:, None] * control_weight
        credit = pairs * ((risk[:, None] > risk) + 0.5 * (risk[:, None] == risk))
        aucs.append(credit.sum() / pairs.sum() if pairs.any() else np.nan)
    return np.array(aucs)


def consortium(seed, patients=4000, sites=10):
    """Sites that differ in baseline, mean risk and follow-up."""
    rng = np.random.default_rng(seed)
    site = rng.integers(sites, size=patients)
    truth = rng.normal(size=patients) + 0.4 * rng.normal(size=sites)[site]
    failure = rng.exponential(size=patients) / (0.15 / 3650 * np.exp(truth))
    ends = np.minimum(rng.exponential(np.linspace(2000, 20_000, sites)[site]), 3650)
    return np.ceil(np.minimum(failure, ends)), failure <= ends, truth + 0.5 * rng.normal(size=patients), site


def test_two_sites_by_hand():
    # A: G = 1 until day 5: case of risk 1, control of risk 0. B: G = 1/2 after day 1: case (day 2) and control weigh 2.
    a = auc_sums([1, 5], [1, 0], [1, 0], [3], grid_of([0]), 1)
    b = auc_sums([1, 2, 5, 6], [0, 1, 0, 0], [9, -1, 0.5, -2], [3], grid_of([0]), 1)
    weight = 4 / 3
    result = time_dependent_auc(a + b)
    # Within: A concordant (1); B's case above one of its controls. Across: A's case over B's control of -2, its pair
    # with 0.5 in one bin; B's case below A's control.
    total = 1 + 2 * weight**2 + 2 * weight + weight
    certain = 1 + weight**2 + weight
    assert result.lower == pytest.approx([certain / total])
    assert result.upper == pytest.approx([(certain + weight) / total])
    assert result.auc == pytest.approx([(certain + weight / 2) / total])
    assert result.stratified == pytest.approx([(1 + weight**2) / (1 + 2 * weight**2)])
    assert (result.sites, result.patients, result.cases, result.controls) == (2, 6, 2, 3)


@pytest.mark.parametrize(
    ("load", "column"), [(load_gbsg2, "age"), (load_whas500, "age"), (load_flchain, "age")]
)
def test_one_site_equals_scikit_survival_on_real_cohorts(load, column):
    table, outcome = load()
    event, time = (outcome[name] for name in outcome.dtype.names)
    risk = np.asarray(table[column], dtype=float)
    horizons = np.quantile(time[time > time.min()], [0.1, 0.3, 0.5, 0.7])
    result = time_dependent_auc(auc_sums(time, event, risk, horizons, grid_of([50, 60])))
    reference = Surv.from_arrays(event, time)
    expected = cumulative_dynamic_auc(reference, reference, risk, horizons)[0]
    for figure in (result.auc, result.lower, result.upper, result.stratified):
        assert figure == pytest.approx(expected, abs=1e-9)


@settings(max_examples=400, deadline=None)
@given(federations, risk_cuts, st.integers(1, 3))
def test_bounds_hold_whatever_the_ties_sites_and_cuts(rows, cuts, min_at_risk):
    cohort = columns(rows)
    result = time_dependent_auc(federated(*cohort, grid_of(cuts), min_at_risk=min_at_risk))
    expected = by_definition(*cohort, HORIZONS, min_at_risk)
    assert np.array_equal(np.isnan(result.auc), np.isnan(expected))
    known = ~np.isnan(expected)
    assert (result.lower[known] - TINY <= expected[known]).all()
    assert (expected[known] <= result.upper[known] + TINY).all()
    assert ((result.lower <= result.auc) & (result.auc <= result.upper))[known].all()


@settings(max_examples=200, deadline=None)
@given(federations)
def test_a_bin_for_every_risk_gives_the_figure_of_all_pairs(rows):
    cohort = columns(rows)
    result = time_dependent_auc(federated(*cohort, grid_of(range(-3, 4))))
    assert result.auc == pytest.approx(by_definition(*cohort, HORIZONS), abs=1e-10, nan_ok=True)


@settings(max_examples=200, deadline=None)
@given(federations, risk_cuts, risk_cuts)
def test_finer_nested_cuts_shrink_the_bounds(rows, cuts, more):
    cohort = columns(rows)
    coarse = time_dependent_auc(federated(*cohort, grid_of(cuts)))
    fine = time_dependent_auc(federated(*cohort, grid_of(sorted({*cuts, *more}))))
    known = ~np.isnan(coarse.auc)
    assert (coarse.lower - TINY <= fine.lower)[known].all()
    assert (fine.upper <= coarse.upper + TINY)[known].all()


@settings(max_examples=100, deadline=None)
@given(federations, risk_cuts, st.permutations(range(30)))
def test_order_of_patients_unit_of_time_and_monotone_risks_change_nothing(rows, cuts, order):
    time, event, risk, _ = columns(rows)
    order = [row for row in order if row < len(rows)]
    one = auc_sums(time, event, risk, HORIZONS, grid_of(cuts), 1)
    other = auc_sums(time[order], event[order], risk[order], HORIZONS, grid_of(cuts), 1)
    assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in vars(one))
    moved = auc_sums(24 * time, event, np.exp(risk), 24 * HORIZONS, grid_of(np.exp(cuts)), 1)
    plan = ("horizons_days", "risk_cuts")
    assert all(
        np.array_equal(getattr(one, name), getattr(moved, name)) for name in vars(one) if name not in plan
    )


@settings(max_examples=100, deadline=None)
@given(federations, risk_cuts)
def test_order_of_sites_and_empty_sites_change_nothing_and_uncensored_sites_may_be_split(rows, cuts):
    time, event, risk, site = columns(rows)
    grid = grid_of(cuts)
    sums = federated(time, event, risk, site, grid)
    reversed_sites = federated(time[::-1], event[::-1], risk[::-1], site[::-1], grid)
    empty = auc_sums([], [], [], HORIZONS, grid, 0)
    expected = time_dependent_auc(sums)
    for result in map(time_dependent_auc, (reversed_sites, empty + sums + empty)):
        assert result.auc == pytest.approx(expected.auc, abs=TINY, nan_ok=True)
    everyone = np.ones(time.size, dtype=bool)
    pooled = time_dependent_auc(auc_sums(time, everyone, risk, HORIZONS, grid, 0)).auc
    split = time_dependent_auc(federated(time, everyone, risk, site, grid, min_at_risk=0))
    known = ~np.isnan(pooled)
    assert (split.lower[known] - TINY <= pooled[known]).all()
    assert (pooled[known] <= split.upper[known] + TINY).all()


@pytest.mark.parametrize("seed", range(3))
def test_50_risk_bins_and_10_sites_come_within_0_005_of_all_pairs(seed):
    time, event, risk, site = consortium(seed)
    horizons = np.array([365.0, 1095, 1825])
    grid = grid_of(risk_grid(risk.mean(), risk.std(), 50))
    result = time_dependent_auc(federated(time, event, risk, site, grid, horizons, 20))
    expected = by_definition(time, event, risk, site, horizons, 20)
    assert np.abs(result.auc - expected).max() <= 0.002
    assert (result.lower <= expected).all()
    assert (expected <= result.upper).all()
    assert (result.upper - result.lower).max() < 0.03


def test_own_curves_recover_the_auc_of_uncensored_patients():
    rng = np.random.default_rng(7)
    site = rng.integers(6, size=24_000)
    truth = rng.normal(size=site.size) + np.linspace(-1, 1, 6)[site]
    failure = rng.exponential(size=site.size) / (0.25 / 1825 * np.exp(truth))
    ends = rng.exponential(np.array([40_000, 20_000, 8000, 3000, 1500, 900])[site])
    time, event = np.minimum(failure, ends), failure <= ends
    grid = grid_of(risk_grid(0, truth.std(), 50))
    own = time_dependent_auc(federated(time, event, truth, site, grid, [1460], 20)).auc[0]
    pooled = time_dependent_auc(auc_sums(time, event, truth, [1460], grid)).auc[0]
    everyone = np.ones(site.size, dtype=bool)
    uncensored = time_dependent_auc(auc_sums(failure, everyone, truth, [1460], grid)).auc[0]
    assert abs(own - uncensored) <= 0.005 < abs(pooled - uncensored)


def test_pairs_by_bin_by_hand():
    assert pairs_by_bin(np.array([0.0, 2, 1]), np.array([3.0, 1, 5])).tolist() == [2 * 3 + 4, 2 + 5, 2 * 5]


def test_no_cases_no_controls_and_all_censored_have_no_auc():
    for time, event in (([5, 6], [1, 0]), ([1, 1], [1, 1]), ([1, 9], [0, 0])):
        result = time_dependent_auc(auc_sums(time, event, [1, 2], [4], grid_of([0]), 0))
        assert np.isnan([result.auc, result.lower, result.upper, result.stratified]).all()
        assert (result.sites, result.patients) == (1, 2)


def test_bad_columns_and_horizons_are_refused_and_other_plans_are_not_added():
    with pytest.raises(CohortError, match=r"FECG-238 risk: found 1 of 2"):
        auc_sums([1, 2], [0, 1], [0, np.nan], [1], grid_of([]))
    with pytest.raises(FederationError, match=r"FECG-535"):
        auc_sums([1, 2], [0, 1], [0, 1], [2, 1], grid_of([]))
    one, other = (auc_sums([1], [0], [1], [2], grid_of(cuts)) for cuts in ([0], [1]))
    with pytest.raises(
        FederationError, match=r"FECG-536 AucSums: found two records that differ in risk_cuts"
    ):
        one + other
