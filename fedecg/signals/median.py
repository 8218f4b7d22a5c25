"""The median beat of a recording: its beats found, laid on top of each other, and their median at every sample.

In:  signals (12, samples) in mV, band-passed, their rate.
Out: R peaks, the places of whole beats, the median beat (12, width) from 0.4 s before to 0.8 s after the R peak.
Called by `preprocessing` (`input = "median"`) and by `fedecg.explanation.beat`.
At 500 Hz a beat is 600 samples, what the authors' T = 608 holds with zeros around.

On the 40 PTB-XL records of 500 Hz of the test data, the median of every other beat and of those between them correlate
by 0.991 (median; smallest 0.92), without the alignment by 0.990 (0.86); at 100 Hz by 0.982 (0.90) and 0.978 (0.75).

Made to lay beats on top of each other, not to diagnose a rhythm: a beat that differs (an extrasystole) is one among
the others, and the median passes over it while it is in the minority.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fedecg.config import AFTER_R_S, BEFORE_R_S

__all__ = [
    "AFTER_S",
    "BEFORE_S",
    "MedianBeat",
    "beat_places",
    "beat_width",
    "median_at",
    "median_beat",
    "r_peaks",
    "stored_beat",
]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

BEFORE_S, AFTER_S = BEFORE_R_S, AFTER_R_S  # of the R peak: 1.2 s, P to T at ordinary rates
NOISE_S = 0.02  # averaged away: the difference of noisy samples is mostly noise
SMOOTHING_S = 0.1  # about one QRS
REFRACTORY_S = 0.3  # 200 beats a minute
RELATIVE_HEIGHT = 0.3  # of the steepest beats' slope; a T wave has less, a small extrasystole more
QRS_S = 0.08  # to either side of the R peak: what beats are aligned by
PASSES = 2  # by one beat, then by the median of all
SHIFT_S = 0.05  # furthest that a beat is moved: from one hump of a notched QRS to the other


@dataclass(frozen=True, eq=False)
class MedianBeat:
    """Median of a recording's whole beats.

    Attributes:
        rate_hz: samples a second.
        beats: whole beats in it; 0 = there is none and the signal is NaN.
        signal_mv: (12, width) float64, the R peak at `round(0.4 * rate_hz)`.
    """

    rate_hz: float
    beats: int
    signal_mv: Float64


def median_beat(signal_mv: Float32, rate_hz: float) -> MedianBeat:
    """Median over the whole beats of one recording.

    Args:
        signal_mv: (12, samples) mV, band-passed.
        rate_hz: samples a second.
    """
    places = beat_places(signal_mv, rate_hz)
    if not len(places):
        return MedianBeat(rate_hz, 0, np.full((len(signal_mv), places.shape[1]), np.nan))
    return MedianBeat(rate_hz, len(places), median_at(signal_mv, places))


def stored_beat(signal_mv: Float32, rate_hz: float) -> MedianBeat:
    """A beat that a cardiograph made, with its R peak where `median_beat` has it; zeros where it does not reach.

    Args:
        signal_mv: (12, samples) mV, band-passed, one beat.
        rate_hz: samples a second.
    """
    width, before = beat_width(rate_hz), round(BEFORE_S * rate_hz)
    placed = np.zeros((len(signal_mv), width))
    peaks = r_peaks(signal_mv, rate_hz)
    if not len(peaks):
        return MedianBeat(rate_hz, 0, np.full_like(placed, np.nan))
    peak = int(peaks[np.square(signal_mv[:, peaks]).sum(axis=0).argmax()])
    first, last = max(peak - before, 0), min(peak - before + width, signal_mv.shape[1])
    placed[:, first - peak + before : last - peak + before] = signal_mv[:, first:last]
    return MedianBeat(rate_hz, 1, placed)


def median_at(signal_mv: Float32, places: Int64) -> Float64:
    """Median (12, width) over beats at `places` (beats, width), at least one."""
    return np.asarray(np.median(signal_mv[:, places], axis=1), dtype=np.float64)


def beat_places(signal_mv: Float32, rate_hz: float) -> Int64:
    """Samples of every beat that lies whole in the recording, (beats, width), laid on top of each other.

    Args:
        signal_mv: (12, samples) mV, band-passed.
        rate_hz: samples a second.
    """
    samples, reach = signal_mv.shape[1], round(QRS_S * rate_hz) + round(SHIFT_S * rate_hz)
    peaks = r_peaks(signal_mv, rate_hz)
    inside = peaks[(peaks >= reach) & (peaks < samples - reach)]
    places: Int64 = _aligned(signal_mv, inside, rate_hz)[:, None] + np.arange(beat_width(rate_hz))
    places -= round(BEFORE_S * rate_hz)
    whole: Int64 = places[(places[:, 0] >= 0) & (places[:, -1] < samples)]
    return whole


def beat_width(rate_hz: float) -> int:
    """Samples of a beat: from 0.4 s before to 0.8 s after the R peak."""
    return round(BEFORE_S * rate_hz) + round(AFTER_S * rate_hz)


def r_peaks(signal_mv: Float32, rate_hz: float) -> Int64:
    """Samples of the R peaks: where the slope of all leads together is steep, the highest point of the vector nearby.

    Args:
        signal_mv: (12, samples) mV, band-passed.
        rate_hz: samples a second.

    Source: slope, squared and smoothed, as Pan & Tompkins 1985 have it.
    """
    from scipy.ndimage import uniform_filter1d
    from scipy.signal import find_peaks  # it brings scipy.stats, 45 MB, which a coordinator does without

    smooth = uniform_filter1d(signal_mv.astype(np.float64), max(round(NOISE_S * rate_hz), 1), axis=1)
    slope = np.square(np.gradient(smooth, axis=1)).sum(axis=0)
    # Running sums of a filter leave rounding below zero where nothing moves.
    energy = np.sqrt(np.maximum(uniform_filter1d(slope, max(round(SMOOTHING_S * rate_hz), 1)), 0.0))
    distance = max(round(REFRACTORY_S * rate_hz), 1)
    candidates, _ = find_peaks(energy, distance=distance)
    if not candidates.size or not energy.any():
        return np.zeros(0, dtype=np.int64)
    steepest = np.quantile(energy[candidates], 0.9)
    beats = candidates[energy[candidates] >= RELATIVE_HEIGHT * steepest]
    length = np.square(signal_mv - np.median(signal_mv, axis=1, keepdims=True)).sum(axis=0)
    reach = max(round(SMOOTHING_S * rate_hz / 2), 1)
    nearby = np.clip(beats[:, None] + np.arange(-reach, reach + 1), 0, signal_mv.shape[1] - 1)
    return np.unique(nearby[np.arange(len(beats)), length[nearby].argmax(axis=1)]).astype(np.int64)


def _aligned(signal_mv: Float32, peaks: Int64, rate_hz: float) -> Int64:
    """Peaks moved to where each beat's QRS, in all leads, resembles the median QRS most; (beats,) -> (beats,)."""
    qrs, shift = round(QRS_S * rate_hz), round(SHIFT_S * rate_hz)
    if len(peaks) < 3:  # a median of two is neither's
        return peaks
    wide = signal_mv[:, peaks[:, None] + np.arange(-qrs - shift, qrs + shift + 1)]
    windows = sliding_window_view(wide, 2 * qrs + 1, axis=2)  # (12, beats, shifts, QRS)
    windows = windows - windows.mean(axis=3, keepdims=True)
    length = np.sqrt(np.square(windows).sum(axis=(0, 3)))
    windows = windows / np.where(length > 0, length, 1.0)[:, :, None]
    beats, chosen = np.arange(len(peaks)), np.full(len(peaks), shift)
    median = np.median(windows[:, :, shift], axis=1)
    # A beat, not the median, to begin with: that of a notched QRS is smeared, and beats resemble it anywhere.
    template = windows[:, np.einsum("lbq,lq->b", windows[:, :, shift], median).argmax(), shift]
    for _ in range(PASSES):
        chosen = np.einsum("lbsq,lq->bs", windows, template).argmax(axis=1)
        template = np.median(windows[:, beats, chosen], axis=1)
    aligned: Int64 = peaks + chosen - shift
    return aligned
