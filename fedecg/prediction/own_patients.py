"""An outside hospital's patients: its table of outcomes, its ECGs, and the log hazards that a model gives them.

In:  a site folder; or a table (csv) and a folder of record files or a signal store.
Out: `OwnPatients`. Called by `outside`. Nothing leaves the hospital, and no message holds a cell of the table.

The table needs less than a study's: `patient` (any text), `event`, `follow_up_days`, and `file` (its record in the
folder) or `record` (its row of the store). It may have `part`, `entry_days`, `died`, `age_years`, `female`.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort import ALIGN, Cohort, require_same_store
from fedecg.config import load_site
from fedecg.errors import CohortError, ModelError
from fedecg.files import in_words
from fedecg.prediction.files import predict_files
from fedecg.prediction.predictor import Model, Prediction
from fedecg.privacy.withdrawal import read_site_cohort
from fedecg.progress import Progress
from fedecg.signals import SignalStore
from fedecg.training import SiteData, log_hazards

__all__ = ["OwnPatients", "Part", "patients_of_site", "patients_of_table"]

Part = Literal["all", "train", "validation", "test"]
Rows = NDArray[np.int64]
Float64 = NDArray[np.float64]

NAME = "this-hospital"  # where no site.toml says another
NEEDED = ("patient", "event", "follow_up_days")
OPTIONAL = {"part": "test", "entry_days": "0", "died": "0", "age_years": "", "female": ""}


@dataclass(frozen=True, eq=False)
class OwnPatients:
    """Patients whom the model has scored.

    Attributes:
        name: of the hospital.
        cohort: one row a patient, n of them.
        log_hazard: (n,).
        left_out: FECG code -> patients whose ECG cannot be used.
    """

    name: str
    cohort: Cohort = field(repr=False)
    log_hazard: Float64 = field(repr=False)
    left_out: dict[str, int]


def patients_of_site(model: Model, folder: Path, part: Part) -> OwnPatients:
    """Those of a site folder: site.toml names a signal store and a study's cohort table; codes are not read.

    Raises:
        SettingsError, SignalError, CohortError: site.toml, store or table cannot be used; FECG-266, FECG-267.
        ModelError: FECG-350 a store of other signals; FECG-326 log hazards that are not finite.
    """
    settings = load_site(folder / "site.toml")
    cohort = read_site_cohort(folder, settings.cohort)
    return _of_store(model, settings.name, cohort, Path(settings.cohort), Path(settings.store), part)


def patients_of_table(
    model: Model,
    table: Path,
    part: Part,
    *,
    records: Path | None = None,
    store: Path | None = None,
    progress: Progress | None = None,
) -> OwnPatients:
    """Those of a table whose ECGs are files in a folder (`records`), or rows of a signal store (`store`).

    Files are read and preprocessed as the model says. A record that cannot be used leaves its patient out, by code.

    Args:
        records: folder that the cells of the column `file` start from. store: to which `record` refers.
        progress: says how far the reading of files is.

    Raises:
        CohortError: FECG-268 the table, or neither records nor a store; FECG-269 cells; FECG-222..230 as
            `Cohort.validate`; FECG-266 nobody to evaluate; FECG-267 a patient with several records.
        SignalError, ModelError: as `patients_of_site`.
    """
    if records is None and store is None:
        _refuse_table("a table, and neither --records nor --store", "where the ECGs of its patients are")
    cells = _read_table(table, "file" if store is None else "record")
    cohort = _cohort(cells)
    if store is not None:
        return _of_store(model, NAME, cohort, table, store, part)
    rows = _rows(cohort, part)
    names = [str(Path(records or "") / cells["file"][row]) for row in rows]
    predictions = _predictions(model, names, progress)
    eta = np.array([np.nan if one.log_hazard is None else one.log_hazard for one in predictions])
    left_out = Counter(one.code for one in predictions if one.code)
    usable = np.isfinite(eta)
    if not usable.any():
        _refuse_patients(f"{len(rows)} patients, none of whom has an ECG that can be used")
    return OwnPatients(NAME, cohort.select(rows[usable]), eta[usable], dict(sorted(left_out.items())))


def _predictions(model: Model, names: Sequence[str], progress: Progress | None) -> list[Prediction]:
    if progress is None:
        rows = predict_files(model, names)
    else:
        with progress.task("ECGs", len(names)) as advance:
            rows = predict_files(model, names, progress=advance)
    return [row.prediction for row in rows]


def _of_store(model: Model, name: str, cohort: Cohort, table: Path, folder: Path, part: Part) -> OwnPatients:
    store = SignalStore.open(folder)
    require_same_store(table, store.key)
    needed = model.signals.model_dump(by_alias=True)
    held = {"input": "rhythm"} | store.settings  # stores of before there were median beats do not say
    # A notch is the hospital's own choice: its mains are not those of the model's study.
    other = [key for key in needed if key != "powerline" and held.get(key) != needed[key]]
    if other:
        raise ModelError(
            "FECG-350",
            "signal store",
            found=f"{len(other)} setting(s) other than the model's: {', '.join(other)}",
            expected=", ".join(f"{key} = {needed[key]}" for key in other),
            fix="Build the store with the [signals] settings in model.json, or name the files with --records.",
        )
    site = SiteData(name, cohort, store, np.zeros((len(cohort), 0), dtype=np.float32))
    rows = _rows(cohort, part)
    return OwnPatients(name, cohort.select(rows), log_hazards(model.saved.network, site, rows), {})


def _rows(cohort: Cohort, part: Part) -> Rows:
    """Rows of the part, one a patient."""
    known = cohort.part != ALIGN
    rows = np.flatnonzero(known & ((cohort.part == part) | (part == "all")))
    if not rows.size:
        _refuse_patients(f"0 of {len(cohort)} rows of the cohort table in the part asked for")
    several = rows.size - len(np.unique(cohort.patient[rows]))
    if several:
        raise CohortError(
            "FECG-267",
            "records to evaluate",
            found=f"{several} of {rows.size} that are a patient's second or later record",
            expected="one index ECG a patient",
            fix="Leave one record a patient in the cohort table, or choose --part test.",
        )
    return rows


def _cohort(cells: dict[str, list[str]]) -> Cohort:
    """A table's cells as a `Cohort`: patients become numbers in the order of their names."""
    patients, number = np.unique(np.array(cells["patient"], dtype=np.str_), return_inverse=True)
    if "" in patients:
        _refuse_cells("patient", sum(not cell for cell in cells["patient"]), len(number), "a name a patient")
    size = len(number)
    record = _numbers(cells, "record", "whole numbers") if "record" in cells else np.arange(size, dtype=float)
    cohort = Cohort(
        record=record.astype(np.int64),
        patient=number.astype(np.int64).reshape(size),
        part=np.array(cells["part"], dtype=np.str_),
        event=_numbers(cells, "event", "0 or 1", (0.0, 1.0)).astype(np.bool_),
        follow_up_days=_numbers(cells, "follow_up_days", "numbers, in days"),
        entry_days=_numbers(cells, "entry_days", "numbers, in days"),
        died=_numbers(cells, "died", "0 or 1", (0.0, 1.0)).astype(np.bool_),
        age_years=_numbers(cells, "age_years", "numbers or blank", blank=True),
        female=_numbers(cells, "female", "1, 0 or blank", blank=True),
        codes=({},) * size,
    )
    cohort.validate()
    return cohort


def _numbers(
    cells: dict[str, list[str]],
    name: str,
    expected: str,
    among: Sequence[float] = (),
    blank: bool = False,
) -> Float64:
    """A column (n,) as numbers; NaN where a blank is allowed."""
    values = np.array([_number(cell, blank) for cell in cells[name]])
    good = np.isfinite(values) | (blank & np.array([not cell for cell in cells[name]]))
    if among:
        good &= np.isin(values, among)
    if name == "record":
        good &= values == np.floor(values)
    if not good.all():
        _refuse_cells(name, int((~good).sum()), len(good), expected)
    return values


def _number(cell: str, blank: bool) -> float:
    try:
        return float(cell) if cell or not blank else float("nan")
    except ValueError:
        return float("nan")


def _read_table(path: Path, source: str) -> dict[str, list[str]]:
    """Column -> cells without surrounding blanks; what a table may lack is filled in."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = [row for row in csv.reader(file, strict=True) if row] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        _refuse_table(f"a file that cannot be read ({in_words(error)})", _columns(source))
    missing = [name for name in (*NEEDED, source) if name not in header]
    if missing:
        _refuse_table(f"{len(missing)} column(s) missing: {', '.join(missing)}", _columns(source))
    uneven = sum(len(row) != len(header) for row in rows)
    if uneven:
        _refuse_table(
            f"{uneven} of {len(rows)} rows with more or fewer cells than the header", _columns(source)
        )
    cells = {
        name: [row[header.index(name)].strip() for row in rows]
        for name in (*NEEDED, *OPTIONAL, source)
        if name in header
    }
    return {name: [value] * len(rows) for name, value in OPTIONAL.items()} | cells


def _columns(source: str) -> str:
    return f"a csv file with the columns {', '.join((*NEEDED, source))}; also {', '.join(OPTIONAL)}"


def _refuse_table(found: str, expected: str) -> NoReturn:
    raise CohortError(
        "FECG-268",
        "COHORT",
        found=found,
        expected=expected,
        fix="Example: fedecg evaluate MODEL cohort.csv --records /data/ecgs",
    )


def _refuse_cells(name: str, bad: int, rows: int, expected: str) -> NoReturn:
    raise CohortError(
        "FECG-269", f"column {name}", found=f"{bad} of {rows} cells unreadable", expected=expected
    )


def _refuse_patients(found: str) -> NoReturn:
    raise CohortError(
        "FECG-266",
        "patients to evaluate",
        found=found,
        expected="at least 1",
        fix="Choose another --part, or look at the records with fedecg predict.",
    )
