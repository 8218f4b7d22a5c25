"""GE MUSE XML: base64 counts of eight leads, rhythm and median.

In:  the tree of a file whose root is RestingECG. Out: `Recording`. Called by `reading`.

    Waveform    WaveformType (Rhythm, Median), SampleBase x 10 ** SampleExponent = rate
      LeadData  LeadID, LeadSampleSize (bytes), LeadAmplitudeUnitsPerBit, LeadAmplitudeUnits, WaveFormData (base64)

Counts are little-endian integers. MUSE stores I, II, V1 to V6; the other four leads follow. No file of a real
cardiograph is at hand: the layout is that of GE's restecg.dtd as `ecgdatakit` and other published readers have it, and
the tests compare with `ecgdatakit`.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedecg.signals.faults import damaged, no_median, no_rhythm, not_calibrated, other_variant
from fedecg.signals.recording import Kind, Recording, recording_from_leads
from fedecg.signals.xml_tree import children, texts

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["NAME", "read_muse"]

NAME = "GE MUSE XML"
_ABSENT = -32768
_INTEGERS = {1: "<i1", 2: "<i2", 4: "<i4"}  # by bytes a sample


def read_muse(root: Element, kind: Kind) -> Recording:
    """The rhythm strip, or the median beats, of a MUSE file.

    Raises:
        SignalError: FECG-207..211 leads, unit, rate, FECG-271 no amplitude, FECG-277, FECG-282, FECG-284.
    """
    waves = [w for w in children(root, "Waveform") if texts(w, "WaveformType").lower() == kind]
    if not waves:
        raise no_median(NAME) if kind == "median" else no_rhythm(NAME)
    leads = children(waves[0], "LeadData")
    signals = [_microvolts(lead) for lead in leads]
    if not signals or len({signal.size for signal in signals}) > 1:
        raise damaged(NAME, f"{len(signals)} leads, not all of the same length")
    rate_hz = _number(waves[0], "SampleBase")
    exponent = _number(waves[0], "SampleExponent") or 0.0
    if rate_hz is None or abs(exponent) > 6:
        raise damaged(NAME, "no sampling rate")
    names = [texts(lead, "LeadID") for lead in leads]
    units = [texts(lead, "LeadAmplitudeUnits") or "MICROVOLTS" for lead in leads]
    return recording_from_leads(np.array(signals), names, units, rate_hz * 10.0**exponent, kind)


def _microvolts(lead: Element) -> NDArray[np.float32]:
    """(samples,) of one lead, in its own amplitude unit."""
    per_bit = _number(lead, "LeadAmplitudeUnitsPerBit")
    if not per_bit or not 0 < per_bit < 1e6:
        raise not_calibrated(NAME, "leads without LeadAmplitudeUnitsPerBit")
    width = texts(lead, "LeadSampleSize") or "2"
    if width not in map(str, _INTEGERS):
        raise other_variant(NAME, "samples of another width", "1, 2 or 4 bytes a sample")
    try:
        raw = base64.b64decode("".join(texts(lead, "WaveFormData").split()), validate=True)
        counts = np.frombuffer(raw, dtype=_INTEGERS[int(width)])
    except (binascii.Error, ValueError):
        raise damaged(NAME, "samples that are no base64, or end within one") from None
    stated = texts(lead, "LeadSampleCountTotal")
    if stated and stated != str(counts.size):
        raise damaged(NAME, f"{counts.size} samples in a lead where another number is stated")
    scaled = (counts * per_bit).astype(np.float32)
    if counts.dtype.itemsize == 2:
        scaled[counts == _ABSENT] = np.nan
    return scaled


def _number(element: Element, tag: str) -> float | None:
    try:
        return float(texts(element, tag))
    except ValueError:
        return None
