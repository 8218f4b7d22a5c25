"""Time attention on the median beat: what the strips mean once the beats lie on top of each other.

In:  signals (n, 12, samples) in mV, their rate, their `Attention`.
Out: `BeatAttention` of each ECG; `BeatSums` of a group, which add up over sites.
Called by whoever shows a beat (`fedecg.report`) or compares groups: a mean of strips over ECGs whose beats fall at any
time says nothing, a mean over their beats does.

A step is 32 samples wide (0.32 s at 100 Hz) and beats fall anywhere on the steps, so the mean over beats is attention
smoothed by about a step to either side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import ModelError
from fedecg.explanation.attention import Attention
from fedecg.model.lead_maps import LEADS
from fedecg.signals.median import AFTER_S, BEFORE_S, beat_places, beat_width, median_at, r_peaks

__all__ = [
    "AFTER_S",
    "BEFORE_S",
    "BeatAttention",
    "BeatSums",
    "beat_attention",
    "beat_sums",
    "beat_width",
    "group_beats",
    "r_peaks",
]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class BeatAttention:
    """Median beat of n ECGs and the attention on it; an ECG without a whole beat has NaN.

    Attributes:
        rate_hz: samples a second.
        beats: (n,) int64, beats that lie whole in the recording.
        signal_mv: (n, 12, width) median over the beats, from 0.4 s before to 0.8 s after the R peak.
        time: (n, 12, width) mean over the beats of time attention, as a multiple of even attention.
    """

    rate_hz: float
    beats: Int64
    signal_mv: Float64
    time: Float64


@dataclass(frozen=True, eq=False)
class BeatSums:
    """Beats of a group, additive over sites and groups of one rate.

    Attributes:
        rate_hz: samples a second.
        ecgs: those with a whole beat.
        signal_mv, time: (12, width) sums over them of `BeatAttention.signal_mv` and `.time`.
    """

    rate_hz: float
    ecgs: int
    signal_mv: Float64
    time: Float64

    def __add__(self, other: BeatSums) -> BeatSums:
        if self.rate_hz != other.rate_hz:
            raise ModelError(
                "FECG-355",
                "sums of beats",
                found="beats of two sampling rates",
                expected="one rate",
                fix="Add up sums of one model only.",
            )
        return BeatSums(
            self.rate_hz, self.ecgs + other.ecgs, self.signal_mv + other.signal_mv, self.time + other.time
        )

    def mean(self) -> tuple[Float64, Float64]:
        """Mean beat (12, width) in mV and mean attention on it; NaN for a group of nobody."""
        ecgs = self.ecgs or np.nan
        return self.signal_mv / ecgs, self.time / ecgs


def beat_attention(attention: Attention, signal_mv: Float32, rate_hz: float) -> BeatAttention:
    """Lay the beats of each ECG on top of each other, signals and strips alike.

    Args:
        attention: of these ECGs.
        signal_mv: (n, 12, samples) float32, mV, the network's input.
        rate_hz: of the network's input.
    """
    beats = np.zeros(len(signal_mv), dtype=np.int64)
    signal = np.full((len(signal_mv), LEADS, beat_width(rate_hz)), np.nan)
    time = np.full_like(signal, np.nan)
    for number, (ecg, received) in enumerate(zip(signal_mv, attention.time, strict=True)):
        places = beat_places(ecg, rate_hz)
        beats[number] = len(places)
        if len(places):
            signal[number] = median_at(ecg, places)
            time[number] = received[:, attention.step_of(places)].mean(axis=1) * attention.steps
    return BeatAttention(rate_hz, beats, signal, time)


def beat_sums(beats: BeatAttention, members: Bool | None = None) -> BeatSums:
    """Sums over the ECGs of a group that have a whole beat.

    Args:
        beats: of n ECGs.
        members: (n,) bool; None = all.
    """
    kept = beats.beats > 0
    if members is not None:
        kept &= members
    return BeatSums(
        beats.rate_hz, int(kept.sum()), beats.signal_mv[kept].sum(axis=0), beats.time[kept].sum(axis=0)
    )


def group_beats(beats: BeatAttention, groups: Mapping[str, Bool]) -> dict[str, BeatSums]:
    """Sums of several groups (high and low risk, each finding); an ECG may be in any number of them.

    Args:
        beats: of n ECGs.
        groups: name -> (n,) bool.
    """
    return {name: beat_sums(beats, members) for name, members in groups.items()}
