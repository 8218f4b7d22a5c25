"""The cohort table: who belongs to which part, what happened to them and when.

In:  arrays of one entry a record, or a csv file that a site (or `fedecg-simulate`) wrote.
Out: a frozen `Cohort`. `fedecg.training` learns from it, `fedecg.evaluation` scores on it; a row's `record`
     is the row of the signal store that holds its ECG.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort.cells import (
    Cells,
    check_all,
    flag,
    not_blank,
    number_or_blank,
    read_table,
    rows_words,
    stated_codes,
    whole,
)
from fedecg.errors import CohortError
from fedecg.files import write_whole

__all__ = ["ALIGN", "COLUMNS", "PARTS", "Cohort", "read_cohort", "write_cohort"]

PARTS = ("train", "validation", "test")  # of patients whose outcome is known
ALIGN = "align"  # ECGs without a known outcome: alignment learns from what they are said to show, nothing else does
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
UNKNOWN = {"event": "0", "follow_up_days": "nan", "entry_days": "0", "died": "0"}  # blank cells of "align"
OLDEST_YEARS = 120.0
LONGEST_DAYS = 365.25 * OLDEST_YEARS


@dataclass(frozen=True, eq=False)
class Cohort:
    """One row a record.

    A patient may have several records (alignment can use them all), never in two parts; but further ECGs of a patient
    of "train" may stand in "align".

    Attributes:
        record: (N,) int64, row of the signal store; each at most once.
        patient: (N,) int64, pseudonymous index, never the hospital's own number.
        part: (N,) str, "train", "validation", "test", or "align": the outcome is not known, so there `event` and `died`
            are False, `follow_up_days` is NaN and `entry_days` 0.
        event: (N,) bool, True = event seen, False = censored.
        follow_up_days: (N,) float64 in (0, 43830], days from the ECG to the event or the last contact.
        entry_days: (N,) float64, days from the ECG to the first day under observation, 0 <= entry < follow-up
            (left truncation); 0 where observation begins with the ECG.
        died: (N,) bool, True = follow-up ended with the patient's death, before any event: a competing risk.
        age_years: (N,) float64 in [0, 120], NaN = missing.
        female: (N,) float64, 1 = female, 0 = male, NaN = missing.
        codes: N dictionaries, SCP code -> likelihood in percent, 0..100; empty = nothing stated.
        names: N texts, each record's patient as the cell of its table has it, None where there was no table. `patient`
            may be numbered anew when a row is added to a table; these stay. They are shown nowhere and written nowhere:
            the site's ledger, which must know a patient again, makes pseudonyms of them.
        reports: N free texts, "" = none; None where they were not asked for. Of published data sets alone: neither
            `read_cohort` nor `write_cohort` knows of them, a hospital's stay in its table (`fedecg.text.reports`).
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
    names: tuple[str, ...] | None = field(default=None, repr=False)
    reports: tuple[str, ...] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.record)

    def select(self, rows: NDArray[Any]) -> Cohort:
        """The rows that a mask (N,) bool keeps, or the rows of an index array, in its order."""
        at = np.arange(len(self))[rows]
        texts = ("codes", "names", "reports")
        columns = {
            column.name: getattr(self, column.name) for column in fields(self) if column.name not in texts
        }
        return Cohort(
            **{name: column[at] for name, column in columns.items()},
            codes=tuple(self.codes[row] for row in at),
            names=None if self.names is None else tuple(self.names[row] for row in at),
            reports=None if self.reports is None else tuple(self.reports[row] for row in at),
        )

    def patient_names(self, rows: NDArray[Any]) -> frozenset[str]:
        """Who is in some rows, a mask (N,) bool or an index array: the site's own texts, for its ledger alone."""
        some = self.select(rows)
        return frozenset(map(str, some.patient.tolist()) if some.names is None else some.names)

    def validate(self) -> None:
        """Check every rule that the rest of fedecg relies on; messages hold counts, never a value.

        Raises:
            CohortError: FECG-221 columns of other kinds or lengths; FECG-222 follow-up; FECG-230 entry; FECG-380 an
                outcome in the part "align"; FECG-223 parts; FECG-224 a patient in two parts; FECG-225 a record
                twice; FECG-226 age, sex, likelihoods or deaths.
        """
        _check_columns(self)
        rules = (_check_unknown_outcomes, _check_follow_up, _check_entry, _check_parts, _check_records)
        ranges = [partial(_refuse_range, *row) for row in _ranges(self)]
        check_all([*(partial(rule, self) for rule in rules), *ranges])


def read_cohort(path: str | Path) -> Cohort:
    """Read and validate a cohort table.

    Args:
        path: csv, UTF-8, with the columns `COLUMNS` (others are ignored). `event`: 0 or 1.
            `patient`: any text, the same in all rows of a patient. Whole numbers stay what they are; where any cell is
            another text, patients are numbered in the order of their first appearance.
            `entry_days` and `died` may be absent: all enter at 0, no deaths are known.
            In rows of the part "align" all four columns of the outcome may be blank, and `follow_up_days` must be.
            `age_years`, `female`: blank = missing.
            `codes`: a JSON object, {"SR": 0, "LVH": 100}; blank = nothing stated.

    Raises:
        CohortError: FECG-227 no such table or a column is missing; FECG-228 cells that cannot be read, of all columns;
            FECG-221..226, FECG-230, FECG-380 as `Cohort.validate`.
    """
    table = read_table(Path(path), COLUMNS, OPTIONAL)
    _fill_unknown_outcomes(table)
    cells = Cells(table)
    names = cells.column("patient", not_blank, "a number or name a patient, never blank")
    cohort = Cohort(
        record=np.array(cells.column("record", whole, "whole numbers"), dtype=np.int64),
        patient=_patients(names),
        part=np.array(table["part"], dtype=np.str_),
        event=np.array(cells.column("event", flag, "0 or 1"), dtype=np.bool_),
        follow_up_days=np.array(cells.column("follow_up_days", float, "numbers, in days"), dtype=np.float64),
        entry_days=np.array(cells.column("entry_days", float, "numbers, in days"), dtype=np.float64),
        died=np.array(cells.column("died", flag, "0 or 1"), dtype=np.bool_),
        age_years=np.array(cells.column("age_years", number_or_blank, "numbers or blank"), dtype=np.float64),
        female=np.array(cells.column("female", number_or_blank, "1, 0 or blank"), dtype=np.float64),
        codes=tuple(cells.column("codes", stated_codes, 'a JSON object such as {"LVH": 100}')),
        names=tuple(names),
    )
    cells.check()
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
                _blank_if_missing(cohort.follow_up_days[row]),
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


def _check_unknown_outcomes(cohort: Cohort) -> None:
    stated = ~np.isnan(cohort.follow_up_days) | (cohort.entry_days != 0) | cohort.event | cohort.died
    unknown = cohort.part == ALIGN
    bad = int(np.sum(unknown & stated))
    if bad:
        raise CohortError(
            "FECG-380",
            f"outcome of the part {ALIGN}",
            found=f"{bad} of {int(unknown.sum())} rows with a follow-up, an entry, an event or a death",
            expected="none: alignment learns from what these ECGs are said to show, and nothing else",
            fix="Put rows with a known outcome into train, or leave their outcome blank.",
        )


def _check_follow_up(cohort: Cohort) -> None:
    days = cohort.follow_up_days
    bad = np.flatnonzero(~((days > 0) & (days <= LONGEST_DAYS)) & (cohort.part != ALIGN))
    if bad.size:
        raise CohortError(
            "FECG-222",
            "follow_up_days",
            found=f"{bad.size} of {len(cohort)} values that are not in (0, {LONGEST_DAYS:,.0f}]",
            expected=f"days from the ECG to the event or last contact, > 0 and within {OLDEST_YEARS:g} years",
            fix=f"Drop ECGs recorded after the last contact, in {rows_words(bad.tolist())}.",
        )


def _check_entry(cohort: Cohort) -> None:
    days = cohort.follow_up_days
    inside = (cohort.entry_days >= 0) & (cohort.entry_days < days)
    followed = np.isfinite(days) & (days > 0) & (cohort.part != ALIGN)
    bad = int(np.sum(~inside & followed))
    if bad:
        raise CohortError(
            "FECG-230",
            "entry_days",
            found=f"{bad} of {len(cohort)} values that are negative or not before the end of follow-up",
            expected="days from the ECG to the first day under observation, 0 <= entry_days < follow_up_days",
            fix="Write 0 where observation begins with the ECG, or leave the column out.",
        )


def _check_parts(cohort: Cohort) -> None:
    unknown = int(np.sum(~np.isin(cohort.part, (*PARTS, ALIGN))))
    if unknown:
        raise CohortError(
            "FECG-223",
            "part",
            found=f"{unknown} of {len(cohort)} rows in an unknown part",
            expected=" or ".join((*PARTS, ALIGN)),
        )
    _, patient = np.unique(cohort.patient, return_inverse=True)
    part = np.where(cohort.part == ALIGN, "train", cohort.part)  # both are learned from
    in_part = [np.isin(np.arange(patient.max(initial=-1) + 1), patient[part == name]) for name in PARTS]
    shared = int(np.sum(np.sum(in_part, axis=0) > 1))
    if shared:
        raise CohortError(
            "FECG-224",
            "part",
            found=f"{shared} patient(s) in more than one part",
            expected="all records of a patient in one part (train and align count as one)",
            fix="Split by patient (fedecg.cohort.split_by_patient).",
        )


def _check_records(cohort: Cohort) -> None:
    first = np.unique(cohort.record, return_index=True)[1]
    twice, negative = len(cohort) - len(first), int(np.sum(cohort.record < 0))
    if twice or negative:
        again = np.setdiff1d(np.arange(len(cohort)), first)
        bad = np.union1d(again, np.flatnonzero(cohort.record < 0))
        raise CohortError(
            "FECG-225",
            "record",
            found=f"{twice} duplicate row(s) and {negative} negative row number(s)",
            expected="each row of the signal store at most once, counted from 0",
            fix=f"Leave out what is wrong, or correct it: {rows_words(bad.tolist())}.",
        )


def _ranges(cohort: Cohort) -> list[tuple[str, NDArray[np.bool_], str]]:
    """Column, its rows out of range, what is expected."""
    age, female = cohort.age_years, cohort.female
    outside = [not all(0 <= likelihood <= 100 for likelihood in codes.values()) for codes in cohort.codes]
    old = ~np.isnan(age) & ~((age >= 0) & (age <= OLDEST_YEARS))
    return [
        ("age_years", old, "years in 0..120, or missing"),
        ("died", cohort.died & cohort.event, "1 only where event = 0: death before any event"),
        ("female", ~np.isnan(female) & ~np.isin(female, (0.0, 1.0)), "1, 0, or missing"),
        ("codes", np.array(outside, dtype=np.bool_), "likelihoods in percent, 0..100"),
    ]


def _refuse_range(name: str, bad: NDArray[np.bool_], expected: str) -> None:
    if bad.any():
        raise CohortError(
            "FECG-226",
            name,
            found=f"{int(bad.sum())} of {len(bad)} rows out of range",
            expected=expected,
            fix="Correct them, or leave them blank where they are not known.",
        )


def _fill_unknown_outcomes(table: dict[str, list[str]]) -> None:
    """What blank cells of the outcome hold where it is not known, in place."""
    unknown = [part.strip() == ALIGN for part in table["part"]]
    for name, filled in UNKNOWN.items():
        table[name] = [
            filled if blank and not cell.strip() else cell
            for blank, cell in zip(unknown, table[name], strict=True)
        ]


def _blank_if_missing(value: float) -> str:
    return "" if np.isnan(value) else repr(float(value))


def _patients(names: Sequence[str]) -> NDArray[np.int64]:
    """(N,) the column `patient` as numbers: its own where all are such, else those of first appearance."""
    # 007 and 7 are two texts: only numbers as they are written back stay numbers.
    if all(_is_index(name) for name in names):
        return np.array([int(name) for name in names], dtype=np.int64)
    number: dict[str, int] = {}
    return np.array([number.setdefault(name, len(number)) for name in names], dtype=np.int64)


def _is_index(name: str) -> bool:
    try:
        return str(whole(name)) == name
    except ValueError:
        return False
