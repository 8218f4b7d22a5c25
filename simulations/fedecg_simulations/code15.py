"""CODE-15 % as it is published, as a `Dataset`: the first exam of each patient, with OBSERVED death of any cause.

In:  a folder with exams.csv and any of exams_part0.hdf5 to exams_part17.hdf5.
Out: one ECG a patient, parts by patient. Called by `sources`. No message names a patient, an exam or a file of one.

`death` and `timey` (years to death, or to the end of follow-up) are stated for the first exam of a patient only; who
lacks them, or has 0 years, has no follow-up and is left out and counted. The six findings and `normal_ecg` become SCP
codes. It is one network of telehealth: it has no sites, so a study deals its patients (Dirichlet or by size).

Source of the data set: Ribeiro et al. 2021, doi 10.5281/zenodo.4916206; CC BY 4.0. Mortality: Lima et al. 2021, Nature
Communications 12:5117.
"""

from __future__ import annotations

import atexit
import hashlib
import zlib
from contextlib import ExitStack
from functools import lru_cache, partial
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedecg.cohort import Cohort, split_by_patient
from fedecg.errors import CohortError
from fedecg.files import in_words
from fedecg.signals import Recording
from fedecg.signals.hdf5 import exam_ids, open_hdf5
from fedecg.signals.stated import Rows
from fedecg_simulations.dataset import Dataset
from fedecg_simulations.index_ecgs import SHARES, SHARES_IN_WORDS

__all__ = ["load_code15"]

ENDPOINT = "death of any cause"
DAYS_A_YEAR = 365.25
# Column of exams.csv -> SCP code. The set's block diagrams are complete blocks, its bradycardia and tachycardia sinus.
FINDINGS = {
    "1dAVb": "1AVB",
    "RBBB": "CRBBB",
    "LBBB": "CLBBB",
    "SB": "SBRAD",
    "ST": "STACH",
    "AF": "AFIB",
    "normal_ecg": "NORM",
}
STATED = 100.0  # likelihood of a finding that is stated
NUMBERS = ("exam_id", "patient_id", "age", "timey")
FLAGS = ("is_male", "death", *FINDINGS)
TRUTH = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}
OLDEST_YEARS = 120.0


def load_code15(path: str | Path, seed: int) -> Dataset:
    """Read the table and find the ECGs. Signals are read later, by `recordings`.

    Args:
        path: folder of CODE-15 %. Parts that are not there leave their exams out, counted in `notes`.
        seed: of the study; decides who is in which part.

    Raises:
        CohortError: FECG-621 the table is missing or not readable; FECG-622 columns or cells that cannot be used;
            FECG-623 no signal file, or none with a patient of known follow-up.
        SignalError: FECG-276, FECG-277, FECG-284 a part that cannot be read.
    """
    folder = Path(path)
    table = _read_exams(folder / "exams.csv")
    first, notes = _first_exams(table)
    index, places, files = _found(folder, first)
    notes["exams-in-parts-that-are-not-there"] = len(first) - len(index)
    if not len(index):
        _refuse_signals(f"0 of {len(first)} first exams in them")
    patient = np.unique(index["patient_id"], return_inverse=True)[1].astype(np.int64)
    event = index["death"].to_numpy() == 1
    rng = np.random.default_rng([seed, zlib.crc32(b"parts of code15")])
    age = index["age"].to_numpy(np.float64)
    cohort = Cohort(
        record=np.arange(len(index)),
        patient=patient,
        part=split_by_patient(patient, event, SHARES, rng),
        event=event,
        follow_up_days=index["timey"].to_numpy(np.float64) * DAYS_A_YEAR,
        entry_days=np.zeros(len(index)),
        died=np.zeros(len(index), dtype=np.bool_),  # death is the event, and nothing competes with it
        age_years=np.where((age >= 0) & (age <= OLDEST_YEARS), age, np.nan),
        female=1.0 - index["is_male"].to_numpy(np.float64),
        codes=_codes(index),
    )
    cohort.validate()
    return Dataset(
        cohort=cohort,
        columns={"site": np.full(len(index), "code15"), "device": np.full(len(index), "unknown")},
        recordings=[partial(_recording, file, row) for file, row in places],
        source=f"code15, {len(index)} exams, sha256 {_state_sha256(files, places)}",
        outcomes="observed",
        true_log_hazard=None,
        folds={**SHARES_IN_WORDS, "note": "drawn by patient and death"},
        notes={**notes, "ages-missing": int(np.isnan(cohort.age_years).sum())},
        endpoint=ENDPOINT,
    )


def _read_exams(path: Path) -> pd.DataFrame:
    """The columns that are used, as numbers; blank cells and unknown words of flags are NaN."""
    try:
        text = pd.read_csv(path, dtype=str, encoding="utf-8")
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise CohortError(
            "FECG-621",
            path.name,
            found=in_words(error),
            expected="the table as CODE-15 % publishes it",
            fix="Give the folder that holds exams.csv and exams_part*.hdf5: --data PATH.",
        ) from None
    missing = [name for name in (*NUMBERS, *FLAGS, "trace_file") if name not in text]
    if missing:
        _refuse_cells(f"{len(missing)} column(s) missing: {', '.join(missing)}", "the columns as published")
    table = pd.DataFrame({"trace_file": text["trace_file"].fillna("").str.strip()})
    for name in NUMBERS:
        table[name] = pd.to_numeric(text[name], errors="coerce")
        _refuse_if(name, table[name].isna() & text[name].notna(), "a number or blank")
    for name in FLAGS:
        table[name] = text[name].str.strip().str.casefold().map(TRUTH)
        _refuse_if(name, table[name].isna() & text[name].notna(), "True, False or blank")
    for name in ("exam_id", "patient_id"):
        _refuse_if(name, table[name].isna() | (table[name] % 1 != 0), "a whole number in every row")
    _refuse_if("exam_id", table["exam_id"].duplicated(), "each at most once")
    return table


def _first_exams(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """Rows with follow-up, one a patient, in the order of `exam_id`; what was left out."""
    stated = table[table["death"].notna() & table["timey"].notna()]
    followed = stated[np.isfinite(stated["timey"]) & (stated["timey"] > 0)].sort_values("exam_id")
    first = followed.drop_duplicates("patient_id")
    return first, {
        "records": len(table),
        "exams-without-follow-up-left-out": len(table) - len(stated),
        "exams-with-0-years-left-out": len(stated) - len(followed),
        "later-ecgs-left-out": len(followed) - len(first),
    }


def _found(folder: Path, first: pd.DataFrame) -> tuple[pd.DataFrame, list[tuple[Path, int]], list[Path]]:
    """The exams whose ECG is there: rows, file and place of each, and the files."""
    names = sorted(set(first["trace_file"]))
    plain = [name for name in names if name and Path(name).name == name]
    files = [folder / name for name in plain if (folder / name).is_file()]
    if not files:
        _refuse_signals("none of them")
    at = {int(exam): (file, row) for file in files for row, exam in enumerate(exam_ids(file).tolist())}
    here = first["exam_id"].astype(np.int64).isin(at.keys())
    index = first[here]
    # In the order of files and rows, so that each file is opened once and read from its start.
    places = [at[int(exam)] for exam in index["exam_id"]]
    order = sorted(range(len(places)), key=lambda number: places[number])
    return index.iloc[order], [places[number] for number in order], files


def _codes(index: pd.DataFrame) -> tuple[dict[str, float], ...]:
    stated = {code: index[column].to_numpy() == 1 for column, code in FINDINGS.items()}
    return tuple({code: STATED for code, flags in stated.items() if flags[row]} for row in range(len(index)))


def _recording(file: Path, row: int) -> Recording:
    return _open(file).read(row)


@lru_cache(maxsize=1)  # rows come in the order of files; the one before is closed when the next is opened
def _open(file: Path) -> Rows:
    _OPENED.close()
    return _OPENED.enter_context(open_hdf5(file))


_OPENED = ExitStack()
atexit.register(_OPENED.close)  # while h5py can still close it


def _state_sha256(files: list[Path], places: list[tuple[Path, int]]) -> str:
    """Hash of names, sizes, times of change and rows: 40 GB are not read to know that they are the same."""
    digest = hashlib.sha256()
    for file in files:
        state = file.stat()
        digest.update(f"{file.name} {state.st_size} {state.st_mtime_ns}\n".encode())
    digest.update("".join(f"{file.name} {row}\n" for file, row in places).encode())
    return digest.hexdigest()


def _refuse_if(column: str, bad: pd.Series[bool] | NDArray[np.bool_], expected: str) -> None:
    if bad.any():
        _refuse_cells(f"{int(bad.sum())} of {len(bad)} unusable cells in column {column}", expected)


def _refuse_cells(found: str, expected: str) -> NoReturn:
    raise CohortError(
        "FECG-622",
        "exams.csv",
        found=found,
        expected=expected,
        fix="Compare the file with the published one.",
    )


def _refuse_signals(found: str) -> NoReturn:
    raise CohortError(
        "FECG-623",
        "signal files",
        found=found,
        expected="exams_part*.hdf5 that exams.csv names, as published, one or more",
        fix="Unpack the parts beside exams.csv.",
    )
