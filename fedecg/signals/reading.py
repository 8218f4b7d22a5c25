"""From a file to a `Recording`: knows a format by its content, chooses the reader, refuses what is no 12-lead ECG.

In:  a path with or without its .hea, .dat or .mat ending, or of any other file; FILE#3 for one ECG of many in a file.
Out: `Recording`. Called by cohorts, data sets and commands. WFDB goes through `wfdb_files`, all else through the table
of formats below; docs/formats.md says what each reader takes and refuses. Only regular files are opened: a pipe among
them would keep whoever reads waiting for ever. No message names a file: a path may hold a patient's id.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from fedecg.errors import SignalError
from fedecg.files import NotRegularError, in_words, read_regular
from fedecg.signals import aecg, cardiosoft, dicom, edf, hdf5, matlab, muse, scp, sierra, stated
from fedecg.signals.faults import damaged, no_median, too_large
from fedecg.signals.recording import Kind, Recording
from fedecg.signals.stated import Rows
from fedecg.signals.wfdb_files import read_wfdb
from fedecg.signals.xml_tree import is_xml, parse_xml

__all__ = ["formats", "header_path", "read_median", "read_recording", "read_recordings", "recordings_in"]

T = TypeVar("T")
_ENDINGS = (".hea", ".dat", ".mat")
_HEAD_BYTES = 4096
_BYTES_MAX = 512 * 2**20  # of a file that is read as a whole


class _Format(NamedTuple):
    """A format: its name, how it is known, and how one ECG, or each of many, is read."""

    name: str
    known: Callable[[bytes], bool]  # by the first 4096 bytes
    one: Callable[[bytes, Kind], Recording] | None = None
    many: Callable[[bytes, bytes | None], Rows] | None = None  # of the file and of the JSON beside it


def _read_xml(content: bytes, kind: Kind) -> Recording:
    root = parse_xml(content)
    readers = {
        "cardiologyxml": cardiosoft.read_cardiosoft,
        "restingecg": muse.read_muse,
        "restingecgdata": sierra.read_sierra,
        "annotatedecg": aecg.read_aecg,
    }
    reader = readers.get(str(root.tag).lower())
    if reader is None:
        raise _unread("an XML file of another kind")
    return reader(root, kind)


# In this order: the first that knows a file reads it.
_FORMATS = (
    _Format(dicom.NAME, dicom.is_dicom, one=dicom.read_dicom),
    _Format(scp.NAME, scp.is_scp, one=scp.read_scp),
    _Format(hdf5.NAME, hdf5.is_hdf5),
    _Format(edf.NAME, edf.is_edf, one=edf.read_edf),
    _Format(matlab.NAME, matlab.is_matlab, one=matlab.read_matlab),
    _Format("NumPy", stated.is_npy, many=stated.read_npy),
    _Format("NumPy", stated.is_zip, many=stated.read_npz),
    _Format("Parquet", stated.is_parquet, many=stated.read_parquet),
    _Format("XML", is_xml, one=_read_xml),
    _Format("CSV", stated.is_csv, many=stated.read_csv),
)
# What begins a file of a format that is known and not read -> its name.
_BEGINNINGS = {b"\xffBIOSEMI": "BDF", b"%PDF": "PDF", b"MFER": "MFER"}


def formats() -> tuple[str, ...]:
    """Names of the formats that are read, for messages and documents."""
    return (
        "WFDB (.hea with .dat)",
        "PhysioNet .mat (with .hea)",
        *(reader.NAME for reader in (cardiosoft, muse, sierra, aecg, scp, dicom, edf)),
        "HDF5 of CODE-15 % and SPH",
        "CSV, Parquet and NumPy that state rate, unit and leads",
    )


def header_path(path: str | Path) -> Path:
    """Where the header of a record lies that is named with or without .hea, .dat or .mat."""
    return Path(_header_name(path))


def _header_name(path: str | Path) -> str:
    name = os.fspath(path).rstrip(os.sep)
    root, ending = os.path.splitext(name)  # noqa: PTH122, a `Path` takes as long as to read the header
    return f"{root if ending in _ENDINGS else name}.hea"


def read_recording(path: str | Path) -> Recording:
    """Read the rhythm strip of a 12-lead ECG (or of its 8 independent leads), whatever the format.

    Args:
        path: the record, with or without .hea, .dat or .mat; any other file by its name; FILE#3 for the ECG at place 3
            (counted from 0) of a file with many.

    Raises:
        SignalError: FECG-201..206 the files, FECG-207..211 units, leads and rate, FECG-212 the wfdb package cannot read
            it either, FECG-271 no gain, FECG-273 another format, FECG-274 a folder, FECG-276..284 as docs/formats.md
            says.
    """
    at = _header_name(path)
    content = _header(at)
    if content is None:
        return _read_other(Path(path), "rhythm")
    try:
        return read_wfdb(at, content)
    except SignalError as error:
        # Not the header of any record: perhaps a file of another format that was given this ending.
        if error.code == "FECG-202" and _format(content[:_HEAD_BYTES]) is not None:
            return _read_other(Path(at), "rhythm")
        raise


def read_median(path: str | Path) -> Recording:
    """The median (representative, reference) beat that the cardiograph stored in the file; its `kind` is "median".

    Raises:
        SignalError: FECG-282 there is none; as of `read_recording`.
    """
    if _header(_header_name(path)) is not None:
        raise no_median("WFDB")
    return _read_other(Path(path), "median")


def read_recordings(path: str | Path) -> Iterator[tuple[int, Recording | SignalError]]:
    """All ECGs of a file, each with its place (from 0); of one that is refused the error, so that the rest go on.

    Raises:
        SignalError: the file as a whole is refused; as of `read_recording`.
    """
    with _rows(path) as rows:
        for row in range(rows.count):
            try:
                yield row, _guarded(rows.read, row)
            except SignalError as error:
                yield row, error


def recordings_in(path: str | Path) -> int:
    """How many ECGs a file holds; 1 for a record or a file that holds one, which are not opened to know it.

    Raises:
        SignalError: a file with many that cannot be opened; as of `read_recording`.
    """
    with _rows(path) as rows:
        return rows.count


@contextmanager
def _rows(path: str | Path) -> Iterator[Rows]:
    single = Rows(1, lambda _: read_recording(path))
    if _header(_header_name(path)) is not None or not Path(path).is_file():
        yield single
        return
    with _open_many(Path(path)) as rows:
        yield rows or single


@contextmanager
def _open_many(path: Path) -> Iterator[Rows | None]:
    """The ECGs of a file of a format that can hold many; None of another format."""
    chosen = _format(_head(path))
    if chosen is None or chosen.one is not None:
        yield None
    elif chosen.many is None:
        with hdf5.open_hdf5(path) as rows:
            yield rows
    else:
        beside = path.with_name(path.name + ".json")
        yield _guarded(chosen.many, _content(path), _content(beside) if beside.is_file() else None)


def _read_other(given: Path, kind: Kind) -> Recording:
    """A file that is no WFDB record."""
    path, place = _place(given)
    if path.is_dir():
        raise SignalError(
            "FECG-274",
            "record",
            found="a folder",
            expected="a record in it",
            fix="Name the records: FOLDER/*.hea",
        )
    chosen = _format(_head(path))
    if chosen is None:
        raise _unread_file(path)
    if chosen.one is not None:
        return _guarded(chosen.one, _content(path), kind, name=chosen.name)
    if kind == "median":
        raise no_median(chosen.name)
    with _open_many(path) as rows:
        assert rows is not None  # chosen.one is None
        if (rows.count != 1 and place is None) or not 0 <= (place or 0) < rows.count:
            raise SignalError(
                "FECG-281",
                f"{chosen.name} file",
                found=f"{rows.count} ECGs in it",
                expected=f"one, or its place: FILE#0 to FILE#{max(rows.count - 1, 0)}",
                fix="Add the place of the ECG to the name.",
            )
        return _guarded(rows.read, place or 0, name=chosen.name)


def _place(given: Path) -> tuple[Path, int | None]:
    """FILE#3 -> FILE, 3; a file that has such a name goes before."""
    name, sharp, place = given.name.rpartition("#")
    if sharp and name and place.isascii() and place.isdigit() and len(place) < 10 and not given.exists():
        return given.with_name(name), int(place)
    return given, None


def _guarded(read: Callable[..., T], *given: object, name: str = "ECG") -> T:
    """What a reader returns; whatever a package raises that it wraps becomes a refusal."""
    try:
        return read(*given)
    except SignalError:
        raise
    except MemoryError:
        raise too_large(name, "more than fits into memory") from None
    except Exception:  # packages raise whatever their parsers meet, with values of the file in the text
        raise damaged(name, "content that its reader fails on") from None


def _format(head: bytes) -> _Format | None:
    return next((each for each in _FORMATS if each.known(head)), None)


def _header(at: str) -> bytes | None:
    """Content of a record's header; None where there is no such file."""
    try:
        return read_regular(at)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise _unreadable(in_words(error)) from None


def _head(path: Path) -> bytes:
    """The first bytes of a regular file, without waiting for whoever would write to a pipe."""
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(file, "rb", buffering=0) as content:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise NotRegularError
            return content.read(_HEAD_BYTES)
    except (OSError, ValueError) as error:
        raise _unreadable(in_words(error)) from None


def _content(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > _BYTES_MAX:
            raise too_large("ECG", f"{size} bytes")
        return read_regular(path)
    except (OSError, ValueError) as error:
        raise _unreadable(in_words(error)) from None


def _unread_file(path: Path) -> SignalError:
    """What a file that no reader knows looks like."""
    if path.suffix in _ENDINGS:
        return _unreadable("a signal file without its header")
    head = _head(path)
    names = (
        f"a file in format {name}" for beginning, name in _BEGINNINGS.items() if head.startswith(beginning)
    )
    return _unread(next(names, "a file in another format"))


def _unread(found: str) -> SignalError:
    return SignalError(
        "FECG-273",
        "record",
        found=found,
        expected=", ".join(formats()),
        fix="Export or convert the ECG to one of these.",
    )


def _unreadable(found: str) -> SignalError:
    return SignalError(
        "FECG-201",
        "header",
        found=found,
        expected="a readable .hea file, or an ECG file of another format",
        fix="Check the path of the record.",
    )
