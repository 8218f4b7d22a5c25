"""Have ECG embeddings collapsed? How many directions they fill, against those that their targets fill.

In:  a network after a local round, a `SiteData`, the bank. Out: `Ranks`. Called by `fedecg.training.local` at the end
     of alignment and every few rounds; whether the numbers leave the site is `PrivacySettings.tells_of_alignment`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedecg.config import AlignSettings
from fedecg.model import Network
from fedecg.objectives import COLLAPSED_BELOW
from fedecg.text.separation import effective_rank
from fedecg.training.randomness import site_generator
from fedecg.training.site_data import SiteData

__all__ = ["EVERY", "FEWEST_RECORDS", "MOST_RECORDS", "Ranks", "ranks", "ranks_are_due"]

MOST_RECORDS, FEWEST_RECORDS = 512, 10
EVERY = 5  # rounds

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Ranks:
    """Effective ranks of what stands for the same records.

    Attributes:
        records: that were looked at.
        embeddings: of their ECGs' projected embeddings, each of length 1.
        targets: of the vectors that these were pulled to, each of length 1.
    """

    records: int
    embeddings: float
    targets: float

    @property
    def collapsed(self) -> bool:
        """True where ECGs fill less than half of the directions that their targets fill."""
        return self.embeddings < COLLAPSED_BELOW * self.targets


def ranks_are_due(stage: AlignSettings, round_index: int) -> bool:
    """Every few rounds, and after the last."""
    return round_index % EVERY == 0 or round_index >= stage.rounds


def ranks(
    network: Network, site: SiteData, bank_vectors: Floats, seed: int, batch_size: int = 128
) -> Ranks | None:
    """Effective ranks on at most 512 of the site's records that state something, of the parts that training may see.

    The same records in every round: validation where it states enough, else what alignment learns from. Dropout and
    lead masking are off; no random number is drawn from torch.

    Returns:
        None of fewer than 10 such records.

    Source: Roy & Vetterli 2007, EUSIPCO (effective rank); Jing et al. 2022, arXiv 2110.09348 (collapse of dimensions).
    """
    rows = _sample(site, seed)
    if len(rows) < FEWEST_RECORDS:
        return None
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            projected = [
                network.project(network.embed(site.signals(rows[start : start + batch_size])))
                .double()
                .numpy()
                for start in range(0, len(rows), batch_size)
            ]
    finally:
        network.train(training)
    embeddings = effective_rank(_unit(np.concatenate(projected)))
    return Ranks(len(rows), embeddings, effective_rank(_unit(site.targets[rows] @ bank_vectors)))


def _sample(site: SiteData, seed: int) -> Rows:
    stated = np.any(site.targets != 0, axis=1)
    of_validation, of_training = (
        rows[stated[rows]] for rows in (site.rows("validation"), site.rows_to_align())
    )
    rows = of_validation if len(of_validation) >= MOST_RECORDS // 4 else of_training
    return np.sort(site_generator(seed, site.name, "collapse", 0).permutation(rows)[:MOST_RECORDS])


def _unit(vectors: NDArray[np.floating]) -> Floats:
    length = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    unit: NDArray[np.float64] = np.divide(vectors, length, out=np.zeros(vectors.shape), where=length > 0)
    return unit.astype(np.float32)
