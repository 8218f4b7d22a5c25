"""Whether the attention is true, as a document of JSON, from which the report is made.

In:  each site's checked sums. Out: `explanation.json`. Called by the coordinator of a study.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Any

from fedecg.evaluation.entry import plain_json
from fedecg.explanation.faithfulness import THRESHOLDS, FaithfulnessSums, caption, faithfulness

__all__ = ["explanation_entry", "without_arrays"]


def explanation_entry(part: str, sites: Mapping[str, FaithfulnessSums], mixes_leads: bool) -> dict[str, Any]:
    """All figures and verdicts as they are written to explanation.json; NaN and infinity become null.

    Args:
        part: of the cohorts, "test" or "validation".
        sites: site name -> checked sums, at least one; they are added up in the order of the names.
        mixes_leads: preset `paper`, whose time attention sees all leads.
    """
    result = faithfulness(reduce(add, (sites[name] for name in sorted(sites))))
    told = {
        "part": part,
        "ecgs": result.deletion.ecgs,
        "sites": {name: sites[name].randomisation.ecgs for name in sorted(sites)},
        "thresholds": THRESHOLDS,
        "captions": {
            about: caption(result, about, mixes_leads) for about in ("time attention", "lead attention")
        },
    }
    entry: dict[str, Any] = {**plain_json(told), **plain_json(result)}
    return entry


def without_arrays(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The same without lists of numbers: what summary.json says of it."""
    return {
        name: without_arrays(value) if isinstance(value, Mapping) else value
        for name, value in entry.items()
        if not isinstance(value, list) or name == "verdicts"
    }
