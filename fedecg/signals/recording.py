"""The one form in which fedecg handles an ECG: twelve leads in standard order, in millivolts.

In:  a signal with lead names and units as some file states them (from the readers, the simulations).
Out: `Recording`. Whatever cannot be named or scaled with certainty is refused, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import SignalError

__all__ = ["LEADS", "Kind", "Recording", "recording_from_leads", "standard_lead"]

# A strip of consecutive beats, or one beat that a cardiograph made from all of them: never mixed.
Kind = Literal["rhythm", "median"]

LEADS: tuple[str, ...] = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
# What a cardiograph measures; the other four limb leads follow from I and II (Einthoven, Goldberger).
_INDEPENDENT = frozenset({"I", "II", "V1", "V2", "V3", "V4", "V5", "V6"})
# DI, DII, DIII: what the limb leads are called from Lisbon to Bucharest.
_STANDARD_NAME = {lead.casefold(): lead for lead in LEADS} | {"di": "I", "dii": "II", "diii": "III"}
# What vendors and standards write before a lead's name; MLII, CM5 and the like stay unknown: they are other leads.
_PREFIXES = ("mdc_ecg_lead_", "ecg lead ", "lead ", "ecg ", "ekg ")
# Right and posterior chest leads, Frank's leads, inverted aVR: known, and not among the twelve.
_BEYOND_TWELVE = frozenset(
    ["v7", "v8", "v9", "x", "y", "z", "vx", "vy", "vz", "-avr", *(f"v{number}r" for number in range(1, 10))]
)

# Case does not matter: headers say mV, mv and MV for the same thing (nobody measures ECGs in megavolts).
# casefold() turns the micro sign (U+00B5) into the Greek mu (U+03BC), so one spelling covers both.
_MILLIVOLTS = {"mv": 1.0, "uv": 1e-3, "\u03bcv": 1e-3}
_MILLIVOLTS |= {"millivolt": 1.0, "millivolts": 1.0, "microvolt": 1e-3, "microvolts": 1e-3}

# Slower than 50 Hz a QRS is a sample or two; faster than 20 kHz is a misread header.
_RATE_MIN_HZ, _RATE_MAX_HZ = 50.0, 20_000.0
# A thousand volts: a damaged file, no sample; its square must not overflow. Wrong gains stay far below and are flagged.
_FARTHEST_MV = 1e6


@dataclass(frozen=True, eq=False)
class Recording:
    """A 12-lead ECG.

    Attributes:
        signal_mv: (12, samples) float32, C-contiguous, mV, leads in the order of `LEADS`; NaN = not recorded,
            or beyond +-1 kV.
        rate_hz: samples a second.
        kind: a strip of consecutive beats ("rhythm"), or the beat that a cardiograph made of them ("median").
        extra_leads: leads of the file beyond the twelve, left out (V3R, V7, X ...).

    Raises:
        SignalError: FECG-211, the shape is not (12, samples >= 1) or the rate is not within 50..20000 Hz.
    """

    signal_mv: NDArray[np.float32] = field(repr=False)  # values stay out of logs and tracebacks
    rate_hz: float
    kind: Kind = field(default="rhythm", repr=False)
    extra_leads: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        signal = np.asarray(self.signal_mv)
        if signal.dtype != np.float32 or not signal.flags.c_contiguous:
            with np.errstate(over="ignore"):  # what float32 cannot hold is no sample either
                signal = np.ascontiguousarray(signal, dtype=np.float32)
        if signal.ndim != 2 or signal.shape[0] != len(LEADS) or signal.shape[1] < 1:
            raise SignalError(
                "FECG-211",
                "recording",
                found=f"an array of shape {signal.shape}",
                expected="(12, samples) with at least one sample",
            )
        if not (math.isfinite(self.rate_hz) and _RATE_MIN_HZ <= self.rate_hz <= _RATE_MAX_HZ):
            raise SignalError(
                "FECG-211",
                "recording",
                found=f"a sampling rate of {self.rate_hz:g} Hz",
                expected=f"{_RATE_MIN_HZ:g} to {_RATE_MAX_HZ:g} Hz",
                fix="Check the sampling rate in the header.",
            )
        highest_mv, lowest_mv = np.maximum.reduce(signal, axis=None), np.minimum.reduce(signal, axis=None)
        if not (highest_mv <= _FARTHEST_MV and lowest_mv >= -_FARTHEST_MV):  # or a gap among them
            signal = np.where(np.abs(signal) <= _FARTHEST_MV, signal, np.float32(np.nan))
        object.__setattr__(self, "signal_mv", signal)
        object.__setattr__(self, "rate_hz", float(self.rate_hz))


def recording_from_leads(
    signal: NDArray[np.floating],
    names: Sequence[str],
    units: Sequence[str],
    rate_hz: float,
    kind: Kind = "rhythm",
) -> Recording:
    """Order leads by name, convert to mV, and derive III, aVR, aVL, aVF where only eight leads are stored.

    Leads that are known and not among the twelve (V3R, V7, X ...) are left out and named in `extra_leads`.

    Args:
        signal: (leads, samples), any float type, in `units`.
        names: (leads,) lead names in any case and order, with or without "Lead", "ECG" or MDC_ECG_LEAD_.
        units: (leads,) one of mV, uV, µV in any case; of leads that are left out it does not matter.
        rate_hz: samples a second.
        kind: what the signal is.

    Raises:
        SignalError: FECG-207 unknown unit, FECG-208 unknown lead, FECG-209 duplicate lead,
            FECG-210 missing lead, FECG-211 impossible shape or rate.

    Source: Einthoven 1912 (II = I + III); Goldberger 1942 (augmented leads).
    """
    order, factors, extra = _arrangement(tuple(names), tuple(units))
    stored = np.asarray(signal, dtype=np.float32)
    if order != tuple(range(len(stored))):
        stored = stored[list(order)]
    if factors.count(1.0) != len(factors):
        stored = stored * np.array(factors, dtype=np.float32)[:, None]
    twelve = stored if len(order) == len(LEADS) else _with_derived_leads(stored)
    return Recording(twelve, rate_hz, kind, extra)


@lru_cache(maxsize=256)
def standard_lead(name: str) -> str:
    """The standard spelling of a name; without prefix of a lead beyond the twelve; "" of an unknown one."""
    bare = name.strip().casefold()
    bare = next((bare[len(prefix) :].strip() for prefix in _PREFIXES if bare.startswith(prefix)), bare)
    return _STANDARD_NAME.get(bare, bare.upper() if bare in _BEYOND_TWELVE else "")


@lru_cache(maxsize=64)  # the same for all records of a data set; what is refused is not kept
def _arrangement(
    names: tuple[str, ...], units: tuple[str, ...]
) -> tuple[tuple[int, ...], tuple[float, ...], tuple[str, ...]]:
    """Stored row of each lead in standard order, mV per stored unit of each of these rows, leads left out."""
    leads = [standard_lead(name) for name in names]
    row = {lead: index for index, lead in enumerate(leads) if lead in LEADS}
    _refuse_unless_twelve(leads, row)
    order = tuple(row[lead] for lead in LEADS if lead in row)
    return order, _factors([units[index] for index in order]), tuple(x for x in leads if x not in row)


def _factors(units: Sequence[str]) -> tuple[float, ...]:
    """(leads,) mV per stored unit."""
    known = [_MILLIVOLTS.get(unit.strip().casefold()) for unit in units]
    factors = tuple(factor for factor in known if factor is not None)
    if len(factors) != len(known):
        raise SignalError(
            "FECG-207",
            "units",
            found=f"{len(known) - len(factors)} of {len(known)} leads in an unknown unit",
            expected="mV, uV or µV",
            fix="Correct the unit in the header.",
        )
    return factors


def _refuse_unless_twelve(leads: Sequence[str], row: dict[str, int]) -> None:
    """Refuse unless the leads hold the 12, or the 8 independent ones and no other of the 12, each once."""
    unknown = leads.count("")
    if unknown:
        raise SignalError(
            "FECG-208",
            "leads",
            found=f"{unknown} of {len(leads)} leads with an unknown name",
            expected="the names " + ", ".join(LEADS) + " in any case",
            fix="Rename the leads, or export the standard 12 leads only.",
        )
    repeats = sum(lead in row for lead in leads) - len(row)
    if repeats:
        raise SignalError(
            "FECG-209",
            "leads",
            found=f"{repeats} lead(s) stored more than once",
            expected="each lead once",
        )
    if row.keys() not in (_INDEPENDENT, set(LEADS)):
        absent = [lead for lead in LEADS if lead not in row]
        raise SignalError(
            "FECG-210",
            "leads",
            found=f"{len(row)} of 12 leads, without {', '.join(absent)}",
            expected="all 12 leads, or exactly I, II, V1 to V6",
            fix="Export the record with all its leads.",
        )


def _with_derived_leads(eight_mv: NDArray[np.float32]) -> NDArray[np.float32]:
    """(8, samples) I, II, V1-V6 -> (12, samples)."""
    one, two = eight_mv[0], eight_mv[1]
    return np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *eight_mv[2:]])
