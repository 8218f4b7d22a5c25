"""Decision curves: by hand, without censoring the textbook's counts, with it against Kaplan-Meier, sites added up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter

from fedecg.evaluation.decision import THRESHOLDS, decision_curve, decision_sums

HORIZON = [100.0]


def cohort(seed, patients=400, censored=True):
    rng = np.random.default_rng(seed)
    risk = rng.uniform(0.01, 0.6, patients)
    days = rng.exponential(100 / -np.log1p(-risk))
    end = rng.uniform(50, 300, patients) if censored else np.full(patients, 300.0)
    return np.minimum(days, end), days <= end, risk[:, None]


def at(threshold):
    return int(np.argmin(np.abs(THRESHOLDS - threshold)))


def test_four_patients_by_hand():
    time, event = np.array([50.0, 60.0, 200.0, 200.0]), np.array([True, True, False, False])
    risk = np.array([[0.30], [0.05], [0.30], [0.05]])
    curve = decision_curve(decision_sums(time, event, risk, HORIZON, min_at_risk=1))
    odds = 0.2 / 0.8
    assert curve.model[0, at(0.2)] == pytest.approx(1 / 4 - odds * 1 / 4)
    assert curve.treat_all[0, at(0.2)] == pytest.approx(2 / 4 - odds * 2 / 4)
    assert curve.model[0, at(0.45)] == 0  # nobody is treated
    # Everybody has at least this risk (a risk at the threshold counts as treated).
    assert curve.model[0, at(0.05)] == curve.treat_all[0, at(0.05)]


def test_without_censoring_it_counts_true_and_false_positives():
    time, event, risk = cohort(1, censored=False)
    curve = decision_curve(decision_sums(time, event, risk, HORIZON))
    case = time <= 100
    for threshold in (0.1, 0.25, 0.4):
        treated = risk[:, 0] >= THRESHOLDS[at(threshold)]
        benefit = (treated & case).mean() - (treated & ~case).mean() * threshold / (1 - threshold)
        assert curve.model[0, at(threshold)] == pytest.approx(benefit, abs=1e-12)


def test_treating_all_takes_its_event_fraction_from_kaplan_meier():
    time, event, risk = cohort(2, 3000)
    curve = decision_curve(decision_sums(time, event, risk, HORIZON))
    fraction = 1 - float(KaplanMeierFitter().fit(time, event).predict(100.0))
    # Weighted cases are the Kaplan-Meier fraction of all; here they are divided by weighted cases and controls.
    assert curve.treat_all[0, at(0.1)] == pytest.approx(fraction - (1 - fraction) / 9, abs=0.01)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), cut=st.integers(0, 60))
def test_order_of_patients_and_empty_sites_change_nothing(seed, cut):
    time, event, risk = cohort(seed, 60)
    shuffled = np.random.default_rng(seed).permutation(60)
    one = decision_sums(time, event, risk, HORIZON, min_at_risk=1)
    other = decision_sums(time[shuffled], event[shuffled], risk[shuffled], HORIZON, min_at_risk=1)
    nobody = decision_sums(time[:0], event[:0], risk[:0], HORIZON)
    np.testing.assert_allclose((other + nobody).treated_cases, one.treated_cases, rtol=1e-9)
    np.testing.assert_allclose((nobody + other).treated_controls, one.treated_controls, rtol=1e-9)


def test_without_censoring_sites_add_up_to_the_pooled_curve():
    time, event, risk = cohort(3, censored=False)
    parts = [
        decision_sums(time[at_], event[at_], risk[at_], HORIZON) for at_ in (slice(150), slice(150, None))
    ]
    pooled = decision_curve(decision_sums(time, event, risk, HORIZON))
    np.testing.assert_allclose(decision_curve(parts[0] + parts[1]).model, pooled.model, atol=1e-12)


def test_a_horizon_that_nobody_is_followed_beyond_has_no_curve():
    time, event, risk = cohort(4, 50)
    curve = decision_curve(decision_sums(time, event, np.tile(risk, 2), [100.0, 1e6]))
    assert np.isfinite(curve.model[0]).all()
    assert np.isnan(curve.model[1]).all()
