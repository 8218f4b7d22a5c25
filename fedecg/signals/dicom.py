"""DICOM 12-lead ECG waveforms: pydicom finds the fields, the samples are decoded here.

In:  the bytes of a file with DICM at byte 128. Out: `Recording`. Called by `reading`.

Value = (count + Channel Baseline) x Channel Sensitivity x Correction Factor, as DICOM PS3.3 C.10.9 has it, baseline in
units of the count as `pydicom.waveforms` takes it. Leads are known by their SCP-ECG or MDC codes, else by their meaning
("Lead I (Einthoven)"). -32768 is a gap, as in WFDB; the stated padding value is not asked: writers fill that field with
0, and 0 is a voltage (`ecgdatakit` makes gaps of every such sample).
"""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.signals.faults import (
    damaged,
    missing_package,
    no_median,
    no_rhythm,
    not_calibrated,
    other_variant,
    too_large,
)
from fedecg.signals.recording import Kind, Recording, recording_from_leads

__all__ = ["NAME", "SCP_LEADS", "is_dicom", "read_dicom"]

NAME = "DICOM"
_BYTES_MAX = 32 * 2**20
_ABSENT = -32768
_DEFLATED = b"1.2.840.10008.1.2.1.99"  # the transfer syntax whose size nobody knows before it is unpacked
# Lead numbers of SCP-ECG (EN 1064, 5.6.3), which DICOM's codes 5.6.3-9-N and MDC's 2:N repeat.
SCP_LEADS = {1: "I", 2: "II", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF"}
SCP_LEADS |= {number + 2: f"V{number}" for number in range(1, 8)}
SCP_LEADS |= {8 + number: f"V{number}R" for number in range(2, 8)} | {66: "V8", 67: "V9"}
_CODED = re.compile(r"(?:5\.6\.3-9-|2:)(\d{1,3})$")
_MEANING = re.compile(r"(?:lead )?\s*([a-z0-9]+)", re.IGNORECASE)
_MICROVOLTS = {"uv": 1.0, "\u03bcv": 1.0, "mv": 1e3, "v": 1e6, "nv": 1e-3}


def is_dicom(head: bytes) -> bool:
    """Whether a file begins as DICOM does."""
    return head[128:132] == b"DICM"


def read_dicom(content: bytes, kind: Kind) -> Recording:
    """The rhythm group, or the group with the median beat.

    Raises:
        SignalError: FECG-207..211 leads and rate, FECG-271 no sensitivity, FECG-276..278, FECG-282, FECG-284.
    """
    if len(content) > _BYTES_MAX:
        raise too_large(NAME, f"{len(content)} bytes")
    if _DEFLATED in content:
        raise other_variant(NAME, "a deflated file", "an uncompressed transfer syntax")
    groups = [group for group in _groups(content) if _kind(group) == kind]
    if not groups:
        raise no_median(NAME) if kind == "median" else no_rhythm(NAME)
    # A group for each column of a 3 x 4 printout holds three leads; the group with all leads is the one to read.
    group = max(groups, key=lambda each: int(each.NumberOfWaveformChannels))
    channels = list(group.ChannelDefinitionSequence)
    counts = _counts(group, len(channels))
    signal = np.array([_microvolts(row, channel) for row, channel in zip(counts, channels, strict=True)])
    names = [_lead(channel) for channel in channels]
    return recording_from_leads(signal, names, ["uV"] * len(names), float(group.SamplingFrequency), kind)


def _groups(content: bytes) -> list[Any]:
    try:
        import pydicom
    except ImportError:
        raise missing_package(NAME) from None
    # Its warnings print values of the file, which may be a patient's.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    file = pydicom.dcmread(io.BytesIO(content), specific_tags=["WaveformSequence"])
    return list(file.get("WaveformSequence") or [])


def _kind(group: Any) -> Kind:
    label = str(group.get("MultiplexGroupLabel") or "").upper()
    derived = str(group.get("WaveformOriginality") or "").upper() == "DERIVED"
    return "median" if derived or "MEDIAN" in label or "TEMPLATE" in label else "rhythm"


def _counts(group: Any, channels: int) -> NDArray[np.float32]:
    """(channels, samples) counts, NaN where padded."""
    if int(group.WaveformBitsAllocated) != 16 or str(group.WaveformSampleInterpretation) != "SS":
        raise other_variant(NAME, "samples that are not signed 16-bit integers", "SS with 16 bits")
    order = ">i2" if group.get("is_little_endian") is False else "<i2"
    raw = bytes(group.WaveformData)
    samples = int(group.NumberOfWaveformSamples)
    if samples < 1 or channels != int(group.NumberOfWaveformChannels) or len(raw) < 2 * samples * channels:
        raise damaged(
            NAME, f"{len(raw) // 2} counts in a group that states {samples} for each of {channels} leads"
        )
    whole = np.frombuffer(raw, dtype=order, count=samples * channels).reshape(samples, channels).T
    counts = whole.astype(np.float32)
    counts[whole == _ABSENT] = np.nan
    return counts


def _microvolts(counts: NDArray[np.float32], channel: Any) -> NDArray[np.float32]:
    sensitivity, units = channel.get("ChannelSensitivity"), channel.get("ChannelSensitivityUnitsSequence")
    if not sensitivity or not units:
        raise not_calibrated(NAME, "channels without sensitivity or unit")
    factor = _MICROVOLTS.get(str(units[0].CodeValue).strip().casefold())
    if factor is None:
        raise other_variant(NAME, "a sensitivity in another unit than volts", "V, mV, uV or nV")
    correction, baseline = channel.get("ChannelSensitivityCorrectionFactor"), channel.get("ChannelBaseline")
    per_count = float(sensitivity) * factor * (1.0 if correction is None else float(correction))
    if not 0 < abs(per_count) < 1e6:
        raise not_calibrated(NAME, "channels whose counts amount to nothing")
    return ((counts.astype(np.float64) + float(baseline or 0.0)) * per_count).astype(np.float32)


def _lead(channel: Any) -> str:
    source = channel.ChannelSourceSequence[0]
    code = str(source.get("CodeValue") or "").strip()
    number = _CODED.search(code)
    if number:
        return SCP_LEADS.get(int(number[1]), "")
    if code.upper().startswith("MDC_ECG_LEAD_"):
        return code
    meaning = _MEANING.match(str(source.get("CodeMeaning") or "").strip())
    return meaning[1] if meaning else ""
