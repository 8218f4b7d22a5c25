"""Philips Sierra XML: XLI-packed counts of twelve leads, and representative beats.

In:  the tree of a file whose root is restingecgdata. Out: `Recording`. Called by `reading`.

XLI: for each lead 8 bytes (size, -, first count) and LZW of 10 bits, whose bytes are second differences, high bytes
first; III and the augmented leads are stored as differences from what I and II say they are. Of an 11-s file the last
0.4 s are a calibration pulse, which is cut off: it would be the tallest beat of every lead.

Decoded here, because `sierraecg` and `ecgdatakit` take what a file unpacks to without a bound; the tests compare every
count with both. Source: https://github.com/sierra-ecg-tools, `sierraecg` 0.4.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedecg.signals.faults import (
    damaged,
    no_median,
    no_rhythm,
    not_calibrated,
    other_variant,
    refuse_beyond,
    too_large,
)
from fedecg.signals.recording import LEADS, Kind, Recording, recording_from_leads
from fedecg.signals.xml_tree import child, children, texts, within

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["NAME", "read_sierra"]

NAME = "Philips Sierra XML"
_TYPES, _VERSIONS = ("SierraECG", "PhilipsECG"), ("1.03", "1.04", "1.04.01", "1.04.02")
_TWELVE = ("STD-12", "10-WIRE")  # acquisitions whose leads are the twelve, in standard order
_BITS, _CODES = 10, 1 << 10
_ABSENT = 32767  # in a representative beat that does not fill its window
_PULSE_MV, _PULSE_S = 1.0, 0.2  # the pulse lasts longer than that


def read_sierra(root: Element, kind: Kind) -> Recording:
    """The strip, or the representative beats, of a Sierra file.

    Raises:
        SignalError: FECG-207..211 leads and rate, FECG-271 no resolution, FECG-277, FECG-278, FECG-282, FECG-284.
    """
    about = child(root, "documentinfo")
    if texts(about, "documenttype") not in _TYPES or texts(about, "documentversion") not in _VERSIONS:
        raise other_variant(
            NAME, "another type or version of document", "SierraECG or PhilipsECG, 1.03 or 1.04"
        )
    if kind == "median":
        return _representative(root)
    waves = next(within(root, "parsedwaveforms"), None)
    if waves is None:
        raise no_rhythm(NAME)
    traits = child(root, "dataacquisition", "signalcharacteristics")
    rate_hz = _number(texts(traits, "samplingrate") or waves.get("samplespersecond", ""))
    uv = _number(waves.get("resolution") or texts(traits, "resolution") or texts(traits, "signalresolution"))
    if not uv or not 0 < uv < 1e4:
        raise not_calibrated(NAME, "no resolution")
    names = _names(waves, texts(traits, "acquisitiontype"), texts(traits, "numberchannelsallocated"))
    counts = _counts(waves, len(names), rate_hz or 0.0)
    strip = recording_from_leads(counts * (uv / 1000), names, ["mV"] * len(names), rate_hz or 0.0)
    return Recording(_without_pulse(strip), strip.rate_hz, "rhythm", strip.extra_leads)


def _names(waves: Element, acquisition: str, channels: str) -> list[str]:
    stated = waves.get("leadlabels", "").split()
    if stated:
        return stated[: int(_number(waves.get("numberofleads", "")) or len(stated))]
    if acquisition not in _TWELVE or channels != "12":
        raise other_variant(NAME, "leads without names", "an acquisition of type STD-12 or 10-WIRE")
    return list(LEADS)


def _counts(waves: Element, leads: int, rate_hz: float) -> NDArray[np.int64]:
    """(leads, samples) counts."""
    packed = waves.get("compressmethod") or waves.get("compression") or "Uncompressed"
    content = _base64(waves)
    if packed == "XLI":
        stored = _unpacked(content, leads)
    elif packed == "Uncompressed":
        duration = _number(waves.get("durationperchannel", "")) or 0.0
        samples = round(duration * rate_hz / 1000)
        if samples < 1 or samples * leads * 2 != len(content):
            raise damaged(NAME, f"{len(content) // 2} samples where another number is stated")
        return np.frombuffer(content, dtype="<i2").reshape(leads, samples).astype(np.int64)
    else:
        raise other_variant(NAME, "samples packed another way", "XLI, or not packed")
    if leads < 6:
        raise damaged(NAME, f"{leads} leads, of which the limb leads cannot be made")
    one, two, three, avr, avl, avf = stored[:6]
    three[:] = two - one - three
    avr[:] = -avr - (one + two) // 2
    avl[:] = (one - three) // 2 - avl
    avf[:] = (two + three) // 2 - avf
    return stored


def _unpacked(content: bytes, leads: int) -> NDArray[np.int64]:
    """(leads, samples) of an XLI block."""
    rows: list[NDArray[np.int64]] = []
    offset = 0
    while offset + 8 <= len(content) and len(rows) < leads:
        size = int.from_bytes(content[offset : offset + 4], "little", signed=True)
        first = int.from_bytes(content[offset + 6 : offset + 8], "little", signed=True)
        offset += 8
        if not 0 < size <= len(content) - offset:
            raise damaged(NAME, f"a lead that is cut off, after {len(rows)} of {leads}")
        rows.append(_integrated(_lzw(content[offset : offset + size], len(content)), first))
        offset += size
    if len(rows) < leads or len({row.size for row in rows}) > 1:
        raise damaged(NAME, f"{len(rows)} of {leads} leads, or leads of different lengths")
    return np.array(rows)


def _lzw(packed: bytes, file_bytes: int) -> bytearray:
    """LZW with codes of 10 bits, most significant bit first, and a table that is not cleared."""
    words = [bytes([letter]) for letter in range(256)]
    out, previous = bytearray(), b""
    held, bits = 0, 0
    for letter in packed:
        held, bits = (held << 8) | letter, bits + 8
        if bits < _BITS:
            continue
        bits -= _BITS
        code, held = held >> bits, held & ((1 << bits) - 1)
        if code > _CODES - 2:  # the last code ends the lead
            break
        if code < len(words):
            word = words[code]
        elif previous and code == len(words):
            word = previous + previous[:1]
        else:
            raise damaged(NAME, "packed samples that point beyond their table")
        if previous and len(words) < _CODES - 1:
            words.append(previous + word[:1])
        out += word
        previous = word
        refuse_beyond(NAME, len(out) * 2, file_bytes)
    return out


def _integrated(unpacked: bytearray, first: int) -> NDArray[np.int64]:
    """Counts of a lead from their second differences; (samples,) int64, wrapped to 16 bits as the writer does."""
    if len(unpacked) % 2:
        unpacked.append(0)
    half = len(unpacked) // 2
    if half < 2:
        raise damaged(NAME, "a lead without samples")
    letters = np.frombuffer(bytes(unpacked), dtype=np.uint8).astype(np.uint16)
    steps = ((letters[:half] << 8) | letters[half:]).astype(np.int16).astype(np.int64)
    # count[i] = 2 count[i-1] - count[i-2] - (step[i-1] - 64), where `first` stands for the first step.
    bends = np.concatenate([[first], steps[2:-1] - 64]) if half > 2 else np.zeros(0, dtype=np.int64)
    slope = np.concatenate([[steps[1] - steps[0]], -bends]).cumsum()
    counts = np.concatenate([[steps[0]], steps[0] + slope.cumsum()])
    return counts.astype(np.int16).astype(np.int64)


def _without_pulse(strip: Recording) -> NDArray[np.float32]:
    """(12, samples) without the calibration pulse: the end during which all leads are one, and reach 1 mV."""
    signal = strip.signal_mv
    apart = np.flatnonzero((signal != signal[0]).any(axis=0))
    start = int(apart[-1]) + 1 if apart.size else signal.shape[1]
    end = signal[0, start:]
    pulse = end.size > _PULSE_S * strip.rate_hz and np.any(np.abs(end - _PULSE_MV) < 0.01)
    return signal[:, :start] if start and pulse else signal


def _representative(root: Element) -> Recording:
    """The representative beats; what lies outside of a beat is NaN."""
    beats = next(within(root, "repbeats"), None)
    every = [] if beats is None else children(beats, "repbeat")
    if beats is None or not every:
        raise no_median(NAME)
    uv, rate_hz = _number(beats.get("resolution", "")), _number(beats.get("samplespersec", ""))
    if not uv or not rate_hz or not 0 < uv < 1e4:
        raise not_calibrated(NAME, "representative beats without resolution or rate")
    waves = [child(beat, "waveform") for beat in every]
    rows: list[NDArray[np.int16]] = []
    for beat, wave in zip(every, waves, strict=True):
        content = _base64(beat if wave is None else wave)
        rows.append(np.frombuffer(content[: len(content) // 2 * 2], dtype="<i2"))
    if len({row.size for row in rows}) > 1 or not rows[0].size:
        raise damaged(NAME, "representative beats of different lengths")
    signal = np.array(rows).astype(np.float64)
    signal[signal == _ABSENT] = np.nan
    names = [beat.get("leadname", "") for beat in every]
    return recording_from_leads(signal * (uv / 1000), names, ["mV"] * len(names), rate_hz, "median")


def _base64(element: Element) -> bytes:
    if len(element.text or "") > 64 * 2**20:
        raise too_large(NAME, "samples of more than 64 MB")
    try:
        return base64.b64decode("".join((element.text or "").split()), validate=True)
    except (binascii.Error, ValueError):
        raise damaged(NAME, "samples that are no base64") from None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
