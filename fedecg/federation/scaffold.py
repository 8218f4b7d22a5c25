"""SCAFFOLD's control variates: what a site's data pull at, subtracted at the site, and what all pull at, added.

In:  the weights of a round, a site's weights after its local steps, the control variates before. Out: those after.
Called by the client (its own control) and by the server's rounds (that of all sites). Pure functions on vectors.

Karimireddy et al. 2020 (arXiv 1910.06378), algorithm 1 with option II. A local step moves along
g_i(y) - c_i + c; afterwards

    c_i+ = c_i - c + (x - y_i) / (K * rate)            x: weights that came, y_i: after K steps

Everything in c_i+ - c_i = (x - y_i) / (K * rate) - c is known to the server once y_i has come: x and c it has sent, K
stands in the reply, the rate in the study. So **the change of a control variate does not travel**; both sides compute
it from the same float32 numbers and get the same bits. What a round costs, with P numbers of 4 bytes:

    to a site     2 P   the weights and c; fedavg: P
    from a site   1 P   the weights; fedavg: P, the paper's own description: 2 P

The mean over sites is weighted as the average of weights is (patients or events, `aggregation_weight`): c is then what
the pooled objective pulls at, and the fixed point that of fedavg with a single local step. c counts every site that
takes part in the study; one that has not answered yet counts with 0, as in the paper.

Where no gradient moves a number (running statistics, a frozen encoder) its control stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import FederationError
from fedecg.federation.aggregation import BLOCK, Update
from fedecg.model.learned import Piece

__all__ = ["Controls", "joined", "own_change", "parted"]

Vector = NDArray[np.float32]


def own_change(
    pieces: Sequence[Piece], sent: Vector, control: Vector, trained: Update, steps: int
) -> Iterator[tuple[slice, Vector]]:
    """How a site's control variate changes by its local round, block by block; nothing where no gradient moved.

    Args:
        pieces: of the vector, with the rates of this round.
        sent: (P,) weights that the site began with.
        control: (P,) c of all sites, as it was sent with them.
        trained: (P,) weights after the site's steps, as the server reads them.
        steps: K; 0 changes nothing.

    Yields:
        Places of the vector, and c_i+ - c_i there (float32).

    Source: Karimireddy et al. 2020, arXiv 1910.06378, algorithm 1, option II.
    """
    if steps == 0:
        return
    for piece in pieces:
        if piece.rate == 0:
            continue
        span = np.float32(steps * piece.rate)
        for start in range(piece.start, piece.stop, BLOCK):
            part = slice(start, min(start + BLOCK, piece.stop))
            yield part, (sent[part] - trained[part]) / span - control[part]


@dataclass
class Controls:
    """The server's side: the sum of the sites' control variates, and of which rounds they are.

    Attributes:
        total: (P,) float64, sum over sites of weight * c_i.
        weights: site -> weight in that sum, as its first reply gave it.
        rounds: site -> round of this stage whose change of its control is the last in `total`.
    """

    total: NDArray[np.float64]
    weights: dict[str, float] = field(default_factory=dict)
    rounds: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def none(size: int) -> Controls:
        """Before the first round of a stage."""
        return Controls(np.zeros(size))

    def mean(self, expected: Mapping[str, float]) -> Vector:
        """c, (P,) float32.

        Args:
            expected: site -> weight of every site of the study; of those that have answered, theirs is kept.
        """
        whole = sum({**expected, **self.weights}.values())
        return (self.total / whole).astype(np.float32) if whole > 0 else np.zeros(len(self.total), np.float32)

    def add(
        self,
        pieces: Sequence[Piece],
        number: int,
        sent: Vector,
        control: Vector,
        updates: Mapping[str, Update],
        weights: Mapping[str, float],
        steps: Mapping[str, int],
    ) -> None:
        """Take up a round, in the order of site names.

        Args:
            number: of the round.
            sent, control: (P,) as they were sent.
            updates, weights, steps: of the sites that answered.
        """
        for site in sorted(updates):
            weight = self.weights.setdefault(site, weights[site])
            self.rounds[site] = number
            for part, change in own_change(pieces, sent, control, updates[site], steps[site]):
                self.total[part] += weight * change


def joined(weights: Vector, control: Vector) -> Vector:
    """(2 P,) as a task carries them: the weights, then c."""
    return np.concatenate([weights, control])


def parted(vector: Vector) -> tuple[Vector, Vector]:
    """The reverse of `joined`.

    Raises:
        FederationError: FECG-504 an odd number of numbers.
    """
    if vector.ndim != 1 or len(vector) % 2:
        raise FederationError(
            "FECG-504",
            "weights of a scaffold task",
            found=f"shape {tuple(vector.shape)}",
            expected="an even number: weights, then the control variate of all sites",
        )
    half = len(vector) // 2
    return vector[:half], vector[half:]
