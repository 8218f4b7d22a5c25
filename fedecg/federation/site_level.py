"""Differential privacy of sites: each update clipped, noise in their sum, a mean that counts every site the same.

In:  weights before and after a local round; the sites' updates, or their sum. Out: what a site sends; the next weights.
The first half is called by the client, the second by the server, which counts the release before (`site_releases`).

Guarantees:
    The sum of updates moves by at most `clip` (Euclidean) when a site is added or removed, whatever that site sends in
    the plain: the coordinator clips again what a site should have clipped. Under masks it cannot look, and relies on
    the sites. The sum is divided by a number that does not depend on who answered. Gaussian noise, from the
    operating system's randomness, is added to every weight that any site may have moved.
    Only what follows from the aggregate alone is protected by it. Nothing of it protects sums, counts, losses, or
    updates against the coordinator, who reads them before there is noise.

Source: McMahan et al. 2018, Learning Differentially Private Recurrent Language Models, arXiv 1710.06963.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedecg.federation.aggregation import BLOCK, Update, update_norm
from fedecg.model.learned import Piece
from fedecg.privacy.fixed_point import update_error

__all__ = ["clipped", "masked_sensitivity", "noised_mean", "noised_mean_of_sum"]

Vector = NDArray[np.float32]

ROUNDING = 2.0**-23  # of a difference of two float32, relative, and its rounding
MOST_TRIES = 40


def clipped(trained: Vector, received: Vector, clip: float) -> Vector:
    """Weights whose distance from those that came is at most `clip`, also after they are rounded to float32.

    Args:
        trained, received: (P,) weights after and before a local round.
        clip: > 0, Euclidean; measured in float64.

    Returns:
        (P,): the same where they are near enough, or not finite (which the coordinator refuses).
    """
    length, before = update_norm(trained, received), received.astype(np.float64)
    if length <= clip or not math.isfinite(length):
        return trained
    change, scale, margin = trained.astype(np.float64) - before, clip / length, 2.0**-24
    for _ in range(MOST_TRIES):  # rounding may lengthen it; then a little less
        near = (before + change * scale).astype(np.float32)
        found = update_norm(near, received)
        if found <= clip:
            return near
        scale *= clip / found * (1 - margin)
        margin = min(2 * margin, 0.5)
    return received.copy()  # a clip that is finer than float32


def noised_mean(
    sent: Vector,
    updates: Mapping[str, Update],
    clip: float,
    noise: float,
    expected: int,
    generator: np.random.Generator,
    pieces: Sequence[Piece] = (),
) -> Vector:
    """The next weights: `sent` plus (sum of clipped updates + noise) / expected.

    Args:
        sent: (P,) weights that the sites began with.
        updates: site -> (P,) checked weights; clipped again.
        clip: Euclidean bound of one update.
        noise: standard deviation over `clip`.
        expected: sites that should take part in a round, whoever answered.
        generator: of the noise; secret.
        pieces: of the vector; what no site moves in this round (rate 0) stays as it was, without noise. None: all move.

    Returns:
        (P,) float32; sums are in float64, in the order of names.
    """
    names = sorted(updates)
    factors = {name: min(1.0, clip / max(_length(updates[name], sent), clip)) for name in names}
    total = np.zeros(len(sent))
    for part in _blocks(len(sent)):
        for name in names:
            total[part] += (updates[name][part].astype(np.float64) - sent[part]) * factors[name]
    return noised_mean_of_sum(sent, total, clip, noise, expected, generator, pieces)


def noised_mean_of_sum(
    sent: Vector,
    total: NDArray[np.float64],
    sensitivity: float,
    noise: float,
    expected: int,
    generator: np.random.Generator,
    pieces: Sequence[Piece] = (),
) -> Vector:
    """The same where only the sum of the changes is known (masked sums).

    Args:
        total: (P,) sum of the clipped changes.
        sensitivity: how far one site can have moved it; the noise is in units of it.
        sent, noise, expected, generator, pieces: as of `noised_mean`.
    """
    moved = _moved(len(sent), pieces)
    out = sent.copy()
    for part in _blocks(len(sent)):
        drawn = generator.standard_normal(part.stop - part.start) * (noise * sensitivity)
        after = sent[part] + (total[part] + drawn) / expected
        out[part] = np.where(moved[part], after, sent[part])
    return out


def masked_sensitivity(clip: float, size: int, sites: int, bound: float) -> float:
    """How far one site can move a sum of masked updates: the clip, and what their rounding to whole steps adds.

    Args:
        clip: of one update.
        size: P. sites: with keys in the sum. bound: `masked-bound`.
    """
    return clip * (1 + ROUNDING) + math.sqrt(size) * update_error(sites, bound)


def _moved(size: int, pieces: Sequence[Piece]) -> NDArray[np.bool_]:
    moved = np.full(size, not pieces)
    for piece in pieces:
        moved[piece.inside] = piece.rate > 0 or not piece.parameter
    return moved


def _length(update: Update, sent: Vector) -> float:
    parts = (update[part].astype(np.float64) - sent[part] for part in _blocks(len(sent)))
    return math.sqrt(sum(float(np.square(part).sum()) for part in parts))


def _blocks(size: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK)]
