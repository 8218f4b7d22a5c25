"""What the supervisor waits for beside the study: named while it lasts, with its bound, so that `status` can tell.

In:  words and seconds. Out: `state/supervisor.json` while there is such a wait, and no such file otherwise. Written by
the supervisor; read by `fedecg-server status` and the dashboard, which pass over what a killed supervisor has left.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedecg.errors import RunError
from fedecg.files import write_whole
from fedecg_server.coordinator import Coordinator

__all__ = ["Wait", "Waits", "present_wait", "wait_keys"]

FILE = "supervisor.json"


@dataclass(frozen=True)
class Wait:
    """A wait of the supervisor's, in words, and its seconds so far and at most."""

    what: str
    waited_s: float
    at_most_s: float


class Waits:
    """One wait at a time.

    Args:
        coordinator: the folder.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._file = _file(coordinator)
        self._what: str | None = ""  # of the file as it stands; None: there is none

    def say(self, what: str, at_most_s: float) -> None:
        """It waits, or still waits; a wait is written when it begins.

        Args:
            what: is waited for.
            at_most_s: how long the wait may last in all, in seconds.
        """
        if what == self._what:
            return
        document = {"waiting-for": what, "since": round(time.time(), 1), "at-most-s": at_most_s}
        with suppress(
            RunError
        ):  # a full disk: said as such where the study fails, and tried again at the next turn
            write_whole(self._file, json.dumps(document) + "\n", durable=False)
            self._what = what

    def over(self) -> None:
        """It waits for nothing but the study."""
        if self._what is not None:
            self._file.unlink(missing_ok=True)
            self._what = None


def present_wait(coordinator: Coordinator) -> Wait | None:
    """The wait, if there is one. To be asked only while a supervisor runs.

    Args:
        coordinator: the folder.
    """
    try:
        said = json.loads(_file(coordinator).read_text(encoding="utf-8"))
        waited_s = round(max(0.0, time.time() - float(said["since"])), 1)
        return Wait(str(said["waiting-for"]), waited_s, float(said["at-most-s"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def wait_keys(wait: Wait) -> dict[str, Any]:
    """A wait as status.json names those of the study."""
    return {"waiting-for": [wait.what], "waited-s": wait.waited_s, "at-most-s": wait.at_most_s}


def _file(coordinator: Coordinator) -> Path:
    return coordinator.state / FILE
