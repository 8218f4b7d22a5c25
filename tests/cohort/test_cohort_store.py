"""A cohort on a signal store: rows by file name, refused and absent ECGs set aside, a table that training reads."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import wfdb
from cohort_hospital import HOSPITAL, SETTINGS, tables, write_hospital

from fedecg.cli import main
from fedecg.cohort import read_cohort, require_same_store
from fedecg.cohort.build import build_cohort
from fedecg.cohort.build_settings import load_cohort_settings
from fedecg.cohort.build_sources import file_key
from fedecg.config import SignalSettings, StudySettings, load_site
from fedecg.errors import CohortError, SignalError
from fedecg.representation.records import read_sites
from fedecg.signals import SignalStore, build_store
from fedecg.signals.purge import purge_rows
from fedecg.signals.recording import LEADS, Recording
from fedecg.text import load_bank
from fedecg.training import load_site_data
from fedecg_client.folder import SiteFolder
from fedecg_client.preflight.data import SiteDataChecks

IN_STORE = SETTINGS.replace('table = "ecgs.csv"', 'table = "ecgs.csv"\nstore = "store"')
FOUR = [one for one in HOSPITAL if one.name in ("p01", "p02", "p06", "p11")]


def write_ecg(folder: Path, name: str, *, flat: bool = False) -> None:
    noise = np.random.default_rng(len(name)).normal(scale=0.1, size=(1000, 12)).cumsum(axis=0) / 5
    wfdb.wrsamp(
        name, fs=100, units=["mV"] * 12, sig_name=list(LEADS), p_signal=noise * (not flat), fmt=["16"] * 12,
        adc_gain=[1000.0] * 12, baseline=[0] * 12, write_dir=str(folder),
    )  # fmt: skip


def ingest(folder: Path) -> None:
    words = [
        "data",
        "ingest",
        str(folder / "files"),
        "--out",
        str(folder / "store"),
        "--powerline",
        "50",
        "--jobs",
        "1",
    ]
    assert main(words) in (0, 5)


@pytest.fixture
def ingested(tmp_path: Path) -> Path:
    """Five ECGs of four patients, ingested from a folder of folders; p06a is flat and refused."""
    for name in ("p01", "p02", "p06a", "p06b", "p11"):
        (tmp_path / "files" / name[:2]).mkdir(parents=True, exist_ok=True)
        write_ecg(tmp_path / "files" / name[:2], name, flat=name == "p06a")
    ingest(tmp_path)
    return tmp_path


def test_the_cohort_names_the_stores_rows_and_training_reads_it(
    ingested: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_hospital(ingested, IN_STORE, tables(FOUR))
    assert main(["cohort", "build", str(ingested / "cohort.toml"), "--out", str(ingested / "out")]) == 0
    told = capsys.readouterr()
    assert "1 of 5 ECGs were refused by the signal store and were set aside" in " ".join(told.err.split())
    cohort = read_cohort(ingested / "out" / "cohort.csv")
    store = SignalStore.open(ingested / "store")
    source = dict(zip(cohort.record, cohort.follow_up_days, strict=True))
    by_file = {Path(store.facts["source"][row]).stem: days for row, days in source.items()}
    assert by_file == {"p01": 730.0, "p02": 365.0, "p06b": 546.0, "p11": 297.0}  # p06b: the first usable ECG
    assert all(store.codes[row] == "" for row in cohort.record)
    assert len(set(cohort.patient)) == 4
    assert "p01" not in (ingested / "out" / "cohort.csv").read_text()


def test_a_cohort_is_refused_with_another_store_than_it_was_built_on(
    ingested: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One more file moves every row: the table would name other patients' ECGs, all of them usable."""
    write_hospital(ingested, IN_STORE, tables(FOUR))
    build = ["cohort", "build", str(ingested / "cohort.toml"), "--out", str(ingested / "out")]
    assert main(build) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "no statements: alignment learns nothing from these ECGs; does the table of ECGs have" in told
    (ingested / "site.toml").write_text('name = "north"\ncohort = "out/cohort.csv"\nstore = "store"\n')
    bank = load_bank("minilm-demo")
    open_data = partial(load_site_data, ingested, StudySettings(), bank)
    before = open_data()
    assert before.store.key == json.loads((ingested / "out/cohort.json").read_text())["store-key"]

    write_ecg(ingested / "files", "another")
    shutil.rmtree(ingested / "store")
    ingest(ingested)
    together = "FECG-292 cohort table and signal store: found a table that was built on another store"
    with pytest.raises(CohortError, match=f"{together}.*Build the cohort again with this store"):
        open_data()
    checks = SiteDataChecks(SiteFolder(ingested, load_site(ingested / "site.toml")))
    assert checks.check_cohort().ok is not None
    assert checks.check_store().ok
    with pytest.raises(CohortError, match=together):
        checks.check_together()
    with pytest.raises(CohortError, match=together):
        read_sites(ingested, SignalSettings(), ingested / "unused")
    capsys.readouterr()
    assert main(["data", "report", str(ingested), "--out", str(ingested / "report")]) == 3
    assert together in " ".join(capsys.readouterr().err.split())

    note = (ingested / "out/cohort.json").read_text()
    for text, found in {
        "{": "text that is not JSON beside it",
        "[]": "a note beside it that names no store",
        '{"store-key": 1}': "a note beside it that names no store",
    }.items():
        (ingested / "out/cohort.json").write_text(text)
        with pytest.raises(CohortError, match=f"FECG-292 cohort table and signal store: found {found}"):
            open_data()
    (ingested / "out/cohort.json").write_text(note)
    assert main(build) == 0
    names = [
        Path(SignalStore.open(ingested / "store").facts["source"][row]).stem
        for row in open_data().cohort.record
    ]
    assert sorted(names) == ["p01", "p02", "p06b", "p11"]
    (ingested / "out/cohort.json").unlink()  # a table made otherwise: nothing is asked
    assert len(open_data().cohort) == 4


def test_a_cohort_outlives_the_purge_of_a_patient(ingested: Path) -> None:
    write_hospital(ingested, IN_STORE, tables(FOUR))
    assert main(["cohort", "build", str(ingested / "cohort.toml"), "--out", str(ingested / "out")]) == 0
    assert purge_rows(ingested / "store", [0]) == 1
    require_same_store(ingested / "out/cohort.csv", SignalStore.open(ingested / "store").key)


def test_a_used_folder_holds_the_tables_of_the_last_build_only(ingested: Path) -> None:
    def tables_after(settings: str) -> set[str]:
        write_hospital(ingested, settings, tables(FOUR))
        assert main(["cohort", "build", str(ingested / "cohort.toml"), "--out", str(out)]) == 0
        return {str(file.relative_to(out)) for file in out.rglob("cohort*")}

    out = ingested / "out"
    out.mkdir()
    (out / "fold-7").mkdir()
    (out / "fold-7" / "cohort.csv").write_text("not ours: nothing was built here")
    assert tables_after(IN_STORE) == {"cohort.csv", "cohort.json", "fold-7/cohort.csv"}
    (out / "fold-7" / "notes.txt").write_text("stays")
    in_folds = IN_STORE.replace("test = 0.25", "folds = 2")
    folds = {f"fold-{fold}/cohort.{kind}" for fold in (1, 2) for kind in ("csv", "json")}
    assert tables_after(in_folds) == folds
    assert (out / "fold-7" / "notes.txt").read_text() == "stays"
    assert tables_after(SETTINGS) == {"cohort-files.csv"}
    assert not (out / "fold-1").exists()
    assert tables_after(IN_STORE) == {"cohort.csv", "cohort.json"}


def test_an_ecg_that_the_store_lacks_is_set_aside_and_counted(ingested: Path) -> None:
    made = tables([*FOUR, next(one for one in HOSPITAL if one.name == "p09")])
    built = build_cohort(load_cohort_settings(write_hospital(ingested, IN_STORE, made)))
    assert built.fates["p09"] == "no-ecg"
    assert "1 of 6 ECGs are not in the signal store and were set aside" in built.flow.notes


def test_names_without_a_counterpart_are_refused(ingested: Path) -> None:
    made = tables(FOUR)
    made["ecgs.csv"] = [made["ecgs.csv"][0], ("p01", "2020-03-10", "elsewhere/x")]
    file = write_hospital(ingested, IN_STORE, made)
    with pytest.raises(
        CohortError, match=r"FECG-292 files of the table of ECGs: found 1 of 1 not in the signal store"
    ):
        build_cohort(load_cohort_settings(file))


def test_ecgs_of_one_file_are_told_by_their_index(tmp_path: Path) -> None:
    signal = np.random.default_rng(1).normal(scale=0.1, size=(4, 12, 1000)).cumsum(axis=2) / 5
    (tmp_path / "files").mkdir()
    for name, ecgs in {"many.npz": signal[:3], "single.npz": signal[3:]}.items():
        np.savez(tmp_path / "files" / name, signal=ecgs, rate_hz=100, unit="mV", leads=list(LEADS))
    ingest(tmp_path)
    made = tables(FOUR)
    head, rows = (
        ("patient", "date", "file", "nth"),
        [("p01", "many.npz", "2"), ("p02", "many.npz", "0"), ("p11", "single.npz", "")],
    )
    made["ecgs.csv"] = [head, *((name, "2020-03-10", file, nth) for name, file, nth in rows)]
    settings = IN_STORE.replace("[columns]\n", '[columns]\necgs = { index = "nth" }\n')
    built = build_cohort(load_cohort_settings(write_hospital(tmp_path, settings, made)))
    store = SignalStore.open(tmp_path / "store")
    row = [int(built.record[built.order[name]]) for name in ("p01", "p02", "p11")]
    assert [(store.facts["source"][one], store.facts["index"][one]) for one in row] == [
        ("many.npz", "2"), ("many.npz", "0"), ("single.npz", ""),
    ]  # fmt: skip


def test_a_store_that_names_no_files_or_is_none_is_refused(tmp_path: Path) -> None:
    file = write_hospital(tmp_path, IN_STORE, tables(FOUR))
    with pytest.raises(SignalError, match="FECG-215"):
        build_cohort(load_cohort_settings(file))
    noise = np.random.default_rng(0).normal(size=(12, 1000)).astype(np.float32)
    store = build_store(tmp_path, "0" * 64, SignalSettings(), [Recording(noise, 100)], powerline="none")
    store.folder.rename(tmp_path / "store")
    with pytest.raises(
        CohortError,
        match=r"FECG-292 signal store: found a manifest\.csv without the names of the files; expected a store that",
    ):
        build_cohort(load_cohort_settings(file))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("a/b/x.hea", "x"),
        ("x", "x"),
        (r"D:\ecg\x.XML", "x"),
        ("x.csv.gz", "x"),
        ("f.hdf5#12", "f#12"),
        ("x.2020", "x.2020"),
    ],
)
def test_the_last_part_of_a_name_is_what_two_tables_share(name: str, key: str) -> None:
    assert file_key(name) == key
