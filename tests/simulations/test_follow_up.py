"""Follow-up cut by site: by hand, and what each kind of it leaves alone."""

from dataclasses import replace

import numpy as np
import pytest

from fedecg.cohort import Cohort
from fedecg.errors import CohortError
from fedecg_simulations.dataset import Dataset
from fedecg_simulations.follow_up import as_followed


def dataset(days, part=None, event=None) -> Dataset:
    rows = len(days)
    cohort = Cohort(
        record=np.arange(rows),
        patient=np.arange(rows),
        part=np.array(part or ["train"] * rows),
        event=np.ones(rows, dtype=bool) if event is None else np.array(event),
        follow_up_days=np.array(days, dtype=float),
        entry_days=np.zeros(rows),
        died=np.zeros(rows, dtype=bool),
        age_years=np.full(rows, 60.0),
        female=np.zeros(rows),
        codes=({},) * rows,
    )
    return Dataset(cohort, {}, [lambda: None] * rows, "by hand", "simulated", None, {})  # type: ignore[list-item]


PARTS = {"a": np.array([0, 1, 4]), "b": np.array([2, 3, 5])}
DAYS = [50.0, 150.0, 50.0, 150.0, 200.0, 200.0]


def test_full_follow_up_is_the_very_data_set():
    data = dataset(DAYS)
    same, parts = as_followed(data, PARTS, "full")
    assert same is data
    assert parts == PARTS


def test_staggered_sites_stop_one_after_the_other():
    cut, parts = as_followed(dataset(DAYS), PARTS, "staggered")
    assert cut.cohort.follow_up_days.tolist() == [50, 100, 50, 150, 100, 200]
    assert cut.cohort.event.tolist() == [True, False, True, True, False, True]
    assert cut.cohort.entry_days.tolist() == [0] * 6
    assert {name: rows.tolist() for name, rows in parts.items()} == {"a": [0, 1, 4], "b": [2, 3, 5]}
    cut.cohort.validate()


def test_disjoint_sites_see_other_years_and_know_only_who_is_still_there():
    cut, parts = as_followed(dataset(DAYS), PARTS, "disjoint")
    assert {name: rows.tolist() for name, rows in parts.items()} == {"a": [0, 1, 4], "b": [3, 5]}
    later = cut.cohort.select(parts["b"])
    assert later.entry_days.tolist() == [100, 100]
    assert later.follow_up_days.tolist() == [150, 200]
    cut.cohort.validate()


def test_late_entries_that_a_patient_already_has_stay_or_lead_out_of_the_window():
    data = dataset(DAYS)
    data = replace(data, cohort=replace(data.cohort, entry_days=np.array([10.0, 120.0, 0.0, 0.0, 0.0, 0.0])))
    cut, parts = as_followed(data, PARTS, "staggered")
    assert cut.cohort.entry_days[0] == 10.0
    assert parts["a"].tolist() == [0, 4]  # the second comes after its site has stopped looking


def test_the_test_part_and_deaths_within_the_window_stay():
    data = dataset(DAYS, ["train", "test", "train", "test", "validation", "train"], event=[False] * 6)
    data = replace(data, cohort=replace(data.cohort, died=np.ones(6, dtype=bool)))
    cut, _ = as_followed(data, PARTS, "staggered")
    assert cut.cohort.follow_up_days.tolist() == [50, 150, 50, 150, 100, 200]
    assert cut.cohort.died.tolist() == [True, True, True, True, False, True]


def test_a_window_without_training_patients_is_refused_by_the_sites_name():
    parts = {"a": np.array([1, 3, 4, 5]), "b": np.array([0, 2])}
    with pytest.raises(CohortError, match="FECG-625 .* in their window: b; expected") as refusal:
        as_followed(dataset(DAYS), parts, "disjoint")
    assert "staggered" in refusal.value.fix
