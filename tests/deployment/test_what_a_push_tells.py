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
    agent = answering(written_site(tmp_path / "north", serve(AUTHORITY.sign("127.0.0.1"), lambda *_: b"")))
    (line,) = EgressRecord(agent.folder / "state" / "egress").read()
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

    folder = written_site(tmp_path / "north", serve(AUTHORITY.sign("127.0.0.1"), keep))
    (folder / "state" / "egress").write_text("in the way")
    answering(folder)
    assert any(b"FECG-642" in request for request in heard)
    assert '"unrecorded"' in (folder / "state" / "events.jsonl").read_text()


def written_site(folder: Path, port: int) -> Path:
    """A site that knows the server at a port of this machine."""
    site_folder = write_site(folder, f"127.0.0.1:{port}", AUTHORITY.pem)
    write_key(site_folder)
    (site_folder / "state").mkdir()
    return site_folder


def answering(folder: Path) -> Agent:
    """The site's agent, after it has answered a message of a run whose bundle it does not run."""
    site, stop = load_site(folder / "site.toml"), threading.Event()
    agent = Agent(folder, site, SiteStatus(folder / "state", site.name), open_link(site, stop), stop)
    try:
        agent._answer(InHand(received()))
    finally:
        agent.link.close()
    return agent


def received() -> Received:
    """A message as it comes by wire."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1
    sent = deflate(Message(RecordDict(), 5, "train"))
    return Received(
        PullMessagesResponse(
            messages_list=sent.request.messages_list, message_object_trees=sent.request.message_object_trees
        )
    )
