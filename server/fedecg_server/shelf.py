"""Weights on disk instead of in memory: ten sites of 40 MB must fit beside one model.

In:  a checked vector, or the bytes of a reply that is still coming. Out: the same again, whole or in parts.
Called by the rounds of a stage (one update a site), by the study (weights that are not trained any more), and by the
app host's grid (replies of sites that upload at the same time).

A file has no name: nobody else can open it, and nothing is left behind, whatever way the process ends. It is read,
not mapped, since mapped pages would count as the process's memory.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import RunError
from fedecg.files import in_words

__all__ = ["Shelved", "ShelvedContents", "shelve"]

Vector = NDArray[np.float32]
FLOAT32: np.dtype[Any] = np.dtype(np.float32)
NO_FOLDER = "no such folder"
SMALL_BYTES = 16_384  # that are not worth a file


class Shelved:
    """(P,) numbers in a file, float32 unless said otherwise. numpy takes it for an array, which it then reads whole.

    Args:
        file: holds them; closed with the handle.
        size: P.
        kind: of number.
        offset: of the first, in bytes.
    """

    def __init__(self, file: IO[bytes], size: int, kind: np.dtype[Any] = FLOAT32, offset: int = 0) -> None:
        self._file, self._size, self.dtype, self._offset = file, size, kind, offset
        weakref.finalize(self, file.close)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> NDArray[Any]:
        start, stop, _ = part.indices(self._size)
        values = np.empty(max(0, stop - start), self.dtype)
        bytes_of, read = values.data.cast("B"), 0
        while read < values.nbytes:
            place = self._offset + start * values.itemsize + read
            got = os.preadv(self._file.fileno(), [bytes_of[read:]], place)
            if not got:
                raise _not_kept("a file that ends too early")
            read += got
        return values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        del copy  # what is read is a copy
        return self.whole() if dtype is None else self.whole().astype(dtype, copy=False)

    def whole(self) -> NDArray[Any]:
        """All of it, (P,), in memory."""
        return self[:]


def shelve(vector: Vector, folder: Path) -> Shelved:
    """Put a vector aside.

    Args:
        vector: (P,) float32.
        folder: on the disk that is to hold it.

    Raises:
        RunError: FECG-601 no room there, or no right to write.
    """
    try:
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed with the handle)
        shelved = Shelved(file, len(vector))
        file.write(np.ascontiguousarray(vector, np.float32).data)
        file.flush()
    except OSError as error:
        raise _not_kept(_why(error)) from None
    return shelved


class ShelvedContents(dict[str, bytes]):
    """Bytes by name, of which the large ones lie in a file until they are asked for.

    Args:
        folder: on the disk that is to hold them; None: the system's own for such files.
    """

    def __init__(self, folder: Path | None) -> None:
        super().__init__()
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._places: dict[str, tuple[int, int]] = {}  # name -> offset and length

    def __setitem__(self, name: str, content: bytes) -> None:
        """Take them.

        Raises:
            RunError: FECG-601 no room there, or no right to write.
        """
        if len(content) > SMALL_BYTES:
            content = self._put(name, content)
        super().__setitem__(name, content)

    def __getitem__(self, name: str) -> bytes:
        if name not in self._places or self._file is None:
            return super().__getitem__(name)
        start, length = self._places[name]
        self._file.seek(start)
        return self._file.read(length)

    def _put(self, name: str, content: bytes) -> bytes:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 (closed with the contents)
                weakref.finalize(self, self._file.close)
            self._places[name] = self._file.seek(0, 2), len(content)
            self._file.write(content)
            self._file.flush()
        except OSError as error:
            raise _not_kept(_why(error)) from None
        return b""


def _why(error: OSError) -> str:
    # Files without a name need no other than the folder.
    return NO_FOLDER if isinstance(error, FileNotFoundError) else in_words(error)


def _not_kept(found: str) -> RunError:
    gone = "Was the run folder removed, or its disk taken off? Put it back; without it the study begins anew."
    return RunError(
        "FECG-601",
        "update of a site on its way to the average",
        found=found,
        expected="a run folder that can be written, with room for one model a site",
        fix=gone if found == NO_FOLDER else "Free space on that disk.",
    )
