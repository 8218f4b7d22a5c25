"""Subgroups as a report may show them: small ones are suppressed, and what would give them away with them.

In:  the assessment of a study, as in assessment.json; the thresholds of disclosure control.
Out: rows with what may be shown, a `Grid`, sentences. Called by `html`, `subgroup_figure`, `figure_data`, `model_card`.

Sex and age band are families: the members of one add up to all patients, whose number is shown too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedecg.evaluation.intervals import FEW_EVENTS
from fedecg.report.assessment import Assessment, cell
from fedecg.report.disclosure import (
    NOTHING_WITHHELD,
    NOTHING_WITHHELD_NOTE,
    STUDY,
    WITHHELD,
    Thresholds,
    shown,
    with_companions,
)
from fedecg.report.grid import Grid
from fedecg.report.wording import c_index, is_known, printable, ratio

__all__ = ["SubgroupRow", "subgroup_grid", "subgroup_notes", "subgroup_rows"]

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class SubgroupRow:
    """One subgroup, with only what may be shown.

    Attributes:
        name: of the subgroup, printable.
        patients, events: a number, or the words that stand for it.
        figures: the entry of assessment.json, or None where C and O/E are suppressed.
        small: it is suppressed for its own size; otherwise, if suppressed at all, for another's.
    """

    name: str
    patients: int | str
    events: int | str
    figures: Entry | None
    small: bool


def subgroup_rows(assessment: Assessment, thresholds: Thresholds = STUDY) -> tuple[SubgroupRow, ...]:
    """Every subgroup in the order of the assessment."""
    rows: dict[str, SubgroupRow] = {}
    for family in _families(assessment["subgroups"]):
        rows |= _family_rows(family, thresholds)
    return tuple(rows[name] for name in assessment["subgroups"])


def subgroup_grid(assessment: Assessment, thresholds: Thresholds = STUDY) -> Grid:
    """One row a subgroup; a star marks few events."""
    return Grid(
        header=("subgroup", "patients", "events", "C (95 % CI)", "O/E (95 % CI)"),
        rows=tuple(
            (row.name, cell(row.patients), cell(row.events), *_figure_cells(row.figures))
            for row in subgroup_rows(assessment, thresholds)
        ),
        numeric=(False, True, True, True, True),
    )


def subgroup_notes(assessment: Assessment, thresholds: Thresholds = STUDY) -> tuple[str, ...]:
    """What the table means, what is suppressed in it and why."""
    rows = subgroup_rows(assessment, thresholds)
    lines = [
        f"On the {assessment['part']} part. C: pairs of the same site and subgroup. O/E: observed over expected "
        "events over the whole follow-up, 1 is right. Who has no age or sex on record is in no band or sex. No test "
        "between subgroups was made: overlapping intervals are no proof of equal service, nor different ones of "
        "unequal."
    ]
    if any(row.figures is not None and row.figures["few-events"] for row in rows):
        lines.append(f"*: fewer than {FEW_EVENTS} events; the interval is narrower than it should be.")
    if any(row.figures is None for row in rows):
        lines.append(f"Disclosure control: {thresholds.rule()}, nor are the figures of such a subgroup.")
    if thresholds == NOTHING_WITHHELD:
        lines.append(NOTHING_WITHHELD_NOTE)
    beside = [row.name for row in rows if not row.small and WITHHELD in (row.patients, row.events)]
    if beside:
        lines.append(
            f"Also withheld, since all patients less the rest would give the small ones away: {', '.join(beside)}."
        )
    return tuple(lines)


def _families(subgroups: Mapping[str, Entry]) -> tuple[dict[str, Entry], ...]:
    """Age bands, and the sexes: each patient is in at most one member of either."""
    bands = {name: entry for name, entry in subgroups.items() if name.startswith("age ")}
    return {name: entry for name, entry in subgroups.items() if name not in bands}, bands


def _family_rows(family: Mapping[str, Entry], least: Thresholds) -> dict[str, SubgroupRow]:
    patients = {name: int(entry["patients"]) for name, entry in family.items()}
    events = {name: int(entry["events"]) for name, entry in family.items()}
    few_patients = {name for name, number in patients.items() if number < least.patients}
    few_events = {name for name, number in events.items() if number < least.events}
    hidden_patients = with_companions(few_patients, [patients], least.patients)
    hidden_events = with_companions(hidden_patients | few_events, [events], least.events)
    return {
        name: SubgroupRow(
            name=printable(name),
            patients=shown(patients[name], name in hidden_patients, least.patients),
            events=shown(events[name], name in hidden_events, least.events),
            figures=None if name in hidden_events else entry,
            small=name in few_patients | few_events,
        )
        for name, entry in family.items()
    }


def _figure_cells(figures: Entry | None) -> tuple[str, str]:
    if figures is None:
        return WITHHELD, WITHHELD
    text = c_index(figures["c-index"], figures["ci-low"], figures["ci-high"])
    star = "*" if figures["few-events"] and is_known(figures["c-index"]) else ""
    return f"{text}{star}", ratio(figures["ratio"], figures["ratio-low"], figures["ratio-high"])
