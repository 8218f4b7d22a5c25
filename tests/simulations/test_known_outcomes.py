"""Few known events: how many, at which site, whose; and what stays as it was."""

import numpy as np
import pytest

from fedecg.cohort import ALIGN, Cohort
from fedecg.errors import SettingsError
from fedecg_simulations.dataset import Dataset
from fedecg_simulations.known_outcomes import with_known_outcomes

SIZES = {"big": 600, "middle": 300, "small": 100}
RATES = {"big": 0.10, "middle": 0.20, "small": 0.03}


@pytest.fixture(scope="module")
def data() -> Dataset:
    rng = np.random.default_rng(0)
    rows = sum(SIZES.values())
    rate = np.concatenate([np.full(SIZES[name], RATES[name]) for name in SIZES])
    cohort = Cohort(
        record=np.arange(rows),
        patient=rng.permutation(rows) + 5000,
        part=rng.choice(["train", "validation", "test"], rows, p=[0.8, 0.1, 0.1]),
        event=rng.random(rows) < rate,
        follow_up_days=rng.uniform(1, 1000, rows),
        entry_days=np.zeros(rows),
        died=np.zeros(rows, dtype=bool),
        age_years=np.full(rows, 60.0),
        female=np.zeros(rows),
        codes=tuple({"LVH": float(row % 100)} for row in range(rows)),
    )
    return Dataset(cohort, {}, [lambda: None] * rows, "by hand", "simulated", None, {})  # type: ignore[list-item]


@pytest.fixture(scope="module")
def parts() -> dict[str, np.ndarray]:
    ends = np.cumsum(list(SIZES.values()))
    return {name: np.arange(end - SIZES[name], end) for name, end in zip(SIZES, ends, strict=True)}


def known(dataset: Dataset) -> np.ndarray:
    return np.flatnonzero(dataset.cohort.part == "train")


@pytest.mark.parametrize("events", [1, 20, 50])
def test_so_many_events_stay_known_and_their_share_stays(data, parts, events):
    few = with_known_outcomes(data, parts, events, seed=1).cohort
    few.validate()
    train = data.cohort.part == "train"
    assert few.event[few.part == "train"].sum() == events
    share = data.cohort.event[train].mean()
    assert (few.part == "train").sum() == pytest.approx(events / share, abs=1)


def test_sites_keep_events_and_patients_in_proportion(data, parts):
    few, all_of = with_known_outcomes(data, parts, 20, seed=1).cohort, data.cohort
    total = all_of.event[all_of.part == "train"].sum()
    for rows in parts.values():
        train = rows[all_of.part[rows] == "train"]
        expected = 20 / total * all_of.event[train].sum()
        assert abs(few.event[train].sum() - expected) < 1
        others = train[~all_of.event[train]]
        assert abs((few.part[others] == "train").sum() - 20 / total * len(others)) < 1


def test_the_others_keep_ecg_and_statements_and_have_no_outcome(data, parts):
    few = with_known_outcomes(data, parts, 20, seed=1)
    hidden = few.cohort.part == ALIGN
    assert few.cohort.codes == data.cohort.codes
    assert few.cohort.record.tolist() == data.cohort.record.tolist()
    assert np.isnan(few.cohort.follow_up_days[hidden]).all()
    assert not few.cohort.event[hidden].any()
    assert few.notes == {"training records without a known outcome": int(hidden.sum())}
    for part in ("validation", "test"):
        rows = data.cohort.part == part
        assert (few.cohort.part[rows] == part).all()
        assert few.cohort.follow_up_days[rows].tolist() == data.cohort.follow_up_days[rows].tolist()
        assert few.cohort.event[rows].tolist() == data.cohort.event[rows].tolist()


def test_who_is_known_follows_from_the_seed_and_few_are_among_many(data, parts):
    twenty, again = (known(with_known_outcomes(data, parts, 20, seed=1)) for _ in range(2))
    assert twenty.tolist() == again.tolist()
    assert twenty.tolist() != known(with_known_outcomes(data, parts, 20, seed=2)).tolist()
    assert np.isin(twenty, known(with_known_outcomes(data, parts, 50, seed=1))).mean() > 0.95


def test_the_order_of_a_sites_rows_decides_nothing(data, parts):
    turned = {name: rows[::-1] for name, rows in reversed(parts.items())}
    assert (
        known(with_known_outcomes(data, turned, 20, seed=1)).tolist()
        == known(with_known_outcomes(data, parts, 20, seed=1)).tolist()
    )


def test_all_records_of_a_patient_share_their_fate(data, parts):
    twice = data.cohort.patient.copy()
    train = parts["big"][data.cohort.part[parts["big"]] == "train"]
    twice[train[1::2]] = twice[train[0::2]][: len(train[1::2])]
    several = Dataset(
        Cohort(**{**data.cohort.__dict__, "patient": twice}), {}, data.recordings, "by hand", "simulated", None, {}
    )  # fmt: skip
    few = with_known_outcomes(several, parts, 20, seed=1).cohort
    assert not np.isin(twice[few.part == ALIGN], twice[few.part == "train"]).any()


def test_zero_is_the_very_data_set(data, parts):
    assert with_known_outcomes(data, parts, 0, seed=1) is data


def test_more_events_than_there_are_is_refused(data, parts):
    available = int(data.cohort.event[data.cohort.part == "train"].sum())
    with pytest.raises(SettingsError) as refusal:
        with_known_outcomes(data, parts, available + 1, seed=1)
    assert refusal.value.code == "FECG-115"
    assert f"{available + 1}, and {available} patients with an event" in str(refusal.value)
    assert with_known_outcomes(data, parts, available, seed=1).cohort.event.sum() == data.cohort.event.sum()
