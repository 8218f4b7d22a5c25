"""Where a site works on a task: its folder, and what a round shows and keeps while it runs.

In:  a node's settings, a task and its key. Out: the site's folder, a `Workplace` for `fedecg_client.work`; on disk
     state/progress.json, which the agent reads, and state/checkpoint, which a killed round goes on from.
Called by the ClientApp. Where there is no state folder, as in a simulation, nothing is shown.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flwr.app import Context

from fedecg.codes import CODES
from fedecg.errors import RunError, SettingsError
from fedecg.federation.tasks import Task, TrainTask
from fedecg.files import write_whole
from fedecg.training import UNWATCHED, Checkpoint, Watch
from fedecg_client.alone_kept import AloneFile
from fedecg_client.folder import made_state, site_state
from fedecg_client.site_status import LEFT_OUT, add_event

__all__ = [
    "SITES_VARIABLE",
    "ProgressFile",
    "Workplace",
    "at_work",
    "left_out",
    "made_state",
    "phase_of",
    "refused",
    "said",
    "site_folder",
    "site_state",
]

SITES_VARIABLE = "FEDECG_SITES"  # folder of site folders: for engines that only number their nodes
SHOWN_EVERY_S = 1.0
LONG = ("align", "survival", "baselines", "explain")

log = logging.getLogger("fedecg.client")


@dataclass(frozen=True)
class Workplace:
    """What work needs of its surroundings.

    Attributes:
        folder: of the site, with site.toml.
        watch: of a local round.
        alone: keeps where the site's training alone stands; None = nothing is kept.
    """

    folder: Path
    watch: Watch = UNWATCHED
    alone: AloneFile | None = None


@contextmanager
def at_work(folder: Path, task: Task, key: str, keep: bool) -> Iterator[Workplace]:
    """Show what the site works on, and keep the round until the work is done; after a fault it is kept on.

    Args:
        folder: of the site.
        task: that is worked on.
        key: of the task, which names its checkpoint.
        keep: the site keeps what it has done until it has arrived.

    Raises:
        RunError: FECG-601 if something is to be kept and there is no room for a folder.
    """
    state = made_state(folder) if keep else site_state(folder)
    checkpoint = Checkpoint(state / "checkpoint" / "round.safetensors", key) if keep else None
    alone = AloneFile(state / "checkpoint", key) if keep else None
    progress = ProgressFile(state / "progress.json", task) if state.is_dir() else None
    try:
        if progress:
            progress(0, 0)
        yield Workplace(folder, Watch(checkpoint, progress), alone)
        for kept in (checkpoint, alone):
            if kept:
                kept.remove()
    finally:
        if progress:
            progress.remove()


@contextmanager
def said(site: str, task: Task) -> Iterator[None]:
    """Say in the site's log what it begins with, if that takes long, and each task that is done."""
    phase = phase_of(task)
    first = task.round == 1 and not task.repeat
    words = f"{site}: study {task.settings.get('name')}: "
    if phase in LONG and first:
        log.info("%s%s begins", words, phase)
    began = time.monotonic()
    yield
    place = f"{phase} round {task.round}" if isinstance(task, TrainTask) else phase
    place += f" of repetition {task.repeat}" if task.repeat else ""
    log.info("%s%s done in %.1f s", words, place, time.monotonic() - began)


class ProgressFile:
    """state/progress.json: study, phase, round, step, steps and since when; written at most once a second.

    Not synced to the disk: after a power cut nobody asks for it.
    """

    def __init__(self, path: Path, task: Task, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._part = path, path.with_name(f".{path.name}.part")
        self._clock, self._due, self._steps = clock, clock(), -1
        self._task = {
            "study": task.settings.get("name"),
            "phase": phase_of(task),
            "round": task.round,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def __call__(self, step: int, steps: int) -> None:
        """So many steps are made; a change of their number is shown at once."""
        now = self._clock()
        if now < self._due and steps == self._steps:
            return
        self._due, self._steps = now + SHOWN_EVERY_S, steps
        with suppress(OSError):  # a full disk costs the display, not the round
            self._part.write_text(json.dumps({**self._task, "step": step, "steps": steps}))
            self._part.replace(self._path)

    def remove(self) -> None:
        """Nothing is worked on."""
        for file in (self._path, self._part):
            with suppress(OSError):
                file.unlink(missing_ok=True)


def refused(folder: Path | None, code: str) -> None:
    """One line in state/events.jsonl for a task that was not done; `fedecg-client doctor` explains the code."""
    state = None if folder is None else site_state(folder)
    if state is not None and state.is_dir():
        add_event(state, "task-refused", code=code)


def left_out(folder: Path, site: str, task: Task) -> None:
    """Tell the people at the site what became of its last reply, if the coordinator could not use it.

    Once a task, in the log and in state/events.jsonl; state/left-out.json stands until a reply has been taken.
    """
    state, code = site_state(folder), task.rejected.get(site)
    if not state.is_dir():
        return
    if code is None:
        with suppress(OSError):
            (state / LEFT_OUT).unlink(missing_ok=True)
        return
    meaning = CODES.get(code, "a code of another version")
    told = {
        "code": code,
        "meaning": meaning,
        "phase": phase_of(task),
        "round": task.round,
        "repeat": task.repeat,
    }
    with suppress(OSError, ValueError):
        if json.loads((state / LEFT_OUT).read_text(encoding="utf-8")) == told:
            return  # the same task, sent again
    log.warning("%s: the coordinator left out this site's last reply: %s %s", site, code, meaning)
    add_event(state, "left-out", code=code)
    with suppress(RunError):  # a full disk costs the display, not the round
        write_whole(state / LEFT_OUT, json.dumps(told) + "\n")


def phase_of(task: Task) -> str:
    """As statuses name it: align, survey, survival, evaluate, assess or explain."""
    return task.stage if isinstance(task, TrainTask) else type(task).__name__.removesuffix("Task").lower()


def site_folder(context: Context) -> Path:
    """The site's folder: from the node's own settings, or the n-th of `FEDECG_SITES`.

    Raises:
        SettingsError: FECG-105 if neither is given.
    """
    named = context.node_config.get("site-folder")
    if isinstance(named, str):
        return Path(named)
    sites, number = os.environ.get(SITES_VARIABLE), context.node_config.get("partition-id")
    if sites and isinstance(number, int):
        return sorted(folder.parent for folder in Path(sites).glob("*/site.toml"))[number]
    raise SettingsError(
        "FECG-105",
        "site folder",
        found="none",
        expected="node-config site-folder",
        fix="Start the node with --node-config 'site-folder=\"/path\"'.",
    )
