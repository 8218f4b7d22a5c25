"""R peaks, the median beat, and the attention on it."""

from typing import Any

import numpy as np
import pytest

from fedecg.errors import ModelError
from fedecg.explanation import Attention, BeatSums, attend, beat_attention, beat_sums, group_beats, r_peaks
from fedecg.model import Network

RATE_HZ = 100.0


def ecg(rate_hz: float, seconds: float, beats_s: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(12, samples): P, QRS and T at given times, other heights in each lead, some noise."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    from_beat_s = time_s - beats_s[:, None]
    waves = ((0.1, -0.16, 0.03), (1.0, 0.0, 0.015), (0.3, 0.3, 0.05))
    beat = sum(
        height * np.exp(-0.5 * ((from_beat_s - at) / width) ** 2).sum(axis=0) for height, at, width in waves
    )
    return (rng.uniform(0.3, 1.5, (12, 1)) * beat + 0.02 * rng.standard_normal((12, time_s.size))).astype(
        "f4"
    )


@pytest.mark.parametrize("rate_hz", [100.0, 500.0])
@pytest.mark.parametrize("beats_a_minute", [40, 75, 150])
def test_r_peaks_are_found_within_20_ms(rate_hz: float, beats_a_minute: int) -> None:
    rng = np.random.default_rng(beats_a_minute)
    interval_s = 60 / beats_a_minute
    beats_s = np.arange(0.5, 9.5, interval_s) + rng.uniform(-0.03, 0.03, len(np.arange(0.5, 9.5, interval_s)))
    found_s = r_peaks(ecg(rate_hz, 10.0, beats_s, rng), rate_hz) / rate_hz
    assert len(found_s) == len(beats_s)
    assert np.abs(found_s - beats_s).max() <= 0.02


def test_a_flat_ecg_has_no_beat() -> None:
    flat = np.zeros((2, 12, 256), dtype=np.float32)
    assert r_peaks(flat[0], RATE_HZ).size == 0
    even = Attention(np.full((2, 12, 8), 1 / 8), np.full((2, 12, 12), 1 / 12))
    found = beat_attention(even, flat, RATE_HZ)
    assert (found.beats == 0).all()
    assert np.isnan(found.time).all()
    assert beat_sums(found).ecgs == 0


def test_attention_that_follows_the_t_wave_is_highest_there_on_the_median_beat() -> None:
    rng = np.random.default_rng(2)
    beats_s = np.arange(0.6, 9.6, 0.87)
    signal = ecg(RATE_HZ, 10.24, beats_s, rng)[None]
    steps = np.zeros(32)
    steps[np.floor((beats_s + 0.3) / 0.32).astype(int)] = 1.0  # the step in which each T wave peaks
    time = np.full((1, 12, 32), 1.0)
    time[0, 4] += 5 * steps
    time /= time.sum(axis=2, keepdims=True)
    found = beat_attention(Attention(time, np.full((1, 12, 12), 1 / 12)), signal, RATE_HZ)
    assert found.beats[0] == 11
    assert found.time.shape == found.signal_mv.shape == (1, 12, 120)
    peak_s = found.time[0, 4].argmax() / RATE_HZ - 0.4
    assert abs(peak_s - 0.3) <= 0.05
    np.testing.assert_allclose(found.time[0, 5], 1.0)  # even attention is 1 all along
    assert found.signal_mv[0, 5].argmax() == 40  # the R peak, 0.4 s after the start


def test_groups_of_two_sites_add_up_to_those_of_all(network: Network, ecgs: Any) -> None:
    found = beat_attention(attend(network, ecgs.signal_mv), ecgs.signal_mv, RATE_HZ)
    parts = [
        beat_attention(attend(network, ecgs.signal_mv[part]), ecgs.signal_mv[part], RATE_HZ)
        for part in (slice(15), slice(15, 40))
    ]
    both = beat_sums(parts[0], ecgs.carrier[:15]) + beat_sums(parts[1], ecgs.carrier[15:])
    whole = group_beats(found, {"spike": ecgs.carrier})["spike"]
    assert both.ecgs == whole.ecgs > 0
    for one, other in zip(both.mean(), whole.mean(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_beats_of_two_rates_do_not_add_up() -> None:
    one, other = (BeatSums(rate, 1, np.zeros((12, 2)), np.zeros((12, 2))) for rate in (100.0, 500.0))
    with pytest.raises(ModelError, match=r"FECG-355 sums of beats: found beats of two sampling rates"):
        one + other
