"""Runs the cells of a grid, each in a process of its own, and keeps its tables up to date.

In:  a `GridPlan`, the grid's folder, how many cells at once. Out: each cell's `Outcome`; the grid's tables, written
after every cell. Called by `fedecg-simulate grid`. Finished cells are never run again, failed ones at the next call.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from fedecg.errors import FedecgError, SettingsError, some_of
from fedecg.fingerprint import code_fingerprint
from fedecg.progress import Progress
from fedecg_simulations.beforehand import refuse_impossible, refuse_wrong_start, start_of
from fedecg_simulations.cell_process import start_cell
from fedecg_simulations.grid_cells import (
    Outcome,
    cell_folder,
    drop_folders,
    make_room,
    read_outcome,
    settle,
)
from fedecg_simulations.grid_plan import Cell, GridPlan
from fedecg_simulations.grid_report import write_report
from fedecg_simulations.lock import only_one
from fedecg_simulations.partitions import virtual_sites
from fedecg_simulations.sites import with_reports
from fedecg_simulations.sources import load_dataset

__all__ = ["Outcomes", "check_cells", "read_outcomes", "run_grid"]

Outcomes = dict[str, Outcome]  # cell's name -> how it stands
LOOK_EVERY_S = 0.1
GRACE_S = 10.0  # for a cell to end by itself when the grid is stopped


def read_outcomes(plan: GridPlan, out: Path) -> Outcomes:
    """How all cells stand."""
    return {cell.name: read_outcome(cell, out) for cell in plan.cells}


def check_cells(cells: Iterable[Cell]) -> None:
    """Load each cell's patients and deal them to its sites, so that what cannot be is known before hours of work.

    A model that cells begin with is looked at once.

    Raises:
        SettingsError: FECG-114 with a line for every cell that cannot be.
    """
    lines = []
    by_data = sorted(cells, key=_data_of)  # one data set in memory at a time
    data, dataset, seen = "", None, {""}
    for cell in by_data:
        try:
            if (start := start_of(cell.settings)) not in seen:
                refuse_wrong_start(cell.settings)
                seen.add(start)
            if dataset is None or _data_of(cell) != data:
                data, dataset = _data_of(cell), load_dataset(cell.settings)
            events = cell.settings.data.events
            _, parts = virtual_sites(dataset, cell.settings.partition, cell.seed, events)
            refuse_impossible(cell.settings, len(parts))
            with_reports(dataset, parts, cell.settings.site_defaults)
        except FedecgError as error:
            lines.append(f"{cell.name}: {error}")
    if lines:
        raise SettingsError(
            "FECG-114",
            "cells",
            found=f"{len(lines)} that cannot be\n  " + "\n  ".join(sorted(lines)) + "\n",
            expected="data, partitions, models and numbers of sites that can be",
            fix="Nothing was run.",
        )


def run_grid(
    plan: GridPlan,
    out: Path,
    jobs: int,
    progress: Progress,
    chosen: Sequence[Cell] | None = None,
    replace: bool = False,
) -> Outcomes:
    """Run the cells that are not finished, `jobs` at once; tables are written after each.

    Args:
        plan: all cells; the tables are of these.
        out: the grid's folder.
        jobs: processes at once.
        progress: says how far it is.
        chosen: cells to run; None = all.
        replace: run cells again that were finished with other settings.

    Raises:
        SettingsError: FECG-114 before anything runs; FECG-118 cells would be replaced.
        RunError: FECG-605 another grid is writing there; FECG-601 tables cannot be written.
        KeyboardInterrupt: all cells' processes are ended first.
    """
    chosen = plan.cells if chosen is None else chosen
    check_cells(cell for cell in chosen if not read_outcome(cell, out).finished)
    with only_one(out) as lock:
        outcomes = read_outcomes(plan, out)
        for cell in plan.cells:
            if outcomes[cell.name].finished:  # a kill may have come before this
                drop_folders(cell, out)
        to_run = [cell for cell in chosen if not outcomes[cell.name].finished]
        if not replace:
            _refuse_replacing([cell for cell in to_run if outcomes[cell.name].other_settings])
        _say_what_is_there(plan, outcomes, progress)
        write_report(plan, outcomes, out)
        with (
            progress.task("cells", len(to_run)) as advance,
            closing(_run_cells(to_run, out, jobs, lock)) as ended,
        ):
            for done, (cell, outcome) in enumerate(ended, start=1):
                outcomes[cell.name] = outcome
                if outcome.failure is not None:
                    progress.warn(f"{cell.name} failed: {outcome.failure['message']}")
                write_report(plan, outcomes, out)
                advance(done, cell.name)
    _warn_of_other_code(outcomes, progress)
    return outcomes


def _refuse_replacing(cells: Sequence[Cell]) -> None:
    if cells:
        raise SettingsError(
            "FECG-118",
            "cells",
            found=f"{len(cells)} that were finished with other settings, or from another model: "
            f"{some_of([cell.name for cell in cells])}",
            expected="finished cells that stay as they are",
            fix="Give the changed grid a folder of its own with --out, or run them again with --replace.",
        )


@dataclass(frozen=True)
class _Running:
    cell: Cell
    process: BaseProcess
    started_s: float


def _run_cells(
    cells: Iterable[Cell], out: Path, jobs: int, lock: int
) -> Generator[tuple[Cell, Outcome], None, None]:
    """Each cell with its outcome, as it ends; whatever ends this ends the processes."""
    waiting, running = deque(cells), list[_Running]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.popleft()
                try:
                    running.append(_start(cell, out, lock))
                except (
                    OSError
                ) as error:  # no memory for a process, say; a full disk ends the grid by FECG-601
                    yield cell, settle(cell, out, error.errno or 1, 0.0)
            ended = [one for one in running if one.process.exitcode is not None]
            for one in ended:
                running.remove(one)
                seconds = time.monotonic() - one.started_s
                yield one.cell, settle(one.cell, out, one.process.exitcode or 0, seconds)
            if not ended:
                time.sleep(LOOK_EVERY_S)
    finally:
        _stop([one.process for one in running])


def _start(cell: Cell, out: Path, lock: int) -> _Running:
    study = make_room(cell, out)
    return _Running(cell, start_cell(study, cell_folder(cell, out), lock), time.monotonic())


def _stop(processes: Sequence[BaseProcess]) -> None:
    """Ask, so that nothing half-written is left (not by SIGINT, which a script's background ignores); then insist."""
    try:
        for process in processes:
            process.terminate()
        until = time.monotonic() + GRACE_S
        for process in processes:
            process.join(max(0.0, until - time.monotonic()))
    finally:
        for process in processes:
            process.kill()
            process.join()


def _data_of(cell: Cell) -> str:
    """What the data set depends on: neither on whose outcomes are known, nor on where things are kept."""
    data = cell.settings.data.model_dump(exclude={"events", "aligned", "store"})
    return f"{cell.seed} {data!r}"


def _say_what_is_there(plan: GridPlan, outcomes: Outcomes, progress: Progress) -> None:
    finished = sum(outcome.finished for outcome in outcomes.values())
    failed = sum(outcome.status == "failed" for outcome in outcomes.values())
    progress.say(f"grid {plan.name}: {len(outcomes)} cells, {finished} finished, {failed} failed earlier")


def _warn_of_other_code(outcomes: Outcomes, progress: Progress) -> None:
    made_by = [o.summary["code-fingerprint"] for o in outcomes.values() if o.summary is not None]
    others = sum(code != code_fingerprint("fedecg_simulations") for code in made_by)
    if others:
        progress.warn(f"{others} of {len(made_by)} finished cells were made by other code than today's")
