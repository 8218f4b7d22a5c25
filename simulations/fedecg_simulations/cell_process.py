"""A cell's process, forked from one that has imported everything: a grid pays for the imports once, not in each cell.

In:  the cell's study file and folder, the grid's lock. Out: the process, already running. Called by `grid_run`.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

from fedecg_simulations.grid_cells import LOG

__all__ = ["start_cell"]

# Forked before anything is computed: threads of torch or BLAS would not survive it.
_WARM = multiprocessing.get_context("forkserver")
_WARM.set_forkserver_preload(["fedecg_simulations.runner"])


def start_cell(study: Path, folder: Path, lock: int) -> BaseProcess:
    """Run a study as `fedecg-simulate run --no-report` would, its output in the folder's run.log.

    Args:
        study: the cell's settings.
        folder: the cell's run folder.
        lock: file descriptor that the process holds as long as it lives: after a kill of the grid alone no other grid
            starts beside it.
    """
    process = _WARM.Process(target=_run, args=(str(study), str(folder), _Inherited(lock)))
    process.start()
    return process


@dataclass(frozen=True)
class _Inherited:
    """A file descriptor that a child process has, too; there it may have another number."""

    descriptor: int

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (DupFd(self.descriptor),)


def _received(sent: Any) -> _Inherited:
    return _Inherited(sent.detach())


def _run(study: str, folder: str, _lock: _Inherited) -> None:
    with (Path(folder) / LOG).open("wb") as log, Path(os.devnull).open("rb") as nothing:
        for descriptor, stream in enumerate((nothing, log, log)):
            os.dup2(stream.fileno(), descriptor)
    from fedecg_simulations.cli import main

    sys.exit(main(["run", study, "--out", folder, "--no-report"]))
