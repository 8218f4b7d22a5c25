"""A Flower grid in one process: the real ServerApp and ClientApp, no network, no Ray, the same numbers every time.

In:  a ClientApp and the settings of its virtual nodes. Out: replies, one node after the other in the order of ids.
Called by the runner. Flower's Ray backend runs the same apps (`federation.backend = "ray"`) for larger machines.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from itertools import count

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

__all__ = ["FIRST_NODE", "RUN_ID", "InProcessGrid"]

RUN_ID = 1
FIRST_NODE = SUPERLINK_NODE_ID + 1


class InProcessGrid(Grid):
    """Runs each message's ClientApp in this thread, when its reply is asked for.

    One reply is in memory at a time: a thousand sites' updates need no more room than one's.

    Args:
        client_app: the ClientApp that every virtual node runs.
        nodes: node id -> node config, as a SuperNode's `--node-config` would give it.
    """

    def __init__(self, client_app: ClientApp, nodes: Mapping[int, Mapping[str, str]]) -> None:
        self._app = client_app
        self._run = Run.create_empty(run_id=RUN_ID)
        self._contexts = {node: _context(node, config) for node, config in nodes.items()}
        self._waiting: dict[str, Message] = {}  # messages by id, in the order in which they were pushed
        self._numbers = count(1)
        # Flower stamps messages with the identity of the running task, which a SuperLink would have assigned.
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, SUPERLINK_NODE_ID

    def set_run(self, run: Run) -> None:
        """Take another run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run of this grid."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message of this run."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """All virtual nodes; they are always there."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take the messages; their nodes work when `pull_messages` asks for the replies."""
        return [self._keep(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages, each once, one node working after the other in the order of the pushes."""
        wanted = set(message_ids)
        for identity in [pushed for pushed in self._waiting if pushed in wanted]:
            yield self._answer(self._waiting.pop(identity))

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, then pull; nothing is ever waited for."""
        del timeout
        return list(self.pull_messages(self.push_messages(messages)))

    def _keep(self, message: Message) -> str:
        identity = self._stamp(message)
        self._waiting[identity] = message
        return identity

    def _answer(self, message: Message) -> Message:
        """Both sides get copies of their own: apps change what they are given, and strategies share it."""
        context = self._contexts[message.metadata.dst_node_id]
        try:
            reply = copy.deepcopy(self._app(copy.deepcopy(message), context))
        except Exception as error:  # what a SuperNode answers when its app fails
            reason = type(error).__name__
            reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)
        self._stamp(reply)
        return reply

    def _stamp(self, message: Message) -> str:
        identity = f"{next(self._numbers)}"
        message.metadata.__dict__["_message_id"] = identity
        return identity


def _context(node: int, config: Mapping[str, str]) -> Context:
    return Context(run_id=RUN_ID, node_id=node, node_config=dict(config), state=RecordDict(), run_config={})
