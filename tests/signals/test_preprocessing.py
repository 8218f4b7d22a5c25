"""Filtering, resampling and length: against scipy, against the filtered longer record, and as invariances."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import butter, iirnotch, resample_poly, sosfiltfilt, tf2sos

from fedecg.config import SignalSettings
from fedecg.signals import Recording, preprocess, preprocessing, read_recording

TEN_SECONDS = SignalSettings(samples=992)  # 9.92 s at 100 Hz: the middle of a 10-s record
AT_500 = SignalSettings(rate_hz=500, samples=4992)
BAND = butter(2, [0.5, 40.0], "bandpass", fs=500, output="sos")


def middle(signal: np.ndarray, samples: int) -> np.ndarray:
    start = (signal.shape[1] - samples) // 2
    return signal[:, start : start + samples]


def long_padded(signal_mv: np.ndarray, sos: np.ndarray = BAND) -> np.ndarray:
    """The slow reference: 8 s of even reflection on both sides, then scipy's forward and backward filter."""
    padded = np.pad(signal_mv.astype(np.float64), ((0, 0), (4000, 4000)), mode="reflect")
    return sosfiltfilt(sos, padded, axis=1, padlen=0)[:, 4000:-4000]


def sine(
    frequency_hz: float, rate_hz: float = 500.0, seconds: float = 10.0, amplitude_mv: float = 1.0
) -> Recording:
    time_s = np.arange(round(rate_hz * seconds)) / rate_hz
    wave = amplitude_mv * np.sin(2 * np.pi * frequency_hz * time_s + 0.7)
    return Recording(np.tile(wave, (12, 1)).astype(np.float32), rate_hz)


def decibel(out: np.ndarray) -> float:
    """Largest value in the middle 8 s, relative to 1 mV."""
    return float(20 * np.log10(np.abs(middle(out, out.shape[1] * 4 // 5)).max()))


def test_the_filter_is_scipys_with_long_padding(ecg):
    recording = ecg(wander_mv=0.5)
    result = preprocess(recording, AT_500, "none")
    expected = middle(long_padded(recording.signal_mv), 4992)
    assert np.abs(result - expected).max() < 0.01


@pytest.mark.parametrize("hum", ["50", "60"])
def test_filter_and_notch_are_scipys_with_long_padding(ecg, hum):
    recording = ecg()
    sos = np.concatenate([BAND, tf2sos(*iirnotch(float(hum), 30, fs=500))])
    result = preprocess(recording, AT_500, hum)
    assert np.abs(result - middle(long_padded(recording.signal_mv, sos), 4992)).max() < 0.01


def test_with_resampling_real_records_stay_within_the_reference(data_root):
    """Reference: filter as above, then `resample_poly`; its own anti-aliasing lets a little through at 50 Hz."""
    for header in sorted((data_root / "ptbxl" / "records500").rglob("*.hea")):
        recording = read_recording(header)
        expected = middle(resample_poly(long_padded(recording.signal_mv), 1, 5, axis=1, padtype="line"), 992)
        error = np.abs(preprocess(recording, TEN_SECONDS, "none") - expected)
        assert middle(error, 800).max() < 0.01
        assert error.max() < 0.1


@pytest.mark.parametrize("from_s", [7.0, 7.13, 7.31, 7.42, 7.55])
def test_a_cut_record_equals_the_cut_of_the_filtered_long_record(ecg, from_s):
    """What padding is for. `sosfiltfilt`'s default padding is several times as far off."""
    long = sosfiltfilt(BAND, ecg(seconds=40, wander_mv=0.1).signal_mv.astype(np.float64), axis=1, padlen=4000)
    start = round(from_s * 500)
    truth = middle(long[:, start : start + 5000], 4992)
    cut = ecg(seconds=10, wander_mv=0.1, from_s=from_s)
    error = np.abs(preprocess(cut, AT_500, "none") - truth)
    default = np.abs(middle(sosfiltfilt(BAND, cut.signal_mv.astype(np.float64), axis=1), 4992) - truth)
    assert middle(error, 4000).max() < 0.01
    assert error.max() < 0.1
    assert error.max() < max(0.02, default.max())


def test_starting_on_an_r_wave_default_padding_fails_and_ours_does_not(ecg):
    time_s = np.arange(20_000) / 500
    peak = 4000 + int(np.argmax(ecg(seconds=40).signal_mv[1, 4000:4430]))
    signal_mv = ecg(seconds=time_s.size / 500, wander_mv=0.0).signal_mv
    truth = middle(
        sosfiltfilt(BAND, signal_mv.astype(np.float64), axis=1, padlen=4000)[:, peak : peak + 5000], 4992
    )
    cut = Recording(signal_mv[:, peak : peak + 5000], 500)
    default = middle(sosfiltfilt(BAND, cut.signal_mv.astype(np.float64), axis=1), 4992)
    assert np.abs(default - truth).max() > 0.5
    assert np.abs(preprocess(cut, AT_500, "none") - truth).max() < 0.1


@pytest.mark.parametrize("hum", [50.0, 60.0])
@pytest.mark.parametrize("settings", [TEN_SECONDS, AT_500])
def test_hum_is_attenuated_by_40_decibels(hum, settings):
    assert decibel(preprocess(sine(hum), settings, "50" if hum == 50 else "60")) < -40
    assert decibel(preprocess(sine(hum + 0.05), settings, "50" if hum == 50 else "60")) < -40


def test_without_a_notch_hum_is_only_weakened_at_500_hz():
    assert -20 < decibel(preprocess(sine(60.0), AT_500, "none")) < -10


@pytest.mark.parametrize("frequency_hz", [55, 60, 70, 90, 130, 190, 240])
def test_nothing_above_half_the_output_rate_comes_back_as_a_lower_frequency(frequency_hz):
    assert decibel(preprocess(sine(frequency_hz), TEN_SECONDS, "none")) < -60


@pytest.mark.parametrize("frequency_hz", [5, 10, 20])
def test_the_scale_stays_millivolts_and_the_phase_stays(frequency_hz):
    result = preprocess(sine(frequency_hz), TEN_SECONDS, "none")
    expected = middle(sine(frequency_hz, rate_hz=100).signal_mv, 992)
    gain = 1 / (1 + ((frequency_hz**2 - 20) / (39.5 * frequency_hz)) ** 4)
    assert np.abs(middle(result, 800) - gain * middle(expected, 800)).max() < 0.01


def test_an_offset_and_slow_wander_are_removed(ecg):
    recording = ecg(wander_mv=0.0)
    time_s = np.arange(5000) / 500
    shifted = Recording(
        recording.signal_mv + 3.0 + 0.5 * np.sin(2 * np.pi * 0.1 * time_s).astype(np.float32), 500
    )
    error = np.abs(preprocess(shifted, TEN_SECONDS, "none") - preprocess(recording, TEN_SECONDS, "none"))
    assert middle(error, 800).max() < 0.02


@pytest.mark.parametrize("rate_hz", [100, 128, 250, 257, 360, 400, 499.97, 1000, 2000])
def test_every_sampling_rate_gives_the_network_the_same_ecg(ecg, rate_hz):
    reference = preprocess(ecg(500), TEN_SECONDS, "none")
    error = np.abs(preprocess(ecg(rate_hz), TEN_SECONDS, "none") - reference)
    assert middle(error, 800).max() < 0.015
    assert error.max() < 0.1


def test_a_slower_recording_is_brought_up_to_the_rate():
    result = preprocess(sine(8, rate_hz=62.5), TEN_SECONDS, "none")
    expected = middle(sine(8, rate_hz=100).signal_mv, 992)
    assert np.abs(middle(result, 800) - middle(expected, 800)).max() < 0.01


@pytest.mark.parametrize("rate_hz", [100, 257, 500])
def test_a_shorter_record_lies_in_the_middle_of_zeros(ecg, rate_hz):
    result = preprocess(ecg(rate_hz, seconds=7), SignalSettings(samples=1024), "none")
    assert result.shape == (12, 1024)
    assert result.dtype == np.float32
    assert not result[:, :162].any()
    assert not result[:, 862:].any()
    assert result[:, 162:862].any(axis=1).all()


def test_a_longer_record_is_cut_to_its_middle(ecg):
    whole = preprocess(ecg(seconds=20), SignalSettings(samples=1984), "none")
    cut = preprocess(ecg(seconds=20), SignalSettings(samples=992), "none")
    np.testing.assert_array_equal(cut, middle(whole, 992))
    assert cut.flags.c_contiguous


@pytest.mark.parametrize("samples", [1, 2, 3, 50, 700])
def test_a_record_shorter_than_the_padding_is_filtered_too(ecg, samples):
    short = Recording(ecg().signal_mv[:, :samples], 500)
    result = preprocess(short, TEN_SECONDS, "50")
    assert np.isfinite(result).all()
    assert np.abs(result).max() < 2


def test_gaps_are_bridged_and_leave_no_trace_far_away(ecg):
    recording = ecg()
    broken = Recording(recording.signal_mv.copy(), 500)
    broken.signal_mv[4, 2500:2520] = np.nan
    broken.signal_mv[7, 0] = np.inf
    broken.signal_mv[9] = np.nan
    result, clean = preprocess(broken, TEN_SECONDS, "none"), preprocess(recording, TEN_SECONDS, "none")
    assert np.isfinite(result).all()
    assert not result[9].any()
    untouched = [0, 1, 2, 3, 5, 6, 8, 10, 11]
    np.testing.assert_allclose(result[untouched], clean[untouched], atol=1e-5)
    assert np.abs(result[4] - clean[4])[:300].max() < 0.02
    assert np.isnan(broken.signal_mv[9]).all()


@given(st.floats(-3, 3), st.permutations(range(12)))
def test_scaling_and_reordering_leads_commute_with_preprocessing(factor, order):
    signal_mv = np.random.default_rng(5).normal(0, 0.3, (12, 600)).astype(np.float32)
    direct = preprocess(Recording(signal_mv, 200), SignalSettings(samples=288), "50")
    changed = Recording((factor * signal_mv[list(order)]).astype(np.float32), 200)
    result = preprocess(changed, SignalSettings(samples=288), "50")
    np.testing.assert_allclose(result, factor * direct[list(order)], atol=1e-5)


def test_two_runs_are_bit_equal(ecg):
    first, second = (preprocess(ecg(257), TEN_SECONDS, "60") for _ in range(2))
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("samples", [1, 2, 3, 1999, 2000, 2001, 2002, 2003, 2500, 5000, 5001])
def test_padding_by_copies_is_that_by_indices(samples: int) -> None:
    """4 s of even reflection; a record shorter than that is reflected several times."""
    plan = preprocessing._plan(samples, 500.0, SignalSettings(), "none")
    signal = np.random.default_rng(samples).normal(size=(12, samples)).astype(np.float32)
    np.testing.assert_array_equal(preprocessing._padded(signal, plan), signal[:, plan.source])


@pytest.mark.parametrize("samples", [5000, 4999, 4990, 5001, 4003])
@pytest.mark.parametrize("rate_hz", [500.0, 400.0])
def test_whatever_its_length_a_record_is_filtered_as_with_long_padding(ecg, samples, rate_hz):
    """Lengths that a fast transform takes as they are, and lengths that are padded first."""
    sos = butter(2, [0.5, 40.0], "bandpass", fs=rate_hz, output="sos")
    signal_mv = ecg(rate_hz, seconds=13, from_s=0.4).signal_mv[:, :samples]
    settings = SignalSettings(rate_hz=round(rate_hz), samples=3968)
    error = np.abs(
        preprocess(Recording(signal_mv, rate_hz), settings, "none")
        - middle(long_padded(signal_mv, sos), 3968)
    )
    assert middle(error, 3000).max() < 0.01
    assert error.max() < 0.1


def test_a_record_is_filtered_the_same_whatever_was_filtered_before_it(ecg):
    first, other = ecg(500), ecg(500, from_s=0.3)
    other.signal_mv[3, 40:60] = np.nan
    alone = preprocess(first, TEN_SECONDS, "none").tobytes()
    for between in (other, ecg(257), ecg(500, seconds=7.01)):
        preprocess(between, TEN_SECONDS, "none")
        assert preprocess(first, TEN_SECONDS, "none").tobytes() == alone
