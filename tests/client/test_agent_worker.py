"""The warm worker as a process: it answers bytes with bytes, and ends with its agent."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from flwr.app import Message, RecordDict
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.supercore.task_identity import TaskIdentity

from fedecg.errors import RunError
from fedecg_client.faults import StoppedError
from fedecg_client.wire import Received, Reply, deflate, inflate
from fedecg_client.worker import Worker, WorkerDiedError


def message(kind: str) -> tuple[Received, dict[str, bytes]]:
    """A message as it comes by wire."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1
    sent = deflate(Message(RecordDict({}), 5, kind))
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
