"""The small preset learns morphology and voltage from few signals."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from fedecg.config import ModelSettings
from fedecg.model import build_network

RATE_HZ, SAMPLES = 100, 512
TRAIN, TEST = 300, 300


def beats(rule: str, rng: np.random.Generator) -> tuple[Tensor, NDArray[np.bool_]]:
    """Spikes at a random rate, one vector for 12 leads; half of the records have wide QRS or high V5 and V6."""
    records = TRAIN + TEST
    positive = rng.random(records) < 0.5
    sigma_s = np.where(positive & (rule == "width"), 0.045, 0.025) * rng.uniform(0.9, 1.1, records)
    leads_mv = rng.normal(0.8, 0.25, (records, 12)) * np.sign(np.linspace(-1, 1.2, 12))
    leads_mv[:, 10:] *= np.where(positive & (rule == "voltage"), 1.9, 1.0)[:, None]
    time_s = np.arange(SAMPLES) / RATE_HZ
    interval_s = rng.uniform(0.6, 1.1, records)[:, None]
    phase_s = (time_s + rng.uniform(0, 1, (records, 1))) % interval_s - interval_s / 2
    wave = np.exp(-0.5 * (phase_s / sigma_s[:, None]) ** 2) + 0.2 * np.exp(
        -0.5 * ((phase_s - 0.22) / 0.05) ** 2
    )
    signal_mv = leads_mv[:, :, None] * wave[:, None] + 0.03 * rng.standard_normal((records, 12, SAMPLES))
    return torch.from_numpy(signal_mv.astype(np.float32)), positive


def area_under_curve(score: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    ranks, n = rankdata(score), int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(positive) - n)))


@pytest.mark.parametrize("rule", ["width", "voltage"])
def test_the_small_preset_learns_a_planted_rule_from_300_signals(rule: str) -> None:
    rng = np.random.default_rng(5)
    signal_mv, positive = beats(rule, rng)
    label = torch.from_numpy(positive.astype(np.float32))
    network = build_network(ModelSettings(size="small"), SAMPLES, 8, seed=0).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2, fused=True)
    for _ in range(10):
        for rows in np.array_split(rng.permutation(TRAIN), 6):
            logit = network.log_hazard(network.embed(signal_mv[rows]))
            optimizer.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(logit, label[rows]).backward()
            optimizer.step()
    with torch.no_grad():
        score = network.eval().log_hazard(network.embed(signal_mv[TRAIN:])).double().numpy()
    assert area_under_curve(score, positive[TRAIN:]) >= 0.9
