"""A public data set for a simulation: a network is aligned on it before the study, at nobody's cost.

In:  settings with `data.public-patients`. Out: the settings of that alignment, a study of its own with one site, whose
     patients no site of the study has. Called by the runner.

What is public needs no budget: the alignment is without noise, also where the study has differential privacy, whose
budget is then left for survival training. The public ECGs are generated as those of the sites are (profile `SITE`,
seed `SEED`): a real public data set would be less like them.
"""

from __future__ import annotations

from pathlib import Path

from fedecg.config import PartitionSettings, PrivacySettings, SiteDefaults, StudySettings, parse_settings

__all__ = ["from_public", "public_study"]

SITE, SEED = "university", 2**31 - 1  # the seed is that of no study worth the name: no patient is in one
FOLDER = "public"  # of a run, where its network is kept unless `data.aligned` names another


def from_public(settings: StudySettings) -> bool:
    """Whether the study begins with a network that it has aligned on public patients."""
    return bool(settings.data.public_patients and settings.align.rounds and not settings.align.start)


def public_study(settings: StudySettings, out: Path) -> StudySettings:
    """The study that aligns the public patients: [align], [model] and [signals] are those of the study.

    Args:
        settings: of the study.
        out: folder of its run.
    """
    tree = settings.model_dump(by_alias=True, exclude_none=True)
    tree["data"] |= {
        "sites": {SITE: settings.data.public_patients},
        "public-patients": 0,
        "test-patients": 1,
        "events": 0,
        "aligned": settings.data.aligned or str(out / "columns" / FOLDER),
    }
    tree |= {
        "name": "public",
        "evaluation": {"comparison": False, "explain": False},
        "federation": {"threads": settings.federation.threads},
        "seed": SEED,
        "partition": PartitionSettings().model_dump(by_alias=True),
        "drift": {},
        "site-defaults": SiteDefaults().model_dump(by_alias=True, exclude_none=True),
        "privacy": PrivacySettings().model_dump(by_alias=True),
    }
    return parse_settings(StudySettings, tree)
