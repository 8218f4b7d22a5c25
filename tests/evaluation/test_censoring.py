"""A site's own censoring curve, and who counts at a horizon."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sksurv.datasets import load_flchain, load_gbsg2, load_whas500
from sksurv.nonparametric import CensoringDistributionEstimator, kaplan_meier_estimator
from sksurv.util import Surv

from fedecg.errors import FederationError
from fedecg.evaluation.censoring import censoring_curve, checked_horizons, horizon_groups, ratio
from fedecg.evaluation.inputs import checked_outcomes

patient = st.tuples(st.integers(0, 8), st.booleans())
cohorts = st.lists(patient, min_size=1, max_size=30)


def columns(rows):
    time, event = (np.array(column) for column in zip(*rows, strict=True))
    return time.astype(float), event.astype(bool)


def test_curve_of_five_patients_by_hand():
    # Day 1: an event leaves first, then 1 of 4 is censored. Day 2: 1 of 3. Day 4: the last one.
    curve = censoring_curve(np.array([1.0, 1, 2, 3, 4]), np.array([True, False, False, True, False]))
    assert curve.times_days.tolist() == [1, 2, 4]
    assert curve.at([0, 0.9, 1, 1.5, 2, 3, 4, 9]) == pytest.approx([1, 1, 3 / 4, 3 / 4, 1 / 2, 1 / 2, 0, 0])


def test_a_site_without_censoring_and_a_site_without_patients_have_a_curve_of_1():
    for time, event in ([[1.0, 2, 2], [True] * 3], [[], []]):
        curve = censoring_curve(np.array(time, dtype=float), np.array(event, dtype=bool))
        assert curve.at([0, 1, 2, 100]).tolist() == [1, 1, 1, 1]
        assert curve.mean_weight(np.array([0.0, 1, 5])).tolist() == [1, 1]


@settings(max_examples=300, deadline=None)
@given(cohorts)
def test_curve_equals_the_reversed_kaplan_meier_of_scikit_survival(rows):
    time, event = columns(rows)
    times, uncensored = kaplan_meier_estimator(event, time, reverse=True)
    assert censoring_curve(time, event).at(times) == pytest.approx(uncensored, abs=1e-12)


@pytest.mark.parametrize("load", [load_gbsg2, load_whas500, load_flchain])
def test_curve_equals_that_of_scikit_survival_on_real_cohorts(load):
    outcome = load()[1]
    event, time = (outcome[name] for name in outcome.dtype.names)
    reference = CensoringDistributionEstimator().fit(Surv.from_arrays(event, time))
    days = np.linspace(time.min(), time.max(), 500)
    assert censoring_curve(time, event).at(days) == pytest.approx(reference.predict_proba(days), abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(cohorts, st.lists(st.integers(1, 8), min_size=1, max_size=5, unique=True).map(sorted))
def test_mean_weight_is_the_average_over_unit_steps_in_each_bin(rows, cuts):
    curve = censoring_curve(*columns(rows))
    assume(curve.at(cuts[-1] - 0.5) > 0)
    edges = np.array([0, *cuts], dtype=float)
    expected = [np.mean(1 / curve.at(np.arange(start, end) + 0.5)) for start, end in pairwise(edges)]
    assert curve.mean_weight(edges) == pytest.approx(expected)


@settings(max_examples=200, deadline=None)
@given(cohorts, st.permutations(range(30)), st.sampled_from([1 / 365.25, 24, 1e6]))
def test_order_of_patients_and_unit_of_time_change_nothing(rows, order, unit):
    time, event = columns(rows)
    order = [row for row in order if row < len(rows)]
    curve, other = censoring_curve(time, event), censoring_curve(unit * time[order], event[order])
    assert other.uncensored.tolist() == curve.uncensored.tolist()
    assert other.times_days.tolist() == (unit * curve.times_days).tolist()


def outcomes(time, event):
    return checked_outcomes(time, event, time)


def test_cases_and_controls_at_a_horizon_by_hand():
    # G = 3/4 from day 2; a case of day 2 weighs as after the censoring of that day.
    (groups,) = horizon_groups(outcomes([1, 2, 2, 3, 5, 5], [1, 1, 0, 1, 0, 0]), np.array([3.0]), 2)
    assert groups.cases.tolist() == [0, 1, 3]
    assert groups.case_weight == pytest.approx([1, 4 / 3, 4 / 3])
    assert groups.controls.tolist() == [4, 5]
    assert groups.control_weight == pytest.approx(4 / 3)


def test_a_site_with_too_few_patients_beyond_a_horizon_contributes_nothing_there():
    site = outcomes([1, 2, 3, 4, 5], [1, 0, 1, 0, 1])
    horizons = np.array([1.0, 2, 3, 4])
    assert [at is None for at in horizon_groups(site, horizons, 2)] == [False, False, False, True]
    assert [at is None for at in horizon_groups(site, horizons, 3)] == [False, False, True, True]
    assert [at is None for at in horizon_groups(site, horizons, 20)] == [True] * 4


def test_without_a_rule_a_site_contributes_until_its_curve_is_0():
    ends_censored = horizon_groups(outcomes([1, 2, 3], [1, 1, 0]), np.array([2.0, 3]), 0)
    ends_with_event = horizon_groups(outcomes([1, 2, 3], [1, 0, 1]), np.array([2.0, 3]), 0)
    assert [at is None for at in ends_censored] == [False, True]
    assert [at is None for at in ends_with_event] == [False, False]
    assert horizon_groups(outcomes([], []), np.array([2.0]), 0) == [None]


@settings(max_examples=200, deadline=None)
@given(cohorts, st.integers(0, 5))
def test_who_contributes_at_a_horizon_does_so_at_every_earlier_one(rows, min_at_risk):
    contributes = [
        at is not None for at in horizon_groups(outcomes(*columns(rows)), np.arange(1.0, 10), min_at_risk)
    ]
    assert contributes == sorted(contributes, reverse=True)


@settings(max_examples=200, deadline=None)
@given(st.lists(patient, min_size=2, max_size=30, unique_by=lambda row: row[0]))
def test_weights_of_cases_and_controls_add_up_to_all_patients_where_times_are_distinct(rows):
    site = outcomes(*columns(rows))
    for at in horizon_groups(site, np.arange(1.0, 9), 1):
        if at is not None:
            total = at.case_weight.sum() + at.control_weight * at.controls.size
            assert total == pytest.approx(len(rows))


@pytest.mark.parametrize(
    ("horizons", "found"),
    [
        ([], r"shape \(0,\), 0 not finite"),
        ([365, 365], r"shape \(2,\), 0 not finite and positive, 1 places out of order"),
        ([0, 365, np.nan], r"2 not finite and positive"),
        ([[365]], r"shape \(1, 1\)"),
        ("a year", r"shape \(0,\)"),
    ],
)
def test_horizons_that_are_not_increasing_days_are_refused(horizons, found):
    with pytest.raises(
        FederationError, match=r"FECG-535 horizons_days: found .*" + found + ".*days > 0, strictly"
    ):
        checked_horizons(horizons)


def test_ratio_is_nan_where_there_is_nothing_to_divide_by():
    assert ratio([1, 0, 3], [2, 0, 0]) == pytest.approx([0.5, np.nan, np.nan], nan_ok=True)
