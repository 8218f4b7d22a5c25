"""What of a site's counts may leave it: none of few people, and none from which such a one could be worked out.

In:  `Table`s and `Horizon`s with exact numbers, thresholds. Out: the same with words in place of some numbers.
Called by `data_report` for the version that goes outside.

Guarantees (tests/report/test_data_disclosure.py):
    - a number of ECGs, of patients, or of patients with an event is shown only if at least `patients` patients (for
      events `events` patients with and, unless all rows are withheld, as many without one) are behind it; 0 is shown
    - within a table: where rows add up to a total that is shown, what is withheld is two rows at least and together
      not small
    - where they do not, a row is withheld, too, if fewer than `patients` patients are not in it
    - every number that is shown is rounded to a multiple of 5, survival to 0.01, so that two reports of one site tell
      nothing of whoever came between
    - survival is shown at times at which `patients` patients are still followed, each `events` events after the last
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedecg.errors import RunInputError
from fedecg.report.data_tables import Count, Horizon, Table
from fedecg.report.disclosure import WITHHELD, Thresholds, with_companions

__all__ = ["LEAST", "Shown", "ShownTable", "disclosed", "disclosed_horizons", "rounded", "thresholds"]

LEAST = Thresholds(3, 3)  # what no site can go below: its own numbers must not be a patient's
STEP = 5
RARER = "rarer, or withheld with them"

Cell = int | str


@dataclass(frozen=True)
class Shown:
    """One row as it may be seen: rounded numbers, or why there is none."""

    label: str
    ecgs: Cell
    patients: Cell
    events: Cell


@dataclass(frozen=True)
class ShownTable:
    """A table as it may be seen."""

    table: Table
    rows: tuple[Shown, ...]
    total: Shown


def thresholds(patients: float | str, events: float | str) -> Thresholds:
    """Thresholds as asked for.

    Raises:
        RunInputError: FECG-610, below what any site may choose, or no whole numbers.
    """
    if not isinstance(patients, int) or not isinstance(events, int):
        raise RunInputError(
            "FECG-610",
            "--patients, --events",
            found="no whole number",
            expected="whole numbers, such as 10 and 5",
        )
    if patients < LEAST.patients or events < LEAST.events:
        raise RunInputError(
            "FECG-610",
            "--patients, --events",
            found=f"{patients} and {events}",
            expected=f"at least {LEAST.patients} patients and {LEAST.events} events behind what leaves the site",
        )
    return Thresholds(patients, events)


def rounded(number: int) -> int:
    """To the nearest multiple of 5."""
    return STEP * ((number + STEP // 2) // STEP)


def disclosed(table: Table, limits: Thresholds) -> ShownTable:
    """The table with small rows, and what would give them away, withheld."""
    hidden = _hidden_rows(table, limits.patients)
    no_events = _hidden_events(table, hidden, limits.events) if table.events else set()
    rows = [_shown(row, row.label in hidden, row.label in no_events) for row in table.rows]
    if table.free:
        kept = [row for row, source in zip(rows, table.rows, strict=True) if source.label not in hidden]
        rows = [*kept, _rarer(table, hidden, limits.patients)] if hidden and table.exclusive else kept
    few = table.total.patients < limits.patients
    total_events = few or (table.events and _is_small(table.total, limits.events))
    return ShownTable(table, tuple(rows), _shown(table.total, few, total_events))


def disclosed_horizons(
    found: Sequence[Horizon], limits: Thresholds
) -> list[tuple[float, Cell, Cell, float | str]]:
    """Years, patients at risk, events up to then, survival; words where too few stand behind them."""
    rows: list[tuple[float, Cell, Cell, float | str]] = []
    told = 0
    for horizon in found:
        enough = horizon.at_risk >= limits.patients and horizon.events - told >= limits.events
        if enough:
            told = horizon.events
            shown = (rounded(horizon.at_risk), rounded(horizon.events), round(horizon.survival, 2))
            rows.append((horizon.years, *shown))
        else:
            rows.append((horizon.years, WITHHELD, WITHHELD, WITHHELD))
    return rows


def _hidden_rows(table: Table, least: int) -> set[str]:
    if table.total.patients < least:
        return {row.label for row in table.rows}
    small = {row.label for row in table.rows if 0 < row.patients < least}
    if table.exclusive:
        columns = [
            {row.label: row.patients for row in table.rows},
            {row.label: row.ecgs for row in table.rows},
        ]
        return with_companions(small, columns, least)
    return small | {row.label for row in table.rows if 0 < table.total.patients - row.patients < least}


def _hidden_events(table: Table, hidden: set[str], least: int) -> set[str]:
    small = hidden | {row.label for row in table.rows if _is_small(row, least)}
    return with_companions(small, [{row.label: row.events for row in table.rows}], least)


def _is_small(row: Count, least: int) -> bool:
    """Few with an event, or few without one among whoever is known: both tell of people."""
    without = row.patients - row.events
    return 0 < row.events < least or (row.events > 0 and without < least)


def _shown(row: Count, hidden: bool, no_events: bool) -> Shown:
    if hidden:
        return Shown(row.label, WITHHELD, WITHHELD, WITHHELD)
    return Shown(
        row.label, rounded(row.ecgs), rounded(row.patients), WITHHELD if no_events else rounded(row.events)
    )


def _rarer(table: Table, hidden: set[str], least: int) -> Shown:
    """All withheld rows of free labels as one: their names may be as rare as their people."""
    members = [row for row in table.rows if row.label in hidden]
    together = Count(RARER, sum(row.ecgs for row in members), sum(row.patients for row in members))
    return _shown(together, together.patients < least or table.total.patients < least, True)
