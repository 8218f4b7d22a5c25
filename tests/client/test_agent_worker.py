"""The warm worker as a process: it answers bytes with bytes, and ends with its agent."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.supercore.task_identity import TaskIdentity

from fedecg.errors import RunError
from fedecg.federation.messages import pack
from fedecg.federation.tasks import Failure
from fedecg_client.faults import StoppedError
from fedecg_client.frames import Frames
from fedecg_client.wire import Received, Reply, deflate, inflate
from fedecg_client.worker import TaskLimitError, Worker, WorkerDiedError

LARGE = 1_000_000  # weights: 4 MB, many times what a socket holds


def message(kind: str, weights: int = 0) -> tuple[Received, dict[str, bytes]]:
    """A message as it comes by wire."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1
    vector = np.zeros(weights, dtype=np.float32)
    content = pack(Failure(site="x", failed="FECG-599"), vector) if weights else RecordDict({})
    sent = deflate(Message(content, 5, kind))
    heads = PullMessagesResponse(
        messages_list=sent.request.messages_list, message_object_trees=sent.request.message_object_trees
    )
    return Received(heads), sent.contents


def code_of(reply: Reply) -> str:
    return str(reply.request.messages_list[0].error.reason)


@pytest.mark.slow
def test_a_worker_answers_is_killed_is_limited_and_ends(tmp_path: Path) -> None:
    worker = Worker(tmp_path, threading.Event(), lambda: None)
    with pytest.raises(WorkerDiedError):
        worker.ask(*message("query.nonsense"), 5)
    worker.start()
    first = worker.pid
    assert first is not None
    reply = worker.ask(*message("query.nonsense"), 5)
    assert code_of(reply) == "FECG-599"
    reply = worker.ask(*message("query.join"), 5)
    assert not reply.request.messages_list[0].HasField("error")  # the app's own words: a coded failure
    os.kill(first, signal.SIGKILL)
    with pytest.raises(WorkerDiedError):
        worker.ask(*message("query.nonsense"), 5)
    assert worker.pid is None
    worker.start()
    assert worker.pid not in (None, first)
    worker.end()
    assert worker.pid is None


@pytest.mark.slow
def test_a_stopped_worker_that_does_not_read_ends_with_the_limit_and_with_a_stop(tmp_path: Path) -> None:
    stop, ticks = threading.Event(), []
    worker = Worker(tmp_path, stop, lambda: ticks.append(time.monotonic()))
    asked = message("query.nonsense", LARGE)
    worker.start()
    assert code_of(worker.ask(*asked, 30)) == "FECG-599"  # all of it goes over the line
    first = worker.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    ticks.clear()
    began = time.monotonic()
    with pytest.raises(TaskLimitError):
        worker.ask(*asked, 1.0)
    assert (
        1.0 <= time.monotonic() - began < 5.0
    )  # at most 2 s of it for an end that a stopped one does not hear of
    assert len(ticks) >= 3  # the site's status stays fresh meanwhile
    assert worker.pid is None
    assert not Path(f"/proc/{first}").exists()
    worker.start()
    second = worker.pid
    assert second is not None
    os.kill(second, signal.SIGSTOP)
    threading.Timer(0.5, stop.set).start()
    began = time.monotonic()
    with pytest.raises(StoppedError):
        worker.ask(*asked, 600.0)
    worker.end()
    assert time.monotonic() - began < 4.0
    assert not Path(f"/proc/{second}").exists()


@pytest.mark.slow
def test_a_worker_that_is_not_ready_in_time_is_ended_and_may_be_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedecg_client.worker.START_S", 0.2)  # no import of torch is that short
    worker = Worker(tmp_path, threading.Event(), lambda: None)
    with pytest.raises(WorkerDiedError):
        worker.start()
    assert worker.pid is None
    monkeypatch.undo()
    worker.start()
    assert worker.pid is not None
    worker.end()


def test_a_reply_of_which_half_has_come_does_not_hold_whoever_waits_for_it() -> None:
    ours, theirs = socket.socketpair()
    until = time.monotonic() + 0.6

    def look() -> None:
        if time.monotonic() > until:
            raise TaskLimitError

    theirs.sendall((10).to_bytes(8, "big") + b"half")
    with pytest.raises(TaskLimitError):
        Frames(ours, look).receive()
    theirs.close()
    with pytest.raises(EOFError):
        Frames(ours).receive()
    ours.close()


def test_pieces_of_any_length_come_over_the_line_as_they_were_sent() -> None:
    ours, theirs = socket.socketpair()
    contents = {"aa": os.urandom(3_000_000), "bb": b""}
    sender = threading.Thread(target=Frames(ours, lambda: None).send_frame, args=(b"head", contents))
    sender.start()
    assert Frames(theirs).receive_frame() == (b"head", contents)
    sender.join()
    ours.close()
    theirs.close()


@pytest.mark.slow
def test_a_worker_that_cannot_import_the_app_is_told_with_a_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('broken installation')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = Worker(tmp_path, threading.Event(), lambda: None)
    with pytest.raises(RunError, match="FECG-642 installed programs: found an app that does not start"):
        worker.start()
    assert worker.pid is None


def test_a_stop_ends_the_wait_for_a_worker(tmp_path: Path) -> None:
    stop = threading.Event()
    worker = Worker(tmp_path, stop, lambda: None)
    threading.Timer(0.3, stop.set).start()
    began = time.monotonic()
    with pytest.raises(StoppedError):
        worker.start()
    worker.end()
    assert time.monotonic() - began < 3


def test_a_worker_without_an_agent_ends_at_once(tmp_path: Path) -> None:
    here, there = os.pipe()
    command = [sys.executable, "-P", "-m", "fedecg_client.worker", str(there), "1", str(tmp_path)]
    try:
        assert subprocess.run(command, pass_fds=[there], timeout=20).returncode == 1
    finally:
        os.close(here)
        os.close(there)


def test_a_message_survives_its_way_as_bytes() -> None:
    received, contents = message("query.join")
    again = Received.from_bytes(received.to_bytes())
    assert (again.message_id, again.run_id, again.object_ids) == (
        received.message_id, 7, list(contents)
    )  # fmt: skip
    inflated = inflate(again, dict(contents))
    assert inflated.metadata.message_type == "query.join"
    assert inflated.metadata.message_id == received.message_id


def test_bytes_that_are_no_message_are_refused() -> None:
    received, contents = message("query.join")
    record = next(iter(contents))
    tree = received.response.message_object_trees[0].children[0]
    other = Received(
        PullMessagesResponse(messages_list=received.response.messages_list, message_object_trees=[tree])
    )
    with pytest.raises(TypeError, match="the root object is no message"):
        inflate(other, {record: contents[record]})
