"""A signal store while it is written: rows appended in their order, in a folder that has not got its name yet.

In:  recordings, `SignalSettings`, the site's powerline frequency. Out: `signals.npy`, `manifest.csv`, `store.json`.
Called by `store.build_store` and by `ingest`; both write the same bytes for the same recordings.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedecg.config import SignalSettings
from fedecg.errors import SignalError
from fedecg.files import in_words
from fedecg.signals.preprocessing import Powerline, preprocess
from fedecg.signals.quality import QUALITY_RULES, Quality, assess
from fedecg.signals.recording import LEADS, Recording

__all__ = [
    "FORMAT",
    "MANIFEST_COLUMNS",
    "MV_PER_COUNT",
    "Position",
    "Row",
    "StoreWriter",
    "effective",
    "judged",
    "not_written",
    "prepared",
    "quantised",
    "refusal",
    "refused",
]

# Part of every key: raise it whenever preprocessing, the rules or this layout change, and old stores are rebuilt.
# 2: rules of plausibility (amplitude, beats, polarity) with their refusal FECG-272; signals as in 1.
# 3: rules of electrodes (limb_swap, paced).
# 4: the filter by cosine transform: the edge sample is part of its own reflection (middle within 0.004 mV of 3).
FORMAT = 4
MV_PER_COUNT = 1e-3  # int16 then reaches 32.767 mV, three times what a body surface gives
COUNT_MAX = 32767
MANIFEST_COLUMNS = ("row", "code", *QUALITY_RULES, "clipped")


class Row(NamedTuple):
    """One record as a store holds it."""

    counts: NDArray[np.int16] | None  # (12, samples); None of a refused record: its row is zeros
    entry: dict[str, Any]  # its line of the manifest, without the number of the row


class Position(NamedTuple):
    """How far a store is: what lies beyond it in the files is not counted."""

    rows: int = 0
    manifest_bytes: int = 0


def quantised(
    recording: Recording, settings: SignalSettings, powerline: Powerline
) -> tuple[NDArray[np.int16], int]:
    """A usable recording as a store holds it: preprocessed, in counts of 1 µV.

    Returns:
        (12, samples) int16, and how many samples were beyond what int16 holds and are clipped.
    """
    counts = preprocess(recording, settings, powerline)
    counts /= np.float32(MV_PER_COUNT)
    np.rint(counts, out=counts)
    clipped = 0
    if max(counts.max(), -counts.min()) > COUNT_MAX:
        clipped = int(np.count_nonzero(np.abs(counts) > COUNT_MAX))
        np.clip(counts, -COUNT_MAX, COUNT_MAX, out=counts)
    return counts.astype("<i2"), clipped


def judged(recording: Recording) -> Row:
    """A recording judged, and not preprocessed."""
    quality = assess(recording)
    return Row(None, {"code": quality.code, **quality.counts(), "clipped": 0})


def prepared(recording: Recording, settings: SignalSettings, powerline: Powerline) -> Row:
    """A recording judged and, where it is usable, preprocessed."""
    quality = assess(recording)
    code = refusal(recording, quality, settings)
    entry: dict[str, Any] = {"code": code, **quality.counts(), "clipped": 0}
    if code:
        return Row(None, entry)
    try:
        counts, entry["clipped"] = quantised(recording, settings, powerline)
    except SignalError as error:  # no median beat
        return Row(None, entry | {"code": error.code})
    return Row(counts, entry)


def refusal(recording: Recording, quality: Quality, settings: SignalSettings) -> str:
    """ "" where a recording may become the network's input, or the FECG code of its refusal.

    A stored median beat is no strip, and a beat is as long as it is.
    """
    if recording.kind == "median" and settings.input == "median":
        return replace(quality, too_short=False).code
    return quality.code or ("FECG-299" if recording.kind == "median" else "")


def refused(code: str) -> Row:
    """The row of a record that could not be read."""
    return Row(None, {"code": code, **dict.fromkeys(MANIFEST_COLUMNS[2:], 0)})


def effective(settings: SignalSettings, powerline: Powerline) -> dict[str, Any]:
    """Settings in kebab-case with the site's own powerline frequency."""
    return {**settings.model_dump(by_alias=True), "powerline": powerline}


class StoreWriter:
    """Appends rows; `finish` makes a store of the folder.

    Args:
        folder: a folder that only this writer writes to.
        samples: length of a row.
        columns: of the manifest, beyond `MANIFEST_COLUMNS`.
        start: rows that are there already and are kept; anything beyond is cut off.

    Raises:
        SignalError: FECG-218, as every method: the folder cannot be written, or is full.
    """

    def __init__(
        self, folder: Path, samples: int, columns: Sequence[str] = (), start: Position | None = None
    ) -> None:
        self.folder, self.samples = folder, samples
        self.rows = start.rows if start else 0
        self._columns = (*MANIFEST_COLUMNS, *columns)
        self._zeros = bytes(len(LEADS) * samples * 2)
        self._line = io.StringIO()
        self._cells = csv.writer(self._line, lineterminator="\n")
        try:
            # Written in order rather than through a memory map: a full disk is then an error, not a killed process.
            self._signals = (folder / "signals.npy").open("r+b" if start else "wb")
            self._manifest = (folder / "manifest.csv").open("r+b" if start else "wb")
            self._write_header()
            if start:
                self._cut(start)
            else:
                self._write_line(self._columns)
        except OSError as error:
            raise not_written(error) from None

    def append(self, row: Row) -> None:
        """Write one more row."""
        try:
            self._signals.write(self._zeros if row.counts is None else row.counts.tobytes())
            values = {"row": self.rows, **row.entry}
            self._write_line([values.get(name, "") for name in self._columns])
        except OSError as error:
            raise not_written(error) from None
        self.rows += 1

    def position(self) -> Position:
        """Bring everything to the disk, and say how far it is."""
        try:
            for file in (self._signals, self._manifest):
                file.flush()
                os.fsync(file.fileno())
            return Position(self.rows, self._manifest.tell())
        except OSError as error:
            raise not_written(error) from None

    def finish(self, key: str, settings: Mapping[str, Any]) -> None:
        """Write the true number of rows and `store.json`; nothing is appended after it.

        Args:
            key: of the store. settings: from `effective`.
        """
        try:
            self._write_header()
            self.position()
            self.close()
            about = {
                "format": FORMAT,
                "key": key,
                "records": self.rows,
                "samples": self.samples,
                "mv-per-count": MV_PER_COUNT,
                "settings": dict(settings),
                "manifest-sha256": hashlib.sha256((self.folder / "manifest.csv").read_bytes()).hexdigest(),
            }
            with (self.folder / "store.json").open("wb") as file:
                file.write((json.dumps(about, indent=2) + "\n").encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise not_written(error) from None

    def close(self) -> None:
        """Let go of the files; what was appended since `position` may or may not be on the disk."""
        self._signals.close()
        self._manifest.close()

    def _write_header(self) -> None:
        """NumPy leaves room for a longer number of rows, so the header has one length and can be written again."""
        header = io.BytesIO()
        shape = (self.rows, len(LEADS), self.samples)
        np.lib.format.write_array_header_1_0(header, {"descr": "<i2", "fortran_order": False, "shape": shape})
        self._header_bytes = len(header.getvalue())
        self._signals.seek(0)
        self._signals.write(header.getvalue())

    def _write_line(self, cells: Sequence[object]) -> None:
        self._cells.writerow(cells)
        self._manifest.write(self._line.getvalue().encode())
        self._line.seek(0)
        self._line.truncate()

    def _cut(self, start: Position) -> None:
        for file, size in (
            (self._signals, self._header_bytes + start.rows * len(self._zeros)),
            (self._manifest, start.manifest_bytes),
        ):
            file.truncate(size)
            file.seek(size)


def not_written(error: OSError) -> SignalError:
    """What every fault of writing a store becomes."""
    return SignalError(
        "FECG-218",
        "signal store",
        found=in_words(error),
        expected="a folder that can be written, with 24 bytes for each sample",
        fix="Check rights and free space.",
    )
