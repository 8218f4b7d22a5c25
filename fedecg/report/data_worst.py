"""The ECGs that a site should look at first: the worst of each fault, drawn, and the files that were refused.

In:  `DataFacts`. Out: drawings as SVG with the names of their files, a table of refused files. Called by `data_report`
for the version that stays at the site.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedecg.codes import CODES
from fedecg.report.data_facts import DataFacts
from fedecg.report.data_tables import RULES
from fedecg.report.ecg_paper import draw_ecg
from fedecg.report.figures import figure_svg
from fedecg.report.grid import Grid
from fedecg.report.wording import printable

__all__ = ["WorstEcg", "refused_grid", "worst_ecgs"]

MOST_DRAWN, MOST_REFUSED = 8, 100
TRIED = 3  # of one fault: the worst may be one that cannot be drawn
WHOLE_RECORDING = ("too_short", "low_amplitude", "no_beats", "inverted", "limb_swap", "paced")


@dataclass(frozen=True)
class WorstEcg:
    """One drawn ECG.

    Attributes:
        source, index: as the manifest has them. name: of both, for a page. faults: in words. svg: on ECG paper.
    """

    source: str
    index: str
    name: str
    faults: tuple[str, ...]
    svg: bytes = field(repr=False)


def worst_ecgs(facts: DataFacts) -> list[WorstEcg]:
    """For each fault, in turn, the ECG with the most leads that have it and that was not drawn for another one."""
    chosen: dict[int, WorstEcg] = {}
    for numbers in sorted(facts.quality.values(), key=lambda each: int(np.sum(each > 0))):
        if len(chosen) < MOST_DRAWN:
            _add_worst(facts, numbers, chosen)
    return list(chosen.values())


def _add_worst(facts: DataFacts, numbers: NDArray[np.int64], chosen: dict[int, WorstEcg]) -> None:
    """Of one fault: the first that is new and can be drawn, of a few."""
    order = np.argsort(-numbers, kind="stable").tolist()
    new = [row for row in order[: TRIED + len(chosen)] if numbers[row] > 0 and row not in chosen]
    for row in new:
        drawing = facts.drawn(row)
        if drawing is not None:
            recording, footer = drawing
            chosen[row] = WorstEcg(
                source=_fact(facts, "source", row),
                index=_fact(facts, "index", row),
                name=_named(facts, row),
                faults=faults_of(facts, row),
                svg=figure_svg(draw_ecg(recording, footer=footer)),
            )
            return


def faults_of(facts: DataFacts, row: int) -> tuple[str, ...]:
    """What is wrong with an ECG, in words."""
    words = []
    if facts.codes[row]:
        words.append(f"refused: {facts.codes[row]} {CODES.get(str(facts.codes[row]), '')}")
    for rule, numbers in facts.quality.items():
        number = int(numbers[row])
        if number:
            told = RULES.get(rule, rule.replace("_", " "))
            thing = ("sample" if rule == "clipped" else "lead") + ("s" if number > 1 else "")
            many = "" if rule in WHOLE_RECORDING else f" ({number} {thing})"
            words.append(told + many)
    return tuple(words)


def refused_grid(facts: DataFacts) -> Grid | None:
    """Files that were refused, the first hundred, with the reason; None where all are usable."""
    rows = np.flatnonzero(facts.codes != "")
    if not len(rows):
        return None
    shown = tuple(
        (
            _named(facts, row),
            f"{facts.codes[row]} {CODES.get(str(facts.codes[row]), '')}",
        )
        for row in rows[:MOST_REFUSED].tolist()
    )
    more = len(rows) - len(shown)
    total = (f"and {more} more: refused.csv in the store", "") if more > 0 else ()
    return Grid(("file", "why"), shown, (False, False), total=total)


def _named(facts: DataFacts, row: int) -> str:
    source, index = _fact(facts, "source", row), _fact(facts, "index", row)
    place = f" (ECG {index})" if index else ""
    return printable(source) + place if source else f"row {row} of the store"


def _fact(facts: DataFacts, name: str, row: int) -> str:
    column = facts.facts.get(name)
    return str(column[row]) if column else ""
