"""Beside the message itself, what does a site tell whom it pushes to? Read off the line by a server that keeps all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import grpc
from flwr.app import Message, RecordDict
from flwr.proto.fleet_pb2 import PushMessagesRequest, PushMessagesResponse
from flwr.supercore.task_identity import TaskIdentity
from loopback import Authority, write_key

from fedecg.config import ServerSettings
from fedecg.federation.messages import pack
from fedecg.federation.tasks import Failure
from fedecg_client.link import Link, load_credentials
from fedecg_client.wire import deflate

AUTHORITY = Authority.new()
SAID = {"node", "messages_list", "message_object_trees"}


def test_a_push_does_not_tell_how_long_the_work_took(serve: Callable[..., int], tmp_path: Path) -> None:
    """Seconds grow with the patients who were drawn: under differential privacy they would be one number too many."""
    heard: list[bytes] = []

    def keep(request: bytes, context: grpc.ServicerContext) -> bytes:
        del context
        heard.append(request)
        return PushMessagesResponse(session_id="one").SerializeToString()

    write_key(tmp_path)
    (tmp_path / "ca.crt").write_bytes(AUTHORITY.pem)
    settings = ServerSettings(
        address=f"127.0.0.1:{serve(AUTHORITY.sign('127.0.0.1'), keep)}",
        ca=str(tmp_path / "ca.crt"),
        key=str(tmp_path / "node.key"),
    )
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = (
        1,
        1,
        2,
    )  # as `wire.context_of` says who replies
    asked = Message(RecordDict(), dst_node_id=1, message_type="train")
    asked.metadata.__dict__["_message_id"] = "asked"
    link = Link(settings.address, load_credentials(settings), threading.Event())
    try:
        link.push(deflate(Message(pack(Failure(site="north", failed="FECG-599")), reply_to=asked)))
    finally:
        link.close()
    (request,) = (PushMessagesRequest.FromString(one) for one in heard)
    assert {field.name for field, _ in request.ListFields()} <= SAID
