"""Bins, hazard sums and Breslow's baseline: by hand, against scikit-survival and lifelines, refusals, invariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import NelsonAalenFitter
from sksurv.datasets import load_whas500
from sksurv.linear_model import CoxPHSurvivalAnalysis

from fedecg.errors import ModelError
from fedecg.objectives import (
    Baseline,
    breslow,
    event_counts,
    event_time_grid,
    exit_bin,
    hazard_sums,
    merge_bins,
    pooled_ratio,
    public_grid,
)


def random_cohort(seed, patients=60, days=30):
    rng = np.random.default_rng(seed)
    follow_up_days = rng.integers(1, days, patients).astype(np.float64)
    return rng.normal(size=patients), rng.random(patients) < 0.4, follow_up_days


def baseline_of(log_hazard, event, follow_up_days, edges, exp_bound=10.0):
    bins = exit_bin(follow_up_days, edges)
    sums = hazard_sums(log_hazard, bins, len(edges), exp_bound)
    return Baseline(edges, breslow(event_counts(event, bins, len(edges)), sums))


def test_public_grid_runs_from_zero_to_the_horizon():
    assert public_grid(30.0, 90.0).tolist() == [0, 30, 60, 90]
    assert public_grid(30.0, 100.0).tolist() == [0, 30, 60, 90, 100]
    assert len(public_grid(30.0, 7305.0)) == 245


@settings(deadline=None)
@given(grid=st.floats(0.1, 400), horizon=st.floats(0.1, 9000))
def test_public_grid_is_always_ascending_and_no_bin_is_wider_than_the_grid(grid, horizon):
    edges = public_grid(grid, horizon)
    widths = np.diff(edges)
    assert edges[0] == 0
    assert edges[-1] == horizon
    assert (widths > 0).all()
    assert (widths <= grid * (1 + 1e-6)).all()


def test_a_bin_holds_its_left_edge_and_not_its_right_one():
    bins = exit_bin(np.array([0.5, 30.0, 59.999, 60.0, 1e6]), np.array([0.0, 30.0, 60.0]))
    assert bins.tolist() == [0, 1, 1, 2, 2]
    assert bins.dtype == np.int64


def test_whoever_leaves_between_two_event_times_is_at_risk_at_the_earlier_one_only():
    event, days = np.array([True, False, True]), np.array([10.0, 15.0, 20.0])
    edges = event_time_grid(event, days)
    assert edges.tolist() == [0, 10, 20]
    assert baseline_of(np.zeros(3), event, days, edges).cumulative_hazard.tolist() == [0, 1 / 3, 1 / 3 + 1]


def test_hazard_sums_and_event_counts_by_hand():
    bins = np.array([0, 2, 2])
    sums = hazard_sums(np.log([1.0, 2.0, 3.0]), bins, 4, exp_bound=10.0)
    np.testing.assert_allclose(sums, [1, 0, 5, 0])
    counts = event_counts(np.array([True, True, False]), bins, 4)
    assert counts.tolist() == [1, 0, 1, 0]
    assert counts.dtype == np.int64


def test_hazard_sums_continue_linearly_beyond_the_bound():
    sums = hazard_sums(np.array([5.0]), np.array([0]), 1, exp_bound=3.0)
    np.testing.assert_allclose(sums, np.exp(3.0) * 3)


@pytest.mark.parametrize("ties_in_days", [1, 30])
def test_breslow_is_the_cumulative_baseline_hazard_of_scikit_survival(ties_in_days):
    covariates, outcome = load_whas500()
    days = np.ceil(outcome["lenfol"] / ties_in_days) * ties_in_days
    values = covariates[["age", "bmi", "sho"]].astype(float).to_numpy()
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    pairs = np.array(list(zip(outcome["fstat"], days, strict=True)), dtype="bool,float")
    fitted = CoxPHSurvivalAnalysis(ties="breslow").fit(values, pairs)
    event = outcome["fstat"].astype(bool)
    baseline = baseline_of(values @ fitted.coef_, event, days, event_time_grid(event, days))
    expected = fitted.cum_baseline_hazard_
    np.testing.assert_allclose(baseline.at(expected.x), expected.y, rtol=1e-9)


def test_with_equal_hazards_it_is_the_nelson_aalen_estimate_of_lifelines():
    _, event, days = random_cohort(1)
    baseline = baseline_of(np.zeros(60), event, days, event_time_grid(event, days))
    fitted = NelsonAalenFitter(nelson_aalen_smoothing=False).fit(days, event)
    np.testing.assert_allclose(
        baseline.at(days), fitted.cumulative_hazard_at_times(days).to_numpy(), rtol=1e-9
    )


def test_a_bin_without_events_adds_nothing():
    hazard = breslow(np.array([0, 2, 0, 1]), np.array([4.0, 3.0, 2.0, 1.0]))
    np.testing.assert_allclose(hazard, [0, 2 / 6, 2 / 6, 2 / 6 + 1])


def test_without_any_event_the_hazard_is_zero():
    assert breslow(np.zeros(3, dtype=np.int64), np.array([1.0, 1.0, 0.0])).tolist() == [0, 0, 0]


@pytest.mark.parametrize("wrong", [0.0, np.nan, np.inf])
def test_events_without_a_usable_risk_sum_are_refused_with_counts_only(wrong):
    with pytest.raises(ModelError) as refusal:
        breslow(np.array([1, 0, 3]), np.array([1.0, 1.0, wrong]))
    assert refusal.value.code == "FECG-322"
    bad_bins = 1 if wrong == 0 else 2
    assert f"{bad_bins} of 2 bins with events" in str(refusal.value)
    assert "same sites" in refusal.value.fix


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), shift=st.floats(-5, 5), bins=st.integers(1, 40))
def test_a_fresh_baseline_balances_and_takes_up_a_shift(seed, shift, bins):
    eta, event, days = random_cohort(seed)
    grid = public_grid(1.0, 30.0)
    fine = event_counts(event, exit_bin(days, grid), len(grid))
    edges = grid[merge_bins(fine, bins)]
    exits = exit_bin(days, edges)
    events = event_counts(event, exits, len(edges))
    sums = hazard_sums(eta, exits, len(edges), 50.0)
    fresh = breslow(events, sums)
    assert pooled_ratio(fresh, sums, events) == pytest.approx(1.0)
    moved = hazard_sums(eta + shift, exits, len(edges), 50.0)
    np.testing.assert_allclose(breslow(events, moved), fresh * np.exp(-shift), rtol=1e-9)
    assert pooled_ratio(fresh, moved, events) == pytest.approx(np.exp(shift))


def test_without_events_there_is_nothing_to_re_centre():
    assert pooled_ratio(np.zeros(2), np.ones(2), np.zeros(2, dtype=np.int64)) == 1.0


def test_merged_bins_of_a_small_grid_by_hand():
    assert merge_bins(np.array([0, 1, 1, 0, 1, 1, 0]), 2).tolist() == [0, 4]
    assert merge_bins(np.array([0, 5, 0, 0]), 3).tolist() == [0]
    assert merge_bins(np.array([1, 0, 2, 0, 0, 3]), 64).tolist() == [0, 2, 5]
    assert merge_bins(np.zeros(4, dtype=np.int64), 8).tolist() == [0]


@settings(deadline=None, max_examples=200)
@given(events=st.lists(st.integers(0, 9), min_size=1, max_size=80), bins=st.integers(1, 90))
def test_merged_bins_all_hold_events_of_similar_number(events, bins):
    counts = np.array(events)
    starts = merge_bins(counts, bins)
    assert starts[0] == 0
    assert (np.diff(starts) > 0).all()
    assert len(starts) == max(1, min(bins, np.count_nonzero(counts)))
    merged = np.add.reduceat(counts, starts)
    assert merged.sum() == counts.sum()
    if counts.any():
        assert (merged > 0).all()
        assert merged.max() <= counts.sum() / len(starts) + counts.max()


def test_sums_of_two_sites_add_up_to_those_of_both():
    eta, event, days = random_cohort(5)
    edges = public_grid(5.0, 30.0)
    bins = exit_bin(days, edges)
    half = np.arange(60) < 23
    for of in (
        lambda at: hazard_sums(eta[at], bins[at], 7, 10.0),
        lambda at: event_counts(event[at], bins[at], 7),
    ):
        np.testing.assert_allclose(of(half) + of(~half), of(np.full(60, True)))


def test_the_baseline_is_a_step_function_that_goes_on_beyond_the_last_edge():
    baseline = Baseline(np.array([0.0, 30.0, 60.0]), np.array([0.0, 0.1, 0.4]))
    assert baseline.at(np.array([1.0, 30.0, 59.0, 60.0, 9999.0])).tolist() == [0.0, 0.1, 0.1, 0.4, 0.4]


@pytest.mark.parametrize(
    ("edges", "hazard", "found"),
    [
        ([0.0, 30.0], [0.1], "shapes"),
        ([], [], "shapes"),
        (0.0, 0.1, "shapes"),
        ([0.0, np.inf], [0.1, 0.2], "not finite"),
        ([0.0, 30.0], [0.1, np.nan], "not finite"),
        ([1.0, 30.0], [0.1, 0.2], "edges out of order"),
        ([0.0, 30.0, 30.0], [0.1, 0.2, 0.3], "edges out of order"),
        ([0.0, 30.0], [0.2, 0.1], "falls or is negative"),
        ([0.0, 30.0], [-0.1, 0.1], "falls or is negative"),
    ],
)
def test_a_baseline_that_makes_no_sense_is_refused(edges, hazard, found):
    with pytest.raises(ModelError) as refusal:
        Baseline(np.array(edges), np.array(hazard))
    assert refusal.value.code == "FECG-321"
    assert found in refusal.value.found
    assert "ascending from 0" in str(refusal.value)
    assert "`breslow`" in refusal.value.fix
