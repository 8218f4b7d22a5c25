"""Birth and sex of the patients who have an ECG.

In:  the table of people, if there is one. Out: `People`. Called by `build_records`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort.build_dates import NO_DAY
from fedecg.cohort.build_diagnoses import note_moments, read_with
from fedecg.cohort.build_faults import Faults
from fedecg.cohort.build_settings import CohortSettings
from fedecg.cohort.build_tables import Table

__all__ = ["DAYS_A_YEAR", "OLDEST_YEARS", "People", "read_people"]

DAYS_A_YEAR = 365.25
OLDEST_YEARS = 120
UNKNOWN_YEAR = -10_000


@dataclass(frozen=True, eq=False)
class People:
    """(P,) each.

    Attributes:
        birth_day: int64, ordinal of the earliest day on which the patient can have been born; NO_DAY = not known.
        birth_exact: bool, the day itself is known, not the year alone.
        female: float64, 1, 0 or NaN.
    """

    birth_day: NDArray[np.int64]
    birth_exact: NDArray[np.bool_]
    female: NDArray[np.float64]

    def age_years(self, patient: NDArray[np.int64], day: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n,) age on a day: elapsed years of 365.25 days, or the difference of the calendar years; NaN = unknown."""
        birth = self.birth_day[patient]
        elapsed = (day - birth) / DAYS_A_YEAR
        calendar = _years(day) - _years(birth)
        age = np.where(self.birth_exact[patient], elapsed, calendar)
        return np.where(birth == NO_DAY, np.nan, age)


def read_people(
    table: Table | None,
    settings: CohortSettings,
    index: Mapping[str, int],
    faults: Faults,
    notes: list[str],
) -> People:
    """Read them; patients whose rows contradict each other are a fault (FECG-290), a cell unread is one (FECG-287)."""
    size = len(index)
    people = People(np.full(size, NO_DAY), np.zeros(size, dtype=np.bool_), np.full(size, np.nan))
    if table is None:
        return people
    patient = table["patient"].each(lambda cell: index.get(cell, -1), np.int64)
    table = table.select(patient >= 0)
    patient = patient[patient >= 0]
    born, exact = _births(table, settings, faults)
    _fill(people.birth_day, patient, born, born != NO_DAY, "dates or years of birth", list(index), faults)
    people.birth_exact[patient] = exact
    if "sex" in table.columns:
        female = _sexes(table, settings, notes)
        _fill(people.female, patient, female, ~np.isnan(female), "sexes", list(index), faults)
    return people


def _births(table: Table, settings: CohortSettings, faults: Faults) -> tuple[NDArray[np.int64], bool]:
    if "birth_date" in table.columns:
        when = read_with(table["birth_date"], settings)
        note_moments("birth", table["patient"], when, faults)
        return when.day, True
    if "birth_year" in table.columns:
        year = table["birth_year"].each(_whole, np.int64)
        bad = year == UNKNOWN_YEAR
        stated = table["birth_year"].each(bool, np.bool_)
    elif "age" in table.columns:
        age, at = table["age"].each(_whole, np.int64), table["age_year"].each(_whole, np.int64)
        bad = (age == UNKNOWN_YEAR) | (at == UNKNOWN_YEAR)
        year = np.where(bad, UNKNOWN_YEAR, at - age)
        stated = table["age"].each(bool, np.bool_)
    else:
        return np.full(table.rows, NO_DAY), False
    bad |= (year < 1) | (year > 9999)
    faults.add(
        "FECG-287",
        "birth or age of people",
        table["patient"].cells()[bad & stated],
        rows=int(np.sum(bad & stated)),
        found=f"of {table.rows} cells that are no whole number of years",
        expected="a year of birth, or an age with its year",
    )
    first_day = [
        NO_DAY if wrong else date(int(one), 1, 1).toordinal() for one, wrong in zip(year, bad, strict=True)
    ]
    return np.array(first_day, dtype=np.int64), False


def _sexes(table: Table, settings: CohortSettings, notes: list[str]) -> NDArray[np.float64]:
    female = {word.strip().lower() for word in settings.columns.people.female}
    male = {word.strip().lower() for word in settings.columns.people.male}

    def read(cell: str) -> float:
        word = cell.lower()
        return 1.0 if word in female else 0.0 if word in male else float("nan")

    sex: NDArray[np.float64] = table["sex"].each(read, np.float64)
    unknown = int(np.sum(np.isnan(sex) & table["sex"].each(bool, np.bool_)))
    if unknown:
        notes.append(
            f"{unknown} cells of sex are on neither list of [columns.people] female, male and count as missing"
        )
    return sex


def _fill(
    values: NDArray[np.float64] | NDArray[np.int64],
    patient: NDArray[np.int64],
    stated: NDArray[np.float64] | NDArray[np.int64],
    known: NDArray[np.bool_],
    what: str,
    names: list[str],
    faults: Faults,
) -> None:
    """Put what is stated into `values`; whoever has two different ones is a fault."""
    values[patient[known][::-1]] = stated[known][::-1]
    contradicting = np.unique(patient[known][values[patient[known]] != stated[known]])
    faults.add(
        "FECG-290",
        "table of people",
        [names[number] for number in contradicting],
        rows=len(contradicting),
        found=f"patients with two {what}",
        expected="one",
    )


def _years(day: NDArray[np.int64]) -> NDArray[np.float64]:
    """Calendar years of ordinals."""
    epoch = date(1970, 1, 1).toordinal()
    years: NDArray[np.float64] = (
        (day - epoch).astype("datetime64[D]").astype("datetime64[Y]").astype(np.float64)
    )
    return years + 1970


def _whole(cell: str) -> int:
    try:
        number = float(cell)
        return int(number) if number == int(number) and abs(number) < -UNKNOWN_YEAR else UNKNOWN_YEAR
    except (ValueError, OverflowError):
        return UNKNOWN_YEAR
