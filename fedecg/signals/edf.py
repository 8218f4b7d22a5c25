"""EDF and EDF+: signals with a physical range, through edfio.

In:  the bytes of a file. Out: `Recording`. Called by `reading`. Channels that are no leads in volts (annotations,
breathing) are passed over; the twelve leads must share one rate. Source: Kemp et al. 1992, 2003, https://edfplus.info;
the tests decode the same words by hand.
"""

from __future__ import annotations

import numpy as np

from fedecg.signals.faults import damaged, missing_package, no_median, not_calibrated, other_variant
from fedecg.signals.recording import Kind, Recording, recording_from_leads, standard_lead

__all__ = ["NAME", "is_edf", "read_edf"]

NAME = "EDF"
_HEADER, _SIGNALS_MAX = 256, 512
_VOLTAGES = ("mv", "uv", "\u03bcv", "v", "nv")


def is_edf(head: bytes) -> bool:
    """Whether a file begins as EDF does."""
    return head.startswith(b"0       ")


def read_edf(content: bytes, kind: Kind) -> Recording:
    """The leads of an EDF file.

    Raises:
        SignalError: FECG-207..211 leads, unit and rate, FECG-271, FECG-276, FECG-277, FECG-282, FECG-284.
    """
    if kind == "median":
        raise no_median(NAME)
    _verify(content)
    try:
        import edfio
    except ImportError:
        raise missing_package(NAME) from None
    signals = [
        each for each in edfio.read_edf(content).signals if _is_lead(each.label, each.physical_dimension)
    ]
    if any(
        each.physical_max == each.physical_min or each.digital_max == each.digital_min for each in signals
    ):
        raise not_calibrated(NAME, "signals whose range is empty")
    names = [each.label for each in signals]
    leads = [each for each in signals if standard_lead(each.label)]
    if len({(each.sampling_frequency, each.samples_per_data_record) for each in leads}) > 1:
        raise other_variant(NAME, "leads at several rates", "one sampling rate for all leads")
    if len(leads) < len(signals) or not leads:  # refused by name, before anything is decoded
        signals = signals[:1] if not leads else signals
        names = names[: len(signals)]
    samples = min((each.data.size for each in signals), default=0)
    if not samples:
        raise damaged(NAME, "no lead of an ECG with samples")
    data = np.array([each.data[:samples] for each in signals])
    units = [each.physical_dimension for each in signals]
    return recording_from_leads(data, names, units, float(signals[0].sampling_frequency))


def _is_lead(label: str, unit: str) -> bool:
    return unit.strip().casefold() in _VOLTAGES or bool(standard_lead(label))


def _verify(content: bytes) -> None:
    """Refuse what is cut off, has gaps, or declares more than it holds."""
    try:
        count, records = int(content[252:256]), int(content[236:244])
        seconds = float(content[244:252])
        per_record = [int(content[at : at + 8]) for at in range(*_widths(count))]
    except ValueError:
        raise damaged(NAME, "a header that reads otherwise") from None
    if content[192:197] == b"EDF+D":
        raise other_variant(NAME, "a recording with gaps (EDF+D)", "one without, EDF or EDF+C")
    held = len(content) - _HEADER * (count + 1)
    declared = 2 * sum(per_record) * max(records, 0)
    if not seconds > 0 or min(per_record, default=0) < 1 or records < 1 or declared > held:
        raise damaged(NAME, f"{max(held, 0)} bytes of samples where {max(declared, 1)} are stated")


def _widths(count: int) -> tuple[int, int, int]:
    """Where the numbers of samples a record stand: after 216 bytes a signal."""
    if not 1 <= count <= _SIGNALS_MAX:
        raise ValueError
    return _HEADER + 216 * count, _HEADER + 224 * count, 8
