"""Observed / expected events, slope and intercept from sums: by hand, against scipy and lifelines, invariances."""

import math
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from scipy.optimize import root
from scipy.stats import gamma

from fedecg.errors import CohortError, FederationError
from fedecg.evaluation.calibration import SLOPE_NODES, hazard_calibration, hazard_calibration_sums

patient = st.tuples(st.integers(1, 9), st.booleans(), st.floats(-3, 3), st.floats(0.01, 2))
cohorts = st.lists(patient, min_size=1, max_size=40)


def cohort(patients, rng, sd=1.0, slope=1.0, intercept=0.0, level=0.1):
    """Constant baseline hazard of 1 a unit of time; the true log hazard is intercept + slope * risk."""
    risk = rng.normal(size=patients) * sd
    failure = rng.exponential(size=patients) * np.exp(-intercept - slope * risk)
    censored = rng.uniform(0.1, 1, patients) * level
    time = np.minimum(failure, censored)
    return time, failure <= censored, risk, time


def direct(event, risk, hazard):
    """(a, b) and their standard errors by scipy, on the patients' own data."""
    design = np.stack([np.ones_like(risk), risk], axis=1)

    def mean(theta):
        return hazard * np.exp(design @ theta)

    def score(theta):
        return design.T @ (event - mean(theta))

    def slope_of_score(theta):
        return -(design.T * mean(theta)) @ design

    found = root(score, [math.log(event.sum() / hazard.sum()), 0.0], jac=slope_of_score, tol=1e-14)
    assert np.abs(score(found.x)).max() < 1e-6
    return found.x, np.sqrt(np.diag(np.linalg.inv(-slope_of_score(found.x))))


def pooled(columns, centre=0.0):
    return hazard_calibration(hazard_calibration_sums(*columns, centre))


def figures(result, *names):
    return [getattr(result, name) for name in names]


def test_two_events_where_five_are_expected_by_hand():
    # exp(0) = 1 and exp(log 2) = 2 times the hazards 1, 1, 1 and 0.5, 0.5: 5 expected.
    risk = [0.0, 0.0, math.log(2), math.log(2), 0.0]
    result = pooled(([5, 5, 3, 3, 5], [1, 0, 1, 0, 0], risk, [1, 1, 0.5, 0.5, 1]))
    assert (result.patients, result.events) == (5, 2)
    assert result.expected == pytest.approx(5, rel=1e-12)
    assert result.ratio == pytest.approx(0.4)
    assert result.log_ratio == pytest.approx(math.log(0.4))
    # Garwood's exact limits of a Poisson mean with 2 seen (Ulm 1990: 0.2422 and 7.2247), over 5
    assert (result.ratio_low * 5, result.ratio_high * 5) == pytest.approx((0.2422, 7.2247), abs=5e-5)
    # hazard 3 at risk 0 and 1 at log 2, one event each: rates 1/3 and 1, so a = log(1/3), b = log 3 / log 2
    assert result.slope == pytest.approx(math.log(3) / math.log(2), abs=1e-9)
    assert result.intercept == pytest.approx(math.log(1 / 3), abs=1e-9)
    # one event in each of two groups: var(a) = 1, var(b log 2) = 1 + 1
    assert result.intercept_se == pytest.approx(1, rel=1e-6)
    assert result.slope_se == pytest.approx(math.sqrt(2) / math.log(2), rel=1e-6)
    half = 1.959964 * result.slope_se
    assert (result.slope_low, result.slope_high) == pytest.approx((result.slope - half, result.slope + half))


def test_the_interval_of_the_ratio_is_the_exact_one_of_a_poisson_mean():
    result = pooled(cohort(2000, np.random.default_rng(0)))
    low, high = gamma.ppf(0.025, result.events), gamma.ppf(0.975, result.events + 1)
    assert result.ratio_low == pytest.approx(low / result.expected)
    assert result.ratio_high == pytest.approx(high / result.expected)


@pytest.mark.parametrize("sd", [0.3, 1.0, 1.5])
@pytest.mark.parametrize("slope", [-0.2, 0.4, 1.0, 1.7])
@pytest.mark.parametrize("patients", [300, 20_000])
def test_slope_and_intercept_from_sums_are_those_of_scipy_on_the_patients(sd, slope, patients):
    rng = np.random.default_rng(7)
    columns = cohort(patients, rng, sd, slope, intercept=0.3, level=0.3)
    result = pooled(columns, centre=0.25)
    (a, b), errors = direct(*columns[1:])
    assert result.slope == pytest.approx(b, abs=1e-6)
    assert result.intercept == pytest.approx(a, abs=1e-6)
    assert (result.intercept_se, result.slope_se) == pytest.approx(tuple(errors), rel=1e-4)
    assert not result.slope_out_of_range


def test_a_right_model_has_a_slope_of_one_that_agrees_with_cox_although_its_baseline_is_free():
    time, event, risk, hazard = cohort(20_000, np.random.default_rng(3), level=0.5)
    result = pooled((time, event, risk, hazard))
    frame = pd.DataFrame({"time": time, "event": event, "risk": risk})
    cox = CoxPHFitter().fit(frame, "time", "event").params_["risk"]
    assert result.slope == pytest.approx(cox, abs=0.02)
    assert result.slope != pytest.approx(cox, abs=1e-6)  # another definition, not another way to compute it
    assert result.slope_low <= 1 <= result.slope_high
    assert result.ratio_low <= 1 <= result.ratio_high


def test_recalibrated_hazards_have_ratio_one_slope_one_and_intercept_zero():
    time, event, risk, hazard = cohort(3000, np.random.default_rng(4), slope=0.6, intercept=0.8)
    first = pooled((time, event, risk, hazard))
    again = pooled((time, event, first.intercept + first.slope * risk, hazard))
    assert figures(again, "ratio", "slope", "intercept") == pytest.approx([1, 1, 0], abs=1e-6)


def test_intervals_cover_the_truth_in_95_of_100_cohorts():
    rng = np.random.default_rng(5)
    slopes = ratios = 0
    for _ in range(800):
        result = pooled(cohort(500, rng, level=0.3))
        slopes += result.slope_low <= 1 <= result.slope_high
        ratios += result.ratio_low <= 1 <= result.ratio_high
    assert 0.93 <= slopes / 800 <= 0.97
    assert 0.93 <= ratios / 800 <= 0.975  # exact limits err on the wide side


def test_sites_sums_give_the_pooled_figures():
    rng = np.random.default_rng(6)
    columns = cohort(4000, rng)
    site = rng.integers(5, size=4000)
    sums = [hazard_calibration_sums(*(column[site == k] for column in columns), 0.1) for k in range(5)]
    empty = hazard_calibration_sums([], [], [], [], 0.1)
    federated = hazard_calibration(sums[0] + sums[1] + empty + sums[2] + sums[3] + sums[4])
    whole = pooled(columns, 0.1)
    for field in fields(whole):
        assert getattr(federated, field.name) == pytest.approx(getattr(whole, field.name), rel=1e-9)


@settings(max_examples=100, deadline=None)
@given(cohorts, st.integers(0, 40), st.randoms(use_true_random=False))
def test_order_of_patients_and_splitting_a_site_change_nothing(rows, cut, random):
    def sums_of(some):
        return hazard_calibration_sums(*(np.array([row[k] for row in some]) for k in range(4)), 0.5)

    whole, first = sums_of(rows), sums_of(rows[:cut])
    shuffled = random.sample(rows, len(rows))
    for other in (first + sums_of(rows[cut:]), sums_of(rows[cut:]) + first, sums_of(shuffled)):
        assert (other.patients, other.events) == (whole.patients, whole.events)
        assert other.event_sum == pytest.approx(whole.event_sum, abs=1e-12)
        np.testing.assert_allclose(other.moments, whole.moments, rtol=1e-11, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(cohorts, st.floats(-30, 30))
def test_a_shift_of_risk_into_the_baseline_leaves_ratio_and_slope(rows, shift):
    time, event, risk, hazard = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    before = pooled((time, event, risk, hazard))
    after = pooled((time, event, risk + shift, hazard * np.exp(-shift)), centre=shift)
    assert after.ratio == pytest.approx(before.ratio, rel=1e-9)
    if before.slope_se < 5:  # with less known about the slope, rounding of the risks alone moves it
        assert after.slope == pytest.approx(before.slope, abs=1e-6)
        assert after.intercept == pytest.approx(before.intercept - (before.slope - 1) * shift, abs=1e-4)


@pytest.mark.parametrize("centre", [0.0, 13.0, -20.0])
def test_any_public_centre_gives_the_same_figures(centre):
    columns = cohort(2000, np.random.default_rng(8))
    here, there = pooled(columns), pooled(columns, centre)
    for field in fields(here):
        assert getattr(there, field.name) == pytest.approx(getattr(here, field.name), rel=1e-7, abs=1e-7)


def test_log_hazards_up_to_50_stay_finite_and_close_to_scipy():
    rng = np.random.default_rng(9)
    risk = np.concatenate([rng.uniform(-50, 50, 2000), [-50.0, 50.0]])
    time = np.ones(risk.size)
    hazard = 0.2 * np.exp(-0.05 * risk)
    event = rng.random(risk.size) < np.clip(hazard * np.exp(0.06 * risk), 0, 1)
    sums = hazard_calibration_sums(time, event, risk, hazard, 0.0)
    assert np.isfinite(sums.moments).all()
    result = hazard_calibration(sums)
    assert math.isfinite(result.ratio)
    assert result.ratio_high < 1e-12  # far too many events expected
    tempered = pooled((time, event, risk / 20, hazard))
    (_, slope), _ = direct(event, risk / 20, hazard)
    assert tempered.slope == pytest.approx(slope, abs=1e-6)
    assert result.slope * 20 == pytest.approx(
        slope, rel=0.05
    )  # from one node to the next exp(b x) grows 500-fold here


def test_a_slope_beyond_the_nodes_is_flagged_and_nan():
    rng = np.random.default_rng(10)
    for slope in (-2.0, 6.0):
        result = pooled(cohort(2000, rng, sd=0.5, slope=slope, level=0.3))
        assert result.slope_out_of_range
        assert all(
            math.isnan(x)
            for x in figures(result, "slope", "slope_se", "slope_low", "intercept", "intercept_se")
        )
        assert math.isfinite(result.ratio)


def test_events_of_the_highest_risks_alone_have_no_finite_slope():
    risk = np.linspace(-50, 50, 101)
    result = pooled((np.ones(101), risk == 50, risk, np.ones(101)))
    assert result.slope_out_of_range
    assert math.isnan(result.slope)


def test_equal_risks_have_a_ratio_and_no_slope():
    result = pooled(([1, 2, 3], [1, 0, 1], [7.0, 7.0, 7.0], [0.1, 0.2, 0.3]), centre=3.0)
    assert result.ratio == pytest.approx(2 / (0.6 * math.exp(7)))
    assert math.isnan(result.slope)
    assert not result.slope_out_of_range


def test_without_events_the_ratio_is_zero_with_an_upper_limit():
    result = pooled(([1, 2], [0, 0], [0.0, 1.0], [0.5, 0.5]))
    assert (result.ratio, result.ratio_low) == (0, 0)
    assert result.ratio_high == pytest.approx(-math.log(0.025) / result.expected)
    assert all(math.isnan(x) for x in figures(result, "log_ratio", "slope", "intercept", "intercept_se"))


@pytest.mark.parametrize("columns", [([], [], [], []), ([3], [1], [0.5], [0.0]), ([3], [0], [0.5], [0.0])])
def test_nobody_or_nothing_expected_is_nan_and_no_exception(columns):
    result = pooled(columns)
    assert result.expected == 0
    assert all(
        math.isnan(x) for x in figures(result, "ratio", "ratio_low", "ratio_high", "slope", "intercept")
    )


def test_one_patient_with_an_event_has_a_ratio_and_no_slope():
    result = pooled(([3], [1], [0.0], [0.25]))
    assert (result.ratio, result.events) == (4, 1)
    assert math.isnan(result.slope)


def test_the_nodes_hold_the_slope_of_the_model_itself():
    assert 1.0 in SLOPE_NODES
    assert (SLOPE_NODES[0], SLOPE_NODES[-1]) == (-0.5, 3.0)


def test_hazards_that_cannot_be_used_are_refused_with_counts():
    good = [1.0, 2.0], [1, 0], [0.0, 1.0]
    wrong = "FECG-537 cumulative hazard: found 1 of 2 values that are not finite or out of range"
    for bad in (-0.1, math.nan, math.inf):
        with pytest.raises(FederationError, match=wrong):
            hazard_calibration_sums(*good, [0.1, bad], 0.0)
    with pytest.raises(
        FederationError, match=r"FECG-537 cumulative hazard: found shape \(1,\); expected shape \(2,\)"
    ):
        hazard_calibration_sums(*good, [0.1], 0.0)
    with pytest.raises(CohortError, match="FECG-237 event: found 1 of 2"):
        hazard_calibration_sums([1, 2], [1, 3], [0, 0], [0.1, 0.1], 0.0)


def test_log_hazards_far_from_the_centre_are_refused():
    with pytest.raises(FederationError, match="FECG-537 log hazard: found 1 of 2 values far from the centre"):
        hazard_calibration_sums([1, 2], [1, 0], [0.0, 250.0], [0.1, 0.1], 0.0)
    with pytest.raises(FederationError, match="FECG-537 log hazard: found a centre far from 0"):
        hazard_calibration_sums([], [], [], [], math.nan)


def test_sums_around_different_centres_do_not_add_up():
    here, there = (hazard_calibration_sums([1], [1], [0.0], [0.1], centre) for centre in (0.0, 1.0))
    with pytest.raises(
        FederationError, match="FECG-538 calibration sums: found 2 sites with different centres"
    ):
        here + there
