"""Predicted against observed risk at horizons: by hand, against Kaplan-Meier, binomial shares, and the truth."""

import math
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter

from fedecg.errors import CohortError, FederationError
from fedecg.evaluation.risk_calibration import (
    RiskCalibrationPlan,
    risk_calibration,
    risk_calibration_sums,
)

HORIZONS = np.array([200.0, 500.0])
patient = st.tuples(st.integers(1, 9), st.booleans(), st.floats(-2, 2), st.floats(0, 1))
cohorts = st.lists(patient, min_size=1, max_size=30)


def plan_of(horizons=HORIZONS, cuts=(), min_at_risk=1):
    return RiskCalibrationPlan(np.asarray(horizons, dtype=float), np.asarray(cuts, dtype=float), min_at_risk)


def case_weights(time, event, horizons):
    """1 / G(t-) of events by each horizon, straight from the definition: events leave before censorings."""
    staying = np.ones(time.size)
    for moment in np.unique(time[~event]):
        lost = np.sum((time == moment) & ~event)
        staying[time > moment] *= 1 - lost / np.sum((time > moment) | ((time == moment) & ~event))
    case = event[:, None] & (time[:, None] <= horizons)
    return np.where(case, 1 / np.where(staying > 0, staying, 1)[:, None], 0.0)


def cohort(patients, rng, sd=1.0):
    """A right model: hazard exp(risk) / 1000 a day, censored evenly over 100 to 800 days, in whole days."""
    risk = rng.normal(size=patients) * sd
    failure = rng.exponential(1000, patients) * np.exp(-risk)
    censored = rng.uniform(100, 800, patients)
    time, event = np.ceil(np.minimum(failure, censored)), failure <= censored
    return time, event, risk, 1 - np.exp(-np.outer(np.exp(risk), HORIZONS / 1000))


def sums_of(time, event, risk, probability, plan):
    return risk_calibration_sums(
        time, event, risk, probability, case_weights(time, event, plan.horizons_days), plan
    )


def test_two_groups_by_hand():
    time, event, risk = [1, 2, 3, 9, 9], [1, 0, 1, 0, 0], [0.0, 0.0, 2.0, 2.0, 2.0]
    probability = np.array([[0.1], [0.3], [0.5], [0.5], [0.2]])
    weight = np.array([[1.0], [0], [4 / 3], [0], [0]])  # one of four is censored at 2, G(3-) = 3/4
    sums = risk_calibration_sums(time, event, risk, probability, weight, plan_of([5], [1.0]))
    result = risk_calibration(sums)
    np.testing.assert_array_equal(result.patients, [[2, 3]])
    np.testing.assert_allclose(result.predicted, [[0.2, 0.4]])
    np.testing.assert_allclose(result.observed, [[1 / 2, 4 / 9]])
    # sqrt(sum w^2 - (sum w)^2 / n) / n: sqrt(1 - 1/2) / 2 and sqrt(16/9 - 16/27) / 3
    np.testing.assert_allclose(result.observed_se, [[math.sqrt(0.5) / 2, math.sqrt(32 / 27) / 3]])
    assert result.ratio[0] == pytest.approx((7 / 3) / 1.6)
    log_error = math.sqrt(25 / 9 - 49 / 45) / (7 / 3)
    assert result.ratio_high[0] == pytest.approx(result.ratio[0] * math.exp(1.959964 * log_error))
    assert result.ratio_low[0] == pytest.approx(result.ratio[0] / math.exp(1.959964 * log_error))


def test_weighted_cases_of_all_patients_of_a_site_are_one_minus_kaplan_meier():
    time, event, risk, probability = cohort(700, np.random.default_rng(0))
    observed = risk_calibration(sums_of(time, event, risk, probability, plan_of())).observed[:, 0]
    survival = KaplanMeierFitter().fit(time, event).survival_function_at_times(HORIZONS)
    np.testing.assert_allclose(observed, 1 - survival.to_numpy(), atol=1e-12)


def test_without_censoring_the_share_and_its_error_are_binomial():
    rng = np.random.default_rng(1)
    time, event = rng.uniform(0, 1000, 400), np.ones(400, dtype=bool)
    result = risk_calibration(sums_of(time, event, np.zeros(400), np.full((400, 2), 0.3), plan_of()))
    share = (time[:, None] <= HORIZONS).mean(axis=0)
    np.testing.assert_allclose(result.observed[:, 0], share)
    np.testing.assert_allclose(result.observed_se[:, 0], np.sqrt(share * (1 - share) / 400))


def test_the_standard_error_is_that_of_repeated_cohorts_or_a_little_wider():
    rng = np.random.default_rng(2)
    results = [risk_calibration(sums_of(*cohort(500, rng), plan_of(cuts=[0.0]))) for _ in range(300)]
    seen = np.std([result.observed for result in results], axis=0)
    said = np.mean([result.observed_se for result in results], axis=0)
    assert (said >= 0.9 * seen).all()
    assert (said <= 1.25 * seen).all()


def test_a_right_model_is_calibrated_in_every_tenth_and_at_every_horizon():
    rng = np.random.default_rng(3)
    cuts = np.quantile(rng.normal(size=100_000), np.arange(1, 10) / 10)
    sites = [sums_of(*cohort(4000, rng), plan_of(cuts=cuts)) for _ in range(5)]
    result = risk_calibration(sum(sites[1:], start=sites[0]))
    assert result.patients.shape == (2, 10)
    distance = (result.observed - result.predicted) / result.observed_se
    assert np.abs(distance).max() < 3.5
    np.testing.assert_allclose(result.ratio, 1, atol=0.05)
    assert (result.ratio_low <= 1).all()
    assert (result.ratio_high >= 1).all()


def test_the_interval_of_the_ratio_covers_one_in_95_of_100_cohorts():
    rng = np.random.default_rng(4)
    covered = np.zeros(2)
    for _ in range(500):
        result = risk_calibration(sums_of(*cohort(400, rng, sd=0.2), plan_of()))
        covered += (result.ratio_low <= 1) & (result.ratio_high >= 1)
    assert (covered >= 0.925 * 500).all()
    assert (covered <= 0.98 * 500).all()


def test_weights_of_each_sites_own_curve_hold_where_follow_up_differs_between_sites():
    rng = np.random.default_rng(5)
    high, low = cohort(20_000, rng), cohort(20_000, rng)
    # the second site has half the hazard and loses everybody alive soon after the first horizon
    low_failure = rng.exponential(2000, 20_000) * np.exp(-low[2])
    low_end = rng.uniform(150, 300, 20_000)
    low = (np.minimum(low_failure, low_end), low_failure <= low_end, low[2], low[3])
    plan = plan_of(HORIZONS[:1])
    high, low = ((*site[:3], site[3][:, :1]) for site in (high, low))
    truth = [
        1 - np.exp(-np.exp(site[2]) * rate * 200).mean() for site, rate in ((high, 0.001), (low, 0.0005))
    ]
    own = risk_calibration(sums_of(*high, plan) + sums_of(*low, plan))
    assert own.observed[0, 0] == pytest.approx(np.mean(truth), abs=0.006)


def test_a_site_with_fewer_at_risk_than_the_plan_asks_is_left_out_at_that_horizon_only():
    time, event, risk, probability = cohort(300, np.random.default_rng(6))
    left = int(np.sum(time > HORIZONS[1]))
    kept = sums_of(time, event, risk, probability, plan_of(cuts=[0.0], min_at_risk=left))
    short = sums_of(time, event, risk, probability, plan_of(cuts=[0.0], min_at_risk=left + 1))
    np.testing.assert_array_equal(kept.patients.sum(axis=1), [300, 300])
    np.testing.assert_array_equal(short.patients.sum(axis=1), [300, 0])
    for field in fields(short):
        np.testing.assert_array_equal(getattr(short, field.name)[1], 0)
        np.testing.assert_array_equal(getattr(short, field.name)[0], getattr(kept, field.name)[0])
    assert math.isnan(risk_calibration(short).ratio[1])
    assert plan_of().min_at_risk != RiskCalibrationPlan(HORIZONS, np.empty(0)).min_at_risk == 20


@settings(max_examples=80, deadline=None)
@given(cohorts, st.integers(0, 30), st.randoms(use_true_random=False))
def test_order_of_patients_and_splitting_a_site_change_nothing_for_given_weights(rows, cut, random):
    plan = plan_of([3, 6], [-0.5, 0.5], min_at_risk=0)

    def sums(some):
        time, event, risk, p = (np.array([row[k] for row in some], dtype=float) for k in range(4))
        weight = (event[:, None] > 0) & (time[:, None] <= plan.horizons_days)
        return risk_calibration_sums(time, event, risk, np.stack([p / 2, p], axis=1), 1.5 * weight, plan)

    whole = sums(rows)
    empty = sums([])
    shuffled = random.sample(rows, len(rows))
    for other in (sums(rows[:cut]) + sums(rows[cut:]), sums(shuffled), empty + whole):
        for field in fields(whole):
            np.testing.assert_allclose(
                getattr(other, field.name), getattr(whole, field.name), rtol=1e-12, atol=1e-12
            )


@settings(max_examples=50, deadline=None)
@given(cohorts, st.sampled_from([7.0, 365.25, 1 / 24]))
def test_units_of_time_and_monotone_transforms_of_the_risk_change_nothing(rows, unit):
    time, event, risk, p = (np.array(column) for column in zip(*rows, strict=True))
    probability = np.stack([p / 2, p], axis=1)
    cuts = np.array([-0.5, 0.5])
    here = sums_of(time, event, risk, probability, plan_of([3, 6], cuts))
    there = sums_of(time * unit, event, risk**3, probability, plan_of(np.array([3, 6]) * unit, cuts**3))
    for field in fields(here):
        np.testing.assert_allclose(getattr(there, field.name), getattr(here, field.name), rtol=1e-12)


def test_nobody_gives_nan_and_no_exception():
    empty = risk_calibration_sums([], [], [], np.empty((0, 2)), np.empty((0, 2)), plan_of(cuts=[0.0]))
    result = risk_calibration(empty)
    np.testing.assert_array_equal(result.patients, np.zeros((2, 2)))
    for figure in (result.predicted, result.observed, result.observed_se, result.ratio, result.ratio_high):
        assert np.isnan(figure).all()
    assert (
        risk_calibration(
            risk_calibration_sums([], [], [], np.empty((0, 0)), np.empty((0, 0)), plan_of([]))
        ).ratio.size
        == 0
    )


def test_without_cases_the_ratio_is_zero_with_the_exact_upper_limit():
    result = risk_calibration(
        risk_calibration_sums([9, 9], [0, 0], [0, 0], [[0.5], [0.5]], [[0], [0]], plan_of([5]))
    )
    assert (result.ratio[0], result.ratio_low[0]) == (0, 0)
    assert result.ratio_high[0] == pytest.approx(-math.log(0.025))
    assert (result.observed[0, 0], result.observed_se[0, 0]) == (0, 0)


def test_one_patient_who_is_a_case_has_a_ratio():
    result = risk_calibration(
        risk_calibration_sums([5], [1], [0], [[0.5]], [[1]], plan_of([5], min_at_risk=0))
    )
    assert (result.ratio[0], result.observed[0, 0], result.observed_se[0, 0]) == (2, 1, 0)


def test_probabilities_and_weights_that_cannot_be_used_are_refused_with_counts():
    good = [1.0, 9.0], [1, 0], [0.0, 1.0]
    plan = plan_of([5])
    with pytest.raises(FederationError, match=r"FECG-537 probability: found 1 of 2 .* expected 0 to 1"):
        risk_calibration_sums(*good, [[0.5], [1.5]], [[1], [0]], plan)
    with pytest.raises(
        FederationError, match=r"FECG-537 probability: found shape \(2,\); expected shape \(2, 1\)"
    ):
        risk_calibration_sums(*good, [0.5, 0.5], [[1], [0]], plan)
    with pytest.raises(
        FederationError, match="FECG-537 case weight: found 1 of 2 values that are not finite"
    ):
        risk_calibration_sums(*good, [[0.5], [0.5]], [[math.inf], [0]], plan)
    wrong = "FECG-537 case weight: found 1 of 2 values that are positive without an event by the horizon"
    with pytest.raises(FederationError, match=wrong):
        risk_calibration_sums(*good, [[0.5], [0.5]], [[1], [1]], plan)
    with pytest.raises(CohortError, match="FECG-238 risk: found 1 of 2"):
        risk_calibration_sums([1, 2], [1, 0], [0, math.nan], [[0.5], [0.5]], [[1], [0]], plan)


def test_sums_of_different_plans_do_not_add_up():
    first, second = (
        risk_calibration_sums([9], [0], [0], [[0.5]], [[0]], plan_of([5], cuts)) for cuts in ([], [0.0])
    )
    wrong = r"FECG-538 calibration sums: found shapes \(1, 1\) and \(1, 2\)"
    with pytest.raises(FederationError, match=wrong):
        first + second
