"""Recorders that differ by site: each kind of drift does what it says to real signals, and nothing else."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from fedecg.config import DataSettings, DriftSettings, SignalSettings, StudySettings
from fedecg.signals import LEADS, Recording, build_store, store_key
from fedecg.signals.electrodes import limb_swap
from fedecg_simulations.dataset import Dataset
from fedecg_simulations.drift import Recorder, hum, recorder_of, recorders, with_drift
from fedecg_simulations.sources import load_dataset

PARTS = {"a": np.arange(0, 6), "b": np.arange(6, 12)}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset(StudySettings(data=DataSettings(sites={"city": 12}, test_patients=1)))


def recorded(
    dataset: Dataset, drift: DriftSettings, row: int, seed: int = 0
) -> tuple[Recording, Recording, Recorder]:
    """The ECG of a row before and after, and the recorder of its site."""
    name = "a" if row in PARTS["a"] else "b"
    changed = with_drift(dataset, PARTS, drift, seed)
    return dataset.recordings[row](), changed.recordings[row](), recorder_of(name, drift, seed)


def einthoven_gap_mv(signal_mv: np.ndarray) -> float:
    one, two, three, avr, avl, avf = signal_mv[:6].astype(np.float64)
    gaps = [two - one - three, avr + (one + two) / 2, avl - one + two / 2, avf - two + one / 2]
    return float(np.abs(gaps).max())


def test_without_drift_the_data_set_is_the_very_same(dataset: Dataset) -> None:
    assert with_drift(dataset, PARTS, DriftSettings(), 0) is dataset


def test_gain_multiplies_the_signal_and_leaves_its_rate(dataset: Dataset) -> None:
    before, after, recorder = recorded(dataset, DriftSettings(gain=0.1), 0)
    assert recorder.gain != 1.0
    np.testing.assert_allclose(after.signal_mv, before.signal_mv * recorder.gain, rtol=1e-5)
    assert after.rate_hz == before.rate_hz


def test_gains_have_the_spread_that_was_asked_for() -> None:
    gains = [recorder_of(f"site-{number}", DriftSettings(gain=0.1), 0).gain for number in range(2000)]
    assert np.std(np.log(gains)) == pytest.approx(0.1, rel=0.06)
    assert np.mean(np.log(gains)) == pytest.approx(0.0, abs=0.01)


def test_hum_stands_at_the_mains_frequency_and_obeys_einthoven(dataset: Dataset) -> None:
    before, after, recorder = recorded(dataset, DriftSettings(hum_mv=0.2), 0)
    added = after.signal_mv.astype(np.float64) - before.signal_mv
    power = np.abs(np.fft.rfft(added, axis=1)) ** 2
    frequency_hz = np.fft.rfftfreq(added.shape[1], 1 / before.rate_hz)
    assert frequency_hz[power.sum(axis=0).argmax()] == recorder.mains_hz
    near = np.abs(frequency_hz - recorder.mains_hz) < 0.5
    assert power[:, near].sum() > 0.99 * power.sum()
    assert einthoven_gap_mv(added) < 1e-5
    assert 0.01 < np.abs(added[1]).max() < 3 * recorder.hum_mv * np.exp(3 * 0.5)


def test_hum_that_a_recorder_cannot_sample_is_not_there() -> None:
    assert not hum(np.ones(9), np.zeros(9), 60.0, 100.0, 50).any()
    assert hum(np.ones(9), np.linspace(0, 1, 9), 50.0, 101.0, 50).any()


def test_half_the_sites_have_50_hz() -> None:
    mains = [recorder_of(f"site-{n}", DriftSettings(hum_mv=0.1), 1).mains_hz for n in range(400)]
    assert set(mains) == {50.0, 60.0}
    assert 150 < mains.count(50.0) < 250


def test_exchanged_arms_turn_lead_one_over_and_are_seen_by_the_quality_rules(dataset: Dataset) -> None:
    drift = DriftSettings(exchanged_arms=1.0)
    changed = with_drift(dataset, PARTS, drift, 2)
    seen, share = 0, {name: recorder.exchanged for name, recorder in recorders(PARTS, drift, 2).items()}
    for row in range(12):
        before, after = dataset.recordings[row]().signal_mv, changed.recordings[row]().signal_mv
        if np.array_equal(before, after):
            continue
        seen += 1
        np.testing.assert_array_equal(after[0], -before[0])
        for one, other in (("II", "III"), ("aVR", "aVL")):
            np.testing.assert_array_equal(after[LEADS.index(one)], before[LEADS.index(other)])
        np.testing.assert_array_equal(after[5:], before[5:])
        assert einthoven_gap_mv(after) < 1e-5
    assert 0 < seen < 12
    assert all(0 < one <= 1 for one in share.values())
    flagged = [
        limb_swap(changed.recordings[row]().signal_mv[:, ::5])
        for row in range(12)
        if not np.array_equal(changed.recordings[row]().signal_mv, dataset.recordings[row]().signal_mv)
    ]
    assert np.mean(flagged) >= 0.5


def test_another_rate_keeps_the_ecg(dataset: Dataset, tmp_path: Path) -> None:
    before, after, recorder = recorded(dataset, DriftSettings(rates_hz=[250.0]), 0)
    assert recorder.rate_hz == after.rate_hz == 250.0 != before.rate_hz
    assert after.signal_mv.shape[1] == round(before.signal_mv.shape[1] * 250.0 / before.rate_hz)
    settings = SignalSettings(samples=256)
    one, other = (
        build_store(tmp_path / name, name, settings, [recording], powerline="none").batch(np.array([0]))
        for name, recording in (("one", before), ("other", after))
    )
    assert np.sqrt(np.mean((one - other) ** 2)) < 0.02


def test_missing_leads_are_chest_leads_and_zeros_in_the_store(dataset: Dataset, tmp_path: Path) -> None:
    drift = DriftSettings(missing_leads=6)
    seed = next(number for number in range(50) if len(recorder_of("a", drift, number).missing) == 3)
    _, after, recorder = recorded(dataset, drift, 0, seed)
    gone = np.isnan(after.signal_mv).all(axis=1)
    assert np.flatnonzero(gone).tolist() == list(recorder.missing)
    assert min(recorder.missing) >= LEADS.index("V1")
    store = build_store(tmp_path, "key", SignalSettings(samples=256), [after], powerline="none")
    assert store.codes == ("",)
    signal = store.batch(np.array([0]))[0]
    assert (np.abs(signal).max(axis=1) == 0).tolist() == gone.tolist()


def test_numbers_of_missing_leads_go_up_to_the_most() -> None:
    missing = [len(recorder_of(f"site-{n}", DriftSettings(missing_leads=2), 0).missing) for n in range(300)]
    assert set(missing) == {0, 1, 2}


def test_a_recorder_depends_on_seed_and_name_and_one_drift_not_on_another() -> None:
    drift = DriftSettings(gain=0.1, rates_hz=[100.0, 500.0], missing_leads=3)
    one = recorder_of("site-1", drift, 4)
    assert one == recorders({"site-2": PARTS["a"], "site-1": PARTS["b"]}, drift, 4)["site-1"]
    assert one.gain == recorder_of("site-1", DriftSettings(gain=0.1), 4).gain
    assert one.missing == recorder_of("site-1", DriftSettings(missing_leads=3), 4).missing
    assert one != recorder_of("site-2", drift, 4)
    assert one != recorder_of("site-1", drift, 5)


def test_ecgs_of_no_site_stay_as_they_are_and_sites_need_not_be_in_order(dataset: Dataset) -> None:
    parts = {"a": np.array([9, 3])}
    changed = with_drift(dataset, parts, DriftSettings(gain=0.2), 0)
    assert changed.recordings[0] is dataset.recordings[0]
    assert not np.array_equal(changed.recordings[9]().signal_mv, dataset.recordings[9]().signal_mv)


def test_the_store_is_another_one_where_the_recorders_are(dataset: Dataset) -> None:
    drift = DriftSettings(gain=0.1)

    def key(changed: Dataset) -> str:
        return store_key(SignalSettings(), changed.source, "none")

    plain, drifted = key(dataset), key(with_drift(dataset, PARTS, drift, 0))
    assert drifted == key(with_drift(dataset, PARTS, drift, 0))
    others = [
        with_drift(dataset, PARTS, drift, 1),
        with_drift(dataset, PARTS, DriftSettings(gain=0.11), 0),
        with_drift(dataset, {"a": PARTS["b"], "b": PARTS["a"]}, drift, 0),
    ]
    assert len({plain, drifted, *map(key, others)}) == 5


def test_an_ecg_is_the_same_whenever_it_is_read_and_may_travel_to_another_process(dataset: Dataset) -> None:
    drift = DriftSettings(gain=0.1, hum_mv=0.1, exchanged_arms=0.5, rates_hz=[250.0])
    source = with_drift(dataset, PARTS, drift, 0).recordings[3]
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(source().signal_mv, again().signal_mv)
