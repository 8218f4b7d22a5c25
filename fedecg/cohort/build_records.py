"""What the rules work on: ECGs, diagnoses, last contacts, deaths and people, checked against each other.

In:  `CohortSettings`. Out: `Hospital`: arrays, patients as numbers from 0. Called by `build`.
Patients are those who have a row in the table of ECGs, sorted by name, so that no order of rows matters. What is wrong
goes to `Hospital.faults`, what should be known but harms nobody to `Hospital.notes`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort.build_dates import Moments, no_moments
from fedecg.cohort.build_diagnoses import Diagnoses, note_moments, read_diagnoses, read_with
from fedecg.cohort.build_faults import Faults
from fedecg.cohort.build_people import DAYS_A_YEAR, OLDEST_YEARS, People, read_people
from fedecg.cohort.build_progress import TableWork
from fedecg.cohort.build_settings import CohortSettings
from fedecg.cohort.build_sources import file_key, read_sources, source_sizes, store_rows
from fedecg.cohort.build_statements import read_statements
from fedecg.cohort.build_tables import Table
from fedecg.errors import CohortError
from fedecg.progress import Advance

__all__ = ["Ecgs", "Hospital", "read_hospital"]

Int = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Ecgs:
    """ECGs that have a date, each file once.

    Attributes:
        patient: (n,) int64. when: (n,) moments, all known. file: (n,) text.
        age_years: (n,) float64, NaN = not stated there.
        record: (n,) int64, row of the store; -1 where the store has none that is usable, and without a store.
        usable: (n,) bool, in the store and not refused; all True without a store.
        codes: (n,) dictionaries, what each is said to show, code -> likelihood in percent.
    """

    patient: Int
    when: Moments
    file: NDArray[np.object_]
    age_years: NDArray[np.float64]
    record: Int
    usable: NDArray[np.bool_]
    codes: NDArray[np.object_]


@dataclass(frozen=True, eq=False)
class Hospital:
    """Everything about the patients who have an ECG.

    Attributes:
        patients: P names, sorted. ecgs, diagnoses: see there.
        end: (P,) moments of the last contact; day NO_DAY = none. death: (P,), NO_DAY = not known to have died.
        people: birth and sex, (P,) each. faults, notes: what was found.
        counts: rows read by table.
    """

    patients: tuple[str, ...] = field(repr=False)
    ecgs: Ecgs = field(repr=False)
    diagnoses: Diagnoses = field(repr=False)
    end: Moments = field(repr=False)
    death: Moments = field(repr=False)
    people: People = field(repr=False)
    faults: Faults = field(repr=False)
    notes: list[str]
    counts: dict[str, int]


def read_hospital(settings: CohortSettings, advance: Advance | None = None) -> Hospital:
    """Read and check all tables.

    Args:
        advance: is told how far it is, in percent.

    Raises:
        CohortError: FECG-286 tables, FECG-292 the signal store. Other faults are in `Hospital.faults`.
        SignalError: FECG-215, FECG-216 the signal store.
    """
    work = TableWork(source_sizes(settings), advance)
    tables = read_sources(settings, work)
    faults, notes = Faults(), list[str]()
    patients = tuple(sorted({name for name in tables["ECGs"]["patient"].distinct if name}))
    index = {name: number for number, name in enumerate(patients)}
    ecgs = _ecgs(tables["ECGs"], settings, index, faults, notes)
    work.checked("ECGs")
    diagnoses = read_diagnoses(tables, settings, index, faults, notes)
    work.checked("diagnoses")
    end = _latest(tables.get("last contacts"), settings, index, faults)
    death = _deaths(tables.get("deaths"), settings, index, faults, notes)
    people = read_people(tables.get("people"), settings, index, faults, notes)
    for role in ("admissions", "last contacts", "deaths", "people"):
        work.checked(role)
    _note_blank_patients(tables, faults)
    _note_absent(tables, index, notes)
    hospital = Hospital(
        patients, ecgs, diagnoses, _with_end_date(end, settings), death, people, faults, notes,
        {role: table.rows for role, table in tables.items()},
    )  # fmt: skip
    _note_wrong_order(hospital)
    _note_far_ends(hospital)
    return hospital


def _ecgs(
    table: Table, settings: CohortSettings, index: Mapping[str, int], faults: Faults, notes: list[str]
) -> Ecgs:
    when = read_with(table["date"], settings)
    note_moments("ECGs", table["patient"], when, faults)
    names, files = table["patient"].cells(), table["file"].cells()
    if "index" in table.columns:
        nth = table["index"].each(lambda cell: f"#{cell}" if cell else "", object)
        files = np.where(files == "", "", files + nth)
    blank = ~when.known & ~when.unreadable & ~when.offset
    no_file = files == ""
    for rows, code, found, expected in (
        (blank, "FECG-287", "ECGs without a date", "a date each"),
        (no_file, "FECG-290", "ECGs without the name of a file", "one each"),
    ):
        faults.add(code, "table of ECGs", names[rows], rows=int(rows.sum()), found=found, expected=expected)
    keep = np.flatnonzero(when.known & ~no_file & (names != ""))
    keep = keep[_first_of_each_file(names[keep], files[keep], when.select(keep), faults, notes)]
    age = _ages(table, keep, names, faults)
    codes = read_statements(table, faults)[keep]
    record, usable = _in_store(settings, files[keep], notes)
    patient = np.array([index[name] for name in names[keep]], dtype=np.int64)
    return Ecgs(patient, when.select(keep), files[keep], age, record, usable, codes)


def _first_of_each_file(
    names: NDArray[Any], files: NDArray[Any], when: Moments, faults: Faults, notes: list[str]
) -> Int:
    """Rows to keep: a row that repeats another is counted; a file of two patients or dates is a fault of theirs."""
    said: dict[str, tuple[str, int, float]] = {}
    kept, repeated, contradicting = [], 0, set()
    for row, file in enumerate(files):
        this = (names[row], int(when.day[row]), float(np.nan_to_num(when.second[row], nan=-1.0)))
        if file not in said:
            said[file] = this
            kept.append(row)
        elif said[file] == this:
            repeated += 1
        else:
            contradicting |= {names[row], said[file][0]}
    if repeated:
        notes.append(f"{repeated} rows of the table of ECGs repeat another and were counted once")
    faults.add(
        "FECG-290",
        "table of ECGs",
        contradicting,
        rows=len(contradicting),
        found="patients with a file that stands there for another patient or another date as well",
        expected="one patient and one date for each file",
    )
    return np.array(kept, dtype=np.int64)


def _ages(table: Table, keep: Int, names: NDArray[Any], faults: Faults) -> NDArray[np.float64]:
    if "age" not in table.columns:
        return np.full(len(keep), np.nan)
    age: NDArray[np.float64] = table["age"].each(_age, np.float64)
    bad = age == -1
    found, expected = "cells that are no age", f"years, 0 to {OLDEST_YEARS}"
    faults.add("FECG-287", "ages of ECGs", names[bad], rows=int(bad.sum()), found=found, expected=expected)
    return np.where(bad, np.nan, age)[keep]


def _age(cell: str) -> float:
    """Years; NaN = blank, -1 = none that can be."""
    try:
        years = float(cell.replace(",", ".")) if cell else float("nan")
    except ValueError:
        return -1.0
    return -1.0 if years < 0 or years > OLDEST_YEARS else years


def _in_store(
    settings: CohortSettings, files: NDArray[Any], notes: list[str]
) -> tuple[Int, NDArray[np.bool_]]:
    """Row of the store for every file, and whether it can be used; by the whole name, else by its last part."""
    if not settings.ecgs.store:
        return np.full(len(files), -1), np.ones(len(files), dtype=np.bool_)
    places = store_rows(settings.ecgs.store)
    found = _places_of(files, places)
    refused = sum(place is not None and place[1] != "" for place in found)
    record = np.array([-1 if place is None or place[1] else place[0] for place in found], dtype=np.int64)
    absent = sum(place is None for place in found)
    if files.size and absent == len(files):
        raise CohortError(
            "FECG-292",
            "files of the table of ECGs",
            found=f"{absent} of {len(files)} not in the signal store",
            expected="names as in the store's manifest.csv (source), or with the same last part",
            fix="Check [ecgs] store, and file and index in [columns] ecgs.",
        )
    if absent:
        notes.append(f"{absent} of {len(files)} ECGs are not in the signal store and were set aside")
    if refused:
        notes.append(f"{refused} of {len(files)} ECGs were refused by the signal store and were set aside")
    return record, record >= 0


def _places_of(files: NDArray[Any], places: Mapping[str, tuple[int, str]]) -> list[tuple[int, str] | None]:
    """Each file's place in the store. The last part of a name counts where one file and one place have it."""
    by_key: dict[str, set[tuple[int, str]]] = defaultdict(set)
    for name, place in places.items():
        by_key[file_key(name)].add(place)
    asked = Counter(map(file_key, files))
    found = []
    for file in files:
        key = file_key(file)
        near = by_key[key] if asked[key] == 1 and len(by_key[key]) == 1 else set()
        found.append(places.get(file) or next(iter(near), None))
    return found


def _latest(
    table: Table | None, settings: CohortSettings, index: Mapping[str, int], faults: Faults
) -> Moments:
    """Of each patient; a date without a time counts as the end of that day."""
    if table is None:
        return no_moments(len(index))
    patient, when = _dated(table, "last contacts", settings, index, faults)
    order = np.lexsort((np.nan_to_num(when.second, nan=np.inf), when.day, patient))
    return _last_of_each(patient[order], when.select(order), len(index))


def _deaths(
    table: Table | None, settings: CohortSettings, index: Mapping[str, int], faults: Faults, notes: list[str]
) -> Moments:
    if table is None:
        return no_moments(len(index))
    patient, when = _dated(table, "deaths", settings, index, faults)
    days = {(int(who), int(day)) for who, day in zip(patient, when.day, strict=True)}
    several = [who for who, number in Counter(who for who, _ in days).items() if number > 1]
    names = list(index)
    faults.add(
        "FECG-290",
        "table of deaths",
        [names[who] for who in several],
        rows=len(several),
        found="patients with two days of death",
        expected="one",
    )
    if len(patient) > len(days):
        notes.append(
            f"{len(patient) - len(days)} rows of the table of deaths repeat another and were counted once"
        )
    order = np.lexsort(
        (-np.nan_to_num(when.second, nan=np.inf), -when.day, patient)
    )  # the earliest comes last
    return _last_of_each(patient[order], when.select(order), len(index))


def _dated(
    table: Table, what: str, settings: CohortSettings, index: Mapping[str, int], faults: Faults
) -> tuple[Int, Moments]:
    """Rows of our patients that have a date."""
    patient = table["patient"].each(lambda cell: index.get(cell, -1), np.int64)
    ours = patient >= 0
    when = read_with(table["date"], settings).select(ours)
    note_moments(what, table["patient"].select(ours), when, faults)
    return patient[ours][when.known], when.select(when.known)


def _last_of_each(patient: Int, when: Moments, patients: int) -> Moments:
    """The last row of every patient; rows come sorted by patient."""
    found = no_moments(patients)
    last = np.flatnonzero(np.diff(np.append(patient, -1)) != 0)
    found.day[patient[last]] = when.day[last]
    found.second[patient[last]] = when.second[last]
    return found


def _with_end_date(end: Moments, settings: CohortSettings) -> Moments:
    """The administrative end where it is the earlier one; for all where there is no table of last contacts."""
    if not settings.follow_up.end_date:
        return end
    day = date.fromisoformat(settings.follow_up.end_date).toordinal()
    later = end.day > day if settings.follow_up.end_table else np.ones(len(end), dtype=np.bool_)
    return Moments(
        np.where(later, day, end.day), np.where(later, np.nan, end.second), end.unreadable, end.offset
    )


def _note_blank_patients(tables: Mapping[str, Table], faults: Faults) -> None:
    for role, table in tables.items():
        blank = int(np.sum(table["patient"].each(lambda cell: cell == "", np.bool_)))
        found = f"of {table.rows} rows without a patient"
        faults.add("FECG-290", f"table of {role}", (), rows=blank, found=found, expected="one each")


def _note_absent(tables: Mapping[str, Table], index: Mapping[str, int], notes: list[str]) -> None:
    """How many patients stand in one table only."""
    for role in ("diagnoses", "last contacts", "deaths", "people"):
        if role not in tables:
            continue
        column = tables[role]["patient"]
        there = {column.distinct[number] for number in np.unique(column.at)} - {""}
        without_ecg, without_row = len(there - set(index)), len(set(index) - there)
        if without_ecg:
            notes.append(f"{without_ecg} patients of the table of {role} have no ECG")
        if without_row and role != "deaths":
            notes.append(f"{without_row} patients with an ECG have no row in the table of {role}")


def _note_wrong_order(hospital: Hospital) -> None:
    names = np.array([*hospital.patients, ""], dtype=object)
    death, birth = hospital.death, hospital.people.birth_day
    checks = {
        "deaths before birth": (np.arange(len(birth)), death.known & (death.day < birth)),
        "ECGs after the patient's death": _after_death(hospital.ecgs.patient, hospital.ecgs.when, death),
        "ECGs before the patient's birth": _before_birth(hospital.ecgs.patient, hospital.ecgs.when, birth),
        "diagnoses on the rules' lists after the patient's death": _after_death(
            hospital.diagnoses.patient, hospital.diagnoses.when, death
        ),
        "diagnoses on the rules' lists before the patient's birth": _before_birth(
            hospital.diagnoses.patient, hospital.diagnoses.when, birth
        ),
    }
    age = hospital.people.age_years(hospital.ecgs.patient, hospital.ecgs.when.day)
    checks[f"ECGs at an age above {OLDEST_YEARS}"] = (hospital.ecgs.patient, age > OLDEST_YEARS)
    for found, (patient, wrong) in checks.items():
        hospital.faults.add(
            "FECG-289",
            "dates in the wrong order",
            names[patient[wrong]],
            rows=int(wrong.sum()),
            found=found,
            expected="birth, then ECGs and diagnoses, then death, by calendar day",
        )


def _note_far_ends(hospital: Hospital) -> None:
    """Follow-up that nobody lives through: a registry's 9999-12-31 says that there is no date, or none yet.

    Not what is later than today: dates of tables that may be published are moved into another century.
    """
    first = np.full(len(hospital.patients), np.iinfo(np.int64).max)
    np.minimum.at(first, hospital.ecgs.patient, hospital.ecgs.when.day)
    names = np.array(hospital.patients, dtype=object)
    for what, when in (("last contacts", hospital.end), ("deaths", hospital.death)):
        far = when.known & ((when.day - OLDEST_YEARS * DAYS_A_YEAR) > first)
        hospital.faults.add(
            "FECG-289",
            f"dates of {what}",
            names[far],
            rows=int(far.sum()),
            found=f"patients with one more than {OLDEST_YEARS} years after their first ECG",
            expected="days that were lived to; name cells that mean no date: no-date in [columns]",
        )


def _after_death(patient: Int, when: Moments, death: Moments) -> tuple[Int, NDArray[np.bool_]]:
    return patient, death.known[patient] & (when.day > death.day[patient])


def _before_birth(patient: Int, when: Moments, birth: Int) -> tuple[Int, NDArray[np.bool_]]:
    return patient, when.day < birth[patient]
