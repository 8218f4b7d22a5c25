"""Every reader on damaged files: no crash, no hang, no memory out of proportion, and no error without a code.

Readers of our own get 20,000 inputs a file, those that wrap a library 2,000; `make test` tries the first few of them.
Each shard runs in a process of its own, so that even a crash in a library's machine code would fail one test.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import wfdb
from damaged_files import main
from test_read_containers import ARRAYS, FACTS, STATED, csv_bytes, npz_bytes, parquet_bytes
from writers_vendor import aecg, cardiosoft, dicom, edf, muse, rows_of, sierra, whole_counts

from fedecg.signals import LEADS

HERE = Path(__file__).parent
OWN, WRAPPED, FEW, SHARDS = 20_000, 2_000, 40, 4
SLOWEST_S, ROOM_BYTES, TIMES = 5.0, 50_000_000, 10
COUNTS = whole_counts(600)
EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
VENDOR = Path("vendor/ecgtoolkit/Example.scp")

Writer = Callable[[Path], str]


def wfdb_record(folder: Path, form: str) -> None:
    signal = COUNTS.T * 0.005
    gain, width = (200.0, len(LEADS)) if form == "16" else (100.0, len(LEADS))
    wfdb.wrsamp(
        "rec", fs=500, units=["mV"] * width, sig_name=list(LEADS), p_signal=signal, fmt=[form] * width,
        adc_gain=[gain] * width, baseline=[0] * width, write_dir=str(folder),
    )  # fmt: skip


def one_file(name: str, content: Callable[[], bytes]) -> Writer:
    def write(folder: Path) -> str:
        (folder / name).write_bytes(content())
        return name

    return write


def of_wfdb(form: str, ending: str) -> Writer:
    def write(folder: Path) -> str:
        wfdb_record(folder, form)
        return next(file.name for file in folder.iterdir() if (file.suffix == ".hea") == (ending == "hea"))

    return write


def physionet_mat(ending: str) -> Writer:
    def write(folder: Path) -> str:
        scipy.io.savemat(folder / "rec.mat", {"val": COUNTS.astype(np.int16)}, format="4")
        lines = [f"rec {len(LEADS)} 500 {COUNTS.shape[1]}"]
        lines += [
            f"rec.mat 16+24 200/mV 16 0 {row[0]} 0 0 {lead}" for lead, row in zip(LEADS, COUNTS, strict=True)
        ]
        (folder / "rec.hea").write_text("\n".join([*lines, "# Age: 61", "# Dx: 426783006", ""]))
        return f"rec.{ending}"

    return write


def dicom_file(folder: Path) -> str:
    dicom(COUNTS, [(f"2:{place}", f"Lead {lead}") for place, lead in enumerate(LEADS, 1)], folder / "ecg.dcm")
    return "ecg.dcm"


def code15_file(folder: Path) -> str:
    with h5py.File(folder / "part.hdf5", "w") as file:
        file["tracings"] = np.zeros((2, 1024, 12), dtype=np.float32)
        file["tracings"][0, 200:800] = COUNTS.T * 0.005 + 0.001
        file["exam_id"] = np.array([7, 0])
    return "part.hdf5"


def matlab_file(folder: Path) -> str:
    scipy.io.savemat(
        folder / "a.mat", {"feats": COUNTS * 0.005, "curr_sample_rate": 500}, do_compression=True
    )
    return "a.mat"


def sph_file(folder: Path) -> str:
    with h5py.File(folder / "A00001.h5", "w") as file:
        file.create_dataset("ecg", data=(COUNTS * 0.005).astype(np.float16), compression="gzip")
    return "A00001.h5"


def numpy_file(folder: Path) -> str:
    with_facts(folder)
    return "a.npy"


def with_facts(folder: Path) -> str:
    np.save(folder / "a.npy", (COUNTS * 0.005).astype(np.float32))
    (folder / "a.npy.json").write_text(json.dumps(FACTS))
    return "a.npy.json"


MILLIVOLTS = (COUNTS * 0.005).astype(np.float32)
COLUMNS = dict(zip(LEADS, MILLIVOLTS, strict=True))
READERS: dict[str, tuple[Writer, int]] = {
    "wfdb-16-header": (of_wfdb("16", "hea"), OWN),
    "wfdb-16-samples": (of_wfdb("16", "dat"), OWN),
    "physionet-mat-header": (physionet_mat("hea"), OWN),
    "physionet-mat-samples": (physionet_mat("mat"), OWN),
    "cardiosoft": (one_file("a.xml", lambda: cardiosoft(COUNTS, COUNTS[:, :300])), OWN),
    "muse": (one_file("a.xml", lambda: muse(rows_of(COUNTS, EIGHT))), OWN),
    "sierra": (one_file("a.xml", lambda: sierra(COUNTS)), OWN),
    "aecg": (one_file("a.xml", lambda: aecg(COUNTS)), OWN),
    "matlab": (matlab_file, OWN),
    "csv": (one_file("a.csv", lambda: csv_bytes(MILLIVOLTS)), OWN),
    "npz": (one_file("a.npz", lambda: npz_bytes(signal=MILLIVOLTS, **ARRAYS)), OWN),
    "facts": (with_facts, OWN),
    "npy": (numpy_file, OWN),
    "wfdb-212": (of_wfdb("212", "hea"), WRAPPED),
    "wfdb-flac": (of_wfdb("516", "dat"), WRAPPED),
    "dicom": (dicom_file, WRAPPED),
    "edf": (one_file("a.edf", lambda: edf(np.tile(COUNTS, 5))), WRAPPED),
    "hdf5": (code15_file, WRAPPED),
    "hdf5-sph": (sph_file, WRAPPED),
    "parquet": (one_file("a.parquet", lambda: parquet_bytes(COLUMNS, STATED)), WRAPPED),
}  # fmt: skip


def faults(folder: Path, record: str, target: str, first: int, inputs: int) -> list[str]:
    """What went wrong over so many inputs, in a process of their own."""
    command = [
        sys.executable,
        str(HERE / "damaged_files.py"),
        str(folder),
        record,
        target,
        str(first),
        str(inputs),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    seed = folder.parent / "seed"
    last = seed.read_text().strip() if seed.exists() else "none"
    if done.returncode:
        return [f"the process ended with {done.returncode} at seed {last}: {done.stderr[-800:]}"]
    told = json.loads(done.stdout)
    wrong = {
        "other inputs than asked": told["inputs"] != inputs,
        "errors without a code": told["other"],
        "slow": told["slowest-s"] >= SLOWEST_S,
        "memory": told["growth"] > TIMES * told["largest"] + ROOM_BYTES,
        "the damage reached nothing": not set(told["codes"]) - {""},
    }
    return [f"{name}: {told}" for name, found in wrong.items() if found]


def write(name: str, folder: Path) -> tuple[str, str]:
    """The record's name and the file that is damaged."""
    folder.mkdir()
    target = READERS[name][0](folder)
    return {"facts": "a.npy", "wfdb-flac": "rec"}.get(name, target), target


@pytest.mark.parametrize("name", READERS)
def test_a_few_damaged_files_are_read_or_refused_with_a_code(name: str, tmp_path: Path) -> None:
    record, target = write(name, tmp_path / "sound")
    told = main(tmp_path / "sound", record, target, 0, FEW)
    assert (told["inputs"], told["other"]) == (FEW, [])
    assert set(told["codes"]) - {""}, f"the damage reached nothing: {told}"


@pytest.mark.parametrize(("name", "seed"), [("hdf5-sph", 1_001_452)])
def test_damage_that_once_escaped_is_refused_with_a_code(name: str, seed: int, tmp_path: Path) -> None:
    record, target = write(name, tmp_path / "sound")
    assert faults(tmp_path / "sound", record, target, seed, 1) == []


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused_with_a_code(name: str, shard: int, tmp_path: Path) -> None:
    record, target = write(name, tmp_path / "sound")
    inputs = READERS[name][1] // SHARDS
    assert faults(tmp_path / "sound", record, target, 1_000_000 + shard * inputs, inputs) == []


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(SHARDS))
def test_damaged_scp_files_are_read_or_refused_with_a_code(
    shard: int, data_root: Path, tmp_path: Path
) -> None:
    """The one format without a writer: a real file."""
    (tmp_path / "sound").mkdir()
    (tmp_path / "sound/a.scp").write_bytes((data_root / VENDOR).read_bytes())
    assert faults(tmp_path / "sound", "a.scp", "a.scp", shard * WRAPPED // SHARDS, WRAPPED // SHARDS) == []
