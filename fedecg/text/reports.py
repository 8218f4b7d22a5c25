"""Free-text reports of a site: read, and freed of what states nothing. They stay in this process.

In:  a table (csv) with the columns record and report; `uninformative.csv` beside this file.
Out: texts by record. Called by `fedecg.training.site_data` at the site; no text, and no part of one, is ever put into
     an error, a log or a message.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import TextError
from fedecg.files import in_words, read_regular

__all__ = ["COLUMNS", "informative", "read_reports", "sentences"]

COLUMNS = ("record", "report")
LETTER = re.compile(r"[^\W\d_]")
END = re.compile(r"[.;!?](?=\s|$)")  # "4.46" is none


def read_reports(path: str | Path, record: NDArray[np.int64]) -> list[str]:
    """What the reports of a cohort's records state, in the order of the records.

    Args:
        path: csv, UTF-8, with the columns record (row of the signal store) and report; others are not read. The cohort
            table itself serves if it has a column report.
        record: (N,) of the cohort; records that the table does not have get "".

    Returns:
        N texts as `informative` leaves them; "" where nothing is stated.

    Raises:
        TextError: FECG-234 no such table, not readable, without a column, or records that are no whole numbers or stand
            there twice.
    """
    try:
        text = read_regular(path).decode("utf-8-sig")
        header, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row] or [[]]
    except (OSError, ValueError, csv.Error) as error:
        _refuse(in_words(error))
    absent = [name for name in COLUMNS if name not in header]
    if absent:
        _refuse(f"no column {' or '.join(absent)} among its {len(header)}")
    at_record, at_report = (header.index(name) for name in COLUMNS)
    uneven = sum(len(row) != len(header) for row in rows)
    if uneven:
        _refuse(f"{uneven} of {len(rows)} rows with more or fewer cells than the header")
    numbers = [row[at_record].strip() for row in rows]
    unreadable = sum(not re.fullmatch(r"[0-9]{1,18}", number) for number in numbers)
    twice = len(numbers) - len(set(numbers))
    if unreadable or twice:
        _refuse(f"{unreadable} record(s) that are no whole number and {twice} that stand there twice")
    said = {int(number): informative(row[at_report]) for number, row in zip(numbers, rows, strict=True)}
    return [said.get(int(number), "") for number in record]


def informative(report: str) -> str:
    """A report without what states nothing ("trace only requested.", marks of unconfirmed reports), in single spaces.

    Returns:
        "" where no letter is left.
    """
    for pattern in _uninformative():
        report = pattern.sub(" ", report)
    words = " ".join(report.split()).strip(" .,;:-")
    return words if LETTER.search(words) else ""


def sentences(report: str) -> list[str]:
    """The sentences of a report as `informative` leaves it, in their order; at least one where there are letters."""
    parts = (part.strip(" ,:-") for part in END.split(report))
    return [part for part in parts if LETTER.search(part)]


@cache
def _uninformative() -> Sequence[re.Pattern[str]]:
    lines = files("fedecg.text").joinpath("uninformative.csv").read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return tuple(re.compile(row["pattern"], re.IGNORECASE) for row in rows)


def _refuse(found: str) -> NoReturn:
    raise TextError(
        "FECG-234",
        "table of reports",
        found=found,
        expected="a csv (UTF-8) with the columns record and report, each record once",
        fix="Check [text] reports in site.toml, or the column report of the cohort table.",
    ) from None
