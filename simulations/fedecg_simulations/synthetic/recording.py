"""One 10 s recording of a patient at a site: heart, electrodes, breathing, mains, muscles.

In:  `Physiology` of the patients to record, the site's profile, one generator per recording.
Out: (n, 12, samples) float32 mV. Called by `consortium`.

Noise is added to the eight leads that a recorder measures; III, aVR, aVL, aVF are computed from them as recorders
do, so Einthoven's law holds with noise too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedecg_simulations.synthetic.dipole import (
    DOWER,
    SECONDS,
    Beats,
    beats,
    heart_leads,
    r_peaks_s,
    twelve_leads,
)
from fedecg_simulations.synthetic.findings import value
from fedecg_simulations.synthetic.physiology import Physiology
from fedecg_simulations.synthetic.sites import SiteProfile

__all__ = ["record"]

Floats = NDArray[np.float64]
Signal = NDArray[np.float32]

# Fibrillation shows most in V1 and II; x, y, z for 1 mV in V1.
_FIBRILLATION = np.array([-0.15, 0.75, -0.88]) / (DOWER[2] @ np.array([-0.15, 0.75, -0.88]))


def record(
    physiology: Physiology, site: SiteProfile, generators: Sequence[np.random.Generator], noisy: bool = True
) -> Signal:
    """Record n patients.

    Args:
        physiology: of the n patients.
        site: gives rate, gain, noise and mains frequency.
        generators: n, one per recording; with the same states, `noisy` changes nothing but gain and noise.
        noisy: False leaves out the recorder's gain, baseline wander, hum and muscle noise.

    Returns:
        (n, 12, 10 s * rate) float32, mV, leads in standard order.
    """
    waves = beats(physiology)
    samples = round(SECONDS * site.rate_hz)
    independent = np.empty((len(generators), 8, samples), dtype=np.float32)
    for row, rng in enumerate(generators):
        independent[row] = _heart(physiology, waves, row, site, rng)
        if noisy:
            independent[row] = site.gain * (independent[row] + _noise(site, rng))
    return twelve_leads(independent)


def _heart(
    physiology: Physiology, waves: Beats, row: int, site: SiteProfile, rng: np.random.Generator
) -> Signal:
    feature, af = physiology.features, bool(physiology.findings["af"][row])
    leads = _electrodes(rng)
    peaks_s = r_peaks_s(feature["heart_rate_bpm"][row], feature["rr_variability"][row], af, rng)
    breaths = np.sin(2 * np.pi * (rng.uniform(0.2, 0.3) * peaks_s + rng.random()))
    own = _own_shape(waves, row, rng)
    signal = heart_leads(own, 0, peaks_s, 1.0 + value("noise.breathing") * breaths, leads, site.rate_hz)
    if af:
        signal += (leads @ _FIBRILLATION).astype(np.float32)[:, None] * _fibrillation(site.rate_hz, rng)
    return signal


def _electrodes(rng: np.random.Generator) -> Floats:
    """Lead vectors (8, 3) of this body and these electrode places."""
    length: Floats = np.linalg.norm(DOWER, axis=1, keepdims=True)
    offset: Floats = value("noise.electrodes") / np.sqrt(3.0) * length * rng.standard_normal(DOWER.shape)
    return DOWER + offset


def _own_shape(waves: Beats, row: int, rng: np.random.Generator) -> Beats:
    """The patient's beat with each wave's vector a little off the model's."""
    vector = waves.vector_mv[row : row + 1]
    length = np.linalg.norm(vector, axis=-1, keepdims=True)
    jitter = value("noise.shape") * length * rng.standard_normal(vector.shape) / np.sqrt(3.0)
    one = slice(row, row + 1)
    return replace(waves, vector_mv=vector + jitter, centre_s=waves.centre_s[one], width_s=waves.width_s[one])


def _fibrillation(rate_hz: float, rng: np.random.Generator) -> Signal:
    """f-waves (samples,), mV in V1: 4-9 Hz, wandering in rate and size."""
    time = np.arange(round(SECONDS * rate_hz), dtype=np.float32) / np.float32(rate_hz)
    centre_hz, wave = rng.uniform(5.0, 7.0), np.zeros_like(time)
    for _ in range(3):
        rate, slow, depth = centre_hz + rng.normal(0.0, 0.6), rng.uniform(0.1, 0.5), rng.uniform(0.5, 1.5)
        phase = 2 * np.pi * rng.random(2)
        wave += np.sin(
            np.float32(2 * np.pi * rate) * time
            + np.float32(depth) * np.sin(np.float32(2 * np.pi * slow) * time + np.float32(phase[0]))
            + np.float32(phase[1])
        )
    size = value("noise.fibrillation") * np.exp(0.35 * rng.standard_normal())
    return wave * np.float32(size / 1.7)


def _noise(site: SiteProfile, rng: np.random.Generator) -> Signal:
    """Wander, hum and muscle noise (8, samples), mV."""
    time = np.arange(round(SECONDS * site.rate_hz), dtype=np.float32) / np.float32(site.rate_hz)
    wander_mv, hum_mv, emg_mv = (
        site.noise * value(f"noise.{kind}") * np.exp(value("noise.spread") * rng.standard_normal())
        for kind in ("wander", "hum", "emg")
    )
    hertz = np.append(rng.uniform(0.1, 0.5, 3), site.powerline_hz)
    waves = np.float32(2 * np.pi) * hertz.astype(np.float32)[:, None] * time
    basis = np.concatenate([np.sin(waves), np.cos(waves)])
    size = np.tile(np.append(np.full(3, wander_mv / np.sqrt(3.0)), hum_mv / np.sqrt(2.0)), 2)
    weights = (size * rng.standard_normal((8, 8))).astype(np.float32)
    # White up to half the sampling rate: the same density at every rate.
    white: Signal = rng.standard_normal((8, len(time)), dtype=np.float32)
    white *= np.float32(emg_mv * np.sqrt(site.rate_hz / 500.0))
    white += weights @ basis
    return white
