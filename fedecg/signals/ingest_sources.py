"""Which files to ingest: folders, patterns, lists and tables, as an ordered list in which each file stands once.

In:  what the command line names. Out: `Item`s. Called by `ingest`.
A name stands in the store's manifest and in refused.csv only, never in a message: it may hold a patient's id.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from fedecg.errors import SignalError
from fedecg.files import in_words, read_regular
from fedecg.signals.reading import header_path
from fedecg.signals.stated import is_csv
from fedecg.signals.wfdb16 import parse_header

__all__ = ["Item", "find_items", "has_header", "items_sha256", "separator_of"]

_TABLES, _LISTS = (".csv", ".tsv"), (".txt", ".list", ".lst")
_WILD = "*?["
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_HEAD_BYTES = 4096  # by which an ECG in CSV is known


class Item(NamedTuple):
    """One file."""

    source: str  # as the manifest states it: the cell of the table, the line of the list, the path below the folder
    path: Path
    searched: bool  # found by looking through a folder: it may be something else than an ECG
    parts: tuple[str, ...] | None = None  # files beside it that belong to it; None = not looked for yet
    closed: bool = False  # a folder that cannot be looked through: it is refused, for there may be ECGs in it


def find_items(sources: Sequence[str], column: str = "file") -> list[Item]:
    """All files that are named, in order, each once.

    A folder gives its files at any depth, in order of their names, without hidden ones and without the signal files
    that WFDB headers in it name. A pattern gives what it matches. A .csv or .tsv table with the column gives its
    cells, a .txt list its lines; both are relative to where they lie. Anything else is a record. A folder in a folder
    that cannot be looked through is an item of its own, which is refused.

    Args:
        sources: folders, patterns, lists, tables, records.
        column: of a table, that holds the file names.

    Raises:
        SignalError: FECG-294 nothing to ingest, a source that is empty or not there, a table without the column, or a
            list or table that cannot be read; FECG-295 different files that would stand in the manifest under one name.
    """
    _refuse_absent(sources)
    several = sum(_is(Path.is_dir, Path(source)) for source in sources) > 1
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


def _refuse_absent(sources: Sequence[str]) -> None:
    """A mistyped path is told before anything is written; a record that a list names is refused as such."""
    if not all(sources):
        _refuse("an empty name")
    absent = sum(not _is_there(source) for source in sources)
    if absent:
        _refuse(f"{absent} of {len(sources)} names of nothing that is there")


def _is_there(source: str) -> bool:
    path = Path(source)
    if _is(Path.exists, path) or _is(Path.exists, header_path(path)):
        return True
    file, sharp, _ = source.rpartition("#")  # FILE#3: one ECG of a file
    if sharp and _is(Path.is_file, Path(file)):
        return True
    return _is_wild(source)


def _is(asked: Callable[[Path], bool], path: Path) -> bool:
    """Whether a path is so; a name that no file can have (too long, too deep) is nothing."""
    try:
        return asked(path)
    except OSError:
        return False


def _found(source: str, column: str, several: bool) -> Iterator[Item]:
    path = Path(source)
    if _is(Path.is_dir, path):
        yield from _in_folder(path, f"{path.resolve().name}/" if several else "")
    elif not has_header(path) and path.suffix.casefold() in _TABLES and not _is_ecg(path):
        yield from _listed(path, _cells(path, column))
    elif not _is(Path.exists, path) and not _is(Path.exists, header_path(path)) and _is_wild(source):
        yield from _matching(path)
    elif path.suffix.casefold() in _LISTS and _is(Path.is_file, path):
        yield from _listed(path, _lines(path))
    else:
        yield Item(_printed(source), path, False)


def _is_wild(source: str) -> bool:
    return any(sign in source for sign in _WILD)


def _matching(path: Path) -> Iterator[Item]:
    matches = sorted(Path(path.anchor).glob(path.relative_to(path.anchor).as_posix()))
    files = [match for match in matches if _is(Path.is_file, match)]
    if not files:
        _refuse("a pattern that no file matches")
    yield from (Item(_printed(str(match)), match, True) for match in files)


def _in_folder(folder: Path, prefix: str) -> Iterator[Item]:
    """Links to folders are not followed: they may go round in circles."""
    closed: list[Path] = []

    def note(error: OSError) -> None:
        place = Path(error.filename)
        if place == folder:
            _refuse(f"a folder that cannot be looked through ({in_words(error)})")
        closed.append(place)

    yield from _walked(folder, prefix, note)
    for place in sorted(closed):
        shown = _printed(f"{prefix}{place.relative_to(folder).as_posix()}/")
        yield Item(shown, place, True, (), closed=True)


def _walked(folder: Path, prefix: str, note: Callable[[OSError], None]) -> Iterator[Item]:
    for below, folders, files in os.walk(folder, onerror=note):
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
        text = read_regular(header).decode("latin-1")  # a pipe would keep its reader waiting for ever
        parsed = parse_header(text)
    except (OSError, SignalError):
        return set()
    segments = {f"{name}{ending}" for name in parsed.segment_names for ending in (".hea", ".dat", ".mat")}
    return {*parsed.files, *segments}


def has_header(path: Path) -> bool:
    """Whether a name stands for a WFDB record: with .hea, .dat or .mat, or for a file that is not there as such."""
    return path.suffix in (".hea", ".dat", ".mat") or not _is(Path.is_file, path)


def separator_of(first: str, column: str) -> str:
    """What separates the cells of a table: of , ; tab | by which its first line has the column, or the commonest."""
    by_number = sorted(_SEPARATORS, key=first.count, reverse=True)
    having = (sign for sign in by_number if column in next(csv.reader([first], delimiter=sign), []))
    return next(having, by_number[0])


def _is_ecg(path: Path) -> bool:
    """A CSV file may be an ECG, too: it has a column a lead."""
    try:
        with path.open("rb") as file:
            return is_csv(file.read(_HEAD_BYTES))
    except OSError as error:
        _refuse(f"a table that cannot be read ({in_words(error)})")


def _cells(path: Path, column: str) -> Iterator[str]:
    separator, rows = _rows(path, column)
    header = next(rows, [])
    if column not in header:
        _refuse(f"a table without a column {column} ({len(header)} columns between {_SEPARATORS[separator]})")
    at = header.index(column)
    yield from (row[at] for row in rows if len(row) > at)


def _rows(path: Path, column: str) -> tuple[str, Iterator[list[str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        separator = separator_of(text.partition("\n")[0], column)
        return separator, iter(list(csv.reader(io.StringIO(text, newline=""), delimiter=separator)))
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
        expected="folders, patterns, records, a .txt list, or a .csv table (, ; tab |) with a column of file names",
        fix="Check the paths; name the table's column with --column.",
    )
