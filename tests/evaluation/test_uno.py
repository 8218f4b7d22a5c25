"""Uno's C from sums: exact at one site and where bins settle every pair, free of the sites' follow-up elsewhere."""

import math
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sksurv.datasets import load_flchain, load_gbsg2, load_whas500
from sksurv.metrics import concordance_index_ipcw
from sksurv.util import Surv

from fedecg.errors import CohortError, FederationError
from fedecg.evaluation import RiskTimeGrid, concordance, risk_grid, time_grid
from fedecg.evaluation.censoring import censoring_curve
from fedecg.evaluation.uno import uno_concordance, uno_sums

TINY = 1e-12
TAU = 7.0
patient = st.tuples(st.integers(0, 9), st.booleans(), st.integers(-3, 3), st.integers(0, 2))
federations = st.lists(patient, min_size=1, max_size=30)
cuts = st.lists(st.integers(-3, 9), max_size=5, unique=True).map(sorted)


def columns(rows):
    time, event, risk, site = (np.array(column) for column in zip(*rows, strict=True))
    return time.astype(float), event.astype(bool), risk.astype(float), site


def grid_of(time_cuts, risk_cuts):
    return RiskTimeGrid(np.array(time_cuts, dtype=float), np.array(risk_cuts, dtype=float))


def federated(time, event, risk, site, tau, grid, min_at_risk=1):
    parts = [
        uno_sums(time[at], event[at], risk[at], tau, grid, min_at_risk)
        for at in (site == name for name in dict.fromkeys(site.tolist()))
    ]
    return uno_concordance(reduce(add, parts))


def by_definition(time, event, risk, site, tau, min_at_risk=1):
    """All pairs of all contributing sites, each weighted by both sites' curves at the event's time."""
    names = [name for name in np.unique(site) if np.sum(time[site == name] >= tau) >= min_at_risk]
    curves = {name: censoring_curve(time[site == name], event[site == name]) for name in names}
    credit = pairs = 0.0
    for own in names:
        first = (site == own) & event & (time < tau)
        moment, score = time[first][:, None], risk[first][:, None]
        for name in names:
            at = site == name
            weight = 1 / (curves[own].at(moment) * curves[name].at(moment))
            later = weight * ((time[at] > moment) | ((time[at] == moment) & ~event[at]))
            pairs += later.sum()
            credit += (later * ((score > risk[at]) + 0.5 * (score == risk[at]))).sum()
    return credit / pairs if pairs else math.nan


def consortium(seed, patients=3000, sites=10, rate=0.1):
    """Sites that differ in baseline, mean risk and follow-up; days are whole; returns failure times too."""
    rng = np.random.default_rng(seed)
    site = rng.integers(sites, size=patients)
    truth = rng.normal(size=patients) + 0.3 * rng.normal(size=sites)[site]
    baseline = rate / 3650 * np.exp(0.4 * rng.normal(size=sites))[site]
    failure = rng.exponential(size=patients) / (baseline * np.exp(truth))
    ends = np.minimum(rng.exponential(3650 / np.linspace(0.1, 3, sites)[site]), 3650)
    time = np.ceil(np.minimum(failure, ends))
    return time, failure <= ends, truth + 0.5 * rng.normal(size=patients), site, failure


def study_grid(time, event, risk, time_bins=24, risk_bins=50):
    edges = np.arange(30.0, 7305, 30)
    events = np.bincount(np.searchsorted(edges, time[event], side="right"), minlength=edges.size + 1)[:-1]
    return RiskTimeGrid(time_grid(edges, events, time_bins), risk_grid(risk.mean(), risk.std(), risk_bins))


def test_two_sites_by_hand():
    # A: uncensored until day 9, G = 1. B: 1 of 4 censored on day 1, then G = 3/4. A bin a day, a bin a risk.
    grid = grid_of(range(1, 9), range(1, 5))
    a = uno_sums([2, 9], [1, 0], [2, 3], 5, grid, 1)
    b = uno_sums([1, 3, 9, 9], [0, 1, 0, 0], [0, 4, 1, 2], 5, grid, 1)
    result = uno_concordance(a + b)
    # Event of A (risk 2, day 2): own pair discordant; B's 4, 1, 2 weigh 4/3: discordant, concordant, tied.
    # Event of B (risk 4, day 3): own two pairs concordant, weight 16/9; A's last patient concordant, weight 4/3.
    credit, pairs = 4 / 3 * (1 + 1 / 2) + 2 * 16 / 9 + 4 / 3, 1 + 3 * 4 / 3 + 2 * 16 / 9 + 4 / 3
    assert result.c_index == pytest.approx(credit / pairs)
    assert result.ordering_lower == pytest.approx((credit - 2 / 3) / pairs)
    assert result.ordering_upper == pytest.approx((credit + 2 / 3) / pairs)
    assert result.stratified == pytest.approx((2 * 16 / 9) / (1 + 2 * 16 / 9))
    assert (result.sites, result.patients, result.events, result.tau_days) == (2, 6, 2, 5)


@pytest.mark.parametrize("load", [load_gbsg2, load_whas500, load_flchain])
@pytest.mark.parametrize("share", [0.2, 0.8])
def test_one_site_equals_scikit_survival_on_real_cohorts(load, share):
    table, outcome = load()
    event, time = (outcome[name] for name in outcome.dtype.names)
    risk = np.asarray(table["age"], dtype=float)
    some = np.random.default_rng(1).permutation(time.size)[:1500]  # scikit-survival is quadratic
    time, event, risk = time[some], event[some], risk[some]
    tau = float(np.quantile(time, share))
    result = uno_concordance(uno_sums(time, event, risk, tau, grid_of([100, 1000], [50, 60])))
    reference = Surv.from_arrays(event, time)
    expected = concordance_index_ipcw(reference, reference, risk, tau=tau)[0]
    figures = [result.c_index, result.ordering_lower, result.ordering_upper, result.stratified]
    assert figures == pytest.approx([expected] * 4, abs=1e-9)


@settings(max_examples=400, deadline=None)
@given(federations, st.integers(1, 3))
def test_a_bin_for_every_time_and_risk_gives_the_figure_of_all_pairs(rows, min_at_risk):
    cohort = columns(rows)
    result = federated(*cohort, TAU, grid_of(range(10), range(-3, 4)), min_at_risk)
    assert result.c_index == pytest.approx(by_definition(*cohort, TAU, min_at_risk), abs=1e-10, nan_ok=True)


@settings(max_examples=300, deadline=None)
@given(federations, cuts, cuts)
def test_without_censoring_before_tau_the_ordering_bounds_hold_the_pooled_c(rows, time_cuts, risk_cuts):
    time, event, risk, site = columns(rows)
    event |= time < TAU
    result = federated(time, event, risk, site, TAU, grid_of(time_cuts, risk_cuts), 0)
    pooled = concordance(np.minimum(time, TAU), event & (time < TAU), risk)
    one_site = uno_concordance(uno_sums(time, event, risk, TAU, grid_of([], []), 0))
    if pooled.comparable:
        assert one_site.c_index == pytest.approx(pooled.c_index, abs=TINY)
        assert result.ordering_lower - TINY <= pooled.c_index <= result.ordering_upper + TINY
    if not math.isnan(result.c_index):
        assert 0 <= result.ordering_lower <= result.c_index <= result.ordering_upper <= 1 + TINY


@settings(max_examples=100, deadline=None)
@given(federations, cuts, cuts, st.permutations(range(30)))
def test_order_of_patients_unit_of_time_and_monotone_risks_change_nothing(rows, time_cuts, risk_cuts, order):
    time, event, risk, _ = columns(rows)
    order = [row for row in order if row < len(rows)]
    one = uno_sums(time, event, risk, TAU, grid_of(time_cuts, risk_cuts), 1)
    other = uno_sums(time[order], event[order], risk[order], TAU, grid_of(time_cuts, risk_cuts), 1)
    assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in vars(one))
    scaled_grid = grid_of(4 * np.array(time_cuts), np.exp(risk_cuts))
    moved = uno_sums(4 * time, event, np.exp(risk), 4 * TAU, scaled_grid, 1)
    plan = ("tau_days", "time_cuts_days", "risk_cuts")
    assert all(
        np.array_equal(getattr(one, name), getattr(moved, name)) for name in vars(one) if name not in plan
    )


@settings(max_examples=100, deadline=None)
@given(federations, cuts, cuts)
def test_order_of_sites_and_empty_sites_change_nothing(rows, time_cuts, risk_cuts):
    time, event, risk, site = columns(rows)
    grid = grid_of(time_cuts, risk_cuts)
    result = federated(time, event, risk, site, TAU, grid)
    turned = federated(time[::-1], event[::-1], risk[::-1], site[::-1], TAU, grid)
    assert turned.c_index == pytest.approx(result.c_index, abs=TINY, nan_ok=True)
    empty = uno_sums([], [], [], TAU, grid, 0)
    whole = uno_sums(time, event, risk, TAU, grid, 1)
    assert repr(uno_concordance(empty + whole + empty)) == repr(uno_concordance(whole))


@settings(max_examples=100, deadline=None)
@given(federations)
def test_splitting_an_uncensored_site_changes_nothing_where_bins_settle_every_pair(rows):
    time, _, risk, site = columns(rows)
    event, grid = np.ones(time.size, dtype=bool), grid_of(range(10), range(-3, 4))
    whole = uno_concordance(uno_sums(time, event, risk, TAU, grid, 0))
    parts = federated(time, event, risk, site, TAU, grid, 0)
    assert parts.c_index == pytest.approx(whole.c_index, abs=1e-10, nan_ok=True)


@pytest.mark.parametrize(("patients", "rate"), [(1500, 0.1), (3000, 0.05), (3000, 0.6)])
def test_24_by_50_bins_and_10_sites_come_within_0_005_of_all_pairs(patients, rate):
    for seed in range(3):
        time, event, risk, site, _ = consortium(seed, patients, rate=rate)
        result = federated(time, event, risk, site, 1825, study_grid(time, event, risk), 5)
        expected = by_definition(time, event, risk, site, 1825, 5)
        assert abs(result.c_index - expected) <= 0.003
        assert result.ordering_lower <= expected <= result.ordering_upper
        assert result.ordering_upper - result.ordering_lower < 0.06


@pytest.mark.parametrize("seed", range(3))
def test_sums_recover_the_c_of_uncensored_patients_where_a_pooled_curve_does_not(seed):
    # Sites of low risk, where the score is sharp, have short follow-up; only their own curve says how short.
    rng = np.random.default_rng(seed)
    site = rng.integers(6, size=24_000)
    truth = 0.7 * rng.normal(size=site.size) + np.linspace(-1.2, 1.2, 6)[site]
    failure = rng.exponential(size=site.size) / (0.25 / 1825 * np.exp(truth))
    ends = rng.exponential(np.array([900, 1500, 3000, 8000, 20_000, 40_000])[site])
    time, event, tau = np.minimum(failure, ends), failure <= ends, 1460.0
    risk = truth + np.linspace(0.2, 2, 6)[site] * rng.normal(size=site.size)
    grid = study_grid(time, event, risk)
    uncensored = concordance(np.minimum(failure, tau), failure < tau, risk).c_index
    own = federated(time, event, risk, site, tau, grid, 20)
    pooled = uno_concordance(uno_sums(time, event, risk, tau, grid))
    until_tau = (np.minimum(time, tau), event & (time < tau))
    assert own.sites == 6
    assert abs(own.c_index - uncensored) <= 0.005
    assert abs(pooled.c_index - uncensored) > 0.01
    assert abs(concordance(*until_tau, risk).c_index - uncensored) > 0.01


def test_a_site_that_is_not_followed_up_to_tau_contributes_nothing():
    grid = grid_of([3], [0])
    followed = uno_sums([1, 2, 9, 9], [1, 0, 0, 0], [1, 0, 0, 1], 5, grid, 2)
    short = uno_sums([1, 2, 4, 9], [1, 1, 0, 0], [1, 0, 0, 1], 5, grid, 2)
    result = uno_concordance(followed + short)
    assert (result.sites, result.patients, result.events) == (1, 4, 1)
    assert repr(result) == repr(uno_concordance(followed))
    assert uno_sums([1, 4], [1, 0], [1, 0], 5, grid, 0).sites == 0  # G is 0 before tau
    assert uno_sums([1, 5], [1, 0], [1, 0], 5, grid, 1).sites == 1  # follow-up of all ends at tau


def test_pairs_in_one_time_bin_count_as_comparable_as_often_as_within_sites():
    # One time bin up to day 5. A: G = 3/4 from day 1, 3/8 from day 3, so 1 / G is 9/5 on average. B: G = 1.
    a = uno_sums([2, 1, 3, 9], [1, 0, 0, 0], [1, -1, -1, -1], 5, grid_of([], [0]), 1)
    b = uno_sums([2.5, 9], [1, 0], [1, -1], 5, grid_of([], [0]), 1)
    # A's event precedes 1 of its 2 censored patients; nobody knows how often two events of a site are in order.
    assert a.shared_bin[1, 1] / a.shared_bin[1, 0] == pytest.approx([1 / 2])
    assert a.shared_bin[0].tolist() == [[0], [0]]
    assert a.off_edge.tolist() == [3]
    certain = (
        2 * 16 / 9 + 1 + 4 / 3 + 9 / 5
    )  # all concordant: A's two, B's one, each event with the other's last
    censored, events = (
        2 * 9 / 5,
        4 / 3 + 9 / 5,
    )  # B's event with A's two; the two events, either first, one risk bin
    result = uno_concordance(a + b)
    credit, pairs = certain + censored / 2 + events / 4, certain + censored / 2 + events / 2
    assert result.c_index == pytest.approx(credit / pairs)
    assert result.ordering_lower == pytest.approx(certain / (certain + events))
    assert result.ordering_upper == pytest.approx(1)


def test_no_event_before_tau_and_one_patient_have_no_c():
    for time, event in (([6, 7], [1, 1]), ([1, 9], [0, 0]), ([9], [1])):
        result = uno_concordance(uno_sums(time, event, np.ones(len(time)), 5, grid_of([3], [0]), 0))
        figures = (result.c_index, result.ordering_lower, result.ordering_upper, result.stratified)
        assert np.isnan(figures).all()


@pytest.mark.parametrize("risk", [-1, 1, 2])
def test_two_sites_of_one_event_each_in_one_time_bin_tell_nothing(risk):
    grid = grid_of([], [0])
    result = uno_concordance(uno_sums([2], [1], [1], 5, grid, 0) + uno_sums([3], [1], [risk], 5, grid, 0))
    assert (result.ordering_lower, result.c_index, result.ordering_upper) == (0, 0.5, 1)


def test_bad_columns_and_tau_are_refused_and_other_plans_are_not_added():
    with pytest.raises(CohortError, match=r"FECG-237 event: found 1 of 2"):
        uno_sums([1, 2], [0, 2], [0, 1], 5, grid_of([], []))
    for tau in (0, math.nan, math.inf):
        with pytest.raises(FederationError, match=r"FECG-535 tau_days: found shape \(1,\), 1 not finite"):
            uno_sums([1, 2], [0, 1], [0, 1], tau, grid_of([], []))
    one, other = (uno_sums([1], [0], [1], tau, grid_of([3], [0])) for tau in (4, 5))
    with pytest.raises(FederationError, match=r"FECG-536 UnoSums: found two records that differ in tau_days"):
        one + other
