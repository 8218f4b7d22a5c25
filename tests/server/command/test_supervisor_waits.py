"""What the supervisor itself waits for stands in `status`, with its bound."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from coordinator_process import START_S, Running, make_coordinator, until
from rich.console import Console
from server_words import PYTHON

from fedecg.progress import Progress
from fedecg_server.coordinator import Coordinator, open_coordinator
from fedecg_server.overview import overview, print_overview
from fedecg_server.supervisor import StopRequest, Supervisor
from fedecg_server.waits import Waits

HOLD = """
import sys
from fedecg_server.coordinator import open_coordinator
from fedecg_server.server_lock import only_one
with only_one(open_coordinator(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def supervised(folder: Path) -> Iterator[Coordinator]:
    """A folder whose lock a process holds, as a supervisor does."""
    coordinator = open_coordinator(folder)
    holder = subprocess.Popen([*PYTHON, HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield coordinator
    finally:
        holder.kill()
        holder.communicate()


def study_says(coordinator: Coordinator, state: str) -> None:
    document = {"state": state, "phase": "survival", "round": 4, "rounds": 10, "sites": []}
    waits = {"waiting-for": ["coast"], "waited-s": 41.0, "at-most-s": 300.0}
    times = {"started": "2026-11-21T07:00:00+00:00", "updated": "2026-11-21T08:00:00+00:00"}
    (coordinator.run / "status.json").write_text(json.dumps(document | waits | times))


def words(coordinator: Coordinator) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        print_overview(overview(coordinator), console)
    return captured.get()


def test_a_wait_of_the_supervisor_is_named_before_that_of_the_study(supervised: Coordinator) -> None:
    study_says(supervised, "running")
    waits = Waits(supervised)
    waits.say("the SuperLink to answer", 60.0)
    time.sleep(0.3)
    waits.say("the SuperLink to answer", 60.0)  # said again, it has not begun anew
    told = overview(supervised)
    assert (told["waiting-for"], told["at-most-s"]) == (["the SuperLink to answer"], 60.0)
    assert 0.2 <= told["waited-s"] < 10.0
    assert (told["state"], told["round"]) == ("waiting", 4)
    assert "waiting  the SuperLink to answer: 0 s of at most 60 s" in words(supervised)
    waits.over()
    told = overview(supervised)
    assert (told["state"], told["waiting-for"], told["at-most-s"]) == ("running", ["coast"], 300.0)
    assert "at work  coast: 41 s of at most 300 s" in words(supervised)


def test_what_a_killed_supervisor_waited_for_is_told_by_nobody(folder: Path) -> None:
    coordinator = open_coordinator(folder)
    Waits(coordinator).say("the SuperLink to answer", 60.0)
    assert overview(coordinator)["waiting-for"] == []
    Waits(coordinator).over()  # the next supervisor takes it away
    assert not (coordinator.state / "supervisor.json").exists()


def test_a_damaged_file_of_the_wait_is_passed_over(supervised: Coordinator) -> None:
    study_says(supervised, "waiting")
    for text in ("", "{", "[]", '{"waiting-for": "x"}', '{"waiting-for": "x", "since": "y", "at-most-s": 1}'):
        (supervised.state / "supervisor.json").write_text(text)
        assert overview(supervised)["waiting-for"] == ["coast"]


def test_a_pause_after_a_failure_is_named_with_its_length(supervised: Coordinator) -> None:
    watch = Supervisor(supervised, Progress(), StopRequest())
    for _ in range(3):
        watch._failed("the app host ended (log/app.log)")
    watch._tell_wait()
    told = overview(supervised)
    assert told["waiting-for"] == ["a pause, since the app host ended (log/app.log)"]
    assert told["at-most-s"] == 3.0


@pytest.mark.slow
def test_every_wait_from_the_start_to_the_study_and_a_silent_superlink_are_named(tmp_path: Path) -> None:
    coordinator = make_coordinator(tmp_path / "coordinator")
    seen: dict[str, float] = {}

    def look() -> None:
        told = overview(coordinator)
        if told["running"]:
            seen.update(dict.fromkeys(told["waiting-for"], told.get("at-most-s") or 0.0))

    with Running(coordinator) as running:
        until(lambda: look() or running.waits_for_sites(), START_S, running.text())
        until(lambda: look() or overview(coordinator)["state"] == "waiting", START_S)
        assert seen.pop("the SuperLink to answer") == 60.0
        assert seen.pop("the SuperLink to be given the study") == 120.0
        assert all(0.0 < at_most_s <= 300.0 for at_most_s in seen.values())
        until(lambda: not (coordinator.state / "supervisor.json").exists(), 10.0)
        link = running.children()["superlink"]
        os.kill(link, signal.SIGSTOP)
        until(
            lambda: overview(coordinator)["waiting-for"] == ["the SuperLink, which does not answer"],
            30.0,
            running.text(),
        )
        assert overview(coordinator)["at-most-s"] == 120.0
        os.kill(link, signal.SIGCONT)
        until(lambda: not (coordinator.state / "supervisor.json").exists(), 30.0)
        assert running.ask_to_stop() == 0
    assert not (coordinator.state / "supervisor.json").exists()
