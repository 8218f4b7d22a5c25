"""Are there sites enough for differential privacy of sites? Asked before anything starts.

In:  the study's settings, how many sites its lock names. Out: nothing, a line to be told, or a refusal.
Called where a coordinator or a simulation starts, and by the study. Loads neither numpy nor Flower.
"""

from __future__ import annotations

from fedecg.config import StudySettings
from fedecg.errors import FederationError

__all__ = ["FEWEST_SITES", "USUAL_EPSILON", "WEAK_EPSILON", "refuse_few_sites"]

FEWEST_SITES = 50
USUAL_EPSILON = 8.0  # what is proposed in place of a weak one
WEAK_EPSILON = 10.0  # from here on the bound on what an attacker may learn is no protection worth the name


def refuse_few_sites(study: StudySettings, sites: int) -> str:
    """Noise that hides one of a few sites drowns what all of them have learned; noise that does not hides nobody.

    Args:
        study: its settings.
        sites: in its lock.

    Returns:
        What is to be told where `client-force` was set for fewer; empty otherwise.

    Raises:
        FederationError: FECG-563.
    """
    if study.privacy.mode != "client" or sites >= FEWEST_SITES:
        return ""
    if not study.privacy.client_force:
        raise FederationError(
            "FECG-563",
            'sites of a study with privacy.mode = "client"',
            found=f"{sites}",
            expected=f"at least {FEWEST_SITES}",
            fix='Take privacy.mode = "sample" (of every patient, at each site), or privacy.sums = "masked"; or set '
            "privacy.client-force = true, and the report will say what that does not protect.",
        )
    return (
        f'privacy.mode = "client" with {sites} of at least {FEWEST_SITES} sites, forced: single patients, sums and '
        "counts are not protected by it"
    )
