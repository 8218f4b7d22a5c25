"""MIMIC-IV-ECG: folders of the published layout that the test writes, and outcomes from the real demo of MIMIC-IV."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedecg.config import DataSettings
from fedecg.errors import CohortError
from fedecg_simulations.cli import main
from fedecg_simulations.mimic_iv_ecg import load_mimic_iv_ecg
from fedecg_simulations.synthetic import consortium, make_recordings

ROOT = Path(__file__).resolve().parents[2]
LEADS = (
    "I",
    "II",
    "III",
    "aVR",
    "aVF",
    "aVL",
    "V1",
    "V2",
    "V3",
    "V4",
    "V5",
    "V6",
)  # MIMIC's order: aVF before aVL
STANDARD = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
SHORT = [
    "signals.samples=256", "align.rounds=1", "align.local-steps=2", "survival.rounds=2", "survival.local-steps=2",
    "align.batch-size=16", "survival.batch-size=16", "partition.sites=2", "partition.alpha=20.0",
    "evaluation.comparison=false", "evaluation.bootstrap=0", "evaluation.explain=false", "data.event-fraction=0.4",
]  # fmt: skip
Row = dict[str, str]


def ecg(subject: int, study: int, time: str, *reports: str, cart: str = "6848296") -> Row:
    """A row of both tables."""
    path = f"files/p{str(subject)[:4]}/p{subject}/s{study}/{study}"
    row = {
        "subject_id": str(subject),
        "study_id": str(study),
        "file_name": str(study),
        "ecg_time": time,
        "path": path,
    }
    lines = {f"report_{number}": (reports[number] if number < len(reports) else "") for number in range(18)}
    return row | {"cart_id": cart} | lines | {"rr_interval": "800", "qrs_onset": "40"}


def write_signal(folder: Path, row: Row, signal_mv: np.ndarray) -> None:
    """Format 16, 200 counts to a millivolt, as MIMIC-IV-ECG has it; the lead of the standard order `k` is MIMIC's."""
    counts = np.rint(signal_mv[[STANDARD.index(lead) for lead in LEADS]] * 200).astype("<i2")
    at = folder / row["path"]
    at.parent.mkdir(parents=True)
    lines = [f"{at.name} 12 500 {counts.shape[1]} 08:44:00 23/07/2180"]
    for number, lead in enumerate(LEADS):
        total = counts[number].sum(dtype=np.int64).astype(np.int16)
        lines.append(f"{at.name}.dat 16 200.0(0)/mV 16 0 {counts[number, 0]} {total} 0 {lead}")
    at.with_name(f"{at.name}.hea").write_text(
        "\n".join([*lines, f"# <subject_id>: {row['subject_id']}"]) + "\n"
    )
    at.with_name(f"{at.name}.dat").write_bytes(counts.T.tobytes())


def write_set(folder: Path, rows: list[Row]) -> Path:
    """The two tables, and a recording of 10 s for each row."""
    folder.mkdir()
    measured = [
        "subject_id",
        "study_id",
        "cart_id",
        "ecg_time",
        *(f"report_{n}" for n in range(18)),
        "rr_interval",
    ]
    listed = ["subject_id", "study_id", "file_name", "ecg_time", "path"]
    pd.DataFrame(rows)[listed].to_csv(folder / "record_list.csv", index=False)
    pd.DataFrame(rows[::-1])[measured].to_csv(folder / "machine_measurements.csv", index=False)
    ((_, patients, _),) = consortium({"city": len(rows)}, 1, 3)
    made = make_recordings(patients, list(range(len(rows)))).repeat(500 // patients.rate_hz, axis=2)
    for row, signal in zip(rows, made, strict=True):
        write_signal(folder, row, signal)
    return folder


SMALL = [
    ecg(
        10000032,
        40689238,
        "2180-07-23 08:44:00",
        "Sinus rhythm",
        "Possible anterior infarct - age undetermined",
    ),
    ecg(
        10000032,
        41000000,
        "2180-07-20 10:00:00",
        "Sinus tachycardia",
        "Left bundle branch block",
        "Abnormal ECG",
    ),
    ecg(10000117, 42000000, "2181-01-01 00:00:00", "Atrial fibrillation", cart=""),
    ecg(10010001, 43000000, "2182-01-01 00:00:00", "Normal ECG", cart="7"),
]


def test_the_first_ecg_of_each_patient_counts_with_what_the_machine_says(tmp_path: Path) -> None:
    dataset = load_mimic_iv_ecg(write_set(tmp_path / "set", SMALL), seed=0, event_fraction=0.4)
    cohort = dataset.cohort
    assert cohort.codes == ({"STACH": 100.0, "CLBBB": 100.0}, {"AFIB": 100.0}, {"NORM": 100.0})
    assert dataset.columns["device"].tolist() == ["cart-6848296", "unknown", "cart-7"]
    assert set(dataset.columns["site"].tolist()) == {"mimic-iv-ecg"}
    assert np.isnan(cohort.age_years).all()
    assert np.isnan(cohort.female).all()
    assert (dataset.outcomes, cohort.event.sum()) == ("simulated", 1)
    assert dataset.notes == {
        "records": 4,
        "records-in-folders-that-are-not-there": 0,
        "later-or-other-ecgs-left-out": 1,
        "reports-without-a-statement": 0,
    }


def test_leads_come_in_the_standard_order(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write_set(folder, SMALL)
    shutil.rmtree(folder / "files" / "p1000" / "p10000117" / "s42000000")
    made = np.arange(12, dtype=np.float64)[:, None] / 10 + np.zeros((12, 5000))
    write_signal(folder, SMALL[2], made)
    read = load_mimic_iv_ecg(folder, 0, 0.4).recordings[1]()
    np.testing.assert_allclose(read.signal_mv[:, 0], np.arange(12) / 10, atol=1e-6)
    assert read.rate_hz == 500


def test_folders_that_were_not_downloaded_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", SMALL)
    shutil.rmtree(folder / "files" / "p1001")
    dataset = load_mimic_iv_ecg(folder, 0, 0.4)
    assert len(dataset.cohort) == 2
    assert dataset.notes["records-in-folders-that-are-not-there"] == 1


def test_some_patients_are_drawn_by_the_seed(tmp_path: Path) -> None:
    rows = [
        ecg(10000000 + number, 40000000 + number, f"2180-01-{number + 1:02} 00:00:00") for number in range(20)
    ]
    folder = write_set(tmp_path / "set", rows)
    few = [load_mimic_iv_ecg(folder, seed, 0.4, patients=5).source for seed in (0, 0, 1)]
    assert few[0] == few[1] != few[2]
    assert few[0].startswith("mimic-iv-ecg, 5 records")


def without(column: str, table: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        pd.read_csv(folder / table, dtype=str).drop(columns=column).to_csv(folder / table, index=False)

    return damage


def cell(column: str, text: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        table = pd.read_csv(folder / "record_list.csv", dtype=str)
        table.loc[1, column] = text
        table.to_csv(folder / "record_list.csv", index=False)

    return damage


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no list": (
        lambda folder: (folder / "record_list.csv").unlink(),
        "FECG-616 record_list.csv: found no such file",
    ),
    "no reports": (
        lambda folder: (folder / "machine_measurements.csv").unlink(),
        "FECG-616 machine_measurements.csv: found no such file",
    ),
    "no files": (
        lambda folder: shutil.rmtree(folder / "files"),
        "FECG-616 folder of mimic-iv-ecg: found none of 2 folders",
    ),
    "another version": (
        without("path", "record_list.csv"),
        r"FECG-617 record_list.csv: found 1 column\(s\) missing: path; expected the columns of version 1.0",
    ),
    "fewer reports": (
        without("report_17", "machine_measurements.csv"),
        r"FECG-617 machine_measurements.csv: found 1 column\(s\) missing: report_17",
    ),
    "no table": (
        lambda folder: (folder / "record_list.csv").write_bytes(b"\xff\xfe\0\0"),
        "FECG-621 record_list.csv: found text that is not UTF-8",
    ),
    "no date": (cell("ecg_time", "yesterday"), "FECG-622 .* 1 of 4 unusable cells in column ecg_time"),
    "no number": (cell("subject_id", "p7"), "FECG-622 .* 1 of 4 unusable cells in column subject_id"),
    "twice": (cell("study_id", "40689238"), "FECG-622 .* 1 of 4 unusable cells in column study_id"),
    "a path out": (cell("path", "files/../../x/y"), "FECG-622 .* 1 of 4 unusable cells in column path"),
    "a signal": (
        lambda folder: next(folder.glob("files/p1000/p10000117/**/*.dat")).unlink(),
        "FECG-623 signal files: found 1 of 3 records without a .hea or .dat file",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_that_is_not_as_published_is_refused(tmp_path: Path, name: str) -> None:
    folder = write_set(tmp_path / "set", SMALL)
    damage, message = REFUSED[name]
    damage(folder)
    with pytest.raises(CohortError, match=message) as refused:
        load_mimic_iv_ecg(folder, 0, 0.4)
    assert not re.search(r"10000|4\d{7}|2180", str(refused.value).removeprefix("FECG-"))


def demo_rows(demo: Path) -> list[Row]:
    """Two ECGs of every patient of the demo: at the first admission and a day before it."""
    admissions = pd.read_csv(demo / "admissions.csv", parse_dates=["admittime"])
    first = admissions.sort_values("admittime").groupby("subject_id").head(1)
    rows = []
    for number, (subject, time) in enumerate(zip(first.subject_id, first.admittime, strict=True)):
        for later, study in ((0, 40000000 + number), (1, 50000000 + number)):
            moment = time + pd.Timedelta(days=later - 1)
            rows.append(ecg(int(subject), study, moment.strftime("%Y-%m-%d %H:%M:%S"), "Sinus rhythm"))
    return rows


@pytest.fixture(scope="module")
def demo_set(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> tuple[Path, Path]:
    """Made ECGs of the 100 real patients of MIMIC-IV's demo, and its tables."""
    demo = data_root / "mimic_iv_demo"
    return write_set(tmp_path_factory.mktemp("mimic") / "set", demo_rows(demo)), demo


def test_outcomes_of_mimic_iv_are_those_of_the_cohorts_rules(demo_set: tuple[Path, Path]) -> None:
    """Counted a second time with pandas: heart failure after the ECG, nobody who had it before or on its day."""
    folder, demo = demo_set
    dataset = load_mimic_iv_ecg(folder, 0, 0.4, clinical=str(demo))
    admissions = pd.read_csv(demo / "admissions.csv", parse_dates=["admittime", "dischtime"])
    codes = pd.read_csv(demo / "diagnoses_icd.csv", dtype={"icd_code": str})
    ten = (codes.icd_version == 10) & codes.icd_code.str.match(r"^(?:I50|I110|I130|I132|I0981)")
    nine = (codes.icd_version == 9) & codes.icd_code.str.match(r"^(?:428|39891|402[019]1|404[019][13])")
    failure = codes[ten | nine].merge(admissions[["hadm_id", "admittime"]], on="hadm_id")
    day = failure.groupby("subject_id").admittime.min().dt.normalize()
    start = admissions.groupby("subject_id").admittime.min() - pd.Timedelta(days=1)  # the first ECG
    end = admissions.groupby("subject_id").dischtime.max()
    first = day.reindex(start.index)
    kept = ~(first <= start.dt.normalize())
    event = kept & first.notna()
    assert len(dataset.cohort) == int(kept.sum())
    assert dataset.cohort.event.sum() == int(event.sum()) > 20
    until = failure.groupby("subject_id").admittime.min().reindex(start.index).where(event, end)
    days = ((until - start) / pd.Timedelta(days=1))[kept & ~dataset_died(demo, start, end)]
    ours = np.sort(dataset.cohort.follow_up_days[~dataset.cohort.died])
    np.testing.assert_allclose(ours, np.sort(days), atol=1e-6)
    assert dataset.outcomes == "observed"
    assert dataset.true_log_hazard is None
    assert not np.isnan(dataset.cohort.age_years).any()
    assert set(np.unique(dataset.cohort.female)) == {0.0, 1.0}
    assert dataset.notes["patients-with-an-ecg"] == 100
    assert {len(year) for year in dataset.columns["year"]} == {4}
    assert set(dataset.columns["year"]) <= {str(year) for year in range(2007, 2024)}


def dataset_died(demo: Path, start: pd.Series, end: pd.Series) -> pd.Series:
    """Whose day of death is not after the last discharge, and no heart failure before it."""
    dead = (
        pd.read_csv(demo / "patients.csv", parse_dates=["dod"])
        .set_index("subject_id")
        .dod.reindex(start.index)
    )
    codes = pd.read_csv(demo / "diagnoses_icd.csv", dtype={"icd_code": str})
    ten = (codes.icd_version == 10) & codes.icd_code.str.match(r"^(?:I50|I110|I130|I132|I0981)")
    nine = (codes.icd_version == 9) & codes.icd_code.str.match(r"^(?:428|39891|402[019]1|404[019][13])")
    failed = start.index.isin(codes[ten | nine].subject_id.unique())
    return dead.notna() & (dead <= end.dt.normalize()) & ~failed


def test_the_papers_rules_leave_out_whoever_had_no_hypertension(demo_set: tuple[Path, Path]) -> None:
    folder, demo = demo_set
    everybody = load_mimic_iv_ecg(folder, 0, 0.4, clinical=str(demo))
    some = load_mimic_iv_ecg(folder, 0, 0.4, clinical=str(demo), rules="paper-hyp")
    assert 20 < len(some.cohort) < len(everybody.cohort)
    assert some.notes["left at no-inclusion"] > 0
    parts = {part: int(np.sum(some.cohort.part == part)) for part in ("train", "validation", "test")}
    assert parts["train"] > parts["test"] > parts["validation"] > 0


def test_tables_of_mimic_iv_that_are_not_there_are_named(demo_set: tuple[Path, Path], tmp_path: Path) -> None:
    folder, demo = demo_set
    (tmp_path / "hosp").mkdir()
    shutil.copy(demo / "patients.csv", tmp_path / "hosp")
    with pytest.raises(CohortError) as refused:
        load_mimic_iv_ecg(folder, 0, 0.4, clinical=str(tmp_path))
    assert str(refused.value).startswith(
        "FECG-616 folder of MIMIC-IV (data.clinical): found no admissions.csv.gz;"
    )
    assert "credentialed users of PhysioNet" in refused.value.fix


def test_rules_without_diagnoses_are_refused() -> None:
    with pytest.raises(ValueError, match="expected rules only with clinical"):
        DataSettings(source="mimic-iv-ecg", rules="paper-mi")
    with pytest.raises(ValueError, match="expected clinical only with source = mimic-iv-ecg"):
        DataSettings(source="ptbxl", clinical="x")


@pytest.mark.slow
@pytest.mark.parametrize("observed", [False, True], ids=["simulated", "observed"])
def test_the_ready_made_study_runs_on_a_small_set(
    demo_set: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], observed: bool
) -> None:
    folder, demo = demo_set
    command = ["run", str(ROOT / "configs" / "mimic-iv-ecg.toml"), "--data", str(folder)]
    command += ["--out", str(tmp_path / "run"), "--json", "--set", f"data.store={tmp_path / 'store'}", *SHORT]
    assert main(command + [f"data.clinical={demo}"] * observed) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["outcomes"] == ("observed" if observed else "simulated")
