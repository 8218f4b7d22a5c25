"""The bounds that the filter is held to, on real ECGs: PTB-XL at 500 Hz."""

from pathlib import Path

import numpy as np
import pytest
from scipy.signal import butter, resample_poly, sosfiltfilt

from fedecg.config import SignalSettings
from fedecg.signals import Recording, preprocess, read_recording

AT_500 = SignalSettings(rate_hz=500, samples=4992)
AT_100 = SignalSettings(samples=992)
BAND = butter(2, [0.5, 40.0], "bandpass", fs=500, output="sos")
PAD = 4000  # 8 s, twice what preprocessing pads


def middle(signal: np.ndarray, samples: int) -> np.ndarray:
    start = (signal.shape[1] - samples) // 2
    return signal[:, start : start + samples]


def zero_phase(signal_mv: np.ndarray) -> np.ndarray:
    padded = np.pad(signal_mv.astype(np.float64), ((0, 0), (PAD, PAD)), mode="reflect")
    return sosfiltfilt(BAND, padded, axis=1, padlen=0)[:, PAD:-PAD]


@pytest.fixture
def recordings(data_root: Path) -> list[Recording]:
    found = [read_recording(header) for header in sorted((data_root / "ptbxl" / "records500").rglob("*.hea"))]
    assert len(found) == 40
    return found


def test_at_500_hz_it_is_the_zero_phase_filter_with_long_padding(recordings):
    for recording in recordings:
        error = np.abs(preprocess(recording, AT_500, "none") - middle(zero_phase(recording.signal_mv), 4992))
        assert middle(error, 4000).max() < 0.01
        assert error.max() < 0.1


def test_decimated_to_100_hz_it_is_that_filter_and_scipys_resampling(recordings):
    for recording in recordings:
        reference = resample_poly(zero_phase(recording.signal_mv), 1, 5, axis=1, padtype="line")
        error = np.abs(preprocess(recording, AT_100, "none") - middle(reference, 992))
        assert middle(error, 800).max() < 0.01
        assert error.max() < 0.1


@pytest.mark.parametrize("powerline", ["none", "60"])
@pytest.mark.parametrize("hum_hz", [60.0, 59.95])
def test_hum_of_60_hz_on_a_real_ecg_is_40_decibels_down_after_decimation(recordings, powerline, hum_hz):
    time_s = np.arange(5000) / 500
    hum_mv = (0.5 * np.sin(2 * np.pi * hum_hz * time_s + 0.3)).astype(np.float32)
    for recording in recordings[::4]:
        loud = Recording(recording.signal_mv + hum_mv, 500)
        left_mv = preprocess(loud, AT_100, powerline) - preprocess(recording, AT_100, powerline)
        assert np.abs(middle(left_mv, 800)).max() < 0.5 / 100
