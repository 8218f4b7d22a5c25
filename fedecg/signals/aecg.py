"""HL7 annotated ECG (aECG): digits of each lead with their origin and scale.

In:  the tree of a file whose root is AnnotatedECG. Out: `Recording`. Called by `reading`.

    component/series                code RHYTHM
      derivation/derivedSeries      code REPRESENTATIVE_BEAT
        component/sequenceSet       sequences: one of time (head, increment), one a lead (origin, scale, digits)

A value is origin + scale x digit, both with a unit. Source: HL7 aECG Implementation Guide, 21 March 2005; the tests
compare with `ecgdatakit`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedecg.signals.faults import damaged, in_numbers, no_median, no_rhythm, not_calibrated, other_variant
from fedecg.signals.recording import Kind, Recording, recording_from_leads
from fedecg.signals.xml_tree import child, children, texts, within

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["NAME", "read_aecg"]

NAME = "HL7 aECG"
_LEAD = "MDC_ECG_LEAD_"
_SERIES = {"rhythm": ("series", "RHYTHM"), "median": ("derivedSeries", "REPRESENTATIVE_BEAT")}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_MICROVOLTS = {"uv": 1.0, "\u03bcv": 1.0, "mv": 1e3, "v": 1e6, "nv": 1e-3}


def read_aecg(root: Element, kind: Kind) -> Recording:
    """The rhythm series, or the representative beat.

    Raises:
        SignalError: FECG-207..211 leads and rate, FECG-271 no scale, FECG-277, FECG-282, FECG-284.
    """
    tag, code = _SERIES[kind]
    series = [each for each in within(root, tag) if _code(each) == code]
    sets = [
        each
        for one in series
        for part in children(one, "component")
        for each in children(part, "sequenceSet")
    ]
    leads = [_leads(each) for each in sets]
    most = max(leads, key=len, default=[])
    if not most:
        raise no_median(NAME) if kind == "median" else no_rhythm(NAME)
    names, signals = [_code(lead).removeprefix(_LEAD) for lead in most], [_microvolts(lead) for lead in most]
    if len({signal.size for signal in signals}) > 1 or not signals[0].size:
        raise damaged(NAME, f"{len(signals)} leads, empty or not all of the same length")
    rate_hz = _rate_hz(sets[leads.index(most)])
    return recording_from_leads(np.array(signals), names, ["uV"] * len(names), rate_hz, kind)


def _sequences(group: Element) -> list[Element]:
    return [sequence for part in children(group, "component") for sequence in children(part, "sequence")]


def _leads(group: Element) -> list[Element]:
    return [sequence for sequence in _sequences(group) if _code(sequence).upper().startswith(_LEAD)]


def _code(element: Element) -> str:
    code = child(element, "code")
    return "" if code is None else code.get("code", "")


def _rate_hz(group: Element) -> float:
    for sequence in _sequences(group):
        step = child(sequence, "value", "increment")
        if _code(sequence).startswith("TIME") and step is not None:
            seconds = _number(step, "value") * _SECONDS.get(step.get("unit", "s"), 0.0)
            if 0 < seconds < np.inf:
                return float(1 / seconds)
    raise damaged(NAME, "no sampling interval")


def _microvolts(lead: Element) -> NDArray[np.float32]:
    value = child(lead, "value")
    scale, origin = child(value, "scale"), child(value, "origin")
    if scale is None or not (per_digit := _quantity(scale)):
        raise not_calibrated(NAME, "a lead without scale")
    digits = in_numbers(texts(value, "digits"), NAME, separator=" ")
    return (digits * per_digit + (0.0 if origin is None else _quantity(origin))).astype(np.float32)


def _quantity(element: Element) -> float:
    """µV of a value with its unit."""
    factor = _MICROVOLTS.get(element.get("unit", "").strip().casefold())
    if factor is None:
        raise other_variant(NAME, "a lead in another unit than volts", "V, mV, uV or nV")
    return _number(element, "value") * factor


def _number(element: Element, attribute: str) -> float:
    try:
        number = float(element.get(attribute, ""))
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        raise damaged(NAME, "a scale, origin or interval that is no number")
    return number
