"""Which files to ingest: folders, patterns, lists and tables, as an ordered list in which each file stands once.

In:  what the command line names. Out: `Item`s. Called by `ingest`.
A name stands in the store's manifest and in refused.csv only, never in a message: it may hold a patient's id.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from fedecg.errors import SignalError
from fedecg.files import in_words
from fedecg.signals.reading import header_path
from fedecg.signals.wfdb16 import parse_header

__all__ = ["Item", "find_items", "has_header", "items_sha256"]

_TABLES, _LISTS = (".csv", ".tsv"), (".txt", ".list", ".lst")
_WILD = "*?["


class Item(NamedTuple):
    """One file."""

    source: str  # as the manifest states it: the cell of the table, the line of the list, the path below the folder
    path: Path
    searched: bool  # found by looking through a folder: it may be something else than an ECG
    parts: tuple[str, ...] | None = None  # files beside it that belong to it; None = not looked for yet


def find_items(sources: Sequence[str], column: str = "file") -> list[Item]:
    """All files that are named, in order, each once.

    A folder gives its files at any depth, in order of their names, without hidden ones and without the signal files
    that WFDB headers in it name. A pattern gives what it matches. A .csv or .tsv table with the column gives its
    cells, a .txt list its lines; both are relative to where they lie. Anything else is a record.

    Args:
        sources: folders, patterns, lists, tables, records.
        column: of a table, that holds the file names.

    Raises:
        SignalError: FECG-294 nothing to ingest, or a list or table that cannot be read; FECG-295 different files that
            would stand in the manifest under one name.
    """
    several = sum(Path(source).is_dir() for source in sources) > 1
    items: dict[str, Item] = {}
    names: set[str] = set()
    twice = 0
    for item in (found for source in sources for found in _found(source, column, several)):
        place = os.path.realpath(header_path(item.path) if has_header(item.path) else item.path)
        if place in items:
            continue
        twice += item.source in names
        names.add(item.source)
        items[place] = item
    if twice:
        raise SignalError(
            "FECG-295",
            "files to ingest",
            found=f"{twice} of {len(items)} with the name of another file",
            expected="different names: the manifest tells records by them",
            fix="Name the folder above, or one table with paths that differ.",
        )
    if not items:
        _refuse("no file")
    return list(items.values())


def items_sha256(items: Iterable[Item]) -> str:
    """Hash of names, sizes and times of change: when a file is mended or exchanged, it is another."""
    digest = hashlib.sha256()
    for item in items:
        places = [item.path]
        if item.parts is not None:
            places += [item.path.with_name(name) for name in item.parts]
        elif has_header(item.path):
            header = header_path(item.path)
            places = [header, *(header.with_name(name) for name in sorted(_named_by(header)))]
        for place in places:
            try:
                state = place.stat()
                said = f"{state.st_size} {state.st_mtime_ns}"
            except (OSError, ValueError):
                said = "absent"
            digest.update(f"{item.source}\0{said}\n".encode())
    return digest.hexdigest()


def _found(source: str, column: str, several: bool) -> Iterator[Item]:
    path = Path(source)
    if path.is_dir():
        yield from _in_folder(path, f"{path.resolve().name}/" if several else "")
    elif not path.exists() and any(sign in source for sign in _WILD):
        pattern = path.relative_to(path.anchor).as_posix()
        matches = sorted(Path(path.anchor).glob(pattern))
        yield from (Item(_printed(str(match)), match, True) for match in matches if match.is_file())
    elif path.suffix.casefold() in _TABLES and _is_table(path, column):
        yield from _listed(path, _cells(path, column))
    elif path.suffix.casefold() in _LISTS and path.is_file():
        yield from _listed(path, _lines(path))
    else:
        yield Item(_printed(source), path, False)


def _in_folder(folder: Path, prefix: str) -> Iterator[Item]:
    """Links to folders are not followed: they may go round in circles."""
    for below, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        place = Path(below)
        parts = {file: _named_by(place / file) for file in files if file.endswith(".hea")}
        named = set().union(*parts.values())
        for name in sorted(files):
            if not name.startswith(".") and name not in named:
                path = place / name
                shown = _printed(prefix + path.relative_to(folder).as_posix())
                yield Item(shown, path, True, tuple(sorted(parts.get(name, ()))))


def _named_by(header: Path) -> set[str]:
    """Files that belong to a WFDB header: signals, and the headers and signals of its segments."""
    try:
        text = header.read_text(encoding="latin-1")
        parsed = parse_header(text)
    except (OSError, SignalError):
        return set()
    segments = {f"{name}{ending}" for name in parsed.segment_names for ending in (".hea", ".dat", ".mat")}
    return {channel.file for channel in parsed.channels} | segments


def has_header(path: Path) -> bool:
    """Whether a name stands for a WFDB record: with .hea, .dat or .mat, or for a file that is not there as such."""
    return path.suffix in (".hea", ".dat", ".mat") or not path.is_file()


def _is_table(path: Path, column: str) -> bool:
    """A CSV file may be an ECG, too; a table says by its header that it is none."""
    return path.is_file() and column in next(_rows(path), [])


def _cells(path: Path, column: str) -> Iterator[str]:
    rows = _rows(path)
    at = next(rows).index(column)
    yield from (row[at] for row in rows if len(row) > at)


def _rows(path: Path) -> Iterator[list[str]]:
    separator = "\t" if path.suffix.casefold() == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.reader(file, delimiter=separator)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        _refuse(f"a table that cannot be read ({in_words(error)})")


def _lines(path: Path) -> Iterator[str]:
    try:
        yield from path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        _refuse(f"a list that cannot be read ({in_words(error)})")


def _listed(path: Path, names: Iterable[str]) -> Iterator[Item]:
    for name in names:
        if name.strip() and "\0" not in name:
            yield Item(name.strip(), path.parent / name.strip(), False)


def _printed(name: str) -> str:
    """The name as text that can be written; bytes that are no UTF-8 as backslash escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _refuse(found: str) -> NoReturn:
    raise SignalError(
        "FECG-294",
        "files to ingest",
        found=found,
        expected="folders, patterns, records, a .txt list, or a .csv table with a column of file names",
        fix="Check the paths; name the table's column with --column.",
    )
