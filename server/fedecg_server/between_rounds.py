"""What an algorithm remembers from round to round at the server, and how a round's updates become the next weights.

In:  the study's settings, the vector's pieces, checked updates. Out: what a task carries, the next weights; arrays and
     a document for the checkpoint, with which a study that was killed goes on to the same bits.
Called by the rounds of a stage (`stage`) and by the study's checkpoint (`study_state`).

    fedadam, fedyogi   two moments of the sites' moves, each as long as the weights (`fedecg.federation.adaptive`)
    scaffold           the sum of the sites' control variates, in float64 (`fedecg.federation.scaffold`)
    all others         nothing
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.config import FederationSettings, Section
from fedecg.federation.adaptive import ADAPTIVE, Moments, adaptive_step
from fedecg.federation.aggregation import Update, combine
from fedecg.federation.scaffold import Controls, joined
from fedecg.model import Piece
from fedecg_server.site_releases import SiteNoise

__all__ = ["BetweenRounds", "RememberedDocument"]

Vector = NDArray[np.float32]
Pieces = Callable[[int], tuple[Piece, ...]]  # of the vector, in a round

MOMENTS = ("first_moment", "second_moment")
CONTROLS = "controls"


class RememberedDocument(Section):
    """All but the arrays; empty unless the algorithm is scaffold."""

    weights: dict[str, float] = {}  # site -> weight of its control variate
    rounds: dict[str, int] = {}  # site -> round that its control variate is of


class BetweenRounds:
    """One stage's memory.

    Args:
        settings: algorithm and its numbers.
        size: P.
        pieces: round -> pieces of the vector.
        arrays, document: of a checkpoint; None: a stage that begins.
        site_noise: makes the average in a study with differential privacy of sites; None: there is no noise.
    """

    def __init__(
        self,
        settings: FederationSettings,
        size: int,
        pieces: Pieces,
        arrays: Mapping[str, Any] | None = None,
        document: RememberedDocument | None = None,
        site_noise: SiteNoise | None = None,
    ) -> None:
        self.settings, self.pieces, self.site_noise = settings, pieces, site_noise
        self.moments = Moments.none(size) if settings.algorithm in ADAPTIVE else None
        self.controls = Controls.none(size) if settings.algorithm == "scaffold" else None
        self._control = np.zeros(0, np.float32)  # c of the round that is out
        if arrays is not None and self.moments and MOMENTS[0] in arrays:
            first, second = (np.asarray(arrays[name], np.float32) for name in MOMENTS)
            self.moments = Moments(first, second)
        if arrays is not None and document is not None and self.controls and CONTROLS in arrays:
            total = np.asarray(arrays[CONTROLS], np.float64).copy()
            self.controls = Controls(total, dict(document.weights), dict(document.rounds))

    def to_send(self, weights: Vector, expected: Mapping[str, float]) -> Vector:
        """What a task carries: the weights; with scaffold the control variate of all sites behind them.

        Args:
            weights: (P,).
            expected: site -> weight of every site of the study.
        """
        if self.controls is None:
            return weights
        self._control = self.controls.mean(expected)
        return joined(weights, self._control)

    @property
    def control_rounds(self) -> dict[str, int]:
        """What a task says of each site's control variate: the round that it is of."""
        return {} if self.controls is None else dict(self.controls.rounds)

    def next_weights(
        self,
        number: int,
        sent: Vector,
        updates: Mapping[str, Update],
        weights: Mapping[str, float],
        steps: Mapping[str, int],
    ) -> Vector:
        """The next weights of a round whose updates count; what is remembered goes on.

        Args:
            number: of the round.
            sent: (P,) weights that the sites began with.
            updates, weights, steps: of the sites that answered.
        """
        if self.site_noise is not None:
            return self.stepped(number, sent, self.site_noise.mean(number, sent, updates))
        after = combine(self.settings, updates, weights)
        if self.controls is not None:
            self.controls.add(self.pieces(number), number, sent, self._control, updates, weights, steps)
        return self.stepped(number, sent, after)

    def after_sum(self, number: int, sent: Vector, change: NDArray[np.float64]) -> Vector:
        """The next weights where no update of a single site is known.

        Args:
            change: (P,) weighted mean of the changes; their sum in a study with differential privacy of sites.
        """
        if self.site_noise is not None:
            return self.stepped(number, sent, self.site_noise.mean_of_sum(number, sent, change))
        return self.stepped(number, sent, (sent + change).astype(np.float32))

    def stepped(self, number: int, sent: Vector, averaged: Vector) -> Vector:
        """What the algorithm makes of an average."""
        if self.moments is None:
            return averaged
        after, self.moments = adaptive_step(
            self.settings, self.pieces(number), self.moments, sent, averaged, number
        )
        return after

    def arrays(self) -> dict[str, NDArray[Any]]:
        """For the checkpoint."""
        if self.moments is not None:
            return dict(zip(MOMENTS, (self.moments.first, self.moments.second), strict=True))
        return {} if self.controls is None else {CONTROLS: self.controls.total}

    def document(self) -> RememberedDocument:
        """For the checkpoint."""
        if self.controls is None:
            return RememberedDocument()
        return RememberedDocument(weights=self.controls.weights, rounds=self.controls.rounds)
