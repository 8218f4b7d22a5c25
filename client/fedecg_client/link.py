"""The site's line to its coordinator: Flower's fleet port, its messages and its objects, behind a small face.

In:  the coordinator's address, its CA, the site's key. Out: messages as they came, replies as bytes.
Called by the agent. This file and `wire` are all at a site that knows Flower's inside.

Flower internals used (flwr 1.39; an import that fails is FECG-642):
    flwr.proto.{fleet,heartbeat,message,node,run}_pb2, fleet_pb2_grpc.FleetStub   the calls
    flwr.client.grpc_rere_client.node_auth_client_interceptor                     signs each call with the node's key
    flwr.supercore.runtime_version_compatibility.RuntimeVersionMetadata           says our version with each call
    flwr.common.constant.HEARTBEAT_DEFAULT_INTERVAL                               30 s; online for twice that
and those of `wire`.
Not used, on purpose: `grpc_request_response` (ends the process when a node is refused), Flower's retry invoker (sends
itself SIGINT on "unauthenticated" and retries without a word), `RuntimeVersionClientInterceptor` (may end the process).

TLS: the coordinator's certificate must be signed by the site's ca.crt, system authorities do not count, and there is no
plain text. No name but the server's is looked up. gRPC honours `grpc_proxy`, `https_proxy` and `http_proxy` (with
`no_grpc_proxy`/`no_proxy`) of the environment: where one is set, the only connection goes to that proxy, which is
asked to CONNECT to the server (so it resolves the name); TLS stays end to end, and a proxy that opens it is FECG-644.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.client.grpc_rere_client.node_auth_client_interceptor import NodeAuthClientInterceptor
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
)
from flwr.proto.fleet_pb2_grpc import FleetStub
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata

from fedecg.config import ServerSettings
from fedecg_client.faults import (
    REFUSED,
    LinkError,
    RunOverError,
    StoppedError,
    away,
    sorted_fault,
    unknown_node,
)
from fedecg_client.keys import authority_of, load_key
from fedecg_client.wire import Announced, Contents, Received, Reply

__all__ = ["Credentials", "Link", "load_credentials"]

CALL_S, LAST_CALL_S = 20.0, 1.0
OBJECT_S = 6 * 3600.0  # a slow line is not a fault; a silent one is
SILENT_S = 60.0
LARGE_BYTES = 65_536  # of an object that does not travel twice if that can be helped
SLICE_S = 0.2  # how late a stop is noticed in a call
BEAT_S = HEARTBEAT_DEFAULT_INTERVAL * 2 / 3
BEAT_AGAIN_S = 3.0
OBJECT_WAIT_S = 60.0  # a message may be announced before its objects have arrived
CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # a new channel tries at once, whatever the one before has met
    ("grpc.service_config_disable_resolution", 1),  # no TXT look-up
    ("grpc.enable_retries", 0),
]


@dataclass(frozen=True)
class Credentials:
    """What a site proves itself by (`key`) and knows its coordinator by (`ca`, PEM)."""

    ca: bytes
    key: ec.EllipticCurvePrivateKey


def load_credentials(settings: ServerSettings) -> Credentials:
    """Read the CA and the key.

    Raises:
        RunError: FECG-643 if either file is missing or is not what it must be.
    """
    authority_of(Path(settings.ca))
    return Credentials(Path(settings.ca).read_bytes(), load_key(Path(settings.key)))


class Link:
    """Calls to the fleet port. Each may raise `LinkError`, `RunOverError` or, once `stop` is set, `StoppedError`.

    A call that is said to be the `last` is made in spite of `stop`, within a second.
    """

    def __init__(self, address: str, credentials: Credentials, stop: threading.Event) -> None:
        self.address, self.credentials, self.stop = address, credentials, stop
        self.received_bytes = self.sent_bytes = 0
        self.on_heard: Callable[[], None] = lambda: None
        self._public_key = credentials.key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        self._version = RuntimeVersionMetadata.from_local_component("SuperNode").as_metadata()
        self._heard = time.monotonic()
        self._node: Node | None = None
        self._announced: tuple[Reply, Announced] | None = None  # whose upload is not finished
        self._held: Contents = {}  # large objects of the last weights
        self._coming: tuple[str, Contents] = "", {}  # a message on its way, its large objects so far
        self._ended = threading.Event()
        self._beats: threading.Thread | None = None
        self._open()

    def reopen(self) -> None:
        """A new connection: the one before is cut, or silent."""
        self._channel.close()
        self._open()

    def knock(self) -> None:
        """Is a fleet port there, with a certificate that can be trusted? As nobody, so nothing changes there."""
        request = SendNodeHeartbeatRequest(
            node=Node(node_id=0), heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL
        )
        try:
            self._call("SendNodeHeartbeat", request)
        except LinkError as fault:
            if fault.error.code != REFUSED:
                raise

    def activate(self) -> int:
        """Go online.

        Returns:
            The node's id, the same for the same key as long as the coordinator keeps its database.
        """
        request = ActivateNodeRequest(
            public_key=self._public_key, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL
        )
        node_id = int(self._call("ActivateNode", request).node_id)
        self._online(node_id)
        return node_id

    def adopt(self, node_id: int) -> None:
        """Go on as a node that never went offline, or has been away for a short while."""
        request = SendNodeHeartbeatRequest(
            node=Node(node_id=node_id), heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL
        )
        if not self._call("SendNodeHeartbeat", request).success:
            raise unknown_node()
        self._online(node_id)

    def deactivate(self, node_id: int, *, last: bool = False) -> None:
        """Go offline; clears an "online" that a kill left behind. Already offline, or unknown: nothing to do."""
        self._node = None
        try:
            self._call("DeactivateNode", DeactivateNodeRequest(node_id=node_id), last=last)
        except LinkError as fault:
            if fault.error.code != REFUSED:
                raise

    def pull(self) -> Received | None:
        """The next message, if there is one. It is handed out once: keep it until its reply is sent."""
        response = self._call("PullMessages", PullMessagesRequest(node=self._node))
        if not response.messages_list or not response.message_object_trees:
            return None
        return Received(cast(PullMessagesResponse, response))

    def bundle_sha256(self, run_id: int) -> str:
        """Hash of the app bundle that a run was submitted with. The bundle itself is never asked for."""
        return str(self._call("GetRun", GetRunRequest(node=self._node, run_id=run_id)).run.fab_hash)

    def fetch(self, received: Received) -> Contents:
        """The bytes of each of a message's objects.

        A large one that the weights before had as well, or that had come when the line broke, is not asked for again:
        an object's id is the hash of its bytes.
        """
        if self._coming[0] != received.message_id:
            self._coming = received.message_id, {}
        coming, contents = self._coming[1], {}
        for object_id in received.object_ids:
            content = self._held.get(object_id) or coming.get(object_id)
            if content is None:
                content = self._fetch_object(received.run_id, object_id)
                self.received_bytes += len(content)
            contents[object_id] = content
            if len(content) > LARGE_BYTES:
                coming[object_id] = content
        if coming:  # there are weights
            self._held = coming
        self._coming = "", {}
        return contents

    def confirm(self, received: Received) -> None:
        """Tell the coordinator that it need not keep a message's objects any longer."""
        request = ConfirmMessageReceivedRequest(
            node=self._node, run_id=received.run_id, message_object_id=received.message_id
        )
        self._call("ConfirmMessageReceived", request)

    def go_on(self, reply: Reply, announced: Announced) -> None:
        """The next push of this reply sends what is missing of it, as an agent that was killed announced it."""
        self._announced = reply, announced

    def push(
        self,
        reply: Reply,
        *,
        last: bool = False,
        tell: Callable[[Announced], None] = lambda _: None,
    ) -> None:
        """Send a reply; one whose upload was cut goes on where it stopped.

        Announced anew it would be taken for another: once the coordinator has seen the announcement, Flower forgets the
        question, and would wait 180 s for the objects of the first one.

        Flower has a field here for the seconds that the work took; it stays empty. They grow with the patients who were
        drawn, and would leave in no record and under no noise.

        Args:
            reply: as the worker made it.
            last: as of every call.
            tell: called when it is announced, and after each large object.
        """
        if self._announced is None or self._announced[0] is not reply:
            request = PushMessagesRequest()
            request.CopyFrom(reply.request)
            request.node.CopyFrom(self._node or Node())
            response = self._call("PushMessages", request, last=last)
            announced = Announced.of(reply, response.session_id, list(response.objects_to_push))
            self._announced = reply, announced
            tell(announced)
        _, announced = self._announced
        while announced.missing:
            content = reply.contents[announced.missing[0]]
            part = PushObjectRequest(
                node=self._node,
                run_id=reply.run_id,
                object_id=announced.missing[0],
                object_content=content,
                session_id=announced.session_id,
            )
            self._call("PushObject", part, OBJECT_S, last=last)
            self.sent_bytes += len(content)
            del announced.missing[0]
            if len(content) > LARGE_BYTES:
                tell(announced)
        self._announced = None

    def close(self) -> None:
        """End the heartbeats and the connection."""
        self._ended.set()
        self._channel.close()
        if self._beats:
            self._beats.join(timeout=2)

    def _open(self) -> None:
        secure = grpc.secure_channel(
            self.address, grpc.ssl_channel_credentials(self.credentials.ca), options=CHANNEL
        )
        key = self.credentials.key
        self._channel = grpc.intercept_channel(secure, NodeAuthClientInterceptor(key, key.public_key()))
        self._stub = FleetStub(self._channel)
        self._heard = time.monotonic()

    def _online(self, node_id: int) -> None:
        self._node = Node(node_id=node_id)
        if self._beats is None:
            self._beats = threading.Thread(target=self._beat, name="heartbeats", daemon=True)
            self._beats.start()

    def _call(self, name: str, request: Any, timeout_s: float | None = None, *, last: bool = False) -> Any:
        """One call, given up when the agent stops, unless it is one of the last, or when the line is silent."""
        limit_s = LAST_CALL_S if last else timeout_s or CALL_S
        began = time.monotonic()
        try:
            call = getattr(self._stub, name).future(request, timeout=limit_s, metadata=self._version)
            while True:
                with suppress(grpc.FutureTimeoutError):
                    answer = call.result(timeout=SLICE_S)
                    break
                if self.stop.is_set() and not last:
                    call.cancel()
                    raise StoppedError
                if time.monotonic() - max(began, self._heard) > SILENT_S:
                    call.cancel()
                    raise away(f"no sign of life for {SILENT_S:.0f} s", sent=True)
        except grpc.RpcError as error:
            raise sorted_fault(error) from None
        except grpc.FutureCancelledError:
            raise away("a call that was cut", sent=True) from None
        self._heard_now()
        return answer

    def _fetch_object(self, run_id: int, object_id: str) -> bytes:
        request = PullObjectRequest(node=self._node, run_id=run_id, object_id=object_id)
        until, pause_s = time.monotonic() + OBJECT_WAIT_S, 0.05
        while True:
            response = self._call("PullObject", request, OBJECT_S)
            if response.object_found and response.object_available:
                return bytes(response.object_content)
            if not response.object_found or time.monotonic() > until:
                raise RunOverError
            if self.stop.wait(pause_s):
                raise StoppedError
            pause_s = min(1.0, pause_s * 2)

    def _heard_now(self) -> None:
        self._heard = time.monotonic()
        if self._node is not None:
            self.on_heard()

    def _beat(self) -> None:
        """In its own thread: what keeps the node online while the site trains. Faults are the main thread's matter."""
        pause_s = BEAT_S
        while not self._ended.wait(pause_s):
            pause_s = BEAT_AGAIN_S
            node = self._node
            if node is None:
                continue
            request = SendNodeHeartbeatRequest(node=node, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
            with suppress(grpc.RpcError, ValueError):  # ValueError: the channel has just been closed
                self._stub.SendNodeHeartbeat(request, timeout=CALL_S, metadata=self._version)
                self._heard_now()
                pause_s = BEAT_S
