"""The detectable difference: its formula by hand, its error and its power against simulated studies."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import multivariate_normal, norm

from fedecg.evaluation import concordance, concordance_interval, pair_counts
from fedecg.evaluation.power import area_se, detectable_difference

PATIENTS, END = 1000, 0.1  # of the baseline's mean time: about 13 % have the event
TRUTH, NOISE_A, SHARED = 1.0, 0.6, 0.5


def test_the_error_of_an_area_by_hand():
    # one event, one other patient: C (1 - C)
    assert area_se(0.75, 1, 2) == pytest.approx(math.sqrt(0.1875))
    # C = 1/2: Q = 1/3, the chance that one of three equals comes first; variance (1/4 + 8 / 12) / (4 * 6)
    assert area_se(0.5, 4, 10) == pytest.approx(math.sqrt((1 / 4 + 8 / 12) / 24))


@pytest.mark.parametrize("c_index", [0.55, 0.7, 0.8, 0.95])
def test_the_chance_that_one_patient_ranks_above_two_is_that_of_two_normal_differences(c_index):
    both = multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]]).cdf([norm.ppf(c_index)] * 2)
    expected = (c_index * (1 - c_index) + 98 * (both - c_index**2)) / (20 * 80)
    assert area_se(c_index, 20, 100) == pytest.approx(math.sqrt(expected), rel=1e-6)


@given(st.floats(0.01, 0.99), st.integers(1, 500), st.integers(1, 5000))
def test_the_error_is_that_of_the_opposite_risk_and_falls_with_more_patients(c_index, events, others):
    error = area_se(c_index, events, events + others)
    assert error == pytest.approx(area_se(1 - c_index, events, events + others), rel=1e-6)
    assert area_se(c_index, 2 * events, 2 * (events + others)) < error


@pytest.mark.parametrize("c_index", [0.0, 1.0])
def test_the_error_vanishes_at_the_ends(c_index):
    assert area_se(c_index, 20, 100) == pytest.approx(0, abs=1e-12)


def test_a_known_error_counts_alone_and_is_multiplied_by_2_80():
    result = detectable_difference(0.7, 0, 0, paired_se=0.01)
    assert result.difference == pytest.approx(0.0280, abs=5e-5)
    assert (result.se, result.approximate) == (0.01, False)


def test_correlation_enters_as_the_root_of_one_minus_it():
    alone = detectable_difference(0.7, 100, 2000)
    assert alone.se == pytest.approx(math.sqrt(2) * area_se(0.7, 100, 2000))
    assert detectable_difference(0.7, 100, 2000, 0.75).difference == pytest.approx(alone.difference / 2)
    assert alone.approximate


def test_few_events_hide_all_but_large_differences():
    found = [detectable_difference(0.75, events, 1000, 0.5).difference for events in (10, 30, 100, 300)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.2
    assert found[-1] < 0.06


@pytest.mark.parametrize(
    ("c_index", "events", "patients", "correlation"),
    [
        (0.7, 0, 100, 0),
        (0.7, 100, 100, 0),
        (0.7, 0, 0, 0),
        (math.nan, 9, 99, 0),
        (1.2, 9, 99, 0),
        (0.7, 9, 99, 1.1),
    ],
)
def test_what_has_no_error_has_no_detectable_difference(c_index, events, patients, correlation):
    result = detectable_difference(c_index, events, patients, correlation)
    assert math.isnan(result.difference)
    assert math.isnan(result.se)


def study(patients, noise_b, rng):
    """Two risks that see the truth through noise, half of which they share."""
    truth = TRUTH * rng.normal(size=patients)
    failure = rng.exponential(size=patients) * np.exp(-truth)
    ends = rng.uniform(0.8, 1, patients) * END
    shared, own_a, own_b = rng.normal(size=(3, patients))
    noise = math.sqrt(SHARED) * shared
    risk_a = truth + NOISE_A * (noise + math.sqrt(1 - SHARED) * own_a)
    risk_b = truth + noise_b * (noise + math.sqrt(1 - SHARED) * own_b)
    return np.minimum(failure, ends), failure <= ends, risk_a, risk_b


def paired_difference(time, event, risk_a, risk_b):
    """Difference of C and its standard error by the influence function of both on the same patients."""
    moved, differences = [], []
    for risk in (risk_a, risk_b):
        pairs = pair_counts(time, event, risk)
        credit, comparable = pairs.concordant + 0.5 * pairs.tied_risk, sum(pairs)
        c_index = credit.sum() / comparable.sum()
        differences.append(c_index)
        moved.append(2 * (credit - c_index * comparable) / comparable.sum())
    return differences[0] - differences[1], math.sqrt(np.sum((moved[0] - moved[1]) ** 2))


def mean_correlation(event, risk_a, risk_b):
    return np.mean([np.corrcoef(risk_a[group], risk_b[group])[0, 1] for group in (event, ~event)])


def test_the_approximate_error_is_close_to_that_of_survival_data():
    time, event, risk_a, risk_b = study(6000, 1.2, np.random.default_rng(0))
    estimate = concordance_interval(time, event, risk_a)
    assert area_se(estimate.c_index, estimate.events, 6000) == pytest.approx(estimate.se, rel=0.15)
    _, error = paired_difference(time, event, risk_a, risk_b)
    told = detectable_difference(
        estimate.c_index, estimate.events, 6000, mean_correlation(event, risk_a, risk_b)
    )
    assert told.se == pytest.approx(error, rel=0.2)


def test_a_true_difference_of_that_size_is_found_in_70_to_90_of_100_studies():
    def excess(noise_b):
        """True difference less the detectable one, on one large study (the same draws for any noise)."""
        time, event, risk_a, risk_b = study(60_000, noise_b, np.random.default_rng(1))
        c_a, c_b = (concordance(time, event, risk).c_index for risk in (risk_a, risk_b))
        events = round(event.mean() * PATIENTS)
        correlation = mean_correlation(event, risk_a, risk_b)
        return c_a - c_b - detectable_difference((c_a + c_b) / 2, events, PATIENTS, correlation).difference

    noise_b = brentq(excess, 0.7, 3.0, xtol=0.01)
    rng = np.random.default_rng(2)
    found = 0
    for _ in range(500):
        difference, error = paired_difference(*study(PATIENTS, noise_b, rng))
        found += difference / error > norm.ppf(0.975)
    assert 0.70 <= found / 500 <= 0.90
