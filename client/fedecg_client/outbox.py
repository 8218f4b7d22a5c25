"""Finished replies, kept until the coordinator says that they have arrived: work that was done is never done twice.

In:  a reply and the key of its task. Out: the same reply, byte for byte, when the same task comes again; files under
     state/replies. Called by the ClientApp. A file that a kill or the disk has damaged is as if it were not there.
"""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from fedecg.errors import RunError
from fedecg.federation.messages import reply_sha256
from fedecg.federation.tasks import Task
from fedecg.training import read_sealed, write_sealed

__all__ = ["Outbox", "task_key"]

MOST_KEPT = 4  # replies; the oldest go first

log = logging.getLogger("fedecg.client")


def task_key(task: Task, weights: NDArray[Any] | None, *more: object) -> str:
    """What makes two tasks the same: their kind, document and weights, but not what they say of earlier replies.

    Args:
        task: as it came.
        weights: that it carries.
        more: what else the reply depends on.
    """
    document = task.model_dump(by_alias=True, exclude={"accepted", "rejected", "ledger", "masking"})
    text = json.dumps([type(task).__name__, document, list(map(str, more))], sort_keys=True)
    digest = hashlib.sha256(text.encode())
    if weights is not None:
        digest.update(weights.dtype.str.encode() + weights.tobytes())
    return digest.hexdigest()


class Outbox:
    """The replies of one site.

    Args:
        folder: of the files; made when a reply is kept.
        most: replies kept.
    """

    def __init__(self, folder: Path, most: int = MOST_KEPT) -> None:
        self._folder, self._most = folder, most

    def find(self, key: str) -> RecordDict | None:
        """The reply to this task, if it is there and whole."""
        for file in self._files():
            task, reply = _named(file)
            if task == key and (kept := read_sealed(file)) is not None:
                content = _content(*kept)
                return content if reply_sha256(content) == reply else None
        return None

    def keep(self, key: str, content: RecordDict) -> None:
        """Keep a reply; a disk that is full costs the copy, not the reply."""
        try:
            write_sealed(self._folder / f"{key}-{reply_sha256(content)}.safetensors", *_parts(content))
        except RunError as error:
            log.warning("the reply is sent but not kept: %s", error)
        for file in (
            *self._files()[: -self._most],
            *self._folder.glob(".*.part"),
        ):  # parts: of killed processes
            _remove(file)

    def acknowledge(self, sha256: str | None) -> None:
        """A reply of this hash has arrived: forget it."""
        for file in self._files():
            if _named(file)[1] == sha256:
                _remove(file)

    def _files(self) -> list[Path]:
        """Oldest first."""
        with suppress(OSError):
            return sorted(self._folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime_ns)
        return []


def _named(file: Path) -> tuple[str, str]:
    """Key of the task and hash of the reply."""
    task, _, reply = file.stem.partition("-")
    return task, reply


def _remove(file: Path) -> None:
    with suppress(OSError):
        file.unlink(missing_ok=True)


def _parts(content: RecordDict) -> tuple[dict[str, NDArray[np.uint8]], dict[str, Any]]:
    """A record as bytes by name and a document, without a look at what it says."""
    arrays: dict[str, NDArray[np.uint8]] = {}
    records: list[dict[str, Any]] = []
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            kinds = {key: [array.dtype, array.shape, array.stype] for key, array in record.items()}
            arrays |= {f"{name}/{key}": np.frombuffer(array.data, np.uint8) for key, array in record.items()}
            records.append({"name": name, "arrays": kinds})
        else:
            records.append({"name": name, "values": dict(record)})
    return arrays, {"records": records}


def _content(arrays: dict[str, NDArray[np.uint8]], document: dict[str, Any]) -> RecordDict:
    """The reverse of `_parts`."""
    content = RecordDict()
    for record in document["records"]:
        name, kinds = record["name"], record.get("arrays")
        if kinds is None:
            content[name] = ConfigRecord(record["values"])
        else:
            content[name] = ArrayRecord(
                {
                    key: Array(dtype, tuple(shape), stype, arrays[f"{name}/{key}"].tobytes())
                    for key, (dtype, shape, stype) in kinds.items()
                }
            )
    return content
