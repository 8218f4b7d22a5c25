"""MATLAB 5 files with one ECG, as fairseq-signals re-saves public sets: `feats` (12, samples) and its rate.

In:  the bytes of a .mat file that no header describes. Out: `Recording`. Called by `reading`.

That layout states neither lead names nor a unit: its writer orders the leads as `LEADS` and leaves mV, and a file of
any other shape is refused. The PhysioNet .mat files (MATLAB 4, with a .hea) go through `wfdb16`.

Decoded here: `scipy.io.loadmat` ends the process (a segmentation fault) on some damaged files. The tests compare with
it. Source: MathWorks, MAT-File Format, level 5; https://github.com/Jwoo5/fairseq-signals, preprocess/code_15.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import SignalError
from fedecg.signals.faults import NUMBER_BYTES, damaged, no_median, too_large
from fedecg.signals.recording import LEADS, Kind, Recording, recording_from_leads

__all__ = ["NAME", "is_matlab", "read_matlab"]

NAME = "MATLAB"
_SIGNAL, _RATE = "feats", "curr_sample_rate"
_HEADER = 128
_ROOM_BYTES = 20 * 2**20  # unpacked, beside a small multiple of the file
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
_NUMERIC_CLASSES = range(6, 16)  # double ... uint64; below are cells, structures, text


def is_matlab(head: bytes) -> bool:
    """Whether a file begins as MATLAB 5 does."""
    return head.startswith(b"MATLAB 5.0")


def read_matlab(content: bytes, kind: Kind) -> Recording:
    """The ECG of a MATLAB file.

    Raises:
        SignalError: FECG-211 rate, FECG-277, FECG-278 larger than its file, FECG-280 another layout, FECG-282.
    """
    if kind == "median":
        raise no_median(NAME)
    try:
        held = dict(_matrices(content))
    except (struct.error, ValueError, zlib.error):
        raise damaged(NAME, "arrays that are cut off or written otherwise") from None
    signal, rate = held.get(_SIGNAL), held.get(_RATE)
    if signal is None or rate is None or signal.ndim != 2 or len(signal) != len(LEADS) or rate.size != 1:
        raise SignalError(
            "FECG-280",
            "MATLAB file",
            found="arrays whose unit, rate and leads nobody states",
            expected=f"{_SIGNAL} (12, samples) in mV with {_RATE}, or a .hea beside the file",
            fix="Write the ECG as WFDB, or as CSV with rate-hz and unit.",
        )
    return recording_from_leads(signal, LEADS, ["mV"] * len(LEADS), float(rate.ravel()[0]))


def _matrices(content: bytes) -> Iterator[tuple[str, NDArray[Any]]]:
    """Name and numbers of the arrays that an ECG is made of.

    Raises:
        struct.error, ValueError, zlib.error: what is cut off or is no array. SignalError: FECG-278.
    """
    order = {b"IM": "<", b"MI": ">"}[content[126:128]] if content[126:128] in (b"IM", b"MI") else ""
    if not order:
        raise ValueError("no byte order")
    at, room = _HEADER, 4 * len(content) + _ROOM_BYTES
    while at + 8 <= len(content):
        kind, body, at = _element(content, at, order)
        if kind == _COMPRESSED:
            unpacking = zlib.decompressobj()
            unpacked = unpacking.decompress(body, room)
            room -= len(unpacked)
            if unpacking.unconsumed_tail or room < 1:
                raise too_large(
                    NAME, f"arrays that unpack to many times the {len(content)} bytes of the file"
                )
            kind, body, _ = _element(unpacked, 0, order)
        if kind == _MATRIX:
            yield from _matrix(body, order)


def _element(content: bytes, at: int, order: str) -> tuple[int, bytes, int]:
    """Kind and body of a data element, and where the next one begins."""
    kind, size = struct.unpack_from(f"{order}II", content, at)
    if kind >> 16:  # a small one: 16 bits each for size and kind, then up to 4 bytes
        size, kind = kind >> 16, kind & 0xFFFF
        if size > 4:
            raise ValueError("a small element of more than 4 bytes")
        return kind, content[at + 4 : at + 4 + size], at + 8
    body = content[at + 8 : at + 8 + size]
    if len(body) < size:
        raise ValueError("cut off")
    return kind, body, at + 8 + size + (0 if kind == _COMPRESSED else -size % NUMBER_BYTES)


def _matrix(body: bytes, order: str) -> Iterator[tuple[str, NDArray[Any]]]:
    """A numeric, real array of one of the names that are asked for; nothing of any other."""
    _, flags, at = _element(body, 0, order)
    _, shape_bytes, at = _element(body, at, order)
    _, name, at = _element(body, at, order)
    if name.decode("latin-1") not in (_SIGNAL, _RATE):
        return
    kind, numbers, _ = _element(body, at, order)
    (what,) = struct.unpack_from(f"{order}I", flags)
    shape = tuple(int(size) for size in np.frombuffer(shape_bytes, dtype=f"{order}i4"))
    if what & 0xFF not in _NUMERIC_CLASSES or kind not in _NUMBERS or min(shape, default=0) < 1:
        raise ValueError("no array of numbers")
    values = np.frombuffer(numbers, dtype=order + _NUMBERS[kind])
    if math.prod(shape) != values.size:
        raise ValueError("another size than stated")
    yield name.decode("latin-1"), values.reshape(shape, order="F")
