"""Wrong gains, noise and inverted signals, made from a clean ECG and from real records."""

import numpy as np
import pytest

from fedecg.signals import LEADS, Quality, Recording, assess, read_recording
from fedecg.signals.plausibility import HIGH_LEAD_MV, HIGH_MEDIAN_MV, IMPOSSIBLE_MV, LOW_MV


def scaled(recording: Recording, factor: float) -> Recording:
    return Recording(recording.signal_mv * np.float32(factor), recording.rate_hz)


def warned(quality: Quality) -> set[str]:
    rules = ("low_amplitude", "high_amplitude", "no_beats", "inverted")
    return {rule for rule in rules if np.any(getattr(quality, rule))}


@pytest.mark.parametrize("rate_hz", [100, 257, 500, 1000])
@pytest.mark.parametrize(
    ("factor", "said"), [(1, set()), (10, {"high_amplitude"}), (0.1, {"low_amplitude"}), (-1, {"inverted"})]
)
def test_a_wrong_gain_and_a_wrong_sign_are_told_apart(ecg, rate_hz, factor, said):
    quality = assess(scaled(ecg(rate_hz), factor))
    assert warned(quality) == said
    assert quality.usable


def test_a_gain_that_is_wrong_by_a_thousand_is_refused(ecg):
    quality = assess(scaled(ecg(), 1000))
    assert (quality.code, quality.usable) == ("FECG-272", False)
    assert assess(scaled(ecg(), 1e-3)).code == "FECG-214"


def test_each_threshold_stands_where_it_is_said_to(ecg):
    recording = ecg(wander_mv=0.0)
    spans = np.ptp(recording.signal_mv, axis=1)
    middle = np.sort(spans)[6]
    for threshold, reference, below, above in (
        (LOW_MV, spans.max(), {"low_amplitude"}, set()),
        (HIGH_MEDIAN_MV, middle, set(), {"high_amplitude"}),
    ):
        assert warned(assess(scaled(recording, 0.98 * threshold / reference))) == below
        assert warned(assess(scaled(recording, 1.02 * threshold / reference))) == above
    assert assess(scaled(recording, 0.98 * IMPOSSIBLE_MV / middle)).code == ""
    assert assess(scaled(recording, 1.02 * IMPOSSIBLE_MV / middle)).code == "FECG-272"


def test_one_lead_of_another_gain_is_named(ecg):
    recording = ecg(wander_mv=0.0)
    lead = LEADS.index("V2")
    recording.signal_mv[lead] *= 1.1 * HIGH_LEAD_MV / np.ptp(recording.signal_mv[lead])
    quality = assess(recording)
    assert [LEADS[place] for place in np.flatnonzero(quality.high_amplitude)] == ["V2"]
    assert quality.counts()["high_amplitude"] == 1


@pytest.mark.parametrize("rate_hz", [100, 250, 500, 1000])
@pytest.mark.parametrize("leads", [1, 12])
def test_noise_has_no_beats_whether_leads_share_it_or_not(rate_hz, leads):
    rng = np.random.default_rng(rate_hz)
    for level_mv in (0.1, 0.3, 1.0):
        noise = np.broadcast_to(rng.normal(0, level_mv, (leads, 10 * rate_hz)), (12, 10 * rate_hz))
        for signal in (noise, noise.cumsum(axis=1) / 10):
            assert assess(Recording(signal.astype(np.float32), rate_hz)).no_beats


def test_hum_has_no_beats():
    time_s = np.arange(5000) / 500
    hum = np.sin(2 * np.pi * 50 * time_s + np.arange(12)[:, None])
    assert assess(Recording(hum.astype(np.float32), 500)).no_beats


def test_beats_are_seen_through_noise_and_gaps(ecg):
    recording = ecg()
    recording.signal_mv[:] += np.random.default_rng(0).normal(0, 0.03, (12, 5000))
    recording.signal_mv[3, 100:1900] = np.nan
    recording.signal_mv[:, 4000:] = np.nan
    assert warned(assess(recording)) == set()


@pytest.mark.parametrize("seconds", [0.002, 0.02, 0.3, 2.6])
def test_a_recording_of_any_length_is_judged(ecg, seconds):
    quality = assess(ecg(seconds=seconds))
    assert {type(quality.no_beats), type(quality.inverted), type(quality.low_amplitude)} == {bool}


@pytest.mark.parametrize("value", [0.0, 5.0, np.nan])
def test_what_does_not_move_is_flat_and_nothing_else(value):
    quality = assess(Recording(np.full((12, 1000), value, dtype=np.float32), 100))
    assert warned(quality) == set()
    assert quality.code == "FECG-214"


def rates(data_root, factor: float) -> dict[str, float]:
    """Share of PTB-XL's records at hand that each rule warns of, `factor` times as large as they are."""
    found = sorted((data_root / "ptbxl" / "records100").rglob("*.hea"))
    said = [warned(assess(scaled(read_recording(header), factor))) for header in found]
    assert len(said) == 353
    return {rule: np.mean([rule in one for one in said]) for rule in set().union(*said)}


def test_false_alarms_on_ptbxl_stay_below_two_percent(data_root):
    assert sum(rates(data_root, 1.0).values()) < 0.02


@pytest.mark.parametrize(("factor", "rule"), [(10.0, "high_amplitude"), (0.1, "low_amplitude")])
def test_a_gain_that_is_wrong_by_ten_is_found_in_95_percent_of_ptbxl(data_root, factor, rule):
    assert rates(data_root, factor)[rule] > 0.95


def test_most_inverted_records_of_ptbxl_are_found(data_root):
    assert rates(data_root, -1.0)["inverted"] > 0.8


def test_published_headers_with_a_false_gain_are_found(data_root):
    for pattern, rule in (("E*.hea", "low_amplitude"), ("HR*.hea", "high_amplitude")):
        found = sorted((data_root / "cinc2020").glob(pattern))
        assert len(found) >= 2
        assert all(warned(assess(read_recording(header))) == {rule} for header in found)
