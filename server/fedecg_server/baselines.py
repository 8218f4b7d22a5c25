"""What federation is compared with in a deployment: each site alone, and age and sex, from counts of pairs alone.

In:  the sites' counts. Out: the entry of `baselines.json`. Called by the study when the model is safe.
Unlike in a simulation a site's own model is judged on that site's patients only: it never leaves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fedecg.evaluation import RiskTimeGrid, global_concordance
from fedecg.federation.baselines import BaselinesReply
from fedecg.federation.documents import CountsDocument, Part
from fedecg.federation.hazard import HazardState

__all__ = ["baselines_entry", "checked_baselines"]


def checked_baselines(hazard: HazardState, part: Part, site: str, reply: BaselinesReply) -> BaselinesReply:
    """A reply whose counts fit the study's grid and the site's patients.

    Raises:
        FederationError: as `HazardState.check_counts`.
    """
    for document in (reply.local, reply.age_sex):
        if document is not None:
            hazard.check_counts(site, part, document)
    return reply


def baselines_entry(grid: RiskTimeGrid, part: Part, replies: Mapping[str, BaselinesReply]) -> dict[str, Any]:
    """Concordance within sites of the local models and of age and sex, together and by site; codes of failures."""
    local = {site: reply.local for site, reply in replies.items() if reply.local}
    age_sex = {site: reply.age_sex for site, reply in replies.items() if reply.age_sex}
    return {
        "part": part,
        "local": _within(local, grid),
        "age-sex": _within(age_sex, grid),
        "sites": {
            site: {
                "local": _within({site: reply.local}, grid) if reply.local else None,
                "age-sex": _within({site: reply.age_sex}, grid) if reply.age_sex else None,
                "code": reply.local_code or None,
            }
            for site, reply in sorted(replies.items())
        },
    }


def _within(documents: Mapping[str, CountsDocument], grid: RiskTimeGrid) -> dict[str, Any] | None:
    """Pairs within sites only: scores of different models do not compare."""
    if not documents:
        return None
    result = global_concordance([documents[site].counts(grid) for site in sorted(documents)])
    figures = {
        "stratified": result.stratified,
        "stratified-ci-low": result.stratified_ci_low,
        "stratified-ci-high": result.stratified_ci_high,
    }
    return {key: float(value) if math.isfinite(value) else None for key, value in figures.items()} | {
        "comparable-pairs": result.comparable_within,
        "patients": result.patients,
        "events": result.events,
        "few-events": result.few_events,
    }
