"""What is wrong with a recording, lead by lead. Faults are counted and reported; nothing is silently dropped.

In:  `Recording`, before preprocessing (filters hide most of these faults).
Out: `Quality`: a boolean for each rule and lead, and whether the recording may be used at all. Called by `store`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedecg.signals.plausibility import plausibility
from fedecg.signals.recording import Recording

__all__ = ["QUALITY_RULES", "Quality", "assess"]

QUALITY_RULES: tuple[str, ...] = (
    "non_finite",
    "flat",
    "saturated",
    "zero_padded",
    "einthoven",
    "too_short",
    "low_amplitude",
    "high_amplitude",
    "no_beats",
    "inverted",
    "limb_swap",
    "paced",
)

# A heart moves every lead by more than 20 µV within 2 s, down to 30 beats a minute; a loose electrode's lead
# that an amplifier grounds does not. Half of the 2-s windows must be still, so that one pause is not a fault.
FLAT_PEAK_TO_PEAK_MV = 0.02
FLAT_WINDOW_S = 2.0
FLAT_SHARE = 0.5
# A lead more than half of which was not recorded says too little to be interpolated.
NON_FINITE_SHARE = 0.5
# Clipping: 30 ms at exactly the lead's own extreme, at 1 mV or more (a natural peak of that height is shorter).
SATURATED_S = 0.03
SATURATED_MV = 1.0
# A run of exact zeros at either end; quiet baselines of coarse converters hold zero for less than 0.25 s.
ZERO_RUN_S = 0.25
# Rounding explains a few µV of II - (I + III), separately filtered leads some tens; more means that the limb
# leads do not belong together (swapped, mislabelled, not simultaneous, one of them clipped).
EINTHOVEN_MV = 0.1
# The shortest strip of a standard 3 x 4 printout; less than one period of the band-pass' lower edge is noise.
MIN_DURATION_S = 2.5
# With more than half of its leads lost a recording is no 12-lead ECG any more.
LOST_LEADS_MAX = 6


@dataclass(frozen=True, eq=False)
class Quality:
    """Faults of one recording.

    Attributes:
        non_finite: (12,) bool, the lead has NaN or infinite samples.
        flat: (12,) bool, the lead moves less than 20 µV in at least half of its 2-s windows.
        saturated: (12,) bool, the lead stays at its own extreme of at least 1 mV for 30 ms.
        zero_padded: (12,) bool, the lead begins or ends with 0.25 s of exact zeros.
        einthoven: (12,) bool, a limb lead misses the law that ties it to I and II by more than 0.1 mV.
        lost: (12,) bool, the lead is flat or mostly not finite.
        too_short: the recording lasts less than 2.5 s, leading and trailing zeros of all leads left out.
        low_amplitude: all leads are smaller than hearts make them: a wrong gain or unit.
        high_amplitude: (12,) bool, leads that are larger than hearts make them.
        impossible: half of the leads span more than 30 mV.
        no_beats: nothing in the recording is as steep and short as QRS complexes.
        inverted: I, II and V6 point downwards, aVR upwards.
        limb_swap: I or II run against V6, or II or III is all but still: electrodes of the limbs exchanged?
        paced: spikes of a pacemaker are seen (400 Hz and more).
    """

    non_finite: NDArray[np.bool_]
    flat: NDArray[np.bool_]
    saturated: NDArray[np.bool_]
    zero_padded: NDArray[np.bool_]
    einthoven: NDArray[np.bool_]
    lost: NDArray[np.bool_]
    too_short: bool
    low_amplitude: bool
    high_amplitude: NDArray[np.bool_]
    impossible: bool
    no_beats: bool
    inverted: bool
    limb_swap: bool
    paced: bool

    @property
    def code(self) -> str:
        """ "" where the recording may be used, or the FECG code of its refusal."""
        if np.count_nonzero(self.lost) > LOST_LEADS_MAX:
            return "FECG-214"
        if self.impossible:
            return "FECG-272"
        return "FECG-213" if self.too_short else ""

    @property
    def usable(self) -> bool:
        """Whether the recording may be used (with its faults counted)."""
        return self.code == ""

    def counts(self) -> dict[str, int]:
        """Leads that break each rule of `QUALITY_RULES`; those of the whole recording are 0 or 1."""
        broken = ((rule, getattr(self, rule)) for rule in QUALITY_RULES)
        # numpy makes an array of a bool first, which takes as long as all the rest.
        return {
            rule: int(leads if isinstance(leads, bool) else np.count_nonzero(leads)) for rule, leads in broken
        }


def assess(recording: Recording) -> Quality:
    """Apply all rules to a recording.

    Source: thresholds above and in `plausibility`, each with its reason; Einthoven 1912, Goldberger 1942 for the limb
    leads.
    """
    signal, rate_hz = recording.signal_mv, recording.rate_hz
    windows_mv, rest_mv = _windows(signal, rate_hz)
    highest_mv, lowest_mv = np.maximum.reduce(windows_mv, axis=2), np.minimum.reduce(windows_mv, axis=2)
    missing = np.zeros(len(signal))  # share of each lead
    # A sample that is not finite is the extreme of its window, so nearly all recordings need no look at each sample.
    complete = all(bool(np.isfinite(values).all()) for values in (highest_mv, lowest_mv, rest_mv))
    if not complete:
        finite = np.isfinite(signal)
        signal = np.where(finite, signal, np.float32(np.nan))
        missing = (~finite).mean(axis=1)
        windows_mv, rest_mv = _windows(signal, rate_hz)
        highest_mv, lowest_mv = np.fmax.reduce(windows_mv, axis=2), np.fmin.reduce(windows_mv, axis=2)
    leading, trailing = _zero_runs(signal)
    live_samples = signal.shape[1] - int(leading.min()) - int(trailing.min())
    span_mv = highest_mv - lowest_mv
    windows = span_mv.shape[1]
    beats = plausibility(signal, highest_mv, lowest_mv, rate_hz, complete=complete)
    return Quality(
        non_finite=missing > 0,
        flat=np.add.reduce(span_mv < FLAT_PEAK_TO_PEAK_MV, axis=1) >= FLAT_SHARE * windows,
        saturated=_saturated(
            signal,
            np.concatenate([highest_mv, rest_mv], axis=1),
            np.concatenate([lowest_mv, rest_mv], axis=1),
            rate_hz,
        ),
        zero_padded=np.maximum(leading, trailing) >= max(1.0, ZERO_RUN_S * rate_hz),
        einthoven=_einthoven(signal),
        # A window without a finite sample has no span and counts as lost, not as flat.
        lost=(np.add.reduce(span_mv >= FLAT_PEAK_TO_PEAK_MV, axis=1) <= (1 - FLAT_SHARE) * windows)
        | (missing > NON_FINITE_SHARE),
        too_short=live_samples < MIN_DURATION_S * rate_hz,
        **beats._asdict(),
    )


def _windows(
    signal_mv: NDArray[np.float32], rate_hz: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(12, windows, samples) windows of 2 s, or one of a shorter recording; (12, any) what lies behind the last one."""
    width = min(round(FLAT_WINDOW_S * rate_hz), signal_mv.shape[1])
    windows = signal_mv.shape[1] // width
    whole = signal_mv[:, : windows * width].reshape(len(signal_mv), windows, width)
    return whole, signal_mv[:, windows * width :]


def _zero_runs(signal_mv: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(12,), (12,) samples of exact zeros at the start and at the end of each lead."""
    leading, trailing = np.zeros((2, len(signal_mv)), dtype=np.intp)
    ends = signal_mv[:, :: max(1, signal_mv.shape[1] - 1)]
    for lead in np.flatnonzero(np.logical_or.reduce(ends == 0, axis=1)):
        alive = signal_mv[lead] != 0
        if alive.any():
            leading[lead], trailing[lead] = alive.argmax(), alive[::-1].argmax()
        else:
            leading[lead] = alive.size
    return leading, trailing


def _saturated(
    signal_mv: NDArray[np.float32],
    highest_mv: NDArray[np.float32],
    lowest_mv: NDArray[np.float32],
    rate_hz: float,
) -> NDArray[np.bool_]:
    """(12,) whether a lead holds its own largest or smallest value for `SATURATED_S`.

    Args:
        highest_mv, lowest_mv: (12, any) extremes of pieces that together are the whole signal.
    """
    run = max(3, round(SATURATED_S * rate_hz))
    # Whoever holds a value for `run` samples has it at one of every `run`: few leads need a closer look.
    every_run = np.ascontiguousarray(signal_mv[:, ::run])
    extremes = np.concatenate([np.fmax.reduce(highest_mv, axis=1), np.fmin.reduce(lowest_mv, axis=1)])
    reached = np.concatenate([np.fmax.reduce(every_run, axis=1), np.fmin.reduce(every_run, axis=1)])
    held = np.zeros(len(signal_mv), dtype=np.bool_)
    for place in np.flatnonzero((np.abs(extremes) >= SATURATED_MV) & (extremes == reached)):
        lead = place % len(signal_mv)
        at = np.flatnonzero(signal_mv[lead] == extremes[place])
        held[lead] |= bool((at[run - 1 :] - at[: 1 - run] == run - 1).any())
    return held


def _einthoven(signal_mv: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(12,) limb leads that break Einthoven's law (I, II, III together) or Goldberger's (aVR, aVL, aVF)."""
    one, two, three = signal_mv[:3]
    half_one, half_two = signal_mv[:2] / 2
    residual = np.empty((4, signal_mv.shape[1]), dtype=np.float32)
    np.subtract(two, one, out=residual[0])
    residual[0] -= three
    np.add(half_one, half_two, out=residual[1])
    np.subtract(half_two, one, out=residual[2])
    np.subtract(half_one, two, out=residual[3])
    residual[1:] += signal_mv[3:6]
    off = np.fmax.reduce(np.abs(residual, out=residual), axis=1) > EINTHOVEN_MV
    broken = np.zeros(len(signal_mv), dtype=np.bool_)
    broken[:3], broken[3:6] = off[0], off[1:]
    return broken
