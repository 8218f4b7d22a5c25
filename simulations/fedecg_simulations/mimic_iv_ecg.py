"""MIMIC-IV-ECG as it is published, as a `Dataset`; outcomes OBSERVED where MIMIC-IV is given, else SIMULATED.

In:  a folder with record_list.csv, machine_measurements.csv and files/pNNNN/...; patients of pNNNN folders that are not
     there are left out and counted. For outcomes: a folder of MIMIC-IV, its tables below hosp/ or in it.
Out: one index ECG a patient; statements by `machine_reports`; device = the cart. Called by `sources`.
     No message names a patient, a study, a date or a file of a record.

Without MIMIC-IV there is neither age nor sex. Dates are shifted by patient: only days between them mean something.

Source of the data set: Gow et al. 2023, doi 10.13026/4nqg-sb35, version 1.0, Open Data Commons Open Database License.
MIMIC-IV: Johnson et al. 2024, doi 10.13026/kpb9-mt58; for credentialed users of PhysioNet.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedecg.errors import CohortError
from fedecg.files import in_words
from fedecg.signals import read_recording
from fedecg_simulations.dataset import Dataset
from fedecg_simulations.index_ecgs import IndexEcgs, drawn_patients
from fedecg_simulations.machine_reports import report_codes
from fedecg_simulations.mimic_outcomes import observed_outcomes
from fedecg_simulations.simulated_outcomes import with_simulated_outcomes

__all__ = ["MEASUREMENT_COLUMNS", "RECORD_COLUMNS", "load_mimic_iv_ecg"]

RECORD_COLUMNS = ("subject_id", "study_id", "file_name", "ecg_time", "path")
REPORTS = tuple(f"report_{number}" for number in range(18))
MEASUREMENT_COLUMNS = ("subject_id", "study_id", "cart_id", *REPORTS)
ROWS_AT_ONCE = 50_000  # of 800,035 rows with 18 texts each
TIME = r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}(?::\d{2})?"


def load_mimic_iv_ecg(
    path: str | Path,
    seed: int,
    event_fraction: float,
    clinical: str = "",
    rules: str = "",
    patients: int = 0,
) -> Dataset:
    """Read the tables and choose the ECGs. Signals are read later, by `recordings`.

    Args:
        path: folder of MIMIC-IV-ECG.
        seed: of the study; decides parts, simulated outcomes and, with `patients`, who is taken.
        event_fraction: share of simulated events, in (0, 1).
        clinical: folder of MIMIC-IV; "": outcomes are simulated, and the first ECG of each patient is taken.
        rules: "paper-hyp", "paper-mi" or "" (everybody without heart failure) for observed outcomes.
        patients: so many patients, drawn at random before any rule; 0 = all.

    Raises:
        CohortError: FECG-616 nothing of the layout is there; FECG-617 columns of another version; FECG-621 a table that
            cannot be read; FECG-622 cells that cannot be used; FECG-623 signal files are missing; with `clinical` what
            `observed_outcomes` raises.
    """
    folder = Path(path)
    records = _read_records(folder / "record_list.csv")
    there, notes = _in_folders(folder, records)
    there = _of_some_patients(there, patients, seed)
    observed = observed_outcomes(there, Path(clinical), rules, seed) if clinical else None
    index = there.loc[observed.rows] if observed else _first_ecgs(there)
    _require_signals(folder, index)
    codes, cart = _measurements(folder / "machine_measurements.csv", index["study_id"])
    ecgs = IndexEcgs(
        age_years=observed.age_years if observed else np.full(len(index), np.nan),
        female=observed.female if observed else np.full(len(index), np.nan),
        codes=codes,
        columns={
            "site": np.full(len(index), "mimic-iv-ecg"),
            "device": cart,
            **(observed.columns if observed else {}),
        },
        recordings=[partial(read_recording, folder / name) for name in index["path"]],
        source=f"mimic-iv-ecg, {len(index)} records, sha256 {_state_sha256(folder, index)}",
        notes=notes
        | {
            "later-or-other-ecgs-left-out": len(there) - len(index),
            "reports-without-a-statement": sum(not stated for stated in codes),
        }
        | (dict(observed.notes) if observed else {}),
    )
    return observed.dataset(ecgs) if observed else with_simulated_outcomes(ecgs, seed, event_fraction)


def _read_records(path: Path) -> pd.DataFrame:
    """The table of ECGs, as text, in the order of patient, time and study."""
    table = _read_csv(path, RECORD_COLUMNS)
    whole = table[["subject_id", "study_id"]].apply(lambda column: column.str.fullmatch(r"\d{1,18}"))
    for name in ("subject_id", "study_id"):
        _refuse_if(name, ~whole[name].fillna(False).astype(bool), "a whole number in every row")
    _refuse_if("study_id", table["study_id"].duplicated(), "each at most once")
    timed = table["ecg_time"].str.fullmatch(TIME).fillna(False).astype(bool)
    _refuse_if("ecg_time", ~timed, "YYYY-MM-DD HH:MM:SS in every row")
    inside = [_is_inside(cell) for cell in table["path"]]
    _refuse_if("path", ~pd.Series(inside, dtype=bool), "files/pNNNN/... below the folder")
    return table.sort_values(["subject_id", "ecg_time", "study_id"], ignore_index=True)


def _is_inside(cell: object) -> bool:
    parts = PurePosixPath(str(cell)).parts
    return len(parts) > 2 and parts[0] == "files" and ".." not in parts and "\\" not in str(cell)


def _in_folders(folder: Path, records: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """Records of the pNNNN folders that are there, and how many are not."""
    group = records["path"].str.split("/", n=2).str[1]
    present = [name for name in group.unique() if (folder / "files" / name).is_dir()]
    if not present:
        raise CohortError(
            "FECG-616",
            "folder of mimic-iv-ecg",
            found=f"none of {group.nunique()} folders of the record list below files/",
            expected="files/pNNNN/ as published, one or more",
            fix="Fetch some: fedecg-simulate data fetch mimic-iv-ecg PATH --only files/p1000.",
        )
    there = records[group.isin(present)]
    return there, {
        "records": len(records),
        "records-in-folders-that-are-not-there": len(records) - len(there),
    }


def _of_some_patients(records: pd.DataFrame, patients: int, seed: int) -> pd.DataFrame:
    subjects = records["subject_id"].unique()
    chosen = subjects[drawn_patients(len(subjects), patients, seed)]
    return records[records["subject_id"].isin(chosen)].reset_index(drop=True)


def _first_ecgs(records: pd.DataFrame) -> pd.DataFrame:
    return records.drop_duplicates("subject_id")  # they are in the order of time


def _require_signals(folder: Path, index: pd.DataFrame) -> None:
    missing = sum(
        not ((folder / f"{name}.hea").is_file() and (folder / f"{name}.dat").is_file())
        for name in index["path"]
    )
    if missing:
        raise CohortError(
            "FECG-623",
            "signal files",
            found=f"{missing} of {len(index)} records without a .hea or .dat file, in pNNNN folders that are there",
            expected="whole pNNNN folders",
            fix="Complete the download: fedecg-simulate data fetch mimic-iv-ecg PATH --only files/pNNNN.",
        )


def _measurements(
    path: Path, studies: pd.Series[str]
) -> tuple[tuple[dict[str, float], ...], NDArray[np.str_]]:
    """What the machine says of each study, and its cart; nothing and "unknown" of a study without a row."""
    wanted = {study: row for row, study in enumerate(studies)}
    codes: list[dict[str, float]] = [{} for _ in wanted]
    cart = np.full(len(wanted), "unknown", dtype=object)
    _read_csv(path, MEASUREMENT_COLUMNS, rows=1)  # columns are checked before the work begins
    columns = list(MEASUREMENT_COLUMNS)
    with pd.read_csv(path, dtype=str, encoding="utf-8", usecols=columns, chunksize=ROWS_AT_ONCE) as pieces:
        for piece in pieces:
            for cells in piece[piece["study_id"].isin(wanted.keys())].fillna("").itertuples(index=False):
                row = wanted[str(cells.study_id)]
                codes[row] = report_codes(str(getattr(cells, name)) for name in REPORTS)
                cart[row] = "cart-" + str(cells.cart_id) if cells.cart_id else "unknown"
    return tuple(codes), cart.astype(np.str_)


def _read_csv(path: Path, columns: tuple[str, ...], rows: int | None = None) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, encoding="utf-8", nrows=rows)
    except FileNotFoundError:
        _refuse_table("FECG-616", path.name, "no such file", "the tables of MIMIC-IV-ECG in its folder")
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        _refuse_table("FECG-621", path.name, in_words(error), "the table as MIMIC-IV-ECG publishes it")
    missing = [name for name in columns if name not in table]
    if missing:
        found = f"{len(missing)} column(s) missing: {', '.join(missing[:5])}"
        _refuse_table("FECG-617", path.name, found, "the columns of version 1.0")
    return table[list(columns)]


def _state_sha256(folder: Path, index: pd.DataFrame) -> str:
    """Hash of names, sizes and times of change: 90 GB are not read to know that they are the same."""
    digest = hashlib.sha256()
    for name in index["path"]:
        for ending in (".hea", ".dat"):
            state = (folder / f"{name}{ending}").stat()
            digest.update(f"{name}{ending} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _refuse_if(column: str, bad: pd.Series[bool], expected: str) -> None:
    if bad.any():
        found = f"{int(bad.sum())} of {len(bad)} unusable cells in column {column}"
        _refuse_table("FECG-622", "record_list.csv", found, expected)


def _refuse_table(code: str, table: str, found: str, expected: str) -> NoReturn:
    raise CohortError(
        code,
        table,
        found=found,
        expected=expected,
        fix="Compare the folder with the published one: fedecg-simulate data check mimic-iv-ecg PATH.",
    ) from None
