"""What a site's own table says of its ECG files, beyond the files themselves.

In:  `--table` of `fedecg data report`, and the names of the files. Out: a dictionary of cells for every file. Called by
     `data_facts`.
A file is found in the table by its whole name without ending, else by the last part of it where one file and one row
have that, as `fedecg cohort build` looks files up: the same table serves both.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from fedecg.cohort.build_sources import file_key
from fedecg.errors import RunInputError, some_of
from fedecg.files import in_words, read_regular
from fedecg.progress import Progress
from fedecg.signals.ingest_sources import separator_of

__all__ = ["COLUMNS", "Cells", "read_said", "refuse", "said_of"]

Cells = dict[str, str]

# What a table of ECGs may say beyond the file: name here -> what it is.
COLUMNS = {
    "patient": "whose ECG it is, any text",
    "device": "what recorded it",
    "report": "the text of its report",
    "age_years": "age at the ECG",
    "female": "1 or F, 0 or M, or blank",
}
_ENDINGS = (".hea", ".dat", ".mat")


def read_said(path: Path, column: str, renamed: Mapping[str, str], progress: Progress) -> dict[str, Cells]:
    """Name of a file without ending -> what the table says of it.

    Args:
        column: that holds the files' names. renamed: name of `COLUMNS` -> the table's column.

    Raises:
        RunInputError: FECG-609, it cannot be read, or lacks a column that was named.
    """
    try:
        text = read_regular(path).decode("utf-8-sig")
        separator = separator_of(text.partition("\n")[0], column)
        header, *rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        refuse(f"--table: {in_words(error)}", "a .csv file with a header")
    at = {name: renamed.get(name, name) for name in COLUMNS}
    absent = [name for name in (column, *renamed.values()) if name not in header]
    if absent:
        refuse(
            f"--table without the columns {some_of(absent)}", "columns of its header, by --column, --columns"
        )
    places = {name: header.index(theirs) for name, theirs in at.items() if theirs in header}
    files = header.index(column)
    uneven = sum(len(row) != len(header) for row in rows if row)
    if uneven:
        progress.warn(f"--table: {uneven} rows of another length than its header were passed over")
    return {
        _bare(row[files].strip()): {name: row[place].strip() for name, place in places.items()}
        for row in rows
        if len(row) == len(header)
    }


def said_of(sources: Sequence[str], said: Mapping[str, Cells] | None, progress: Progress) -> list[Cells]:
    """What the table says of each file, nothing where it does not speak of it; says how many it speaks of.

    Raises:
        RunInputError: FECG-609, of none: a table with other names would say nothing of anybody, silently.
    """
    if said is None:
        return [{} for _ in sources]
    rows, asked = Counter(map(file_key, said)), Counter(map(file_key, map(_bare, sources)))
    by_key = {file_key(name): cells for name, cells in said.items() if rows[file_key(name)] == 1}
    found = []
    for source in sources:
        key = file_key(_bare(source))
        near = by_key.get(key) if asked[key] == 1 else None
        found.append(said.get(_bare(source), near))
    matched = sum(cells is not None for cells in found)
    if not matched:
        refuse(
            f"--table whose {len(said)} names are those of none of {len(sources)} files",
            "names as they stand in SOURCES or the store's manifest.csv, or with the same last part",
        )
    progress.say(f"--table: {matched} of {len(sources)} files are in it")
    return [cells or {} for cells in found]


def refuse(found: str, expected: str) -> NoReturn:
    """Tell that there is nothing to report on.

    Raises:
        RunInputError: FECG-609.
    """
    raise RunInputError(
        "FECG-609",
        "data to report on",
        found=found,
        expected=expected,
        fix="fedecg data report --help shows what it takes.",
    )


def _bare(name: str) -> str:
    return next((name.removesuffix(ending) for ending in _ENDINGS if name.endswith(ending)), name)
