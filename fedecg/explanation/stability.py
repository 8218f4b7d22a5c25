"""Stability over seeds: do networks that differ in their seed alone look at the same places?

In:  at least two networks and signals (n, 12, samples) in mV.
Out: `StabilitySums`, which add up over sites; `Stability`. Called by `faithfulness`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import ModelError
from fedecg.explanation.attention import attend
from fedecg.explanation.ranks import spearman
from fedecg.model import Network

__all__ = ["Stability", "StabilitySums", "stability", "stability_sums"]


@dataclass(frozen=True)
class StabilitySums:
    """Agreement of several models, additive over sites.

    Attributes:
        ecgs: how many.
        models: how many were compared, each with each.
        time: sum over ECGs of the Spearman correlation of two models' time attention (mean over leads and pairs).
        leads: the same of the attention that the leads receive.
    """

    ecgs: int
    models: int
    time: float
    leads: float

    def __add__(self, other: StabilitySums) -> StabilitySums:
        if self.models != other.models:
            raise ModelError(
                "FECG-355",
                "sums of the stability over seeds",
                found=f"sums of {self.models} and of {other.models} models",
                expected="sums of the same models",
                fix="Compare the same models at every site.",
            )
        return StabilitySums(
            self.ecgs + other.ecgs, self.models, self.time + other.time, self.leads + other.leads
        )


@dataclass(frozen=True)
class Stability:
    """Result; NaN without an ECG.

    Attributes:
        models: how many were compared.
        time, leads: mean Spearman correlation of two models, in [-1, 1].
    """

    models: int
    time: float
    leads: float


def stability_sums(networks: Sequence[Network], signal_mv: NDArray[np.float32]) -> StabilitySums:
    """Compare the attention of each two networks on the same ECGs.

    Args:
        networks: at least two, of one signal length, as a rule one study with several seeds.
        signal_mv: (n, 12, samples) float32, mV.

    Raises:
        ModelError: FECG-353, signals that do not fit; FECG-354, networks of different lengths; FECG-356, fewer
            than two networks.
    """
    if len(networks) < 2:
        raise ModelError(
            "FECG-356",
            "models to be compared",
            found=f"{len(networks)}",
            expected="at least two models of one study",
            fix="Train the study with another seed.",
        )
    lengths = {network.samples for network in networks}
    if len(lengths) > 1:
        raise ModelError(
            "FECG-354",
            "models to be compared",
            found=f"signals of {len(lengths)} different lengths",
            expected="the same number of steps",
            fix="Compare and add up models of one signal length only.",
        )
    pairs = list(combinations([attend(network, signal_mv) for network in networks], 2))
    time = np.mean([spearman(one.time, two.time).mean(axis=1).sum() for one, two in pairs])
    leads = np.mean([spearman(one.bars, two.bars).sum() for one, two in pairs])
    return StabilitySums(len(signal_mv), len(networks), float(time), float(leads))


def stability(sums: StabilitySums) -> Stability:
    """Mean correlations."""
    ecgs = sums.ecgs or np.nan
    return Stability(sums.models, sums.time / ecgs, sums.leads / ecgs)
