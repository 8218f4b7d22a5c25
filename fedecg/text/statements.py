"""What an ECG code says: PTB-XL's 71 SCP-ECG statements, 133 SNOMED CT codes, or a site's own table.

In:  `scp_statements.csv` (CC BY 4.0) and `snomed_statements.csv` (BSD 2-Clause) beside this file, whose heads name
     their sources; a table (csv) of a site's own: code, description and, if it has one, category.
Out: `Statement`s for the prompts, and the diagnostic superclass of a record for partitions and probes.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

from fedecg.errors import TextError
from fedecg.files import in_words, read_regular

__all__ = [
    "SUPERCLASSES",
    "TABLES",
    "UNCLASSIFIED",
    "Statement",
    "dominant_superclass",
    "read_statements",
    "scp_statements",
    "snomed_statements",
    "statement_table",
]

# PTB-XL's diagnostic superclasses; ties go to the first, so that an abnormality wins over "normal".
SUPERCLASSES = ("MI", "HYP", "CD", "STTC", "NORM")
UNCLASSIFIED = "OTHER"


@dataclass(frozen=True)
class Statement:
    """One statement, worded as its table has it.

    Attributes:
        code: e.g. "CLBBB" (SCP-ECG), "733534002" (SNOMED CT), or a site's own.
        category: the group of statements that it belongs to, or "".
        description: what is stated.
        kinds: SCP-ECG: one or two of "diagnostic", "form", "rhythm".
        superclass: SCP-ECG: one of `SUPERCLASSES`, or "" where the statement is not diagnostic.
        subclass: SCP-ECG: PTB-XL's diagnostic subclass, or "".
    """

    code: str
    category: str
    description: str
    kinds: tuple[str, ...] = ()
    superclass: str = ""
    subclass: str = ""


@cache
def scp_statements() -> Mapping[str, Statement]:
    """All 71 statements by code, in the order of the codes.

    Source: Wagner et al. 2020, doi 10.1038/s41597-020-0495-6 (table scp_statements.csv, CC BY 4.0).
    """
    statements = (
        Statement(
            code=row["code"],
            category=row["category"],
            description=row["description"],
            kinds=tuple(row["kinds"].split()),
            superclass=row["superclass"],
            subclass=row["subclass"],
        )
        for row in _rows("scp_statements.csv")
    )
    return MappingProxyType({statement.code: statement for statement in statements})


@cache
def snomed_statements() -> Mapping[str, Statement]:
    """All 133 SNOMED CT codes of the PhysioNet/CinC headers (2020 and 2021), in the order of the codes.

    Source: mapping tables of github.com/physionetchallenges/evaluation-2021 (BSD 2-Clause); the wording is ours.
    """
    return MappingProxyType(
        {
            row["code"]: Statement(row["code"], row["category"], row["description"])
            for row in _rows("snomed_statements.csv")
        }
    )


def read_statements(path: str | Path) -> Mapping[str, Statement]:
    """A site's own table: columns code, description and, if it has one, category; others are not read.

    Separated by commas, or by semicolons as spreadsheets in half of Europe write them; UTF-8; lines that start with #
    are not read.

    Raises:
        TextError: FECG-250 no such table, not readable, without a column or with one twice; FECG-251 rows without a
            code or a description, or with more cells than there are columns (a comma that is not in quotes: what stands
            behind it would be lost), codes that stand there twice, or fewer than two statements (all are listed).
    """
    try:
        text = io.StringIO(
            read_regular(path).decode("utf-8-sig"), newline=""
        )  # a cell may have several lines
        lines = [line for line in text if line.strip() and not line.startswith("#")]
        semicolons = bool(lines) and lines[0].count(";") > lines[0].count(",")
        rows = list(csv.reader(lines, delimiter=";" if semicolons else ",", strict=True))
    except (OSError, ValueError, csv.Error) as error:
        _refuse_table(in_words(error))
    columns = [name.strip().lower() for name in rows[0]] if rows else []
    _refuse_columns(columns)
    cells = [
        {name: cell.strip() for name, cell in zip(columns, row, strict=False)} for row in rows[1:] if any(row)
    ]
    statements = [
        Statement(row.get("code", ""), row.get("category", ""), row.get("description", "")) for row in cells
    ]
    _refuse_rows(statements, sum(any(map(str.strip, row[len(columns) :])) for row in rows[1:]))
    return MappingProxyType({statement.code: statement for statement in statements})


# Name of a list in the package -> its statements, and where they come from (as a bank's provenance says it).
TABLES = {
    "scp-ecg": (
        scp_statements,
        "SCP-ECG statements of PTB-XL (Wagner et al. 2020, doi 10.1038/s41597-020-0495-6), CC BY 4.0",
    ),
    "snomed-ct": (
        snomed_statements,
        "SNOMED CT codes of the PhysioNet/CinC Challenges 2020 and 2021 (physionetchallenges/evaluation-2021), "
        "BSD 2-Clause; wording by fedecg",
    ),
}


def statement_table(name_or_path: str | Path) -> tuple[Mapping[str, Statement], str]:
    """A list of the package by name ("scp-ecg", "snomed-ct"), or a site's own table by path; and its source in words.

    Raises:
        TextError: FECG-250, FECG-251 as `read_statements`.
    """
    table = TABLES.get(str(name_or_path))
    if table is not None:
        statements, source = table
        return statements(), source
    return read_statements(name_or_path), "a table of the builder's own"


def dominant_superclass(codes: Mapping[str, float]) -> str:
    """The diagnostic superclass that most of a record's diagnostic likelihood falls on.

    Args:
        codes: SCP code -> likelihood in percent; 0 counts as stated (100). Codes that are not diagnostic, or
            that the table does not know, do not count.

    Returns:
        One of `SUPERCLASSES`, or `UNCLASSIFIED`. Ties go to the class that stands first in `SUPERCLASSES`.
    """
    weight = dict.fromkeys(SUPERCLASSES, 0.0)
    for code, likelihood in codes.items():
        statement = scp_statements().get(code)
        if statement is not None and statement.superclass:
            weight[statement.superclass] += likelihood or 100.0
    dominant = max(SUPERCLASSES, key=weight.__getitem__)
    return dominant if weight[dominant] > 0 else UNCLASSIFIED


def _rows(table: str) -> list[dict[str, str]]:
    lines = files("fedecg.text").joinpath(table).read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def _refuse_table(found: str) -> NoReturn:
    raise TextError(
        "FECG-250",
        "table of statements",
        found=found,
        expected=f"one of {', '.join(TABLES)}, or a csv (UTF-8) with the columns code and description",
        fix="Check --codes.",
    ) from None


def _refuse_columns(columns: Sequence[str]) -> None:
    absent = [name for name in ("code", "description") if name not in columns]
    if absent:
        _refuse_table(f"none of {' or '.join(absent)} among its {len(columns)} columns")
    twice = [name for name in ("code", "description", "category") if columns.count(name) > 1]
    if twice:
        _refuse_table(f"more than one column {' and '.join(twice)} among its {len(columns)}")


def _refuse_rows(statements: Sequence[Statement], too_long: int) -> None:
    times = Counter(statement.code for statement in statements if statement.code)
    counts = {
        "row(s) without a code": sum(not statement.code for statement in statements),
        "code(s) without a description": sum(not statement.description for statement in statements),
        "code(s) that stand there more than once": sum(count > 1 for count in times.values()),
        "row(s) with more cells than columns (text with a comma in it needs quotes)": too_long,
    }
    problems = [f"{count} {words}" for words, count in counts.items() if count]
    if not problems and len(statements) >= 2:
        return
    raise TextError(
        "FECG-251",
        "table of statements",
        found=f"{' and '.join(problems) or 'no more'} in {len(statements)} row(s)",
        expected="at least 2 rows, each code once and with a description",
        fix="Write a description for each code; one in which only a code stands means nothing to a language model.",
    )
