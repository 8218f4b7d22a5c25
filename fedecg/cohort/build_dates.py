"""Dates and times of a hospital's tables: read, compared by calendar day, subtracted in days.

In:  columns of text. Out: `Moments`. Called by `build_records` and `build`.

What is compared, exactly. A moment has a calendar day and, where the cell has a time of day, a time. A column whose
times are all midnight has dates only: that is how a database prints a date. Two moments that both have a time are
compared by it, and their distance is in fractions of days; else by their days, and the distance is whole. Times are
those of the hospital's wall clock, so that a day is the day on the ward; across a change of clocks a span is off by an
hour.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort.build_tables import Column

__all__ = ["NO_DAY", "Moments", "days_between", "no_moments", "read_moments"]

NO_DAY = -1
SECONDS_A_DAY = 86_400.0
Order = Literal["iso", "day-first", "month-first"]
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}([ T]\d{1,2}:\d{2}.*)?")
_NUMBERS = re.compile(r"(\d{1,2})[./-](\d{1,2})[./-](\d{4})(?:[ T]+(\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?.*))?")


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of (n,) rows.

    Attributes:
        day: int64, ordinal of the calendar day; NO_DAY where there is none.
        second: float64, of that day; NaN where only the date is known.
        unreadable: bool, a cell that is neither blank nor a date.
        offset: bool, a time with an offset from UTC, and no time zone to place it in.
    """

    day: NDArray[np.int64]
    second: NDArray[np.float64]
    unreadable: NDArray[np.bool_]
    offset: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.day)

    @property
    def known(self) -> NDArray[np.bool_]:
        """(n,) rows that have a date."""
        return np.array(self.day != NO_DAY, dtype=np.bool_)

    def select(self, rows: NDArray[Any]) -> Moments:
        """Moments of some rows, by mask or index."""
        return Moments(self.day[rows], self.second[rows], self.unreadable[rows], self.offset[rows])


def days_between(start: Moments, end: Moments) -> NDArray[np.float64]:
    """(n,) days from one moment to another; fractions where both have a time; NaN where either is unknown."""
    days = (end.day - start.day).astype(np.float64)
    fraction = (end.second - start.second) / SECONDS_A_DAY
    days += np.where(np.isnan(fraction), 0.0, fraction)
    return np.where(start.known & end.known, days, np.nan)


def no_moments(rows: int) -> Moments:
    """Of rows that have none."""
    none = np.zeros(rows, dtype=np.bool_)
    return Moments(np.full(rows, NO_DAY), np.full(rows, np.nan), none, none)


def read_moments(column: Column, order: Order, time_zone: str = "", no_date: tuple[str, ...] = ()) -> Moments:
    """Moments of a column.

    Args:
        column: cells such as 2020-03-04, 2020-03-04 10:15:00, 2020-03-04T10:15Z; day-first: 04.03.2020 10:15;
            month-first: 03/04/2020. Blank: none.
        order: how they are written; in the other two orders, ISO dates (year first) are read as well.
        time_zone: the hospital's; a time with an offset is moved there, one without is there already.
        no_date: cells, or the dates of cells, that stand for no date.
    """
    zone = ZoneInfo(time_zone) if time_zone else None
    read = [_read(cell, order, zone, frozenset(no_date)) for cell in column.distinct]
    day = np.array([one[0] for one in read], dtype=np.int64)
    second = np.array([one[1] for one in read], dtype=np.float64)
    if not np.any(
        second > 0
    ):  # of the whole table, so that no selection of rows changes what a midnight means
        second[:] = np.nan
    kind = np.array([one[2] for one in read], dtype="U10")
    return Moments(day, second, kind == "unreadable", kind == "offset").select(column.at)


def _read(cell: str, order: Order, zone: ZoneInfo | None, no_date: frozenset[str]) -> tuple[int, float, str]:
    """Day, second and "", "unreadable" or "offset"."""
    nothing = (NO_DAY, float("nan"))
    if not cell or cell in no_date:
        return (*nothing, "")
    try:
        moment, timed = _parsed(cell, order)
    except ValueError:
        return (*nothing, "unreadable")
    if moment.tzinfo is not None:
        if zone is None:
            return (*nothing, "offset")
        try:
            moment = moment.astimezone(zone).replace(tzinfo=None)
        except OverflowError:  # the first and last days of the calendar
            return (*nothing, "unreadable")
    if moment.date().isoformat() in no_date:
        return (*nothing, "")
    second = (moment - datetime.combine(moment.date(), datetime.min.time())).total_seconds()
    return moment.toordinal(), second if timed else float("nan"), ""


def _parsed(cell: str, order: Order) -> tuple[datetime, bool]:
    """The moment, and whether the cell has a time of day."""
    iso = _ISO.fullmatch(cell)
    if iso:
        return datetime.fromisoformat(_two_digit_hour(cell)), iso.group(1) is not None
    numbers = _NUMBERS.fullmatch(cell) if order != "iso" else None
    if numbers is None:
        raise ValueError
    first, second, year, time = numbers.groups()
    day, month = (first, second) if order == "day-first" else (second, first)
    text = date(int(year), int(month), int(day)).isoformat()
    return datetime.fromisoformat(_two_digit_hour(f"{text} {time}" if time else text)), time is not None


def _two_digit_hour(text: str) -> str:
    return re.sub(r"^(.{10})[ T](\d:)", r"\1 0\2", text).replace(" +", "+").replace(" Z", "Z")
