"""The app host as the supervisor sees it: a child, and a pipe on which it tells what becomes of the runs it takes.

In:  the coordinator's folder. Out: a running app host and its events. Called by the supervisor.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass

from fedecg_server.child import Child, keep_bounded
from fedecg_server.coordinator import Coordinator
from fedecg_server.superlink import flower_environment

__all__ = ["HostEvent", "HostProcess"]

STOP_S = 4.0
READ_BYTES = 65_536


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

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._child is not None and self._child.alive

    @property
    def pid(self) -> int | None:
        """Process id, if it was started."""
        return self._child.pid if self._child else None

    def start(self) -> None:
        """Start it; it loads torch and then says `ready`."""
        self._close_pipe()
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
        """What it has told since the last call."""
        if self._pipe is None:
            return []
        with suppress(BlockingIOError):
            while part := os.read(self._pipe, READ_BYTES):
                self._rest += part
        *lines, self._rest = self._rest.split(b"\n")
        return [HostEvent(**json.loads(line)) for line in lines]

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
