"""The coordinator's supervisor with real processes: start, stop, refusals, and what it does when anything is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from coordinator_process import Running, is_alive, make_coordinator, taken_runs, until

from fedecg.errors import RunError
from fedecg.federation.bundle import bundle_files
from fedecg.progress import Progress
from fedecg_server import supervisor
from fedecg_server.coordinator import Coordinator
from fedecg_server.host_process import HostEvent, HostProcess
from fedecg_server.narrator import Narrator
from fedecg_server.server_lock import running_pid
from fedecg_server.submit import submit_study
from fedecg_server.superlink import SuperLink, flower_environment
from fedecg_server.supervisor import StopRequest, Supervisor, start, stop

START_S = 60.0  # bound of a test's own waits; what is promised is asserted apart


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return make_coordinator(tmp_path / "coordinator")


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One that waits for its sites, for all tests that leave it as it is."""
    coordinator = make_coordinator(tmp_path_factory.mktemp("waiting") / "coordinator")
    began = time.monotonic()
    with Running(coordinator) as running:
        until(lambda: "sites reach port" in running.text(), START_S, running.text())
        running.ready_s = time.monotonic() - began  # type: ignore[attr-defined]
        until(running.waits_for_sites, START_S, "a study that waits")
        yield running


def answers(coordinator: Coordinator) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", coordinator.settings.port)) == 0


def flower(coordinator: Coordinator, *words: str) -> dict[str, Any]:
    """What Flower's own command line answers."""
    command = [Path(sys.executable).with_name("flwr"), *words, "coordinator", "--format", "json"]
    environment = flower_environment(coordinator)
    return dict(json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout))


def run_on(coordinator: Coordinator, *words: str, within_s: float = 30.0) -> tuple[int, str]:
    """Start it where it must end by itself; exit status and what it said."""
    with Running(coordinator, *words) as running:
        return running.process.wait(within_s), running.text()


# What needs one running coordinator


def test_sites_can_come_within_ten_seconds(waiting: Running) -> None:
    assert waiting.ready_s < 10.0  # type: ignore[attr-defined]
    assert answers(waiting.coordinator)


def test_the_study_says_itself_that_it_waits(waiting: Running) -> None:
    status = waiting.status()
    assert (status["study"], status["phase"], status["state"]) == ("waiting", "join", "waiting")
    assert len(taken_runs(waiting.coordinator)) == 1


def test_the_supervisor_loads_neither_torch_nor_a_study(waiting: Running) -> None:
    mapped = Path(f"/proc/{waiting.process.pid}/maps").read_text()
    assert "libtorch" not in mapped
    status = Path(f"/proc/{waiting.process.pid}/status").read_text()
    assert "\nThreads:\t1\n" in status  # its children are tied to the life of the thread that forked them
    assert "libtorch" in Path(f"/proc/{waiting.children()['host']}/maps").read_text()


def test_a_second_start_in_the_same_folder_is_refused(waiting: Running) -> None:
    status, text = run_on(waiting.coordinator)
    assert status == 1
    assert "FECG-685" in text
    assert "fedecg-server stop" in text
    assert waiting.waits_for_sites()


def test_the_process_that_holds_the_lock_is_found_and_no_other(waiting: Running) -> None:
    assert running_pid(waiting.coordinator) == waiting.process.pid
    written = waiting.coordinator.pid_file.read_text()
    try:
        waiting.coordinator.pid_file.write_text(f"{os.getpid()}\n")  # a number that is somebody else's by now
        with pytest.raises(RunError, match="FECG-689 .*server.pid"):
            stop(waiting.coordinator)
    finally:
        waiting.coordinator.pid_file.write_text(written)


def test_sigterm_ends_all_of_it_within_ten_seconds_and_keeps_the_state(waiting: Running) -> None:
    children = waiting.children()
    began = time.monotonic()
    assert waiting.ask_to_stop() == 0
    assert time.monotonic() - began < 10.0
    assert set(children) == {"superlink", "host"}
    assert not any(map(is_alive, children.values()))
    assert running_pid(waiting.coordinator) is None
    assert (waiting.coordinator.run / "status.json").exists()
    assert not (waiting.coordinator.run / "failed.json").exists()
    assert "stopped" in waiting.coordinator.app_log.read_text().splitlines()[-1]


# What ends before anything is started


def test_a_taken_port_ends_the_start(coordinator: Coordinator) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", coordinator.settings.port))
        other.listen()
        status, text = run_on(coordinator)
    assert status == 1
    assert f"FECG-683 port {coordinator.settings.port}" in text
    assert not coordinator.app_log.exists()


def test_there_is_nothing_to_resume_before_a_run_was_begun(coordinator: Coordinator) -> None:
    with pytest.raises(RunError, match="FECG-686 run to resume: found none that was begun.*start"):
        start(coordinator, resume=True)


def test_stop_of_what_does_not_run_says_so(
    coordinator: Coordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stop(coordinator) == 0
    assert "not running" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "code"), [("completed", 0), ("completed-partial", 5)])
def test_start_on_a_finished_run_says_so(
    coordinator: Coordinator, capsys: pytest.CaptureFixture[str], status: str, code: int
) -> None:
    (coordinator.run / "result.json").write_text(json.dumps({"status": status}))
    assert start(coordinator) == code
    assert f"{status}; everything is in run/" in capsys.readouterr().err
    with pytest.raises(RunError, match="FECG-686 .*found one that is finished.*--new"):
        start(coordinator, resume=True)
    assert not coordinator.superlink_log.exists()


@pytest.mark.parametrize(
    ("code", "status"), [("FECG-103", 3), ("FECG-323", 3), ("FECG-411", 4), ("FECG-507", 3)]
)
def test_start_on_a_failed_run_tells_its_code_again(
    coordinator: Coordinator, capsys: pytest.CaptureFixture[str], code: str, status: int
) -> None:
    failed = {"code": code, "message": f"{code} what: found this; expected that."}
    (coordinator.run / "failed.json").write_text(json.dumps(failed))
    assert start(coordinator) == status
    said = capsys.readouterr().err
    assert failed["message"] in said
    assert "fedecg-server resume" in said
    assert (coordinator.run / "failed.json").exists()


def test_new_puts_the_earlier_run_aside(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    (coordinator.run / "result.json").write_text('{"status": "completed"}')
    monkeypatch.setattr(Supervisor, "run", lambda _: 0)  # the folders alone are looked at
    assert start(coordinator, new=True) == 0
    (aside,) = coordinator.folder.glob("run-*")
    assert (aside / "result.json").exists()
    assert list(coordinator.run.iterdir()) == []


# How failures are counted, and what is said


def test_failures_without_a_new_round_end_it_and_rounds_count_anew(coordinator: Coordinator) -> None:
    watch = Supervisor(coordinator, Progress(), StopRequest())
    for _ in range(supervisor.FAILURES - 1):
        watch._failed("the app host ended")
    (coordinator.run / "rounds.json").write_text("[{}]")
    for _ in range(supervisor.FAILURES - 1):
        watch._failed("the app host ended")
    with pytest.raises(
        RunError, match=r"FECG-687 .*5 failures without a new round; the last: no more.*app\.log"
    ):
        watch._failed("no more")


def test_a_wait_is_told_with_whom_and_how_long(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = tmp_path / "status.json"
    narrator = Narrator(status, Progress())
    narrator.look()  # not there yet
    site = {"name": "coast", "state": "working", "last-round": 2, "code": None, "seconds": None}
    document = {"state": "running", "phase": "survival", "round": 3, "rounds": 40, "waiting-for": ["coast"]}
    document |= {"waited-s": 41.0, "at-most-s": 300.0, "sites": [site], "c-index": {"stratified": 0.7123}}
    told = (("running", "working", None), ("waiting", "working", None), ("waiting", "late", None))
    for study, state, code in (*told, ("waiting", "rejected", "FECG-505"), ("running", "answered", None)):
        sites = [site | {"state": state, "code": code}]
        status.write_text(json.dumps(document | {"state": study, "sites": sites}))
        os.utime(status, ns=(0, narrator._written + 1))
        narrator.look()
        narrator.look()  # nothing is said twice
    assert capsys.readouterr().err.splitlines() == [
        "survival round 3 of 40; C-index 0.712",
        "waiting for coast, 41 s of at most 300 s",
        "coast: late",
        "coast: rejected (FECG-505)",
        "coast: answered",
    ]
    status.write_text(json.dumps(document | {"waited-s": 61.0, "at-most-s": 900.0}))
    os.utime(status, ns=(0, narrator._written + 1))
    narrator.look()
    assert capsys.readouterr().err.splitlines() == ["coast: at work, 61 s of at most 900 s"]


def test_what_a_study_has_to_tell_at_its_start_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = tmp_path / "status.json"
    narrator = Narrator(status, Progress())
    for number in range(2):
        status.write_text(
            json.dumps({"state": "running", "phase": "join", "notes": ["epsilon 8 is planned"]})
        )
        os.utime(status, ns=(0, number + 1))
        narrator.look()
    assert capsys.readouterr().err.splitlines() == ["epsilon 8 is planned", "join"]


def test_our_own_bundle_refused_ends_it_and_a_foreign_one_does_not(
    coordinator: Coordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = Supervisor(coordinator, Progress(), StopRequest())
    watch.run_id = "7"
    watch._hear(HostEvent("refused", "8", "FECG-688"))
    assert "another bundle; it was not run" in capsys.readouterr().err
    with pytest.raises(RunError, match="FECG-688 submitted bundle: found another hash.*pip check"):
        watch._hear(HostEvent("refused", "7", "FECG-688"))


# Kills


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
