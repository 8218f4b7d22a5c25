"""Files that appear whole or not at all, that are read without waiting, and whose errors are said in words.

In:  a path and its content. Out: the file, so that what a kill leaves behind is never taken for finished.
In:  a path. Out: its bytes, if it is a regular file; a pipe would keep its reader waiting for ever.
In:  an exception of reading or writing. Out: words for whoever uses fedecg. Called wherever fedecg reads and writes.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedecg.errors import RunError, RunInputError

__all__ = [
    "NotRegularError",
    "denied",
    "in_words",
    "read_regular",
    "require_folder",
    "user_name",
    "whole_file",
    "write_whole",
]

# The first kind that fits; subclasses stand before what they are a kind of.
_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (FileNotFoundError, "no such file"),
    (PermissionError, "no permission"),
    (IsADirectoryError, "a folder"),
    (NotADirectoryError, "a path that leads through a file"),
    (FileExistsError, "a file that is there already"),
    (json.JSONDecodeError, "text that is not JSON"),
    (tomllib.TOMLDecodeError, "text that is not TOML"),
    (UnicodeDecodeError, "text that is not UTF-8"),
    (csv.Error, "text that is not CSV"),
    (EOFError, "a file that ends too early"),
    (MemoryError, "more than fits into memory"),
)


PIECE_BYTES = 1 << 24
NO_SYNC = (errno.EINVAL, errno.ENOTSUP)


class NotRegularError(OSError):
    """What was named is a pipe, a socket or a device."""


def in_words(error: BaseException) -> str:
    """What an exception of reading or writing means, without its text: that may hold a path or a cell."""
    if isinstance(error, NotRegularError):
        return "a pipe or device, not a file"
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return words
    if isinstance(error, OSError):
        return os.strerror(error.errno).lower() if error.errno else "an error of the operating system"
    return "content that cannot be read"


def denied(error: OSError, path: str | Path | None = None) -> tuple[str, str]:
    """What may not be used, whose it is, and what mends that; a path may hold an id and is not told.

    Args:
        error: of permission.
        path: what was to be used; None: what the error names.

    Returns:
        What was found, the fix.
    """
    me, place = user_name(os.geteuid()), Path(path or error.filename or ".")
    while not os.path.lexists(place) and place != place.parent:  # it is its folder that may not be written
        place = place.parent
    try:
        state = place.stat()
    except OSError:
        return (
            f"no permission, as user {me}",
            f"Let {me} use the folder that holds it, or run it as its owner.",
        )
    kind = "folder" if stat.S_ISDIR(state.st_mode) else f"{place.suffix[:12]} file".strip()
    owner = user_name(state.st_uid)
    found = f"no permission for a {kind} of {owner} (mode {stat.S_IMODE(state.st_mode):04o}), as user {me}"
    if owner == me:
        return found, f"Change the permissions of that {kind} (chmod u+rwX), or of the folder that holds it."
    return found, f"Run it as {owner}, or give that {kind} to {me} (chown)."


def user_name(number: int) -> str:
    """The name of a user; the number where there is none."""
    try:
        import pwd  # not on every system

        return pwd.getpwuid(number).pw_name
    except (ImportError, KeyError):
        return str(number)


def read_regular(path: str | Path) -> bytes:
    """Content of a regular file, or of one that a link leads to; never waits for whoever would write to a pipe.

    Raises:
        NotRegularError: a pipe, a socket or a device. OSError, ValueError: as of `open`.
    """
    # Without O_NONBLOCK the opening itself waits until somebody opens a pipe's other end. Without a file object around
    # it, since small files are read by the hundred thousand.
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        state = os.fstat(file)
        if stat.S_ISDIR(state.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(state.st_mode):
            raise NotRegularError
        pieces = [os.read(file, state.st_size)]
        if len(pieces[0]) == state.st_size > 0:
            return pieces[0]
        # The size is not true of files under /proc, and one call does not read 2 GB.
        while piece := os.read(file, PIECE_BYTES):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(file)


def require_folder(folder: Path) -> None:
    """Refuse a folder that cannot be written, before the work that it is for; it need not be there yet.

    Raises:
        RunInputError: FECG-601.
    """
    place = folder
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return
    found = (
        "no permission" if place.is_dir() else "a file" if place == folder else in_words(NotADirectoryError())
    )
    raise RunInputError(
        "FECG-601",
        "folder to write",
        found=found,
        expected="a new one, or one that can be written",
        fix="Choose another --out.",
    )


def write_whole(path: Path, content: bytes | str, *, private: bool = False, durable: bool = True) -> None:
    """Write beside the target, sync, then rename; makes the folder.

    Args:
        path: of the file.
        content: text is written as UTF-8.
        private: for its owner alone from the first byte on.
        durable: as of `whole_file`.

    Raises:
        RunError: FECG-601 if the file cannot be written; nothing half-written stays behind.
    """
    if not path.name:
        raise RunError(
            "FECG-601",
            "file",
            found="a folder",
            expected="the name of a file",
            fix="Add a file name to --out.",
        )
    data = content.encode() if isinstance(content, str) else content
    with whole_file(path, private=private, durable=durable) as part, part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _make_folder(folder: Path) -> None:
    """A file in its place is told as what it is, and not as a target that is there already."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None


def _sync_folder(folder: Path) -> None:
    """A rename lasts once its folder has been synced; some file systems (of networks) cannot, and say so."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except PermissionError:  # a folder that may be written and not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(descriptor)


@contextmanager
def whole_file(path: Path, what: str = "", *, private: bool = False, durable: bool = True) -> Iterator[Path]:
    """A new, empty file beside the target, which takes its place when the block has ended well; makes the folder.

    Args:
        path: of the target.
        what: it is, for the message; by default "file" and its name.
        private: for its owner alone from the first byte on.
        durable: its name, too, is on the disk when this returns, and outlives a power cut: what was told to somebody
            stays true. Not worth the milliseconds for a file that is replaced every second.

    Raises:
        RunError: FECG-601 if it, or what the block writes, cannot be written; nothing half-written stays behind.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    mode, how = (0o600, os.O_EXCL) if private else (0o666, os.O_TRUNC)
    try:
        _make_folder(path.parent)
        if private:  # half-written, of a killed process that had this number
            part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | how | getattr(os, "O_NOFOLLOW", 0), mode))
        yield part
        part.replace(path)
        if durable:
            _sync_folder(path.parent)
    except OSError as error:
        found, fix = in_words(error), "Free space on that disk, or write to another folder."
        if isinstance(error, PermissionError):
            found, fix = denied(error, path.parent)
        raise RunError(
            "FECG-601",
            what or f"file {path.name}",
            found=found,
            expected="a folder that can be written, with space left",
            fix=fix,
        ) from None
    finally:  # after a fault or Ctrl-C; when all went well it has been renamed
        with suppress(OSError):
            part.unlink()
