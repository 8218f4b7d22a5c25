"""The record of everything that leaves a site, written before it leaves.

In:  a message as it will travel (its document and its arrays), and what it is for. Out: one line of JSON a message in
     state/egress, on the disk when `append` returns; the same lines again for whoever asks what has left.
Called by the client for every message, and by `fedecg-client egress` and `approve`.

A line holds every number and word of the document as it leaves, and of each array its name, shape, kind, bytes, L2 norm
and sha256 (an update is too large to be kept each round; by its hash it can be known again). Nothing else of the site:
no patient, no path. A line that a kill has cut short is passed over by readers, and said so.

Guarantees:
    `append` returns only when its line is on the disk: no message that leaves after it is missing from the record,
    whatever is killed when. The last message in the record may not have left.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import PolicyError
from fedecg.files import in_words
from fedecg.locks import LockHeldError, held

__all__ = ["ArrayEntry", "Departure", "EgressRecord", "array_entry", "flattened"]

FILE, PAST = "egress.jsonl", "egress-{:06d}.jsonl.gz"
MOST_BYTES = 16 << 20  # of the file in use; then it is packed and a new one begun
MOST_KEPT = 200  # packed files, of a few MB each; the oldest go first

Number = int | float | bool | None


@dataclass(frozen=True)
class ArrayEntry:
    """One array of a message: what it was, by which it can be known again.

    Attributes:
        name: as it travels.
        shape, dtype: of the numbers; "bfloat16" where 16 bits stand for one.
        bytes: as they travel.
        l2: Euclidean norm; null where a number is not finite.
        sha256: of the bytes as they travel.
    """

    name: str
    shape: list[int]
    dtype: str
    bytes: int
    l2: float | None
    sha256: str


@dataclass(frozen=True)
class Departure:
    """One message.

    Attributes:
        at: time, UTC.
        to: address of the coordinator; "" in one process.
        study, run, phase, round: what for; "" and 0 where the message speaks of none.
        kind: of the reply, "Failure" where a code alone leaves.
        bytes: of the document and the arrays.
        sha256: of the whole message, as the coordinator acknowledges it.
        arrays: of the message.
        values: every number and word of the document: key, with dots, -> one or a list.
        epsilon: most that any patient of the site has spent with this message, over all studies; null without a ledger.
        note: of the site itself, as after a withdrawal; then nothing has left.
    """

    at: str
    to: str = ""
    study: str = ""
    run: str = ""
    phase: str = ""
    round: int = 0
    kind: str = ""
    bytes: int = 0
    sha256: str = ""
    arrays: tuple[ArrayEntry, ...] = ()
    values: Mapping[str, Any] | None = None
    epsilon: float | None = None
    note: str = ""

    def document(self) -> dict[str, Any]:
        """As it stands in the record."""
        return asdict(self)


class EgressRecord:
    """The record of one site.

    Args:
        folder: of its files; made for the owner alone with the first line.
        most_bytes: of the file in use.
        most_kept: packed files.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES, most_kept: int = MOST_KEPT) -> None:
        self._folder, self._file = folder, folder / FILE
        self._most_bytes, self._most_kept = most_bytes, most_kept

    def append(self, departure: Departure) -> None:
        """Write a line; when this returns it is on the disk, and the message may leave.

        Raises:
            PolicyError: FECG-448 it cannot be written; the message must not leave.
        """
        line = json.dumps(departure.document(), separators=(",", ":"), allow_nan=False)
        try:
            for folder in (self._folder.parent, self._folder):
                folder.mkdir(mode=0o700, exist_ok=True)
            with held(self._folder / "egress.lock"):
                if self._size() > self._most_bytes:
                    self._pack()
                _write_line(self._file, line)
        except OSError as error:
            raise _not_recorded(in_words(error)) from None
        except LockHeldError:
            raise _not_recorded("another process that writes to it") from None

    def read(self, run: str = "", study: str = "") -> Iterator[dict[str, Any]]:
        """Lines, oldest first, of one run and of one study if they are named.

        A line that cannot be read comes as {"damaged": true}, whatever was asked for.

        Raises:
            PolicyError: FECG-450 a file that cannot be read.
        """
        for line in self._lines():
            entry = _parsed(line)
            wanted = run in ("", entry.get("run")) and study in ("", entry.get("study"))
            if wanted or "damaged" in entry:
                yield entry

    def _lines(self) -> Iterator[str]:
        files = [*self._packed(), *([self._file] if self._file.exists() else [])]
        for file in files:
            try:
                content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
            except (OSError, EOFError, zlib.error) as error:
                raise _unreadable(file.name, error) from None
            yield from content.decode("utf-8", errors="replace").splitlines()

    def _size(self) -> int:
        return self._file.stat().st_size if self._file.exists() else 0

    def _packed(self) -> list[Path]:
        """Oldest first."""
        return sorted(self._folder.glob(PAST.replace("{:06d}", "*")))

    def _pack(self) -> None:
        """The file in use becomes a packed one; a kill in between leaves it whole, once."""
        past = self._packed()
        number = int(past[-1].name.split("-")[1].split(".")[0]) + 1 if past else 1
        part = self._folder / f".{PAST.format(number)}.part"
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as target:
            target.write(gzip.compress(self._file.read_bytes(), mtime=0))
            target.flush()
            os.fsync(target.fileno())
        packed = self._folder / PAST.format(number)
        part.replace(packed)
        self._file.unlink()
        _sync(self._folder)
        for file in [*past, packed][: -self._most_kept]:
            with suppress(OSError):
                file.unlink()


def array_entry(name: str, array: NDArray[Any], data: bytes) -> ArrayEntry:
    """What is kept of an array.

    Args:
        name: as it travels.
        array: its numbers; uint16 are the bits of bfloat16 (`fedecg.federation.transfer`).
        data: its bytes as they travel.
    """
    bits = array.dtype == np.uint16
    values = (array.astype(np.uint32) << 16).view(np.float32) if bits else array
    with np.errstate(over="ignore", invalid="ignore"):
        norm = float(np.linalg.norm(values.astype(np.float64).ravel()))
    return ArrayEntry(
        name=name,
        shape=list(array.shape),
        dtype="bfloat16" if bits else str(array.dtype),
        bytes=len(data),
        l2=norm if math.isfinite(norm) else None,
        sha256=hashlib.sha256(data).hexdigest(),
    )


def flattened(document: Any, key: str = "") -> dict[str, Any]:
    """Every number and word of a document, key by key; a list of them stays one entry."""
    if isinstance(document, dict):
        inside = document.items()
    elif isinstance(document, list) and any(isinstance(entry, dict | list) for entry in document):
        inside = {str(number): entry for number, entry in enumerate(document)}.items()
    else:
        return {key: document}
    flat: dict[str, Any] = {}
    for name, entry in inside:
        flat |= flattened(entry, f"{key}.{name}" if key else str(name))
    return flat


def _write_line(file: Path, line: str) -> None:
    """Append, on the disk when it returns; a line that was cut short before stays a line of its own."""
    new = not file.exists()
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        end = os.lseek(descriptor, 0, os.SEEK_END)
        cut = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
        data = (b"\n" if cut else b"") + line.encode() + b"\n"
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if new:
        _sync(file.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _parsed(line: str) -> dict[str, Any]:
    with suppress(ValueError):
        entry = json.loads(line)
        if isinstance(entry, dict):
            return entry
    return {"damaged": True}


def _not_recorded(found: str) -> PolicyError:
    return PolicyError(
        "FECG-448",
        "record of what leaves the site",
        found=found,
        expected="a folder state/egress that can be written, with space left",
        fix="Free space on that disk; what cannot be recorded does not leave.",
    )


def _unreadable(name: str, error: Exception) -> PolicyError:
    return PolicyError(
        "FECG-450",
        f"record {name} of what has left the site",
        found=in_words(error),
        expected="a file as it was written",
        fix="Bring it back from a backup, or move it away: the other files can still be read.",
    )
