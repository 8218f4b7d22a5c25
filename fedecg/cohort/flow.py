"""The flow of a cohort: who was there, who left at which rule, who remained (the boxes of CONSORT and STROBE).

In:  counts. Out: `Flow`, its JSON and its table. Made by `build`, drawn by `fedecg.report.flow_figure`;
     `fedecg.report.flow_outside` makes the version that may leave the hospital.
Patients are counted once, at the first rule that they do not meet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedecg.errors import CohortError
from fedecg.files import in_words, read_regular

__all__ = [
    "SCHEMA",
    "Flow",
    "PartCount",
    "Step",
    "document_lines",
    "flow_document",
    "flow_from_json",
    "flow_to_json",
    "outcome_texts",
    "read_flow",
]

SCHEMA, VERSION = "fedecg-cohort-flow", 1


@dataclass(frozen=True)
class Step:
    """One rule.

    Attributes:
        key: short, for programs. text: who leaves here. left: patients who do. remaining: those who do not.
    """

    key: str
    text: str
    left: int
    remaining: int


@dataclass(frozen=True)
class PartCount:
    """One part of one fold; `fold` is 0 where there are none."""

    fold: int
    part: str
    patients: int
    events: int


@dataclass(frozen=True)
class Flow:
    """Counts, all of patients but `ecgs`.

    Attributes:
        title: of the rules. patients, ecgs: in the table of ECGs. steps: in order.
        cohort, events, died, censored: at the end; events + died + censored = cohort.
        event_title: what an event is. median_follow_up_days: None for nobody.
        parts: of the split. notes: what should be known. faults: as `Faults.as_json`.
        rules: the rules in words, one line each.
    """

    title: str
    patients: int
    ecgs: int
    steps: tuple[Step, ...]
    cohort: int
    events: int
    died: int
    censored: int
    event_title: str
    median_follow_up_days: float | None
    parts: tuple[PartCount, ...]
    notes: tuple[str, ...]
    faults: tuple[Mapping[str, Any], ...]
    rules: tuple[str, ...]


def flow_document(flow: Flow) -> dict[str, Any]:
    """As in flow.json; for inside: every count is exact."""
    document: dict[str, Any] = json.loads(flow_to_json(flow))
    return document


def flow_to_json(flow: Flow) -> str:
    """The text of flow.json."""
    return (
        json.dumps({"schema": SCHEMA, "version": VERSION, **asdict(flow)}, indent=2, ensure_ascii=False)
        + "\n"
    )


def flow_from_json(text: str) -> Flow:
    """What `flow_to_json` wrote.

    Raises:
        ValueError, KeyError, TypeError: it did not.
    """
    tree = json.loads(text)
    if tree.pop("schema") != SCHEMA or tree.pop("version") != VERSION:
        raise ValueError
    tree["steps"] = tuple(Step(**one) for one in tree["steps"])
    tree["parts"] = tuple(PartCount(**one) for one in tree["parts"])
    flow = Flow(**tree | {name: tuple(tree[name]) for name in ("notes", "faults", "rules")})
    _check(flow)
    return flow


def read_flow(path: Path) -> Flow:
    """Read a flow.json.

    Raises:
        CohortError: FECG-286 it cannot be read, or is none.
    """
    try:
        return flow_from_json(read_regular(path).decode())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        found = in_words(error) if isinstance(error, OSError | json.JSONDecodeError) else "another document"
        raise CohortError(
            "FECG-286",
            "flow of a cohort",
            found=found,
            expected="the flow.json that fedecg cohort build wrote",
            fix="Build the cohort again.",
        ) from None


def document_lines(document: Mapping[str, Any]) -> list[str]:
    """The document of a flow as a table of text; where it is one for outside, words stand for small counts."""
    steps, parts = document["steps"], document["parts"]
    rows = [(f"patients with an ECG ({document['ecgs']} ECGs)", "", str(document["patients"]))]
    rows += [(f"  - {one['text']}", str(one["left"]), str(one["remaining"])) for one in steps]
    rows.append((document["title"], "", str(document["cohort"])))
    rows += [(f"    {text}", "", str(document[key])) for key, text in outcome_texts(document).items()]
    lines = _aligned(("", "left", "remain"), rows)
    median = document["median_follow_up_days"]
    if median is not None:
        lines.append(
            f"median follow-up {median:.0f} days"
            if isinstance(median, float)
            else f"median follow-up {median}"
        )
    counted = [
        (
            f"fold {one['fold']} {one['part']}" if one["fold"] else one["part"],
            str(one["patients"]),
            str(one["events"]),
        )
        for one in parts
    ]
    return [*lines, "", *_aligned(("part", "patients", "events"), counted)] if counted else lines


def outcome_texts(document: Mapping[str, Any]) -> dict[str, str]:
    """What the three outcomes are called: key of the document -> words."""
    return {
        "events": f"{document['event_title']}",
        "died": f"died without {document['event_title']}",
        "censored": "neither, until the end of follow-up",
    }


def _aligned(head: tuple[str, str, str], rows: Sequence[tuple[str, str, str]]) -> list[str]:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(3)]
    return [
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}".rstrip()
        for row in (head, *rows)
    ]


def _check(flow: Flow) -> None:
    """Numbers that do not add up are no flow."""
    remaining = flow.patients
    for step in flow.steps:
        remaining -= step.left
        if remaining != step.remaining or step.left < 0:
            raise ValueError
    if remaining != flow.cohort or flow.events + flow.died + flow.censored != flow.cohort:
        raise ValueError
