"""Pair counts against lifelines, scikit-survival, counting by hand and counting one by one."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines.utils import concordance_index
from lifelines.utils.concordance import _concordance_summary_statistics
from sksurv.metrics import concordance_index_censored

from fedecg.errors import CohortError
from fedecg.evaluation import Concordance, concordance, pair_counts, stratified_concordance

patient = st.tuples(st.integers(0, 6), st.booleans(), st.integers(-3, 3))
cohorts = st.lists(patient, min_size=0, max_size=40)


def columns(rows):
    time, event, risk = zip(*rows, strict=True) if rows else ((), (), ())
    return np.array(time, dtype=float), np.array(event, dtype=bool), np.array(risk, dtype=float)


def one_by_one(time, event, risk):
    """(concordant, discordant, tied) (n, 3) of each patient, by looking at every pair."""
    counts = np.zeros((len(time), 3), dtype=int)
    for i in range(len(time)):
        for j in range(len(time)):
            if event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
                kind = 0 if risk[i] > risk[j] else 1 if risk[i] < risk[j] else 2
                counts[i, kind] += 1
                counts[j, kind] += 1
    return counts


def simulated(patients, event_fraction, seed, days=3650):
    rng = np.random.default_rng(seed)
    risk = np.round(rng.normal(size=patients), 3)
    time = np.ceil(rng.exponential(days, patients) * np.exp(-risk))
    return time, rng.random(patients) < event_fraction, risk


def as_tuple(counts):
    return counts.concordant, counts.discordant, counts.tied_risk


def test_four_patients_counted_by_hand():
    # days 1 (event), 2 (censored), 2 (event), 3 (censored): pairs 1-2, 1-3, 1-4, 3-2 (same day), 3-4
    counts = concordance([1, 2, 2, 3], [1, 0, 1, 0], [0.5, 0.1, 0.5, 0.9])
    assert counts == Concordance(c_index=2.5 / 5, concordant=2, discordant=2, tied_risk=1, comparable=5)


def test_two_events_on_one_day_are_no_pair():
    assert concordance([5, 5], [1, 1], [1, 2]).comparable == 0


def test_an_event_and_a_censoring_on_one_day_are_a_pair_with_the_event_first():
    assert concordance([5, 5], [1, 0], [2, 1]).c_index == 1.0
    assert concordance([5, 5], [0, 1], [2, 1]).c_index == 0.0


@pytest.mark.parametrize(("time", "event"), [([], []), ([3], [1]), ([1, 2, 3], [0, 0, 0]), ([4, 4], [1, 1])])
def test_nothing_comparable_gives_nan_and_zero_counts(time, event):
    counts = concordance(time, event, np.zeros(len(time)))
    assert math.isnan(counts.c_index)
    assert (*as_tuple(counts), counts.comparable) == (0, 0, 0, 0)


@settings(max_examples=300, deadline=None)
@given(cohorts)
def test_counts_equal_those_of_looking_at_every_pair(rows):
    cohort = columns(rows)
    each = one_by_one(*cohort)
    total = concordance(*cohort)
    assert as_tuple(total) == tuple(each.sum(axis=0) // 2)
    assert np.array_equal(np.stack(pair_counts(*cohort), axis=1), each)


@pytest.mark.parametrize("patients", [2, 3, 7, 8, 9, 63, 64, 65, 1000])
@pytest.mark.parametrize("event_fraction", [0.05, 0.5, 1.0])
def test_counts_equal_those_of_lifelines(patients, event_fraction):
    time, event, risk = simulated(patients, event_fraction, seed=patients)
    event[0] = True
    counts = concordance(time, event, risk)
    concordant, tied, comparable = _concordance_summary_statistics(time, -risk, event)
    assert (counts.concordant, counts.tied_risk, counts.comparable) == (concordant, tied, comparable)
    if comparable:
        assert counts.c_index == pytest.approx(concordance_index(time, -risk, event), abs=1e-12)


@pytest.mark.parametrize("event_fraction", [0.06, 0.9])
def test_counts_equal_those_of_scikit_survival(event_fraction):
    time, event, risk = simulated(3000, event_fraction, seed=5, days=100)
    counts = concordance(time, event, risk)
    c_index, concordant, discordant, tied, _ = concordance_index_censored(event, time, risk, tied_tol=0)
    assert as_tuple(counts) == (concordant, discordant, tied)
    assert counts.c_index == pytest.approx(c_index, abs=1e-12)


def test_each_patients_pairs_add_up_to_twice_the_total():
    cohort = simulated(5000, 0.3, seed=1, days=50)
    own = pair_counts(*cohort)
    assert tuple(int(kind.sum()) for kind in own) == tuple(
        2 * count for count in as_tuple(concordance(*cohort))
    )


@settings(max_examples=100, deadline=None)
@given(cohorts, st.randoms(use_true_random=False))
def test_order_of_patients_and_monotone_risks_and_time_units_change_nothing(rows, random):
    time, event, risk = columns(rows)
    shuffled = columns(random.sample(rows, len(rows)))
    assert as_tuple(concordance(*shuffled)) == as_tuple(concordance(time, event, risk))
    assert as_tuple(concordance(time / 365.25, event, np.exp(risk) + 7)) == as_tuple(
        concordance(time, event, risk)
    )


@settings(max_examples=100, deadline=None)
@given(cohorts)
def test_the_opposite_risk_swaps_concordant_and_discordant(rows):
    time, event, risk = columns(rows)
    there, back = concordance(time, event, risk), concordance(time, event, -risk)
    assert (there.concordant, there.discordant, there.tied_risk) == (
        back.discordant,
        back.concordant,
        back.tied_risk,
    )


@settings(max_examples=100, deadline=None)
@given(cohorts, st.integers(1, 5))
def test_stratified_counts_are_the_sum_of_the_strata(rows, strata):
    time, event, risk = columns(rows)
    site = np.array([f"site-{i % strata}" for i in range(len(rows))], dtype=str)
    parts = [concordance(time[site == s], event[site == s], risk[site == s]) for s in np.unique(site)]
    total = sum(parts, start=Concordance.from_counts(0, 0, 0))
    assert as_tuple(stratified_concordance(time, event, risk, site)) == as_tuple(total)


def test_a_score_that_knows_only_the_site_has_a_stratified_c_of_one_half():
    time, event, _ = simulated(400, 0.5, seed=2)
    site = np.arange(400) % 4
    assert stratified_concordance(time, event, site, site).c_index == 0.5


def test_counts_come_as_python_integers_that_can_be_sent():
    counts = concordance(*simulated(50, 0.5, seed=0))
    assert all(type(count) is int for count in (*as_tuple(counts), counts.comparable))


def test_lists_and_whole_numbers_and_zero_one_events_are_taken():
    assert concordance([1, 2], [1, 0], [3, 1]) == concordance(
        np.array([1.0, 2.0]), np.array([True, False]), np.array([3.0, 1.0], dtype=np.float32)
    )


def test_a_million_patients_need_no_quadratic_memory():
    time, event, risk = simulated(1_000_000, 0.05, seed=3)
    tracemalloc.start()
    counts = concordance(time, event, risk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts.comparable > 10**10
    assert peak < 300e6  # a quadratic table of bits alone would take 6 GB


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"risk": [1, 2, np.nan]}, "FECG-238 risk: found 1 of 3 values that are not finite"),
        ({"risk": [1, np.inf, np.nan]}, "FECG-238 risk: found 2 of 3 values that are not finite"),
        ({"time": [1, -2.5, 3]}, "FECG-236 time: found 1 of 3 values that are negative or not finite"),
        ({"time": [1, np.nan, -3]}, "FECG-236 time: found 2 of 3 values"),
        ({"time": ["x", "y", "2019-04-03"]}, "FECG-236 time: found values that are not numbers"),
        ({"event": [0, 1, 2]}, "FECG-237 event: found 1 of 3 values that are neither 0 nor 1"),
        ({"event": [0, 1, np.nan]}, "FECG-237 event: found 1 of 3"),
        ({"event": [0, 1]}, "FECG-235 time, event, risk: found shapes time (3,), event (2,), risk (3,)"),
        ({"risk": [[1, 2, 3]]}, "FECG-235 time, event, risk: found shapes"),
    ],
)
@pytest.mark.parametrize("function", [concordance, pair_counts])
def test_bad_columns_are_refused_by_column_and_count_without_a_value(function, change, message):
    good = {"time": [1, 2, 3], "event": [0, 1, 0], "risk": [1, 2, 3]}
    with pytest.raises(CohortError) as error:
        function(**(good | change))
    assert message in str(error.value)
    assert "2019" not in str(error.value)
    assert "-2.5" not in str(error.value)


def test_a_stratum_of_another_length_is_refused():
    with pytest.raises(
        CohortError, match=r"FECG-235 time, stratum: found shapes time \(2,\), stratum \(3,\)"
    ):
        stratified_concordance([1, 2], [1, 0], [1, 2], ["a", "b", "c"])
