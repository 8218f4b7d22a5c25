"""What lets people watch a running study: the dashboard and the metrics, in one process beside the supervisor.

In:  the coordinator's folder. Out: both pages of server.toml that are switched on, for as long as the block runs.
Called by the supervisor, which must stay without threads of its own (see `child`): so they are threads of a process
that never outlives it. A port that cannot be had, or that process's end, costs the pages and never the study.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fedecg.errors import RunError
from fedecg.exits import exit_status
from fedecg.progress import Progress
from fedecg_server.child import Child
from fedecg_server.coordinator import Coordinator, open_coordinator
from fedecg_server.loopback_http import LoopbackServer, serving

__all__ = ["Pages", "main", "watch"]

LOG = "watch.log"
STOP_S = 2.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0  # before a process that died is started again
DASHBOARD, METRICS = "dashboard", "metrics"


class Pages:
    """The process that serves; whatever ends it, it comes back, later each time.

    Args:
        coordinator: the folder.
        served: dashboard, metrics, or both.
        progress: where it is said that it died.
    """

    def __init__(self, coordinator: Coordinator, served: list[str], progress: Progress) -> None:
        self.coordinator, self.served, self.progress = coordinator, served, progress
        self.pause_s, self.again_s = FIRST_PAUSE_S, float("inf")
        self.child = self._started()

    def tend(self) -> None:
        """Start it again if it has died and its pause is over."""
        now = time.monotonic()
        if self.child.alive:
            return
        if self.again_s == float("inf"):
            self.progress.warn(
                f"{' and '.join(self.served)}: ended (log/{LOG}), and will be back; the study goes on"
            )
            self.again_s = now + self.pause_s
            self.pause_s = min(2 * self.pause_s, LONGEST_PAUSE_S)
        elif now >= self.again_s:
            self.again_s = float("inf")
            with suppress(OSError):  # no room for a log, no process: at the next look it is dead again
                self.child = self._started()

    def end(self) -> None:
        """Stop it for certain."""
        self.child.ask_to_stop()
        self.child.stop(STOP_S)

    def _started(self) -> Child:
        command = [sys.executable, "-m", "fedecg_server.watch", str(self.coordinator.folder), *self.served]
        return Child(command, os.environ, self.coordinator.log / LOG)


@contextmanager
def watch(coordinator: Coordinator, progress: Progress) -> Iterator[Pages | None]:
    """Serve what is switched on; it ends with the block.

    Args:
        coordinator: the folder.
        progress: where it is said what is served, and what cannot be.
    """
    served = [name for name, port in _ports(coordinator).items() if _can_be_had(name, port, progress)]
    if not served:
        yield None
        return
    pages = Pages(coordinator, served, progress)
    try:
        yield pages
    finally:
        pages.end()


def main(words: list[str]) -> int:
    """The process: serve until SIGTERM, or until the supervisor is gone.

    Args:
        words: the coordinator's folder, then what is to be served.

    Raises:
        RunError: FECG-691 if a port was taken in the meantime.
    """
    coordinator = open_coordinator(Path(words[0]))
    ports, servers = _ports(coordinator), _servers(coordinator)
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        for name in words[1:]:
            stack.enter_context(serving(servers[name](ports[name])))
        while True:
            time.sleep(3600.0)
    return 0


def _ports(coordinator: Coordinator) -> dict[str, int]:
    """Those that are switched on."""
    settings = coordinator.settings
    ports = {DASHBOARD: settings.dashboard_port, METRICS: settings.metrics_port}
    return {name: port for name, port in ports.items() if port}


def _can_be_had(name: str, port: int, progress: Progress) -> bool:
    """Say where it will be; or, while somebody is reading, why it will not."""
    try:
        probe = LoopbackServer(port, {}, f"{name}-port")
    except RunError as error:
        progress.warn(f"no {name}: {error}")
        return False
    probe.server_close()
    progress.say(f"{name}: {probe.url}")
    return True


def _servers(coordinator: Coordinator) -> dict[str, Callable[[int], LoopbackServer]]:
    """Loaded by the process that serves, not by the supervisor."""
    from fedecg_server.dashboard import dashboard_server
    from fedecg_server.metrics import metrics_server

    return {
        DASHBOARD: lambda port: dashboard_server(coordinator, port, supervised=True),
        METRICS: lambda port: metrics_server(coordinator, port),
    }


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
