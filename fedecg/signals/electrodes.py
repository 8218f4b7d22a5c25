"""Electrodes on the wrong limbs, and the spikes of a pacemaker: flags beside the quality rules, never a refusal.

In:  the signal, or every nth sample of it. Out: booleans. Called by `plausibility`.

Limb swaps. V6 looks at the heart from the left and from below, as I and II do, and its electrode is none of those that
are swapped: where I or II runs against V6, an arm or a leg is where another belongs. With an electrode on the right leg
instead, II (right arm) or III (left arm) is all but still. Left arm against left leg turns nothing over and is **not**
found. Measured on the usable records at hand, as stored and with two electrodes exchanged by hand (the right leg taken
to be at 97 % of the left leg's potential):

                            PTB-XL (353)   CODE-15 % (309)   CinC 2020, 2021 (38)
    false alarms                0.6 %          1.6 %             2.6 % (1)
    right arm, left arm          92 %           90 %              89 %
    right arm, left leg          96 %           92 %              79 %
    right arm, right leg         97 %           95 %             100 %
    left arm, right leg         100 %          100 %             100 %
    left arm, left leg           none           none              none

Spikes. At 400 Hz and more a spike is one or two samples wide, out of a quiet moment; a QRS complex is steep for ten
times as long. Slower recordings hold no spikes and are not screened. No record of the 387 at hand is flagged; of those
with spikes of 1 mV and 2 ms added before each beat 98 % and more are. The one record among them whose label says that
it is paced (Q0398, CinC 2020) shows no such spikes and is not found: bipolar leads give small ones.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from fedecg.signals.recording import LEADS

__all__ = ["limb_swap", "paced"]

_LIMBS_AND_V6 = [LEADS.index(lead) for lead in ("I", "II", "III", "V6")]
# Correlation of slopes; in 700 ECGs without a known swap 8 go below (table above).
AGAINST_V6 = -0.5
STILL = 0.1  # of the larger of the other two limb leads
# Three leads that look from below, from the front and from the left: a spike is in two of them at least.
_TWO_SPIKE_LEADS = slice(LEADS.index("II"), LEADS.index("V2") + 1, LEADS.index("V2") - LEADS.index("II"))
_THIRD_SPIKE_LEAD = LEADS.index("V4")
SPIKE_HZ = 400.0
SPIKE_MV = 0.3  # above what lies 4 ms before and after
SPIKE_S, SPIKE_WIDTH_S = 0.004, 0.008
QUIET_S, QUIET_SHARE, AFTER_SHARE = 0.03, 0.15, 0.3  # mean slope before, after; of the spike's
SPIKES_MIN = 3
SPIKES_MAX_HZ = 6.0  # two chambers at 180 beats a minute; more is noise


def limb_swap(steps_mv: NDArray[np.float32]) -> bool:
    """Whether the limb leads look as with electrodes exchanged.

    Args:
        steps_mv: (12, steps) from one sample to the next at about 100 Hz, finite.
    """
    if not steps_mv.shape[1]:
        return False
    steps_mv = steps_mv[_LIMBS_AND_V6]
    products = (steps_mv @ steps_mv.T).tolist()
    one, two, three, six = (sqrt(products[lead][lead]) for lead in range(4))
    if min(one, two, three) < STILL * max(one, two, three) and one > min(two, three):
        return True
    if not min(one, two, six) > 0:
        return False
    return bool(products[0][3] < AGAINST_V6 * one * six or products[1][3] < AGAINST_V6 * two * six)


def paced(signal_mv: NDArray[np.float32], rate_hz: float, *, complete: bool) -> bool:
    """Whether a pacemaker's spikes are seen: at least three.

    Args:
        signal_mv: (12, samples), NaN = not recorded.
        rate_hz: samples a second; below 400 nothing is found.
        complete: whether every sample was recorded.
    """
    reach = round(SPIKE_S * rate_hz)
    if rate_hz < SPIKE_HZ or signal_mv.shape[1] < 4 * round(QUIET_S * rate_hz):
        return False
    first, second = two = _above(signal_mv[_TWO_SPIKE_LEADS], reach)
    if not np.fmax.reduce(two, axis=None) > SPIKE_MV:
        return False  # most recordings: a third lead alone is not enough
    third = _above(signal_mv[_THIRD_SPIKE_LEAD], reach)
    in_two = np.maximum(np.minimum(first, second), np.minimum(np.maximum(first, second), third))
    high = np.flatnonzero(in_two > SPIKE_MV) + reach
    # One candidate for what is high within 10 ms.
    starts = np.concatenate([high[:1], high[1:][high[1:] - high[:-1] > 0.01 * rate_hz]])
    if not SPIKES_MIN <= starts.size <= SPIKES_MAX_HZ * signal_mv.shape[1] / rate_hz + SPIKES_MIN:
        return False
    known = signal_mv if complete else np.nan_to_num(signal_mv)
    steps = known[:, 1:] - known[:, :-1]
    slope = np.add.reduce(np.abs(steps, out=steps), axis=0)
    return sum(_is_spike(slope, at, rate_hz) for at in starts.tolist()) >= SPIKES_MIN


def _above(leads_mv: NDArray[np.float32], reach: int) -> NDArray[np.float32]:
    """(..., samples - 2 reach) how far each sample lies from the middle of those `reach` before and after it."""
    middle = leads_mv[..., : -2 * reach] + leads_mv[..., 2 * reach :]
    middle *= np.float32(-0.5)
    middle += leads_mv[..., reach:-reach]
    above: NDArray[np.float32] = np.abs(middle, out=middle)
    return above


def _is_spike(slope_mv: NDArray[np.float32], at: int, rate_hz: float) -> bool:
    """Whether what is steep here is short, and comes out of a quiet moment."""
    reach, quiet = round(SPIKE_S * rate_hz), round(QUIET_S * rate_hz)
    if at < 2 * quiet or at + quiet > slope_mv.size:
        return False
    peak = at - reach - 1 + int(slope_mv[at - reach - 1 : at + 3 * reach].argmax())
    height, low = float(slope_mv[peak]), 0.4 * float(slope_mv[peak])
    begin, end = peak, peak
    while begin > peak - quiet and slope_mv[begin - 1] > low:
        begin -= 1
    while end < min(peak + quiet, slope_mv.size - 1) and slope_mv[end + 1] > low:
        end += 1
    before = slope_mv[max(begin - quiet, 0) : begin - 1]
    after = slope_mv[end + 2 : end + 2 + max(2, round(0.006 * rate_hz))]
    if not before.size or not after.size or (end - begin + 1) > SPIKE_WIDTH_S * rate_hz + 1e-6:
        return False
    still = before.max() < 2 * QUIET_SHARE * height and before.mean() < QUIET_SHARE * height
    return bool(still and after.mean() < AFTER_SHARE * height)
