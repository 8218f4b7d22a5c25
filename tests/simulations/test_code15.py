"""CODE-15 %: the first exam of each patient, with what is known of it, from files of the published layout."""

import csv
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from fedecg.config import StudySettings
from fedecg.errors import ClinicalInputError, CohortError, SettingsError
from fedecg.signals import read_recording
from fedecg_simulations.cli import main
from fedecg_simulations.code15 import load_code15
from fedecg_simulations.sources import load_dataset
from fedecg_simulations.synthetic import consortium, make_recordings

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = (
    "exam_id", "age", "is_male", "nn_predicted_age", "1dAVb", "RBBB", "LBBB", "SB", "ST", "AF",
    "patient_id", "death", "timey", "normal_ecg", "trace_file",
)  # fmt: skip
SHORT = [
    "signals.samples=256", "align.rounds=1", "align.local-steps=2", "survival.rounds=2", "survival.local-steps=2",
    "align.batch-size=16", "survival.batch-size=16", "partition.sites=2", "partition.alpha=20.0",
    "evaluation.comparison=false", "evaluation.bootstrap=0", "evaluation.explain=false",
]  # fmt: skip


def exam(number: int, **changes: Any) -> dict[str, Any]:
    """A row of exams.csv: a man of 60 who lived through three years, with a normal ECG."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS, False)
    row |= {"exam_id": number, "patient_id": 10_000 + number, "age": 60, "is_male": True, "timey": 3.0}
    row |= {"nn_predicted_age": 61.5, "normal_ecg": True, "trace_file": "exams_part0.hdf5"}
    return row | changes


def write_set(folder: Path, rows: list[dict[str, Any]], signals: dict[int, np.ndarray] | None = None) -> Path:
    """exams.csv and a part for every file that it names: tracings padded with zeros on both sides, a dummy last."""
    folder.mkdir(exist_ok=True)
    with (folder / "exams.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    if signals is None:
        ((_, patients, _),) = consortium({"city": len(rows)}, 1, 0)
        made = make_recordings(patients, list(range(len(rows))))
        resampled = made[:, :, :: round(patients.rate_hz / 100)].repeat(4, axis=2)[:, :, :4000]  # 400 Hz
        signals = {int(row["exam_id"]): one for row, one in zip(rows, resampled, strict=True)}
    for name in {row["trace_file"] for row in rows}:
        ids = [int(row["exam_id"]) for row in rows if row["trace_file"] == name]
        tracings = np.zeros((len(ids) + 1, 4096, 12), dtype=np.float32)
        for at, one in enumerate(ids):
            start = (4096 - signals[one].shape[1]) // 2
            tracings[at, start : start + signals[one].shape[1]] = signals[one].T
        with h5py.File(folder / name, "w") as part:
            part["tracings"] = tracings
            part["exam_id"] = np.array([*ids, 0])
    return folder


def test_one_exam_a_patient_that_with_follow_up(tmp_path: Path) -> None:
    rows = [
        exam(7, patient_id=1, death="", timey=""),  # an exam before the one that counts
        exam(5, patient_id=1, death=True, timey=1.5, is_male=False, AF=True, RBBB=True, normal_ecg=False),
        exam(3, patient_id=2, age=17),
        exam(2, patient_id=3, timey=0.0),
        exam(9, patient_id=4, death="", timey=""),
        exam(11, patient_id=5, age=140, trace_file="exams_part3.hdf5"),
        exam(4, patient_id=5, trace_file="exams_part3.hdf5"),
    ]
    dataset = load_code15(write_set(tmp_path / "set", rows), seed=0)
    cohort = dataset.cohort
    assert len(cohort) == 3
    assert cohort.event.tolist() == [True, False, False]
    np.testing.assert_allclose(cohort.follow_up_days, np.array([1.5, 3.0, 3.0]) * 365.25)
    assert cohort.age_years.tolist() == [60.0, 17.0, 60.0]
    assert cohort.female.tolist() == [1.0, 0.0, 0.0]
    assert cohort.codes == ({"CRBBB": 100.0, "AFIB": 100.0}, {"NORM": 100.0}, {"NORM": 100.0})
    assert not cohort.died.any()
    assert (dataset.outcomes, dataset.endpoint, dataset.true_log_hazard) == (
        "observed",
        "death of any cause",
        None,
    )
    assert dataset.notes == {
        "records": 7,
        "exams-without-follow-up-left-out": 2,
        "exams-with-0-years-left-out": 1,
        "later-ecgs-left-out": 1,
        "exams-in-parts-that-are-not-there": 0,
        "ages-missing": 0,
    }


def test_recordings_are_those_of_their_exams_in_any_order(tmp_path: Path) -> None:
    rows = [exam(number, trace_file=f"exams_part{number % 3}.hdf5") for number in (8, 3, 5, 1, 9, 4)]
    rng = np.random.default_rng(0)
    signals = {row["exam_id"]: rng.normal(0, 0.4, (12, 2934)).astype(np.float32) for row in rows}
    dataset = load_code15(write_set(tmp_path / "set", rows, signals), seed=0)
    by_file = sorted(rows, key=lambda row: row["trace_file"])
    for _ in range(2):  # and back to the first file
        for row, read in zip(by_file, dataset.recordings, strict=True):
            recording = read()
            assert recording.rate_hz == 400
            np.testing.assert_array_equal(recording.signal_mv, signals[row["exam_id"]])


def test_the_shared_exams_are_read_as_they_were_saved(tmp_path: Path, data_root: Path) -> None:
    """Five real exams, brought back into the published layout; four are first exams with follow-up."""
    meta = pd.read_csv(data_root / "code15" / "meta.csv", dtype=str)
    signals = {
        int(row.exam_id): read_recording(data_root / "code15" / "org" / row.save_file).signal_mv
        for row in meta.itertuples()
    }
    rows = [
        {name: getattr(row, name, row_at[name]) for name in COLUMNS}
        for row, row_at in zip(meta.itertuples(), meta.to_dict("records"), strict=True)
    ]
    rows = [{name: "" if pd.isna(cell) else cell for name, cell in row.items()} for row in rows]
    dataset = load_code15(write_set(tmp_path / "set", rows, signals), seed=1)
    assert len(dataset.cohort) == 4
    assert sorted(dataset.cohort.follow_up_days / 365.25) == pytest.approx(
        [1.208218, 1.260273, 3.846572, 7.008213]
    )
    assert dataset.cohort.event.sum() == 1
    died = int(np.flatnonzero(dataset.cohort.event)[0])
    assert dataset.cohort.codes[died] == {"STACH": 100.0}
    stored = dataset.recordings[died]().signal_mv
    truth = signals[795649]
    alive = np.flatnonzero(np.any(truth != 0, axis=0))
    np.testing.assert_array_equal(stored, truth[:, alive[0] : alive[-1] + 1])


def test_parts_that_were_not_downloaded_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [exam(number, trace_file=f"exams_part{number % 2}.hdf5") for number in range(1, 9)]
    folder = write_set(tmp_path / "set", rows)
    (folder / "exams_part1.hdf5").unlink()
    dataset = load_code15(folder, seed=0)
    assert len(dataset.cohort) == 4
    assert dataset.notes["exams-in-parts-that-are-not-there"] == 4


def test_everybody_keeps_a_part_and_deaths_are_spread_over_parts(tmp_path: Path) -> None:
    rows = [exam(number, death=number <= 20) for number in range(1, 101)]
    signals = {number: np.ones((12, 10), dtype=np.float32) for number in range(1, 101)}
    cohort = load_code15(write_set(tmp_path / "set", rows, signals), seed=3).cohort
    counts = {part: int(cohort.event[cohort.part == part].sum()) for part in ("train", "validation", "test")}
    assert counts == {"train": 14, "validation": 2, "test": 4}


def broken_header(folder: Path) -> None:
    text = (folder / "exams.csv").read_text()
    (folder / "exams.csv").write_text(text.replace("timey", "time", 1))


def a_word_as_death(folder: Path) -> None:
    text = (folder / "exams.csv").read_text()
    (folder / "exams.csv").write_text(text.replace("10001,False,3.0", "10001,perhaps,3.0"))


def an_exam_twice(folder: Path) -> None:
    lines = (folder / "exams.csv").read_text().splitlines()
    (folder / "exams.csv").write_text("\n".join([*lines, lines[-1]]) + "\n")


REFUSED = {
    "no table": (
        lambda folder: (folder / "exams.csv").unlink(),
        "FECG-621 exams.csv: found no such file",
    ),
    "no column": (broken_header, r"FECG-622 exams.csv: found 1 column\(s\) missing: timey"),
    "a word": (a_word_as_death, "FECG-622 exams.csv: found 1 of 3 unusable cells in column death"),
    "twice": (an_exam_twice, "FECG-622 exams.csv: found 1 of 4 unusable cells in column exam_id"),
    "no part": (
        lambda folder: (folder / "exams_part0.hdf5").unlink(),
        "FECG-623 signal files: found none of them",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_that_is_not_as_published_is_refused(tmp_path: Path, name: str) -> None:
    folder = write_set(tmp_path / "set", [exam(number) for number in (1, 2, 3)])
    damage, message = REFUSED[name]
    damage(folder)
    with pytest.raises(CohortError, match=message):
        load_code15(folder, seed=0)


def test_a_part_without_the_exams_and_a_path_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", [exam(number) for number in (1, 2)])
    with h5py.File(folder / "exams_part0.hdf5", "a") as part:
        part["exam_id"][:2] = [77, 78]
    with pytest.raises(CohortError, match=r"FECG-623 signal files: found 0 of 2 first exams in them"):
        load_code15(folder, seed=0)
    text = (folder / "exams.csv").read_text()
    (folder / "exams.csv").write_text(text.replace("exams_part0.hdf5", "../set/exams_part0.hdf5"))
    with pytest.raises(CohortError, match=r"FECG-623 signal files: found none of them"):
        load_code15(folder, seed=0)
    (folder / "exams_part0.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (folder / "exams.csv").write_text(text)
    with pytest.raises(ClinicalInputError, match=r"FECG-277 HDF5 file"):
        load_code15(folder, seed=0)


def test_without_a_folder_it_says_which_one_is_wanted() -> None:
    settings = StudySettings.model_validate({"data": {"source": "code15"}})
    with pytest.raises(SettingsError, match=r"FECG-106 data.path: .* the folder of code15 as published"):
        load_dataset(settings)


@pytest.mark.slow
def test_a_whole_study_says_that_deaths_were_observed_and_nothing_calls_them_simulated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(4)
    rows = [
        exam(
            number,
            death=bool(number % 3 == 0),
            timey=round(float(rng.uniform(0.2, 7)), 4),
            SB=bool(number % 4 == 0),
        )
        for number in range(1, 91)
    ]
    folder = write_set(tmp_path / "set", rows)
    store, config = f"data.store={tmp_path / 'store'}", str(ROOT / "configs" / "code15.toml")
    out = tmp_path / "out"
    assert main(["run", config, "--data", str(folder), "--out", str(out), "--set", store, *SHORT]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["outcomes"], summary["endpoint"]) == ("observed", "death of any cause")
    assert sum(site["patients"] for site in summary["sites"]) == 90
    assert sum(site["events"] for site in summary["sites"]) == 30
    texts = {file.name: file.read_text() for file in (out / "report.html", *(out / "model").glob("*.md"))}
    texts["printed"] = "".join(capsys.readouterr())
    assert {"report.html", "model_card.md", "tripod.md"} <= set(texts)
    for name, text in texts.items():
        assert "simulated" not in text.lower().replace("fedecg-simulate", ""), name
    assert "in the order of their time to death of any cause" in texts["report.html"]
    assert "outcomes observed" in texts["report.html"]
    assert "time to death of any cause from the index ECG" in texts["tripod.md"]
    assert "a simulation on data of the source code15" in texts["tripod.md"]
    assert "Risk of death of any cause" in texts["model_card.md"]
    assert json.loads((out / "model" / "model.json").read_text())["outcomes"] == "observed"
