"""What an attacker's guesses prove about epsilon: audits with canaries in one run; plain functions, no pytest.

In:  m canaries, each in the data with chance 1/2, by itself; a score of each that is read off what was released.
Out: a lower bound of epsilon that holds with 95 % confidence, whatever the attack.

Source: Steinke, Nasr, Jagielski 2023, arXiv 2305.08846 (corollary 5.4, appendix D).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

CONFIDENCE = 0.95
MOST_EPSILON = 50.0


@dataclass(frozen=True)
class Guesses:
    """How often an attacker dared to say whether a canary is in the data, and how often that was right.

    Attributes:
        canaries: m, in all.
        made: r, of them guessed.
        right: v, of these.
    """

    canaries: int
    made: int
    right: int


def guesses_of(
    scores: NDArray[np.float64], inside: NDArray[np.bool_], most: int, least: int | None = None
) -> Guesses:
    """Guess that the highest scores are in and the lowest are out; how many of each is fixed before a look at them.

    Args:
        scores: (m,), higher = rather in.
        inside: (m,), the truth.
        most, least: how many to call in, and out; `least` None: as many.
    """
    least = most if least is None else least
    order = np.argsort(scores, kind="stable")
    said_in, said_out = order[len(order) - most :], order[:least]
    return Guesses(len(scores), most + least, int(inside[said_in].sum() + (~inside[said_out]).sum()))


def p_value(found: Guesses, epsilon: float, delta: float) -> float:
    """Chance of so many right guesses, or more, if the mechanism is (epsilon, delta)-private.

    The guesses of an attacker on an epsilon-private mechanism are right no more often than coins of chance
    e^epsilon / (1 + e^epsilon), all independent; delta adds at most 2 m delta times the steepest mean slope of their
    distribution below v.
    """
    coin = stats.binom(found.made, 1 / (1 + math.exp(-epsilon)))
    by_chance = float(coin.sf(found.right - 1))
    if not found.right or not delta:
        return by_chance
    fewer = np.arange(1, found.right + 1)
    steepest = float(np.max(np.cumsum(coin.pmf(found.right - fewer)) / fewer))
    return min(1.0, by_chance + 2 * found.canaries * delta * steepest)


def least_epsilon(found: Guesses, delta: float, confidence: float = CONFIDENCE) -> float:
    """The mechanism is not (epsilon, delta)-private for any epsilon below this, at that confidence; 0: none shown."""

    def excess(epsilon: float) -> float:
        return p_value(found, epsilon, delta) - (1 - confidence)

    if excess(0.0) >= 0:
        return 0.0
    return float(optimize.brentq(excess, 0.0, MOST_EPSILON, xtol=1e-6))
