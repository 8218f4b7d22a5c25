"""The one form in which fedecg handles an ECG: twelve leads in standard order, in millivolts.

In:  a signal with lead names and units as some file states them (from `reading`, `wfdb16`, the simulations).
Out: `Recording`. Whatever cannot be named or scaled with certainty is refused, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import SignalError

__all__ = ["LEADS", "Recording", "recording_from_leads"]

LEADS: tuple[str, ...] = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
# What a cardiograph measures; the other four limb leads follow from I and II (Einthoven, Goldberger).
_INDEPENDENT = frozenset({"I", "II", "V1", "V2", "V3", "V4", "V5", "V6"})
_STANDARD_NAME = {lead.casefold(): lead for lead in LEADS}

# Case does not matter: headers say mV, mv and MV for the same thing (nobody measures ECGs in megavolts).
# casefold() turns the micro sign (U+00B5) into the Greek mu (U+03BC), so one spelling covers both.
_MILLIVOLTS = {"mv": 1.0, "uv": 1e-3, "\u03bcv": 1e-3}

# Slower than 50 Hz a QRS is a sample or two; faster than 20 kHz is a misread header.
_RATE_MIN_HZ, _RATE_MAX_HZ = 50.0, 20_000.0


@dataclass(frozen=True, eq=False)
class Recording:
    """A 12-lead ECG.

    Attributes:
        signal_mv: (12, samples) float32, C-contiguous, mV, leads in the order of `LEADS`; NaN = not recorded.
        rate_hz: samples a second.

    Raises:
        SignalError: FECG-211, the shape is not (12, samples >= 1) or the rate is not within 50..20000 Hz.
    """

    signal_mv: NDArray[np.float32] = field(repr=False)  # values stay out of logs and tracebacks
    rate_hz: float

    def __post_init__(self) -> None:
        signal = np.ascontiguousarray(self.signal_mv, dtype=np.float32)
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
        object.__setattr__(self, "signal_mv", signal)
        object.__setattr__(self, "rate_hz", float(self.rate_hz))


def recording_from_leads(
    signal: NDArray[np.floating], names: Sequence[str], units: Sequence[str], rate_hz: float
) -> Recording:
    """Order leads by name, convert to mV, and derive III, aVR, aVL, aVF where only eight leads are stored.

    Args:
        signal: (leads, samples), any float type, in `units`.
        names: (leads,) lead names in any case and order.
        units: (leads,) one of mV, uV, µV in any case.
        rate_hz: samples a second.

    Raises:
        SignalError: FECG-207 unknown unit, FECG-208 unknown lead, FECG-209 duplicate lead,
            FECG-210 missing lead, FECG-211 impossible shape or rate.

    Source: Einthoven 1912 (II = I + III); Goldberger 1942 (augmented leads).
    """
    order, factors = _arrangement(tuple(names), tuple(units))
    stored = np.asarray(signal, dtype=np.float32)
    if order != tuple(range(len(order))):
        stored = stored[list(order)]
    if set(factors) != {1.0}:
        stored = stored * np.array(factors, dtype=np.float32)[:, None]
    return Recording(stored if len(order) == len(LEADS) else _with_derived_leads(stored), rate_hz)


@lru_cache(maxsize=64)  # the same for all records of a data set; what is refused is not kept
def _arrangement(names: tuple[str, ...], units: tuple[str, ...]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Stored row of each lead in standard order, and mV per stored unit of each of these rows."""
    factors = _factors(units)
    row = {lead: index for index, lead in enumerate(_standard_names(names))}
    order = tuple(row[lead] for lead in LEADS if lead in row)
    return order, tuple(factors[index] for index in order)


def _factors(units: Sequence[str]) -> list[float]:
    """(leads,) mV per stored unit."""
    known = [_MILLIVOLTS.get(unit.strip().casefold()) for unit in units]
    factors = [factor for factor in known if factor is not None]
    if len(factors) != len(known):
        raise SignalError(
            "FECG-207",
            "units",
            found=f"{len(known) - len(factors)} of {len(known)} leads in an unknown unit",
            expected="mV, uV or µV",
            fix="Correct the unit in the header.",
        )
    return factors


def _standard_names(names: Sequence[str]) -> list[str]:
    """The standard spelling of each name; refuses unless they are the 12 leads or the 8 independent ones."""
    known = [_STANDARD_NAME.get(name.strip().casefold()) for name in names]
    leads = [lead for lead in known if lead is not None]
    if len(leads) != len(known):
        raise SignalError(
            "FECG-208",
            "leads",
            found=f"{len(known) - len(leads)} of {len(known)} leads with an unknown name",
            expected="the names " + ", ".join(LEADS) + " in any case",
            fix="Rename the leads, or export the standard 12 leads only.",
        )
    present = set(leads)
    if len(present) != len(leads):
        raise SignalError(
            "FECG-209",
            "leads",
            found=f"{len(leads) - len(present)} lead(s) stored more than once",
            expected="each lead once",
        )
    if present not in (_INDEPENDENT, set(LEADS)):
        absent = [lead for lead in LEADS if lead not in present]
        raise SignalError(
            "FECG-210",
            "leads",
            found=f"{len(present)} of 12 leads, without {', '.join(absent)}",
            expected="all 12 leads, or exactly I, II, V1 to V6",
            fix="Export the record with all its leads.",
        )
    return leads


def _with_derived_leads(eight_mv: NDArray[np.float32]) -> NDArray[np.float32]:
    """(8, samples) I, II, V1-V6 -> (12, samples)."""
    one, two = eight_mv[0], eight_mv[1]
    return np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *eight_mv[2:]])
