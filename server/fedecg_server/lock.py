"""The lock that this coordinator offers to its sites.

In:  study settings and the names that may take part. Out: a `StudyLock`: settings, bank, code and names under one hash.
Called by the study, which sends it with the greeting, and by `fedecg-server lock`, which shows it beforehand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fedecg.config import StudySettings
from fedecg.federation.lock import StudyLock, settings_document
from fedecg.fingerprint import code_fingerprint
from fedecg.text import frequencies_sha256, load_bank

__all__ = ["study_lock"]


def study_lock(
    settings: StudySettings, names: Iterable[str], site_keys: Mapping[str, str] | None = None
) -> StudyLock:
    """What is agreed on, from what stands on this machine.

    Args:
        settings: of the study.
        names: sites that may take part, in any order; none: whoever connects (simulations).
        site_keys: fingerprints of their keys, which stand in the lock where sums are masked.

    Raises:
        TextError: FECG-241..244 if the code bank cannot be used.
    """
    bank = load_bank(settings.align.bank)
    return StudyLock(
        study=settings.name,
        settings=settings_document(settings),
        bank_sha256=bank.sha256,
        space_sha256=bank.space_sha256,
        frequencies_sha256=frequencies_sha256(),
        code_fingerprint=code_fingerprint(),
        sites=sorted(names),
        site_keys=dict(sorted((site_keys or {}).items())) if settings.privacy.sums == "masked" else {},
    )
