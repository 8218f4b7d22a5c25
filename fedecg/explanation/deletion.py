"""Deletion and insertion: does the log hazard hang on the time that attention marks?

In:  a network and signals (n, 12, samples) in mV.
Out: `DeletionSums`, which add up over sites; `Deletion`, curves and areas with intervals. Called by `faithfulness`.

In every lead the same share of steps is hidden, those with the most attention first (deletion), or all but those
(insertion). The order within the leads is compared with a random one and with |gradient x input|. How far the log
hazard moves is measured, in either direction; what counts is the area between two curves, ECG by ECG.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from fedecg.errors import ModelError
from fedecg.explanation.attention import attend
from fedecg.explanation.hiding import gradient_times_input, hidden_step_hazards, plain_hazards
from fedecg.model import Network

__all__ = ["ORDERS", "SHARES", "AreaDifference", "Deletion", "DeletionSums", "deletion", "deletion_sums"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

ORDERS = ("attention", "random", "gradient x input")
SHARES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)  # of the steps of each lead; at 0 and 1 all orders agree
ONE_SIDED = 0.025


@dataclass(frozen=True, eq=False)
class DeletionSums:
    """Curves and areas, additive over sites.

    Attributes:
        ecgs: how many.
        counts: (points,) int64, steps hidden (deletion) or kept (insertion) in each lead; from 0 to all.
        deletion: (3, points) sum over ECGs of |log hazard with the first steps of an order hidden - as it is|.
        insertion: (3, points) sum over ECGs of |log hazard with all but those hidden - as it is|.
        area: (2, 2) sum over ECGs of attention's area less that of the random order, less that of gradient x input
            (columns); rows: deletion, insertion; signed so that > 0 speaks for attention. Unit: log hazard.
        squared: (2, 2) sum of the squares of what `area` adds up.
    """

    ecgs: int
    counts: Int64
    deletion: Float64
    insertion: Float64
    area: Float64
    squared: Float64

    def __add__(self, other: DeletionSums) -> DeletionSums:
        if not np.array_equal(self.counts, other.counts):
            raise ModelError(
                "FECG-355",
                "sums of deletion and insertion",
                found=f"{len(self.counts)} and {len(other.counts)} points of different steps",
                expected="the same points",
                fix="Add up sums of one model only.",
            )
        return DeletionSums(
            self.ecgs + other.ecgs,
            self.counts,
            self.deletion + other.deletion,
            self.insertion + other.insertion,
            self.area + other.area,
            self.squared + other.squared,
        )


@dataclass(frozen=True)
class AreaDifference:
    """Mean difference of two areas over ECGs, log hazard; > 0: attention's order is the better one.

    Attributes:
        value: NaN without an ECG.
        low, high: 95 % interval (Student's t over ECGs); NaN below 2 ECGs.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Deletion:
    """Result of deletion and insertion.

    Attributes:
        ecgs: how many.
        shares: (points,) of the steps, from 0 to 1.
        deletion, insertion: (3, points) mean curves by order (`ORDERS`), log hazard.
        deletion_random, deletion_gradient: attention's area less the other's, deletion.
        insertion_random, insertion_gradient: the same for insertion.
    """

    ecgs: int
    shares: Float64
    deletion: Float64
    insertion: Float64
    deletion_random: AreaDifference
    deletion_gradient: AreaDifference
    insertion_random: AreaDifference
    insertion_gradient: AreaDifference


def deletion_sums(network: Network, signal_mv: Float32, rng: np.random.Generator) -> DeletionSums:
    """Hide and keep growing shares of the steps in three orders; about 37 forward passes an ECG.

    Args:
        network: any; comes back in its mode.
        signal_mv: (n, 12, samples) float32, mV.
        rng: of the random order.

    Raises:
        ModelError: FECG-353, signals that do not fit.

    Source: Petsiuk et al. 2018 (RISE), deletion and insertion; the area over the curve as in Samek et al. 2017.
    """
    attention = attend(network, signal_mv)
    steps = attention.steps
    counts = np.unique([0, *(round(share * steps) for share in SHARES), steps])
    plain = plain_hazards(network, signal_mv)
    scores = (attention.time, rng.random(attention.time.shape), gradient_times_input(network, signal_mv))
    moved = np.zeros((len(scores), 2, len(counts), len(plain)))
    # Where nothing is hidden nothing moves; where all is, all orders are one.
    all_hidden = hidden_step_hazards(
        network, signal_mv, np.ones((1, 1, *attention.time.shape[1:]), dtype=np.bool_)
    )
    moved[:, 0, -1] = moved[:, 1, 0] = np.abs(all_hidden[0] - plain)
    for number, score in enumerate(scores):
        moved[number, :, 1:-1] = _moved(network, signal_mv, score, counts[1:-1], plain)
    area = np.asarray(np.trapezoid(moved, counts / steps, axis=2))  # (3, 2, n)
    # Deletion is the better the more the log hazard moves, insertion the less of the way is left.
    gain = np.stack([area[0] - area[1], area[0] - area[2]], axis=1) * np.array([1.0, -1.0])[:, None, None]
    curves = moved.sum(axis=3)
    return DeletionSums(
        len(plain), counts, curves[:, 0], curves[:, 1], gain.sum(axis=2), (gain**2).sum(axis=2)
    )


def deletion(sums: DeletionSums) -> Deletion:
    """Mean curves and area differences with intervals."""
    ecgs = sums.ecgs or np.nan
    of_deletion, of_insertion = (
        [_interval(sums.ecgs, *pair) for pair in zip(*rows, strict=True)]
        for rows in zip(sums.area.tolist(), sums.squared.tolist(), strict=True)
    )
    return Deletion(
        sums.ecgs,
        sums.counts / sums.counts[-1],
        sums.deletion / ecgs,
        sums.insertion / ecgs,
        *of_deletion,
        *of_insertion,
    )


def _moved(network: Network, signal_mv: Float32, score: Float64, counts: Int64, plain: Float64) -> Float64:
    """(2, points, n): how far the log hazard lies from the plain one, deleted and inserted to each count."""
    rank = np.argsort(np.argsort(-score, axis=2, kind="stable"), axis=2)
    first = rank[None] < counts[:, None, None, None]
    return np.stack(
        [np.abs(hidden_step_hazards(network, signal_mv, hidden) - plain) for hidden in (first, ~first)]
    )


def _interval(ecgs: int, total: float, squared: float) -> AreaDifference:
    if not ecgs:
        return AreaDifference(math.nan, math.nan, math.nan)
    mean = total / ecgs
    if ecgs < 2:
        return AreaDifference(mean, math.nan, math.nan)
    variance = max(squared - ecgs * mean**2, 0.0) / (ecgs - 1)
    half = -float(stdtrit(ecgs - 1, ONE_SIDED)) * math.sqrt(variance / ecgs)
    return AreaDifference(mean, mean - half, mean + half)
