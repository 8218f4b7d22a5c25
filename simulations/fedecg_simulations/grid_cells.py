"""One cell of a grid on disk: whether it is finished, why it failed, and what of it is kept.

In:  a cell and the grid's folder. Out: its `Outcome`. Called by `grid_run`.

A cell is the run folder `GRID/cells/AXIS=VARIANT,...,seed=S`. It is finished when its summary.json carries the
sha256 of the cell's settings and of the models that it began with; the code that made it is reported, and does not
count. `failed.json` says of a failed
cell how it ended, `run.log` what it printed. Of a cell that has ended only the files are kept (study.toml,
summary.json, rounds.json, result.json, assessment.json, run.log; `fedecg report` draws a cell's page from them): its
folders (`sites/`, `columns/`, `model/`) would fill the disk, a hundred cells like the demo 2 GB.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tomli_w

from fedecg.errors import RunError
from fedecg.files import write_whole
from fedecg.fingerprint import code_fingerprint
from fedecg_server.run_folder import STUDY, read_json, write_json
from fedecg_simulations.beforehand import starts_sha256
from fedecg_simulations.grid_plan import Cell

__all__ = ["LOG", "Outcome", "cell_folder", "drop_folders", "make_room", "read_outcome", "settle"]

FAILED, LOG = "failed.json", "run.log"
FINISHED_EXITS = (0, 5)  # of `fedecg-simulate run`: completed, completed-partial


@dataclass(frozen=True)
class Outcome:
    """How a cell stands."""

    status: Literal["waiting", "failed", "completed", "completed-partial"]
    summary: Mapping[str, Any] | None = None  # of a finished cell
    failure: Mapping[str, Any] | None = (
        None  # of a failed one: code, message, exit, seconds, code-fingerprint
    )
    other_settings: bool = False  # waiting, though finished with other settings

    @property
    def finished(self) -> bool:
        """True where there are figures."""
        return self.summary is not None


def cell_folder(cell: Cell, grid: Path) -> Path:
    """The cell's run folder."""
    return grid / "cells" / cell.name


def read_outcome(cell: Cell, grid: Path) -> Outcome:
    """How a cell stands; what was left half-written or belongs to other settings is `waiting`."""
    folder = cell_folder(cell, grid)
    summary, failure = _read(folder / "summary.json"), _read(folder / FAILED)
    same = summary.get("settings-sha256") == cell.sha256
    if same and summary.get("starts-sha256", {}) == starts_sha256(cell.settings):
        return Outcome(summary["status"], summary=summary)
    if failure.get("settings-sha256") == cell.sha256:
        return Outcome("failed", failure=failure)
    return Outcome("waiting", other_settings=bool(summary))


def make_room(cell: Cell, grid: Path) -> Path:
    """An empty run folder with the cell's settings in it; returns the study file, which runs by hand, too."""
    folder = cell_folder(cell, grid)
    shutil.rmtree(folder, ignore_errors=True)
    write_whole(folder / STUDY, tomli_w.dumps(cell.settings.model_dump(by_alias=True, exclude_none=True)))
    return folder / STUDY


def settle(cell: Cell, grid: Path, exit_status: int, seconds: float) -> Outcome:
    """After its process: drop the folders of the cell and, unless it is finished, record how it ended."""
    drop_folders(cell, grid)
    outcome = read_outcome(cell, grid)
    if outcome.finished:
        return outcome
    code, message = _reason(cell_folder(cell, grid) / LOG, exit_status)
    failure = {
        "code": code,
        "message": message,
        "exit": exit_status,
        "seconds": round(seconds, 3),
        "settings-sha256": cell.sha256,
        "code-fingerprint": code_fingerprint("fedecg_simulations"),
    }
    write_json(cell_folder(cell, grid) / FAILED, failure)
    return Outcome("failed", failure=failure)


def drop_folders(cell: Cell, grid: Path) -> None:
    """Delete all folders inside a cell's folder."""
    for inside in cell_folder(cell, grid).iterdir():
        if inside.is_dir():
            shutil.rmtree(inside)


def _read(file: Path) -> dict[str, Any]:
    try:
        tree = read_json(file)
    except RunError:
        return {}
    return tree if isinstance(tree, dict) else {}


def _reason(log: Path, exit_status: int) -> tuple[str, str]:
    """Code and message of a failed cell: the last coded error that it printed, or that there is none."""
    if exit_status in FINISHED_EXITS:
        error = RunError(
            "FECG-632",
            "cell",
            found="a summary of other settings than the grid's, or none",
            expected="that of its settings",
            fix="Code or settings changed while the grid ran: run the grid again.",
        )
        return error.code, str(error)
    printed = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    coded = [line for line in printed if re.match(r"FECG-\d{3} ", line)]
    if coded:
        return coded[-1][: len("FECG-nnn")], coded[-1]
    error = RunError(
        "FECG-631",
        "cell",
        found=f"exit status {exit_status} without a code",
        expected="a finished study, or a coded error",
        fix=f"See {LOG} in its folder; a negative status is a signal, -9 often too little memory.",
    )
    return error.code, str(error)
