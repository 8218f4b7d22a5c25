"""A clean synthetic 12-lead ECG for the tests of the signals room, and WFDB files written from it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import wfdb
from numpy.typing import NDArray

from fedecg.signals import LEADS, Recording

Ecg = Callable[..., Recording]


def heart(time_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """(samples,) P, QRS and T waves at 70 beats a minute, 1 mV R wave, starting anywhere in a beat."""
    phase_s = (time_s + 0.31) % (60 / 70)
    waves = [
        (0.12, 0.1, 0.025),
        (0.24, -0.15, 0.008),
        (0.27, 1.0, 0.011),
        (0.30, -0.25, 0.009),
        (0.55, 0.3, 0.05),
    ]
    return sum(height * np.exp(-0.5 * ((phase_s - at) / width) ** 2) for at, height, width in waves)


@pytest.fixture
def ecg() -> Ecg:
    def make(
        rate_hz: float = 500.0, seconds: float = 10.0, wander_mv: float = 0.2, from_s: float = 0.0
    ) -> Recording:
        time_s = from_s + np.arange(round(seconds * rate_hz)) / rate_hz
        beat, wander = heart(time_s), wander_mv * np.sin(2 * np.pi * 0.2 * time_s)
        one, two = 0.7 * beat + wander, 1.1 * beat - 0.5 * wander
        limbs = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
        chest = [factor * beat + wander for factor in (-0.6, -0.4, 0.5, 1.2, 1.4, 1.0)]
        return Recording(np.array(limbs + chest, dtype=np.float32), rate_hz)

    return make


@pytest.fixture
def write_wfdb(tmp_path: Path) -> Callable[..., Path]:
    """Write a recording with the wfdb package; returns the header's path."""

    def write(
        recording: Recording, name: str = "rec", fmt: str = "16", leads: tuple[str, ...] = LEADS
    ) -> Path:
        rows = [LEADS.index(lead) for lead in leads]
        wfdb.wrsamp(
            name,
            fs=recording.rate_hz,
            units=["mV"] * len(leads),
            sig_name=list(leads),
            p_signal=recording.signal_mv[rows].T.astype(np.float64),
            fmt=[fmt] * len(leads),
            adc_gain=[1000.0 if fmt == "16" else 200.0] * len(leads),
            baseline=[0] * len(leads),
            write_dir=str(tmp_path),
        )
        return tmp_path / f"{name}.hea"

    return write
