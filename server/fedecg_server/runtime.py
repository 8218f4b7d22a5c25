"""What the app host needs of Flower's Runtime API: take a study, run it over a grid, say how it ended.

In:  the SuperLink's control address, its CA, the shared secret. Out: tasks, and for each a Flower `Grid`.
Called by the app host. Every internal name of Flower 1.39 that the coordinator touches is imported here:

    flwr.supercore.runtime.RuntimeHttpClient          AcquireTask, PullTaskInput, PushTaskOutput, PullObject, ...
    flwr.supercore.interceptors                       version and SuperExec signature on these calls
    flwr.supercore.heartbeat                          tells the SuperLink that the study is alive, every 20 s or so
    flwr.supercore.inflatable, flwr.app.message       a message from its objects, or in place of one that never came
    flwr.supercore.retry.RetryInvoker                 through `HttpGrid._retry_invoker`: waits for a SuperLink to return
    flwr.supercore.task_identity.TaskIdentity         which task the messages of this process belong to
    flwr.superlink.grid.HttpGrid                      `_run`, `_runtime_client`, `_retry_invoker`, `node`
    flwr.common.serde, flwr.proto                     its protobuf messages
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flwr.app import Context, Error, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode, SubStatus
from flwr.common.serde import context_from_proto, context_to_proto, fab_from_proto, run_from_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
)
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from fedecg.federation.messages import let_go
from fedecg_server.shelf import ShelvedContents

__all__ = ["Desk", "ReplyGrid", "Task"]

COMPONENT = "flwr-serverapp"
ACQUIRE = "/flwr.proto.Runtime/AcquireTask"


@dataclass
class Task:
    """A submitted study that this process has taken."""

    run: int
    bundle_sha256: str  # of the bytes that were submitted
    context: Context
    grid: ReplyGrid
    heartbeat: HeartbeatSender

    def finish(self, completed: bool, details: str) -> bool:
        """Tell the SuperLink how it ended; whether it could be told.

        Args:
            completed: False for every other end.
            details: a code or a kind of error; `flwr list` shows it.
        """
        self.grid._retry_invoker.max_tries = 1  # whoever is gone now is not waited for
        self.context.state = RecordDict()
        status = SubStatus.COMPLETED if completed else SubStatus.FAILED
        output = PushTaskOutputRequest(
            context=context_to_proto(self.context), sub_status=status, details=details
        )
        try:
            self.grid._runtime_client.PushTaskOutput(output)
        except Exception as error:  # whatever Flower's retry makes of a peer that has gone or lost the run
            print(f"the SuperLink could not be told: {type(error).__name__}", flush=True)
            return False
        return True

    def close(self) -> None:
        """End the heartbeat and the connection."""
        self.heartbeat._stop_event.set()  # not `stop()`: its join waits for a call in flight, up to 30 s
        with suppress(Exception):
            self.grid.close()


class Desk:
    """Where studies are taken from.

    Args:
        address: host:port of the control port, on this machine.
        ca: certificate authority of its certificate.
        secret: file of the secret that entitles to take tasks.
        room: folder on the disk that takes replies while they come; None: the system's own.
    """

    def __init__(self, address: str, ca: Path, secret: Path, room: Path | None = None) -> None:
        self.address, self.ca, self.room = address, ca.read_bytes(), room
        self._client = RuntimeHttpClient.from_server_address(
            server_address=address,
            insecure=False,
            root_certificates=self.ca,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name=COMPONENT),
                SuperExecAuthHttpInterceptor(
                    master_secret=secret.read_bytes(), protected_methods=frozenset({ACQUIRE})
                ),
            ],
        )

    def take(self) -> Task | None:
        """The oldest study that waits, or None.

        Raises:
            httpx.HTTPError: the SuperLink is away, or has given the study to somebody else.
        """
        answer = self._client.AcquireTask(AcquireTaskRequest(supported_task_types=[COMPONENT]))
        if not (answer.HasField("task") and answer.token):
            return None
        grid = ReplyGrid(self.address, False, self.ca, token=answer.token, room=self.room)
        heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(grid._runtime_client))
        heartbeat.start()
        try:
            return _opened(grid, heartbeat)
        except BaseException:
            heartbeat._stop_event.set()
            grid.close()
            raise


def _opened(grid: ReplyGrid, heartbeat: HeartbeatSender) -> Task:
    given = grid._runtime_client.PullTaskInput(PullTaskInputRequest())
    run = run_from_proto(given.run)
    TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, run.run_id
    TaskIdentity.node_id = given.context.node_id
    grid.set_run(run)
    # The hash is taken of the bytes; they are neither kept nor unpacked.
    sha256 = hashlib.sha256(fab_from_proto(given.fab).content).hexdigest()
    return Task(run.run_id, sha256, context_from_proto(given.context), grid, heartbeat)


@dataclass
class _Announced:
    """A reply of which the SuperLink knows, and what has come of it so far."""

    sender: int
    message_id: str
    objects: list[str]
    contents: ShelvedContents


class ReplyGrid(HttpGrid):
    """Flower's grid, without its waits: a reply that is still being uploaded is left for the next look.

    HttpGrid sleeps 1 s, then 2 s, 4 s ... for each such reply, and a site that died half-way holds up all the others
    for minutes. Here what has come is kept on disk, and what is not there yet is asked for again when the caller looks
    again. A reply that is no message, or another site's, becomes Flower's error "message unavailable" and ends nothing.
    """

    def __init__(
        self, address: str, insecure: bool, root_certificates: bytes, *, token: str, room: Path | None = None
    ) -> None:
        super().__init__(address, insecure, root_certificates, token=token)
        self._room = room
        self._announced: dict[str, _Announced] = {}  # by the id of the message that is answered

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send them, and forget their arrays, which nobody here needs any more.

        Returns:
            Their ids; an empty one where Flower did not take the message.
        """
        pushed = list(messages)
        identities = list(super().push_messages(pushed))
        for message in pushed:
            let_go(message.content)
        return identities

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Replies that have come whole, to any of these messages; each is put together when it is asked for.

        The arrays of one are gone when the next is asked for: there is room for one model here.

        Args:
            message_ids: of messages that were pushed; an answered one is announced once and then known here.
        """
        asked = set(message_ids)
        unknown = asked - set(self._announced)
        if unknown:
            self._look(unknown)
        for message_id in sorted(asked & set(self._announced)):
            state = self._fetched(self._announced[message_id])
            if state == "lost":
                del self._announced[message_id]
                yield self._in_place_of(message_id, "the upload of the reply was not finished")
            elif state == "whole":
                reply = self._read(message_id, self._announced.pop(message_id))
                yield reply
                if reply.has_content():  # the caller has read it, and asks for the next one
                    let_go(reply.content)
                del reply

    def _look(self, message_ids: set[str]) -> None:
        answer = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=message_ids))
        for reply, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            head, objects = reply.metadata, [node.object_id for node in iterate_object_tree(tree)]
            self._announced[head.reply_to_message_id] = _Announced(
                head.src_node_id, head.message_id, objects, ShelvedContents(self._room)
            )

    def _fetched(self, announced: _Announced) -> Literal["coming", "whole", "lost"]:
        """Fetch what has come of a reply since the last look; one that is whole is confirmed."""
        for identity in announced.objects:
            if identity in announced.contents:
                continue
            answer = self._runtime_client.PullObject(
                PullObjectRequest(node=self.node, run_id=self.run.run_id, object_id=identity)
            )
            if not answer.object_found:  # the SuperLink has given up the upload
                return "lost"
            if not answer.object_available:
                return "coming"
            announced.contents[identity] = answer.object_content
        self._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=self.node, run_id=self.run.run_id, message_object_id=announced.message_id
            )
        )
        return "whole"

    def _read(self, message_id: str, announced: _Announced) -> Message:
        try:
            reply = inflate_object_from_contents(announced.message_id, announced.contents)
        except Exception:  # whatever Flower makes of bytes that are no message
            reply = None
        # What the SuperLink has verified is the announcement; the message repeats it in bytes of the site's own.
        if not isinstance(reply, Message) or (
            reply.metadata.src_node_id,
            reply.metadata.reply_to_message_id,
            reply.metadata.run_id,
        ) != (announced.sender, message_id, self.run.run_id):
            return self._in_place_of(message_id, "the reply is no message of that site")
        reply.metadata.__dict__["_message_id"] = announced.message_id
        return reply

    def _in_place_of(self, message_id: str, reason: str) -> Message:
        return make_message(
            metadata=Metadata(
                run_id=self.run.run_id,
                message_id="",
                src_node_id=self.node.node_id,
                dst_node_id=self.node.node_id,
                message_type=SYSTEM_MESSAGE_TYPE,
                group_id="",
                ttl=0,
                reply_to_message_id=message_id,
                created_at=time.time(),
            ),
            error=Error(ErrorCode.MESSAGE_UNAVAILABLE, reason),
        )
