"""`input = "median"`: one beat in place of the recording's middle; stored beats of vendors are the same beats."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedecg.config import SignalSettings, load_study, median_samples
from fedecg.errors import SettingsError, SignalError
from fedecg.signals import Recording, build_store, preprocess, store_key
from fedecg.signals.median import beat_width, median_beat, r_peaks
from fedecg.signals.reading import read_median, read_recording

Ecg = Callable[..., Recording]
MEDIAN = SignalSettings(input="median", rate_hz=500, samples=608)
R_PEAK = 4 + 200  # zeros of the padding, then 0.4 s


@pytest.mark.parametrize("rate_hz", [50, 100, 240, 250, 360, 500, 1000])
def test_the_length_is_that_of_a_beat_padded_to_whole_steps(rate_hz: int) -> None:
    width, samples = beat_width(float(rate_hz)), median_samples(rate_hz)
    assert samples % 32 == 0
    assert width <= samples < width + 32


def test_another_length_is_refused_with_the_right_one(tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text('[signals]\ninput = "median"\nrate-hz = 500\n')
    with pytest.raises(SettingsError, match=r'expected samples = 608 with input = "median" at 500 Hz'):
        load_study(study)
    assert load_study(study, ["signals.samples=608"]).signals == MEDIAN


def test_the_input_is_the_median_of_the_filtered_recordings_beats(ecg: Ecg) -> None:
    whole = preprocess(ecg(), MEDIAN.model_copy(update={"input": "rhythm", "samples": 5024}), "none")
    expected = median_beat(whole[:, 12:5012], 500.0)  # 5024 samples: 12 zeros at either end
    found = preprocess(ecg(), MEDIAN, "none")
    assert found.shape == (12, 608)
    assert expected.beats >= 9
    np.testing.assert_allclose(found[:, 4:604], expected.signal_mv, atol=1e-5)
    assert not found[:, :4].any()
    assert not found[:, 604:].any()
    assert np.square(found).sum(axis=0).argmax() == R_PEAK


@pytest.mark.parametrize("rate_hz", [250.0, 400.0, 1000.0])
def test_recordings_of_any_rate_and_length_give_the_same_beat(ecg: Ecg, rate_hz: float) -> None:
    reference = preprocess(ecg(), MEDIAN, "none")
    found = preprocess(ecg(rate_hz=rate_hz, seconds=6.0, from_s=1.7), MEDIAN, "none")
    assert np.corrcoef(reference.ravel(), found.ravel())[0, 1] > 0.995


def test_a_recording_without_a_beat_is_refused(ecg: Ecg) -> None:
    still = Recording(np.zeros((12, 5000), dtype=np.float32), 500.0)
    with pytest.raises(
        SignalError, match=r"FECG-299 recording: found no whole beat; expected at least one, 0.4 s"
    ):
        preprocess(still, MEDIAN, "none")


def test_a_store_takes_strips_and_stored_beats_and_refuses_what_gives_no_beat(
    ecg: Ecg, tmp_path: Path
) -> None:
    strip = ecg()
    beat = replace(Recording(preprocess(strip, MEDIAN, "none")[:, 4:604], 500.0), kind="median")
    ramp = Recording(
        np.tile(np.linspace(0, 3, 5000, dtype=np.float32), (12, 1)), 500.0
    )  # no slope stands out
    records = [strip, beat, ramp, replace(strip, signal_mv=strip.signal_mv[:, :600])]
    store = build_store(tmp_path, store_key(MEDIAN, "four", "none"), MEDIAN, records, powerline="none")
    assert store.codes == ("", "", "FECG-299", "FECG-213")
    strips, beats = store.batch(np.array([0, 1]))
    assert np.corrcoef(strips.ravel(), beats.ravel())[0, 1] > 0.98
    assert np.square(beats).sum(axis=0).argmax() == R_PEAK


def test_a_stored_beat_is_no_strip(ecg: Ecg, tmp_path: Path) -> None:
    rhythm = SignalSettings()
    records = [replace(ecg(), kind="median"), replace(ecg(seconds=1.2), kind="median")]
    store = build_store(tmp_path, store_key(rhythm, "two", "none"), rhythm, records, powerline="none")
    assert store.codes == ("FECG-299", "FECG-213")


def test_the_place_of_a_stored_beat_in_its_file_does_not_matter(ecg: Ecg) -> None:
    beat = preprocess(ecg(), MEDIAN, "none")[:, 4:604]
    late = np.full((12, 1200), np.nan, dtype=np.float32)  # some files pad a beat with nothing
    late[:, :600] = beat
    early = np.pad(beat, ((0, 0), (150, 0)), mode="edge")
    placed = [
        preprocess(Recording(signal, 500.0, "median"), MEDIAN, "none") for signal in (beat, late, early)
    ]
    for one in placed:
        assert np.square(one).sum(axis=0).argmax() == R_PEAK
    np.testing.assert_allclose(placed[0], placed[1], atol=1e-6)
    assert np.corrcoef(placed[0].ravel(), placed[2].ravel())[0, 1] > 0.99


# A cardiograph's own median beat beside ours from the same recording: correlation of each lead where both reach,
# amplitude (peak to peak) of ours over theirs, RMS of the difference. Measured: 0.993, 0.98 to 1.05, 0.017 mV.
@pytest.mark.parametrize(
    "file",
    [
        "ecgtoolkit/Example.scp",
        "ecgtoolkit/Example.dcm",
        "philips_sierra/ad4d3d80-d165_1-04_orig.xml",
    ],
)
def test_our_median_beat_is_the_one_that_the_cardiograph_stored(data_root: Path, file: str) -> None:
    path = data_root / "vendor" / file
    ours = preprocess(read_recording(path), MEDIAN, "none").astype(np.float64)
    theirs = preprocess(read_median(path), MEDIAN, "none").astype(np.float64)
    both = (ours != 0).any(axis=0) & (theirs != 0).any(axis=0)
    assert both.sum() > 500
    ours, theirs = ours[:, both], theirs[:, both]
    likeness = [np.corrcoef(mine, stored)[0, 1] for mine, stored in zip(ours, theirs, strict=True)]
    assert min(likeness) > 0.98
    assert np.median(likeness) > 0.99
    amplitude = np.ptp(ours, axis=1) / np.ptp(theirs, axis=1)
    assert 0.96 < amplitude.min() <= amplitude.max() < 1.06
    difference = ours - theirs - (ours - theirs).mean(axis=1, keepdims=True)
    assert np.sqrt((difference**2).mean()) < 0.025
    assert len(r_peaks(ours.astype(np.float32), 500.0)) >= 1
