"""PTB-XL as published: the real excerpt, a folder made by hand for its oddities, and every refusal."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from lifelines.utils import concordance_index
from numpy.testing import assert_allclose, assert_array_equal

from fedecg.errors import CohortError, FedecgError
from fedecg.text import scp_statements
from fedecg_simulations.dataset import Dataset
from fedecg_simulations.ptbxl import load_ptbxl
from fedecg_simulations.ptbxl_hazard import EFFECTS, log_hazard, simulate_follow_up

SECRETS = ("918273", "1984-11-09", "0002_lr")  # a patient, a date, a file: no message may contain them
ROW = {
    "patient_id": "918273.0",
    "age": "60.0",
    "sex": "1",
    "site": "0.0",
    "device": "CS-12   E ",
    "recording_date": "1984-11-09 09:17:34",
    "scp_codes": "{'NORM': 100.0, 'SR': 0.0}",
}


def make_folder(folder: Path, *changes: Mapping[str, str], files: bool = True) -> Path:
    """A PTB-XL folder of one row a change; ten patients in folds 1, 9 and 10 unless a change says otherwise."""
    rows = []
    for number, change in enumerate(changes, start=1):
        name = f"{number:05d}"
        defaults = {
            **ROW,
            "ecg_id": str(number),
            "patient_id": f"918273{number}.0",
            "strat_fold": ("1", "9", "10")[number % 3],
            "filename_lr": f"records100/{name}_lr",
            "filename_hr": f"records500/{name}_hr",
        }
        rows.append({**defaults, **change})
    (folder / "records100").mkdir(parents=True)
    for row in rows if files else []:
        for suffix in (".hea", ".dat"):
            (folder / f"{row['filename_lr']}{suffix}").write_text("stands for a file")
    pd.DataFrame(rows).to_csv(folder / "ptbxl_database.csv", index=False)
    pd.DataFrame({"": list(scp_statements())}).to_csv(folder / "scp_statements.csv", index=False)
    return folder


def load(folder: Path, seed: int = 0) -> Dataset:
    return load_ptbxl(folder, 100, seed, 0.3)


def refusal(folder: Path, kind: type[FedecgError] = CohortError) -> str:
    with pytest.raises(kind) as caught:
        load(folder)
    assert not any(secret in str(caught.value) for secret in SECRETS)
    assert str(folder) not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def real(data_root: Path) -> Dataset:
    return load(data_root / "ptbxl")


def test_the_real_excerpt_has_one_ecg_for_each_of_its_339_patients(real: Dataset) -> None:
    assert len(real.cohort) == len(real.recordings) == len(set(real.cohort.patient.tolist())) == 339
    assert_array_equal(real.cohort.record, np.arange(339))
    assert real.notes["records"] == 353
    assert real.notes["later-ecgs-left-out"] == 14
    assert real.outcomes == "simulated"


def test_the_real_excerpt_has_four_sites_the_smallest_with_eleven(real: Dataset) -> None:
    names, counts = np.unique(real.columns["site"], return_counts=True)
    assert names.tolist() == ["site-0", "site-1", "site-2", "site-3"]
    assert counts.min() == 11
    assert set(real.columns["device"].tolist()) >= {"CS-12", "CS-12 E", "AT-6 C 5.5"}


def test_folds_7_and_8_stand_in_where_9_and_10_are_absent(real: Dataset) -> None:
    assert real.folds["train"] == [1, 2, 3, 4, 5, 6]
    assert (real.folds["validation"], real.folds["test"]) == ([7], [8])
    assert "no fold 9 or 10: the highest two present stand in, by patient" in real.folds["note"]
    assert {part: int(np.sum(real.cohort.part == part)) for part in ("train", "validation", "test")} == {
        "train": 257,
        "validation": 41,
        "test": 41,
    }


def test_a_missing_age_stays_missing_and_still_has_a_hazard(real: Dataset) -> None:
    missing = np.isnan(real.cohort.age_years)
    assert int(missing.sum()) == real.notes["ages-missing"] == 3
    assert real.true_log_hazard is not None
    assert np.all(np.isfinite(real.true_log_hazard))


def test_thirty_percent_of_the_real_patients_have_a_simulated_event(real: Dataset) -> None:
    assert int(real.cohort.event.sum()) == 102
    assert real.true_log_hazard is not None
    assert concordance_index(real.cohort.follow_up_days, -real.true_log_hazard, real.cohort.event) > 0.68


def test_the_real_recordings_can_be_read_also_after_a_trip_to_another_process(real: Dataset) -> None:
    recording = pickle.loads(pickle.dumps(real.recordings[338]))()
    assert recording.signal_mv.shape == (12, 1000)
    assert recording.rate_hz == 100


def test_a_folder_with_part_of_the_500_hz_records_is_refused_with_a_count(data_root: Path) -> None:
    with pytest.raises(
        CohortError, match=r"FECG-623 signal files: found 300 of 339 records without a \.hea or \.dat"
    ):
        load_ptbxl(data_root / "ptbxl", 500, 0, 0.3)


def test_the_seed_changes_outcomes_and_nothing_else(real: Dataset, data_root: Path) -> None:
    again, other = load(data_root / "ptbxl"), load(data_root / "ptbxl", seed=1)
    assert_array_equal(again.cohort.follow_up_days, real.cohort.follow_up_days)
    assert np.any(other.cohort.follow_up_days != real.cohort.follow_up_days)
    assert other.source == again.source == real.source
    assert_array_equal(other.cohort.part, real.cohort.part)


def test_the_order_of_the_rows_in_the_table_does_not_matter(tmp_path: Path) -> None:
    changes: list[dict[str, str]] = [{"age": str(40 + number)} for number in range(10)]
    straight = make_folder(tmp_path / "straight", *changes)
    table = pd.read_csv(straight / "ptbxl_database.csv", dtype=str)
    shuffled = make_folder(tmp_path / "shuffled", *changes)
    table.sample(frac=1, random_state=1).to_csv(shuffled / "ptbxl_database.csv", index=False)
    one, other = load(straight), load(shuffled)
    assert one.source == other.source
    assert_array_equal(one.cohort.age_years, other.cohort.age_years)
    assert_array_equal(one.cohort.follow_up_days, other.cohort.follow_up_days)


def test_folds_9_and_10_are_validation_and_test_where_they_are_there(tmp_path: Path) -> None:
    dataset = load(make_folder(tmp_path / "set", *[{"strat_fold": str(1 + number)} for number in range(10)]))
    assert dataset.folds == {"train": [1, 2, 3, 4, 5, 6, 7, 8], "validation": [9], "test": [10]}
    assert dataset.cohort.part.tolist() == ["train"] * 8 + ["validation", "test"]


def test_a_patient_in_several_folds_goes_to_test_else_to_validation(tmp_path: Path) -> None:
    rows = [
        {"patient_id": "1", "strat_fold": "1"},
        {"patient_id": "1", "strat_fold": "10"},
        {"patient_id": "2", "strat_fold": "9"},
        {"patient_id": "2", "strat_fold": "2"},
        {"patient_id": "3", "strat_fold": "1"},
    ]
    dataset = load(make_folder(tmp_path / "set", *rows))
    assert dataset.cohort.part.tolist() == ["test", "validation", "train"]
    assert dataset.notes["patients-in-several-folds"] == 2


def test_the_earliest_ecg_of_a_patient_is_the_one_that_stays(tmp_path: Path) -> None:
    rows = [
        {"patient_id": "7", "recording_date": "1990-01-02 00:00:00", "age": "51"},
        {"patient_id": "7", "recording_date": "1989-01-02 00:00:00", "age": "50"},
        {"patient_id": "7", "recording_date": "1989-01-02 00:00:00", "age": "52"},
        {},
        {},
        {},
    ]
    dataset = load(make_folder(tmp_path / "set", *rows))
    assert dataset.cohort.age_years[0] == 50
    assert dataset.notes["later-ecgs-left-out"] == 2


def test_ages_of_300_blanks_devices_and_sites_are_put_right(tmp_path: Path) -> None:
    rows = [
        {"age": "300.0", "site": "", "device": ""},
        {"age": "", "sex": "", "site": "12.0"},
        {"scp_codes": "{}", "site": "3"},
    ]
    dataset = load(make_folder(tmp_path / "set", *rows))
    assert_array_equal(dataset.cohort.age_years, [90, np.nan, 60])
    assert_array_equal(dataset.cohort.female, [1, np.nan, 1])
    assert dataset.columns["site"].tolist() == ["site-unknown", "site-12", "site-3"]
    assert dataset.columns["device"].tolist() == ["unknown", "CS-12 E", "CS-12 E"]
    assert dataset.cohort.codes[2] == {}
    assert dataset.notes["ages-above-89-set-to-90"] == dataset.notes["sexes-missing"] == 1


def test_the_source_changes_with_the_files_and_with_the_rate(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "set", {}, {}, {})
    before = load(folder).source
    assert "ptbxl, 100 Hz, 3 records" in before
    (folder / "records100" / "00002_lr.dat").write_text("longer than it was before")
    assert load(folder).source != before


@pytest.mark.parametrize("name", ["ptbxl_database.csv", "scp_statements.csv"])
def test_a_missing_or_broken_table_is_refused(tmp_path: Path, name: str) -> None:
    folder = make_folder(tmp_path / "set", {}, {}, {})
    (folder / name).write_bytes(b"\xff\xfe\x00,\n")
    assert f"FECG-621 {name}: found text that is not UTF-8" in refusal(folder)
    (folder / name).unlink()
    assert f"FECG-621 {name}: found no such file; expected the table as PTB-XL publishes it" in refusal(
        folder
    )


def test_missing_columns_are_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "set", {}, {}, {})
    table = pd.read_csv(folder / "ptbxl_database.csv", dtype=str).drop(columns=["age", "site"])
    table.to_csv(folder / "ptbxl_database.csv", index=False)
    assert "FECG-622 ptbxl_database.csv: found 2 column(s) missing: age, site" in refusal(folder)


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("ecg_id", "1"),
        ("ecg_id", "two"),
        ("patient_id", ""),
        ("patient_id", "918273.5"),
        ("strat_fold", "11"),
        ("strat_fold", ""),
        ("age", "old"),
        ("sex", "2"),
        ("sex", "f"),
        ("filename_lr", ""),
        ("scp_codes", ""),
        ("scp_codes", "['NORM']"),
        ("scp_codes", "{'NORM': 'sure'}"),
        ("scp_codes", "__import__('os').getcwd()"),
        ("scp_codes", "{'UNHEARD': 100.0}"),
    ],
)
def test_cells_that_cannot_be_used_are_counted_and_not_shown(tmp_path: Path, column: str, cell: str) -> None:
    text = refusal(make_folder(tmp_path / "set", {}, {column: cell}, {}))
    assert f"FECG-622 ptbxl_database.csv: found 1 of 3 unusable cells in column {column}; expected" in text


@pytest.mark.parametrize(
    ("change", "column"), [({"age": "150"}, "age_years"), ({"scp_codes": "{'SR': 400}"}, "codes")]
)
def test_values_out_of_range_are_the_cohorts_to_refuse(
    tmp_path: Path, change: dict[str, str], column: str
) -> None:
    text = refusal(make_folder(tmp_path / "set", {}, change, {}), CohortError)
    assert f"FECG-226 {column}: found 1 of 3 rows out of range" in text


def test_missing_signal_files_are_counted(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "set", {}, {}, {})
    (folder / "records100" / "00002_lr.dat").unlink()
    assert "FECG-623 signal files: found 1 of 3 records without a .hea or .dat file" in refusal(folder)


def test_folds_that_make_no_three_parts_are_refused(tmp_path: Path) -> None:
    two = make_folder(tmp_path / "two", {"strat_fold": "1"}, {"strat_fold": "2"})
    assert "FECG-624 strat_fold: found 2 fold(s); expected at least 3 folds" in refusal(two)
    rows = [{"patient_id": "1", "strat_fold": fold} for fold in ("1", "9", "10")]
    assert "FECG-624 strat_fold: found a part without patients" in refusal(
        make_folder(tmp_path / "one", *rows)
    )


def test_the_hazard_by_hand() -> None:
    age = np.array([60.0, 80.0, np.nan, 60.0])
    female = np.array([1.0, 0.0, 1.0, np.nan])
    codes = [{}, {"CLBBB": 100.0, "AFIB": 0.0}, {"NORM": 100.0}, {"AMI": 50.0, "IMI": 50.0}]
    assert_allclose(log_hazard(age, female, codes), [0, 0.3 + 0.2 + 1.0 + 1.0, 0, 0.1 + 0.9])
    assert_allclose(log_hazard(np.array([np.nan]), np.array([1.0]), [{}]), [0])


def test_every_code_in_the_table_of_effects_is_an_scp_code_and_normal_raises_nothing() -> None:
    used = {code for effect in EFFECTS for code in effect.codes}
    assert used <= set(scp_statements())
    assert not used & {"NORM", "SR", "SBRAD"}


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.3, 0.9, 0.999])
def test_the_share_of_events_is_the_one_asked_for(fraction: float) -> None:
    event, days = simulate_follow_up(np.random.default_rng(1).normal(size=200), fraction, seed=3)
    assert int(event.sum()) == min(max(round(fraction * 200), 1), 199)
    assert days.min() >= 1
    assert days.max() <= 3652
    assert_array_equal(days, np.round(days))


def test_a_cox_model_finds_the_stated_hazard_again() -> None:
    hazard = np.random.default_rng(2).normal(size=4000)
    event, days = simulate_follow_up(hazard, 0.3, seed=5)
    frame = pd.DataFrame({"hazard": hazard, "event": event, "days": days})
    fitted = CoxPHFitter().fit(frame, "days", "event")
    assert abs(fitted.params_["hazard"] - 1) < 3 * fitted.standard_errors_["hazard"]
