"""The in-process grid behaves as Flower's: real apps, copies of their own, failures as error replies."""

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

    replies = list(grid_of(handler).send_and_receive(messages(RecordDict())))
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
    grid_of(handler).send_and_receive(messages(shared))
    assert sizes == [0, 0]
    assert len(shared) == 0


def _metric() -> object:
    from flwr.app import MetricRecord

    return MetricRecord({"n": 1})


def test_a_failing_app_becomes_an_error_reply_without_its_text() -> None:
    def handler(message: Message, context: Context) -> Message:
        raise ValueError("patient 4711")

    replies = list(grid_of(handler).send_and_receive(messages(RecordDict())))
    assert all(reply.has_error() for reply in replies)
    assert "4711" not in str([reply.error for reply in replies])
