"""Whether the attention is true, as a document of JSON, from which the report is made.

In:  each site's checked sums, of the tests and of the groups. Out: `explanation.json`. Called by the coordinator of a
study.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Any

from fedecg.evaluation.entry import plain_json
from fedecg.explanation.faithfulness import (
    ABOUT,
    NOT_ASKED,
    THRESHOLDS,
    FaithfulnessSums,
    SeedsOf,
    caption,
    faithfulness,
)
from fedecg.explanation.groups import FEWEST_PATIENTS, HIGH_RISK, LOW_RISK, GroupSums

__all__ = ["explanation_entry", "without_arrays"]

BEATS_OF = 6  # findings whose beats are written down, the most frequent; bars are those of all
DECIMALS = 5  # of beats

Groups = Mapping[str, Mapping[str, GroupSums]]


def explanation_entry(
    part: str,
    sites: Mapping[str, FaithfulnessSums],
    mixes_leads: bool,
    groups: Groups | None = None,
    seeds_of: SeedsOf = "survival",
    untested: str = NOT_ASKED,
) -> dict[str, Any]:
    """All figures and verdicts as they are written to explanation.json; NaN and infinity become null.

    Args:
        part: of the cohorts, "test" or "validation".
        sites: site name -> checked sums, at least one; they are added up in the order of the names.
        mixes_leads: preset `paper`, whose time attention sees all leads.
        groups: site name -> group -> checked sums.
        seeds_of, untested: as `faithfulness`.
    """
    total = reduce(add, (sites[name] for name in sorted(sites)))
    result = faithfulness(total, seeds_of=seeds_of, untested=untested)
    told = {
        "part": part,
        "ecgs": result.deletion.ecgs,
        "sites": {name: sites[name].randomisation.ecgs for name in sorted(sites)},
        "fewest-patients": FEWEST_PATIENTS,
        "mixes-leads": mixes_leads,
        "seeds-of": seeds_of,
        "thresholds": THRESHOLDS,
        "captions": {about: caption(result, about, mixes_leads) for about in ABOUT},
        "groups": _groups(groups or {}),
    }
    entry: dict[str, Any] = {**plain_json(told), **plain_json(result)}
    return entry


def _groups(groups: Groups) -> dict[str, Any]:
    """Each group's means over all sites: high and low risk, then the findings, the most frequent first."""
    total: dict[str, GroupSums] = {}
    at: dict[str, int] = {}
    for site in sorted(groups):
        for name, sums in groups[site].items():
            total[name] = total[name] + sums if name in total else sums
            at[name] = at.get(name, 0) + 1
    risk = [name for name in (HIGH_RISK, LOW_RISK) if name in total]
    findings = sorted(set(total) - set(risk), key=lambda name: (-total[name].attention.ecgs, name))
    return {
        name: _group(total[name], at[name], beats=number < len(risk) + BEATS_OF)
        for number, name in enumerate([*risk, *findings])
    }


def _group(sums: GroupSums, sites: int, beats: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "ecgs": sums.attention.ecgs,
        "sites": sites,
        "leads": sums.attention.mean().leads[0].round(DECIMALS),
        "beats": sums.beats.ecgs,
    }
    if not (beats and sums.beats.ecgs):
        return entry
    signal_mv, time = sums.beats.mean()
    beat = {"signal-mv": signal_mv.round(DECIMALS), "time": time.round(DECIMALS)}
    return entry | {"beat": beat | {"rate-hz": sums.beats.rate_hz}}


def without_arrays(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The same without lists of numbers: what summary.json says of it."""
    return {
        name: without_arrays(value) if isinstance(value, Mapping) else value
        for name, value in entry.items()
        if not isinstance(value, list) or name == "verdicts"
    }
