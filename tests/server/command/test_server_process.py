"""`fedecg-server start`, `stop`, `report` and wrong use, from the shell's side."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from server_words import Captured

from fedecg.cli import main as fedecg
from fedecg_server.cli import main


def test_report_is_that_of_the_run_folder(folder: Path, capsys: Captured) -> None:
    (folder / "run/result.json").write_text("{}")
    status, told = main(["report", str(folder)]), capsys.readouterr().err
    assert "FECG-602 rounds.json" in told
    assert (fedecg(["report", str(folder / "run")]), capsys.readouterr().err) == (status, told)


def test_a_report_before_the_end_says_where_the_study_stands(folder: Path, capsys: Captured) -> None:
    assert main(["report", str(folder)]) == 3
    told = capsys.readouterr().err
    assert "FECG-602 report: found a study that has not begun; expected one that is finished" in told
    assert "what is next: fedecg-server status." in told
    (folder / "run/status.json").write_text("{}")
    assert main(["report", str(folder)]) == 3
    assert "found a study that has not ended; expected" in capsys.readouterr().err


def test_stop_of_what_does_not_run_is_done(folder: Path) -> None:
    assert main(["stop", str(folder)]) == 0


@pytest.mark.parametrize(
    "words", [["stop", "--timeout", "-1"], ["stop", "--timeout", "nan"], ["nothing"], ["init"]]
)
def test_wrong_use_is_status_2(words: list[str], capsys: Captured) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert "usage: fedecg-server" in capsys.readouterr().err


@pytest.mark.slow
def test_a_coordinator_is_started_asked_changed_and_stopped_by_these_commands(
    tmp_path: Path, public_key: Callable[[str], str], capsys: Captured
) -> None:
    folder = tmp_path / "study"
    assert main(["init", str(folder), "--name", "127.0.0.1", "--port", str(free_port())]) == 0
    text = (folder / "server.toml").read_text()
    (folder / "server.toml").write_text(text.replace("control-port = 9093", f"control-port = {free_port()}"))
    assert main(["site", "add", "city", "--key", public_key("city"), "--dir", str(folder)]) == 0
    process = serve(folder, "start")
    try:
        # Just before, the supervisor may still wait for its app host.
        waiting = status_when(folder, capsys, lambda document: document["waiting-for"] == ["city"])
        assert (waiting["running"], waiting["state"]) == (True, "waiting")
        assert [site["registered"] for site in waiting["sites"]] == [True]
        assert main(["site", "add", "coast", "--key", public_key("coast"), "--dir", str(folder)]) == 0
        assert "It may connect now." in capsys.readouterr().out
        assert main(["backup", str(folder), "--out", str(tmp_path / "live.tar")]) == 0
        assert main(["renew", str(folder)]) == 0
        assert "The running coordinator still shows the old one" in capsys.readouterr().out
        assert main(["start", str(folder)]) == 1  # one at a time
        assert "FECG-685" in capsys.readouterr().err
        begin = time.monotonic()
        assert main(["stop", str(folder)]) == 0
        assert time.monotonic() - begin < 30
        assert process.wait(10) == 0
    finally:
        end(process)
    status_when(folder, capsys, lambda document: document["state"] == "stopped")
    with tarfile.open(tmp_path / "live.tar") as tar:
        assert {"superlink/database", "superlink/secret", "run/study.toml"} <= set(tar.getnames())
    process = serve(folder, "resume")  # with the renewed certificate
    try:
        again = status_when(folder, capsys, lambda document: document["state"] == "waiting")
        assert len(again["sites"]) == 2
    finally:
        end(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(folder: Path, command: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "fedecg_server.cli", command, str(folder)]
    with (folder / "log" / "command.log").open("ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left, and see that no child outlives it."""
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
    )
    if process.poll() is None:
        process.kill()
    process.wait()
    until = time.monotonic() + 10
    for child in map(int, children.stdout.split()):
        while Path(f"/proc/{child}").exists():
            assert time.monotonic() < until, "an orphan"
            time.sleep(0.05)


def status_when(folder: Path, capsys: Captured, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What `status --json` says as soon as it says that."""
    until = time.monotonic() + 90
    while True:
        capsys.readouterr()
        assert main(["status", str(folder), "--json"]) == 0
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        if done(document):
            return document
        assert time.monotonic() < until, (document, (folder / "log" / "command.log").read_text())
        time.sleep(0.5)
