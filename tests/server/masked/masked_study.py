"""Five small sites under masked sums: a grid that sees what a curious server would, and words for the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode

from fedecg.federation.tasks import SurveyReply
from fedecg_client.app import app as client_app
from fedecg_server.study import Study
from fedecg_simulations.grid import FIRST_NODE, InProcessGrid

NAMES = ["city", "coast", "rural", "university", "valley"]
LOST = FIRST_NODE + 3  # university


class WatchedGrid(InProcessGrid):
    """Keeps every reply, as a curious server would; loses those of some nodes to some kinds of message."""

    def __init__(self, nodes: dict[int, dict[str, str]]) -> None:
        super().__init__(client_app, nodes)
        self.lost: dict[str, set[int]] = {}  # kind of message -> nodes whose reply never comes
        self.changed: dict[
            str, Callable[[int, Message], Message]
        ] = {}  # kind -> changes what the server sends
        self.seen: list[tuple[str, RecordDict]] = []
        self.watching = True  # False: what is asked from now on is not the study's
        self._sent: dict[
            str, tuple[str, Message | None]
        ] = {}  # id -> kind; the message, if its reply is lost

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        identities = []
        for message in messages:
            kind, node = message.metadata.message_type, message.metadata.dst_node_id
            change = self.changed.get(kind)
            (identity,) = super().push_messages([message if change is None else change(node, message)])
            self._sent[identity] = kind, message if node in self.lost.get(kind, set()) else None
            identities.append(identity)
        return identities

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for reply in super().pull_messages(message_ids):
            kind, lost = self._sent[reply.metadata.reply_to_message_id]
            if lost is not None:
                yield Message(Error(ErrorCode.NODE_UNAVAILABLE), reply_to=lost)
                continue
            if self.watching and not reply.has_error():
                self.seen.append((kind, reply.content))
            yield reply

    def get_node_ids(self) -> Iterable[int]:
        return [node for node in super().get_node_ids() if node not in self.lost.get("everything", set())]


Make = Callable[..., tuple[Study, WatchedGrid]]


def trained(study: Study) -> dict[str, Any]:
    """Join, both stages, the final evaluation; returns the result."""
    study.join()
    study.align()
    return study.conclude(*study.survive())


def plain_surveys(study: Make, start: Any) -> dict[str, SurveyReply]:
    """Site -> what it answers to a survey in plain."""
    made, _ = study("plain")
    made.join()
    return made.questions.survey(start)
