"""A run that is watched and a server of its page, for the tests of the dashboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from watched_run import WatchedRun

from fedecg_server.coordinator import Coordinator, create_coordinator
from fedecg_server.dashboard import dashboard_server
from fedecg_server.loopback_http import LoopbackServer, serving


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Coordinator:
    return create_coordinator(tmp_path_factory.mktemp("made") / "coordinator", "127.0.0.1", 19092)


@pytest.fixture
def coordinator(template: Coordinator, tmp_path: Path) -> Coordinator:
    """A folder of its own, with the keys of all the others: making them takes a moment."""
    folder = tmp_path / "coordinator"
    folder.mkdir()
    for name in ("server.toml", "study.toml", "sites.json", "tls"):
        (folder / name).symlink_to(template.folder / name)
    (folder / "run").mkdir()
    (folder / "state").mkdir()
    return Coordinator(folder, template.settings)


@pytest.fixture
def run(coordinator: Coordinator) -> WatchedRun:
    return WatchedRun(coordinator.run, coordinator.study())


@pytest.fixture
def server(coordinator: Coordinator) -> Iterator[LoopbackServer]:
    with serving(dashboard_server(coordinator, 0, supervised=True)) as server:
        yield server
