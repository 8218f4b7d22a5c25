"""Beside the message itself, what does a site tell whom it pushes to? Read off the line by a server that keeps all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import grpc
from flwr.app import Message, RecordDict
from flwr.proto.fleet_pb2 import PullMessagesResponse, PushMessagesRequest, PushMessagesResponse
from flwr.supercore.task_identity import TaskIdentity
from loopback import Authority, write_key, write_site

from fedecg.config import ServerSettings, load_site
from fedecg.federation.messages import pack
from fedecg.federation.tasks import Failure
from fedecg.privacy.egress import EgressRecord
from fedecg_client.agent import Agent, open_link
from fedecg_client.departed import departure_lines
from fedecg_client.in_hand import InHand
from fedecg_client.link import Link, load_credentials
from fedecg_client.site_status import SiteStatus
from fedecg_client.wire import Received, deflate

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


def test_a_code_that_the_agent_sends_by_itself_is_in_the_record(
    serve: Callable[..., int], tmp_path: Path
) -> None:
    """A run of another bundle: the app never hears of it, and cannot write it down."""
    site_folder = write_site(
        tmp_path / "north", f"127.0.0.1:{serve(AUTHORITY.sign('127.0.0.1'), lambda *_: b'')}", AUTHORITY.pem
    )
    write_key(site_folder)
    (site_folder / "state").mkdir()
    site, stop = load_site(site_folder / "site.toml"), threading.Event()
    agent = Agent(
        site_folder, site, SiteStatus(site_folder / "state", site.name), open_link(site, stop), stop
    )
    try:
        agent._answer(InHand(received()))
    finally:
        agent.link.close()
    (line,) = EgressRecord(site_folder / "state" / "egress").read()
    assert (line["kind"], line["values"]) == ("Failure", {"failed": "FECG-642"})
    assert (line["run"], line["to"]) == ("7", agent.link.address)
    assert "FECG-642" in "\n".join(departure_lines([line]))


def test_a_code_leaves_though_it_cannot_be_recorded_and_the_site_is_told(
    serve: Callable[..., int], tmp_path: Path
) -> None:
    heard: list[bytes] = []

    def keep(request: bytes, context: grpc.ServicerContext) -> bytes:
        del context
        heard.append(request)
        return b""

    site_folder = write_site(
        tmp_path / "north", f"127.0.0.1:{serve(AUTHORITY.sign('127.0.0.1'), keep)}", AUTHORITY.pem
    )
    write_key(site_folder)
    (site_folder / "state").mkdir()
    (site_folder / "state" / "egress").write_text("in the way")
    site, stop = load_site(site_folder / "site.toml"), threading.Event()
    agent = Agent(
        site_folder, site, SiteStatus(site_folder / "state", site.name), open_link(site, stop), stop
    )
    try:
        agent._answer(InHand(received()))
    finally:
        agent.link.close()
    assert any(b"FECG-642" in request for request in heard)
    assert '"unrecorded"' in (site_folder / "state" / "events.jsonl").read_text()


def received() -> Received:
    """A message as it comes by wire."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1
    sent = deflate(Message(RecordDict(), 5, "train"))
    return Received(
        PullMessagesResponse(
            messages_list=sent.request.messages_list, message_object_trees=sent.request.message_object_trees
        )
    )
