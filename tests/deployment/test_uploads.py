"""Vectors of several objects: over 100 kbit/s, half sent by an agent that was killed, half known to the other side."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from flwr.app import Message
from flwr.supercore.constant import OBJECT_PUSH_SESSION_TTL_SECONDS
from numpy.typing import NDArray
from tcp_line import Line, Trap
from whole_study import wait_until

# `whole_study` makes tests/server importable.
from coordinator_process import Site, make_coordinator  # isort: skip

from fedecg.config import ServerSettings
from fedecg.federation.messages import PIECE_BYTES, pack, unpack
from fedecg.federation.tasks import Failure
from fedecg_client.faults import LinkError, StoppedError
from fedecg_client.link import Link, load_credentials
from fedecg_client.wire import Announced, Received, Reply, deflate, inflate
from fedecg_server.runtime import Desk, Task
from fedecg_server.sites import register_all
from fedecg_server.submit import submit_study
from fedecg_server.superlink import SuperLink

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore")]

KBIT_100 = 12_500.0
REPLY_BYTES = 2_500_000  # 200 s at 100 kbit/s; with Flower's own pieces of 5 MB it would be one object
WITHIN_S = 600.0


class KilledError(Exception):
    """Where kill -9 would have struck."""


class LargeSite:
    """A node on the agent's own line that answers a message with a large vector."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings, self.stop, self.node = settings, threading.Event(), 0
        self.link = Link(settings.address, load_credentials(settings), self.stop)
        self.faults: list[str] = []
        self.vector = np.random.default_rng(3).normal(size=REPLY_BYTES // 4).astype(np.float32)
        self.node = self.link.activate()

    def pulled(self) -> Received:
        """The next message."""
        return wait_until(self.link.pull, 30.0, lambda: "no message")

    def answer(self, link: Link, received: Received) -> Reply:
        """Made again it differs in its time."""
        message = inflate(received, link.fetch(received))
        return deflate(Message(pack(Failure(site="large", failed="FECG-599"), self.vector), reply_to=message))

    def serve(self) -> None:
        """Answer one message, as the agent does when its line breaks: the same connection anew, and on from there."""
        received = self.pulled()
        reply = self.answer(self.link, received)
        with suppress(StoppedError):
            while True:
                try:
                    self.link.push(reply)
                    break
                except LinkError as fault:
                    self.faults.append(fault.error.found or "")
                    self.link.reopen()
            self.link.confirm(received)


@pytest.fixture
def connected(tmp_path: Path) -> Iterator[tuple[Task, LargeSite, Line]]:
    """A run that was taken, and a site behind a line that is still fast."""
    coordinator = make_coordinator(tmp_path / "coordinator")
    folder = tmp_path / "large"
    folder.mkdir()
    document = {"name": "large", "store": "store", "cohort": "cohort.csv"}
    (folder / "site.toml").write_text(tomli_w.dumps(document))
    site = Site(coordinator, folder)
    link = SuperLink(coordinator)
    with ExitStack() as stack:
        stack.callback(link.stop)
        link.start()
        register_all(coordinator)
        submit_study(coordinator)  # before gRPC has threads here: it forks
        desk = Desk(coordinator.settings.control_address, coordinator.tls.ca, coordinator.secret, tmp_path)
        task = desk.take()
        assert task is not None
        stack.callback(task.close)
        line = Line(coordinator.settings.port)
        stack.callback(line.close)
        ca, key = str(site.folder / "ca.crt"), str(site.folder / "node.key")
        large = LargeSite(ServerSettings(address=line.address, ca=ca, key=key))
        stack.callback(large.link.close)
        stack.callback(large.stop.set)
        yield task, large, line


def pushed(task: Task, site: LargeSite, weights: NDArray[np.float32] | None = None) -> str:
    """A task for the site; its id."""
    content = pack(Failure(site="server", failed="FECG-599"), weights)
    (identity,) = task.grid.push_messages([Message(content, site.node, "train")])
    return identity


def reply_to(task: Task, identity: str, within_s: float) -> Message:
    """Looked for twice a second."""

    def come() -> Message | None:
        time.sleep(0.5)
        return next(iter(task.grid.pull_messages([identity])), None)

    return wait_until(come, within_s, lambda: "no reply")


def test_a_half_sent_reply_of_a_killed_agent_is_completed_by_the_next_one(
    connected: tuple[Task, LargeSite, Line],
) -> None:
    """Announced anew it would be dropped, and the SuperLink would wait 180 s for the rest of the first one."""
    task, site, _ = connected
    identity = pushed(task, site)
    received, told = site.pulled(), list[str]()

    def tell(announced: Announced) -> None:
        told.append(json.dumps(announced.document()))  # as the agent keeps it on disk
        if len(told) == 2:  # the announcement, and a large object
            raise KilledError

    first = site.answer(site.link, received)
    with pytest.raises(KilledError):
        site.link.push(first, tell=tell)
    site.link.close()
    assert list(task.grid.pull_messages([identity])) == []  # the coordinator knows of it
    began = time.monotonic()
    link = Link(site.settings.address, load_credentials(site.settings), site.stop)
    link.adopt(site.node)
    again = site.answer(link, Received.from_bytes(received.to_bytes()))
    announced = Announced.from_document(json.loads(told[-1]))
    assert 0 < len(announced.missing) < len(first.contents)
    same = announced.reply_with(again)
    assert same is not None
    link.go_on(same, announced)
    link.push(same)
    link.confirm(received)
    reply = reply_to(task, identity, 20.0)
    print(f"the rest of the reply was there {time.monotonic() - began:.1f} s after the next agent had begun")
    assert not reply.has_error(), reply.error
    _, vector = unpack(reply.content, Failure)
    assert vector is not None
    assert vector.tobytes() == site.vector.tobytes()
    assert link.sent_bytes < REPLY_BYTES - PIECE_BYTES / 2  # what had arrived was not sent again
    link.close()


def test_numbers_that_a_round_has_not_moved_do_not_travel_again(
    connected: tuple[Task, LargeSite, Line],
) -> None:
    """As with an encoder that `freeze-rounds` keeps fixed: five pieces, of which the head's alone is another."""
    task, site, _ = connected
    head, first = np.zeros_like(site.vector), site.vector.copy()
    head[-100:] = 1.0
    travelled = []
    for number in range(3):
        sent = (first + number * head).astype(np.float32)
        identity, before = pushed(task, site, sent), site.link.received_bytes
        received = site.pulled()
        _, came = unpack(inflate(received, site.link.fetch(received)).content, Failure)
        assert came is not None
        assert came.tobytes() == sent.tobytes()
        down, before = site.link.received_bytes - before, site.link.sent_bytes
        site.vector = (sent + head / 2).astype(np.float32)
        site.link.push(site.answer(site.link, received))
        site.link.confirm(received)
        _, back = unpack(reply_to(task, identity, 20.0).content, Failure)
        assert back is not None
        assert back.tobytes() == site.vector.tobytes()
        travelled.append((down, site.link.sent_bytes - before))
    print(f"bytes down and up, three rounds of {REPLY_BYTES}: {travelled}")
    assert travelled[0][0] > REPLY_BYTES
    assert all(down < PIECE_BYTES for down, _ in travelled[1:])
    assert all(up < PIECE_BYTES for _, up in travelled)


def test_weights_whose_line_broke_half_way_go_on_where_they_stopped(
    connected: tuple[Task, LargeSite, Line],
) -> None:
    task, site, line = connected
    pushed(task, site, site.vector)
    received = site.pulled()
    line.trap = Trap(after=REPLY_BYTES // 2, up=False)
    line.trap.release(cut=True)
    with pytest.raises(LinkError):
        site.link.fetch(received)
    came = site.link.received_bytes
    assert PIECE_BYTES <= came < REPLY_BYTES - PIECE_BYTES
    site.link.reopen()
    _, vector = unpack(inflate(received, site.link.fetch(received)).content, Failure)
    assert vector is not None
    assert vector.tobytes() == site.vector.tobytes()
    assert site.link.received_bytes < REPLY_BYTES + PIECE_BYTES / 2


def test_a_reply_of_more_than_180_s_arrives_over_100_kbit_per_s(
    connected: tuple[Task, LargeSite, Line],
) -> None:
    task, site, line = connected
    line.bytes_per_s = KBIT_100
    identity, began = pushed(task, site), time.monotonic()
    serving = threading.Thread(target=site.serve, daemon=True)
    serving.start()
    reply = reply_to(task, identity, WITHIN_S)
    seconds = time.monotonic() - began
    print(f"{REPLY_BYTES} bytes at 100 kbit/s: {seconds:.0f} s, faults of the line: {site.faults}")
    assert not reply.has_error(), reply.error
    assert seconds > OBJECT_PUSH_SESSION_TTL_SECONDS
    _, vector = unpack(reply.content, Failure)
    assert vector is not None
    assert vector.tobytes() == site.vector.tobytes()
    serving.join(60.0)
    assert not serving.is_alive()
