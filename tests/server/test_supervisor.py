"""The coordinator's supervisor with real processes: start, stop, refusals, and what it tells."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

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

from fedecg.errors import RunError
from fedecg.progress import Progress
from fedecg_server import supervisor
from fedecg_server.coordinator import Coordinator
from fedecg_server.host_process import HostEvent
from fedecg_server.narrator import Narrator
from fedecg_server.server_lock import running_pid
from fedecg_server.supervisor import StopRequest, Supervisor, start, stop


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One that waits for its sites, for all tests that leave it as it is; it was begun beside a finished run."""
    coordinator = make_coordinator(tmp_path_factory.mktemp("waiting") / "coordinator")
    (coordinator.run / "result.json").write_text('{"status": "completed"}')
    began = time.monotonic()
    with Running(coordinator, "new") as running:
        until(lambda: "sites reach port" in running.text(), START_S, running.text())
        running.ready_s = time.monotonic() - began  # type: ignore[attr-defined]
        until(running.waits_for_sites, START_S, "a study that waits")
        yield running


# What needs one running coordinator


def test_sites_can_come_within_ten_seconds(waiting: Running) -> None:
    assert waiting.ready_s < 10.0  # type: ignore[attr-defined]
    assert answers(waiting.coordinator)


def test_the_study_says_itself_that_it_waits(waiting: Running) -> None:
    status = waiting.status()
    assert (status["study"], status["phase"], status["state"]) == ("waiting", "join", "waiting")
    assert len(taken_runs(waiting.coordinator)) == 1


def test_new_puts_the_earlier_run_aside_whole_and_begins_another(waiting: Running) -> None:
    (aside,) = waiting.coordinator.folder.glob("run-*")
    assert [file.name for file in aside.iterdir()] == ["result.json"]
    assert f"the earlier run is in {aside.name}/" in waiting.text()
    assert not (waiting.coordinator.run / "result.json").exists()


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


@pytest.mark.parametrize(
    ("file", "fix"), [("result.json", "begin another run"), ("failed.json", "the study then goes on with")]
)
@pytest.mark.parametrize("content", ["[1]", "3", '{"code": 3, "status": 3}', "{", "[" * 100_000])
def test_an_end_that_cannot_be_read_is_told_and_nothing_is_begun_over_it(
    coordinator: Coordinator, file: str, content: str, fix: str
) -> None:
    (coordinator.run / file).write_text(content)
    with pytest.raises(
        RunError, match=f"FECG-602 run/{file}: found content that cannot be read.*{fix}"
    ) as end:
        start(coordinator)
    assert end.value.exit_status == 3  # a service manager must not try it again and again
    assert [left.name for left in coordinator.run.iterdir()] == [file]


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
    assert f"{status}; everything is in run/\n" in capsys.readouterr().err
    c_index = {"stratified": 0.59, "global": 0.6, "ci-low": 0.47, "ci-high": 0.72, "events": 33}
    result = {"status": status, "evaluation": {"validation": {"stratified": 0.8}, "test": c_index}}
    (coordinator.run / "result.json").write_text(json.dumps(result))
    assert start(coordinator) == code
    end = "run/. C-index 0.590 within sites; over all 0.600 (95 % CI 0.470-0.720); 33 events; test part\n"
    assert end in capsys.readouterr().err
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


def test_a_resumption_that_comes_to_nothing_leaves_the_code_that_the_study_ended_with(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = {"code": "FECG-507", "message": "FECG-507 what: found this; expected that."}
    (coordinator.run / "failed.json").write_text(json.dumps(failed))
    monkeypatch.setattr("fedecg_server.superlink.PORTS_FREE_S", 0.1)
    with socket.socket() as other:
        other.bind(("127.0.0.1", coordinator.settings.port))
        other.listen()
        with pytest.raises(RunError, match="FECG-683 port"):
            start(coordinator, resume=True)
    assert json.loads((coordinator.run / "failed.json").read_text()) == failed
    certificate = coordinator.tls.certificate.read_bytes()
    coordinator.tls.certificate.unlink()
    with pytest.raises(RunError, match="FECG-673"):
        start(coordinator, resume=True)
    coordinator.tls.certificate.write_bytes(certificate)
    coordinator.superlink.mkdir(exist_ok=True)
    (coordinator.superlink / "database.made").touch()  # and none beside it: it was lost
    with pytest.raises(RunError, match="FECG-684"):
        start(coordinator, resume=True)
    assert start(coordinator) == 3  # so a service manager does not begin it again and again
    assert not coordinator.app_log.exists()


def test_a_new_run_that_comes_to_nothing_leaves_the_finished_one_where_it_is(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (coordinator.run / "result.json").write_text('{"status": "completed"}')
    monkeypatch.setattr("fedecg_server.superlink.PORTS_FREE_S", 0.1)
    with socket.socket() as other:
        other.bind(("127.0.0.1", coordinator.settings.port))
        other.listen()
        with pytest.raises(RunError, match="FECG-683 port"):
            start(coordinator, new=True)
    coordinator.tls.certificate.unlink()
    with pytest.raises(RunError, match="FECG-673"):
        start(coordinator, new=True)
    assert [file.name for file in coordinator.run.iterdir()] == ["result.json"]
    assert not list(coordinator.folder.glob("run-*"))
    assert "the earlier run" not in capsys.readouterr().err
    assert start(coordinator) == 0  # finished, as before


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


TIMES = {"started": "2026-11-21T07:00:00+00:00", "updated": "2026-11-21T08:00:00+00:00"}


def test_a_wait_is_told_with_whom_and_how_long(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = tmp_path / "status.json"
    narrator = Narrator(status, Progress())
    narrator.look()  # not there yet
    site = {"name": "coast", "state": "working", "last-round": 2, "code": None, "seconds": None}
    document = {"state": "running", "phase": "survival", "round": 3, "rounds": 40, "waiting-for": ["coast"]}
    document |= TIMES | {
        "waited-s": 41.0,
        "at-most-s": 300.0,
        "sites": [site],
        "c-index": {"stratified": 0.7123},
    }
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
            json.dumps(TIMES | {"state": "running", "phase": "join", "notes": ["epsilon 8 is planned"]})
        )
        os.utime(status, ns=(0, number + 1))
        narrator.look()
    assert capsys.readouterr().err.splitlines() == ["epsilon 8 is planned", "join"]


@pytest.mark.parametrize("content", ["[1]", "3", '{"sites": [1]}', "{", "[" * 100_000])
def test_a_damaged_status_file_says_nothing_until_the_study_has_written_it_again(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = tmp_path / "status.json"
    narrator = Narrator(status, Progress())
    status.write_text(content)
    narrator.look()
    assert capsys.readouterr().err == ""
    status.write_text(json.dumps(TIMES | {"state": "running", "phase": "join"}))
    os.utime(status, ns=(0, 1))
    narrator.look()
    assert capsys.readouterr().err.splitlines() == ["join"]


def test_our_own_bundle_refused_ends_it_and_a_foreign_one_does_not(
    coordinator: Coordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = Supervisor(coordinator, Progress(), StopRequest())
    watch.run_id = "7"
    watch._hear(HostEvent("refused", "8", "FECG-688"))
    assert "another bundle; it was not run" in capsys.readouterr().err
    with pytest.raises(RunError, match="FECG-688 submitted bundle: found another hash.*pip check"):
        watch._hear(HostEvent("refused", "7", "FECG-688"))
