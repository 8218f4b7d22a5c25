"""The app host as the supervisor sees it: a child, and a pipe on which it tells what becomes of the runs it takes.

In:  the coordinator's folder. Out: a running app host, its events, and whether it stands still. Called by the
supervisor.
A thread of the host says `alive` every few seconds. It is heard from a host that computes, too, unless one call into
compiled code keeps Python's lock for minutes, which none of ours does; a host that is stopped, or stuck in such a call
for good, is silent.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass

from fedecg_server.child import Child, keep_bounded
from fedecg_server.coordinator import Coordinator
from fedecg_server.superlink import flower_environment

__all__ = ["ALIVE", "HostEvent", "HostProcess"]

STOP_S = 4.0
READ_BYTES = 65_536
ALIVE, READY = "alive", "ready"
READY_S = 300.0  # importing torch on a slow disk
SILENT_S = 120.0  # of a host that was ready
LOOK_S = 2.0  # the most that a pause between two looks counts: while the supervisor slept, nobody listened


@dataclass(frozen=True)
class HostEvent:
    """ready | taken | completed | failed | crashed | lost | refused | stopped, of which run, and why."""

    event: str
    run: str
    details: str


class HostProcess:
    """One `python -m fedecg_server.app_host`.

    Args:
        coordinator: whose studies it runs.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self._child: Child | None = None
        self._pipe: int | None = None
        self._rest = b""
        self._ready = False
        self._looked_s = self.silent_s = 0.0  # time of the last look; seconds without a word

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._child is not None and self._child.alive

    @property
    def pid(self) -> int | None:
        """Process id, if it was started."""
        return self._child.pid if self._child else None

    @property
    def patience_s(self) -> float:
        """How long it may be silent: until it is ready, and from then on."""
        return SILENT_S if self._ready else READY_S

    @property
    def stands_still(self) -> bool:
        """Whether it runs, and has been silent for longer than anything that it does takes."""
        return self.alive and self.silent_s > self.patience_s

    def start(self) -> None:
        """Start it; it loads torch and then says `ready`."""
        self._close_pipe()
        self._ready, self._looked_s, self.silent_s = False, time.monotonic(), 0.0
        self._pipe, write = os.pipe()
        os.set_blocking(self._pipe, False)
        self._rest = b""
        # -P: the folder in which it is started is not looked at for code.
        command = [sys.executable, "-P", "-m", "fedecg_server.app_host", str(self.coordinator.folder)]
        try:
            self._child = Child(
                [*command, "--report", str(write)],
                flower_environment(self.coordinator),
                self.coordinator.app_log,
                inherited=[write],
            )
        finally:
            os.close(write)

    def events(self) -> list[HostEvent]:
        """What it has told since the last call, but for that it is alive."""
        if self._pipe is None:
            return []
        now = time.monotonic()
        self.silent_s += min(now - self._looked_s, LOOK_S)
        self._looked_s = now
        with suppress(BlockingIOError):
            while part := os.read(self._pipe, READ_BYTES):
                self._rest += part
        *lines, self._rest = self._rest.split(b"\n")
        events = [HostEvent(**json.loads(line)) for line in lines]
        self._ready = self._ready or any(event.event == READY for event in events)
        if events and self._ready:  # before, being alive is no progress
            self.silent_s = 0.0
        return [event for event in events if event.event != ALIVE]

    def tend(self) -> None:
        """Keep its log bounded."""
        with suppress(OSError):
            keep_bounded(self.coordinator.app_log)

    def stop(self, within_s: float = STOP_S) -> None:
        """Stop it for certain; a run that it has taken is told to the SuperLink as ended.

        Args:
            within_s: time for a clean end, in seconds.
        """
        if self._child:
            self._child.ask_to_stop()
            self._child.stop(within_s)
        self._close_pipe()

    def _close_pipe(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
