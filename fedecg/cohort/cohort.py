"""The cohort table: who belongs to which part, what happened to them and when.

In:  arrays of one entry a record, or a csv file that a site (or `fedecg-simulate`) wrote.
Out: a frozen `Cohort`. `fedecg.training` learns from it, `fedecg.evaluation` scores on it; a row's `record`
     is the row of the signal store that holds its ECG.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import CohortError
from fedecg.files import in_words, write_whole

__all__ = ["COLUMNS", "PARTS", "Cohort", "read_cohort", "write_cohort"]

PARTS = ("train", "validation", "test")
COLUMNS = (
    "record",
    "patient",
    "part",
    "event",
    "follow_up_days",
    "entry_days",
    "died",
    "age_years",
    "female",
    "codes",
)
OPTIONAL = {"entry_days": "0", "died": "0"}  # column that a table may lack -> what its cells then hold
OLDEST_YEARS = 120.0

Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class Cohort:
    """One row a record.

    A patient may have several records (alignment can use them all), never in two parts.

    Attributes:
        record: (N,) int64, row of the signal store; each at most once.
        patient: (N,) int64, pseudonymous index, never the hospital's own number.
        part: (N,) str, "train", "validation" or "test".
        event: (N,) bool, True = event seen, False = censored.
        follow_up_days: (N,) float64 > 0, days from the ECG to the event or the last contact.
        entry_days: (N,) float64, days from the ECG to the first day under observation, 0 <= entry < follow-up
            (left truncation); 0 where observation begins with the ECG.
        died: (N,) bool, True = follow-up ended with the patient's death, before any event: a competing risk.
        age_years: (N,) float64 in [0, 120], NaN = missing.
        female: (N,) float64, 1 = female, 0 = male, NaN = missing.
        codes: N dictionaries, SCP code -> likelihood in percent, 0..100; empty = nothing stated.
    """

    record: NDArray[np.int64]
    patient: NDArray[np.int64]
    part: NDArray[np.str_]
    event: NDArray[np.bool_]
    follow_up_days: NDArray[np.float64]
    entry_days: NDArray[np.float64]
    died: NDArray[np.bool_]
    age_years: NDArray[np.float64]
    female: NDArray[np.float64]
    codes: tuple[dict[str, float], ...]

    def __len__(self) -> int:
        return len(self.record)

    def select(self, rows: NDArray[Any]) -> Cohort:
        """The rows that a mask (N,) bool keeps, or the rows of an index array, in its order."""
        at = np.arange(len(self))[rows]
        columns = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "codes"}
        return Cohort(
            **{name: column[at] for name, column in columns.items()},
            codes=tuple(self.codes[row] for row in at),
        )

    def validate(self) -> None:
        """Check every rule that the rest of fedecg relies on; messages hold counts, never a value.

        Raises:
            CohortError: FECG-221 columns of other kinds or lengths; FECG-222 follow-up; FECG-230 entry; FECG-223 parts;
                FECG-224 a patient in two parts; FECG-225 a record twice; FECG-226 age, sex, likelihoods or deaths.
        """
        _check_columns(self)
        _check_follow_up(self)
        _check_entry(self)
        _check_parts(self)
        _check_records(self)
        _check_ranges(self)


def read_cohort(path: str | Path) -> Cohort:
    """Read and validate a cohort table.

    Args:
        path: csv, UTF-8, with the columns `COLUMNS` (others are ignored). `event`: 0 or 1.
            `patient`: any text, the same in all rows of a patient. Whole numbers stay what they are; where any cell is
            another text, patients are numbered in the order of their first appearance.
            `entry_days` and `died` may be absent: all enter at 0, no deaths are known.
            `age_years`, `female`: blank = missing.
            `codes`: a JSON object, {"SR": 0, "LVH": 100}; blank = nothing stated.

    Raises:
        CohortError: FECG-227 no such table or a column is missing; FECG-228 cells that cannot be read;
            FECG-221..226 as `Cohort.validate`.
    """
    table = _read_table(Path(path))
    cohort = Cohort(
        record=np.array(_parse(table, "record", _whole, "whole numbers"), dtype=np.int64),
        patient=_patients(table),
        part=np.array(table["part"], dtype=np.str_),
        event=np.array(_parse(table, "event", _flag, "0 or 1"), dtype=np.bool_),
        follow_up_days=np.array(_parse(table, "follow_up_days", float, "numbers, in days"), dtype=np.float64),
        entry_days=np.array(_parse(table, "entry_days", float, "numbers, in days"), dtype=np.float64),
        died=np.array(_parse(table, "died", _flag, "0 or 1"), dtype=np.bool_),
        age_years=np.array(
            _parse(table, "age_years", _number_or_blank, "numbers or blank"), dtype=np.float64
        ),
        female=np.array(_parse(table, "female", _number_or_blank, "1, 0 or blank"), dtype=np.float64),
        codes=tuple(_parse(table, "codes", _codes, 'a JSON object such as {"LVH": 100}')),
    )
    cohort.validate()
    return cohort


def write_cohort(cohort: Cohort, path: str | Path) -> None:
    """Write a validated cohort as csv, so that `read_cohort` gives it back bit for bit.

    Raises:
        CohortError: FECG-221..226 as `Cohort.validate`; nothing is written then.
        RunError: FECG-601 as `write_whole`.
    """
    cohort.validate()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in range(len(cohort)):
        writer.writerow(
            [
                int(cohort.record[row]),
                int(cohort.patient[row]),
                str(cohort.part[row]),
                int(cohort.event[row]),
                repr(float(cohort.follow_up_days[row])),
                repr(float(cohort.entry_days[row])),
                int(cohort.died[row]),
                _blank_if_missing(cohort.age_years[row]),
                _blank_if_missing(cohort.female[row]),
                json.dumps(cohort.codes[row]),
            ]
        )
    write_whole(Path(path), text.getvalue())


def _check_columns(cohort: Cohort) -> None:
    kinds = dict(zip(COLUMNS[:-1], "iiUbffbff", strict=True))
    columns = {name: getattr(cohort, name) for name in kinds}
    wrong = [
        name
        for name, column in columns.items()
        if column.dtype.kind != kinds[name] or column.shape != (len(cohort.codes),)
    ]
    if wrong:
        raise CohortError(
            "FECG-221",
            "cohort columns",
            found=f"{len(wrong)} of another kind or length than the rest: {', '.join(wrong)}",
            expected="one entry a record; integers, text, true/false or numbers as documented",
        )


def _check_follow_up(cohort: Cohort) -> None:
    days = cohort.follow_up_days
    bad = int(np.sum(~(np.isfinite(days) & (days > 0))))
    if bad:
        raise CohortError(
            "FECG-222",
            "follow_up_days",
            found=f"{bad} of {len(cohort)} values that are not positive",
            expected="days from the ECG to the event or last contact, > 0",
            fix="Drop ECGs recorded after the last contact.",
        )


def _check_entry(cohort: Cohort) -> None:
    inside = (cohort.entry_days >= 0) & (cohort.entry_days < cohort.follow_up_days)
    bad = int(np.sum(~inside))
    if bad:
        raise CohortError(
            "FECG-230",
            "entry_days",
            found=f"{bad} of {len(cohort)} values that are negative or not before the end of follow-up",
            expected="days from the ECG to the first day under observation, 0 <= entry_days < follow_up_days",
            fix="Write 0 where observation begins with the ECG, or leave the column out.",
        )


def _check_parts(cohort: Cohort) -> None:
    unknown = int(np.sum(~np.isin(cohort.part, PARTS)))
    if unknown:
        raise CohortError(
            "FECG-223",
            "part",
            found=f"{unknown} of {len(cohort)} rows in an unknown part",
            expected=" or ".join(PARTS),
        )
    _, patient = np.unique(cohort.patient, return_inverse=True)
    in_part = [
        np.isin(np.arange(patient.max(initial=-1) + 1), patient[cohort.part == name]) for name in PARTS
    ]
    shared = int(np.sum(np.sum(in_part, axis=0) > 1))
    if shared:
        raise CohortError(
            "FECG-224",
            "part",
            found=f"{shared} patient(s) in more than one part",
            expected="all records of a patient in one part",
            fix="Split by patient (fedecg.cohort.split_by_patient).",
        )


def _check_records(cohort: Cohort) -> None:
    twice = len(cohort) - len(np.unique(cohort.record))
    negative = int(np.sum(cohort.record < 0))
    if twice or negative:
        raise CohortError(
            "FECG-225",
            "record",
            found=f"{twice} duplicate row(s) and {negative} negative row number(s)",
            expected="each row of the signal store at most once, counted from 0",
        )


def _check_ranges(cohort: Cohort) -> None:
    age, female = cohort.age_years, cohort.female
    _refuse_range(
        "age_years", ~np.isnan(age) & ~((age >= 0) & (age <= OLDEST_YEARS)), "years in 0..120, or missing"
    )
    _refuse_range("died", cohort.died & cohort.event, "1 only where event = 0: death before any event")
    _refuse_range("female", ~np.isnan(female) & ~np.isin(female, (0.0, 1.0)), "1, 0, or missing")
    outside = [not all(0 <= likelihood <= 100 for likelihood in codes.values()) for codes in cohort.codes]
    _refuse_range("codes", np.array(outside, dtype=np.bool_), "likelihoods in percent, 0..100")


def _refuse_range(name: str, bad: NDArray[np.bool_], expected: str) -> None:
    if bad.any():
        raise CohortError(
            "FECG-226",
            name,
            found=f"{int(bad.sum())} of {len(bad)} rows out of range",
            expected=expected,
            fix="Correct them, or leave them blank where they are not known.",
        )


def _read_table(path: Path) -> dict[str, list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = [row for row in csv.reader(file, strict=True) if row] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        _refuse_table(f"a file that cannot be read ({in_words(error)})")
    missing = [name for name in COLUMNS if name not in header and name not in OPTIONAL]
    if missing:
        _refuse_table(f"{len(missing)} column(s) missing: {', '.join(missing)}")
    uneven = sum(len(row) != len(header) for row in rows)
    if uneven:
        _refuse_table(f"{uneven} of {len(rows)} rows with more or fewer cells than the header")
    return {
        name: [row[header.index(name)] if name in header else OPTIONAL[name] for row in rows]
        for name in COLUMNS
    }


def _refuse_table(found: str) -> NoReturn:
    raise CohortError(
        "FECG-227",
        "cohort table",
        found=found,
        expected=f"a csv file with the columns {', '.join(COLUMNS)}",
        fix="Check the path in site.toml, or write the table again.",
    )


def _parse(
    table: Mapping[str, Sequence[str]], name: str, parse: Callable[[str], Value], expected: str
) -> list[Value]:
    values: list[Value] = []
    for cell in table[name]:
        try:
            values.append(parse(cell.strip()))
        except (ValueError, TypeError, OverflowError):
            continue
    bad = len(table[name]) - len(values)
    if bad:
        raise CohortError(
            "FECG-228",
            f"column {name}",
            found=f"{bad} of {len(table[name])} cells unreadable",
            expected=expected,
        )
    return values


def _patients(table: Mapping[str, Sequence[str]]) -> NDArray[np.int64]:
    """(N,) the column `patient` as numbers: its own where all are such, else those of first appearance."""
    names = _parse(table, "patient", _not_blank, "a number or name a patient, never blank")
    # 007 and 7 are two texts: only numbers as they are written back stay numbers.
    if all(_is_index(name) for name in names):
        return np.array([int(name) for name in names], dtype=np.int64)
    number: dict[str, int] = {}
    return np.array([number.setdefault(name, len(number)) for name in names], dtype=np.int64)


def _not_blank(cell: str) -> str:
    if not cell:
        raise ValueError
    return cell


def _is_index(name: str) -> bool:
    try:
        return str(_whole(name)) == name
    except ValueError:
        return False


def _whole(cell: str) -> int:
    number = int(cell)
    if abs(number) >= 2**63:
        raise ValueError
    return number


def _flag(cell: str) -> bool:
    return bool(("0", "1").index(cell))


def _number_or_blank(cell: str) -> float:
    return float(cell) if cell else float("nan")


def _codes(cell: str) -> dict[str, float]:
    stated = json.loads(cell) if cell else {}
    if not isinstance(stated, dict):
        raise TypeError
    return {code: float(likelihood) for code, likelihood in stated.items()}


def _blank_if_missing(value: float) -> str:
    return "" if np.isnan(value) else repr(float(value))
