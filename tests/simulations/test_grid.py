"""The in-process grid behaves as Flower's: real apps, copies of their own, failures as error replies."""

from fedecg_server.exchange import send_and_receive, wait_for_nodes
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from fedecg_simulations.grid import InProcessGrid

NODES = {1: {"site-folder": "one"}, 2: {"site-folder": "two"}}


def app_that(handler: object) -> ClientApp:
    app = ClientApp()
    app.train()(handler)  # type: ignore[arg-type]
    return app


def messages(content: RecordDict) -> list[Message]:
    return [Message(content, node, MessageType.TRAIN) for node in NODES]


def grid_of(handler: object) -> InProcessGrid:
    return InProcessGrid(app_that(handler), NODES)


def test_every_node_answers_with_its_own_settings() -> None:
    seen = []

    def handler(message: Message, context: Context) -> Message:
        seen.append(context.node_config["site-folder"])
        return Message(RecordDict(), reply_to=message)

    replies = send_and_receive(grid_of(handler), messages(RecordDict()), deadline_s=5)
    assert seen == ["one", "two"]
    assert [reply.metadata.src_node_id for reply in replies] == [1, 2]


def test_an_app_that_changes_its_message_changes_nobody_elses() -> None:
    sizes = []

    def handler(message: Message, context: Context) -> Message:
        del context
        sizes.append(len(message.content))
        message.content["more"] = RecordDict().metric_records.get("x") or _metric()
        return Message(RecordDict(), reply_to=message)

    shared = RecordDict()
    send_and_receive(grid_of(handler), messages(shared), deadline_s=5)
    assert sizes == [0, 0]
    assert len(shared) == 0


def _metric() -> object:
    from flwr.app import MetricRecord

    return MetricRecord({"n": 1})


def test_a_failing_app_becomes_an_error_reply_without_its_text() -> None:
    def handler(message: Message, context: Context) -> Message:
        raise ValueError("patient 4711")

    replies = send_and_receive(grid_of(handler), messages(RecordDict()), deadline_s=5)
    assert all(reply.has_error() for reply in replies)
    assert "4711" not in str([reply.error for reply in replies])


def test_a_silent_site_is_waited_for_no_longer_than_the_deadline() -> None:
    class Silent(InProcessGrid):
        def pull_messages(self, message_ids):  # type: ignore[no-untyped-def]
            return [reply for reply in super().pull_messages(message_ids) if reply.metadata.src_node_id == 1]

    def handler(message: Message, context: Context) -> Message:
        del context
        return Message(RecordDict(), reply_to=message)

    replies = send_and_receive(Silent(app_that(handler), NODES), messages(RecordDict()), deadline_s=0.2)
    assert [reply.metadata.src_node_id for reply in replies] == [1]


def test_too_few_nodes_are_waited_for_no_longer_than_the_deadline() -> None:
    assert wait_for_nodes(grid_of(lambda *_: None), quorum=3, deadline_s=0.1) == [1, 2]
