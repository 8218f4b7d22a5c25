"""Virtual sites: every patient at one site, shares as drawn, tables that add up, and every refusal."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from fedecg.cohort import PARTS, Cohort
from fedecg.config import PartitionSettings
from fedecg.errors import CohortError
from fedecg.signals import Recording
from fedecg_simulations.dataset import Dataset
from fedecg_simulations.partitions import partition, partition_table
from fedecg_simulations.ptbxl import load_ptbxl

LABELS = ({"NORM": 100.0}, {"IMI": 100.0}, {"LVH": 100.0}, {"SR": 0.0})


def no_recording() -> Recording:
    raise AssertionError("a partition reads no ECG")


def make_dataset(patients: int, seed: int = 0, records_each: int = 1) -> Dataset:
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients) * 7, records_each)
    rows = len(patient)
    part = rng.choice(PARTS, size=patients, p=(0.7, 0.1, 0.2))
    cohort = Cohort(
        record=np.arange(rows),
        patient=patient,
        part=np.repeat(part, records_each),
        event=np.repeat(rng.random(patients) < 0.3, records_each),
        follow_up_days=np.full(rows, 100.0),
        entry_days=np.zeros(rows),
        died=np.zeros(rows, dtype=bool),
        age_years=np.full(rows, 60.0),
        female=np.zeros(rows),
        codes=tuple(LABELS[number] for number in np.repeat(rng.integers(0, 4, size=patients), records_each)),
    )
    columns = {"site": np.array([f"ward {number % 3}/b" for number in range(rows)])}
    return Dataset(cohort, columns, [no_recording] * rows, "made by hand", "simulated", None, {})


def reordered(dataset: Dataset, order: np.ndarray) -> Dataset:
    columns = {name: column[order] for name, column in dataset.columns.items()}
    return Dataset(
        dataset.cohort.select(order), columns, dataset.recordings, dataset.source, "simulated", None, {}
    )


def patients_by_site(dataset: Dataset, parts: dict[str, np.ndarray]) -> dict[str, set[int]]:
    return {name: set(dataset.cohort.patient[rows].tolist()) for name, rows in parts.items()}


@pytest.fixture(scope="module")
def real(data_root: Path) -> Dataset:
    return load_ptbxl(data_root / "ptbxl", 100, seed=0, event_fraction=0.3)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["column", "dirichlet", "quantity", "iid"]),
    st.sampled_from(["superclass", "event"]),
    st.sampled_from(["drawn", "equal", "power-law"]),
    st.integers(1, 5),
    st.integers(0, 2**31 - 1),
)
def test_every_row_is_dealt_once_and_every_patient_to_one_site(
    by: str, label: str, sizes: str, sites: int, seed: int
) -> None:
    assume(sizes == "drawn" or (by != "column" and (by, sizes) != ("quantity", "equal")))
    dataset = make_dataset(120, records_each=2)
    tree = {"by": by, "label": label, "sites": sites, "alpha": 1.0, "sizes": sizes}
    chosen = PartitionSettings.model_validate(tree)
    try:
        parts = partition(dataset, chosen, seed)
    except (
        CohortError
    ):  # a draw that leaves a site without training patients; its message has a test of its own
        assume(False)
    assert_array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(240))
    patients = patients_by_site(dataset, parts)
    assert sum(len(members) for members in patients.values()) == 120
    assert list(parts) == sorted(parts)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) for name in parts)
    assert all(np.all(np.diff(rows) > 0) for rows in parts.values())


@pytest.mark.parametrize("by", ["column", "dirichlet", "quantity", "iid"])
def test_the_same_seed_gives_the_same_sites_whatever_the_order_of_the_rows(by: str) -> None:
    dataset = make_dataset(90, records_each=2)
    other = reordered(dataset, np.random.default_rng(4).permutation(180))
    chosen = PartitionSettings.model_validate({"by": by, "sites": 3, "alpha": 5.0})
    one = patients_by_site(dataset, partition(dataset, chosen, 11))
    assert one == patients_by_site(other, partition(other, chosen, 11))
    if by != "column":
        assert one != patients_by_site(dataset, partition(dataset, chosen, 12))


def test_iid_sites_are_of_equal_size() -> None:
    dataset = make_dataset(100)
    sizes = [len(rows) for rows in partition(dataset, PartitionSettings(by="iid", sites=3), 0).values()]
    assert sorted(sizes) == [33, 33, 34]


def test_quantity_sites_are_uneven_when_alpha_is_small_and_even_when_it_is_large() -> None:
    dataset = make_dataset(400)
    spread = {}
    for alpha in (1.0, 1000.0):
        chosen = PartitionSettings(by="quantity", sites=4, alpha=alpha)
        spread[alpha] = np.mean(
            [
                np.ptp([len(rows) for rows in partition(dataset, chosen, seed).values()])
                for seed in (1, 2, 3, 4)
            ]
        )
    assert spread[1000.0] < 30 < spread[1.0]


def test_a_small_alpha_skews_the_labels_and_a_large_one_does_not() -> None:
    dataset = make_dataset(1000)

    def skew(alpha: float) -> float:
        parts = partition(dataset, PartitionSettings(by="dirichlet", sites=3, alpha=alpha), 2)
        return float(np.ptp([row["label-mix"].get("NORM", 0.0) for row in partition_table(dataset, parts)]))

    assert skew(1000.0) < 0.1 < 0.3 < skew(0.3)


def test_a_dirichlet_split_by_event_skews_the_events() -> None:
    dataset = make_dataset(1000)
    chosen = PartitionSettings(by="dirichlet", sites=3, alpha=0.5, label="event")
    rows = partition_table(dataset, partition(dataset, chosen, 3))
    assert np.ptp([row["events"] / row["patients"] for row in rows]) > 0.15


def test_site_names_are_numbered_so_that_they_sort() -> None:
    parts = partition(make_dataset(600), PartitionSettings(by="iid", sites=12), 0)
    assert list(parts)[:2] == ["site-01", "site-02"]
    assert list(parts)[-1] == "site-12"


def test_column_values_become_names_for_folders() -> None:
    parts = partition(make_dataset(60), PartitionSettings(by="column"), 0)
    assert list(parts) == ["ward-0-b", "ward-1-b", "ward-2-b"]


def test_a_patient_with_several_values_goes_to_that_of_the_first_record() -> None:
    dataset = make_dataset(40, records_each=2)  # rows alternate over three wards
    parts = partition(dataset, PartitionSettings(by="column"), 0)
    first_ward = {int(dataset.cohort.patient[row]): row % 3 for row in range(0, 80, 2)}
    for name, members in patients_by_site(dataset, parts).items():
        assert {first_ward[patient] for patient in members} == {int(name.split("-")[1])}


def test_the_real_sites_are_those_of_the_column(real: Dataset) -> None:
    parts = partition(real, PartitionSettings(), 0)
    assert {name: len(rows) for name, rows in parts.items()} == {
        "site-0": 164,
        "site-1": 126,
        "site-2": 11,
        "site-3": 38,
    }


def test_the_real_devices_are_told_apart(real: Dataset) -> None:
    parts = partition(real, PartitionSettings(column="device"), 0)
    assert list(parts) == [
        "AT-6-C",
        "AT-6-C-5.0",
        "AT-6-C-5.5",
        "AT-6-C-5.6",
        "AT-6-C-5.8",
        "CS-12",
        "CS-12-E",
    ]


def test_the_real_years_are_sites_of_their_own(real: Dataset) -> None:
    parts = partition(real, PartitionSettings(column="year"), 0)
    assert {name: len(rows) for name, rows in parts.items()} == {
        "1984": 9,
        "1985": 67,
        "1986": 184,
        "1987": 79,
    }


@pytest.mark.parametrize("chosen", [{"by": "column"}, {"by": "dirichlet"}, {"by": "iid"}])
def test_the_table_of_the_real_sites_adds_up(real: Dataset, chosen: dict[str, str]) -> None:
    rows = partition_table(real, partition(real, PartitionSettings.model_validate(chosen), 0))
    assert [row["site"] for row in rows] == sorted(row["site"] for row in rows)
    assert sum(row["patients"] for row in rows) == 339
    assert sum(row["events"] for row in rows) == int(real.cohort.event.sum())
    for row in rows:
        assert row["train"] + row["validation"] + row["test"] == row["patients"]
        assert sum(row["label-mix"].values()) == pytest.approx(1, abs=1e-3)
        assert list(row["label-mix"].values()) == sorted(row["label-mix"].values(), reverse=True)


def test_the_table_counts_patients_not_records() -> None:
    dataset = make_dataset(30, records_each=3)
    rows = partition_table(dataset, partition(dataset, PartitionSettings(by="iid", sites=1), 0))
    assert rows[0]["patients"] == 30
    assert rows[0]["events"] == len(set(dataset.cohort.patient[dataset.cohort.event].tolist()))


def test_a_site_without_training_patients_is_named() -> None:
    dataset = make_dataset(60)
    dataset.cohort.part[dataset.columns["site"] == "ward 1/b"] = "test"
    with pytest.raises(
        CohortError, match=r"FECG-625 virtual sites: found 1 without a training patient: ward-1-b;"
    ):
        partition(dataset, PartitionSettings(by="column"), 0)


def test_of_many_sites_without_training_patients_ten_are_named() -> None:
    chosen = PartitionSettings(by="quantity", sites=25, alpha=0.01)
    with pytest.raises(CohortError) as refusal:
        partition(make_dataset(60), chosen, 0)
    said = re.findall(r"site-\d\d", str(refusal.value))
    assert len(said) == 10
    assert re.search(r"found (\d+) without a training patient: .* and \d+ more;", str(refusal.value))


def test_equal_sizes_leave_no_site_without_patients_where_a_draw_would() -> None:
    chosen = PartitionSettings(by="dirichlet", sites=12, alpha=0.05)
    with pytest.raises(CohortError, match="FECG-625"):
        partition(make_dataset(240), chosen, 1)
    parts = partition(make_dataset(240), chosen.model_copy(update={"sizes": "equal"}), 1)
    assert {len(rows) for rows in parts.values()} == {20}


def test_a_numbered_site_that_got_nobody_is_named() -> None:
    with pytest.raises(
        CohortError, match=r"FECG-625 virtual sites: found \d+ without a training patient: site-\d\d"
    ):
        partition(make_dataset(30), PartitionSettings(by="quantity", sites=20, alpha=0.05), 0)


def test_more_sites_than_patients_are_refused() -> None:
    with pytest.raises(
        CohortError, match=r"FECG-626 partition: found 5 patients for 6 sites; expected at least one"
    ):
        partition(make_dataset(5), PartitionSettings(by="iid", sites=6), 0)


def test_a_column_that_is_not_there_is_refused() -> None:
    with pytest.raises(
        CohortError, match=r"FECG-626 partition: found no column device; expected one of site\."
    ):
        partition(make_dataset(10), PartitionSettings(column="device"), 0)


def test_values_that_give_the_same_name_are_refused() -> None:
    dataset = make_dataset(60)
    dataset.columns["site"][:1] = "ward 0-b"
    with pytest.raises(
        CohortError, match=r"FECG-626 partition: found 1 of 4 values of site with the same site name"
    ):
        partition(dataset, PartitionSettings(by="column"), 0)
