"""An app host that stands still is noticed, ended and replaced: real processes, real SIGSTOP."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from coordinator_process import START_S, is_alive, make_coordinator, taken_runs

from fedecg.progress import Progress
from fedecg_server import host_process
from fedecg_server.host_process import HostProcess
from fedecg_server.superlink import prepare_folder
from fedecg_server.supervisor import StopRequest, Supervisor


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Supervisor]:
    """A supervisor whose turns the test takes, with a SuperLink that runs."""
    watch = Supervisor(make_coordinator(tmp_path / "coordinator"), Progress(), StopRequest())
    try:
        watch.link.start()
        yield watch
    finally:
        watch.host.stop()
        watch.link.stop()


def turns(watch: Supervisor, done: Callable[[], bool], within_s: float) -> float:
    """Take turns until it is done; how long that took, in seconds."""
    began = time.monotonic()
    while not done():
        assert time.monotonic() - began < within_s, "not in time"
        assert watch._turn() is None
        time.sleep(0.1)
    return time.monotonic() - began


@pytest.mark.slow
def test_a_stopped_app_host_is_replaced_and_the_study_is_taken_again(
    watch: Supervisor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(host_process, "SILENT_S", 8.0)
    turns(watch, lambda: watch.taken, START_S)
    first = watch.host.pid
    assert first is not None
    began = time.monotonic()
    turns(watch, lambda: time.monotonic() - began > 12.0, START_S)
    assert watch.host.pid == first  # a study that waits for its sites is no host that stands still
    os.kill(first, signal.SIGSTOP)
    took_s = turns(watch, lambda: watch.host.pid != first, START_S)
    assert 2.0 < took_s < 20.0
    assert not is_alive(first)
    turns(watch, lambda: watch.taken and len(taken_runs(watch.coordinator)) == 2, START_S)
    said = capsys.readouterr().err
    assert "the app host has stood still for 8 s; it is ended" in said
    assert "the app host ended (log/app.log)" in said


@pytest.mark.slow
def test_an_app_host_that_never_becomes_ready_is_replaced(
    watch: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_process, "READY_S", 3.0)
    watch.host.start()
    first = watch.host.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    turns(watch, lambda: watch.host.pid != first, START_S)
    assert not is_alive(first)
    monkeypatch.undo()  # its successor may take as long as this machine needs
    turns(watch, lambda: watch.taken, START_S)


@pytest.mark.slow
def test_time_in_which_the_supervisor_itself_slept_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_process, "SILENT_S", 6.0)
    coordinator = make_coordinator(tmp_path / "coordinator")
    prepare_folder(coordinator)
    host = HostProcess(coordinator)
    try:
        host.start()
        until = time.monotonic() + START_S
        while not any(event.event == "ready" for event in host.events()):
            assert time.monotonic() < until
            time.sleep(0.1)
        assert host.pid is not None
        os.kill(host.pid, signal.SIGSTOP)  # as when a whole machine is frozen: both stand still
        time.sleep(10.0)
        host.events()
        host.events()
        assert not host.stands_still
        os.kill(host.pid, signal.SIGCONT)
        time.sleep(0.5)
        host.events()
        assert host.silent_s == 0.0
    finally:
        host.stop()
