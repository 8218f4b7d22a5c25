"""What lets people watch a running study: the dashboard and the metrics, as threads of the supervisor.

In:  the coordinator's folder. Out: both servers of server.toml that are switched on, for as long as the block runs.
Called by the supervisor. A port that cannot be had is said and costs the page, never the study.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from fedecg.errors import RunError
from fedecg.progress import Progress
from fedecg_server.coordinator import Coordinator
from fedecg_server.loopback_http import LoopbackServer, serving

__all__ = ["watch"]


@contextmanager
def watch(coordinator: Coordinator, progress: Progress) -> Iterator[None]:
    """Serve what is switched on; both end with the block.

    Args:
        coordinator: the folder.
        progress: where it is said what is served, and what cannot be.
    """
    with ExitStack() as stack:
        for words, make in _switched_on(coordinator):
            try:
                server = stack.enter_context(serving(make()))
            except RunError as error:
                progress.warn(f"no {words}: {error}")
                continue
            progress.say(f"{words}: {server.url}")
        yield


def _switched_on(coordinator: Coordinator) -> Iterator[tuple[str, Callable[[], LoopbackServer]]]:
    settings = coordinator.settings
    if settings.dashboard_port:
        from fedecg_server.dashboard import dashboard_server

        yield "dashboard", lambda: dashboard_server(coordinator, settings.dashboard_port, supervised=True)
    if settings.metrics_port:
        from fedecg_server.metrics import metrics_server

        yield "metrics", lambda: metrics_server(coordinator, settings.metrics_port)
