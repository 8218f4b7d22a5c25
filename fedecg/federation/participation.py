"""Who takes part in a round: all sites, or a fraction of them that the study's seed draws.

In:  names of sites, the settings, the round. Out: the names of those that are asked. Called by the server's stages.
The same in a simulation and in a deployment, and in a round that is repeated or resumed: it is the lock that decides.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

from fedecg.config import FederationSettings

__all__ = ["number_taking_part", "taking_part"]


def taking_part(
    names: Iterable[str], settings: FederationSettings, seed: int, stage: str, number: int
) -> list[str]:
    """The sites of a round, by name.

    Each site has a number of its own in each round, drawn from (seed, stage, round, name), and the lowest take part: a
    site that comes or goes changes the place of no other.

    Args:
        names: of all sites that could.
        settings: `fraction`, of which at least one whole site is left, and the quorum, which is met where there are as
            many sites.
        seed: of the study.
        stage: as the book of rounds names it, repetitions with other seeds apart.
        number: of the round.

    Source: McMahan et al. 2017, arXiv 1602.05629 (client fraction C).
    """
    everyone = sorted(set(names))
    if settings.fraction >= 1:
        return everyone
    order = sorted(
        everyone, key=lambda name: hashlib.sha256(f"{seed} {stage} {number} {name}".encode()).digest()
    )
    return sorted(order[: number_taking_part(len(everyone), settings)])


def number_taking_part(sites: int, settings: FederationSettings) -> int:
    """How many of so many sites a round asks: the fraction, rounded up, or the quorum."""
    share = math.ceil(settings.fraction * sites - 1e-9)  # 0.1 of 1,000 is 100, whatever 0.1 is in binary
    return min(sites, max(share, settings.quorum))
