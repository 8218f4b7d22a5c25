"""What `fedecg-client start` says on stderr while it waits and works, for whoever reads the service's log."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from asking import join, lock_of, said, study, task_of, train
from killed_app import SECTIONS
from prepared_site import first_weights, prepared_site

from fedecg_client.faults import away, unknown_node
from fedecg_client.site_status import SiteStatus
from fedecg_client.telling import SAY_AGAIN_S, Telling

Captured = pytest.CaptureFixture[str]
SMALL = study(**{**SECTIONS, "align": {"local-steps": 1, "batch-size": 16}})


def lines(capsys: Captured) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_wait_is_said_with_its_fix_when_it_begins_when_it_changes_and_every_ten_minutes(
    capsys: Captured,
) -> None:
    now = [0.0]
    telling = Telling("north", lambda: now[0])
    down, unknown = away("connection refused").error, unknown_node().error
    for _ in range(5):
        telling.waits(down, 10.0)
    assert lines(capsys) == [f"north: waits, and tries again every 10 s or sooner: {down}"]
    assert "FECG-649 coordinator: found connection refused; expected an answer on its fleet port." in str(
        down
    )
    telling.waits(unknown, 30.0)
    telling.waits(down, 10.0)  # it has been said a moment ago
    (line,) = lines(capsys)
    assert line.startswith(
        "north: waits, and tries again every 30 s or sooner: FECG-648 node: found a key that"
    )
    assert "fedecg-server site add" in line
    now[0] = SAY_AGAIN_S
    telling.waits(down, 10.0)
    assert len(lines(capsys)) == 1
    telling.event("online")
    telling.event("reply")
    telling.event("reply")
    assert lines(capsys) == ["north: connected", "north: its reply is sent"]
    telling.waits(down, 10.0)
    telling.event("online")
    assert lines(capsys)[1:] == ["north: connected again"]
    assert len(lines(capsys)) == 0


def test_what_befalls_the_agent_is_said_and_what_is_of_no_use_is_not(capsys: Captured) -> None:
    telling = Telling("north")
    for event, code in (("start", None), ("worker-start", None), ("reply", None), ("wait", "FECG-649")):
        telling.event(event, code)
    assert lines(capsys) == []
    for event, code in (("worker-died", None), ("foreign-bundle", "FECG-642"), ("stop", None)):
        telling.event(event, code)
    assert lines(capsys) == [
        "north: its worker ended before it was done, and is started again",
        "north: a task is refused: FECG-642 Flower, or the app, is not the version that fedecg needs",
        "north: stopped",
    ]


def test_the_status_and_the_events_of_a_wait_are_said_together(tmp_path: Path, capsys: Captured) -> None:
    status = SiteStatus(tmp_path, "north")
    for _ in range(3):
        status.waits(away("connection refused").error, 1.2, 10.0)
    status.online()
    status.waits(away("connection refused").error, 1.2, 10.0)
    assert (tmp_path / "events.jsonl").read_text().count('"wait"') == 2
    assert (
        '"waiting-for": "coordinator: connection refused; expected' in (tmp_path / "status.json").read_text()
    )
    assert [line.split(":")[1].split(",")[0] for line in lines(capsys)] == [" waits", " connected", " waits"]


def test_the_worker_says_what_it_joins_what_it_begins_and_each_task_that_is_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site, lock = prepared_site(tmp_path, SMALL), lock_of(SMALL)
    with caplog.at_level(logging.INFO, "fedecg.client"):
        assert "failed" not in join(site, lock)
        assert "north: takes part in study hf" in caplog.messages
        caplog.clear()
        weights: np.ndarray = first_weights(SMALL)
        assert "failed" not in said(train(site, task_of(lock), weights))
    begins, done = (line for line in caplog.messages if line.startswith("north: study hf"))
    assert begins == "north: study hf: align begins"
    assert done.startswith("north: study hf: align round 1 done in ")
    caplog.clear()
    with caplog.at_level(logging.INFO, "fedecg.client"):
        train(site, task_of(lock, round=2), weights)
    (done,) = (line for line in caplog.messages if line.startswith("north: study hf"))
    assert done.startswith("north: study hf: align round 2 done in ")
