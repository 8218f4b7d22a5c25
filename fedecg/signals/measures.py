"""Heart rate and QRS duration of a recording, measured from its own samples.

In:  signals (12, samples) in mV, band-passed, their rate. Out: beats a minute, milliseconds; NaN without a beat.
Called by simulations for a control that a network must beat: a Cox model of age, sex and what cardiographs print.

Made for a covariate, not for a diagnosis. The QRS complex is where the heart's vector moves fast: onset and end are the
places around the R peak at which the speed of all leads together, in the median beat, falls to a share of its height.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedecg.signals.median import BEFORE_S, median_beat, r_peaks

__all__ = ["heart_rate_bpm", "qrs_ms"]

Float32 = NDArray[np.float32]

WITHIN_S = 0.13  # of the R peak: farther away a QRS complex does not reach
REST_QUANTILE = 0.4  # of a beat's speeds: what noise and slow waves have
SHARE = 0.12  # of the way from rest to the peak's speed


def heart_rate_bpm(signal_mv: Float32, rate_hz: float) -> float:
    """Beats a minute by the median distance of R peaks; NaN with fewer than two.

    Args:
        signal_mv: (12, samples) mV, a recording of several beats.
        rate_hz: samples a second.
    """
    peaks = r_peaks(signal_mv, rate_hz)
    return 60.0 * rate_hz / float(np.median(np.diff(peaks))) if len(peaks) > 1 else float("nan")


def qrs_ms(signal_mv: Float32, rate_hz: float) -> float:
    """Milliseconds from the first fast movement to the last in the median beat; NaN where there is no whole beat.

    At 100 Hz places between samples are interpolated. On 240 synthetic ECGs of known duration: correlation 0.96, 6 ms
    too long, standard deviation of the error 4 ms.

    Args:
        signal_mv: (12, samples) mV.
        rate_hz: samples a second.
    """
    beat = median_beat(signal_mv, rate_hz)
    if not beat.beats:
        return float("nan")
    speed = np.sqrt(np.square(np.diff(beat.signal_mv, axis=1)).sum(axis=0))
    middle, reach = round(BEFORE_S * rate_hz), round(WITHIN_S * rate_hz)
    window = speed[max(middle - reach, 0) : middle + reach]
    height = float(window.max())
    rest = float(np.quantile(speed, REST_QUANTILE))
    if not height > rest:
        return float("nan")
    threshold = rest + SHARE * (height - rest)
    fast = np.flatnonzero(window >= threshold)
    first, last = int(fast[0]), int(fast[-1])
    length = (last - first) + _reach(window, first, -1, threshold) + _reach(window, last, 1, threshold)
    return 1000.0 * length / rate_hz


def _reach(window: NDArray[np.float64], place: int, step: int, threshold: float) -> float:
    """How far beyond a fast sample the speed would fall to the threshold, in samples, in [0, 1)."""
    beyond = place + step
    if not 0 <= beyond < len(window):
        return 0.0
    return float((window[place] - threshold) / (window[place] - window[beyond]))
