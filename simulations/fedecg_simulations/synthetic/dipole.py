"""12-lead ECGs from a moving heart vector.

In:  `Physiology` of n patients (latent findings and features), a generator per recording, the recorder's rate.
Out: `Beats` (the waves of each patient's beat) and, per recording, 12 leads in mV. Called by `consortium`.

A beat is a sum of Gaussians in time, each with a vector in the Frank axes x (left), y (down), z (back), after
McSharry et al. 2003 (IEEE Trans Biomed Eng 50:289) in the vector form of Sameni et al. 2007 (EURASIP J Adv Signal
Process 43407). Times are relative to the peak of R. The eight independent leads are projections of the vector
(Dower, Machado and Osborne 1980, Clin Cardiol 3:87); III, aVR, aVL, aVF are computed from I and II, so Einthoven's and
Goldberger's laws hold exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedecg_simulations.synthetic.findings import value
from fedecg_simulations.synthetic.physiology import Physiology

__all__ = ["DOWER", "SECONDS", "Beats", "beats", "heart_leads", "r_peaks_s", "twelve_leads"]

Floats = NDArray[np.float64]
Signal = NDArray[np.float32]

SECONDS = 10.0

# Rows: I, II, V1..V6; columns: x (left), y (down), z (back). Source: Dower 1980.
DOWER: Floats = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)
_V1, _V5 = DOWER[2], DOWER[6]

WAVES = (
    "p_right",
    "p_left",
    "septal",
    "main",
    "late",
    "basal",
    "terminal",  # right ventricle in RBBB
    "scar_anterior",
    "scar_inferior",
    "st",
    "t_rise",
    "t_fall",
)
_P, _QRS, _T = slice(0, 2), slice(2, 6), slice(10, 12)

# Depolarisation of the left ventricle, for a QRS of 82 ms: vector (mV before scaling), centre and width in ms.
_QRS_MS = 82.0  # as long as any lead exceeds 0.06 mV
_ONSET_MS = -41.0
_NORMAL_QRS = np.array([[-0.14, 0.02, -0.26], [1.10, 0.75, 0.10], [0.30, 0.10, 0.95], [-0.10, -0.22, 0.30]])
_NORMAL_CENTRE = np.array([-25.0, 0.0, 15.0, 29.0])
_NORMAL_WIDTH = np.array([7.0, 9.0, 9.0, 7.0])
# LBBB: septum from right to left (no septal q), then two humps: broad, notched R in I, V5, V6 and deep S in V1-V3.
_LBBB_QRS = np.array([[0.18, 0.10, 0.12], [0.92, 0.42, 0.85], [0.35, 0.05, 0.75], [0.90, 0.25, 0.82]])
_LBBB_CENTRE = np.array([-30.0, -12.0, 3.0, 19.0])
_LBBB_WIDTH = np.array([7.0, 9.0, 9.0, 10.5])
_LBBB_VOLTAGE = 0.70  # against the normal sequence, so that V1-V3 stay within what cardiologists see

# Repolarisation: the usual T (V5 = 0.355 mV), the direction in which it falls with strain (V5 = -0.34 mV), and
# the secondary T waves of blocks and scars (mV).
_USUAL_T = np.array([0.28, 0.20, -0.18])
_STRAIN_T = np.array([-0.30, -0.12, -0.12])
_LBBB_T = np.array([-0.62, -0.28, -0.42])
_RBBB_T = np.array([0.10, 0.02, 0.22])
_ANTERIOR_T = np.array([-0.08, 0.02, 0.48])
_INFERIOR_T = np.array([0.04, -0.42, 0.02])
_ST_V5 = np.array([0.75, 0.30, 0.15])  # ST vector for 1 mV in V5, nearly


@dataclass(frozen=True)
class Beats:
    """The waves of n patients' beats; K = len(WAVES).

    Attributes:
        vector_mv: (n, K, 3).
        centre_s: (n, K), relative to the peak of R.
        width_s: (n, K), SD of the Gaussian.
    """

    vector_mv: Floats
    centre_s: Floats
    width_s: Floats


def beats(physiology: Physiology) -> Beats:
    """Vectors, centres and widths of all waves, from findings and features; no randomness."""
    n = len(physiology.age_years)
    vector, centre, width = (
        np.zeros((n, len(WAVES), 3)),
        np.zeros((n, len(WAVES))),
        np.full((n, len(WAVES)), 10.0),
    )
    for part in (_ventricles, _right_block_and_scars, _repolarisation, _atria):
        part(physiology, vector, centre, width)
    return Beats(vector, centre / 1000.0, width / 1000.0)


def twelve_leads(independent: Signal) -> Signal:
    """I, II, V1..V6 (..., 8, samples) -> 12 leads (..., 12, samples) in standard order."""
    one, two = independent[..., 0, :], independent[..., 1, :]
    three = two - one
    limb = [one, two, three, -(one + two) / 2, (one - three) / 2, (two + three) / 2]
    return np.concatenate([np.stack(limb, axis=-2), independent[..., 2:, :]], axis=-2)


def r_peaks_s(heart_rate_bpm: float, rr_variability: float, af: bool, rng: np.random.Generator) -> Floats:
    """Times of the R peaks (s), from before the recording's start to after its end.

    Sinus rhythm: RR follows breathing and a slow wave (McSharry 2003) with SD/mean = `rr_variability`.
    AF: independent gamma-distributed intervals, none shorter than 0.28 s.
    """
    mean_s = 60.0 / heart_rate_bpm
    count = int(np.ceil((SECONDS + 4.0) / mean_s)) + 4
    if af:
        shape = 1.0 / rr_variability**2
        intervals = np.maximum(mean_s * rng.gamma(shape, 1.0 / shape, count), 0.28)
    else:
        start_s = mean_s * np.arange(count)
        breathing = np.sin(2 * np.pi * (rng.uniform(0.2, 0.3) * start_s + rng.random()))
        slow = np.sin(2 * np.pi * (rng.uniform(0.08, 0.12) * start_s + rng.random()))
        noise = rng.standard_normal(count)
        intervals = mean_s * (1.0 + rr_variability * (breathing + 0.6 * slow + 0.57 * noise))
    # Starts more than a beat early; beats that end before the recording add nothing.
    return np.cumsum(intervals) - 2.0 + mean_s * (rng.random() - 1.0)


def heart_leads(
    beat: Beats,
    row: int,
    peaks_s: Floats,
    amplitude: Floats,
    leads: Floats,
    rate_hz: float,
) -> Signal:
    """The eight independent leads (8, samples) of one recording, float32 mV, without noise and f-waves.

    Args:
        beat: the waves of n patients; `row` picks one.
        peaks_s: (B,) times of the R peaks.
        amplitude: (B,) factor on each beat (breathing).
        leads: (8, 3) lead vectors.
        rate_hz: samples per second.
    """
    samples = round(SECONDS * rate_hz)
    centre, width = beat.centre_s[row], beat.width_s[row]
    left = int(np.floor((centre - 4.0 * width).min() * rate_hz))
    window = int(np.ceil((centre + 4.0 * width).max() * rate_hz)) - left
    first = np.floor(peaks_s * rate_hz).astype(np.int64) + left
    seen = (first + window > 0) & (first < samples)
    peaks_s, first, amplitude = peaks_s[seen], first[seen], amplitude[seen]
    # T comes later after a longer interval: 0.15 s per s (RR adaptation within a recording).
    interval = np.diff(peaks_s, prepend=2 * peaks_s[0] - peaks_s[1])
    shift = np.zeros((len(peaks_s), len(WAVES)))
    shift[:, -3:] = 0.15 * (interval - interval.mean())[:, None]

    time_s = (first / rate_hz - peaks_s)[:, None] + np.arange(window) / rate_hz
    scaled = (time_s[:, None, :] - (centre + shift)[:, :, None]) / width[:, None]
    # float32 exp is several times faster; -40 keeps it out of slow denormals.
    bumps = np.exp(np.maximum(-0.5 * np.square(scaled, dtype=np.float32, casting="same_kind"), -40.0))
    vectors = beat.vector_mv[row].T.astype(np.float32) @ (bumps * amplitude.astype(np.float32)[:, None, None])

    heart = np.zeros((3, samples + 2 * window), dtype=np.float32)
    for vector, start in zip(vectors, first + window, strict=True):
        heart[:, start : start + window] += vector
    return leads.astype(np.float32) @ heart[:, window:-window]


def _ventricles(physiology: Physiology, vector: Floats, centre: Floats, width: Floats) -> None:
    lbbb = physiology.findings["lbbb"][:, None]
    stretch = _stretch(physiology)[:, None]
    axis = physiology.features["axis_deg"]
    normal = _turned(_NORMAL_QRS, np.deg2rad(axis - _axis_deg(_NORMAL_QRS, _NORMAL_WIDTH)))
    # The heart turns fully, its voltage is set where the turn does not hide it from V5.
    reference = np.deg2rad(np.clip(axis, 0.0, 65.0) - _axis_deg(_NORMAL_QRS, _NORMAL_WIDTH))
    gain = (physiology.features["voltage_mv"] / _sokolow_mv(_turned(_NORMAL_QRS, reference)))[:, None, None]
    blocked = _turned(_LBBB_QRS, 0.5 * np.deg2rad(axis - value("axis.mean"))) * _LBBB_VOLTAGE
    vector[:, _QRS] = gain * np.where(lbbb[:, :, None], blocked, normal)
    centre[:, _QRS] = stretch * np.where(lbbb, _LBBB_CENTRE, _NORMAL_CENTRE)
    width[:, _QRS] = stretch * np.where(lbbb, _LBBB_WIDTH, _NORMAL_WIDTH)


def _right_block_and_scars(physiology: Physiology, vector: Floats, centre: Floats, width: Floats) -> None:
    feature, stretch = physiology.features, _stretch(physiology)
    terminal, anterior, inferior = (
        WAVES.index(name) for name in ("terminal", "scar_anterior", "scar_inferior")
    )
    end = _ONSET_MS * stretch + feature["qrs_ms"]
    size = (0.5 + 0.5 * feature["voltage_mv"] / value("voltage.median"))[:, None]
    vector[:, terminal] = size * physiology.findings["rbbb"][:, None] * [-0.50, -0.05, -0.62]
    width[:, terminal] = np.clip((end - 20.0 * stretch) / 4.6, 10.0, 20.0)
    centre[:, terminal] = end - 2.3 * width[:, terminal]
    # Lost muscle pulls the early vector away from it: QS or Q in V1-V4, Q in II, III, aVF.
    vector[:, anterior] = size * feature["scar_anterior"][:, None] * [-0.10, 0.05, 0.72]
    centre[:, anterior], width[:, anterior] = -14.0 * stretch, 10.0 * stretch
    vector[:, inferior] = size * feature["scar_inferior"][:, None] * [0.02, -0.64, 0.05]
    centre[:, inferior], width[:, inferior] = -22.0 * stretch, 10.5 * stretch


def _repolarisation(physiology: Physiology, vector: Floats, centre: Floats, width: Floats) -> None:
    feature, found = physiology.features, physiology.findings
    onset = _ONSET_MS * _stretch(physiology)
    qt = feature["qtc_ms"] - 1.75 * (feature["heart_rate_bpm"] - 60.0)
    slow = qt / 400.0
    peak = onset + qt - 84.0 * slow
    strain = (_USUAL_T @ _V5 - feature["t_v5_mv"]) / -(_STRAIN_T @ _V5)
    t = _USUAL_T + strain[:, None] * _STRAIN_T
    t = np.where(found["lbbb"][:, None], 0.5 * t + _LBBB_T * (feature["voltage_mv"] / 2.6)[:, None], t)
    t = t + found["rbbb"][:, None] * _RBBB_T
    t = t + feature["scar_anterior"][:, None] * _ANTERIOR_T + feature["scar_inferior"][:, None] * _INFERIOR_T
    vector[:, _T] = 0.56 * t[:, None, :]
    centre[:, _T] = peak[:, None] + slow[:, None] * np.array([-26.0, 11.0])
    width[:, _T] = slow[:, None] * np.array([44.0, 31.0])
    st = WAVES.index("st")
    vector[:, st] = feature["st_v5_mv"][:, None] * _ST_V5 / (_ST_V5 @ _V5)
    vector[:, st] += found["lbbb"][:, None] * [-0.10, -0.04, -0.10]
    end = onset + feature["qrs_ms"]
    centre[:, st], width[:, st] = (end + peak) / 2 - 12.0, np.maximum((peak - end) / 3.2, 22.0)


def _atria(physiology: Physiology, vector: Floats, centre: Floats, width: Floats) -> None:
    af = physiology.findings["af"]
    p, pr = (np.nan_to_num(physiology.features[name], nan=100.0) for name in ("p_ms", "pr_ms"))
    start = _ONSET_MS * _stretch(physiology) - pr
    left = (p / 106.0) ** 2  # a large left atrium is late and strong
    vector[:, 0] = np.where(af, 0.0, 1.0)[:, None] * [0.03, 0.08, -0.055]
    vector[:, 1] = np.where(af, 0.0, left)[:, None] * [0.075, 0.06, 0.045]
    centre[:, _P] = start[:, None] + p[:, None] * np.array([0.33, 0.67])
    width[:, _P] = p[:, None] * 0.15


def _stretch(physiology: Physiology) -> Floats:
    """Time scale (n,) of left ventricular activation; 1 = a QRS of 82 ms."""
    return physiology.features["lv_activation_ms"] / _QRS_MS


def _turned(vectors: Floats, angle: Floats) -> Floats:
    """Waves (K, 3) turned in the frontal plane by each angle (n,), radians -> (n, K, 3)."""
    cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
    x, y, z = vectors.T
    return np.stack(
        [cosine * x - sine * y, sine * x + cosine * y, np.broadcast_to(z, cosine.shape[:1] + z.shape)], -1
    )


def _axis_deg(vectors: Floats, width: Floats) -> float:
    """Frontal axis of the QRS area, degrees."""
    x, y, _ = (vectors * width[:, None]).sum(axis=0)
    return float(np.rad2deg(np.arctan2(y, x)))


def _sokolow_mv(vectors: Floats) -> Floats:
    """SV1 + RV5 (n,) of waves (n, 4, 3) in the normal sequence."""
    time = np.arange(-50.0, 50.0, 1.0)
    bumps = np.exp(-0.5 * ((time - _NORMAL_CENTRE[:, None]) / _NORMAL_WIDTH[:, None]) ** 2)
    return np.asarray((vectors @ _V5 @ bumps).max(axis=1) - (vectors @ _V1 @ bumps).min(axis=1))
