"""The site's privacy budget: is there one for the studies that need it, and is its ledger sound?

In:  a site's folder. Out: a `Check`. Called by preflight, and by `fedecg-client start`.
"""

from __future__ import annotations

from fedecg.config import StudySettings, parse_settings
from fedecg_client.budget import refuse_without_budget
from fedecg_client.folder import SiteFolder
from fedecg_client.ledger_view import ledger_document
from fedecg_client.overview import joined_studies
from fedecg_client.preflight.check import Check, passed

__all__ = ["budget"]


def budget(site: SiteFolder) -> Check:
    """Every study with differential privacy that was joined or waits finds a budget; every entry of the ledger follows.

    Raises:
        PolicyError: FECG-438 no budget; FECG-431..433 the ledger.
    """
    for study in joined_studies(site.state):
        for lock in filter(None, (study.lock, study.proposed)):
            refuse_without_budget(site.settings, parse_settings(StudySettings, lock.settings))
    stated = site.settings.privacy
    entries = ledger_document(site.folder, stated.model_copy(update={"delta": None}))["sequence"]
    if stated.epsilon is None:
        words = "no epsilon: studies with differential privacy are refused"
    else:
        words = f"epsilon {stated.epsilon:g} at delta {stated.delta:g}"
    return passed("privacy", "policy", f"{words}; a sound ledger of {entries} entries")
