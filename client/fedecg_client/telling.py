"""What the agent says on stderr while it runs, a line at a time, for whoever started it or reads the service's log.

In:  the agent's events, and the fault that it waits out. Out: lines. Called by `SiteStatus`; what the site works on is
said by its worker (`workplace.said`). Codes, counts and times only: no patient, no path.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress

from fedecg.codes import CODES
from fedecg.errors import RunError

__all__ = ["Telling"]

SAY_AGAIN_S = 600.0  # a wait that goes on is said again
LINES = {
    "resume": "goes on with the task that it had when it was ended",
    "dropped": "a task is dropped: its run is over",
    "worker-died": "its worker ended before it was done, and is started again",
    "task-too-long": "a task took longer than policy.task-limit-s and was ended",
    "stop": "stopped",
}


class Telling:
    """The lines of one agent.

    Args:
        site: its name, with which each line begins.
        clock: seconds, for what is said again.
    """

    def __init__(self, site: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.site, self._clock = site, clock
        # Since it was connected: what it waited for, and when that was said.
        self._waits: dict[str, float] = {}
        self._been_connected = self._reply_waited = False

    def event(self, event: str, code: object = None) -> None:
        """Say what has happened, if people care."""
        if event == "online":
            self._say("connected again" if self._been_connected else "connected")
            self._been_connected, self._reply_waited = True, bool(self._waits)
            self._waits.clear()
        elif event == "reply":
            if self._reply_waited:
                self._say("its reply is sent")
            self._reply_waited = False
        elif event in LINES:
            self._say(LINES[event])
        elif event in ("foreign-bundle", "unrecorded"):
            self._say(f"a task is refused: {code} {CODES.get(str(code), '')}")

    def waits(self, error: RunError, most_s: float) -> None:
        """Say what is waited out: when it begins, when it changes, and now and then."""
        key, now = f"{error.code} {error.found}", self._clock()
        if now - self._waits.get(key, float("-inf")) >= SAY_AGAIN_S:
            self._waits[key] = now
            self._say(f"waits, and tries again every {most_s:.0f} s or sooner: {error}")

    def _say(self, text: str) -> None:
        with suppress(OSError, ValueError):  # nobody reads it any more
            print(f"{self.site}: {text}", file=sys.stderr, flush=True)
