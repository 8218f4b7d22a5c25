"""A site is told when the coordinator could not use its reply: in its log, its events and its status, once a task."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
from asking import lock_of, study, task_of, train, write_site

from fedecg.codes import CODES
from fedecg.federation.tasks import TrainTask
from fedecg_client.folder import open_site
from fedecg_client.gate import Gate
from fedecg_client.outbox import task_key
from fedecg_client.overview import overview, status_lines

LOCK = lock_of(study())


@pytest.fixture
def joined(tmp_path: Path) -> Path:
    folder = write_site(tmp_path / "north")
    Gate(folder, open_site(folder).settings).admit_study(LOCK)
    return folder


def told(folder: Path, number: int, **rejected: str) -> None:
    """A task that the site refuses for lack of data, after it has read what the coordinator says of its last reply."""
    train(folder, task_of(LOCK, TrainTask, round=number, rejected=rejected))


def events(folder: Path, kind: str = "left-out") -> list[dict[str, object]]:
    lines = map(json.loads, (folder / "state/events.jsonl").read_text().splitlines())
    return [event for event in lines if event["event"] == kind]


def test_the_code_and_its_meaning_stand_in_status_events_and_log(
    joined: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "fedecg.client"):
        told(joined, 3, north="FECG-545", south="FECG-505")
    assert (
        f"north: the coordinator left out this site's last reply: FECG-545 {CODES['FECG-545']}" in caplog.text
    )
    assert "FECG-505" not in caplog.text  # another site's
    (event,) = events(joined)
    assert event["code"] == "FECG-545"
    document = overview(open_site(joined))
    assert document["left-out"] == {
        "code": "FECG-545", "meaning": CODES["FECG-545"], "phase": "align", "round": 3, "repeat": 0,
    }  # fmt: skip
    (line,) = [line for line in status_lines(document) if line.startswith("left out")]
    assert line == (
        f"left out FECG-545 {CODES['FECG-545']} (the last reply; the coordinator said so with align round 3)"
    )


def test_the_same_task_sent_again_tells_it_once_and_the_next_round_anew(joined: Path) -> None:
    for number in (3, 3, 4):
        told(joined, number, north="FECG-545")
    assert len(events(joined)) == 2


def test_once_a_reply_was_taken_the_status_is_silent_and_the_events_remember(joined: Path) -> None:
    told(joined, 3, north="FECG-545")
    told(joined, 4, south="FECG-505")
    assert overview(open_site(joined))["left-out"] is None
    assert len(events(joined)) == 1


@pytest.mark.parametrize("code", ["\x1b[2J", "FECG-1234", "FECG-5"])
def test_a_code_that_is_none_makes_no_message(joined: Path, code: str) -> None:
    with pytest.raises(ValueError, match="rejected"):
        task_of(LOCK, TrainTask, rejected={"north": code})


def test_a_task_is_the_same_whatever_it_says_of_earlier_replies() -> None:
    keys = {task_key(task_of(LOCK, TrainTask, rejected=said), None) for said in ({}, {"north": "FECG-545"})}
    assert len(keys) == 1


def test_a_virtual_site_keeps_nothing_of_it(tmp_path: Path) -> None:
    folder = write_site(tmp_path / "north", 'studies = ["*"]\nkeep-replies = false')
    train(folder, task_of(LOCK, TrainTask, rejected={"north": "FECG-545"}))
    assert not (folder / "state").exists()


def test_a_refusal_of_the_site_itself_shows_its_code_until_a_task_is_done(joined: Path) -> None:
    (joined / "state/events.jsonl").unlink(missing_ok=True)
    shutil.rmtree(joined / "state/replies", ignore_errors=True)
    settings = joined / "site.toml"
    settings.write_text(
        settings.read_text().replace('studies = ["hf"]', 'studies = ["hf"]\nphases = ["explain"]')
    )
    told(joined, 1)
    add(joined, "reply")  # the agent, when the refusal has been sent
    document = overview(open_site(joined))
    assert document["code"] == "FECG-417"
    assert f"code     FECG-417 {CODES['FECG-417']}" in status_lines(document)
    add(joined, "reply")  # of a task that was done
    assert overview(open_site(joined))["code"] is None


def add(folder: Path, event: str) -> None:
    with (folder / "state/events.jsonl").open("a") as file:
        file.write(json.dumps({"time": "2026-11-21T12:00:00Z", "event": event}) + "\n")
