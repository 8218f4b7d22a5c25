"""A hospital's table as columns of text: CSV, TSV or Parquet, each also compressed with gzip.

In:  a path, the table's role and the columns that are wanted. Out: `Table`. Called by `build_records`.
Cells are text whatever the table holds, without surrounding blanks; a missing one is "". A column is kept as its
distinct cells and where they stand, so that millions of rows of diagnoses are parsed once a distinct code or date.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import CohortError
from fedecg.files import in_words, read_regular

__all__ = ["CHECK", "Column", "Table", "constant", "read_table"]

MISSING = frozenset({"", "NA", "N/A", "NaN", "nan", "NULL", "null", "None", "NaT", "\\N", "."})
# Files that are taken for tables, by their first bytes.
NO_TABLES = {
    b"PK\x03\x04": "a spreadsheet or a zip file",
    b"\xd0\xcf\x11\xe0": "a spreadsheet of an old kind",
    b"\xff\xfe": "text in UTF-16, not UTF-8",
    b"\xfe\xff": "text in UTF-16, not UTF-8",
}
CHECK = "Check the paths in COHORT.toml, and the names in [columns]."
DELIMITERS = (",", ";", "\t", "|")
# What a compressed table may become: a small file must not fill the memory. Small tables repeat themselves more.
UNPACKED_BYTES, UNPACKED_TIMES, UNPACKED_ANYWAY = 2 * 10**9, 200, 1 << 24


@dataclass(frozen=True, eq=False)
class Column:
    """Cells of one column.

    Attributes:
        at: (n,) int64, which of `distinct` a row holds. distinct: the different cells.
    """

    at: NDArray[np.int64]
    distinct: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.at)

    def each(self, function: Callable[[str], Any], dtype: Any) -> NDArray[Any]:
        """(n,) what a function makes of every cell; called once for each distinct one."""
        made = np.empty(len(self.distinct), dtype=dtype)
        for number, cell in enumerate(self.distinct):
            made[number] = function(cell)
        return made[self.at] if len(self.distinct) else np.empty(len(self.at), dtype=dtype)

    def cells(self) -> NDArray[np.object_]:
        """(n,) the cells themselves."""
        return self.each(lambda cell: cell, object)

    def select(self, rows: NDArray[Any]) -> Column:
        """The column of some rows, by mask or index."""
        return Column(self.at[rows], self.distinct)


@dataclass(frozen=True, eq=False)
class Table:
    """Columns by the name that the caller asked for, all of one length.

    Attributes:
        role: how messages call the table. columns: name in the code (not in the file) -> cells. rows: their number.
    """

    role: str
    columns: dict[str, Column]
    rows: int

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]

    def select(self, rows: NDArray[Any]) -> Table:
        """Some rows, by mask or index."""
        columns = {name: column.select(rows) for name, column in self.columns.items()}
        return Table(self.role, columns, int(np.arange(self.rows)[rows].size))


def constant(cell: str, rows: int) -> Column:
    """A column that holds one cell in all rows."""
    return Column(np.zeros(rows, dtype=np.int64), (cell,))


def read_table(path: str | Path, role: str, names: dict[str, str]) -> Table:
    """Read some columns of a table.

    Args:
        path: .csv, .tsv, .txt or .parquet by content: Parquet by its first bytes, else text in UTF-8 whose delimiter
            is that of , ; tab | which its first line has most of.
        role: of the table in messages, such as "diagnoses".
        names: name in the code -> name in the file.

    Raises:
        CohortError: FECG-286 no such table, not readable, too large unpacked, or a column is missing or stands there
            twice.
    """
    try:
        content = read_regular(path)
        if content[:2] == b"\x1f\x8b":
            content = _unpacked(content, role, names)
    except (OSError, EOFError, zlib.error) as error:
        _refuse(role, f"a file that cannot be read ({in_words(error)})", names)
    for head, words in NO_TABLES.items():
        if content.startswith(head):
            _refuse(role, words, names)
    found = _parquet(content, role, names) if content[:4] == b"PAR1" else _text(content, role, names)
    columns = {name: _column(found.column(number)) for number, name in enumerate(names)}
    return Table(role, columns, found.num_rows)


def _unpacked(content: bytes, role: str, names: dict[str, str]) -> bytes:
    most = min(UNPACKED_BYTES, max(UNPACKED_TIMES * len(content), UNPACKED_ANYWAY))
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        unpacked = file.read(most + 1)
    if len(unpacked) > most:
        _refuse(
            role,
            f"more than {UNPACKED_BYTES // 10**9} GB, or {UNPACKED_TIMES} times its size, unpacked",
            names,
        )
    return unpacked


def _text(content: bytes, role: str, names: dict[str, str]) -> Any:
    import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
    from pyarrow import csv  # type: ignore[import-untyped,unused-ignore]

    content = content.removeprefix(b"\xef\xbb\xbf")
    first, _, _ = content.partition(b"\n")
    delimiter = max(DELIMITERS, key=lambda sign: first.count(sign.encode()))
    parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    try:
        head = csv.open_csv(io.BytesIO(first + b"\n"), parse_options=parse).schema.names
    except (pa.ArrowException, ValueError):
        _refuse(role, _no_csv(content), names)
    _check_names(head, role, names)
    wanted = list(dict.fromkeys(names.values()))
    convert = csv.ConvertOptions(
        include_columns=wanted,
        column_types=dict.fromkeys(wanted, pa.string()),
        strings_can_be_null=False,
    )
    try:
        table = csv.read_csv(io.BytesIO(content), parse_options=parse, convert_options=convert)
    except (pa.ArrowException, ValueError) as error:  # its text may hold a row
        uneven = "columns, got" in str(error)
        _refuse(role, "rows of different lengths" if uneven else _no_csv(content), names)
    if content.count(b'"') % 2 and table.num_rows + 1 < _lines(content):
        # One that is opened at the start of a cell takes in every row up to the next one, or to the end of the file.
        _refuse(role, "a quotation mark that is not closed, and rows that it swallows", names)
    return table.select(list(names.values()))


def _no_csv(content: bytes) -> str:
    """Why text cannot be read as a table; an export of Windows or of an old database is in another encoding."""
    if not content.strip():
        return "an empty file"
    try:
        content.decode()
    except UnicodeDecodeError:
        return "text that is not UTF-8 (Latin-1, say: iconv -f WINDOWS-1252 -t UTF-8 writes it anew)"
    return "text that is not CSV"


def _lines(content: bytes) -> int:
    """Lines that are not blank."""
    return sum(not line.isspace() and line != b"" for line in content.split(b"\n"))


def _parquet(content: bytes, role: str, names: dict[str, str]) -> Any:
    import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
    from pyarrow import parquet  # type: ignore[import-untyped,unused-ignore]

    try:
        file = parquet.ParquetFile(io.BytesIO(content))
        _check_names(file.schema_arrow.names, role, names)
        table = file.read(columns=list(dict.fromkeys(names.values()))).select(list(names.values()))
        columns = [_as_text(column) for column in table.columns]
    except (pa.ArrowException, ValueError, OSError, NotImplementedError):
        _refuse(role, "Parquet that cannot be read, or columns that cannot be read as text", names)
    return pa.Table.from_arrays(columns, names=list(names))


def _as_text(column: Any) -> Any:
    """A column of numbers, dates, times or text as text; 7.0 is "7", so that a number is a patient's name."""
    import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
    from pyarrow import compute  # type: ignore[import-untyped,unused-ignore]

    kind = column.type
    if pa.types.is_timestamp(kind):
        # In microseconds: the text of nanoseconds has more digits than a date has.
        column = column.cast(pa.timestamp("us", kind.tz), safe=False)
    if pa.types.is_floating(kind) and compute.all(compute.is_finite(column.drop_null())).as_py():
        whole = compute.equal(column, compute.floor(column))
        if compute.all(whole.drop_null() if hasattr(whole, "drop_null") else whole).as_py():
            column = column.cast(pa.int64())
    return column.cast(pa.string())


def _column(column: Any) -> Column:
    """Blank, missing and differently padded cells become one."""
    encoded = column.combine_chunks().dictionary_encode()
    if hasattr(encoded, "combine_chunks"):
        encoded = encoded.combine_chunks()
    cells = [cell.strip() for cell in encoded.dictionary.to_pylist()]
    distinct: dict[str, int] = {"": 0}
    number = [distinct.setdefault("" if cell in MISSING else cell, len(distinct)) for cell in cells]
    at = encoded.indices.fill_null(len(number)).to_numpy(zero_copy_only=False).astype(np.int64)
    return Column(np.array([*number, 0], dtype=np.int64)[at], tuple(distinct))


def _check_names(head: Sequence[str], role: str, names: dict[str, str]) -> None:
    wanted = sorted(set(names.values()))
    missing = [name for name in wanted if name not in head]
    twice = [name for name in wanted if list(head).count(name) > 1]
    if missing or twice:
        parts = [f"no column {', '.join(missing)}"] * bool(missing)
        parts += [f"several columns {', '.join(twice)}"] * bool(twice)
        _refuse(role, " and ".join(parts), names)


def _refuse(role: str, found: str, names: dict[str, str]) -> NoReturn:
    raise CohortError(
        "FECG-286",
        f"table of {role}",
        found=found,
        expected=f"CSV, TSV or Parquet (also .gz) with the columns {', '.join(sorted(set(names.values())))}",
        fix=CHECK,
    )
