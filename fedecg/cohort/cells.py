"""The text of a csv table: its columns, the values of its cells, and everything that cannot be read, at once.

In:  a file. Out: columns of text; lists of values; one error that names every column with faults, with counts and never
a cell. Called by `fedecg.cohort.cohort`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from fedecg.errors import CohortError, some_of
from fedecg.files import in_words, read_regular

__all__ = [
    "Cells", "check_all", "flag", "not_blank", "number_or_blank", "read_table", "rows_words", "stated_codes",
    "whole",
]  # fmt: skip

UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # how such a text begins
SEPARATORS = {";": "semicolons", "\t": "tabs"}
CHECK_PATH = "Check the path in site.toml, or write the table again."

Value = TypeVar("Value")


def read_table(path: Path, columns: Sequence[str], optional: Mapping[str, str]) -> dict[str, list[str]]:
    """The columns of a csv file in UTF-8, as text.

    Args:
        path: of the file.
        columns: that it must have; others are ignored.
        optional: of these, column that it may lack -> what its cells then hold.

    Raises:
        CohortError: FECG-227 with what is wrong with the file as a whole.
    """
    try:
        data = read_regular(path)
        if data[:2] in UTF_16:
            _refuse("text in UTF-16, not UTF-8", columns, 'Save it as "CSV UTF-8".')
        text = io.StringIO(data.decode("utf-8-sig"), newline="")
        header, *rows = [row for row in csv.reader(text, strict=True) if row] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        _refuse(f"a file that cannot be read ({in_words(error)})", columns)
    missing = [name for name in columns if name not in header and name not in optional]
    if missing:
        _refuse_separator(header, columns)
        _refuse(f"{len(missing)} column(s) missing: {', '.join(missing)}", columns)
    uneven = sum(len(row) != len(header) for row in rows)
    if uneven:
        _refuse(f"{uneven} of {len(rows)} rows with more or fewer cells than the header", columns)
    return {
        name: [row[header.index(name)] if name in header else optional[name] for row in rows]
        for name in columns
    }


class Cells:
    """Columns of text become columns of values; what cannot be read is counted, column by column.

    Args:
        table: column -> its cells.
    """

    def __init__(self, table: Mapping[str, Sequence[str]]) -> None:
        self.table = table
        self.faults: list[CohortError] = []

    def column(self, name: str, parse: Callable[[str], Value], expected: str) -> list[Value]:
        """The values of a column, without cells that cannot be read: `check` before they are used."""
        values: list[Value] = []
        bad: list[int] = []
        for place, cell in enumerate(self.table[name]):
            try:
                values.append(parse(cell.strip()))
            except (ValueError, TypeError, OverflowError):
                bad.append(place)
        if bad:
            found = f"{len(bad)} of {len(self.table[name])} cells unreadable"
            fix = f"Correct {name} in {rows_words(bad)}."
            self.faults.append(
                CohortError("FECG-228", f"column {name}", found=found, expected=expected, fix=fix)
            )
        return values

    def check(self) -> None:
        """Raises:
        CohortError: FECG-228 with every column that has cells that cannot be read.
        """
        _raise_together(self.faults)


def rows_words(places: Sequence[int]) -> str:
    """Where to look in the site's own table; the text of an error stays at the site, of which only codes leave.

    Args:
        places: of the rows below the header, from 0.
    """
    rows = some_of([str(place + 2) for place in places], 5)
    return f"row{'s' if len(places) > 1 else ''} {rows} of the table, whose header is row 1"


def check_all(checks: Iterable[Callable[[], None]]) -> None:
    """Make all checks, and tell what all of them found.

    Raises:
        CohortError: that of the one check that failed; of several, under the first one's code, each with its own.
    """
    faults = []
    for check in checks:
        try:
            check()
        except CohortError as fault:
            faults.append(fault)
    _raise_together(faults)


def not_blank(cell: str) -> str:
    """A text that is there."""
    if not cell:
        raise ValueError
    return cell


def whole(cell: str) -> int:
    """A whole number of 64 bits."""
    number = int(cell)
    if abs(number) >= 2**63:
        raise ValueError
    return number


def flag(cell: str) -> bool:
    """0 or 1."""
    return bool(("0", "1").index(cell))


def number_or_blank(cell: str) -> float:
    """A number; NaN where the cell is blank."""
    return float(cell) if cell else float("nan")


def stated_codes(cell: str) -> dict[str, float]:
    """A JSON object of likelihoods; blank = nothing stated."""
    stated = json.loads(cell) if cell else {}
    if not isinstance(stated, dict):
        raise TypeError
    return {code: float(likelihood) for code, likelihood in stated.items()}


def _raise_together(faults: Sequence[CohortError]) -> None:
    if len(faults) == 1:
        raise faults[0]
    if faults:
        lines = [f"{fault.code} {fault.what}: {fault.found}; expected {fault.expected}" for fault in faults]
        raise CohortError(
            faults[0].code,
            "cohort table",
            found=f"{len(faults)} faults\n  " + "\n  ".join(lines) + "\n",
            expected="none of them",
            fix=" ".join(dict.fromkeys(fault.fix for fault in faults if fault.fix)),
        )


def _refuse_separator(header: Sequence[str], columns: Sequence[str]) -> None:
    """A table of one column whose name holds several: what spreadsheet programs write in some languages."""
    for separator, name in SEPARATORS.items():
        if len(header) == 1 and len(set(header[0].split(separator)) & set(columns)) > 1:
            fix = "Save it with commas between cells, and points in numbers (1.5, not 1,5)."
            _refuse(f"cells separated by {name}, not by commas", columns, fix)


def _refuse(found: str, columns: Sequence[str], fix: str = CHECK_PATH) -> NoReturn:
    raise CohortError(
        "FECG-227",
        "cohort table",
        found=found,
        expected=f"a csv file with the columns {', '.join(columns)}",
        fix=fix,
    )
