"""The dashboard as a process: beside a study, and on its own."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from coordinator_process import Running, free_port, make_coordinator, until
from page_reading import ask, words
from watched_run import WatchedRun

from fedecg.config import StudySettings
from fedecg.errors import RunError
from fedecg.progress import Progress
from fedecg_server.cli import main
from fedecg_server.coordinator import Coordinator, open_coordinator
from fedecg_server.dashboard import serve_dashboard
from fedecg_server.loopback_http import LoopbackServer
from fedecg_server.run_view import RunFiles
from fedecg_server.watch import watch


def with_ports(coordinator: Coordinator, dashboard: int, metrics: int) -> Coordinator:
    """Its server.toml with other ports; the process that serves reads them there."""
    written = coordinator.server_file.read_text().splitlines()
    lines = [line for line in written if not line.startswith(("dashboard-port", "metrics-port"))]
    coordinator.server_file.unlink()  # a link to that of all tests
    lines += [f"dashboard-port = {dashboard}", f"metrics-port = {metrics}", ""]
    coordinator.server_file.write_text("\n".join(lines))
    return open_coordinator(coordinator.folder)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def fetched(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_watching_serves_what_is_switched_on_and_ends_with_its_block(
    coordinator: Coordinator, run: WatchedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run.begin()
    page, figures = free_port(), free_port()
    threads = threading.active_count()
    with watch(with_ports(coordinator, page, figures), Progress()):
        until(lambda: not is_free(page) and not is_free(figures), 20.0)
        assert "Sites are joining." in fetched(page, "/")
        assert "fedecg_study_state" in fetched(figures, "/metrics")
        assert threading.active_count() == threads  # none in this process
    assert is_free(page)
    assert is_free(figures)
    assert (coordinator.log / "watch.log").read_text() == ""
    said = capsys.readouterr().err
    assert f"dashboard: http://127.0.0.1:{page}/" in said
    assert f"metrics: http://127.0.0.1:{figures}/" in said


def test_a_page_whose_process_was_killed_is_back_by_itself_later_each_time(
    coordinator: Coordinator,
    run: WatchedRun,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fedecg_server.watch.FIRST_PAUSE_S", 0.2)
    run.begin()
    page = free_port()
    with watch(with_ports(coordinator, page, 0), Progress()) as pages:
        assert pages is not None
        until(lambda: not is_free(page), 20.0)
        first = pages.child.pid
        os.kill(first, signal.SIGKILL)
        until(
            lambda: pages.tend() or (pages.child.pid != first and not is_free(page)), 20.0, "the page again"
        )
        assert pages.pause_s == 0.4
        assert "Sites are joining." in fetched(page, "/")
        pages.tend()
    assert is_free(page)
    said = capsys.readouterr().err
    assert said.count("dashboard: ended (log/watch.log), and will be back; the study goes on") == 1


def test_what_is_switched_off_is_not_served(
    coordinator: Coordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    with watch(with_ports(coordinator, 0, 0), Progress()):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_a_coordinator_that_waits_for_sites_shows_it_and_leaves_nothing_behind(
    tmp_path: Path, end: str
) -> None:
    page, figures = free_port(), free_port()
    coordinator = with_ports(make_coordinator(tmp_path / "coordinator"), page, figures)
    with Running(coordinator) as running:
        until(running.waits_for_sites, 120.0, "a study that waits")
        assert (
            "Waiting: too few sites for a round, or sites that take longer than usual. Sites are joining."
            in words(fetched(page, "/"))
        )
        assert 'fedecg_study_state{state="waiting"} 1.0' in fetched(figures, "/metrics")
        assert f"dashboard: http://127.0.0.1:{page}/" in running.text()
        if end == "stopped":
            assert running.ask_to_stop() == 0
        else:
            running.process.kill()
            running.process.wait()
        until(lambda: is_free(page) and is_free(figures), 5.0, "free ports")


def test_a_port_that_is_taken_costs_the_page_and_not_the_study(
    coordinator: Coordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with watch(with_ports(coordinator, taken, figures), Progress()):
            until(lambda: not is_free(figures), 20.0)
        said = capsys.readouterr().err
        with pytest.raises(RunError) as raised:
            serve_dashboard(coordinator, taken, print)
    assert "warning: no dashboard: FECG-691" in said
    assert str(raised.value) == (
        f"FECG-691 dashboard-port {taken} on 127.0.0.1: found a port that cannot be had (Address already in use); "
        f"expected a free port. Is it served already? See: ss -ltnp | grep {taken}. Else change dashboard-port in "
        "server.toml; 0 = off."
    )


def test_the_page_is_there_for_a_finished_study_until_ctrl_c(
    coordinator: Coordinator, run: WatchedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.begin()
    run.play("survival", 3, of=10)
    run.finish(best=2)
    said: list[str] = []

    def look_and_interrupt(_: float) -> None:
        url = said[0].split()[0]
        connection = http.client.HTTPConnection(url.removeprefix("http://").rstrip("/"), timeout=5)
        connection.request("GET", "/status.json")
        said.append(connection.getresponse().read().decode())
        connection.close()
        raise KeyboardInterrupt

    monkeypatch.setattr("fedecg_server.dashboard.time.sleep", look_and_interrupt)
    assert serve_dashboard(coordinator, 0, said.append) == 0
    assert json.loads(said[1])["state"] == "completed"


def test_the_command_shows_a_study_that_has_stopped_until_it_is_asked_to_end(
    coordinator: Coordinator, run: WatchedRun
) -> None:
    run.begin()
    run.play("survival", 3, of=10)
    command = [sys.executable, "-m", "fedecg_server.cli", "dashboard", str(coordinator.folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            (port,) = re.findall(r"^http://127\.0\.0\.1:(\d+)/ \(this machine only; Ctrl-C ends it\)\n", line)
            connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=5)
            connection.request("GET", "/")
            assert "Stopped." in words(connection.getresponse().read().decode())
            connection.close()
            process.terminate()
            assert process.wait(5.0) == 0
            assert process.stderr is not None
            assert process.stderr.read() == ""
        finally:
            process.kill()


@pytest.mark.parametrize("port", ["-1", "65536", "x"])
def test_a_port_that_cannot_be_is_wrong_use(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["dashboard", "--port", port])
    assert ended.value.code == 2
    assert "argument --port" in capsys.readouterr().err


def test_the_page_loads_neither_torch_nor_flower_nor_matplotlib() -> None:
    code = "import sys, fedecg_server.watch, fedecg_server.dashboard, fedecg_server.metrics; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("'torch'", "'flwr'", "'matplotlib'", "'pandas'"):
        assert heavy not in loaded


def test_a_long_study_is_shown_fast(
    coordinator: Coordinator, run: WatchedRun, server: LoopbackServer
) -> None:
    run.begin()
    entries: list[dict[str, Any]] = []
    for number in range(1, 1001):
        entries.append(run._record("survival", number, {}).entry())
    (run.folder.path / "rounds.json").write_text(json.dumps(entries))
    ask(server)
    began = time.perf_counter()
    for _ in range(5):
        run.journal.write()
        assert ask(server, "/parts.json")[0] == 200
    assert (time.perf_counter() - began) / 5 < 0.5


def test_settings_of_the_study_are_read_from_the_run(run: WatchedRun) -> None:
    run.begin()
    settings = RunFiles(run.folder.path).view().settings
    assert isinstance(settings, StudySettings)
    assert settings == run.settings
