"""Random-effects summary against a published example, a direct maximisation, by hand and by simulation."""

import math
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from scipy.stats import chi2, norm, t

from fedecg.evaluation.heterogeneity import c_index_heterogeneity, random_effects

# Colditz et al. 1994, JAMA 271:698-702: tuberculosis with and without in the vaccinated, then in the others
BCG = np.array(
    [
        [4, 119, 11, 128],
        [6, 300, 29, 274],
        [3, 228, 11, 209],
        [62, 13536, 248, 12619],
        [33, 5036, 47, 5761],
        [180, 1361, 372, 1079],
        [8, 2537, 10, 619],
        [505, 87886, 499, 87892],
        [29, 7470, 45, 7232],
        [17, 1699, 65, 1600],
        [186, 50448, 141, 27197],
        [5, 2493, 3, 2338],
        [27, 16886, 29, 17825],
    ]
)
site = st.tuples(st.floats(-3, 3), st.floats(0.05, 2))


def log_relative_risks():
    ill, well, ill_without, well_without = BCG.T.astype(float)
    vaccinated, others = ill + well, ill_without + well_without
    variance = 1 / ill - 1 / vaccinated + 1 / ill_without - 1 / others
    return np.log(ill / vaccinated) - np.log(ill_without / others), np.sqrt(variance)


def restricted_log_likelihood(tau_squared, values, se):
    """Harville's form, with matrices and for any design; nothing shared with the code under test."""
    covariance = np.diag(se**2 + tau_squared)
    design = np.ones((values.size, 1))
    precision = np.linalg.inv(covariance)
    information = design.T @ precision @ design
    projection = precision - precision @ design @ np.linalg.inv(information) @ design.T @ precision
    return -0.5 * (
        np.linalg.slogdet(covariance)[1] + np.linalg.slogdet(information)[1] + values @ projection @ values
    )


def drawn(k, tau, rng):
    se = rng.uniform(0.1, 0.4, k)
    return rng.normal(0.8, np.hypot(tau, se)), se


def test_thirteen_vaccine_trials_have_their_published_summary():
    # metafor (Viechtbauer 2010, J Stat Softw 36(3)): REML -0.7145 (se 0.1798), tau^2 0.3132, Q(12) = 152.2330
    values, se = log_relative_risks()
    summary = random_effects(values, se)
    assert round(summary.estimate, 4) == -0.7145
    assert round(summary.tau**2, 4) == 0.3132
    assert round(summary.q, 3) == 152.233
    assert summary.i_squared == pytest.approx(1 - 12 / 152.2330, abs=1e-6)
    assert summary.q_p_value == pytest.approx(chi2.sf(152.2330, 12), rel=1e-3)
    weight = 1 / (se**2 + summary.tau**2)
    assert round(weight.sum() ** -0.5, 4) == 0.1798
    hartung_knapp = math.sqrt(weight @ (values - summary.estimate) ** 2 / (12 * weight.sum()))
    assert hartung_knapp > 0.1798
    assert summary.se == pytest.approx(hartung_knapp, rel=1e-9)
    assert summary.ci_high - summary.estimate == pytest.approx(t.ppf(0.975, 12) * hartung_knapp, rel=1e-9)
    further = t.ppf(0.975, 11) * math.sqrt(summary.tau**2 + summary.se**2)
    assert summary.estimate - summary.prediction_low == pytest.approx(further, rel=1e-9)
    assert summary.prediction_high - summary.estimate == pytest.approx(further, rel=1e-9)
    assert (summary.sites, summary.left_out) == (13, 0)


@pytest.mark.parametrize("seed", range(8))
def test_the_spread_between_sites_maximises_the_restricted_likelihood(seed):
    values, se = drawn(k=3 + seed, tau=0.15 * seed, rng=np.random.default_rng(seed))
    direct = minimize_scalar(
        lambda tau: -restricted_log_likelihood(tau**2, values, se),
        bounds=(0, 5),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert random_effects(values, se).tau == pytest.approx(direct.x, abs=2e-5)


@settings(max_examples=150, deadline=None)
@given(st.lists(site, min_size=2, max_size=6))
def test_no_other_spread_has_a_higher_restricted_likelihood(sites):
    values, se = np.array(sites).T
    assume(np.ptp(values) > 1e-3)
    found = restricted_log_likelihood(random_effects(values, se).tau ** 2, values, se)
    others = [restricted_log_likelihood(tau**2, values, se) for tau in np.linspace(0, 12, 300)]
    assert max(others) <= found + 1e-9


def test_two_sites_by_hand():
    # equal errors: tau^2 = (difference^2 / 2) - se^2; their mean has variance (tau^2 + se^2) / 2 = difference^2 / 4
    summary = random_effects([0.0, 1.0], [0.1, 0.1])
    assert summary.estimate == pytest.approx(0.5)
    assert summary.tau**2 == pytest.approx(0.5 - 0.01)
    assert summary.se == pytest.approx(0.5)
    assert summary.ci_high == pytest.approx(0.5 + 12.7062 * 0.5, rel=1e-5)
    assert summary.q == pytest.approx(50)
    assert summary.i_squared == pytest.approx(0.98)
    assert math.isnan(summary.prediction_low)
    assert math.isnan(summary.prediction_high)


def test_one_site_is_its_own_summary():
    summary = random_effects([0.7], [0.1])
    assert (summary.estimate, summary.se, summary.sites, summary.q) == (0.7, pytest.approx(0.1), 1, 0)
    assert summary.ci_low == pytest.approx(0.7 - norm.ppf(0.975) * 0.1)
    assert summary.ci_high == pytest.approx(0.7 + norm.ppf(0.975) * 0.1)
    undefined = (summary.tau, summary.i_squared, summary.q_p_value, summary.prediction_low)
    assert all(math.isnan(figure) for figure in undefined)


@pytest.mark.parametrize("summarise", [random_effects, c_index_heterogeneity])
def test_no_site_gives_nan_and_no_exception(summarise):
    for estimate, se, left_out in (([], [], 0), ([math.nan, 0.5], [0.1, 0.0], 2)):
        summary = summarise(estimate, se)
        assert math.isnan(summary.estimate)
        assert math.isnan(summary.ci_low)
        assert (summary.sites, summary.left_out) == (0, left_out)


def test_sites_that_agree_have_no_spread_and_no_interval_narrower_than_their_errors_allow():
    summary = random_effects([0.5, 0.5, 0.5], [0.1, 0.2, 0.2])
    assert (summary.tau, summary.i_squared, summary.q, summary.q_p_value) == (0, 0, 0, 1)
    assert summary.se == pytest.approx(1 / math.sqrt(100 + 25 + 25))
    nearly = random_effects([0.5, 0.501, 0.499], [0.1, 0.2, 0.2])
    assert (nearly.tau, nearly.se) == (0, pytest.approx(summary.se))


def test_c_indices_are_summarised_on_the_logit_scale():
    c_index, se = np.array([0.62, 0.70, 0.75, 0.81]), np.array([0.03, 0.02, 0.04, 0.03])
    summary, plain = (
        c_index_heterogeneity(c_index, se),
        random_effects(logit(c_index), se / (c_index * (1 - c_index))),
    )
    for name in ("estimate", "ci_low", "ci_high", "prediction_low", "prediction_high"):
        assert getattr(summary, name) == pytest.approx(expit(getattr(plain, name)), rel=1e-12)
    for name in ("se", "tau", "i_squared", "q", "q_p_value"):
        assert getattr(summary, name) == getattr(plain, name)
    assert (
        0
        < summary.prediction_low
        < summary.ci_low
        < summary.estimate
        < summary.ci_high
        < summary.prediction_high
        < 1
    )


def test_a_c_index_and_its_complement_have_complementary_summaries():
    c_index, se = np.array([0.62, 0.70, 0.75]), np.array([0.03, 0.02, 0.04])
    there, back = c_index_heterogeneity(c_index, se), c_index_heterogeneity(1 - c_index, se)
    assert back.estimate == pytest.approx(1 - there.estimate, abs=1e-12)
    assert back.prediction_low == pytest.approx(1 - there.prediction_high, abs=1e-9)
    assert back.tau == pytest.approx(there.tau, rel=1e-9)


def test_sites_that_cannot_be_used_are_left_out_and_counted():
    used = [0.62, 0.70, 0.75], [0.03, 0.02, 0.04]
    unusable = [0, 1, math.nan, 0.6, 0.6, 0.6, -0.1], [0.1, 0.1, 0.1, 0, math.nan, math.inf, 0.1]
    summary = c_index_heterogeneity(used[0] + unusable[0], used[1] + unusable[1])
    assert (summary.sites, summary.left_out) == (3, 7)
    assert astuple(summary)[:-1] == astuple(c_index_heterogeneity(*used))[:-1]


def test_slopes_of_calibration_may_be_negative_or_above_one():
    summary = random_effects([1.2, -0.1, 0.9, math.inf], [0.2, 0.3, 0.1, 0.1])
    assert (summary.sites, summary.left_out) == (3, 1)


@settings(max_examples=100, deadline=None)
@given(st.lists(site, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_sites_leaves_no_trace(sites, random):
    there = random_effects(*np.array(sites).T)
    back = random_effects(*np.array(random.sample(sites, len(sites))).T)
    assert np.array_equal(astuple(there), astuple(back), equal_nan=True)


@settings(max_examples=100, deadline=None)
@given(st.lists(site, min_size=3, max_size=8), st.floats(0.01, 100), st.floats(-5, 5))
def test_units_and_shifts_carry_through(sites, unit, shift):
    values, se = np.array(sites).T
    assume(np.ptp(values) > 1e-3)
    plain, other = random_effects(values, se), random_effects(unit * values + shift, unit * se)
    assert other.estimate == pytest.approx(unit * plain.estimate + shift, rel=1e-6, abs=1e-6 * unit)
    assert other.tau == pytest.approx(unit * plain.tau, rel=1e-4, abs=1e-3 * unit)
    assert other.i_squared == pytest.approx(plain.i_squared, abs=1e-9)
    assert other.prediction_high == pytest.approx(
        unit * plain.prediction_high + shift, rel=1e-3, abs=1e-3 * unit
    )


def coverage(k, tau, cohorts=1000):
    """Shares of intervals that hold the mean, and of prediction intervals that hold a further site's true value."""
    rng = np.random.default_rng(1)
    mean_inside, site_inside = 0, 0
    for _ in range(cohorts):
        summary = random_effects(*drawn(k, tau, rng))
        mean_inside += summary.ci_low <= 0.8 <= summary.ci_high
        site_inside += summary.prediction_low <= rng.normal(0.8, tau) <= summary.prediction_high
    return mean_inside / cohorts, site_inside / cohorts


@pytest.mark.parametrize(("k", "tau"), [(10, 0.6), (40, 0.3)])
def test_intervals_hold_the_mean_and_a_further_site_about_95_times_in_100(k, tau):
    mean_inside, site_inside = coverage(k, tau)
    assert 0.93 <= mean_inside <= 0.97
    assert 0.92 <= site_inside <= 0.97


def test_the_prediction_interval_is_too_narrow_for_few_sites_of_moderate_spread():
    mean_inside, site_inside = coverage(k=10, tau=0.3)
    assert 0.93 <= mean_inside <= 0.97
    assert 0.86 <= site_inside <= 0.92  # as its documentation says


def test_intervals_of_sites_without_any_spread_err_on_the_wide_side():
    assert min(coverage(k=10, tau=0.0)) >= 0.95
