"""The diagnoses that the rules ask for: dated, of the patients who have an ECG.

In:  tables, settings, the patients. Out: `Diagnoses`; faults and notes go to the collectors.
     Called by `build_records`. Rows whose code is on none of the rules' lists are not looked at: a broken date of a
     fracture keeps nobody out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort.build_dates import Moments, read_moments
from fedecg.cohort.build_faults import Faults
from fedecg.cohort.build_settings import CohortSettings
from fedecg.cohort.build_tables import Column, Table, constant
from fedecg.cohort.icd import CodeList, matches, normalised, version_of

__all__ = ["Diagnoses", "note_moments", "read_diagnoses", "read_with"]

Mask = NDArray[np.bool_]
MANY_DATES = 10  # fewer may be a small table's own faults


@dataclass(frozen=True, eq=False)
class Diagnoses:
    """Rows whose code is on a list of the rules.

    Attributes:
        patient: (n,) int64, index into the patients. when: (n,) moments, all known.
        on_list: name of a list -> (n,) bool.
    """

    patient: NDArray[np.int64]
    when: Moments
    on_list: dict[str, Mask]

    def of(self, lists: Sequence[CodeList]) -> tuple[NDArray[np.int64], Moments]:
        """Patients and moments of the rows on any of these lists."""
        none = np.zeros(len(self.patient), dtype=np.bool_)
        rows = np.logical_or.reduce([none, *(self.on_list[one.name] for one in lists)])
        return self.patient[rows], self.when.select(rows)


def read_diagnoses(
    tables: Mapping[str, Table],
    settings: CohortSettings,
    index: Mapping[str, int],
    faults: Faults,
    notes: list[str],
) -> Diagnoses:
    """Find, date and check them.

    Args:
        index: patient -> number, of those who have an ECG.
        faults: FECG-287 dates or versions, FECG-288 offsets, FECG-290 admissions that contradict each other.
    """
    table = tables["diagnoses"]
    row, code, version = _coded(table, settings)
    patient = table["patient"].each(lambda cell: index.get(cell, -1), np.int64)[row]
    lists = _lists(settings)
    hits, other, unclear = _hits(code, version, lists)
    ours = patient >= 0
    _note_versions(table["patient"].cells()[row], ours & unclear, faults)
    if np.any(ours & other):
        notes.append(
            f"{np.sum(ours & other)} diagnoses look like a code of the other ICD version and were not counted"
        )
    keep = ours & np.logical_or.reduce([np.zeros(len(row), dtype=np.bool_), *hits.values()])
    chosen = table.select(row[keep])
    when, undated = _dates(chosen, tables, settings, faults)
    note_moments("diagnoses on the rules' lists", chosen["patient"], when, faults)
    names = chosen["patient"].cells()
    blank = ~when.known & ~when.unreadable & ~when.offset
    for rows, found, expected in (
        (blank & ~undated, "diagnoses on the rules' lists without a date", "a date each"),
        (
            undated,
            "diagnoses on the rules' lists whose admission is not in the table of admissions",
            "a row each",
        ),
    ):
        faults.add(
            "FECG-287",
            "dates of diagnoses",
            names[rows],
            rows=int(rows.sum()),
            found=found,
            expected=expected,
        )
    known = when.known
    return Diagnoses(
        patient[keep][known], when.select(known), {name: hit[keep][known] for name, hit in hits.items()}
    )


def read_with(column: Column, settings: CohortSettings) -> Moments:
    """Moments of a column, written as the settings say."""
    columns = settings.columns
    return read_moments(column, columns.dates, columns.time_zone, tuple(columns.no_date))


def note_moments(what: str, patient: Column, when: Moments, faults: Faults) -> None:
    """Note dates that cannot be read and times that cannot be placed."""
    names = patient.cells()
    faults.add(
        "FECG-287",
        f"dates of {what}",
        names[when.unreadable],
        rows=int(when.unreadable.sum()),
        found=f"of {len(when)} cells unreadable",
        expected="dates as [columns] dates says: iso 2020-03-04, day-first 04.03.2020, month-first 03/04/2020",
        of_settings=_is_most(when.unreadable, when.unreadable | when.known),
    )
    faults.add(
        "FECG-288",
        f"dates of {what}",
        names[when.offset],
        rows=int(when.offset.sum()),
        found=f"of {len(when)} times with an offset from UTC, and no time zone to place them in",
        expected='the hospital\'s own: [columns] time-zone = "Europe/Berlin"; times without an offset are taken as its',
    )


def _is_most(unreadable: Mask, filled: Mask) -> bool:
    """Read in the wrong order, some three of five dates are none, and the others are other dates."""
    return int(unreadable.sum()) >= MANY_DATES and 2 * int(unreadable.sum()) > int(filled.sum())


def _coded(table: Table, settings: CohortSettings) -> tuple[NDArray[np.int64], Column, NDArray[np.int64]]:
    """Row of the table, code and version (0 = neither) of every code; a row may hold one of each version."""
    rows = np.arange(table.rows)
    if "code" in table.columns:
        fixed = settings.diagnoses.version
        version = table["version"] if fixed == "column" else constant(fixed, table.rows)
        return rows, table["code"], version.each(version_of, np.int64)
    parts = [
        (name, int(name.removeprefix("code_"))) for name in ("code_9", "code_10") if name in table.columns
    ]
    return (
        np.concatenate([rows for _ in parts]),
        _joined([table[name] for name, _ in parts]),
        np.concatenate([np.full(table.rows, version) for _, version in parts]),
    )


def _joined(columns: Sequence[Column]) -> Column:
    starts = np.cumsum([0, *(len(column.distinct) for column in columns)])
    at = np.concatenate([column.at + start for column, start in zip(columns, starts, strict=False)])
    return Column(at, tuple(cell for column in columns for cell in column.distinct))


def _lists(settings: CohortSettings) -> list[CodeList]:
    """Every list of the rules; each rule's own codes have a name of their own (`named`)."""
    rules = (settings.include, settings.exclude, settings.event)
    return list({one.name: one for rule in rules for one in rule.code_lists()}.values())


def _hits(
    code: Column, version: NDArray[np.int64], lists: Sequence[CodeList]
) -> tuple[dict[str, Mask], Mask, Mask]:
    """By list; on a list of the other version only; on a list of either, with no version."""
    hits, other, unclear = {}, np.zeros(len(code), dtype=np.bool_), np.zeros(len(code), dtype=np.bool_)
    for one in lists:
        of_9 = code.each(partial(_on, one.icd_9), np.bool_)
        of_10 = code.each(partial(_on, one.icd_10), np.bool_)
        hits[one.name] = np.where(version == 9, of_9, np.where(version == 10, of_10, False))
        other |= (version == 9) & of_10 & ~of_9 | (version == 10) & of_9 & ~of_10
        unclear |= (version == 0) & (of_9 | of_10)
    return hits, other, unclear


def _on(entries: Sequence[str], cell: str) -> bool:
    return matches(normalised(cell), entries)


def _note_versions(names: NDArray[Any], unclear: Mask, faults: Faults) -> None:
    faults.add(
        "FECG-287",
        "versions of diagnoses",
        names[unclear],
        rows=int(unclear.sum()),
        found="codes on the rules' lists whose version is neither 9 nor 10",
        expected="9, 10, ICD-9 or ICD-10-CM, or [diagnoses] version for all",
    )


def _dates(
    chosen: Table, tables: Mapping[str, Table], settings: CohortSettings, faults: Faults
) -> tuple[Moments, Mask]:
    """When each was made, and which name an admission that there is none of."""
    if "admissions" not in tables:
        return read_with(chosen["date"], settings), np.zeros(chosen.rows, dtype=np.bool_)
    admissions = tables["admissions"]
    row_of: dict[tuple[str, str], int] = {}
    names, numbers, dates = (admissions[name].cells() for name in ("patient", "admission", "date"))
    contradicting = []
    for number, key in enumerate(zip(names, numbers, strict=True)):
        if dates[row_of.setdefault(key, number)] != dates[number]:
            contradicting.append(key)
    wanted = list(zip(chosen["patient"].cells(), chosen["admission"].cells(), strict=True))
    needed = set(contradicting) & set(wanted)
    faults.add(
        "FECG-290",
        "table of admissions",
        {patient for patient, _ in needed},
        rows=len(needed),
        found="admissions that stand there with different dates",
        expected="one date each",
    )
    row = np.array([row_of.get(key, -1) for key in wanted], dtype=np.int64)
    date = admissions["date"]
    blank = (*date.distinct, "")
    column = Column(np.where(row >= 0, date.at[row] if len(date) else 0, len(date.distinct)), blank)
    return read_with(column, settings), row < 0
