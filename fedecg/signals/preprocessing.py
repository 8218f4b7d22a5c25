"""From a recording to the network's input: gaps filled, band-passed without phase, resampled, cut to length, in mV.

With `input = "median"` the median of the beats takes the place of the recording's middle (`median`); a beat that a
cardiograph stored (`Recording.kind`) is moved to where that one has its R peak.

In:  `Recording`, `SignalSettings`, the site's powerline frequency.
Out: (12, samples) float32 mV. Called by `store`; whoever predicts calls it with the settings in the model file.

Band-pass, powerline notch and resampling are one product in the frequency domain. The filter is the zero-phase
(forward and backward) Butterworth band-pass of order 2 in its analogue form, so that sites that record at 100 and
at 1000 Hz give the network the same ECG; at 500 Hz it is what `scipy.signal.sosfiltfilt` gives, within 0.01 mV.
A filter without phase keeps what is even, so a cosine transform of the recording alone does what a Fourier transform
of the recording and its reflections would, at half the length.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from fedecg.config import SignalSettings
from fedecg.errors import SignalError
from fedecg.signals.median import median_beat, stored_beat
from fedecg.signals.recording import Kind, Recording

__all__ = ["Powerline", "preprocess"]

Powerline = Literal["50", "60", "none"]

# Even reflection. Over 312 overlapping ten-second windows cut from the 6 records of CinC 2020 (README of the test
# data) that last longer, the first second was 0.02 mV (RMS) from the filtered whole record, against 0.12 mV for odd
# reflection, which turns the value of the edge sample into a step that the high-pass answers for seconds. A cosine
# transform has the edge sample twice in its reflection, `numpy.pad(mode="reflect")` once: over 102 such windows that
# makes no difference to the truth (0.0209 mV both), and on PTB-XL at most 0.005 mV at 500 Hz, 0.05 mV at 100 Hz. Where
# the edge sample itself is a fault, as many of CODE-15 %'s last ones are, it counts twice in the last 0.1 s.
#
# The recording alone is reflected as a whole for ever. Where its length does not suit a fast transform it is reflected
# for 4 s first, nine time constants at 0.5 Hz: a shorter piece would come back and forth near the edge (0.1 s of it:
# 0.5 mV off where a QRS complex is cut).
PADDING_S = 4.0
BUTTERWORTH_ORDER = 2
# Width of the notch is frequency / quality: 1.7 Hz at 50 Hz; mains drifts by less than 0.1 Hz.
NOTCH_QUALITY = 30.0
# Anti-aliasing: nothing at half the output rate and above, and a cosine slope below it against ringing.
ANTIALIAS_START = 0.95
# Output rate / input rate is taken as a fraction with a denominator up to this: exact for every rate with two
# decimals (499.97 Hz), and for any other right to 0.1 ms in 10 s.
RATIO_MAX = 100_000


def preprocess(recording: Recording, settings: SignalSettings, powerline: Powerline) -> NDArray[np.float32]:
    """Filter, resample, take the median beat if that is the input, and cut or pad (centred, zeros); in mV.

    Args:
        recording: any rate and length; non-finite gaps are bridged by straight lines, empty leads become zeros.
        settings: band, rate and length of the result.
        powerline: frequency of the notch; the site's own, so it need not be that of the settings.

    Returns:
        (12, settings.samples) float32, mV. Samples lie at the recording's first instant + k / settings.rate_hz; of a
        median beat the R peak lies 0.4 s after the zeros of the padding.

    Raises:
        SignalError: FECG-299, `input = "median"` and no whole beat in the recording.

    Source: Kligfield et al. 2007 (AHA/ACC/HRS, part I): up to 0.67 Hz is sound where the filter has no phase.
    """
    signal = _filtered(recording, settings, powerline)
    if settings.input == "median":
        signal = _one_beat(signal, recording.kind, settings)
    return _centred(signal, settings.samples)


def _filtered(recording: Recording, settings: SignalSettings, powerline: Powerline) -> NDArray[np.float32]:
    """(12, any) the whole recording, filtered, at the output rate."""
    stored = recording.signal_mv
    if recording.kind == "median":  # some files pad a short beat with nothing
        known = np.flatnonzero(np.isfinite(stored).any(axis=0))
        stored = stored[:, known.min(initial=stored.shape[1] - 1) : known.max(initial=0) + 1]
    plan = _plan(stored.shape[1], recording.rate_hz, settings, powerline)
    waves = _cosine_waves(stored, plan)
    # A sample that is not finite reaches every wave, the mean (the first) as well: no look at each sample is needed.
    if not np.isfinite(waves[:, 0]).all():
        waves = _cosine_waves(_without_gaps(stored), plan)
    whole: NDArray[np.float32] = scipy.fft.irfft(waves * plan.response, n=plan.period_out, axis=1)
    return whole[:, : plan.length]


def _cosine_waves(signal_mv: NDArray[np.float32], plan: _Plan) -> NDArray[np.float32]:
    """(12, waves) amplitudes of the half waves that make up the signal, as far as the filter lets them through."""
    waves: NDArray[np.float32] = scipy.fft.dct(_padded(signal_mv, plan), type=2, axis=1)
    return waves[:, : plan.response.size]


def _one_beat(signal_mv: NDArray[np.float32], kind: Kind, settings: SignalSettings) -> NDArray[np.float32]:
    """(12, width) the median beat of a strip, or a stored one, the R peak at the same place in both."""
    make = stored_beat if kind == "median" else median_beat
    beat = make(signal_mv, float(settings.rate_hz))
    if not beat.beats:
        raise SignalError(
            "FECG-299",
            "recording",
            found="no whole beat",
            expected='at least one, 0.4 s before to 0.8 s after its R peak (signals.input = "median")',
            fix="Leave it out, or record it again.",
        )
    return beat.signal_mv.astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Plan:
    """What depends on length and rate only, so that it is worked out once for a whole data set."""

    source: NDArray[np.intp]  # (padded in,) which sample of the recording stands at each padded place
    before: int  # samples of padding before the recording
    response: NDArray[
        np.complex64
    ]  # (waves,) gain of filter, notch, anti-aliasing and change of length; phase
    period_out: int  # samples of the padded result and of its reflection
    length: int  # samples of the recording at the output rate


@lru_cache(maxsize=64)
def _plan(samples: int, rate_hz: float, settings: SignalSettings, powerline: Powerline) -> _Plan:
    ratio = (Fraction(settings.rate_hz) / Fraction(rate_hz)).limit_denominator(RATIO_MAX)
    up, down = ratio.numerator, ratio.denominator
    # A whole number of blocks of `down` input = `up` output samples.
    blocks, rest = divmod(samples, down)
    if rest or scipy.fft.next_fast_len(blocks) != blocks:
        padding_blocks = -int(-PADDING_S * rate_hz // down)
        blocks = scipy.fft.next_fast_len(2 * padding_blocks + blocks + (rest > 0), real=True)
    padded_in, padded_out = blocks * down, blocks * up
    before = (padded_in - samples) // 2
    wave = np.arange(min(padded_in, padded_out + 1), dtype=np.float64)
    frequency_hz = wave * (rate_hz / (2 * padded_in))
    response = _band_pass(frequency_hz, settings.highpass_hz, settings.lowpass_hz)
    response *= _antialias(frequency_hz, settings.rate_hz / 2)
    if powerline != "none":
        response *= _notch(frequency_hz, float(powerline))
    # Waves are even about half a sample before the padded signal, results begin at the recording's first sample.
    phase = np.exp(1j * np.pi * wave * ((before + 0.5) / padded_in))
    return _Plan(
        source=_reflected(samples, before, padded_in),
        before=before,
        response=(response * phase * (padded_out / padded_in)).astype(np.complex64),
        period_out=2 * padded_out,
        length=-(-samples * up // down),
    )


def _band_pass(frequency_hz: NDArray[np.float64], low_hz: float, high_hz: float) -> NDArray[np.float64]:
    """|H|^2 of the analogue Butterworth band-pass: its gain forward and backward. 0.5 at both edges."""
    squared = frequency_hz**2 - low_hz * high_hz
    with np.errstate(divide="ignore"):  # 0 Hz: the gain is 0
        detuning = squared / ((high_hz - low_hz) * frequency_hz)
    gain: NDArray[np.float64] = 1.0 / (1.0 + detuning ** (2 * BUTTERWORTH_ORDER))
    return gain


def _notch(frequency_hz: NDArray[np.float64], hum_hz: float) -> NDArray[np.float64]:
    """|H|^2 of the second-order notch, forward and backward."""
    squared = (frequency_hz**2 - hum_hz**2) ** 2
    return squared / (squared + (frequency_hz * hum_hz / NOTCH_QUALITY) ** 2)


def _antialias(frequency_hz: NDArray[np.float64], nyquist_hz: float) -> NDArray[np.float64]:
    """1 up to 0.95 of half the output rate, 0 from half the output rate on, half a cosine between."""
    slope = np.clip((frequency_hz / nyquist_hz - ANTIALIAS_START) / (1 - ANTIALIAS_START), 0.0, 1.0)
    return 0.5 * (1.0 + np.cos(np.pi * slope))


def _reflected(samples: int, before: int, total: int) -> NDArray[np.intp]:
    """(total,) even reflection of 0..samples-1, as often as it takes (a record may be shorter than the pad)."""
    place = np.arange(-before, total - before) % (2 * samples)
    source: NDArray[np.intp] = np.minimum(place, 2 * samples - 1 - place)
    return source


def _padded(signal_mv: NDArray[np.float32], plan: _Plan) -> NDArray[np.float32]:
    """`signal_mv[:, plan.source]`; with one reflection at either end as three copies, five times as fast."""
    samples, total, before = signal_mv.shape[1], plan.source.size, plan.before
    after = total - before - samples
    if not after:
        return signal_mv
    if after > samples:
        return signal_mv[:, plan.source]
    padded = np.empty((len(signal_mv), total), dtype=np.float32)
    padded[:, :before] = signal_mv[:, :before][:, ::-1]
    padded[:, before : before + samples] = signal_mv
    padded[:, before + samples :] = signal_mv[:, samples - after :][:, ::-1]
    return padded


def _without_gaps(signal_mv: NDArray[np.float32]) -> NDArray[np.float32]:
    """(12, samples) with non-finite samples on straight lines between their neighbours; empty leads are 0."""
    finite = np.isfinite(signal_mv)
    if finite.all():
        return signal_mv
    filled = np.where(finite, signal_mv, np.float32(0))
    time = np.arange(signal_mv.shape[1])
    for lead in np.flatnonzero(~finite.all(axis=1) & finite.any(axis=1)):
        known = finite[lead]
        filled[lead] = np.interp(time, time[known], signal_mv[lead, known])
    return filled


def _centred(signal_mv: NDArray[np.float32], samples: int) -> NDArray[np.float32]:
    """(12, any) -> (12, samples): the middle of a longer signal, or zeros on both sides of a shorter one."""
    length = signal_mv.shape[1]
    if length >= samples:
        start = (length - samples) // 2
        return np.ascontiguousarray(signal_mv[:, start : start + samples])
    padded = np.zeros((len(signal_mv), samples), dtype=np.float32)
    start = (samples - length) // 2
    padded[:, start : start + length] = signal_mv
    return padded
