"""Weight randomisation: are the maps of attention told apart from those of networks that have learnt nothing?

In:  a network and signals (n, 12, samples) in mV.
Out: `RandomisationSums`, which add up over sites; `Randomisation`, the result. Called by `faithfulness`.

The copies are the network itself with the entries of every tensor of its encoder shuffled: same values, no order. A
network whose weights are shuffled is one of its own copies, so the rank of its distance among theirs is uniform: it
passes by chance once in (copies + 1) times for each kind of map, whatever the ECGs. Only the encoder is shuffled, as a
map of attention does not depend on the risk head: it would be the same for a head that says the opposite.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedecg.errors import ModelError
from fedecg.explanation.attention import Attention, attend
from fedecg.explanation.ranks import spearman
from fedecg.model import Network

__all__ = ["Randomisation", "RandomisationSums", "randomisation", "randomisation_sums", "shuffled"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

COPIES = 19  # the smallest number that can give p = 0.05


@dataclass(frozen=True, eq=False)
class RandomisationSums:
    """Distances of a network and its copies, additive over sites that shuffle with the same seed.

    Attributes:
        ecgs: how many.
        seed: of the shuffles, public.
        distance: (2, 1 + copies) sum over ECGs; rows: time, leads; first column: the network itself. Each is the
            total variation between one network's map and the mean map of the others, mean over leads, in [0, 1].
        similarity: (2,) sum over ECGs of the mean Spearman correlation of the network's maps with the copies'.
    """

    ecgs: int
    seed: int
    distance: Float64
    similarity: Float64

    def __add__(self, other: RandomisationSums) -> RandomisationSums:
        if (self.seed, self.distance.shape) != (other.seed, other.distance.shape):
            raise ModelError(
                "FECG-355",
                "sums of the weight randomisation",
                found="sums of different copies of the network",
                expected="one seed and one number of copies",
                fix="All sites shuffle with the study's seed.",
            )
        return RandomisationSums(
            self.ecgs + other.ecgs,
            self.seed,
            self.distance + other.distance,
            self.similarity + other.similarity,
        )


@dataclass(frozen=True)
class Randomisation:
    """Result for one kind of map; NaN where there is no ECG.

    Attributes:
        distance: mean distance of the network's maps from those of its copies.
        copies_distance: the same of the copies among themselves, their highest.
        p_value: share of the 1 + copies networks that are at least as far from the others as this one.
        similarity: mean Spearman correlation with the copies' maps; 1 = the weights do not matter.
    """

    distance: float
    copies_distance: float
    p_value: float
    similarity: float


def randomisation_sums(
    network: Network, signal_mv: Float32, seed: int, copies: int = COPIES
) -> RandomisationSums:
    """Compare a network's maps with those of shuffled copies, which takes 1 + copies passes of the encoder.

    Args:
        network: in any mode; it stays as it is.
        signal_mv: (n, 12, samples) float32, mV.
        seed: public, the same at every site.
        copies: at least 1.

    Raises:
        ModelError: FECG-353, signals that do not fit.

    Source: Adebayo et al. 2018, Sanity checks for saliency maps; the rank test is that of a permutation (Fisher 1935).
    """
    own = attend(network, signal_mv)
    others = [attend(shuffled(network, seed, number), signal_mv) for number in range(copies)]
    results = [_compare([_maps(one, kind) for one in (own, *others)]) for kind in ("time", "leads")]
    return RandomisationSums(
        len(own.time),
        seed,
        np.stack([distance for distance, _ in results]),
        np.array([similarity for _, similarity in results]),
    )


def randomisation(sums: RandomisationSums) -> tuple[Randomisation, Randomisation]:
    """Results for time attention and for attention across leads, in this order."""
    time, leads = (_result(sums, kind) for kind in range(2))
    return time, leads


def shuffled(network: Network, seed: int, number: int = 0) -> Network:
    """A copy of a network with the entries of every parameter of its encoder in random order.

    Args:
        network: stays as it is.
        seed, number: name the shuffle; the same for the same two.
    """
    other = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(
        int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    )
    with torch.no_grad():
        for parameter in other.encoder.parameters():
            order = torch.randperm(parameter.numel(), generator=generator)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return other


def _maps(attention: Attention, kind: str) -> Float64:
    return attention.time if kind == "time" else attention.leads


def _compare(maps: list[Float64]) -> tuple[Float64, float]:
    """Distances (1 + copies,) and similarity, summed over ECGs; each map is (n, 12, k), the first the network's."""
    total = np.sum(maps, axis=0)
    distance = [
        np.abs(own - (total - own) / (len(maps) - 1)).sum(axis=2).mean(axis=1).sum() / 2 for own in maps
    ]
    similarity = np.mean([spearman(maps[0], other).mean(axis=1).sum() for other in maps[1:]])
    return np.array(distance), float(similarity)


def _result(sums: RandomisationSums, kind: int) -> Randomisation:
    if not sums.ecgs:
        return Randomisation(np.nan, np.nan, np.nan, np.nan)
    own, *others = sums.distance[kind] / sums.ecgs
    at_least = 1 + sum(other >= own for other in others)
    return Randomisation(
        float(own),
        float(max(others)),
        float(at_least / (1 + len(others))),
        float(sums.similarity[kind] / sums.ecgs),
    )
