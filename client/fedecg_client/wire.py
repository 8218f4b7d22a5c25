"""A message as bytes: as it is pulled, as it goes through the pipe to the worker, as its reply is pushed.

In:  Flower's protobuf messages and object contents. Out: the app's `Message` and `Context`, and replies as bytes.
Called by the link and the agent (bytes alone) and by the worker (messages). Nothing is pickled: objects are Flower's
own few classes, arrays numpy's file format without pickle.

Flower internals used (flwr 1.39; an import that fails is FECG-642):
    flwr.proto.fleet_pb2.{PullMessagesResponse, PushMessagesRequest}              heads and trees
    flwr.common.serde.message_{from,to}_proto, flwr.app.message.remove_content_from_message
    flwr.common.constant.ErrorCode
    flwr.supercore.inflatable.{inflatable_object, inflatable_utils}               message <-> objects
    flwr.supercore.task_identity.TaskIdentity                                     who replies
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesResponse, PushMessagesRequest
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

__all__ = ["Announced", "Contents", "Received", "Reply", "context_of", "deflate", "error_reply", "inflate"]

Contents = dict[str, bytes]  # by object id (sha256 of the content)
ERRORS = {
    "bundle": ErrorCode.INVALID_FAB,
    "raised": ErrorCode.CLIENT_APP_RAISED_EXCEPTION,
    "crashed": ErrorCode.CLIENT_APP_CRASHED,
    "stopped": ErrorCode.NODE_UNAVAILABLE,
}


@dataclass(frozen=True)
class Received:
    """A message as it was pulled: its head, and the tree of its objects, which are still at the coordinator."""

    response: PullMessagesResponse

    @staticmethod
    def from_bytes(data: bytes) -> Received:
        """From `to_bytes`."""
        return Received(PullMessagesResponse.FromString(data))

    def to_bytes(self) -> bytes:
        """As Flower sent it."""
        return bytes(self.response.SerializeToString())

    @property
    def head(self) -> Message:
        """The message without its content."""
        message = message_from_proto(self.response.messages_list[0])
        message.metadata.__dict__["_message_id"] = self.message_id
        return message

    @property
    def run_id(self) -> int:
        """Which run it belongs to."""
        return int(self.response.messages_list[0].metadata.run_id)

    @property
    def message_id(self) -> str:
        """Its object's id (sha256)."""
        return str(self.response.message_object_trees[0].object_id)

    @property
    def object_ids(self) -> list[str]:
        """Ids of all of its objects, each once, children first."""
        tree = self.response.message_object_trees[0]
        return list(dict.fromkeys(node.object_id for node in iterate_object_tree(tree)))


@dataclass(frozen=True)
class Reply:
    """A reply as it travels: its head with the tree, and the bytes of each object by id."""

    request: PushMessagesRequest
    contents: Contents

    @staticmethod
    def from_bytes(request: bytes, contents: Contents) -> Reply:
        """From the bytes of `request`, as the worker hands them over."""
        return Reply(PushMessagesRequest.FromString(request), contents)

    @property
    def run_id(self) -> int:
        """Which run it belongs to."""
        return int(self.request.messages_list[0].metadata.run_id)


@dataclass(frozen=True)
class Announced:
    """A reply that the coordinator has been told of, as far as it must be known to send what is missing of it.

    Args:
        request: its head and tree.
        root: bytes of the message object, which are another reply's if it is made again: they hold a time.
        session_id: under which its objects are taken.
        missing: ids of the objects that the coordinator has not taken yet.
    """

    request: PushMessagesRequest
    root: bytes
    session_id: str
    missing: list[str]

    @staticmethod
    def of(reply: Reply, session_id: str, missing: list[str]) -> Announced:
        """Of a reply whose upload has begun."""
        root = reply.request.message_object_trees[0].object_id
        return Announced(reply.request, reply.contents[root], session_id, list(missing))

    @staticmethod
    def from_document(document: dict[str, Any]) -> Announced:
        """From `document`."""
        request = PushMessagesRequest.FromString(b64decode(document["request"]))
        return Announced(request, b64decode(document["root"]), document["session"], list(document["missing"]))

    def document(self) -> dict[str, Any]:
        """As JSON takes it."""
        request = b64encode(self.request.SerializeToString()).decode()
        root = b64encode(self.root).decode()
        return {"request": request, "root": root, "session": self.session_id, "missing": self.missing}

    def reply_with(self, made_again: Reply) -> Reply | None:
        """The reply that was announced, with the contents of one that was made again; None if that is another."""
        contents = made_again.contents | {self.request.message_object_trees[0].object_id: self.root}
        return Reply(self.request, contents) if set(self.missing) <= set(contents) else None


def inflate(received: Received, contents: Contents) -> Message:
    """The message, from the bytes of its objects (which are used up)."""
    message = inflate_object_from_contents(received.message_id, contents)
    if not isinstance(message, Message):
        raise TypeError("the root object is no message")
    message.metadata.__dict__["_message_id"] = received.message_id
    return message


def context_of(received: Received, site_folder: str) -> Context:
    """What the app is told besides the message. No state is carried over: the app keeps its own on disk."""
    metadata = received.head.metadata
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, metadata.run_id, metadata.dst_node_id
    return Context(
        run_id=metadata.run_id,
        node_id=metadata.dst_node_id,
        node_config={"site-folder": site_folder},
        state=RecordDict(),
        run_config={},
    )


def deflate(message: Message) -> Reply:
    """The bytes of a reply, object by object."""
    message.metadata.__dict__["_message_id"] = message.object_id
    with no_object_id_recompute():
        tree = get_object_tree(message)
        contents = {name: part.deflate() for name, part in get_all_nested_objects(message).items()}
        head = message_to_proto(remove_content_from_message(message))
    return Reply(PushMessagesRequest(messages_list=[head], message_object_trees=[tree]), contents)


def error_reply(received: Received, kind: str, reason: str) -> Reply:
    """A reply that says why there is none.

    Args:
        kind: a key of `ERRORS`.
        reason: goes to the coordinator: a code, never an exception's text.
    """
    return deflate(Message(Error(ERRORS[kind], reason), reply_to=received.head))
