"""Progress of long work, with the time left: a bar on a terminal, a line now and then elsewhere.

In:  a label and a number of steps. Out: text on stderr, so that stdout stays clean for results.
Called by the server (rounds) and by simulations (ingest, columns).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

__all__ = ["Advance", "Progress"]


class Advance(Protocol):
    """Called with the number of steps done so far and, if there is one, a note."""

    def __call__(self, done: int, note: str = "") -> None: ...


LINE_EVERY_S = 5.0


class Progress:
    """Says what is being done, how far it is, and how long it will take."""

    def __init__(self, label: str = "", console: Console | None = None) -> None:
        self.label = f"{label}: " if label else ""
        self.console = console or Console(stderr=True)

    def say(self, text: str) -> None:
        """One line, for a step that is done."""
        self.console.print(f"{self.label}{text}", highlight=False, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """One line that must be seen."""
        self.console.print(
            f"{self.label}warning: {text}", style="yellow", highlight=False, markup=False, soft_wrap=True
        )

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        """Work of `total` steps; call what it yields with (done, note)."""
        if self.console.is_terminal:
            with self._bar() as bar:
                task = bar.add_task(f"{self.label}{label}", total=total, note="")
                yield lambda done, note="": bar.update(task, completed=done, note=note)
        else:
            yield self._lines(label, total)

    def _bar(self) -> Bar:
        return Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
        )

    def _lines(self, label: str, total: int) -> Advance:
        start = last = time.monotonic()

        def advance(done: int, note: str = "") -> None:
            nonlocal last
            now = time.monotonic()
            if done < total and now - last < LINE_EVERY_S:
                return
            last = now
            left_s = (now - start) / max(done, 1) * (total - done)
            left = f", about {left_s:.0f} s left" if done < total else ""
            self.say(f"{label}: {done}/{total}, {now - start:.0f} s{left}  {note}".rstrip())

        return advance
