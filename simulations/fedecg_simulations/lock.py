"""One run at a time in a folder.

In:  a folder. Out: its lock, held while the caller writes there. Called by `run` and `grid`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedecg.errors import RunError
from fedecg.locks import LockHeldError, held

__all__ = ["only_one"]


@contextmanager
def only_one(folder: Path) -> Iterator[int]:
    """Hold the folder's lock; gives its file descriptor, which a child process may be handed to hold it, too.

    Raises:
        RunError: FECG-605 another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with held(folder / ".lock") as descriptor:
            yield descriptor
    except LockHeldError:
        raise RunError(
            "FECG-605",
            "run folder",
            found="another run that is writing there, or a cell of a killed grid",
            expected="a folder of its own",
            fix="Wait for it, or choose another --out.",
        ) from None
