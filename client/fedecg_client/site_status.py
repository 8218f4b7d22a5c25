"""What a site's agent tells the people at the site: state/status.json (now) and state/events.jsonl (since it began).

In:  the agent's state, and state/progress.json, in which the app says how far a task is. Out: the two files, and lines
on stderr.
Called by the agent; read by `fedecg-client status` and `doctor`. Counts, codes and times only: no patient, no path.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from fedecg.errors import RunError
from fedecg.files import write_whole
from fedecg_client.telling import Telling

__all__ = ["EPSILON_SPENT", "LEFT_OUT", "SiteStatus", "State", "add_event"]

State = Literal["connecting", "idle", "working", "stopped", "refused"]
EVERY_S = {"working": 1.0, "idle": 5.0}
MOST_EVENT_BYTES = 2_000_000  # then events.jsonl becomes events.1.jsonl, and the one before that is gone
LEFT_OUT = "left-out.json"  # what the coordinator says of the site's last reply, if it could not use it
EPSILON_SPENT = "epsilon-spent.json"  # after the last release; written where the ledger is open
PROGRESS = ("study", "phase", "round", "step", "steps")


class SiteStatus:
    """Writes both files; a full disk must not stop the agent, so a write that fails is tried again at the next.

    Args:
        folder: the site's state folder.
        site: its name.
    """

    def __init__(self, folder: Path, site: str) -> None:
        self.folder = folder
        self._telling = Telling(site)
        self._waits_for = ""  # the fault that was told last
        self._written = 0.0
        self._document: dict[str, Any] = {
            "site": site,
            "state": "connecting",
            "code": None,
            **dict.fromkeys(PROGRESS),
            "eta-s": None,
            "since": now(),
            "updated": now(),
            "connected": False,
            "waiting-for": None,
            "at-most-s": None,
            "received-bytes": 0,
            "sent-bytes": 0,
            "tasks-done": 0,
            "last-reply": None,
            "pid": os.getpid(),
            "worker-pid": None,
        }

    def say(self, state: State | None = None, **changes: Any) -> None:
        """Change what is told and write it: at once if state, code or wait changed, else now and then.

        Args:
            state: the new state, if it changes.
            changes: other keys, with `_` for `-`.
        """
        document = self._document
        seen = {key: document[key] for key in ("state", "code", "waiting-for", "connected", "tasks-done")}
        document.update({key.replace("_", "-"): value for key, value in changes.items()})
        if state and state != document["state"]:
            document.update({"state": state, "since": now()})
        if document["state"] != "working":
            document.update({key: None for key in (*PROGRESS, "eta-s") if key != "study"})
        changed = any(document[key] != value for key, value in seen.items())
        if changed or time.monotonic() - self._written > EVERY_S.get(document["state"], 0.0):
            self._write()

    def event(self, event: str, **details: int | float | str | None) -> None:
        """Append one line to events.jsonl, and say it."""
        add_event(self.folder, event, **details)
        self._telling.event(event, details.get("code"))

    def online(self) -> None:
        """The coordinator has let it in."""
        self._waits_for = ""
        self.event("online")
        self.say("idle", code=None, connected=True, waiting_for=None, at_most_s=None)

    def waits(self, error: RunError, wait_s: float, most_s: float) -> None:
        """It waits this long before it tries again, `most_s` at most however often."""
        if (found := f"{error.code} {error.found}") != self._waits_for:
            self.event("wait", code=error.code, found=error.found)
            self._waits_for = found
        self._telling.waits(error, most_s)
        self.say(
            "connecting",
            code=error.code,
            connected=False,
            waiting_for=f"{error.what}: {error.found}; expected {error.expected}",
            at_most_s=round(wait_s, 1),
        )

    def _write(self) -> None:
        if self._document["state"] == "working":
            self._document.update(read_progress(self.folder / "progress.json"))
        self._document["updated"] = now()
        self._written = time.monotonic()
        with suppress(Exception):  # a full disk is told by the app, in its reply
            write_whole(
                self.folder / "status.json", json.dumps(self._document, indent=1) + "\n", durable=False
            )


def add_event(folder: Path, event: str, **details: int | float | str | None) -> None:
    """Append one line to events.jsonl of a state folder; a full disk costs the line, not the work."""
    line = json.dumps({"time": now(), "event": event, **details}) + "\n"
    file = folder / "events.jsonl"
    with suppress(OSError):
        if file.exists() and file.stat().st_size > MOST_EVENT_BYTES:
            file.replace(folder / "events.1.jsonl")
        with file.open("a", encoding="utf-8") as stream:
            stream.write(line)


def read_progress(file: Path) -> dict[str, Any]:
    """How far the app is, and the seconds that are left at its present pace; nothing if it has not said."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        known = {key: said.get(key) for key in PROGRESS if key in said}
        return {**known, "eta-s": _seconds_left(said)}
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return {}


def _seconds_left(said: dict[str, Any]) -> float | None:
    step, steps = said.get("step"), said.get("steps")
    if not step or not steps:
        return None
    taken_s = time.time() - _timestamp(said["started"])
    return round(max(0.0, taken_s / float(step) * float(steps - step)), 1)


def _timestamp(started: float | str) -> float:
    return datetime.fromisoformat(started).timestamp() if isinstance(started, str) else float(started)


def now() -> str:
    """Now, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
