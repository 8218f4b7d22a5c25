"""How far sites are apart: by hand, against scikit-survival, and nothing but chance where there is nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from sksurv.nonparametric import kaplan_meier_estimator

from fedecg.cohort import Cohort
from fedecg.config import PartitionSettings
from fedecg_simulations.dataset import Dataset
from fedecg_simulations.divergence import divergence, jensen_shannon_bits, survival_at
from fedecg_simulations.partitions import virtual_sites

LABELS = ({"NORM": 100.0}, {"IMI": 100.0}, {"LVH": 100.0})
DAYS_A_YEAR = 365.25


def test_sites_apart_by_the_event_differ_in_that_and_not_in_the_label() -> None:
    data = made(2000)
    parts = {"with": np.flatnonzero(data.cohort.event), "without": np.flatnonzero(~data.cohort.event)}
    found = divergence(data, parts, [1.0], seed=0)
    learned = np.isin(data.cohort.part, ("train", "validation"))
    share = data.cohort.event[learned].mean()
    assert found.event_bits == pytest.approx(-share * np.log2(share) - (1 - share) * np.log2(1 - share))
    assert found.event_bits_by_chance < 0.01
    assert found.labels_bits < 0.01
    assert found.entry()["event-divergence-bits"] == pytest.approx(found.event_bits, abs=1e-4)


def made(patients: int, seed: int = 0, label: np.ndarray | None = None) -> Dataset:
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, 3, patients) if label is None else label
    days = rng.uniform(100, 3000, patients)
    cohort = Cohort(
        record=np.arange(patients),
        patient=np.arange(patients),
        part=rng.choice(["train", "validation", "test"], size=patients, p=(0.7, 0.1, 0.2)),
        event=rng.random(patients) < 0.3,
        follow_up_days=days,
        entry_days=np.zeros(patients),
        died=np.zeros(patients, dtype=bool),
        age_years=np.full(patients, 60.0),
        female=np.zeros(patients),
        codes=tuple(LABELS[number] for number in numbers),
    )
    return Dataset(cohort, {}, [lambda: None] * patients, "made", "simulated", None, {})  # type: ignore[list-item]


def halves(patients: int) -> dict[str, np.ndarray]:
    return {"a": np.arange(0, patients, 2), "b": np.arange(1, patients, 2)}


def test_the_same_mix_is_no_divergence_and_disjoint_labels_of_two_sites_are_one_bit() -> None:
    assert jensen_shannon_bits(np.array([[3, 6], [10, 20]])) == pytest.approx(0, abs=1e-12)
    assert jensen_shannon_bits(np.array([[5, 0], [0, 5]])) == pytest.approx(1)
    assert jensen_shannon_bits(np.eye(8)) == pytest.approx(3)


def test_divergence_is_the_information_between_site_and_label() -> None:
    table = np.array([[30, 10, 5], [2, 40, 8]])
    joint = table / table.sum()
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    information = float((joint * np.log2(joint / independent)).sum())
    assert jensen_shannon_bits(table) == pytest.approx(information)


def test_a_site_without_patients_changes_nothing() -> None:
    table = np.array([[30, 10], [2, 40]])
    assert jensen_shannon_bits(np.vstack([table, [0, 0]])) == pytest.approx(jensen_shannon_bits(table))


@pytest.mark.parametrize("late", [False, True])
def test_survival_at_a_horizon_is_that_of_scikit_survival(late: bool) -> None:
    rng = np.random.default_rng(3)
    days = rng.integers(30, 2000, 300).astype(float)
    entry_days = np.where(rng.random(300) < 0.5, rng.integers(1, 29, 300), 0) * 1.0 if late else np.zeros(300)
    event = rng.random(300) < 0.4
    time, survival, interval = kaplan_meier_estimator(
        event, days, time_enter=entry_days if late else None, conf_type="log-log"
    )
    for horizon in (200.0, 900.0, 1500.0):
        at = np.searchsorted(time, horizon, side="right") - 1
        mine = survival_at(days, entry_days, event, horizon)
        assert mine == pytest.approx((survival[at], interval[0][at], interval[1][at]), abs=1e-9)


def test_nobody_with_an_event_survives_for_certain() -> None:
    assert survival_at(np.array([10.0, 20]), np.zeros(2), np.zeros(2, dtype=bool), 15) == (1.0, 1.0, 1.0)
    assert survival_at(np.array([10.0, 20]), np.zeros(2), np.ones(2, dtype=bool), 30) == (0.0, 0.0, 0.0)


def test_sites_dealt_at_random_differ_by_chance_alone() -> None:
    found = divergence(made(2000), halves(2000), [1.0, 3.0], seed=0)
    assert found.labels_bits < 3 * found.labels_bits_by_chance
    assert found.labels_bits_by_chance < 0.01
    assert found.largest_difference is not None
    assert found.largest_difference < 0.1


def test_sites_with_labels_of_their_own_differ_by_far_more_than_chance() -> None:
    label = np.tile([0, 1], 500)
    found = divergence(made(1000, label=label), halves(1000), [1.0], seed=0)
    assert found.labels_bits == pytest.approx(1.0, abs=0.01)
    assert found.labels_bits_by_chance < 0.01
    assert [site.labels_bits for site in found.sites] == pytest.approx([0.311, 0.311], abs=0.02)


def test_the_horizon_is_the_longest_that_half_of_the_sites_reach() -> None:
    data = made(400)
    days = np.where(np.arange(400) % 2 == 0, np.minimum(data.cohort.follow_up_days, 700.0), 3000.0)
    data = replace(data, cohort=replace(data.cohort, follow_up_days=days))
    found = divergence(data, halves(400), [1.0, 3.0, 20.0], seed=0)
    assert found.horizon_years == 3.0
    assert [site.survival is None for site in found.sites] == [True, False]
    assert found.largest_difference == 0.0
    assert divergence(data, halves(400), [20.0], seed=0).entry()["survival-of-all"] is None


def test_disjoint_windows_have_rates_and_only_the_first_has_survival() -> None:
    data, parts = virtual_sites(made(900), PartitionSettings(by="iid", sites=3, follow_up="disjoint"), 1)
    found = divergence(data, parts, [1.0, 2.0], seed=0)
    assert found.horizon_years is None
    years = (data.cohort.follow_up_days - data.cohort.entry_days) / DAYS_A_YEAR
    for site in found.sites:
        own = parts[site.site][data.cohort.part[parts[site.site]] != "test"]
        expected = 100 * data.cohort.event[own].sum() / years[own].sum()
        assert site.events_a_100_years == pytest.approx(expected)
        assert site.survival is None


def test_a_patient_with_several_records_counts_once() -> None:
    data = made(600)
    cohort = replace(data.cohort, patient=data.cohort.patient // 2)
    found = divergence(
        replace(data, cohort=cohort), {"a": np.arange(300), "b": np.arange(300, 600)}, [1.0], 0
    )
    learned = cohort.part != "test"
    assert [site.patients for site in found.sites] == [
        len(np.unique(cohort.patient[rows][learned[rows]])) for rows in (np.arange(300), np.arange(300, 600))
    ]


def test_the_test_part_says_nothing() -> None:
    data = made(500)
    event = np.where(data.cohort.part == "test", True, data.cohort.event)
    changed = replace(data, cohort=replace(data.cohort, event=event))
    one, other = (divergence(each, halves(500), [1.0], seed=0) for each in (data, changed))
    assert one == other
