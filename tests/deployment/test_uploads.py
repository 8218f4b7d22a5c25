"""A line of 100 kbit/s: a reply that takes longer than Flower's 180 s for an object arrives, since it goes in pieces."""

from __future__ import annotations

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
from tcp_line import Line
from whole_study import wait_until

# `whole_study` makes tests/server importable.
from coordinator_process import Site, make_coordinator  # isort: skip

from fedecg.config import ServerSettings
from fedecg.federation.messages import Failure, pack, unpack
from fedecg_client.faults import LinkError, StoppedError
from fedecg_client.link import Link, load_credentials
from fedecg_client.wire import deflate, inflate
from fedecg_server.runtime import Desk, Task
from fedecg_server.sites import register_all
from fedecg_server.submit import submit_study
from fedecg_server.superlink import SuperLink

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore")]

KBIT_100 = 12_500.0
REPLY_BYTES = 2_500_000  # 200 s at 100 kbit/s; with Flower's own pieces of 5 MB it would be one object
WITHIN_S = 600.0


class SlowSite:
    """A node on the agent's own line that answers the first message with a large vector."""

    def __init__(self, settings: ServerSettings) -> None:
        self.stop, self.node = threading.Event(), 0
        self.link = Link(settings.address, load_credentials(settings), self.stop)
        self.faults: list[str] = []
        self.vector = np.random.default_rng(3).normal(size=REPLY_BYTES // 4).astype(np.float32)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        with suppress(StoppedError):
            self.node = self.link.activate()
            while (received := self.link.pull()) is None:
                time.sleep(0.2)
            message = inflate(received, self.link.fetch(received))
            reply = deflate(Message(pack(Failure(site="slow", failed="FECG-599"), self.vector), reply_to=message))
            while True:
                try:
                    self.link.push(reply, 0.1)
                    break
                except LinkError as fault:  # as the agent does: the same connection anew, and on from there
                    self.faults.append(fault.error.found or "")
                    self.link.reopen()
            self.link.confirm(received)


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[tuple[Task, SlowSite, Line]]:
    """A run that was taken, and a site behind a line that is still fast."""
    coordinator = make_coordinator(tmp_path / "coordinator")
    folder = tmp_path / "slow"
    folder.mkdir()
    document = {"name": "slow", "store": "store", "cohort": "cohort.csv"}
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
        slow_site = SlowSite(ServerSettings(address=line.address, ca=ca, key=key))
        stack.callback(slow_site.link.close)
        stack.callback(slow_site.stop.set)
        slow_site.thread.start()
        wait_until(lambda: slow_site.node, 30.0, lambda: "the site did not come")
        yield task, slow_site, line


def test_a_reply_of_more_than_180_s_arrives_over_100_kbit_per_s(slow: tuple[Task, SlowSite, Line]) -> None:
    task, site, line = slow
    line.bytes_per_s = KBIT_100
    content = pack(Failure(site="server", failed="FECG-599"))
    (identity,) = task.grid.push_messages([Message(content, site.node, "train")])
    began = time.monotonic()

    def come() -> list[Message]:
        time.sleep(0.5)
        return list(task.grid.pull_messages([identity]))

    (reply,) = wait_until(come, WITHIN_S, lambda: f"faults of the line: {site.faults}")
    seconds = time.monotonic() - began
    print(f"{REPLY_BYTES} bytes at 100 kbit/s: {seconds:.0f} s, faults of the line: {site.faults}")
    assert not reply.has_error(), reply.error
    assert seconds > OBJECT_PUSH_SESSION_TTL_SECONDS
    _, vector = unpack(reply.content, Failure)
    assert vector is not None
    assert vector.tobytes() == site.vector.tobytes()
    site.thread.join(60.0)
    assert not site.thread.is_alive()
