"""ECGs of beats with a spike planted in some, and networks to explain."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedecg.config import ModelSettings
from fedecg.model import Network, build_network

RATE_HZ = 100
SPIKE_LEAD, SPIKE_SHARE = 7, 5 / 8  # V2; where in the recording


@dataclass(frozen=True)
class Planted:
    """ECGs, their outcomes, and which of them carry the spike that decides the hazard."""

    signal_mv: NDArray[np.float32]
    carrier: NDArray[np.bool_]
    time: NDArray[np.float64]
    event: NDArray[np.bool_]
    sample: int


def make_planted_ecgs(records: int, samples: int, rng: np.random.Generator) -> Planted:
    """Beats at a random rate; in half of the ECGs one spike of 1.5 mV in V2, which raises the hazard 20 times."""
    carrier = rng.random(records) < 0.5
    sample = round(SPIKE_SHARE * samples)
    time_s = np.arange(samples) / RATE_HZ
    interval_s = rng.uniform(0.6, 1.1, (records, 1))
    phase_s = (time_s + rng.uniform(0, 1, (records, 1))) % interval_s - interval_s / 2
    wave = np.exp(-0.5 * (phase_s / 0.03) ** 2) + 0.2 * np.exp(-0.5 * ((phase_s - 0.22) / 0.05) ** 2)
    height_mv = rng.normal(0.8, 0.25, (records, 12)) * np.sign(np.linspace(-1, 1.2, 12))
    signal_mv = height_mv[:, :, None] * wave[:, None] + 0.03 * rng.standard_normal((records, 12, samples))
    spike_mv = 1.5 * np.exp(-0.5 * ((time_s - sample / RATE_HZ) / 0.02) ** 2)
    signal_mv[:, SPIKE_LEAD] += carrier[:, None] * spike_mv
    time = rng.exponential(1000 * np.exp(-3.0 * carrier))
    return Planted(signal_mv.astype(np.float32), carrier, time, time < 2000, sample)


def train_on(planted: Planted, samples: int, epochs: int, seed: int = 0) -> Network:
    """The `small` network after some epochs of the Cox loss on the planted ECGs."""
    rng = np.random.default_rng(seed)
    network = build_network(ModelSettings(size="small"), samples, 8, seed=seed).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    signal, event = torch.from_numpy(planted.signal_mv), torch.from_numpy(planted.event)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(epochs):
            for rows in np.array_split(rng.permutation(len(signal)), max(len(signal) // 50, 1)):
                latest_first = rows[np.argsort(-planted.time[rows])].copy()
                eta = network.log_hazard(network.embed(signal[latest_first]))
                loss = -(eta - torch.logcumsumexp(eta, 0))[event[latest_first]].mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return network.eval()


@pytest.fixture(scope="session")
def planted_ecgs() -> Callable[..., Planted]:
    """The function, since a test that wants other ECGs cannot import a conftest."""
    return make_planted_ecgs


@pytest.fixture(scope="session")
def trained_on() -> Callable[..., Network]:
    """The function, for other ECGs and seeds."""
    return train_on


@pytest.fixture(scope="session")
def ecgs() -> Planted:
    """Forty ECGs of 256 samples."""
    return make_planted_ecgs(40, 256, np.random.default_rng(1))


@pytest.fixture(scope="session")
def network() -> Network:
    """An untrained `small` network for 256 samples."""
    return build_network(ModelSettings(size="small"), 256, 8, seed=3).eval()


@pytest.fixture(scope="session")
def paper_network() -> Network:
    """An untrained `paper` network for 256 samples."""
    return build_network(ModelSettings(preset="paper"), 256, 8, seed=3).eval()


@pytest.fixture(scope="session")
def learned() -> Network:
    """A `small` network that has learned the planted spike."""
    return train_on(make_planted_ecgs(300, 256, np.random.default_rng(1)), 256, epochs=20, seed=1)
