"""Arrays and a document in one file that proves itself whole: what a kill or a bad disk has damaged is never read.

In:  numpy arrays by name, and a document of JSON. Out: a safetensors file with the document and a hash of all of it
     as metadata, which appears whole or not at all; and back.
Called by `fedecg.training.checkpoint`, and by the client for the replies that it keeps. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedecg.files import write_whole

__all__ = ["read_sealed", "write_sealed"]

Arrays = Mapping[str, NDArray[Any]]

DOCUMENT, SEAL = "document", "sha256"


def write_sealed(path: Path, arrays: Arrays, document: Mapping[str, Any]) -> None:
    """Write arrays and document; a file that stands there is replaced. One process at a time writes to a path.

    Args:
        path: of the file; its folder is made.
        arrays: of any shape and of a kind that safetensors has.
        document: JSON; numbers come back exactly.

    Raises:
        RunError: FECG-601 if the file cannot be written; nothing half-written stays behind.
    """
    text = json.dumps(document)
    for part in path.parent.glob(f".{path.name}.*.part"):  # of processes that were killed while they wrote
        with suppress(OSError):
            part.unlink()
    write_whole(path, save(dict(arrays), {DOCUMENT: text, SEAL: _seal(arrays, text)}))


def read_sealed(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
    """The arrays and the document of a file; None where there is none, or one that is not whole."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if metadata[SEAL] != _seal(arrays, metadata[DOCUMENT]):
            return None
        return arrays, json.loads(metadata[DOCUMENT])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def _seal(arrays: Arrays, text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
