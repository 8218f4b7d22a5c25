"""The dipole model: laws of the leads, and waves that are what the latent features say."""

import numpy as np
import pytest
from scipy.signal import butter, find_peaks, sosfiltfilt

from fedecg_simulations.synthetic import SITE_PROFILES, make_patients
from fedecg_simulations.synthetic.dipole import (
    DOWER,
    WAVES,
    Beats,
    beats,
    heart_leads,
    r_peaks_s,
    twelve_leads,
)
from fedecg_simulations.synthetic.physiology import FINDINGS
from fedecg_simulations.synthetic.recording import record

PATIENTS = make_patients("university", 1500, 100)
WAVES_OF_ALL = beats(PATIENTS.physiology)
NO_FINDING = ~np.any([PATIENTS.findings[name] for name in FINDINGS], axis=0)
RATE_HZ = 1000.0
LEAD = {
    name: i for i, name in enumerate(("I", "II", "III", "aVR", "aVL", "aVF", *(f"V{k}" for k in range(1, 7))))
}


def lone(finding: str) -> np.ndarray:
    """Rows of patients with this finding and no other."""
    others = np.any([PATIENTS.findings[name] for name in FINDINGS if name != finding], axis=0)
    return np.flatnonzero(PATIENTS.findings[finding] & ~others)


def only(*names: str) -> Beats:
    """The model's beats with these waves alone."""
    vector = WAVES_OF_ALL.vector_mv.copy()
    vector[:, [i for i, name in enumerate(WAVES) if name not in names]] = 0.0
    return Beats(vector, WAVES_OF_ALL.centre_s, WAVES_OF_ALL.width_s)


QRS = ("septal", "main", "late", "basal", "terminal", "scar_anterior", "scar_inferior")


def one_beat(waves: Beats, row: int) -> np.ndarray:
    """Twelve leads (12, 2000) around one R peak at sample 1000, 1000 Hz, no noise."""
    leads = heart_leads(waves, row, np.array([3.0, 8.0]), np.ones(2), DOWER, RATE_HZ)
    return twelve_leads(leads)[:, 2000:4000]


def qrs_width_ms(row: int) -> int:
    """From the first to the last sample at which a lead exceeds 0.06 mV."""
    beyond = np.flatnonzero(np.abs(one_beat(only(*QRS), row)).max(axis=0) > 0.06)
    return int(beyond[-1] - beyond[0] + 1)


@pytest.mark.parametrize("noisy", [False, True])
def test_einthoven_and_goldberger_hold(noisy: bool) -> None:
    site = SITE_PROFILES["university"]
    generators = [np.random.default_rng(i) for i in range(40)]
    signal = record(PATIENTS.physiology.rows(np.arange(40)), site, generators, noisy)
    one, two, three, avr, avl, avf = signal[:, :6].astype(np.float64).swapaxes(0, 1)
    assert np.abs(one + three - two).max() < 1e-6
    assert np.abs(avr + (one + two) / 2).max() < 1e-6
    assert np.abs(avl - (one - three) / 2).max() < 1e-6
    assert np.abs(avf - (two + three) / 2).max() < 1e-6
    assert np.abs(avr + avl + avf).max() < 1e-6


def test_without_body_differences_the_leads_have_rank_three() -> None:
    leads = heart_leads(WAVES_OF_ALL, 0, np.array([3.0, 8.0]), np.ones(2), DOWER, RATE_HZ)
    singular = np.linalg.svd(leads.astype(np.float64), compute_uv=False)
    assert singular[3] < 1e-5 * singular[0]


def test_the_heart_is_a_sum_of_gaussians_by_hand() -> None:
    waves = Beats(np.zeros((1, len(WAVES), 3)), np.zeros((1, len(WAVES))), np.full((1, len(WAVES)), 0.01))
    waves.vector_mv[0, 3] = [1.0, 2.0, 3.0]
    signal = heart_leads(waves, 0, np.array([1.0, 2.0]), np.array([1.0, 0.5]), DOWER, 100.0)
    expected = DOWER @ [1.0, 2.0, 3.0]
    np.testing.assert_allclose(signal[:, 100], expected, rtol=1e-5)
    np.testing.assert_allclose(signal[:, 200], 0.5 * expected, rtol=1e-5)
    np.testing.assert_allclose(signal[:, 101], np.exp(-0.5) * expected, rtol=1e-5)
    assert np.abs(signal[:, 110:190]).max() < 1e-6


def test_measured_qrs_width_is_the_latent_one() -> None:
    rows = np.flatnonzero(NO_FINDING)[:150]
    difference = np.array([qrs_width_ms(row) for row in rows]) - PATIENTS.features["qrs_ms"][rows]
    assert abs(difference.mean()) < 2.0
    assert difference.std() < 4.0


@pytest.mark.parametrize("finding", ["lbbb", "rbbb"])
def test_bundle_branch_block_is_wide(finding: str) -> None:
    rows = lone(finding)
    width = np.array([qrs_width_ms(row) for row in rows])
    latent = PATIENTS.features["qrs_ms"][rows]
    assert len(rows) >= 10
    assert latent.min() >= 120.0
    assert width.min() >= 110.0
    assert abs((width - latent).mean()) < 8.0


def test_measured_voltage_is_the_latent_one() -> None:
    axis = PATIENTS.features["axis_deg"]
    rows = np.flatnonzero(NO_FINDING & (axis > 0.0) & (axis < 65.0))[:150]
    signals = [one_beat(only(*QRS), row) for row in rows]
    voltage = np.array([signal[LEAD["V5"]].max() - signal[LEAD["V1"]].min() for signal in signals])
    np.testing.assert_allclose(voltage, PATIENTS.features["voltage_mv"][rows], rtol=0.005)


def test_measured_t_and_st_in_v5_follow_the_latent_ones() -> None:
    rows = np.flatnonzero(NO_FINDING)[:150]
    t = np.array([one_beat(only("t_rise", "t_fall"), row)[LEAD["V5"]] for row in rows])
    st = np.array([one_beat(only("st"), row)[LEAD["V5"]] for row in rows])
    largest = np.take_along_axis(t, np.abs(t).argmax(axis=1)[:, None], axis=1)[:, 0]
    assert np.abs(largest - PATIENTS.features["t_v5_mv"][rows]).max() < 0.05
    np.testing.assert_allclose(st.min(axis=1), PATIENTS.features["st_v5_mv"][rows], atol=0.002)


def test_pr_interval_and_qt_are_where_they_should_be() -> None:
    row = int(np.flatnonzero(NO_FINDING)[0])
    p = np.abs(one_beat(only("p_right", "p_left"), row)).max(axis=0)
    qrs = np.abs(one_beat(only(*QRS), row)).max(axis=0)
    t = np.abs(one_beat(only("t_rise", "t_fall"), row)).max(axis=0)
    onset, p_onset = np.flatnonzero(qrs > 0.06)[0], np.flatnonzero(p > 0.02)[0]
    feature = {name: column[row] for name, column in PATIENTS.features.items()}
    qt = feature["qtc_ms"] - 1.75 * (feature["heart_rate_bpm"] - 60.0)
    assert onset - p_onset == pytest.approx(feature["pr_ms"], abs=15.0)
    assert np.flatnonzero(t > 0.03)[-1] - onset == pytest.approx(qt, abs=25.0)


def test_lbbb_has_no_septal_q_deep_s_in_v1_and_a_discordant_t() -> None:
    for row in lone("lbbb"):
        qrs, t = one_beat(only(*QRS), row), one_beat(only("t_rise", "t_fall"), row)
        assert qrs[LEAD["V6"]].min() > -0.05
        assert qrs[LEAD["V1"]].max() < 0.1
        assert qrs[LEAD["V1"]].min() < -0.4
        assert np.abs(t[LEAD["V6"]]).max() == pytest.approx(-t[LEAD["V6"]].min())
        assert t[LEAD["V1"]].max() > 0.1


def test_rbbb_has_a_late_r_in_v1_and_a_late_s_in_v6() -> None:
    for row in lone("rbbb"):
        qrs = one_beat(only(*QRS), row)
        assert qrs[LEAD["V1"]].argmax() > 1025
        assert qrs[LEAD["V1"]].max() > 0.3
        assert qrs[LEAD["V6"], 1030:].min() < -0.2


def test_anterior_scar_takes_the_r_of_v2_and_inverts_its_t() -> None:
    def r_in_v2(row: int) -> float:
        return float(one_beat(only(*QRS), row)[LEAD["V2"]].max())

    scarred, healthy = lone("ami")[:20], np.flatnonzero(NO_FINDING)[:50]
    assert np.median([r_in_v2(row) for row in scarred]) < 0.05
    assert np.median([r_in_v2(row) for row in healthy]) > 0.25
    for row in scarred:
        assert one_beat(only(*QRS), row)[LEAD["V2"]].min() < -0.3
        assert one_beat(only("t_rise", "t_fall"), row)[LEAD["V2"]].min() < -0.02


def test_inferior_scar_writes_q_in_lead_three_and_avf() -> None:
    for row in lone("imi")[:20]:
        qrs = one_beat(only(*QRS), row)
        assert qrs[LEAD["III"], 940:985].min() < -0.2
        assert qrs[LEAD["aVF"], 940:985].min() < -0.15


def test_af_has_no_p_wave_and_irregular_beats() -> None:
    af = PATIENTS.findings["af"]
    assert np.all(WAVES_OF_ALL.vector_mv[af, :2] == 0.0)
    assert np.all(np.abs(WAVES_OF_ALL.vector_mv[~af, :2]).max(axis=(1, 2)) > 0.02)
    rng = np.random.default_rng(7)
    fibrillating = np.diff(r_peaks_s(90.0, 0.22, True, rng))
    sinus = np.diff(r_peaks_s(90.0, 0.03, False, rng))
    assert fibrillating.std() / fibrillating.mean() > 0.12
    assert sinus.std() / sinus.mean() < 0.06


@pytest.mark.parametrize(
    ("rate_bpm", "variability", "af"), [(40.0, 0.03, False), (145.0, 0.1, False), (75.0, 0.22, True)]
)
def test_beats_cover_the_whole_recording(rate_bpm: float, variability: float, af: bool) -> None:
    for seed in range(200):
        peaks = r_peaks_s(rate_bpm, variability, af, np.random.default_rng(seed))
        assert peaks[0] < -0.3
        assert peaks[-1] > 10.3
        assert np.diff(peaks).min() > 0.25


def test_heart_rate_read_from_noisy_recordings_is_the_latent_one() -> None:
    site = SITE_PROFILES["university"]
    rows = np.flatnonzero(NO_FINDING)[:40]
    signal = record(PATIENTS.physiology.rows(rows), site, [np.random.default_rng(i) for i in range(40)])
    energy = np.square(sosfiltfilt(butter(2, (8.0, 25.0), "bandpass", fs=500.0, output="sos"), signal)).sum(
        axis=1
    )
    for row, one in zip(rows, energy, strict=True):
        smooth = np.convolve(one, np.ones(50), mode="same")
        peaks, _ = find_peaks(smooth, height=0.3 * np.quantile(smooth, 0.98), distance=125)
        rate = 60.0 * 500.0 / np.diff(peaks).mean()
        assert rate == pytest.approx(PATIENTS.features["heart_rate_bpm"][row], rel=0.08)
