"""A table as text, whatever it is printed on.

In:  cells as text. Out: `Grid`. Made by `table` and `assessment`; printed by `table` (terminal, Markdown) and `html`.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Grid"]


@dataclass(frozen=True)
class Grid:
    """A table as text, before anything is escaped for where it goes.

    Attributes:
        header: one title a column.
        rows: one tuple a row, as long as `header`.
        numeric: for each column, whether it is set flush right.
        emphasis: the row to stress, or None.
        total: the last line, or empty.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    emphasis: int | None = None
    total: tuple[str, ...] = ()
