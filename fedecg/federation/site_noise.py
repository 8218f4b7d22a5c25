"""How much noise the sum of all sites' updates gets, and how often: from a study's settings alone.

In:  settings of a study with differential privacy of sites. Out: a noise multiplier; a number of aggregates.
Called by both sides: the coordinator, which adds the noise, and the lock, which tells the sites of it.
"""

from __future__ import annotations

from fedecg.config import StudySettings
from fedecg.errors import PolicyError
from fedecg.privacy.accountant import least_noise

__all__ = ["aggregates_of", "noise_of_sites", "not_kept"]


def aggregates_of(settings: StudySettings) -> int:
    """How many noised means a study makes, if none is made twice: of both stages, and of trainings with other seeds."""
    evaluation, align, survival = settings.evaluation, settings.align.rounds, settings.survival.rounds
    again = survival + (align if evaluation.explain_seeds_from == "scratch" else 0)
    repeats = evaluation.explain_seeds if evaluation.explain and settings.privacy.sums == "plain" else 0
    return align + survival + repeats * again


def noise_of_sites(settings: StudySettings) -> float:
    """Standard deviation over the clip: as it is set, or the least that keeps `client-epsilon`, `reserve` to spare.

    Raises:
        PolicyError: FECG-455, none keeps it.
    """
    privacy = settings.privacy
    if not privacy.client_epsilon:
        return privacy.client_noise
    number = max(aggregates_of(settings) + privacy.reserve, 1)
    try:
        return least_noise(number, privacy.client_epsilon, privacy.client_delta)
    except PolicyError:
        raise not_kept(privacy.client_epsilon, f"{number} noised means, whatever their noise") from None


def not_kept(epsilon: float, found: str) -> PolicyError:
    """FECG-455."""
    return PolicyError(
        "FECG-455",
        "differential privacy of sites",
        found=found,
        expected=f"an epsilon of at most {epsilon:g} together (privacy.client-epsilon)",
        fix="Set a larger client-epsilon or reserve, or fewer rounds, and begin a new run: fedecg-server start --new.",
    )
