"""Arrays and a JSON document in one file that appears whole or not at all, written and read without a copy in memory.

In:  arrays (in memory or on disk) by name, and a document. Out: a safetensors file whose head holds the document and
the sha256 of everything; back: the document, and handles that read an array, or slices of it, when it is needed.
Called by the checkpoint of a run and by the repetitions of its conclusion. No pickle.

Why not safetensors' own `save`: it makes the whole file in memory, of arrays that are in memory.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.files import whole_file
from fedecg_server.shelf import Shelved

__all__ = ["DamagedError", "Stored", "array_bytes", "read_arrays", "write_arrays"]

Stored = NDArray[np.float32] | NDArray[np.float64] | Shelved
DOCUMENT, METADATA, SHA256 = "document", "__metadata__", "sha256"
KINDS: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
NAMES = {kind: name for name, kind in KINDS.items()}
BLOCK = 1 << 18  # numbers that are read and written at once
HEAD_BYTES = 8
MOST_HEAD = 1 << 30


class DamagedError(ValueError):
    """The file is not what `write_arrays` wrote."""


def write_arrays(path: Path, arrays: Mapping[str, Stored], document: str) -> None:
    """Replace the file.

    Args:
        path: of the file; its folder is made.
        arrays: name -> (n,) float32 or float64.
        document: JSON.

    Raises:
        RunError: FECG-601 if it cannot be written; the one before then stays.
    """
    head: dict[str, Any] = {METADATA: {DOCUMENT: document, SHA256: _sha256(document, arrays)}}
    end = 0
    for name, array in sorted(arrays.items()):
        start, end = end, end + len(array) * array.dtype.itemsize
        head[name] = {"dtype": NAMES[array.dtype], "shape": [len(array)], "data_offsets": [start, end]}
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % HEAD_BYTES)
    with whole_file(path) as part, part.open("wb") as file:
        file.write(len(text).to_bytes(HEAD_BYTES, "little") + text)
        for _, array in sorted(arrays.items()):
            for block in _blocks(array):
                file.write(block)
        file.flush()
        os.fsync(file.fileno())


def read_arrays(path: Path) -> tuple[str, dict[str, Shelved]]:
    """The document, and the arrays, each (n,) float32 or float64, where they lie.

    They can be read for as long as they are held, also when the file has been replaced.

    Raises:
        DamagedError: in whatever way. OSError: as of `open`.
    """
    text, begin, length = _head(path)
    try:
        head = json.loads(text)
        metadata = head.pop(METADATA)
        document, wanted = metadata[DOCUMENT], metadata[SHA256]
        arrays = {name: _placed(path, begin, length, entry) for name, entry in head.items()}
        found = _sha256(document, arrays)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(type(error).__name__) from None
    if found != wanted:
        raise DamagedError("another sha256")
    return document, arrays


def array_bytes(path: Path) -> dict[str, int]:
    """What each array takes, by its name, as the file's head says; the arrays are not looked at.

    Raises:
        DamagedError: no such head. OSError: as of `open`.
    """
    try:
        head = json.loads(_head(path)[0])
        return {
            name: entry["data_offsets"][1] - entry["data_offsets"][0]
            for name, entry in head.items()
            if name != METADATA
        }
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DamagedError(type(error).__name__) from None


def _head(path: Path) -> tuple[bytes, int, int]:
    """The head's JSON, where the arrays begin, and where the file ends."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(HEAD_BYTES), "little")
        return file.read(min(size, MOST_HEAD)), HEAD_BYTES + size, os.fstat(file.fileno()).st_size


def _placed(path: Path, begin: int, length: int, entry: dict[str, Any]) -> Shelved:
    kind, (start, end), shape = KINDS[entry["dtype"]], entry["data_offsets"], entry["shape"]
    if not 0 <= start <= end <= length - begin or end - start != math.prod(shape) * kind.itemsize:
        raise DamagedError("offsets")
    return Shelved(path.open("rb", buffering=0), math.prod(shape), kind, begin + start)


def _sha256(document: str, arrays: Mapping[str, Stored]) -> str:
    digest = hashlib.sha256(document.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} ({len(array)},)".encode())
        for block in _blocks(array):
            digest.update(block)
    return digest.hexdigest()


def _blocks(array: Stored) -> Iterator[memoryview]:
    for start in range(0, len(array), BLOCK):
        values = np.ascontiguousarray(array[start : start + BLOCK], array.dtype.newbyteorder("<"))
        yield values.data.cast("B")
