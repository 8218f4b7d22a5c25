"""PhysioNet/CinC 2021: real records in the published layout, and small sources that the test writes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fedecg.config import DataSettings, PartitionSettings, StudySettings, load_study
from fedecg.errors import CohortError, SettingsError
from fedecg.signals import read_recording
from fedecg_simulations.cinc2021 import load_cinc2021
from fedecg_simulations.cli import main
from fedecg_simulations.partitions import partition
from fedecg_simulations.sources import load_dataset
from fedecg_simulations.synthetic import consortium, make_recordings

ROOT = Path(__file__).resolve().parents[2]
SHORT = [
    "signals.samples=256", "align.rounds=1", "align.local-steps=2", "survival.rounds=2", "survival.local-steps=2",
    "align.batch-size=16", "survival.batch-size=16", "evaluation.comparison=false", "evaluation.bootstrap=0",
    "evaluation.explain=false",
]  # fmt: skip


@pytest.fixture
def real(tmp_path: Path, data_root: Path) -> Path:
    """Five records of Georgia and five of Chapman-Shaoxing, in two groups."""
    for file in (data_root / "cinc2021").iterdir():
        source = "georgia" if file.name.startswith("E") else "chapman_shaoxing"
        group = tmp_path / "set" / "training" / source / ("g1" if file.stem[-1] in "0123" else "g2")
        group.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, group)
    return tmp_path / "set"


def write_record(group: Path, name: str, signal_mv: np.ndarray, comments: list[str]) -> None:
    """A record as the Challenge writes it: 24 bytes of a MATLAB head, then 16-bit counts, 1000 to a millivolt."""
    group.mkdir(parents=True, exist_ok=True)
    counts = np.rint(signal_mv * 1000).astype("<i2")
    leads = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    lines = [f"{name} 12 500 {counts.shape[1]}"]
    for number, lead in enumerate(leads):
        first, total = counts[number, 0], counts[number].sum(dtype=np.int64).astype(np.int16)
        lines.append(f"{name}.mat 16x1+24 1000.0(0)/mV 16 0 {first} {total} 0 {lead}")
    (group / f"{name}.hea").write_text("\n".join([*lines, *comments]) + "\n")
    (group / f"{name}.mat").write_bytes(b"\0" * 24 + counts.T.tobytes())


def write_source(folder: Path, source: str, records: int, seed: int) -> None:
    ((_, patients, _),) = consortium({"city": records}, 1, seed)
    made = make_recordings(patients, list(range(records))).repeat(500 // patients.rate_hz, axis=2)
    for number in range(records):
        codes = ("426783006", "164889003,39732003", "164865005,713427006", "59118001,999999999")[number % 4]
        said = [f"# Age: {40 + number}", f"# Sex: {('Male', 'Female')[number % 2]}", f"# Dx: {codes}"]
        write_record(folder / "training" / source / "g1", f"{source[:2]}{number:04}", made[number], said)


def test_real_records_are_read_with_age_sex_statements_and_source(real: Path) -> None:
    dataset = load_cinc2021(real, seed=0, event_fraction=0.3)
    cohort = dataset.cohort
    assert dataset.outcomes == "simulated"
    assert dataset.columns["site"].tolist() == ["chapman_shaoxing"] * 5 + ["georgia"] * 5
    assert dataset.columns["source"].tolist() == dataset.columns["site"].tolist()
    assert cohort.codes[4] == {"PAC": 100.0, "STACH": 100.0, "NST_": 100.0}  # 284470004,427084000,55930002
    assert (cohort.age_years[4], cohort.female[4]) == (89.0, 1.0)
    assert cohort.codes[5] == {"LAO/LAE": 100.0, "SBRAD": 100.0}  # E07500: 67741000119109,426177001
    assert cohort.event.sum() == 3
    assert dataset.true_log_hazard is not None
    for number, name in ((4, "chapman_shaoxing/g2/JS20009"), (5, "georgia/g1/E07500")):
        read = dataset.recordings[number]()
        np.testing.assert_array_equal(read.signal_mv, read_recording(real / "training" / name).signal_mv)
        assert read.signal_mv.shape == (12, 5000)
    assert dataset.notes == {
        "records-counted-as-patients": 10,
        "sources": 2,
        "records-without-a-statement": 0,
        "snomed-codes-without-a-statement": 0,
        "ages-missing": 0,
        "sexes-missing": 0,
    }


def test_training_itself_is_taken_too_and_the_same_files_are_the_same_data(real: Path) -> None:
    one = load_cinc2021(real, 0, 0.3)
    assert load_cinc2021(real / "training", 0, 0.3).source == one.source
    later = real / "training" / "georgia" / "g1" / "E07500.mat"
    later.write_bytes(later.read_bytes() + b"\0")
    assert load_cinc2021(real, 0, 0.3).source != one.source


def test_sources_are_sites(real: Path) -> None:
    settings = PartitionSettings(by="column", column="source")
    sites = {name: len(rows) for name, rows in partition(load_cinc2021(real, 0, 0.3), settings, 0).items()}
    assert sites == {"chapman_shaoxing": 5, "georgia": 5}
    assert len(load_cinc2021(real, 0, 0.3, sources=["georgia"]).cohort) == 5


def test_some_patients_are_drawn_by_the_seed(tmp_path: Path) -> None:
    write_source(tmp_path, "ningbo", 30, 1)
    few = [load_cinc2021(tmp_path, seed, 0.3, patients=12) for seed in (0, 0, 1)]
    assert [len(one.cohort) for one in few] == [12, 12, 12]
    assert (
        few[0].cohort.age_years.tolist()
        == few[1].cohort.age_years.tolist()
        != few[2].cohort.age_years.tolist()
    )
    assert few[0].source == few[1].source != few[2].source
    assert len(load_cinc2021(tmp_path, 0, 0.3, patients=99).cohort) == 30


def test_what_headers_do_not_say_is_missing_and_codes_without_a_statement_are_counted(tmp_path: Path) -> None:
    signal = np.zeros((12, 500))
    group = tmp_path / "training" / "ptb" / "g1"
    write_record(group, "S1", signal, ["# Age: NaN", "# Sex: Unknown", "# Dx: 39732003,1"])
    write_record(group, "S2", signal, ["# Age: -1", "# Sex: F", "# Dx: Unknown"])
    write_record(group, "S3", signal, ["# Age: 300", "# Sex: M", "# Dx: 426783006 ,39732003"])
    dataset = load_cinc2021(tmp_path, 0, 0.4)
    assert np.isnan(dataset.cohort.age_years).all()
    np.testing.assert_array_equal(dataset.cohort.female, [np.nan, 1.0, 0.0])
    assert dataset.cohort.codes == ({}, {}, {"SR": 100.0})
    assert dataset.notes["records-without-a-statement"] == 2
    assert dataset.notes["snomed-codes-without-a-statement"] == 3
    assert (dataset.notes["ages-missing"], dataset.notes["sexes-missing"]) == (3, 1)


def refused(folder: Path, **options: list[str]) -> str:
    with pytest.raises(CohortError) as error:
        load_cinc2021(folder, 0, 0.3, **options)
    assert str(folder) not in str(error.value)
    return str(error.value)


def test_a_folder_that_is_none_and_a_source_that_is_not_there_are_refused(real: Path, tmp_path: Path) -> None:
    assert refused(tmp_path).startswith("FECG-616 folder of cinc2021: found no folder of a source;")
    assert "found no folder ptb, ningbo;" in refused(real, sources=["ptb", "georgia", "ningbo"])
    (tmp_path / "empty" / "training" / "ptb").mkdir(parents=True)
    assert "FECG-623 signal files: found 0 of 0 records" in refused(tmp_path / "empty")


def test_missing_files_are_counted_before_anything_is_read(real: Path) -> None:
    (real / "training/georgia/g1/E07500.mat").unlink()
    (real / "training/georgia/g1/E07501.hea").unlink()  # only RECORDS knows of it
    (real / "training/georgia/g1/RECORDS").write_text("E07500\nE07501\nE07502\n")
    assert (
        "FECG-623 signal files: found 2 of 10 records without a .hea or .mat file, in 2 source(s)"
        in refused(real)
    )


def test_headers_of_the_first_releases_are_refused_as_another_version(
    tmp_path: Path, data_root: Path
) -> None:
    group = tmp_path / "training" / "georgia" / "g1"
    shutil.copytree(data_root / "cinc2020", group)
    said = refused(tmp_path)
    assert said.startswith(
        "FECG-617 headers of cinc2021: found 28 of 28 as the Challenge's first releases wrote them"
    )
    assert "Fetch version 1.0.3 anew" in said


def test_a_header_that_is_none_is_counted(real: Path) -> None:
    (real / "training/georgia/g1/E07500.hea").write_bytes(b"\xff\xfe\0garbage")
    assert refused(real).startswith(
        "FECG-622 headers of cinc2021: found 1 of 10 that are no header of a record"
    )


def test_settings_of_another_source_are_refused() -> None:
    with pytest.raises(ValueError, match="expected sources only with source = cinc2021"):
        DataSettings(source="ptbxl", sources=["georgia"])
    with pytest.raises(ValueError, match="expected patients only with source = cinc2021 or mimic-iv-ecg"):
        DataSettings(source="code15", patients=10)
    with pytest.raises(SettingsError) as error:
        load_dataset(StudySettings(data=DataSettings(source="cinc2021")))
    assert "FECG-106" in str(error.value)


@pytest.mark.slow
def test_the_ready_made_study_runs_on_two_small_sources(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for source, seed in (("georgia", 1), ("ningbo", 2)):
        write_source(tmp_path / "set", source, 30, seed)
    settings = load_study(ROOT / "configs" / "cinc2021.toml")
    assert (settings.data.source, settings.partition.by) == ("cinc2021", "column")
    command = ["run", str(ROOT / "configs" / "cinc2021.toml"), "--data", str(tmp_path / "set")]
    command += ["--out", str(tmp_path / "run"), "--json", "--set", f"data.store={tmp_path / 'store'}", *SHORT]
    assert main(command) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["outcomes"] == "simulated"
    assert {row["site"] for row in summary["sites"]} == {"georgia", "ningbo"}
