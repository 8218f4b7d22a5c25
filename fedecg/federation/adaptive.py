"""Adaptive steps at the server, fedadam and fedyogi: how far the sites have moved is the gradient of Adam or Yogi.

In:  the weights that were sent, the sites' weighted mean, what is remembered of earlier rounds. Out: the next weights
     and the moments after this round. Called by the server's rounds; knows neither Flower nor files.

The arithmetic is that of Flower 1.39's `FedAdam` and `FedYogi`, number by number (a test compares them), on our flat
vector: Flower's own strategies keep their moments in a process that must not end, send each tensor apart, and know
neither rounds that are repeated nor checkpoints. The steps happen at the server alone: a site makes the same local
steps and sends the same bytes as with fedavg.

Running statistics of a batch norm are no weights and take the plain mean: an adaptive step could make a variance
negative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedecg.config import FederationSettings
from fedecg.federation.aggregation import BLOCK
from fedecg.model.learned import Piece

__all__ = ["ADAPTIVE", "Moments", "adaptive_step"]

Vector = NDArray[np.float32]

ADAPTIVE = ("fedadam", "fedyogi")


@dataclass(frozen=True, eq=False)
class Moments:
    """What is remembered of the sites' moves, both (P,) float32: their running mean, and that of their squares."""

    first: Vector
    second: Vector

    @staticmethod
    def none(size: int) -> Moments:
        """Before the first round of a stage."""
        return Moments(np.zeros(size, np.float32), np.zeros(size, np.float32))


def adaptive_step(
    settings: FederationSettings,
    pieces: Sequence[Piece],
    moments: Moments,
    sent: Vector,
    averaged: Vector,
    number: int,
) -> tuple[Vector, Moments]:
    """One step of fedadam or fedyogi.

    With d = averaged - sent: m <- b1 m + (1 - b1) d; fedadam v <- b2 v + (1 - b2) d^2, and a bias-corrected rate
    (exponent: round + 1, as Flower has it); fedyogi v <- v - (1 - b2) d^2 sign(v - d^2); then
    w <- sent + rate * m / (sqrt(v) + tau).

    Args:
        settings: algorithm, `server-rate`, `beta-1`, `beta-2`, `tau`.
        pieces: of the vector.
        moments: after the round before.
        sent: (P,) weights that the sites began with.
        averaged: (P,) weighted mean of what came back.
        number: of the round in its stage, from 1.

    Returns:
        (P,) float32, and the moments after this round.

    Source: Reddi et al. 2021, arXiv 2003.00295, algorithm 2; `flwr.serverapp.strategy.FedAdam`, `.FedYogi`.
    """
    after = averaged.copy()
    first, second = moments.first.copy(), moments.second.copy()
    rate = _rate(settings, number)
    for piece in pieces:
        if not piece.parameter:
            continue
        for start in range(piece.start, piece.stop, BLOCK):
            part = slice(start, min(start + BLOCK, piece.stop))
            moved = averaged[part] - sent[part]
            first[part] = settings.beta_1 * first[part] + (1 - settings.beta_1) * moved
            second[part] = _second(settings, second[part], np.square(moved))
            after[part] = sent[part] + rate * first[part] / (np.sqrt(second[part]) + settings.tau)
    return after, Moments(first, second)


def _second(settings: FederationSettings, before: Vector, squares: Vector) -> Vector:
    after: Vector
    if settings.algorithm == "fedadam":
        after = settings.beta_2 * before + (1 - settings.beta_2) * squares
    else:
        after = before - (1 - settings.beta_2) * squares * np.sign(before - squares)
    return after


def _rate(settings: FederationSettings, number: int) -> float | np.float64:
    """Of fedadam corrected for moments that begin with 0; in float64 as Flower computes it, of fedyogi as it is."""
    if settings.algorithm == "fedyogi":
        return settings.server_rate
    correction = math.sqrt(1 - settings.beta_2 ** (number + 1)) / (1 - settings.beta_1 ** (number + 1))
    return np.float64(settings.server_rate * correction)
