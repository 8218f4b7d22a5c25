"""CardioSoft XML as UK Biobank gives it out (fields 20205 and 6025): the strip and the median beats.

In:  the tree of a file whose root is CardiologyXML. Out: `Recording`. Called by `reading`.

    StripData                               SampleRate, Resolution units="uVperLsb", WaveformData lead="I": counts
    RestingECGMeasurements/MedianSamples    the same, one beat a lead

Counts stand in the text, apart by commas; the file is in ISO 8859-1. The published readers of these files take the
resolution as µV a count: https://biobank.ndph.ox.ac.uk/ukb/field.cgi?id=20205, github.com/suniljmanohar/UKBiobank_ECG.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedecg.signals.faults import damaged, in_numbers, no_median, no_rhythm, not_calibrated, other_variant
from fedecg.signals.recording import Kind, Recording, recording_from_leads
from fedecg.signals.xml_tree import child, children, texts

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["NAME", "read_cardiosoft"]

NAME = "CardioSoft XML"
# What the attribute `units` of Resolution says -> µV a count.
_RESOLUTION_UNITS = {"uvperlsb": 1.0, "\u03bcvperlsb": 1.0, "mvperlsb": 1000.0, "nvperlsb": 0.001}
_ABSENT = -32768  # in a median that does not fill its window


def read_cardiosoft(root: Element, kind: Kind) -> Recording:
    """The strip, or the median beats, of a CardioSoft file.

    Raises:
        SignalError: FECG-207..211 leads, unit, rate, FECG-271 no resolution, FECG-277, FECG-282, FECG-284.
    """
    if kind == "median":
        data = child(root, "RestingECGMeasurements", "MedianSamples")
        if data is None:
            raise no_median(NAME)
    else:
        data = child(root, "StripData")
        data = child(root, "Strip", "StripData") if data is None else data
        if data is None or not children(data, "WaveformData"):
            raise no_rhythm(NAME)
    waves = children(data, "WaveformData")
    uv_per_count = _uv_per_count(data)
    leads = [_microvolts(wave.text or "", uv_per_count) for wave in waves]
    if not leads or len({lead.size for lead in leads}) > 1:
        raise damaged(NAME, f"{len(leads)} leads, not all of the same length")
    stated = texts(data, "ChannelSampleCountTotal")
    if stated and stated != str(leads[0].size):
        raise damaged(NAME, f"{leads[0].size} samples a lead where another number is stated")
    names = [wave.get("lead", "") for wave in waves]
    return recording_from_leads(np.array(leads), names, ["uV"] * len(names), _rate_hz(data), kind)


def _microvolts(text: str, uv_per_count: float) -> NDArray[np.float32]:
    """(samples,) of one lead, NaN where it has none."""
    counts = in_numbers(text, NAME)
    counts[counts == _ABSENT] = np.nan
    return (counts * uv_per_count).astype(np.float32)


def _uv_per_count(data: Element) -> float:
    resolution = child(data, "Resolution")
    value = _number(texts(data, "Resolution"))
    if resolution is None or not value or not 0 < value < 1e6:
        raise not_calibrated(NAME, "no resolution")
    unit = resolution.get("units", "uVperLsb").strip().casefold()
    if unit not in _RESOLUTION_UNITS:
        raise other_variant(NAME, "a resolution in another unit", "uVperLsb")
    return value * _RESOLUTION_UNITS[unit]


def _rate_hz(data: Element) -> float:
    rate, element = _number(texts(data, "SampleRate")), child(data, "SampleRate")
    unit = "Hz" if element is None else element.get("units", "Hz")
    if rate is None or unit.strip().lower() != "hz":
        raise damaged(NAME, "no sampling rate in Hz")
    return rate


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
