"""Beats are found, laid on top of each other to the sample, and their median is the beat; real PTB-XL ECGs included."""

import base64
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedecg.config import SignalSettings
from fedecg.signals import LEADS as NAMES
from fedecg.signals import preprocess, read_recording
from fedecg.signals.median import BEFORE_S, MedianBeat, beat_places, beat_width, median_beat, r_peaks

RATE_HZ = 500.0
LEADS = 12
P_QRS_T = ((0.1, -0.16, 0.03), (-0.2, -0.025, 0.01), (1.0, 0.0, 0.012), (-0.3, 0.03, 0.012), (0.3, 0.3, 0.05))
# Two humps of the same height: noise decides from beat to beat which of them is the highest point.
NOTCHED = ((0.1, -0.16, 0.03), (0.7, -0.02, 0.01), (0.7, 0.02, 0.01), (0.25, 0.3, 0.05))
GAINS = np.random.default_rng(0).uniform(0.3, 1.5, (LEADS, 1))


def wave(from_peak_s: np.ndarray, shape: tuple[tuple[float, float, float], ...]) -> np.ndarray:
    """One beat, mV, at times from its R peak."""
    return sum(height * np.exp(-0.5 * ((from_peak_s - at) / width) ** 2) for height, at, width in shape)


def ecg(
    beats_s: np.ndarray, seed: int, noise_mv: float = 0.03, shape=P_QRS_T, rate_hz: float = RATE_HZ
) -> np.ndarray:
    """(12, 10 s) float32 with beats at given times."""
    time_s = np.arange(round(10 * rate_hz)) / rate_hz
    signal = GAINS * wave(time_s - beats_s[:, None], shape).sum(axis=0)
    noise = noise_mv * np.random.default_rng(seed).standard_normal((LEADS, time_s.size))
    return (signal + noise).astype(np.float32)


def regular(interval_s: float = 0.83) -> np.ndarray:
    return np.arange(0.61, 9.0, interval_s).round(3)


def true_beat(shape=P_QRS_T, rate_hz: float = RATE_HZ) -> np.ndarray:
    """(12, width): the beat that `ecg` repeats, with its neighbours out of sight."""
    return GAINS * wave(np.arange(beat_width(rate_hz)) / rate_hz - BEFORE_S, shape)


def halves(signal_mv: np.ndarray, rate_hz: float) -> float:
    """Correlation of the median of every other beat with that of those between them, all leads together."""
    places = beat_places(signal_mv, rate_hz)
    first, second = (np.median(signal_mv[:, places[start::2]], axis=1) for start in (0, 1))
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def test_a_beat_at_500_hz_has_600_samples_and_its_r_peak_after_0_4_s() -> None:
    assert beat_width(RATE_HZ) == 600
    found = median_beat(ecg(regular(), 1), RATE_HZ)
    assert found.signal_mv.shape == (12, 600)
    assert (np.abs(found.signal_mv.argmax(axis=1) - 200) <= 1).all()


@pytest.mark.parametrize("rate_hz", [250.0, 500.0, 1000.0])
def test_the_median_beat_is_the_beat_with_less_noise_than_any_of_them(rate_hz: float) -> None:
    beats_s = np.arange(0.612, 8.6, 1.252)  # slow: no neighbour within 0.8 s after the peak
    found = median_beat(ecg(beats_s, 2, rate_hz=rate_hz), rate_hz)
    assert found.beats == len(beats_s) == 7
    error_mv = found.signal_mv - true_beat(rate_hz=rate_hz)
    # The median of 7 has 0.46 of the noise of one (1.2533 / sqrt(7), a little less for few).
    assert 0.35 * 0.03 < error_mv.std() < 0.6 * 0.03


def test_beats_with_a_notched_r_wave_are_aligned_by_their_qrs_not_by_their_highest_point() -> None:
    beats_s = regular(0.97)
    signal = ecg(beats_s, 3, noise_mv=0.06, shape=NOTCHED)
    peaks = r_peaks(signal, RATE_HZ)
    assert len(peaks) == len(beats_s)
    starts = beat_places(signal, RATE_HZ)[:, 0]
    assert (
        np.ptp(peaks - beats_s * RATE_HZ) >= 15
    )  # the highest point jumps between the humps, 20 samples apart
    nearest = np.abs(starts[:, None] + 200 - beats_s * RATE_HZ).argmin(axis=1)
    off = starts + 200 - np.round(beats_s[nearest] * RATE_HZ)
    assert np.ptp(off) <= 2


def test_extrasystoles_in_the_minority_do_not_change_the_beat() -> None:
    beats_s = regular()
    signal = ecg(beats_s, 4)
    wide = ((-1.2, 0.0, 0.045), (0.5, 0.25, 0.06))
    odd = beats_s[[2, 6, 9]]
    time_s = np.arange(signal.shape[1]) / RATE_HZ
    for at in odd:
        signal += (GAINS * (wave(time_s - at, wide) - wave(time_s - at, P_QRS_T))).astype(np.float32)
    plain, mixed = median_beat(ecg(beats_s, 4), RATE_HZ), median_beat(signal, RATE_HZ)
    assert mixed.beats >= len(beats_s) - 2
    assert np.corrcoef(plain.signal_mv.ravel(), mixed.signal_mv.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("signal", [np.zeros((12, 5000)), np.zeros((12, 40)), np.full((12, 700), 0.3)])
def test_a_signal_without_a_beat_has_none(signal: np.ndarray) -> None:
    found = median_beat(signal.astype(np.float32), RATE_HZ)
    assert isinstance(found, MedianBeat)
    assert found.beats == 0
    assert found.signal_mv.shape == (12, 600)
    assert np.isnan(found.signal_mv).all()


def test_a_beat_that_does_not_lie_whole_in_the_recording_does_not_count() -> None:
    signal = ecg(np.array([0.2, 1.5, 9.6]), 5)
    places = beat_places(signal, RATE_HZ)
    assert len(r_peaks(signal, RATE_HZ)) == 3
    assert len(places) == 1
    assert abs(places[0, 200] - 750) <= 1
    np.testing.assert_array_equal(median_beat(signal, RATE_HZ).signal_mv, signal[:, places[0]])


@settings(max_examples=15, deadline=None)
@given(gain=st.floats(0.2, 5), later=st.integers(0, 60), order=st.permutations(range(12)))
def test_gain_time_and_order_of_leads_change_the_beat_as_they_must(
    gain: float, later: int, order: list[int]
) -> None:
    signal = ecg(regular(), 6)
    expected = median_beat(signal, RATE_HZ)
    # Zeros before and after that no beat reaches: whole beats stay whole.
    padded = np.pad(signal, ((0, 0), (later, 60 - later)), mode="edge")
    found = median_beat((np.float32(gain) * padded)[order], RATE_HZ)
    assert found.beats == expected.beats
    np.testing.assert_allclose(found.signal_mv, gain * expected.signal_mv[order], rtol=1e-4, atol=1e-4)


def prepared(data: Path, rate_hz: int) -> list[np.ndarray]:
    records = sorted((data / "ptbxl" / "records500").rglob("*_hr.hea"))
    assert len(records) == 40
    as_input = SignalSettings(rate_hz=rate_hz, samples=10 * rate_hz // 32 * 32)
    return [preprocess(read_recording(record.with_suffix("")), as_input, "none") for record in records]


def test_both_halves_of_the_beats_of_real_ecgs_have_the_same_median(data_root: Path) -> None:
    signals = prepared(data_root, 500)
    beats = [len(beat_places(signal, RATE_HZ)) for signal in signals]
    assert min(beats) >= 5
    assert max(beats) <= 20
    found = [halves(signal, RATE_HZ) for signal in signals]
    assert np.median(found) > 0.985
    assert min(found) > 0.9  # atrial fibrillation and noise among them; without alignment 0.86


def test_median_beats_of_real_ecgs_at_100_and_500_hz_are_the_same(data_root: Path) -> None:
    fine, coarse = prepared(data_root, 500), prepared(data_root, 100)
    # The middle 99.8 % of 10 s is the same in both, so a beat more or less at an end is all that may differ.
    likeness = []
    for one, other in zip(fine, coarse, strict=True):
        found = [median_beat(one, 500.0), median_beat(other, 100.0)]
        assert abs(found[0].beats - found[1].beats) <= 2
        likeness.append(np.corrcoef(found[0].signal_mv[:, ::5].ravel(), found[1].signal_mv.ravel())[0, 1])
    assert np.median(likeness) > 0.98


def test_the_beat_that_a_vendor_stores_is_found_again_in_a_recording_made_of_it(data_root: Path) -> None:
    # Its own recording is not of that heart (every lead has the same peak), so the beat is repeated with noise.
    text = (data_root / "vendor" / "philips_sierra" / "repbeats_example.xml").read_text(encoding="utf-8")
    stored = dict(re.findall(r'<repbeat [^>]*leadname="(\w+)"[^>]*>(.*?)<', text, flags=re.S))
    beat_mv = np.stack([np.frombuffer(base64.b64decode(stored[name]), "<i2") for name in NAMES]) / 1000
    rng = np.random.default_rng(7)
    starts = (300 + np.arange(8) * 1200 + rng.integers(-40, 40, 8)).clip(0)
    signal = 0.03 * rng.standard_normal((LEADS, 11000))
    for start in starts:
        signal[:, start : start + 1200] += beat_mv
    found = median_beat(signal.astype(np.float32), 1000.0)
    assert found.beats == 8
    peak = int(np.square(beat_mv - np.median(beat_mv, axis=1, keepdims=True)).sum(axis=0).argmax())
    expected = beat_mv[:, peak - 400 : peak + 600]
    likeness = [
        max(
            np.corrcoef(found.signal_mv[lead, 20 + off : 980 + off], expected[lead, 20:980])[0, 1]
            for off in range(-5, 6)
        )
        for lead in range(LEADS)
    ]
    assert min(likeness) > 0.97
