"""What the supervisor does when anything is killed, hangs or breaks: real processes, real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from coordinator_process import (
    START_S,
    Running,
    answers,
    is_alive,
    make_coordinator,
    run_on,
    taken_runs,
    until,
)

from fedecg.federation.bundle import bundle_files
from fedecg.progress import Progress
from fedecg_server import supervisor
from fedecg_server.coordinator import Coordinator
from fedecg_server.host_process import HostEvent, HostProcess
from fedecg_server.submit import submit_study
from fedecg_server.superlink import SuperLink, flower_environment
from fedecg_server.supervisor import StopRequest, Supervisor, stop


def flower(coordinator: Coordinator, *words: str) -> dict[str, Any]:
    """What Flower's own command line answers."""
    command = [Path(sys.executable).with_name("flwr"), *words, "coordinator", "--format", "json"]
    environment = flower_environment(coordinator)
    return dict(json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout))


@pytest.fixture
def running(coordinator: Coordinator) -> Iterator[Running]:
    with Running(coordinator) as process:
        until(process.waits_for_sites, START_S, "a study that waits")
        yield process


@pytest.mark.slow
def test_a_killed_superlink_is_back_and_the_same_run_goes_on(running: Running) -> None:
    (run,) = taken_runs(running.coordinator)
    killed = running.kill("superlink")
    until(lambda: running.children().get("superlink", killed) != killed, 5.0, "a new SuperLink")
    until(lambda: answers(running.coordinator), 10.0, "an open port")
    before = until(lambda: running.status().get("updated"), 5.0)
    until(
        lambda: running.status()["updated"] > before and running.waits_for_sites(),
        30.0,
        "a study that goes on",
    )
    assert taken_runs(running.coordinator) == [run]
    assert "the SuperLink runs again" in running.text()


@pytest.mark.slow
def test_a_killed_app_host_is_back_with_one_run_alive(running: Running) -> None:
    (first,) = taken_runs(running.coordinator)
    running.kill("host")
    until(lambda: len(taken_runs(running.coordinator)) == 2, 30.0, running.text())
    states = {run["run-id"]: run["status"] for run in flower(running.coordinator, "list")["runs"]}
    assert states.pop(first) == "finished:stopped"
    assert list(states.values()) == ["running"]


@pytest.mark.slow
def test_a_run_that_the_superlink_gave_up_is_submitted_again(running: Running) -> None:
    (first,) = taken_runs(running.coordinator)
    superlink = running.children()["superlink"]
    os.kill(superlink, signal.SIGSTOP)  # longer than Flower keeps a run that it does not hear of: 60 s
    time.sleep(75.0)
    os.kill(superlink, signal.SIGCONT)
    until(lambda: len(taken_runs(running.coordinator)) == 2, 60.0, running.text())
    until(running.waits_for_sites, START_S)
    assert "the run was lost at the SuperLink" in running.text()
    states = {run["run-id"]: run["status"] for run in flower(running.coordinator, "list")["runs"]}
    assert states.pop(first).startswith("finished")
    assert list(states.values()) == ["running"]


@pytest.mark.slow
def test_a_superlink_that_does_not_answer_is_replaced(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "PROBE_EVERY_S", 0.0)
    watch = Supervisor(coordinator, Progress(), StopRequest())
    try:
        watch.link.start()
        first = watch.link.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        for _ in range(supervisor.MOST_MISSES):
            assert watch.link.alive
            watch._tend()
        assert not watch.link.alive
        watch._mend()
        assert watch.link.answers()
        assert watch.link.pid != first
    finally:
        watch.link.stop()


@pytest.mark.slow
def test_after_a_killed_supervisor_nothing_is_left_and_start_works_at_once(running: Running) -> None:
    children = running.children()
    running.process.kill()
    running.process.wait()
    until(lambda: not any(map(is_alive, children.values())), 2.0, "the end of all children")
    (run,) = taken_runs(running.coordinator)
    with Running(running.coordinator) as again:
        until(lambda: len(taken_runs(running.coordinator)) == 2, START_S, again.text())
        until(again.waits_for_sites, START_S)
        assert again.ask_to_stop() == 0
    assert taken_runs(running.coordinator)[0] == run


@pytest.mark.slow
def test_stop_from_another_process_and_start_again(running: Running) -> None:
    assert stop(running.coordinator, timeout_s=10.0) == 0
    assert running.process.wait(5.0) == 0
    with Running(running.coordinator, "resume") as again:
        until(again.waits_for_sites, START_S)
        assert stop(running.coordinator, timeout_s=10.0) == 0


@pytest.mark.slow
def test_no_file_grows_while_nothing_happens(running: Running) -> None:
    def sizes() -> dict[str, int]:
        folder = running.coordinator.folder
        return {str(f.relative_to(folder)): f.stat().st_size for f in folder.rglob("*") if f.is_file()}

    time.sleep(5.0)  # until the last lines of the start are written
    processes, before = running.children(), sizes()
    time.sleep(20.0)
    after = sizes()
    # The SuperLink notes each heartbeat in its write-ahead log, which SQLite begins anew at 4 MB.
    assert after.pop("superlink/database-wal") - before.pop("superlink/database-wal") < 100_000
    status = "run/status.json"  # replaced every second; its seconds get more digits
    assert abs(after.pop(status) - before.pop(status)) < 20
    assert after == before
    assert running.children() == processes


@pytest.mark.slow
def test_a_database_that_breaks_while_it_runs_ends_it_with_the_way_to_restore(running: Running) -> None:
    for part in running.coordinator.superlink.glob("database-*"):
        part.unlink()
    os.truncate(running.coordinator.database, 1000)
    running.kill("superlink")
    assert running.process.wait(30.0) == 1
    assert "FECG-684" in running.text()
    assert "from a backup" in running.text()
    assert not any(map(is_alive, running.seen))


@pytest.mark.slow
def test_a_study_that_ends_with_a_code_ends_the_coordinator_with_it(tmp_path: Path) -> None:
    coordinator = make_coordinator(tmp_path / "coordinator", patience_s=1.0)
    coordinator.study_file.write_text(coordinator.study_file.read_text().replace("600.0", "1.0"))
    status, text = run_on(coordinator, within_s=90.0)
    failed = json.loads((coordinator.run / "failed.json").read_text())
    assert (status, failed["code"]) == (1, "FECG-507")
    assert failed["message"] in text
    assert failed["code"] in coordinator.app_log.read_text()
    status, text = run_on(coordinator, "resume", within_s=90.0)  # tries again, and ends in the same way
    assert (status, text.count("FECG-507")) == (1, 1)
    assert len(taken_runs(coordinator)) == 2


@pytest.mark.slow
def test_a_study_that_crashes_again_and_again_ends_in_a_code_and_loses_nothing(running: Running) -> None:
    coordinator, whole = running.coordinator, running.coordinator.sites_file.read_text()
    coordinator.sites_file.write_text("{")  # while it runs: the study reads it at every look for sites
    assert running.process.wait(120.0) == 1
    assert "FECG-687" in running.text()
    assert "the study stopped with JSONDecodeError" in running.text()
    assert len(taken_runs(coordinator)) == supervisor.FAILURES
    assert not (coordinator.run / "failed.json").exists()  # no verdict of the study's own
    coordinator.sites_file.write_text(whole)
    with Running(coordinator) as again:
        until(again.waits_for_sites, START_S)
        assert again.ask_to_stop() == 0


@pytest.mark.slow
def test_a_bundle_with_code_is_taken_by_nobody(coordinator: Coordinator, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    (folder / "evil").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(bundle_files()["pyproject.toml"].replace("fedecg_server", "evil"))
    (folder / "evil" / "app.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')\napp = None\n")
    link, host = SuperLink(coordinator), HostProcess(coordinator)
    events: list[HostEvent] = []
    try:
        link.start()
        host.start()
        run = flower(coordinator, "run", str(folder))["run-id"]
        until(lambda: events.extend(host.events()) or len(events) == 3, START_S, str(events))
        assert [event.event for event in events] == ["ready", "taken", "refused"]
        assert events[-1] == HostEvent("refused", run, "FECG-688")
        (entry,) = flower(coordinator, "list")["runs"]
        assert (entry["status"], entry["status-details"]) == ("finished:failed", "FECG-688")
        assert not (coordinator.run / "failed.json").exists()  # the study itself has not ended
        own = submit_study(coordinator)
        until(lambda: events.extend(host.events()) or events[-1] == HostEvent("taken", own, ""), START_S)
    finally:
        host.stop()
        link.stop()
    assert not (tmp_path / "was-run").exists()


@pytest.mark.slow
def test_the_app_host_outlives_a_superlink_that_is_away_for_a_while(coordinator: Coordinator) -> None:
    link, host = SuperLink(coordinator), HostProcess(coordinator)
    events: list[HostEvent] = []
    try:
        link.start()
        host.start()
        run = submit_study(coordinator)
        until(lambda: events.extend(host.events()) or HostEvent("taken", run, "") in events, START_S)
        link.stop()
        time.sleep(30.0)
        link.start()
        time.sleep(25.0)  # longer than any pause between two tries
        assert [entry["status"] for entry in flower(coordinator, "list")["runs"]] == ["running"]
        events.extend(host.events())
        assert events[-1].event == "taken"
    finally:
        host.stop()
        link.stop()
    assert events[-1].run == run
