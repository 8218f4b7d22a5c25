"""What the agent writes for the people at the site, and the message that it keeps in hand."""

import json
import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message as FlowerMessage
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.message_pb2 import Message, ObjectTree
from flwr.supercore.task_identity import TaskIdentity

from fedecg.federation.messages import pack
from fedecg.federation.tasks import Failure
from fedecg_client import site_status
from fedecg_client.in_hand import InHand, Kept
from fedecg_client.own_node import OwnNode
from fedecg_client.site_status import SiteStatus
from fedecg_client.wire import Announced, Received, Reply, deflate


def told(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "status.json").read_text()))


def test_a_change_of_state_is_written_at_once_and_the_rest_now_and_then(tmp_path: Path) -> None:
    status = SiteStatus(tmp_path, "north")
    status.say("idle", connected=True)
    assert (told(tmp_path)["state"], told(tmp_path)["connected"]) == ("idle", True)
    status.say(sent_bytes=7)
    assert told(tmp_path)["sent-bytes"] == 0
    status.say("connecting", code="FECG-649", waiting_for="coordinator", at_most_s=2.0)
    assert told(tmp_path) | {"code": "FECG-649", "at-most-s": 2.0, "sent-bytes": 7} == told(tmp_path)


def test_progress_of_the_app_is_told_with_the_time_left_and_forgotten_after_the_task(tmp_path: Path) -> None:
    started = datetime.fromtimestamp(time.time() - 30, UTC).isoformat(timespec="seconds")
    said = {"phase": "align", "round": 3, "step": 5, "steps": 20, "started": started}
    (tmp_path / "progress.json").write_text(json.dumps(said))
    status = SiteStatus(tmp_path, "north")
    status.say("working")
    now = told(tmp_path)
    assert (now["phase"], now["round"], now["step"], now["steps"]) == ("align", 3, 5, 20)
    assert 85 < float(str(now["eta-s"])) < 100  # 6 s a step, 15 to go
    status.say("idle")
    assert {told(tmp_path)[key] for key in ("phase", "round", "step", "steps", "eta-s")} == {None}


def test_progress_that_is_damaged_or_has_no_steps_is_no_fault(tmp_path: Path) -> None:
    for text in (
        "{",
        "[]",
        '{"steps": 0}',
        '{"step": 1, "steps": 2}',
        '{"step": "x", "steps": 2, "started": 3}',
    ):
        (tmp_path / "progress.json").write_text(text)
        SiteStatus(tmp_path, "north").say("working")
        assert told(tmp_path)["eta-s"] is None


def test_events_are_lines_and_the_file_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = SiteStatus(tmp_path, "north")
    monkeypatch.setattr(site_status, "MOST_EVENT_BYTES", 200)
    for number in range(20):
        status.event("reply", seconds=number)
    assert {file.name for file in tmp_path.iterdir()} == {"events.jsonl", "events.1.jsonl"}
    assert max(file.stat().st_size for file in tmp_path.iterdir()) < 300
    last = json.loads((tmp_path / "events.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last["seconds"]) == ("reply", 19)


def received() -> Received:
    message = Message()
    message.metadata.run_id = 7
    tree = ObjectTree(object_id="aa", children=[ObjectTree(object_id="bb"), ObjectTree(object_id="bb")])
    return Received(PullMessagesResponse(messages_list=[message], message_object_trees=[tree]))


def test_a_message_in_hand_is_found_again_by_the_next_agent(tmp_path: Path) -> None:
    kept, status = Kept(tmp_path / "in-hand.json"), SiteStatus(tmp_path, "north")
    kept.keep(InHand(received(), begun=2))
    found = kept.left(status)
    assert found is not None
    assert (found.begun, found.received.run_id, found.received.object_ids) == (2, 7, ["bb", "aa"])
    kept.forget()
    assert kept.left(status) is None


def announced_reply(created_at: float) -> Reply:
    """A reply of a document and a vector, as a worker makes it; made again it differs in its time alone."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 5
    content = pack(Failure(site="north", failed="FECG-599"), np.arange(9, dtype=np.float32))
    message = FlowerMessage(content, dst_node_id=1, message_type="train")
    message.metadata.__dict__["_created_at"] = created_at
    return deflate(message)


def test_an_agent_that_was_killed_sends_the_rest_of_the_reply_that_it_had_announced(tmp_path: Path) -> None:
    first, again = announced_reply(1.0), announced_reply(2.0)
    root = first.request.message_object_trees[0].object_id
    assert root not in again.contents
    missing = [*[name for name in first.contents if name != root][1:], root]
    kept = Kept(tmp_path / "in-hand.json")
    kept.keep(InHand(received(), begun=1, announced=Announced.of(first, "session", missing)))
    found = kept.left(SiteStatus(tmp_path, "north"))
    assert found is not None
    assert found.announced is not None
    assert (found.announced.session_id, found.announced.missing) == ("session", missing)
    same = found.announced.reply_with(again)
    assert same is not None
    assert same.request == first.request
    assert {name: same.contents[name] for name in missing} == {name: first.contents[name] for name in missing}


def test_another_reply_than_the_one_announced_is_not_taken_for_it() -> None:
    first = announced_reply(1.0)
    announced = Announced.of(first, "session", list(first.contents))
    other = deflate(
        FlowerMessage(pack(Failure(site="north", failed="FECG-501")), dst_node_id=1, message_type="train")
    )
    assert announced.reply_with(other) is None
    assert announced.reply_with(announced_reply(3.0)) is not None


def test_a_disk_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    nowhere = tmp_path / "file" / "state"
    (tmp_path / "file").write_text("no folder")
    kept, status = Kept(nowhere / "in-hand.json"), SiteStatus(nowhere, "north")
    kept.keep(InHand(received()))
    kept.touch()
    status.say("working")
    status.event("reply")
    assert not nowhere.exists()


def test_a_message_that_nobody_waits_for_any_more_is_let_go(tmp_path: Path) -> None:
    file = tmp_path / "in-hand.json"
    kept = Kept(file)
    kept.keep(InHand(received()))
    os.utime(file, (time.time() - 55, time.time() - 55))
    assert kept.left(SiteStatus(tmp_path, "north")) is None
    assert not file.exists()


def test_a_message_that_is_damaged_on_disk_is_let_go_and_said(tmp_path: Path) -> None:
    file = tmp_path / "in-hand.json"
    for text in ("", "{}", '{"begun": 1, "message": "!!"}', '{"begun": "x", "message": "AAAA"}'):
        file.write_text(text)
        assert Kept(file).left(SiteStatus(tmp_path, "north")) is None
        assert not file.exists()
    assert (tmp_path / "events.jsonl").read_text().count('"damaged"') >= 3


def test_a_node_on_disk_counts_where_it_was_written_and_not_in_a_copy(tmp_path: Path) -> None:
    machine, other = tmp_path / "machine-id", tmp_path / "other-id"
    machine.write_text("0123\n")
    other.write_text("4567\n")
    here, copy = tmp_path / "site", tmp_path / "copy"
    own = OwnNode(here, machine)
    assert (own.read(), own.elsewhere) == (None, False)
    own.keep(7)
    assert (own.read(), OwnNode(here, machine).read(), own.elsewhere) == (7, 7, False)
    assert "0123" not in (here / "state/node-id").read_text()
    shutil.copytree(here, copy)
    for moved in (OwnNode(copy, machine), OwnNode(here, other), OwnNode(here, tmp_path / "no-id")):
        assert (moved.read(), moved.elsewhere) == (None, True)
    OwnNode(copy, machine).keep(8)
    assert OwnNode(copy, machine).read() == 8
    own.forget()
    assert own.read() is None


def test_a_machine_without_an_id_is_known_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty := tmp_path / "machine-id").write_text("")
    OwnNode(tmp_path, empty).keep(7)
    assert OwnNode(tmp_path, tmp_path / "none").read() == 7
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    assert OwnNode(tmp_path, empty).elsewhere


def test_a_node_of_an_earlier_version_is_its_own_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    file = tmp_path / "state" / "node-id"
    file.parent.mkdir()
    file.write_text("7\n")
    assert (OwnNode(tmp_path).read(), OwnNode(tmp_path).elsewhere) == (7, False)
    for damaged in (b"", b"x\n", b"\xff"):
        file.write_bytes(damaged)
        assert OwnNode(tmp_path).read() is None
