"""Brier scores from sums: equal to scikit-survival at one site, right across sites of different follow-up."""

from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sksurv.datasets import load_gbsg2, load_whas500
from sksurv.metrics import brier_score, integrated_brier_score
from sksurv.util import Surv

from fedecg.errors import CohortError, FederationError
from fedecg.evaluation.brier import BrierSums, brier, brier_sums
from fedecg.evaluation.censoring import censoring_curve

patient = st.tuples(st.integers(0, 8), st.booleans(), st.integers(0, 10), st.integers(0, 2))
federations = st.lists(patient, min_size=1, max_size=30)
HORIZONS = np.array([2.0, 4, 7])


def columns(rows):
    time, event, tenths, site = (np.array(column) for column in zip(*rows, strict=True))
    probability = np.minimum(1, tenths[:, None] / 10 * np.array([0.5, 0.75, 1]))
    return time.astype(float), event.astype(bool), probability, site


def federated(time, event, probability, site, horizons, min_at_risk=1):
    parts = [
        brier_sums(time[at], event[at], probability[at], horizons, min_at_risk)
        for at in (site == name for name in dict.fromkeys(site.tolist()))
    ]
    return reduce(add, parts)


def figures(result):
    return np.concatenate([result.score, result.se, result.null_score, result.scaled, [result.integrated]])


def by_definition(time, event, probability, site, horizons, min_at_risk):
    """Score, null score and se, patient by patient with the weights of its own site, straight from the formula."""
    rows = []
    for k, horizon in enumerate(horizons):
        happened = event & (time <= horizon)
        weight, kept = np.zeros(time.size), np.zeros(time.size, dtype=bool)
        for name in np.unique(site):
            at = site == name
            if np.sum(time[at] > horizon) < min_at_risk:
                continue
            curve = censoring_curve(time[at], event[at])
            cases, controls = at & happened, at & (time > horizon)
            weight[cases], weight[controls] = 1 / curve.at(time[cases]), 1 / curve.at(horizon)
            kept |= at
        if not kept.any():
            rows.append([np.nan] * 3)
            continue
        loss = (weight * (happened - probability[:, k]) ** 2)[kept]
        constant = np.average(happened[kept], weights=weight[kept])
        null = np.mean(weight[kept] * (happened[kept] - constant) ** 2)
        se = np.std(loss, ddof=1) / np.sqrt(loss.size) if loss.size > 1 else np.nan
        rows.append([loss.mean(), null, se])
    return np.array(rows).T


def test_four_patients_by_hand():
    # G(2) = 2/3 after the censoring of day 2. Case of day 1 weighs 1, controls of day 3 and 4 weigh 3/2.
    result = brier(brier_sums([1, 2, 3, 4], [1, 0, 1, 0], [[0.5], [0.9], [0.2], [0.4]], [2], min_at_risk=2))
    assert result.score == pytest.approx([(0.25 + 1.5 * 0.04 + 1.5 * 0.16) / 4])
    assert result.event_fraction == pytest.approx([1 / 4])
    assert result.null_score == pytest.approx([3 / 16])
    assert result.scaled == pytest.approx([1 - 0.1375 / (3 / 16)])
    assert result.se == pytest.approx(np.std([0.25, 0, 0.06, 0.24], ddof=1) / 2)
    assert (result.sites, result.patients, result.cases, result.at_risk) == (1, 4, 1, 2)


@pytest.mark.parametrize("load", [load_gbsg2, load_whas500])
def test_one_site_equals_scikit_survival_on_real_cohorts(load):
    outcome = load()[1]
    event, time = (outcome[name] for name in outcome.dtype.names)
    horizons = np.quantile(time, [0.1, 0.3, 0.5, 0.7, 0.9])
    probability = np.random.default_rng(1).uniform(size=(time.size, 1)) * np.linspace(0.2, 1, 5)
    result = brier(brier_sums(time, event, probability, horizons))
    reference = Surv.from_arrays(event, time)
    expected = brier_score(reference, reference, 1 - probability, horizons)[1]
    assert result.score == pytest.approx(expected, abs=1e-12)
    assert result.integrated == pytest.approx(
        integrated_brier_score(reference, reference, 1 - probability, horizons), abs=1e-12
    )
    fraction = np.broadcast_to(result.event_fraction, probability.shape)
    expected_null = brier_score(reference, reference, 1 - fraction, horizons)[1]
    assert result.null_score == pytest.approx(expected_null, abs=1e-12)


@settings(max_examples=300, deadline=None)
@given(federations, st.integers(1, 3))
def test_federated_sums_equal_the_formula_over_all_patients(rows, min_at_risk):
    cohort = columns(rows)
    result = brier(federated(*cohort, HORIZONS, min_at_risk))
    score, null, se = by_definition(*cohort, HORIZONS, min_at_risk)
    assert result.score == pytest.approx(score, abs=1e-12, nan_ok=True)
    assert result.null_score == pytest.approx(null, abs=1e-12, nan_ok=True)
    assert result.se == pytest.approx(se, abs=1e-8, nan_ok=True)


@settings(max_examples=200, deadline=None)
@given(federations)
def test_without_censoring_federated_sums_equal_pooled_arrays_however_patients_are_split(rows):
    time, _, probability, site = columns(rows)
    event = np.ones(time.size, dtype=bool)
    pooled = brier(brier_sums(time, event, probability, HORIZONS, 0))
    for split in (site, site // 2, np.zeros_like(site)):
        result = brier(federated(time, event, probability, split, HORIZONS, 0))
        assert figures(result) == pytest.approx(figures(pooled), abs=1e-7, nan_ok=True)


@settings(max_examples=100, deadline=None)
@given(federations, st.permutations(range(30)), st.sampled_from([1 / 365.25, 24.0]))
def test_order_of_patients_and_of_sites_and_unit_of_time_change_nothing(rows, order, unit):
    time, event, probability, site = columns(rows)
    order = [row for row in order if row < len(rows)]
    one = brier_sums(time, event, probability, HORIZONS, 1)
    other = brier_sums(time[order], event[order], probability[order], HORIZONS, 1)
    assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in vars(one))
    result = brier(federated(time, event, probability, site, HORIZONS))
    shuffled = brier(
        federated(unit * time[order], event[order], probability[order], site[order], unit * HORIZONS)
    )
    assert figures(shuffled) == pytest.approx(figures(result), abs=1e-7, nan_ok=True)


def test_the_best_constant_has_a_scaled_score_of_0_and_a_perfect_prediction_1():
    rng = np.random.default_rng(3)
    time, event = rng.integers(1, 9, 200), rng.random(200) < 0.6
    fraction = brier(brier_sums(time, event, np.zeros((200, 1)), [5])).event_fraction
    for shift in (-0.02, 0, 0.02):
        scaled = brier(brier_sums(time, event, np.full((200, 1), fraction[0] + shift), [5])).scaled
        assert scaled == pytest.approx([0], abs=1e-12) if shift == 0 else scaled < 0
    happened = (event & (time <= 5)).astype(float)
    assert brier(brier_sums(time, event, happened[:, None], [5])).scaled == pytest.approx([1])


def test_a_site_of_short_follow_up_leaves_the_later_horizons_and_the_record_says_so():
    rng = np.random.default_rng(4)
    long = brier_sums(rng.uniform(1, 100, 300), rng.random(300) < 0.5, np.full((300, 3), 0.3), [10, 40, 80])
    short = brier_sums(rng.uniform(1, 45, 100), rng.random(100) < 0.5, np.full((100, 3), 0.3), [10, 40, 80])
    result = brier(long + short)
    assert (result.sites.tolist(), result.patients.tolist()) == ([2, 1, 1], [400, 300, 300])
    assert result.score[1:] == pytest.approx(brier(long).score[1:])


def test_horizons_that_nobody_reaches_have_no_score_and_end_the_integral():
    sums = brier_sums([5, 6, 7, 8], [1, 0, 1, 0], np.full((4, 4), 0.5), [1, 3, 5, 9], min_at_risk=1)
    result = brier(sums)
    assert result.score == pytest.approx([0.25, 0.25, 0.25, np.nan], nan_ok=True)
    assert (result.integrated, result.integrated_until_days) == (pytest.approx(0.25), 5)
    assert np.isnan(result.scaled[:2]).all()  # without cases the null model is perfect
    assert np.isnan([brier(brier_sums([5], [1], [[0.5]], [9])).integrated, result.se[3]]).all()


def test_an_empty_site_is_zeros_and_one_patient_has_a_score_without_error():
    empty = brier_sums([], [], [], HORIZONS, 0)
    assert sum(np.abs(getattr(empty, name)).sum() for name in vars(empty) if name != "horizons_days") == 0
    one = brier_sums([5], [0], [[0.5, 0.5, 0.5]], HORIZONS, 1)
    result = brier(empty + one)
    assert result.score == pytest.approx([0.25, 0.25, np.nan], nan_ok=True)
    assert np.isnan(result.se).all()
    assert isinstance(empty + one, BrierSums)


def test_own_curves_recover_the_uncensored_score_where_one_pooled_curve_is_off():
    # Sites of high risk have short follow-up: the pooled curve then weights the wrong patients up.
    rng = np.random.default_rng(5)
    site = rng.integers(6, size=24_000)
    log_hazard = rng.normal(size=site.size) * 0.8 + np.linspace(-1.2, 1.2, 6)[site]
    failure = rng.exponential(size=site.size) / (0.25 / 1825 * np.exp(log_hazard))
    ends = rng.exponential(np.array([40_000, 20_000, 8000, 3000, 1500, 900])[site])
    time, event = np.minimum(failure, ends), failure <= ends
    horizons = np.array([730.0, 1460])
    probability = 1 - np.exp(-0.25 / 1825 * np.exp(log_hazard)[:, None] * horizons)
    truth = np.mean(((failure[:, None] <= horizons) - probability) ** 2, axis=0)
    own = brier(federated(time, event, probability, site, horizons, 20))
    pooled = brier(brier_sums(time, event, probability, horizons))
    assert own.sites.tolist() == [6, 6]
    assert np.abs(own.score - truth).max() <= 0.003
    assert np.abs(pooled.score - truth).min() > 2 * np.abs(own.score - truth).max()
    assert (np.abs(own.score - truth) < 3 * own.se).all()


def test_standard_error_is_the_spread_over_repeated_cohorts():
    rng = np.random.default_rng(6)
    scores, errors = [], []
    for _ in range(300):
        failure, ends = rng.exponential(5, 400), rng.exponential(10, 400)
        sums = brier_sums(np.minimum(failure, ends), failure <= ends, rng.uniform(0, 1, (400, 1)), [3])
        result = brier(sums)
        scores.append(result.score[0])
        errors.append(result.se[0])
    assert np.mean(errors) == pytest.approx(np.std(scores), rel=0.15)


@pytest.mark.parametrize(
    ("probability", "found"),
    [
        ([[0.1], [1.2], [np.nan]], r"shape \(3, 1\), 2 of 3 values that are not in \[0, 1\]"),
        ([0.1, 0.2, 0.3], r"shape \(3,\), 0 of 3"),
        ([[0.1, 0.2]] * 3, r"shape \(3, 2\), 0 of 6"),
        ([["low"]] * 3, r"shape \(3, 1\), 3 of 3"),
    ],
)
def test_probabilities_outside_0_to_1_or_of_another_shape_are_refused(probability, found):
    with pytest.raises(
        CohortError, match=r"FECG-534 risk_at_horizons: found " + found + r".*expected shape \(3, 1\)"
    ):
        brier_sums([1, 2, 3], [0, 1, 0], probability, [2])


def test_columns_and_horizons_are_checked_and_other_horizons_are_not_added():
    with pytest.raises(CohortError, match=r"FECG-236 time: found 1 of 1"):
        brier_sums([-1], [0], [[0.5]], [2])
    with pytest.raises(FederationError, match=r"FECG-535"):
        brier_sums([1], [0], [[0.5]], [-2])
    one, other = (brier_sums([1], [0], [[0.5]], [horizon]) for horizon in (2, 3))
    with pytest.raises(
        FederationError, match=r"FECG-536 BrierSums: found two records that differ in horizons_days"
    ):
        one + other
