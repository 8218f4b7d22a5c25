"""`fedecg-client status` and `stop`: what is true of an agent, from outside it."""

from __future__ import annotations

import datetime
import fcntl
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from client_words import PYTHON, Captured, said

from fedecg import locks
from fedecg.errors import RunError
from fedecg_client.cli import main
from fedecg_client.running import running_agent, stop_agent

HOLD = (
    "import signal, sys, time; from pathlib import Path; from fedecg_client.running import only_one\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN if sys.argv[2] == 'deaf' else lambda *_: sys.exit(0))\n"
    "with only_one(Path(sys.argv[1])):\n"
    "    print('held', flush=True); time.sleep(60)\n"
)


@pytest.fixture
def holder(site: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that hold the site's lock as an agent does; ended with the test."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


def hold(site: Path, started: list[subprocess.Popen[str]], how: str = "obeys") -> int:
    process = subprocess.Popen([*PYTHON, HOLD, str(site / "state"), how], stdout=subprocess.PIPE, text=True)
    started.append(process)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process.pid


def state_of(site: Path, capsys: Captured) -> dict[str, object]:
    capsys.readouterr()
    assert main(["status", str(site), "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_status_says_what_is_true_and_not_what_a_dead_agent_left_behind(
    site: Path, holder: list[subprocess.Popen[str]], capsys: Captured
) -> None:
    assert state_of(site, capsys)["state"] == "not-started"
    now = datetime.datetime.now(datetime.UTC)
    said(site, state="working", pid=4242, connected=True, updated=now.isoformat(), code=None)
    document = state_of(site, capsys)
    assert (document["state"], document["said"], document["running"]) == ("killed", "working", False)
    assert document["connected"] is False
    assert main(["status", str(site)]) == 0
    assert "ended without a word" in capsys.readouterr().out
    pid = hold(site, holder)
    assert state_of(site, capsys)["state"] == "starting"  # the file is still that of the dead one
    said(site, state="working", pid=pid, connected=True, updated=now.isoformat(), phase="survival", round=3,
         step=5, steps=20, study="hf", **{"eta-s": 12.0, "tasks-done": 7, "sent-bytes": 2e6})  # fmt: skip
    document = state_of(site, capsys)
    assert (document["state"], document["pid"], document["connected"]) == ("working", pid, True)
    assert main(["status", str(site)]) == 0
    told = capsys.readouterr().out
    assert "hf: survival, round 3, step 5 of 20, about 12 s left" in told
    assert "7 tasks, 2.0 MB sent" in told
    said(site, state="idle", pid=pid, connected=True, updated=now.isoformat(), code=None,
         **{"waiting-for": "worker: started; expected torch and the app loaded", "at-most-s": 300.0})  # fmt: skip
    assert main(["status", str(site)]) == 0
    assert (
        "waits    for worker: started; expected torch and the app loaded, at most 300 s"
        in capsys.readouterr().out
    )
    old = now - datetime.timedelta(minutes=3)
    said(site, state="idle", pid=pid, connected=True, updated=old.isoformat())
    assert state_of(site, capsys)["state"] == "silent"


@pytest.mark.parametrize("content", ["", "{", "[1]", "\xff\x00", '{"state": null}', "[" * 10_000])
def test_a_damaged_status_is_as_if_there_were_none(site: Path, capsys: Captured, content: str) -> None:
    (site / "state/status.json").write_text(content, encoding="latin-1")
    (site / "state/events.jsonl").write_text(
        content + '\n{"time": "t", "event": "start"}\n"text"\n', encoding="latin-1"
    )
    document = state_of(site, capsys)
    assert document["state"] == "not-started"
    assert document["events"] == [{"time": "t", "event": "start"}]


def test_nothing_in_a_file_reaches_the_terminal_as_a_command(site: Path, capsys: Captured) -> None:
    said(site, state="stopped", pid=1, code="\x1b]0;owned\x07", **{"waiting-for": "\x1b[2J"})
    (site / "state/events.jsonl").write_text(json.dumps({"time": "\x1b[1m", "event": "\u202egnirts"}) + "\n")
    assert main(["status", str(site)]) == 0
    told = capsys.readouterr().out
    assert all(letter == "\n" or letter.isprintable() for letter in told)


def test_stop_ends_the_agent_and_nobody_else(
    site: Path, holder: list[subprocess.Popen[str]], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "TRY_S", 0.2)
    assert main(["stop", str(site)]) == 0
    assert capsys.readouterr().out == "not running\n"
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        (site / "state/agent.pid").write_text(str(innocent.pid))
        assert main(["stop", str(site)]) == 0
        assert capsys.readouterr().out == "not running\n"
        with (site / "state/agent.lock").open("w") as lock:  # held, and the number is a stranger's
            fcntl.flock(lock, fcntl.LOCK_EX)
            (site / "state/agent.pid").write_text(str(innocent.pid))
            assert main(["stop", str(site)]) == 1
            assert "FECG-659 agent: found a folder that is locked by a process" in capsys.readouterr().err
            for number in ("-1", "0", "nonsense"):
                (site / "state/agent.pid").write_text(number)
                with pytest.raises(RunError, match="FECG-659"):
                    running_agent(site / "state")
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()
    hold(site, holder)
    assert main(["stop", str(site)]) == 0
    assert capsys.readouterr().out == "stopped\n"
    assert holder[0].wait(5) == 0


def test_an_agent_that_does_not_stop_is_told_with_its_number(
    site: Path, holder: list[subprocess.Popen[str]]
) -> None:
    pid = hold(site, holder, "deaf")
    with pytest.raises(
        RunError, match=rf"FECG-659 agent: found a process that still runs 0 s.*kill -9 {pid}"
    ):
        stop_agent(site / "state", 0.2)


def test_looking_at_an_agent_does_not_keep_it_from_its_lock(
    site: Path, holder: list[subprocess.Popen[str]], capsys: Captured
) -> None:
    hold(site, holder)
    for _ in range(20):
        state_of(site, capsys)
    assert holder[0].poll() is None
