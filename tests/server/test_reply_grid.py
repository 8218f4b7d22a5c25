"""The app host's grid against a real SuperLink and two nodes with keys: slow, broken and forged replies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
import pytest
from coordinator_process import Site, make_coordinator
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.client.grpc_rere_client.connection import grpc_request_response
from flwr.common.constant import ErrorCode
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree
from flwr.supercore.retry import make_simple_grpc_retry_invoker
from flwr.supercore.task_identity import TaskIdentity

from fedecg.federation.bundle import bundle_sha256
from fedecg_server.runtime import Desk, Task
from fedecg_server.sites import register_all
from fedecg_server.submit import submit_study
from fedecg_server.superlink import SuperLink

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


class Node:
    """A node that sends its reply in steps."""

    def __init__(self, site: Site, address: str, stack: ExitStack) -> None:
        key = load_ssh_private_key((site.folder / "node.key").read_bytes(), None)
        invoker = make_simple_grpc_retry_invoker()
        invoker.recoverable_exceptions = grpc.RpcError
        connection = grpc_request_response(
            address,
            False,
            invoker,
            root_certificates=str(site.folder / "ca.crt"),
            authentication_keys=(key, key.public_key()),  # type: ignore[arg-type]
        )
        parts = stack.enter_context(connection)
        self.node_id, self._receive, self._send = parts[0], parts[1], parts[2]
        self._pull_object, self._push_object, self._confirm = parts[5], parts[6], parts[7]

    def task(self) -> Message:
        """The next message."""
        end = time.monotonic() + 10.0
        while (got := self._receive()) is None:
            assert time.monotonic() < end
            time.sleep(0.05)
        head, tree = got
        run = head.metadata.run_id
        message = pull_and_inflate_object_from_tree(
            tree,
            lambda identity: self._pull_object(run, identity),
            lambda identity: self._confirm(run, identity),
            return_type=Message,
        )
        message.metadata.__dict__["_message_id"] = tree.object_id
        return message

    def announce(self, task: Message, sender_inside: int | None = None) -> dict[str, bytes]:
        """Say that there is a reply; its objects are still to be sent. `sender_inside`: what its bytes say it is of."""
        TaskIdentity.node_id = self.node_id
        content = RecordDict({"w": ArrayRecord({"v": Array(np.full(1000, self.node_id % 97, np.float32))})})
        reply = Message(content, reply_to=task)
        reply.metadata.__dict__["_src_node_id"] = sender_inside or self.node_id
        objects = {identity: item.deflate() for identity, item in get_all_nested_objects(reply).items()}
        tree = get_object_tree(reply)
        reply.metadata.__dict__["_message_id"] = tree.object_id
        reply.metadata.__dict__["_src_node_id"] = self.node_id
        with no_object_id_recompute():
            _, self._session = self._send(reply, tree, 0.0)
        self._run = task.metadata.run_id
        return objects

    def upload(self, objects: dict[str, bytes]) -> None:
        for identity, content in objects.items():
            self._push_object(self._run, self._session, identity, content)


@pytest.fixture
def exchange(sites: Path, tmp_path: Path) -> Iterator[tuple[Task, Node, Node, list[str]]]:
    """A study that was taken, two nodes, and a message to each that it has received."""
    coordinator = make_coordinator(tmp_path / "coordinator")
    members = []
    for name in ("city", "coast"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "site.toml").write_text((sites / name / "site.toml").read_text())
        members.append(Site(coordinator, tmp_path / name))
    link = SuperLink(coordinator)
    with ExitStack() as stack:
        stack.callback(link.stop)
        link.start()
        register_all(coordinator)
        submit_study(coordinator)  # before gRPC has threads here: it forks
        first, second = (Node(site, f"127.0.0.1:{coordinator.settings.port}", stack) for site in members)
        task = Desk(coordinator.settings.control_address, coordinator.tls.ca, coordinator.secret).take()
        assert task is not None
        assert task.bundle_sha256 == bundle_sha256()
        stack.callback(task.close)
        messages = [Message(RecordDict(), node.node_id, "train") for node in (first, second)]
        yield task, first, second, list(task.grid.push_messages(messages))


def test_a_reply_that_is_being_uploaded_does_not_hold_up_the_others(
    exchange: tuple[Task, Node, Node, list[str]],
) -> None:
    task, first, second, pending = exchange
    objects = first.announce(first.task())
    later = dict(list(objects.items())[:1])
    first.upload({identity: content for identity, content in objects.items() if identity not in later})
    second.upload(second.announce(second.task()))
    began = time.monotonic()
    (come,) = task.grid.pull_messages(pending)
    assert come.metadata.src_node_id == second.node_id
    assert list(task.grid.pull_messages(pending[:1])) == []
    assert time.monotonic() - began < 2.0
    first.upload(later)
    come = next(iter(task.grid.pull_messages(pending[:1])))  # its arrays last until the next one is asked for
    assert come.metadata.src_node_id == first.node_id
    vector = come.content["w"]["v"].numpy()  # type: ignore[index, union-attr]
    assert np.array_equal(vector, np.full(1000, first.node_id % 97, np.float32))
    assert list(task.grid.pull_messages([])) == []
    assert task.finish(True, "")


def test_a_reply_that_says_it_is_of_another_site_is_an_error_and_the_other_one_comes(
    exchange: tuple[Task, Node, Node, list[str]],
) -> None:
    task, first, second, pending = exchange
    first.upload(first.announce(first.task(), sender_inside=second.node_id))
    second.upload(second.announce(second.task()))
    replies = {reply.metadata.reply_to_message_id: reply for reply in task.grid.pull_messages(pending)}
    forged, honest = (replies[identity] for identity in pending)
    assert forged.has_error()
    assert forged.error.code == ErrorCode.MESSAGE_UNAVAILABLE
    assert "no message of that site" in forged.error.reason
    assert honest.metadata.src_node_id == second.node_id
