"""PTB-XL as it is published: folder, tables and folds -> one index ECG a patient, what is stated of it, its part.

In:  a folder with ptbxl_database.csv, scp_statements.csv and records100/ or records500/.
Out: a `PtbxlIndex`. Called by the simulations, which add outcomes (PTB-XL has no follow-up), and by `fedecg probe`.
     No message names a patient, a date or a file of a record.

Source of the data set: Wagner et al. 2020, Scientific Data 7:154, doi 10.1038/s41597-020-0495-6; CC BY 4.0.
"""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedecg.cohort.cohort import PARTS
from fedecg.errors import CohortError
from fedecg.files import in_words

__all__ = ["PtbxlIndex", "read_ptbxl"]

FILE_COLUMNS = {100: "filename_lr", 500: "filename_hr"}
WHOLE_COLUMNS = ("ecg_id", "patient_id", "strat_fold")
NUMBER_COLUMNS = ("age", "sex")
TEXT_COLUMNS = ("site", "device", "recording_date", "scp_codes", *FILE_COLUMNS.values())
AGE_OVER_89 = 300.0  # how PTB-XL writes an age above 89


@dataclass(frozen=True, eq=False)
class PtbxlIndex:
    """One ECG a patient, in the order of `ecg_id`.

    Attributes:
        names: N records, relative to the folder, without ending.
        patient: (N,) int64, numbered from 0.
        part: (N,) str, "train", "validation" or "test".
        age_years: (N,) float64, NaN = missing, 90 = above 89.
        female: (N,) float64, 1, 0 or NaN = missing.
        codes: N dictionaries, SCP code -> likelihood in percent.
        reports: N texts as published, "" = none: German at sites 0 and 2, English at 1, Swedish at 3 (of 51).
        site, device: (N,) str.
        year: (N,) str, of the recording as published.
        folds: what became which part.
        notes: counts of what was left out or altered.
        sha256: of all signal files.
    """

    names: tuple[str, ...] = field(repr=False)
    patient: NDArray[np.int64] = field(repr=False)
    part: NDArray[np.str_] = field(repr=False)
    age_years: NDArray[np.float64] = field(repr=False)
    female: NDArray[np.float64] = field(repr=False)
    codes: tuple[dict[str, float], ...] = field(repr=False)
    reports: tuple[str, ...] = field(repr=False)
    site: NDArray[np.str_] = field(repr=False)
    device: NDArray[np.str_] = field(repr=False)
    year: NDArray[np.str_] = field(repr=False)
    folds: dict[str, list[int] | str]
    notes: dict[str, int]
    sha256: str


def read_ptbxl(path: str | Path, records_hz: int) -> PtbxlIndex:
    """Read the tables and choose the ECGs; signals are not read, but their files must be there.

    One index ECG a patient: the earliest (by date, then by `ecg_id`). A patient with records in several folds
    goes wholly to test, else to validation. Ages above 89, published as 300, become 90; missing ages and sexes
    stay missing (NaN). `notes` counts what was left out or altered.

    Args:
        path: folder of PTB-XL.
        records_hz: 100 or 500, which of the published recordings to use.

    Raises:
        CohortError: FECG-621 a table is missing or not readable; FECG-622 columns or cells that cannot be used;
            FECG-623 signal files are missing; FECG-624 folds that do not make three parts.
    """
    folder = Path(path)
    table = _read_database(folder)
    codes = _codes(table, _known_codes(folder))
    part, folds = _parts(table)
    first = table.sort_values(["recording_date", "ecg_id"]).groupby("patient_id").head(1).index
    rows = np.sort(first.to_numpy())  # the table is in the order of ecg_id
    index = table.loc[rows]
    age = np.where(index["age"] == AGE_OVER_89, 90.0, index["age"].to_numpy(np.float64))
    female = index["sex"].to_numpy(np.float64)  # PTB-XL: 0 male, 1 female
    names = tuple(index[FILE_COLUMNS[records_hz]])
    return PtbxlIndex(
        names=names,
        patient=np.unique(index["patient_id"], return_inverse=True)[1].astype(np.int64),
        part=part[rows],
        age_years=age,
        female=female,
        codes=tuple(codes[row] for row in rows),
        reports=tuple(index["report"]),
        site=np.array([_site_name(site) for site in index["site"]]),
        device=np.array([_device_name(device) for device in index["device"]]),
        year=np.array([_year(date) for date in index["recording_date"]]),
        folds=folds,
        notes={
            "records": len(table),
            "later-ecgs-left-out": len(table) - len(rows),
            "patients-in-several-folds": int((table.groupby("patient_id")["strat_fold"].nunique() > 1).sum()),
            "ages-missing": int(np.isnan(age).sum()),
            "ages-above-89-set-to-90": int((index["age"] == AGE_OVER_89).sum()),
            "sexes-missing": int(np.isnan(female).sum()),
        },
        sha256=_files_sha256(folder, names),
    )


def _read_database(folder: Path) -> pd.DataFrame:
    """The columns that are used, typed, in the order of ecg_id; row labels 0..N-1."""
    text = _read_csv(folder / "ptbxl_database.csv")
    missing = [name for name in (*WHOLE_COLUMNS, *NUMBER_COLUMNS, *TEXT_COLUMNS) if name not in text]
    if missing:
        _refuse_cells(f"{len(missing)} column(s) missing: {', '.join(missing)}", "the columns as published")
    table = text[list(TEXT_COLUMNS)].copy()
    table["report"] = text["report"].fillna("") if "report" in text else ""  # only [text] asks for it
    for name in (*WHOLE_COLUMNS, *NUMBER_COLUMNS):
        table[name] = pd.to_numeric(text[name], errors="coerce")
        unusable = table[name].isna()
        if name in WHOLE_COLUMNS:
            unusable |= table[name] % 1 != 0
        else:
            unusable &= text[name].notna()
        _refuse_if(name, unusable, "a number in every row" if name in WHOLE_COLUMNS else "a number or blank")
    _refuse_if("sex", ~(table["sex"].isna() | table["sex"].isin((0, 1))), "0, 1 or blank")
    _refuse_if("strat_fold", ~table["strat_fold"].between(1, 10), "1..10")
    _refuse_if("ecg_id", table["ecg_id"].duplicated(), "each at most once")
    for name in FILE_COLUMNS.values():
        _refuse_if(name, table[name].isna(), "a file name in every row")
    return table.sort_values("ecg_id", ignore_index=True)


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str, encoding="utf-8")
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise CohortError(
            "FECG-621",
            path.name,
            found=in_words(error),
            expected="the table as PTB-XL publishes it",
            fix="Give the folder that holds ptbxl_database.csv: --data PATH.",
        ) from None


def _known_codes(folder: Path) -> set[str]:
    statements = _read_csv(folder / "scp_statements.csv")
    return set(statements[statements.columns[0]].dropna())


def _codes(table: pd.DataFrame, known: set[str]) -> list[dict[str, float]]:
    codes = [_parse_codes(cell) for cell in table["scp_codes"]]
    _refuse_if("scp_codes", pd.Series([stated is None for stated in codes]), "{'CODE': likelihood, ...}")
    read = [stated for stated in codes if stated is not None]
    foreign = pd.Series([not known.issuperset(stated) for stated in read])
    _refuse_if("scp_codes", foreign, "codes that stand in scp_statements.csv")
    return read


def _parse_codes(cell: object) -> dict[str, float] | None:
    try:
        stated = ast.literal_eval(str(cell))
        return {str(code): float(likelihood) for code, likelihood in stated.items()}
    except (ValueError, SyntaxError, TypeError, AttributeError, MemoryError, RecursionError):
        return None


def _parts(table: pd.DataFrame) -> tuple[NDArray[np.str_], dict[str, list[int] | str]]:
    """Part of every record, by patient, from the folds; the highest fold is test, the next validation.

    Where 9 and 10 are there, that is PTB-XL's own recommendation; where one is absent, others stand in.
    """
    present = sorted({int(fold) for fold in table["strat_fold"]})
    if len(present) < len(PARTS):
        _refuse_folds(f"{len(present)} fold(s)")
    *train, validation, test = present
    rank = table["strat_fold"].map({validation: 1, test: 2}).fillna(0).astype(int)
    rank = rank.groupby(table["patient_id"]).transform("max")
    if rank.nunique() < len(PARTS):
        _refuse_folds("a part without patients, once each patient has one part")
    folds: dict[str, list[int] | str] = {"train": train, "validation": [validation], "test": [test]}
    absent = [str(fold) for fold in (9, 10) if fold not in present]
    if absent:
        folds["note"] = f"no fold {' or '.join(absent)}: the highest two present stand in, by patient"
    return np.array(PARTS)[rank.to_numpy()], folds


def _files_sha256(folder: Path, names: tuple[str, ...]) -> str:
    """Hash of all files in order, so that a store is rebuilt when any was mended (about 2 s a gigabyte)."""
    digest = hashlib.sha256()
    missing = 0
    for name in names:
        try:
            content = (folder / f"{name}.hea").read_bytes() + (folder / f"{name}.dat").read_bytes()
        except OSError:
            missing += 1
        else:
            digest.update(f"{name} {len(content)}\n".encode() + content)
    if missing:
        raise CohortError(
            "FECG-623",
            "signal files",
            found=f"{missing} of {len(names)} records without a .hea or .dat file",
            expected="records100/ or records500/ as published",
            fix="Complete the download, or set data.records-hz to the folder that is complete.",
        )
    return digest.hexdigest()


def _site_name(cell: object) -> str:
    """'0.0' -> 'site-0'; blank -> 'site-unknown'."""
    if pd.isna(cell):  # type: ignore[call-overload]
        return "site-unknown"
    text = str(cell).strip()
    return f"site-{text.removesuffix('.0')}"


def _device_name(cell: object) -> str:
    """'CS-12   E ' -> 'CS-12 E'; blank -> 'unknown'."""
    return "unknown" if pd.isna(cell) else " ".join(str(cell).split())  # type: ignore[call-overload]


def _year(cell: object) -> str:
    """'1984-11-09 09:17:34' -> '1984'; anything else -> 'unknown'."""
    year = str(cell).strip()[:4]
    return year if year.isdecimal() and len(year) == 4 else "unknown"


def _refuse_if(column: str, bad: pd.Series[bool], expected: str) -> None:
    if bad.any():
        _refuse_cells(f"{int(bad.sum())} of {len(bad)} unusable cells in column {column}", expected)


def _refuse_cells(found: str, expected: str) -> NoReturn:
    raise CohortError(
        "FECG-622",
        "ptbxl_database.csv",
        found=found,
        expected=expected,
        fix="Compare the file with the published one (SHA256SUMS.txt).",
    )


def _refuse_folds(found: str) -> NoReturn:
    raise CohortError(
        "FECG-624",
        "strat_fold",
        found=found,
        expected="at least 3 folds, each of train, validation and test with a patient",
    )
