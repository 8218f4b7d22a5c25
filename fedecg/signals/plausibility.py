"""Could a heart have given this? Amplitude, beats and polarity, for faults that leave every lead in good shape.

In:  the highest and lowest values of each lead in windows of 2 s, and the signal. Out: `Plausibility`.
Called by `quality`.

A wrong gain or unit, noise on open inputs and an inverted signal all preprocess well and get a confident risk. The
screens cost 0.04 ms a record of 10 s at 500 Hz. Measured on the usable records at hand (README of the test data), as
stored and altered:

                              PTB-XL (353)   CODE-15 % (309)   CinC 2020, 2021 (32 of true gain)
    low: false alarms              0               0                 0
    low: found at 1/10           100 %            97 %              97 %
    high: false alarms             0               8 %               1
    high: found at 10 x          100 %           100 %             100 %
    no beats: false alarms         0               1                 0
    inverted: false alarms         1               1                 0
    inverted: found               82 %            81 %              72 %

CODE-15's false alarms have leads of 8 mV and more, or half of the leads above 4 mV. The 6 records of CinC 2020 whose
header states 4880 or 200 for 1000 counts/mV are all found; 10 s of white noise at 100 to 1000 Hz, the same in all leads
or not, is found in 1,600 of 1,600 draws.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedecg.signals.electrodes import limb_swap, paced
from fedecg.signals.recording import LEADS

__all__ = ["Plausibility", "plausibility"]

# Low voltage is QRS below 0.5 mV in all limb leads and 1.0 mV in all chest leads (e.g. J Electrocardiol 2008;41:281,
# doi 10.1016/j.jelectrocard.2007.12.001). Where no lead spans 1.0 mV, P and T included, a wrong gain is likelier.
LOW_MV = 1.0
# Measured: 353 ECGs of PTB-XL, hypertrophies included, reach 5.4 mV in their largest lead and 3.2 mV in their median
# one; a single lead gets room for a wandering baseline.
HIGH_LEAD_MV = 8.0
HIGH_MEDIAN_MV = 4.0
# Half of the leads beyond what a store's int16 holds: no heart, and no wandering baseline of all leads at once.
IMPOSSIBLE_MV = 30.0
# QRS complexes are steep and rare: the steepest moment of 2 s is many times as steep as the typical one. In 1,500 draws
# of 10 s of white noise, the same in all leads, it is at most 5.7 times (2 times where leads differ); in 694 ECGs, all
# but one, it is 10.9 times and more.
STEEPNESS_MIN = 6.0
STEEPNESS_HZ = 100.0
# A heart's axis between -30 and 90 degrees makes I and II positive, and its apex lies under V6; all three negative
# and aVR positive are a swap of limb leads and more, an axis in no man's land (below 1 % of ECGs), or a wrong sign.
_POLAR = [LEADS.index(lead) for lead in ("I", "II", "V6", "aVR")]


class Plausibility(NamedTuple):
    """What no heart gives.

    Attributes:
        low_amplitude: no lead spans 1.0 mV in a typical 2 s.
        high_amplitude: (12,) bool, leads of more than 8 mV; all where half of them span more than 4 mV.
        impossible: half of the leads span more than 30 mV.
        no_beats: nothing in it is as steep and as short as QRS complexes.
        inverted: I, II and V6 point downwards and aVR upwards.
        limb_swap: the limb leads look as with electrodes exchanged.
        paced: a pacemaker's spikes are seen.
    """

    low_amplitude: bool
    high_amplitude: NDArray[np.bool_]
    impossible: bool
    no_beats: bool
    inverted: bool
    limb_swap: bool
    paced: bool


def plausibility(
    signal_mv: NDArray[np.float32],
    highest_mv: NDArray[np.float32],
    lowest_mv: NDArray[np.float32],
    rate_hz: float,
    *,
    complete: bool,
) -> Plausibility:
    """Apply all screens.

    Args:
        signal_mv: (12, samples), NaN = not recorded.
        highest_mv, lowest_mv: (12, windows) of 2 s, NaN where a window has no finite sample.
        rate_hz: samples a second.
        complete: whether every sample was recorded.
    """
    typical_mv = _typical(np.concatenate([highest_mv - lowest_mv, highest_mv + lowest_mv]))
    span_mv, twice_middle_mv = typical_mv[: len(LEADS)], typical_mv[len(LEADS) :]
    ordered = sorted(span_mv.tolist())
    largest, middle = ordered[-1], ordered[len(LEADS) // 2]
    thin_mv = np.ascontiguousarray(signal_mv[:, :: max(1, round(rate_hz / STEEPNESS_HZ))])
    if not complete:
        thin_mv = np.nan_to_num(thin_mv)
    steps_mv = thin_mv[:, 1:] - thin_mv[:, :-1]
    # Spans and slopes of a lead that does not move are rounding.
    moves = largest > 0
    inverted = moves and _inverted(twice_middle_mv, thin_mv)
    return Plausibility(
        low_amplitude=moves and largest < LOW_MV,
        high_amplitude=(span_mv > HIGH_LEAD_MV) | (middle > HIGH_MEDIAN_MV),
        impossible=middle > IMPOSSIBLE_MV,
        no_beats=moves and _steepness(steps_mv, highest_mv.shape[1]) < STEEPNESS_MIN,
        inverted=inverted,
        limb_swap=moves and not inverted and limb_swap(steps_mv),
        paced=moves and paced(signal_mv, rate_hz, complete=complete),
    )


def _typical(windows_mv: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, windows) -> (n,) the middle value of the windows that were recorded, 0 where none was."""
    ordered = np.sort(windows_mv, axis=1)  # NaN last
    if not np.isnan(ordered[:, -1]).any():
        complete: NDArray[np.float32] = ordered[:, (ordered.shape[1] - 1) // 2]
        return complete
    known = ordered.shape[1] - np.isnan(ordered).sum(axis=1)
    middle: NDArray[np.float32] = ordered[np.arange(len(ordered)), np.maximum(known - 1, 0) // 2]
    return np.where(known > 0, middle, np.float32(0))


def _steepness(steps_mv: NDArray[np.float32], windows: int) -> float:
    """Steepest over typical slope, summed over leads, in the middle one of the windows that move."""
    slope = np.add.reduce(np.abs(steps_mv), axis=0)
    width = slope.size // windows
    if not width:
        return 0.0
    ordered = np.sort(slope[: windows * width].reshape(windows, width), axis=1)
    pairs = zip(ordered[:, -1].tolist(), ordered[:, width // 2].tolist(), strict=True)
    ratios = sorted(steepest / max(typical, 1e-6) for steepest, typical in pairs if steepest > 0)
    return ratios[len(ratios) // 2] if ratios else 0.0


def _inverted(twice_middle_mv: NDArray[np.float32], thin_mv: NDArray[np.float32]) -> bool:
    """Whether the larger deflections of I, II and V6 from their means go down, and those of aVR up.

    Args:
        twice_middle_mv: (12,) highest and lowest value of a typical window together. thin_mv: (12, samples).
    """
    deflection_mv = twice_middle_mv - np.add.reduce(thin_mv, axis=1) * np.float32(2 / thin_mv.shape[1])
    one, two, six, avr = deflection_mv[_POLAR].tolist()
    return bool(one < 0 and two < 0 and six < 0 and avr > 0)
