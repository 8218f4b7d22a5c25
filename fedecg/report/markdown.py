"""Text and tables as Markdown, safe whatever a name holds.

In:  text, `Grid`s. Out: lines of GitHub Markdown. Called by `model_card` and `tripod`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from fedecg.report.grid import Grid
from fedecg.report.wording import printable

__all__ = ["escaped", "list_lines", "table_lines"]

# Characters that would start markup, a link, a table cell or an HTML tag.
MARKUP = re.compile(r"([\\`*_\[\]<>|#~])")


def escaped(text: str) -> str:
    """The text so that Markdown shows it as it is, on one line."""
    return MARKUP.sub(r"\\\1", printable(text))


def list_lines(lines: Iterable[str]) -> list[str]:
    """A bullet a line."""
    return [f"- {escaped(line)}" for line in lines]


def table_lines(grid: Grid) -> list[str]:
    """Header, rows and, where there is one, the last line."""
    rows = [*grid.rows, *([grid.total] if grid.total and grid.rows else [])]
    return [
        _row(grid.header),
        "|" + "|".join("---:" if right else "---" for right in grid.numeric) + "|",
        *map(_row, rows),
    ]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(escaped(cell) for cell in cells) + " |"
