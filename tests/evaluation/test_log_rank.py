"""Log-rank test by hand, against lifelines, and stratified."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines.datasets import load_rossi
from lifelines.statistics import multivariate_logrank_test
from scipy.stats import chi2
from sksurv.compare import compare_survival
from sksurv.datasets import load_whas500

from fedecg.errors import FederationError
from fedecg.evaluation.life_table import life_table
from fedecg.evaluation.log_rank import log_rank


def rossi():
    frame = load_rossi()
    return frame["week"].to_numpy(float), frame["arrest"].to_numpy(), frame["age"].to_numpy(float)


def whas500():
    features, outcome = load_whas500()
    return outcome["lenfol"].astype(float), outcome["fstat"].astype(int), features["age"].to_numpy(float)


def exact_table(time, cause, risk, cuts):
    return life_table(time, cause, risk, np.union1d(0, time), cuts)


def simulated(patients, seed, effect=0.0):
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=patients)
    time = np.ceil(200 * rng.exponential(1, patients) * np.exp(-effect * risk))
    return time, rng.integers(0, 3, patients), risk


def test_four_patients_by_hand():
    # days 1 (low, event), 2 (high, event), 3 (high, censored), 4 (low, event)
    test = log_rank([exact_table([1, 2, 3, 4], [1, 1, 0, 1], [0, 1, 1, 0], [0.5])])
    # at risk low/all: 2/4, 1/3, (1/2), 1/1; expected in low 1/2 + 1/3 + 1; variance 1/4 + 2/9 + 0
    assert test.observed.tolist() == [2, 1]
    assert test.expected == pytest.approx([11 / 6, 7 / 6])
    assert test.chi_square == pytest.approx((1 / 6) ** 2 / (17 / 36))
    assert test.degrees_of_freedom == 1
    assert test.p_value == pytest.approx(chi2.sf(1 / 17, 1))


@pytest.mark.parametrize("cohort", [rossi, whas500])
@pytest.mark.parametrize("quantiles", [[0.5], [0.3, 0.7], [0.2, 0.4, 0.6, 0.8]])
def test_the_test_is_that_of_lifelines(cohort, quantiles):
    time, event, age = cohort()
    cuts = np.quantile(age, quantiles)
    test = log_rank([exact_table(time, event, age, cuts)])
    reference = multivariate_logrank_test(time, np.searchsorted(cuts, age, side="right"), event)
    assert test.chi_square == pytest.approx(reference.test_statistic, rel=1e-10)
    assert test.p_value == pytest.approx(reference.p_value, rel=1e-9)
    assert test.degrees_of_freedom == reference.degrees_of_freedom == len(quantiles)


def test_the_test_is_that_of_scikit_survival():
    time, event, age = whas500()
    cuts = np.quantile(age, [0.3, 0.7])
    outcome = np.array(list(zip(event == 1, time, strict=True)), dtype=[("event", bool), ("time", float)])
    chi_square, p_value = compare_survival(outcome, np.searchsorted(cuts, age, side="right"))
    test = log_rank([exact_table(time, event, age, cuts)])
    assert (test.chi_square, test.p_value) == pytest.approx((chi_square, p_value), rel=1e-9)


def test_deaths_before_the_event_count_as_censored():
    time, cause, risk = simulated(400, seed=1)
    reference = multivariate_logrank_test(time, risk > 0, cause == 1)
    assert log_rank([exact_table(time, cause, risk, [0.0])]).chi_square == pytest.approx(
        reference.test_statistic, rel=1e-10
    )


def test_groups_with_nobody_change_nothing():
    time, cause, risk = simulated(300, seed=2)
    plain = log_rank([exact_table(time, cause, risk, [-0.5, 0.5])])
    wider = log_rank([exact_table(time, cause, risk, [-99, -0.5, 0.5, 99])])
    assert wider.chi_square == pytest.approx(plain.chi_square, rel=1e-12)
    assert wider.degrees_of_freedom == plain.degrees_of_freedom == 2
    assert wider.expected[[0, 4]].tolist() == wider.observed[[0, 4]].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("time", "cause", "risk"),
    [
        ([], [], []),
        ([1, 2], [0, 0], [0, 1]),
        ([1, 2], [1, 1], [1, 1]),
        ([2], [1], [0]),
        ([3, 3], [1, 1], [0, 1]),
    ],
    ids=["nobody", "no events", "one group", "one patient", "all at once"],
)
def test_nothing_to_compare_gives_nan_and_no_exception(time, cause, risk):
    test = log_rank([exact_table(time, cause, risk, [0.5])])
    assert (test.degrees_of_freedom, math.isnan(test.chi_square), math.isnan(test.p_value)) == (0, True, True)


def test_a_tiny_group_among_many_patients_is_not_lost():
    time, cause, risk = simulated(20_000, seed=3)
    risk[time.argmax()] = 50.0
    test = log_rank([exact_table(time, cause, risk, [0.0, 20.0])])
    group = np.searchsorted([0.0, 20.0], risk, side="right")
    reference = multivariate_logrank_test(time, group, cause == 1)
    assert test.degrees_of_freedom == 2
    assert test.chi_square == pytest.approx(reference.test_statistic, rel=1e-8)


def test_two_strata_by_hand():
    # the two days of each stratum are those of one event among two: expected 1/2, variance 1/4 in each
    one = exact_table([1, 2], [1, 0], [0, 1], [0.5])
    two = exact_table([5, 9], [1, 0], [0, 1], [0.5])
    test = log_rank([one, two])
    assert test.expected == pytest.approx([1, 1])
    assert test.chi_square == pytest.approx((2 - 1) ** 2 / 0.5)


def test_stratification_does_not_take_a_difference_of_sites_for_one_of_groups():
    rng = np.random.default_rng(4)
    site = np.repeat([0, 1], 500)
    group = rng.random(1000) < np.where(
        site == 0, 0.2, 0.8
    )  # group 1 lives at site 1, where events come sooner
    time = rng.exponential(np.where(site == 0, 1000.0, 200.0))
    tables = [exact_table(time[site == s], np.ones(500), group[site == s], [0.5]) for s in (0, 1)]
    pooled = exact_table(time, np.ones(1000), group, [0.5])
    assert log_rank([pooled]).p_value < 1e-6
    assert log_rank(tables).p_value > 0.05


def test_strata_of_one_group_each_have_no_contrast():
    tables = [exact_table([1, 2, 3], [1, 1, 0], [risk] * 3, [0.5]) for risk in (0, 1)]
    assert log_rank(tables).degrees_of_freedom == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_order_of_groups_and_of_strata_changes_nothing(seed, strata):
    time, cause, risk = simulated(80, seed)
    site = np.arange(80) % strata
    cuts = np.array([-0.5, 0.5])
    tables = [exact_table(time[site == s], cause[site == s], risk[site == s], cuts) for s in range(strata)]
    turned = [exact_table(time[site == s], cause[site == s], -risk[site == s], cuts) for s in range(strata)]
    there, back = log_rank(tables), log_rank(turned[::-1])
    assert back.chi_square == pytest.approx(there.chi_square, rel=1e-9, abs=1e-12)
    assert back.degrees_of_freedom == there.degrees_of_freedom
    assert back.observed.tolist() == there.observed.tolist()[::-1]


def test_equal_hazards_are_rejected_in_about_five_of_a_hundred_cohorts():
    p_values = np.array(
        [log_rank([exact_table(*simulated(120, seed), [-0.5, 0.5])]).p_value for seed in range(1000)]
    )
    assert 0.035 <= (p_values < 0.05).mean() <= 0.065


def test_strata_of_other_groups_are_refused():
    tables = [exact_table([1, 2], [1, 0], [0, 1], cuts) for cuts in ([0.5], [0.7])]
    with pytest.raises(
        FederationError, match="FECG-531 life tables: found tables that differ in group_cuts;"
    ):
        log_rank(tables)


def test_no_table_at_all_is_refused():
    with pytest.raises(
        FederationError, match="FECG-525 log-rank test: found 0 life tables; expected at least one"
    ):
        log_rank([])
