"""What a study's C-index is, or why there is none, in words.

In:  what the sites have said when they joined; entries of status.json, result.json and assessment.json. Out: words.
Called by `study`, `overview` (status) and `verdict` (last line of start). Loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fedecg.report.sites import withheld_by, withheld_words

if TYPE_CHECKING:  # it loads torch, which `status` does without
    from fedecg.federation.documents import JoinedPart, PartCounts

__all__ = ["c_index_words", "final_c_index", "nothing_to_evaluate"]

Entry = Mapping[str, Any]


def nothing_to_evaluate(parts: Mapping[str, Mapping[JoinedPart, PartCounts]]) -> str:
    """That every site withholds the part that is evaluated last, so that there will be no C-index; else nothing.

    Args:
        parts: site -> its parts, as it has joined with them.
    """
    last: JoinedPart = "test" if any("test" in own for own in parts.values()) else "validation"
    told = {site: own[last] for site, own in parts.items() if last in own}
    if not told or not all(counts.withheld for counts in told.values()):
        return ""
    return f"there will be no C-index: the {last} part is {withheld_words(sorted(told))}"


def c_index_words(entry: Entry) -> str:
    """A C-index with its interval and bounds.

    Args:
        entry: of status.json or result.json, with a known `stratified`.
    """
    words = f"{entry['stratified']:.3f} within sites"
    if entry.get("global") is not None:
        words += f"; over all {entry['global']:.3f}"
    if entry.get("ci-low") is not None and entry.get("ci-high") is not None:
        words += f" (95 % CI {entry['ci-low']:.3f}-{entry['ci-high']:.3f})"
    if entry.get("lower") is not None and entry.get("upper") is not None:
        words += f", guaranteed {entry['lower']:.3f}-{entry['upper']:.3f}"
    return words + f"; {entry.get('events', '?')} events" + (" (few)" if entry.get("few-events") else "")


def final_c_index(result: Entry, assessment: Entry | None) -> str:
    """That of a finished study, with the part of the cohorts that it is of, or why there is none; "" if not evaluated.

    Args:
        result: result.json. assessment: assessment.json; None without one.
    """
    found = result.get("evaluation") or {}
    if not found:
        return ""
    part = "test" if "test" in found else "validation"
    entry = found.get(part) or {}
    if entry.get("stratified") is not None:
        return f"{c_index_words(entry)}; {part} part"
    if kept_back := withheld_by(assessment):
        return f"none: {withheld_words(kept_back)}"
    return f"none: no two patients of the {part} part whose order in time is known"
