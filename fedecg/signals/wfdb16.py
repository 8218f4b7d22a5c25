"""A fast reader for the ECG files that nearly everyone publishes: WFDB headers with 16-bit signals.

In:  the text of a `.hea` file; the one `.dat` (format 16) or PhysioNet `.mat` (format 16, offset 24) it names.
Out: `Header`, and signals in physical units for `fedecg.signals.reading`, the only caller. Format 16 is
little-endian int16, interleaved by sample; a MATLAB v4 matrix (leads, samples) has that very layout.

Source: WFDB Applications Guide, header(5) and signal(5), https://physionet.org/physiotools/wag/
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import SignalError
from fedecg.files import in_words, read_regular

__all__ = ["Channels", "Header", "is_plain_format16", "parse_header", "read_format16"]

_FORMAT = re.compile(r"(\d+)(?:x(\d+))?(?::(\d+))?(?:\+(\d+))?")
_GAIN = re.compile(r"([-+]?[\d.]+(?:[eE][-+]?\d+)?)(?:\((-?\d+)\))?(?:/(\S+))?")
# What header(5) says to assume where a field is left out. A gain of 0, or none, says that nobody calibrated the
# signal; the 200 counts/mV that "may be assumed" then are a guess, and a guess is a risk for another patient.
_DEFAULT_RATE_HZ, _NO_GAIN, _DEFAULT_UNIT = 250.0, "0", "mV"
# file format gain(baseline)/unit bits zero first checksum block name; the file and its format are always there.
_LEFT_OUT = ("", "", _NO_GAIN, "", "0", "", "0", "", "")
_MISSING = -32768  # signal(5): in format 16 this count means "no valid sample"


@dataclass(frozen=True, eq=False)
class Channels:
    """What signal lines say beside file and checksum: the same in all headers of a data set, so it is kept."""

    layouts: tuple[tuple[int, int, int, int], ...]  # format, samples a frame, skew, byte offset
    gains: tuple[float, ...]  # counts per unit; 0 where the header states none
    baselines: tuple[int, ...]  # count at zero
    units: tuple[str, ...]
    names: tuple[str, ...]
    without_gain: int  # signals that nobody calibrated
    unit_per_count: (
        NDArray[np.float32] | np.float32
    )  # (signals, 1), or one number where all are the same; 1 / gain
    zero_counts: NDArray[np.float32] | None  # (signals, 1) baselines; None where all are 0


class Header(NamedTuple):
    """What a `.hea` file says; `samples` is None where it leaves the length to the signal file."""

    segments: int
    rate_hz: float
    samples: int | None
    files: tuple[str, ...]  # one a signal
    checksums: tuple[
        int, ...
    ]  # 16-bit sum of all counts of each signal; 0 where the header does not state it
    channels: Channels
    segment_names: tuple[str, ...]  # of a multi-segment record; "~" = a gap


def parse_header(text: str) -> Header:
    """Read a WFDB header. Times and dates are not read: several published sets have them wrong.

    Raises:
        SignalError: FECG-202 not a WFDB header, FECG-203 no signal in it.
    """
    lines = [bare for line in text.splitlines() if (bare := line.strip()) and bare[0] != "#"]
    try:
        record, count, *rest = lines[0].split()
        segments = int(record.partition("/")[2] or 1)
        rate_hz = _parse_rate_hz(rest[0]) if rest else _DEFAULT_RATE_HZ
        samples = int(rest[1]) or None if len(rest) > 1 else None
        # The lines after a multi-segment record line name segments, which only wfdb reads.
        files, checksums, channels = _parse_signals(lines[1 : 1 + int(count)] if segments == 1 else [])
        segment_names = tuple(line.split()[0] for line in lines[1 : 1 + segments]) if segments > 1 else ()
        plain_names = all("/" not in file and file != "." for file in {*files, *segment_names})
        complete = plain_names and (segments > 1 or len(files) == int(count))
    except (ValueError, IndexError):
        complete = False
    if not complete:
        expected = "a WFDB record line and one line for each signal"
        raise SignalError("FECG-202", "header", found="a .hea file that reads otherwise", expected=expected)
    if segments == 1 and (not files or "~" in files):
        raise SignalError("FECG-203", "header", found="no signal file in it", expected="the name of one")
    return Header(segments, rate_hz, samples, files, checksums, channels, segment_names)


def is_plain_format16(header: Header) -> bool:
    """Whether `read_format16` can read it: one file, format 16, one sample a frame, no skew."""
    layouts = set(header.channels.layouts)
    return len(layouts) == len(set(header.files)) == 1 and layouts.pop()[:3] == (16, 1, 0)


def read_format16(folder: str | Path, header: Header) -> NDArray[np.float32]:
    """Signals in the units of their channels; counts of -32768 are NaN.

    Args:
        folder: where the header lies; the signal file is looked for here and nowhere else.
        header: one for which `is_plain_format16` is true.

    Returns:
        (signals, samples) float32, C-contiguous.

    Raises:
        SignalError: FECG-204 signal file missing or not readable, FECG-205 truncated, FECG-206 damaged.
    """
    channels, signals = header.channels, len(header.files)
    try:
        content = read_regular(f"{folder}/{header.files[0]}")
    except (OSError, ValueError) as error:
        expected, fix = "the file that the header names", "Copy the signal file beside its header."
        raise SignalError(
            "FECG-204", "signal file", found=in_words(error), expected=expected, fix=fix
        ) from None
    offset = min(channels.layouts[0][3], len(content))
    counts = np.frombuffer(content, dtype="<i2", count=(len(content) - offset) // 2, offset=offset)
    samples = counts.size // signals if header.samples is None else header.samples
    if samples < 1 or counts.size < samples * signals:
        expected, fix = f"{max(samples, 1) * signals}", "It is truncated: copy or export it again."
        raise SignalError(
            "FECG-205", "signal file", found=f"{counts.size} counts", expected=expected, fix=fix
        )
    frames = np.ascontiguousarray(counts[: samples * signals].reshape(samples, signals).T)
    _verify_checksums(frames, header.checksums)
    signal = frames.astype(np.float32)
    if channels.zero_counts is not None:
        signal -= channels.zero_counts
    signal *= channels.unit_per_count
    if np.minimum.reduce(frames, axis=None) == _MISSING:
        signal[frames == _MISSING] = np.nan
    return signal


def _parse_signals(lines: list[str]) -> tuple[tuple[str, ...], tuple[int, ...], Channels]:
    """Files, checksums and all else of the signal lines."""
    rows = [line.split(maxsplit=8) for line in lines]
    if any([len(row) < 9 for row in rows]):
        rows = [[*row, *_LEFT_OUT[len(row) :]] for row in rows]
    files, layouts, scales, _, zeros, _, checksums, _, names = zip(*rows, strict=True) if rows else [()] * 9
    # Tools that cannot compute the sum write 0, so 0 is not held against a file.
    return files, tuple(map(int, checksums)), _parse_channels(layouts, scales, zeros, names)


# All headers of a data set repeat these fields.
@lru_cache(maxsize=256)
def _parse_rate_hz(text: str) -> float:
    return float(re.split(r"[/(]", text)[0])


@lru_cache(maxsize=256)
def _parse_channels(
    layouts: tuple[str, ...], scales: tuple[str, ...], zeros: tuple[str, ...], names: tuple[str, ...]
) -> Channels:
    parsed = [_parse_scale(scale) for scale in scales]
    gains = tuple(gain for gain, _, _ in parsed)
    stated = zip(parsed, map(int, zeros), strict=True)
    baselines = tuple(zero if baseline is None else baseline for (_, baseline, _), zero in stated)
    # float64 until the quotient is there; a gain of 0 is refused before anything is divided by it.
    per_count = np.array([1 / (gain or 1) for gain in gains], dtype=np.float32)[:, None]
    zero_counts = np.array(baselines, dtype=np.float32)[:, None]
    return Channels(
        layouts=tuple(map(_parse_layout, layouts)),
        gains=gains,
        baselines=baselines,
        units=tuple(unit for _, _, unit in parsed),
        names=names,
        without_gain=gains.count(0),
        unit_per_count=np.float32(per_count[0, 0]) if len(set(gains)) == 1 else per_count,
        zero_counts=zero_counts if any(baselines) else None,
    )


def _parse_layout(text: str) -> tuple[int, int, int, int]:
    layout = _FORMAT.fullmatch(text)
    if layout is None:
        raise ValueError("not a format")
    code, frame, skew, offset = layout.groups()
    return int(code), int(frame or 1), int(skew or 0), int(offset or 0)


def _parse_scale(text: str) -> tuple[float, int | None, str]:
    """Gain, baseline where it is stated, unit."""
    scale = _GAIN.fullmatch(text)
    if scale is None:
        raise ValueError("not a gain")
    gain = float(scale[1])
    if gain and not 1e-30 < abs(gain) < 1e30:  # what float32 can divide by
        raise ValueError("not a gain")
    return gain, None if scale[2] is None else int(scale[2]), scale[3] or _DEFAULT_UNIT


def _verify_checksums(frames: NDArray[np.int16], checksums: tuple[int, ...]) -> None:
    # Wraps around as the format's 16-bit sums do.
    sums = np.add.reduce(frames, axis=1, dtype=np.int16).tolist()
    both = zip(sums, checksums, strict=True)
    wrong = len([total for total, stated in both if stated and (total - stated) & 65535])
    if wrong:
        found, fix = f"{wrong} of {len(frames)} signals wrong", "It is damaged: copy or export it again."
        raise SignalError("FECG-206", "signal file", found=found, expected="sums as in the header", fix=fix)
