"""Standard errors against the jackknife and the bootstrap; intervals that cover what they say they cover."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit

from fedecg.errors import CohortError
from fedecg.evaluation import FEW_EVENTS, concordance, concordance_interval, stratified_interval


def simulated(patients, follow_up, rng, effect=1.0):
    """Exponential times with a normal log hazard, censored evenly over the second half of the follow-up."""
    risk = rng.normal(size=patients)
    failure = rng.exponential(1, patients) * np.exp(-effect * risk)
    censored = rng.uniform(0.5 * follow_up, follow_up, patients)
    return np.minimum(failure, censored), failure <= censored, risk


def test_the_standard_error_agrees_with_leaving_out_one_patient_at_a_time():
    cohort = simulated(400, 0.4, np.random.default_rng(0))
    left_out = np.array(
        [concordance(*(np.delete(column, i) for column in cohort)).c_index for i in range(400)]
    )
    jackknife = math.sqrt(399 / 400 * np.sum((left_out - left_out.mean()) ** 2))
    assert concordance_interval(*cohort).se == pytest.approx(jackknife, rel=0.02)


def test_the_standard_error_agrees_with_the_bootstrap():
    rng = np.random.default_rng(1)
    time, event, risk = simulated(1000, 0.2, rng)
    draws = rng.integers(1000, size=(500, 1000))
    values = [concordance(time[rows], event[rows], risk[rows]).c_index for rows in draws]
    assert concordance_interval(time, event, risk).se == pytest.approx(np.std(values), rel=0.12)


def test_the_stratified_standard_error_agrees_with_the_bootstrap_within_strata():
    rng = np.random.default_rng(2)
    time, event, risk = simulated(900, 0.3, rng)
    draws = np.concatenate([rng.integers(300, size=(400, 300)) + 300 * s for s in range(3)], axis=1)
    site = np.repeat(["a", "b", "c"], 300)
    values = [stratified_interval(time[d], event[d], risk[d], site).c_index for d in draws]
    assert stratified_interval(time, event, risk, site).se == pytest.approx(np.std(values), rel=0.12)


def test_the_interval_is_symmetric_on_the_logit_scale():
    estimate = concordance_interval(*simulated(300, 0.4, np.random.default_rng(3)))
    middle = (logit(estimate.ci_low) + logit(estimate.ci_high)) / 2
    assert expit(middle) == pytest.approx(estimate.c_index, abs=1e-12)
    half = stats.t.ppf(0.975, estimate.events - 1) * estimate.se / (estimate.c_index * (1 - estimate.c_index))
    assert logit(estimate.ci_high) - middle == pytest.approx(half, rel=1e-6)


@pytest.mark.parametrize("effect", [0.0, 1.0])
def test_the_interval_covers_the_true_index_in_93_to_97_of_100_cohorts(effect):
    rng = np.random.default_rng(4)
    large = [concordance(*simulated(50_000, 0.12, rng, effect)) for _ in range(4)]
    truth = np.mean([counts.c_index for counts in large])
    covered = 0
    for _ in range(1500):
        estimate = concordance_interval(*simulated(450, 0.12, rng, effect))
        covered += estimate.ci_low <= truth <= estimate.ci_high
    assert 0.93 <= covered / 1500 <= 0.97


def test_one_stratum_is_no_stratum():
    cohort = simulated(200, 0.5, np.random.default_rng(5))
    assert stratified_interval(*cohort, np.full(200, "only")) == concordance_interval(*cohort)


def test_value_and_counts_are_those_of_concordance():
    cohort = simulated(200, 0.5, np.random.default_rng(6))
    estimate, counts = concordance_interval(*cohort), concordance(*cohort)
    assert estimate.c_index == pytest.approx(counts.c_index, abs=1e-15)
    assert (estimate.comparable, estimate.patients, estimate.events) == (
        counts.comparable,
        200,
        cohort[1].sum(),
    )


def test_several_models_give_the_mean_of_their_indices_and_the_error_of_that_mean():
    rng = np.random.default_rng(7)
    time, event, risk = simulated(500, 0.3, rng)
    risks = np.stack([risk, risk + rng.normal(size=500), rng.normal(size=500)])
    estimate = concordance_interval(time, event, risks)
    alone = [concordance_interval(time, event, own) for own in risks]
    assert estimate.c_index == pytest.approx(np.mean([own.c_index for own in alone]), abs=1e-12)
    assert estimate.se <= np.mean([own.se for own in alone])
    same = concordance_interval(time, event, np.stack([risk, risk]))
    assert same.se == pytest.approx(alone[0].se, rel=1e-12)


def test_fewer_than_thirty_events_are_marked():
    time, risk = np.arange(1.0, 101), np.random.default_rng(8).normal(size=100)
    few, enough = np.arange(100) < FEW_EVENTS - 1, np.arange(100) < FEW_EVENTS
    assert concordance_interval(time, few, risk).few_events
    assert not concordance_interval(time, enough, risk).few_events


def test_a_perfect_index_of_few_events_does_not_claim_certainty():
    perfect = concordance_interval([1, 2, 9, 9], [1, 1, 0, 0], [4, 3, 2, 1])
    assert (perfect.c_index, perfect.ci_high) == (1.0, 1.0)
    assert perfect.ci_low == pytest.approx(0.025**0.5)
    worst = concordance_interval([1, 2, 9, 9], [1, 1, 0, 0], [1, 2, 3, 4])
    assert (worst.c_index, worst.ci_low) == (0.0, 0.0)
    assert worst.ci_high == pytest.approx(1 - 0.025**0.5)


def test_nothing_comparable_gives_nan_and_no_exception():
    for cohort in (([], [], []), ([1, 2], [0, 0], [1, 2])):
        estimate = concordance_interval(*cohort)
        assert all(math.isnan(x) for x in (estimate.c_index, estimate.se, estimate.ci_low, estimate.ci_high))
        assert estimate.few_events


def test_a_risk_that_is_not_a_number_is_refused_in_any_model():
    with pytest.raises(CohortError, match="FECG-238 risk: found 1 of 2 values that are not finite"):
        concordance_interval([1, 2], [1, 0], [[1, 2], [1, math.nan]])
