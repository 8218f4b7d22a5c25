"""The flow of a cohort as it may leave the hospital.

In:  a `Flow`, thresholds. Out: a document of the same keys as flow.json, without its notes and faults. Called by
     `fedecg cohort build` and `flow --outside`, which draw and print it like the other.

Every number of a flow is the difference of two others, so a small one is not hidden by leaving it out. Here rules by
which fewer patients left than the threshold are counted together with the rules next to them until they are enough;
what ends a chain of differences is withheld with its neighbour. Folds are not counted: they add up to each other.
The median follow-up is one patient's own where their number is odd: it is rounded to whole months.
"""

from __future__ import annotations

from typing import Any

from fedecg.cohort.flow import Flow, Step, flow_document
from fedecg.report.disclosure import STUDY, WITHHELD, Thresholds, shown, with_companions

__all__ = ["OUTSIDE_SCHEMA", "outside_document"]

OUTSIDE_SCHEMA = "fedecg-cohort-flow-outside"
INSIDE_ONLY = ("notes", "faults")  # counts of single rows
MONTH_DAYS = 30.4375


def outside_document(flow: Flow, thresholds: Thresholds = STUDY) -> dict[str, Any]:
    """Counts of at least `thresholds`, and words for the others."""
    document = {key: value for key, value in flow_document(flow).items() if key not in INSIDE_ONLY}
    document["schema"] = OUTSIDE_SCHEMA
    document["thresholds"] = thresholds._asdict()
    least = thresholds.patients
    few = flow.cohort < least
    document["ecgs"] = shown(flow.ecgs, flow.ecgs < least, least)
    document["steps"] = _steps(flow, least)
    document["patients"] = _start(flow, least)
    document["cohort"] = shown(flow.cohort, few, least)
    document |= _outcomes(flow, thresholds)
    document["parts"] = _parts(
        flow, thresholds, withheld={key for key in ("cohort", "events") if isinstance(document[key], str)}
    )
    document["median_follow_up_days"] = _median(flow, least)
    return document


def _median(flow: Flow, least: int) -> float | str | None:
    """Days of so many whole months; withheld unless both halves of the cohort have as many patients as are shown."""
    days = flow.median_follow_up_days
    if flow.cohort < max(2 * least, 1):
        return WITHHELD
    return None if days is None else round(days / MONTH_DAYS) * MONTH_DAYS


def merged_steps(flow: Flow, least: int) -> list[Step]:
    """Steps by which at least so many left each, or a single one by which fewer did."""
    merged: list[Step] = []
    for step in flow.steps:
        if merged and merged[-1].left < least:
            merged[-1] = _together(merged[-1], step)
        else:
            merged.append(step)
    while len(merged) > 1 and merged[-1].left < least:
        merged[-2:] = [_together(merged[-2], merged[-1])]
    return merged


def _together(one: Step, other: Step) -> Step:
    return Step(f"{one.key}+{other.key}", f"{one.text}; {other.text}", one.left + other.left, other.remaining)


def _steps(flow: Flow, least: int) -> list[dict[str, Any]]:
    """As in flow.json; a cohort that is small is not to be had as what remained less who left."""
    steps = [step.__dict__ | {} for step in merged_steps(flow, least)]
    for one in steps:
        one["left"] = shown(one["left"], one["left"] < least, least)
    if steps and flow.cohort < least:
        steps[-1] |= {"left": WITHHELD, "remaining": shown(flow.cohort, True, least)}
    return steps


def _start(flow: Flow, least: int) -> int | str:
    """How many there were; not where the cohort is known and only few left, or where they are few themselves."""
    few_left = 0 < flow.patients - flow.cohort < least
    return shown(flow.patients, few_left or flow.patients < least, least)


def _outcomes(flow: Flow, thresholds: Thresholds) -> dict[str, int | str]:
    counts = {"events": flow.events, "died": flow.died, "censored": flow.censored}
    least = {"events": thresholds.events, "died": thresholds.patients, "censored": thresholds.patients}
    small = {name for name, number in counts.items() if number < least[name]}
    hidden = with_companions(small, [counts], thresholds.patients)
    if flow.cohort < thresholds.patients:
        hidden = set(counts)
    return {name: shown(number, name in hidden, least[name]) for name, number in counts.items()}


def _parts(flow: Flow, thresholds: Thresholds, withheld: set[str]) -> list[dict[str, Any]]:
    if any(one.fold for one in flow.parts) or "cohort" in withheld:
        return []
    patients = {one.part: one.patients for one in flow.parts}
    events = {one.part: one.events for one in flow.parts}
    small = {one.part for one in flow.parts if one.patients < thresholds.patients}
    few = small | {one.part for one in flow.parts if one.events < thresholds.events}
    no_patients = with_companions(small, [patients], thresholds.patients)
    no_events = with_companions(few, [events], thresholds.events)
    if "events" in withheld:
        no_events = set(events)
    return [
        {
            "fold": 0,
            "part": name,
            "patients": shown(patients[name], name in no_patients, thresholds.patients),
            "events": shown(events[name], name in no_events, thresholds.events),
        }
        for name in patients
    ]
