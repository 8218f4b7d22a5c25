"""Electrodes exchanged by hand on real ECGs, and pacemaker spikes: what the screens find, and what they must not."""

import numpy as np
import pytest

from fedecg.signals import Recording, assess, read_recording
from fedecg.signals.median import r_peaks

PAIRS = ("RA-LA", "RA-LL", "RA-RL", "LA-RL", "LA-LL")


def exchanged(recording: Recording, pair: str) -> Recording:
    """The recording with two limb electrodes exchanged; the right leg is at 97 % of the left leg's potential."""
    left_arm, left_leg = recording.signal_mv[0], recording.signal_mv[1]  # against the right arm
    at = {"RA": np.zeros_like(left_arm), "LA": left_arm, "LL": left_leg, "RL": np.float32(0.97) * left_leg}
    one, other = pair.split("-")
    at[one], at[other] = at[other], at[one]
    ra, la, ll = at["RA"], at["LA"], at["LL"]
    limbs = [la - ra, ll - ra, ll - la, ra - (la + ll) / 2, la - (ra + ll) / 2, ll - (ra + la) / 2]
    return Recording(np.array([*limbs, *recording.signal_mv[6:]]), recording.rate_hz)


def with_spikes(recording: Recording, height_mv: float = 1.0) -> Recording:
    """Spikes of 2 ms, 60 ms before every beat, of different sizes and signs in the leads."""
    signal = recording.signal_mv.copy()
    sizes = (
        np.array([0.5, 1, 0.5, -0.5, -0.5, 0.25, 0.3, 0.6, 0.8, 0.8, 0.6, 0.5], dtype=np.float32) * height_mv
    )
    for peak in r_peaks(signal, recording.rate_hz):
        at = peak - round(0.06 * recording.rate_hz)
        if at > 1:
            signal[:, at] += sizes
            signal[:, at + 1] += sizes * np.float32(0.4)
    return Recording(signal, recording.rate_hz)


@pytest.fixture(scope="module")
def ptbxl(data_root):
    read = [read_recording(header) for header in sorted((data_root / "ptbxl/records100").rglob("*.hea"))]
    return [recording for recording in read if assess(recording).usable]


@pytest.fixture(scope="module")
def fast(data_root):
    """Usable records of 400 Hz and more."""
    folders = [data_root / name for name in ("ptbxl/records500", "cinc2020", "cinc2021")]
    headers = [header for folder in folders for header in sorted(folder.rglob("*.hea"))]
    headers += sorted((data_root / "code15_wfdb").rglob("*.hea"))[::4]
    read = [recording for header in headers if (recording := read_recording(header)).rate_hz >= 400]
    return [recording for recording in read if assess(recording).usable]


def share(recordings, rule: str) -> float:
    return float(np.mean([getattr(assess(recording), rule) for recording in recordings]))


def test_real_ecgs_are_rarely_taken_for_exchanged(ptbxl):
    assert len(ptbxl) == 353
    assert share(ptbxl, "limb_swap") <= 0.012


@pytest.mark.parametrize(("pair", "least"), list(zip(PAIRS, (0.88, 0.92, 0.94, 0.97, 0.0), strict=True)))
def test_electrodes_exchanged_by_hand_are_found(ptbxl, pair, least):
    found = share([exchanged(recording, pair) for recording in ptbxl[::3]], "limb_swap")
    assert found >= least
    if pair == "LA-LL":  # turns nothing over: said to be beyond this screen
        assert found <= 0.03


def test_an_exchange_keeps_einthovens_law_and_refuses_nothing(ecg):
    for pair in PAIRS:
        quality = assess(exchanged(ecg(), pair))
        assert quality.usable
        assert not quality.einthoven.any()
        assert quality.limb_swap == (pair != "LA-LL")


def test_an_inverted_signal_is_said_to_be_inverted_only(ecg):
    recording = ecg()
    quality = assess(Recording(-recording.signal_mv, recording.rate_hz))
    assert quality.inverted
    assert not quality.limb_swap


def test_no_ecg_at_hand_is_taken_for_paced(fast):
    assert len(fast) > 140
    assert share(fast, "paced") == 0


def test_spikes_before_real_beats_are_found(fast):
    assert share([with_spikes(recording) for recording in fast], "paced") >= 0.95


@pytest.mark.parametrize("height_mv", [1.0, 5.0])
def test_spikes_raise_no_other_flag(ecg, height_mv):
    quality = assess(with_spikes(ecg(rate_hz=500), height_mv))
    assert quality.usable
    assert quality.paced
    assert [rule for rule, leads in quality.counts().items() if leads] in (["paced"], ["einthoven", "paced"])


def test_slow_recordings_are_not_screened_for_spikes(ecg):
    assert not assess(with_spikes(ecg(rate_hz=250))).paced


@pytest.mark.parametrize("scale_mv", [0.05, 0.5, 3.0])
def test_noise_is_not_taken_for_a_pacemaker(scale_mv):
    random = np.random.default_rng(0)
    for _ in range(50):
        noise = Recording(random.normal(0, scale_mv, (12, 5000)).astype(np.float32), 500)
        assert not assess(noise).paced


def test_a_recording_without_a_moving_lead_is_neither():
    for signal in (np.zeros((12, 5000)), np.full((12, 5000), np.nan), np.zeros((12, 1))):
        quality = assess(Recording(signal.astype(np.float32), 500))
        assert not quality.limb_swap
        assert not quality.paced
