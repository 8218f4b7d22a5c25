"""Subgroups: figures of the subgroup's own patients, exact over sites, empty ones defined."""

import numpy as np
import pytest

from fedecg.cohort import SUBGROUPS, Cohort, subgroup_members
from fedecg.evaluation import concordance, concordance_interval, stratified_concordance
from fedecg.evaluation.subgroups import subgroup_figures, subgroup_sums

NAMES = ("all", "high", "nobody")


def cohort(seed=0, patients=500):
    rng = np.random.default_rng(seed)
    risk = np.round(rng.normal(size=patients), 1)
    days = np.ceil(rng.exponential(1000 * np.exp(-risk)))
    end = rng.uniform(200, 2000, patients)
    members = np.stack([np.ones(patients, dtype=bool), risk > 0, np.zeros(patients, dtype=bool)], axis=1)
    return np.minimum(days, end), days <= end, risk, days / 900, members


def sums(time, event, risk, hazard, members):
    return subgroup_sums(time, event, risk, hazard, NAMES, members)


def test_a_subgroup_has_the_figures_of_its_own_patients():
    time, event, risk, hazard, members = cohort()
    found = subgroup_figures(sums(time, event, risk, hazard, members))
    high = members[:, 1]
    expected = concordance_interval(time[high], event[high], risk[high])
    assert found["high"].c_index == concordance(time[high], event[high], risk[high]).c_index
    assert found["high"].ci_low == pytest.approx(expected.ci_low, abs=1e-12)
    assert found["high"].ci_high == pytest.approx(expected.ci_high, abs=1e-12)
    assert found["high"].comparable == expected.comparable
    assert found["high"].ratio == pytest.approx(event[high].sum() / (hazard * np.exp(risk))[high].sum())
    assert (found["all"].patients, found["all"].events) == (500, int(event.sum()))


def test_sites_add_up_to_pairs_within_a_site_and_the_subgroup():
    columns = cohort(1)
    site = np.arange(500) % 3
    parts = [sums(*(column[site == name] for column in columns)) for name in range(3)]
    found = subgroup_figures(parts[0] + parts[1] + parts[2])
    time, event, risk, _, members = columns
    for at, name in enumerate(NAMES[:2]):
        own = members[:, at]
        expected = stratified_concordance(time[own], event[own], risk[own], site[own])
        assert found[name].c_index == expected.c_index
        assert found[name].comparable == expected.comparable


def test_an_empty_subgroup_has_no_figures_and_few_events_are_marked():
    found = subgroup_figures(sums(*cohort(2, 40)))
    assert np.isnan(found["nobody"].c_index)
    assert np.isnan(found["nobody"].ratio)
    assert found["nobody"].patients == 0
    assert found["high"].few_events


def test_patients_of_unknown_sex_or_age_are_in_no_subgroup_of_it():
    rows = 4
    people = Cohort(
        record=np.arange(rows),
        patient=np.arange(rows),
        part=np.array(["test"] * rows),
        event=np.zeros(rows, dtype=bool),
        follow_up_days=np.ones(rows),
        entry_days=np.zeros(rows),
        died=np.zeros(rows, dtype=bool),
        age_years=np.array([49.9, 50.0, 90.0, np.nan]),
        female=np.array([1.0, 0.0, np.nan, 1.0]),
        codes=({},) * rows,
    )
    members = subgroup_members(people)
    named = [{name for name, own in zip(SUBGROUPS, row, strict=True) if own} for row in members]
    assert named == [{"female", "age below 50"}, {"male", "age 50-64"}, {"age 75 and above"}, {"female"}]
