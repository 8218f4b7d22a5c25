"""Disclosure control of a report: which numbers of small groups it withholds, and which others with them.

In:  numbers of patients and events by member of a family (sites, sexes, age bands) whose total is shown, too.
Out: which members to withhold. Called by `subgroups` and `sites`.

Where a small member alone is withheld it is the total less the others; so a second, and if need be a third, is
withheld with it, until what is withheld is two members at least and, together, not small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = [
    "NOTHING_WITHHELD",
    "NOTHING_WITHHELD_NOTE",
    "STUDY",
    "WITHHELD",
    "Thresholds",
    "is_withheld",
    "shown",
    "thresholds_of",
    "with_companions",
]

WITHHELD = "withheld"
BELOW = "fewer than "
NOTHING_WITHHELD_NOTE = (
    "Nothing is withheld, however small: this is a simulation, its data are public or generated."
)


class Thresholds(NamedTuple):
    """The smallest numbers that are shown."""

    patients: int
    events: int

    def rule(self) -> str:
        """The rule in words."""
        return f"a number below {self.patients} patients or {self.events} events is not shown"


STUDY = Thresholds(10, 5)  # of hospitals: what every report withholds unless told otherwise
NOTHING_WITHHELD = Thresholds(0, 0)


def thresholds_of(summary: Mapping[str, Any]) -> Thresholds:
    """What a report of this run withholds: nothing for a simulation, else what a study of hospitals does.

    Only a simulation has all patients' predictions in one place, and says so by the C-index from them
    (`pooled-reference`); whoever made it has the data, public or generated, anyway.
    """
    simulation = "pooled-reference" in (summary.get("federated-c-index") or {})
    return NOTHING_WITHHELD if simulation else STUDY


def with_companions(small: set[str], columns: Sequence[Mapping[str, int]], least: int) -> set[str]:
    """Add the smallest others until what is withheld is at least two members and, in every column, not small.

    Args:
        small: names to withhold for their own numbers.
        columns: name -> number, of each kind of number whose total is shown; the first decides who is smallest.
        least: smallest number that is shown.
    """
    hidden = set(small)
    first = columns[0] if columns else {}
    others = sorted(set(first) - hidden, key=lambda name: (first[name], name), reverse=True)
    while hidden and others and (len(hidden) < 2 or _any_small(hidden, columns, least)):
        hidden.add(others.pop())
    return hidden


def shown(number: int, hidden: bool, least: int) -> int | str:
    """The number, or the words that stand for it."""
    if not hidden:
        return number
    return f"{BELOW}{least}" if number < least else WITHHELD


def is_withheld(cell: object) -> bool:
    """Whether a cell is words that stand for a number."""
    return isinstance(cell, str) and (cell == WITHHELD or cell.startswith(BELOW))


def _any_small(hidden: set[str], columns: Sequence[Mapping[str, int]], least: int) -> bool:
    return any(sum(column.get(name, 0) for name in hidden) < least for column in columns)
