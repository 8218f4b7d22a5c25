"""HDF5 of two public sets: CODE-15 % (many ECGs a file) and SPH (one).

In:  a path. Out: `Rows`, exam ids. Called by `reading` and by whoever joins CODE-15 % to its exams.csv.

    CODE-15 %   tracings (N, 4096, 12) in mV at 400 Hz, padded with zeros on both sides; exam_id (N,); in a published
                part the last row is a dummy: exam 0, all zeros. https://doi.org/10.5281/zenodo.4916206
    SPH         ecg (12, samples) float16 in mV at 500 Hz. https://doi.org/10.1038/s41597-022-01403-5

Both state rate, unit and leads in their documentation only. Whatever else HDF5 can do (links to other files, virtual
data sets, filters of other packages) is refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import SignalError
from fedecg.files import NotRegularError
from fedecg.signals.faults import damaged, missing_package, other_variant, refuse_beyond
from fedecg.signals.recording import LEADS, Recording, recording_from_leads
from fedecg.signals.stated import Rows

__all__ = ["NAME", "exam_ids", "is_hdf5", "open_hdf5"]

NAME = "HDF5"
_CODE15_HZ, _SPH_HZ = 400.0, 500.0
_FILTERS = (None, "gzip", "lzf", "szip")
_SAMPLES_MAX = 2**20


def is_hdf5(head: bytes) -> bool:
    """Whether a file begins as HDF5 does."""
    return head.startswith(b"\x89HDF\r\n\x1a\n")


def exam_ids(path: str | Path) -> NDArray[np.int64]:
    """(records,) exam ids of a CODE-15 % part, in the order of its ECGs, without the dummy at the end.

    Raises:
        SignalError: FECG-276 no h5py, FECG-277 no such file, FECG-284 HDF5 of another set.
    """
    with _opened(Path(path)) as file:
        if not {"tracings", "exam_id"} <= set(file):
            raise _unknown()
        ids = np.asarray(_dataset(file, "exam_id", 1)[()], dtype=np.int64)
        return ids[: _without_dummy(file)]


@contextmanager
def open_hdf5(path: Path) -> Iterator[Rows]:
    """The ECGs of a file, as long as it is open.

    Raises:
        SignalError: FECG-276 no h5py, FECG-277 damaged, FECG-278 larger than its file, FECG-284 of another set.
    """
    with _opened(path) as file:
        if "tracings" in file:
            count = _without_dummy(file)
            tracings = _dataset(file, "tracings", 3)
            if tracings.shape[2] != len(LEADS):
                raise _unknown()
            yield Rows(count, lambda row: _tracing(tracings, row))
        elif "ecg" in file:
            ecg = _dataset(file, "ecg", 2)
            if ecg.shape[0] != len(LEADS):
                raise _unknown()
            yield Rows(1, lambda _: _recording(np.asarray(ecg[()], dtype=np.float32), _SPH_HZ))
        else:
            raise _unknown()


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError:
        raise missing_package(NAME) from None
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
        raise NotRegularError
    try:
        file = h5py.File(path, "r", locking=False)
    except (OSError, RuntimeError, ValueError):
        raise damaged(NAME, "a file that cannot be opened as one") from None
    with file:
        try:
            yield file
        except (OSError, RuntimeError, LookupError, ValueError, TypeError):  # what h5py makes of damage
            raise damaged(NAME, "data sets that cannot be read") from None


def _dataset(file: Any, name: str, axes: int) -> Any:
    """A plain data set of numbers in this very file, no larger than the file can hold."""
    import h5py

    held = isinstance(file.get(name, getlink=True), h5py.HardLink)
    found = file[name] if held else None
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "iuf" or found.ndim != axes:
        raise _unknown()
    if found.external or found.is_virtual or found.compression not in _FILTERS:
        raise _unknown()
    size = os.stat(file.filename).st_size  # noqa: PTH116
    refuse_beyond(NAME, int(np.prod(found.shape if axes < 3 else found.shape[1:], dtype=object)), size)
    refuse_beyond(NAME, int(np.prod(found.chunks or (1,), dtype=object)), size)
    return found


def _without_dummy(file: Any) -> int:
    """ECGs in a part of CODE-15 %: all rows, but for a last one that is exam 0 or that is all zeros."""
    tracings = _dataset(file, "tracings", 3)
    count = int(tracings.shape[0])
    if "exam_id" not in file or not count:
        return count
    ids = _dataset(file, "exam_id", 1)
    if ids.shape[0] != count:
        raise damaged(NAME, f"{ids.shape[0]} exam ids for {count} tracings")
    return count - bool(ids[count - 1] == 0 or not np.any(tracings[count - 1]))


def _tracing(tracings: Any, row: int) -> Recording:
    """One ECG of CODE-15 % without the zeros around it; one of zeros alone keeps them, for the quality rules."""
    signal = np.asarray(tracings[row], dtype=np.float32)
    alive = np.flatnonzero(np.any(signal != 0, axis=1))
    if alive.size:
        signal = signal[alive[0] : alive[-1] + 1]
    return _recording(signal.T, _CODE15_HZ)


def _recording(signal: NDArray[np.float32], rate_hz: float) -> Recording:
    return recording_from_leads(signal, LEADS, ["mV"] * len(LEADS), rate_hz)


def _unknown() -> SignalError:
    return other_variant(
        NAME,
        "other data sets than those of CODE-15 % or SPH",
        "tracings (N, samples, 12) with exam_id, or ecg (12, samples)",
    )
