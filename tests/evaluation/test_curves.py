"""Curves by hand, against lifelines and scikit-survival, and at horizons."""

import numpy as np
import pytest
from lifelines import AalenJohansenFitter, KaplanMeierFitter
from lifelines.datasets import load_rossi
from lifelines.utils import median_survival_times, qth_survival_time
from sksurv.datasets import load_bmt, load_whas500
from sksurv.nonparametric import cumulative_incidence_competing_risks, kaplan_meier_estimator

from fedecg.evaluation.curves import aalen_johansen, kaplan_meier, reverse_kaplan_meier
from fedecg.evaluation.life_table import life_table


def exact_table(time, cause, risk=None, cuts=()):
    """A bin for every distinct time."""
    risk = np.zeros(len(time)) if risk is None else risk
    return life_table(time, cause, risk, np.union1d(0, time), cuts)


def close(ours, reference, atol=1e-10):
    return np.allclose(ours, reference, rtol=0, atol=atol)


def rossi():
    frame = load_rossi()
    return frame["week"].to_numpy(float), frame["arrest"].to_numpy(), frame["age"].to_numpy(float)


def whas500():
    features, outcome = load_whas500()
    return outcome["lenfol"].astype(float), outcome["fstat"].astype(int), features["age"].to_numpy(float)


def competing_risks(patients, seed, ties):
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=patients)
    times = rng.exponential([[3.0], [8.0], [15.0]], (3, patients)) * np.exp([-risk, 0.3 * risk, 0 * risk])
    cause = np.array([1, 2, 0])[times.argmin(axis=0)]  # rows: the event, death, lost
    time = times.min(axis=0)
    time, cause = np.append(time, time.max() + 1), np.append(cause, 0)  # the last patient is censored
    return np.ceil(10 * time) if ties else time, cause, np.append(risk, 0)


COHORTS = [rossi, whas500]


def test_five_patients_by_hand():
    # 1 event, 2 censored, 3 event, 3 censored, 4 death: S = 4/5, 4/5 * 2/3
    curves = kaplan_meier(exact_table([1, 2, 3, 3, 4], [1, 0, 1, 0, 2]))
    assert curves.edges_days.tolist() == [0, 1, 2, 3, 4]
    assert curves.at_risk.tolist() == [[5, 5, 4, 3, 1]]
    assert curves.survival[0] == pytest.approx([1, 0.8, 0.8, 8 / 15, 8 / 15])
    greenwood = np.sqrt([0, 1 / 20, 1 / 20, 1 / 20 + 1 / 6, 1 / 20 + 1 / 6])
    assert curves.se[0] == pytest.approx(curves.survival[0] * greenwood)
    assert (curves.ci_low[0, 0], curves.ci_high[0, 0]) == (1, 1)


def test_incidence_of_five_patients_by_hand():
    # 1 event, 2 death, 3 censored, 4 event, 5 death: before each 1, 4/5, 3/5, 3/5, 3/10
    curves = aalen_johansen(exact_table([1, 2, 3, 4, 5], [1, 2, 0, 1, 2]))
    assert curves.incidence[0, 0] == pytest.approx([0, 0.2, 0.2, 0.2, 0.5, 0.5])
    assert curves.incidence[0, 1] == pytest.approx([0, 0, 0.2, 0.2, 0.2, 0.5])
    assert curves.cumulative_hazard[0, 0] == pytest.approx([0, 0.2, 0.2, 0.2, 0.7, 0.7])
    assert curves.cumulative_hazard[0, 1] == pytest.approx([0, 0, 0.25, 0.25, 0.25, 1.25])


@pytest.mark.parametrize("cohort", COHORTS)
def test_kaplan_meier_with_its_interval_is_that_of_lifelines_in_every_group(cohort):
    time, event, age = cohort()
    cuts = np.quantile(age, [0.3, 0.7])
    curves = kaplan_meier(exact_table(time, event, age, cuts))
    group = np.searchsorted(cuts, age, side="right")
    for g in range(3):
        own = group == g
        reference = KaplanMeierFitter().fit(time[own], event[own], timeline=curves.edges_days)
        survival = reference.survival_function_.to_numpy()[:, 0]
        interval = reference.confidence_interval_.to_numpy()
        alive = survival > 1e-12  # at 0 lifelines says 1..1, here NaN
        assert close(curves.survival[g], survival)
        assert close(curves.ci_low[g][alive], interval[alive, 0])
        assert close(curves.ci_high[g][alive], interval[alive, 1])
        assert curves.quantile_days([0.5])[g, 0] == median_survival_times(reference.survival_function_)


@pytest.mark.parametrize("cohort", COHORTS)
def test_kaplan_meier_with_its_interval_is_that_of_scikit_survival(cohort):
    time, event, _ = cohort()
    curves = kaplan_meier(exact_table(time, event))
    _, survival, interval = kaplan_meier_estimator(event.astype(bool), time, conf_type="log-log")
    assert close(curves.survival[0, 1:], survival)
    alive = survival > 1e-12
    assert close(curves.ci_low[0, 1:][alive], interval[0][alive])
    assert close(curves.ci_high[0, 1:][alive], interval[1][alive])


@pytest.mark.parametrize("cohort", COHORTS)
def test_reverse_kaplan_meier_is_that_of_scikit_survival_with_ties(cohort):
    time, event, _ = cohort()
    curves = reverse_kaplan_meier(exact_table(time, event))
    _, followed = kaplan_meier_estimator(event.astype(bool), time, reverse=True)
    assert close(curves.survival[0, 1:], followed)


def test_reverse_kaplan_meier_without_ties_is_the_curve_of_the_opposite_event():
    time, cause, _ = competing_risks(400, seed=1, ties=False)
    curves = reverse_kaplan_meier(exact_table(time, cause))
    reference = KaplanMeierFitter().fit(time, cause == 0, timeline=curves.edges_days)
    alive = curves.survival[0] > 0
    assert close(curves.survival[0], reference.survival_function_.to_numpy()[:, 0])
    assert close(curves.ci_low[0][alive], reference.confidence_interval_.to_numpy()[alive, 0], atol=1e-10)
    quartiles = [
        qth_survival_time(left, reference.survival_function_["KM_estimate"]) for left in (0.75, 0.5, 0.25)
    ]
    assert curves.quantile_days([0.25, 0.5, 0.75])[0].tolist() == quartiles


def test_events_and_deaths_leave_before_those_whose_follow_up_ends_on_the_same_day():
    curves = reverse_kaplan_meier(exact_table([1, 1, 1, 1, 2], [1, 2, 0, 0, 0]))
    assert curves.survival[0] == pytest.approx([1, 1 / 3, 0])
    assert curves.at_risk[0].tolist() == [5, 5, 1]


def test_follow_up_of_patients_who_all_stay_is_the_follow_up():
    curves = reverse_kaplan_meier(exact_table([5, 7, 9, 11], [0, 0, 0, 0]))
    assert curves.quantile_days([0.25, 0.5, 0.75]).tolist() == [[5, 7, 9]]


@pytest.mark.parametrize("seed", range(3))
def test_incidence_with_its_interval_is_that_of_lifelines_without_ties(seed):
    time, cause, _ = competing_risks(300, seed, ties=False)
    curves = aalen_johansen(exact_table(time, cause))
    for number in (1, 2):
        reference = AalenJohansenFitter().fit(time, cause, event_of_interest=number)
        incidence = reference.cumulative_density_.to_numpy()[:, 0]
        own = [
            figure[0, number - 1] for figure in (curves.incidence, curves.se, curves.ci_low, curves.ci_high)
        ]
        assert close(own[0], incidence)
        assert close(own[1] ** 2, reference.variance_, atol=1e-12)
        seen = incidence > 0
        low_high = np.sort(reference.confidence_interval_.to_numpy()[seen], axis=1).T
        assert close([own[2][seen], own[3][seen]], low_high)


def bmt():
    _, outcome = load_bmt()
    return outcome["ftime"].astype(float), outcome["status"].astype(int), None


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_incidence_with_its_interval_is_that_of_scikit_survival_with_ties(seed):
    time, cause, _ = bmt() if seed is None else competing_risks(300, seed, ties=True)
    assert len(np.unique(time)) < len(time)
    curves = aalen_johansen(exact_table(time, cause))
    _, incidence, interval = cumulative_incidence_competing_risks(
        cause, time, conf_type="log-log", var_type="Dinse_Approx"
    )
    moments = slice(-len(np.unique(time)), None)  # the bins with patients; there may be an empty one at 0
    for number in (1, 2):
        seen = incidence[number] > 0
        assert close(curves.incidence[0, number - 1, moments], incidence[number])
        for own, reference in zip((curves.ci_low, curves.ci_high), interval[number], strict=True):
            assert close(own[0, number - 1, moments][seen], reference[seen])


def test_cumulative_hazards_of_both_causes_add_up_to_that_of_leaving_by_either():
    time, cause, risk = competing_risks(500, seed=4, ties=True)
    curves = aalen_johansen(exact_table(time, cause, risk, [0.0]))
    either = aalen_johansen(exact_table(time, np.minimum(cause, 1), risk, [0.0]))
    assert close(curves.cumulative_hazard.sum(axis=1), either.cumulative_hazard[:, 0], atol=1e-12)
    assert close(curves.incidence.sum(axis=1), either.incidence[:, 0], atol=1e-12)


@pytest.mark.parametrize("cohort", COHORTS)
def test_without_deaths_incidence_and_its_error_are_those_of_kaplan_meier(cohort):
    time, event, age = cohort()
    table = exact_table(time, event, age, [np.median(age)])
    curves, survival = aalen_johansen(table), kaplan_meier(table)
    alive = survival.survival > 1e-12
    assert close(curves.incidence[:, 0], 1 - survival.survival, atol=1e-12)
    assert close(curves.se[:, 0][alive], survival.se[alive], atol=1e-9)
    assert not curves.incidence[:, 1].any()
    assert not curves.se[:, 1][alive].any()
    assert not curves.ci_high[:, 1][alive].any()


def test_deaths_make_one_minus_kaplan_meier_larger_than_the_incidence():
    table = exact_table(*competing_risks(500, seed=5, ties=False))
    horizon = [4.0]
    overstated = 1 - kaplan_meier(table).at(horizon).value[0, 0]
    assert overstated > aalen_johansen(table).at(horizon).value[0, 0, 0] + 0.02


@pytest.mark.parametrize("cohort", COHORTS)
def test_at_any_horizon_a_table_of_single_times_gives_the_value_of_lifelines(cohort):
    time, event, _ = cohort()
    curves = kaplan_meier(exact_table(time, event))
    horizons = np.concatenate([[0, 0.5], np.unique(time)[::5], np.unique(time)[::7] + 0.25, [1e6]])
    reference = KaplanMeierFitter().fit(time, event)
    at = curves.at(horizons, single_times=True)
    assert close(at.value[0], reference.predict(horizons))
    assert at.at_risk[0].tolist() == [int((time > horizon).sum()) for horizon in horizons]


def test_an_event_in_the_bin_that_holds_the_horizon_does_not_count():
    # bins 0-10, 10-20, 20-: events on days 3, 10 and 19, 25; a patient censored on day 12
    table = life_table([3, 10, 12, 19, 25], [1, 1, 0, 1, 1], np.zeros(5), [0, 10, 20], [])
    curves = kaplan_meier(table)
    at = curves.at([0, 9.9, 10, 15, 20, 99])
    assert at.value[0] == pytest.approx([1, 1, 0.8, 0.8, 0.4, 0.4])
    assert at.at_risk[0].tolist() == [5, 5, 4, 4, 1, 1]
    assert at.se[0, :2].tolist() == [0, 0]
    assert (at.ci_low[0, :2].tolist(), at.ci_high[0, :2].tolist()) == ([1, 1], [1, 1])
    assert at.se[0, 2] == pytest.approx(0.8 * np.sqrt(1 / 20))
    assert at.ci_low[0, 4] == curves.ci_low[0, 1]


@pytest.mark.parametrize("cohort", COHORTS)
def test_a_horizon_that_is_an_edge_is_exact_for_the_days_before_it(cohort):
    # an edge at every day with an event, and at the horizon; censored patients leave between the edges
    time, event, _ = cohort()
    horizon = np.quantile(time, 0.6)
    edges = np.union1d([0, horizon], time[event == 1])
    at = kaplan_meier(life_table(time, event, np.zeros(len(time)), edges, [])).at([horizon])
    assert at.value[0, 0] == pytest.approx(
        KaplanMeierFitter().fit(time, event).predict(horizon - 1e-6), abs=1e-10
    )
    assert at.at_risk[0, 0] == (time >= horizon).sum()


def test_incidence_at_horizons_starts_from_nothing():
    table = life_table([3, 10, 12, 19], [1, 2, 0, 1], np.zeros(4), [0, 10, 20], [])
    at = aalen_johansen(table).at([5, 10, 20])
    assert at.value.shape == (1, 2, 3)
    assert at.value[0, 0] == pytest.approx([0, 0.25, 0.5])
    assert at.value[0, 1] == pytest.approx([0, 0, 0.25])
    assert at.ci_low[0, 0, 0] == at.ci_high[0, 0, 0] == at.se[0, 0, 0] == 0
    assert at.ci_low[0, 0, 1] < 0.25 < at.ci_high[0, 0, 1]


@pytest.mark.parametrize("read", [kaplan_meier, reverse_kaplan_meier, aalen_johansen])
def test_a_group_with_nobody_has_nan_curves_and_leaves_the_others_as_they_are(read):
    time, cause, risk = competing_risks(60, seed=6, ties=True)
    edges = np.union1d(0, time)
    alone = read(life_table(time, cause, risk, edges, [0.0]))
    beside = read(life_table(time, cause, risk, edges, [0.0, 100.0]))
    for name, value in vars(alone).items():
        other = getattr(beside, name)
        if name != "edges_days":
            assert np.array_equal(value, other[:2], equal_nan=True), name
            assert not other[2].any() if name == "at_risk" else np.isnan(other[2]).all(), name
    at = beside.at([0.0, 10.0])
    assert np.isnan(at.value[2]).all()
    assert np.isnan(at.ci_high[2]).all()
    assert not np.isnan(at.value[:2]).any()


@pytest.mark.parametrize("read", [kaplan_meier, reverse_kaplan_meier, aalen_johansen])
def test_a_study_without_patients_gives_nan_and_no_exception(read):
    curves = read(life_table([], [], [], [0, 10], []))
    assert np.isnan(curves.at([5.0, 20.0]).value).all()


def test_a_curve_without_events_stays_at_one_and_its_median_is_not_reached():
    curves = kaplan_meier(exact_table([1, 2, 3], [0, 0, 2]))
    assert curves.survival.tolist() == curves.ci_low.tolist() == curves.ci_high.tolist() == [[1] * 4]
    assert curves.se.tolist() == [[0] * 4]
    assert curves.quantile_days([0.5]).tolist() == [[np.inf]]


def test_a_curve_that_reaches_zero_has_no_standard_error_there():
    curves = kaplan_meier(exact_table([1, 2], [1, 1]))
    assert curves.survival.tolist() == [[1, 0.5, 0]]
    assert np.isnan([curves.se[0, 2], curves.ci_low[0, 2], curves.ci_high[0, 2]]).all()
    assert curves.quantile_days([0.5, 1.0]).tolist() == [[1, 2]]
    incidence = aalen_johansen(exact_table([1, 2], [1, 1]))
    assert incidence.incidence[0, 0].tolist() == [0, 0.5, 1]
    assert np.isnan([incidence.se[0, 0, 2], incidence.ci_high[0, 0, 2]]).all()


def test_the_median_of_a_group_with_nobody_is_nan():
    table = life_table([1, 2], [1, 1], [0, 0], [0, 1, 2], [5.0])
    assert np.array_equal(kaplan_meier(table).quantile_days([0.5]), [[1], [np.nan]], equal_nan=True)


def test_a_survival_of_one_half_counts_as_one_half_however_it_was_rounded():
    # 24 patients, 12 single events: the product of 12 fractions is 1/2 but for its last bit
    curves = kaplan_meier(exact_table(np.arange(1, 25), np.arange(24) < 12))
    assert curves.survival[0, 12] > 0.5
    assert curves.quantile_days([0.5])[0, 0] == 12


def test_one_patient_with_the_event_is_a_curve():
    curves = kaplan_meier(life_table([3], [1], [0], [0, 3], []))
    assert curves.survival.tolist() == [[1, 0]]
    assert curves.at([3.0], single_times=True).value.tolist() == [[0]]
