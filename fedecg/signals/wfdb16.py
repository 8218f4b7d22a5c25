"""A fast reader for the ECG files that nearly everyone publishes: WFDB headers with 16-bit signals.

In:  the text of a `.hea` file; the one `.dat` (format 16) or PhysioNet `.mat` (format 16, offset 24) it names.
Out: `Header`, and signals in physical units for `fedecg.signals.reading`, the only caller. Format 16 is
little-endian int16, interleaved by sample; a MATLAB v4 matrix (leads, samples) has that very layout.

Source: WFDB Applications Guide, header(5) and signal(5), https://physionet.org/physiotools/wag/
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import SignalError
from fedecg.files import in_words, read_regular

__all__ = ["Channel", "Header", "is_plain_format16", "parse_header", "read_format16"]

_FORMAT = re.compile(r"(\d+)(?:x(\d+))?(?::(\d+))?(?:\+(\d+))?")
_GAIN = re.compile(r"([-+]?[\d.]+(?:[eE][-+]?\d+)?)(?:\((-?\d+)\))?(?:/(\S+))?")
# What header(5) says to assume where a field is left out. A gain of 0, or none, says that nobody calibrated the
# signal; the 200 counts/mV that "may be assumed" then are a guess, and a guess is a risk for another patient.
_DEFAULT_RATE_HZ, _NO_GAIN, _DEFAULT_UNIT = 250.0, "0", "mV"
_MISSING = -32768  # signal(5): in format 16 this count means "no valid sample"


class Channel(NamedTuple):
    """One signal line of a header; `layout` = (format, samples a frame, skew, byte offset)."""

    file: str
    layout: tuple[int, int, int, int]
    gain: float  # counts per unit; 0 where the header states none
    baseline: int  # count at zero
    unit: str
    checksum: int | None  # 16-bit sum of all counts; None where the header does not state it
    name: str


class Header(NamedTuple):
    """What a `.hea` file says; `samples` is None where it leaves the length to the signal file."""

    segments: int
    rate_hz: float
    samples: int | None
    channels: tuple[Channel, ...]
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
        signal_lines = lines[1 : 1 + int(count)] if segments == 1 else []
        channels = tuple(_parse_channel(line) for line in signal_lines)
        segment_names = tuple(line.split()[0] for line in lines[1 : 1 + segments]) if segments > 1 else ()
        files = {channel.file for channel in channels}
        plain_names = all("/" not in file and file != "." for file in {*files, *segment_names})
        complete = plain_names and (segments > 1 or len(channels) == int(count))
    except (ValueError, IndexError):
        complete = False
    if not complete:
        expected = "a WFDB record line and one line for each signal"
        raise SignalError("FECG-202", "header", found="a .hea file that reads otherwise", expected=expected)
    if segments == 1 and (not channels or "~" in files):
        raise SignalError("FECG-203", "header", found="no signal file in it", expected="the name of one")
    return Header(segments, rate_hz, samples, channels, segment_names)


def is_plain_format16(header: Header) -> bool:
    """Whether `read_format16` can read it: one file, format 16, one sample a frame, no skew."""
    sources = {(channel.file, channel.layout) for channel in header.channels}
    return len(sources) == 1 and header.channels[0].layout[:3] == (16, 1, 0)


def read_format16(folder: Path, header: Header) -> NDArray[np.float32]:
    """Signals in the units of their channels; counts of -32768 are NaN.

    Args:
        folder: where the header lies; the signal file is looked for here and nowhere else.
        header: one for which `is_plain_format16` is true.

    Returns:
        (signals, samples) float32, C-contiguous.

    Raises:
        SignalError: FECG-204 signal file missing or not readable, FECG-205 truncated, FECG-206 damaged.
    """
    channels = header.channels
    try:
        content = read_regular(f"{folder}/{channels[0].file}")
    except (OSError, ValueError) as error:
        expected, fix = "the file that the header names", "Copy the signal file beside its header."
        raise SignalError(
            "FECG-204", "signal file", found=in_words(error), expected=expected, fix=fix
        ) from None
    offset = min(channels[0].layout[3], len(content))
    counts = np.frombuffer(content, dtype="<i2", count=(len(content) - offset) // 2, offset=offset)
    samples = counts.size // len(channels) if header.samples is None else header.samples
    if samples < 1 or counts.size < samples * len(channels):
        expected, fix = f"{max(samples, 1) * len(channels)}", "It is truncated: copy or export it again."
        raise SignalError(
            "FECG-205", "signal file", found=f"{counts.size} counts", expected=expected, fix=fix
        )
    frames = np.ascontiguousarray(counts[: samples * len(channels)].reshape(samples, len(channels)).T)
    _verify_checksums(frames, channels)
    baseline, gain = _scales(tuple([(channel.baseline, channel.gain) for channel in channels]))
    signal = frames.astype(np.float32)
    if baseline is not None:
        signal -= baseline
    signal /= gain
    if frames.min() == _MISSING:
        signal[frames == _MISSING] = np.nan
    return signal


def _parse_channel(line: str) -> Channel:
    """file format [gain(baseline)/unit [bits [zero [first [checksum [block [name]]]]]]]"""
    fields = line.split(maxsplit=8)
    given = len(fields)
    gain, baseline, unit = _parse_scale(fields[2] if given > 2 else _NO_GAIN)
    zero = int(fields[4]) if given > 4 else 0
    baseline = zero if baseline is None else baseline
    # Tools that cannot compute the sum write 0, so 0 is not held against a file.
    checksum = (int(fields[6]) or None) if given > 6 else None
    name = fields[8] if given > 8 else ""
    # In the order of the fields: by name it takes twice as long, twelve times a record.
    return Channel(fields[0], _parse_layout(fields[1]), gain, baseline, unit, checksum, name)


# All headers of a data set repeat these fields, the twelve lines of a header most of them.
@lru_cache(maxsize=256)
def _parse_rate_hz(text: str) -> float:
    return float(re.split(r"[/(]", text)[0])


@lru_cache(maxsize=256)
def _scales(
    stated: tuple[tuple[int, float], ...],
) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | np.float32]:
    """Baselines (signals, 1), None where all are 0, and gains, one number where all are the same."""
    baselines, gains = np.array(stated, dtype=np.float32).T[:, :, None]
    return baselines if baselines.any() else None, gains if np.ptp(gains) else np.float32(gains[0, 0])


@lru_cache(maxsize=256)
def _parse_layout(text: str) -> tuple[int, int, int, int]:
    layout = _FORMAT.fullmatch(text)
    if layout is None:
        raise ValueError("not a format")
    code, frame, skew, offset = layout.groups()
    return int(code), int(frame or 1), int(skew or 0), int(offset or 0)


@lru_cache(maxsize=256)
def _parse_scale(text: str) -> tuple[float, int | None, str]:
    """Gain, baseline where it is stated, unit."""
    scale = _GAIN.fullmatch(text)
    if scale is None:
        raise ValueError("not a gain")
    gain = float(scale[1])
    if gain and not 1e-30 < abs(gain) < 1e30:  # what float32 can divide by
        raise ValueError("not a gain")
    return gain, None if scale[2] is None else int(scale[2]), scale[3] or _DEFAULT_UNIT


def _verify_checksums(frames: NDArray[np.int16], channels: tuple[Channel, ...]) -> None:
    sums = frames.sum(axis=1, dtype=np.int16).tolist()  # wraps around as the format's 16-bit sums do
    both = zip(sums, [channel.checksum for channel in channels], strict=True)
    wrong = len([total for total, stated in both if stated is not None and (total - stated) & 65535])
    if wrong:
        found, fix = f"{wrong} of {len(channels)} signals wrong", "It is damaged: copy or export it again."
        raise SignalError("FECG-206", "signal file", found=found, expected="sums as in the header", fix=fix)
