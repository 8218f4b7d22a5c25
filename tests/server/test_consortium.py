"""Every wait is bounded: late sites, sites that come and go, sites that fail for the moment."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode

from fedecg.config import FederationSettings, StudySettings
from fedecg.errors import FederationError
from fedecg.federation.documents import PartCounts
from fedecg.federation.messages import pack, read_reply, unpack
from fedecg.federation.tasks import Failure, JoinReply, JoinTask, TrainReply
from fedecg.progress import Progress
from fedecg_server.consortium import Consortium
from fedecg_server.journal import Journal
from fedecg_server.lock import study_lock
from fedecg_simulations.grid import InProcessGrid

NODES = {2: "city", 3: "coast", 4: "valley"}


class LineGrid(InProcessGrid):
    """Nodes that can be away, and replies that take their time: what a real line does to a real app."""

    def __init__(self, app: ClientApp) -> None:
        super().__init__(app, {node: {} for node in NODES})
        self.away: set[int] = set()
        self.takes_s: dict[int, float] = {}  # of a reply to a training task
        self._ready: dict[str, float] = {}
        self.pushed: list[tuple[int, str]] = []

    def get_node_ids(self) -> Iterable[int]:
        return [node for node in super().get_node_ids() if node not in self.away]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        out = []
        for message in messages:
            node, kind = message.metadata.dst_node_id, message.metadata.message_type
            self.pushed.append((node, kind))
            (identity,) = super().push_messages([message])
            self._ready[identity] = time.monotonic() + (
                self.takes_s.get(node, 0.0) if kind == "train" else 0.0
            )
            out.append(identity)
        return out

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        now = time.monotonic()
        return super().pull_messages([one for one in message_ids if self._ready[one] <= now])


@pytest.fixture
def answers() -> dict[str, Callable[[Message], Message]]:
    """Site -> what changes its training replies."""
    return {}


@pytest.fixture
def grid(answers: dict[str, Callable[[Message], Message]]) -> LineGrid:
    app = ClientApp()

    @app.query("join")
    def join(message: Message, context: Context) -> Message:
        task, _ = unpack(message.content, JoinTask)
        reply = JoinReply(
            site=NODES[context.node_id],
            parts={"train": PartCounts(patients=5, events=1)},
            code_fingerprint=task.lock.code_fingerprint,
            lock_sha256=task.lock.sha256(),
        )
        return Message(pack(reply), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        site = NODES[context.node_id]
        reply = TrainReply(site=site, round=1, patients=5, events=1, steps=1, loss=0.0, code_fingerprint="c")
        answer = Message(pack(reply), reply_to=message)
        return answers[site](answer) if site in answers else answer

    return LineGrid(app)


def consortium(
    grid: LineGrid,
    folder: Path,
    sites: tuple[str, ...] = (),
    registered: dict[int, str] | None = None,
    **waits: float,
) -> Consortium:
    federation = FederationSettings.model_validate(
        {"deadline-s": 5.0, "grace-s": 0.2, "patience-s": 5.0, "quorum": 2, **waits}
    )
    settings = StudySettings(federation=federation)
    names = None if registered is None else lambda: registered
    return Consortium(grid, federation, study_lock(settings, sites), Journal(folder), Progress(), names)


def ask(sites: Consortium):  # type: ignore[no-untyped-def]
    def read(_: str, message: Message) -> TrainReply:
        return read_reply(message, TrainReply)[0]

    return sites.ask("train", lambda: pack(JoinTask(lock=sites.lock)), read)


def events(folder: Path, kind: str) -> list[str]:
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [line["site"] for line in lines if line["event"] == kind]


def test_all_answer_and_their_replies_come_in_the_order_of_names(grid: LineGrid, tmp_path: Path) -> None:
    grid.takes_s = {2: 0.3}
    sites = consortium(grid, tmp_path)
    sites.join()
    gathered = ask(sites)
    assert list(gathered.replies) == ["city", "coast", "valley"]
    assert gathered.late == []
    assert sorted(sites.received) == ["city", "coast", "valley"]


def test_once_the_quorum_has_answered_the_rest_have_twice_their_usual_time_and_the_grace(
    grid: LineGrid, tmp_path: Path
) -> None:
    sites = consortium(grid, tmp_path)
    sites.join()
    ask(sites)
    grid.takes_s = {4: 60.0}
    start = time.monotonic()
    gathered = ask(sites)
    assert 0.2 <= time.monotonic() - start < 2.0
    assert gathered.late == ["valley"]
    assert events(tmp_path, "late") == ["valley"]


def test_a_site_whose_pace_is_not_known_yet_has_until_the_deadline(grid: LineGrid, tmp_path: Path) -> None:
    grid.takes_s = {4: 60.0}
    sites = consortium(grid, tmp_path, **{"deadline-s": 1.0})
    sites.join()
    start = time.monotonic()
    assert ask(sites).late == ["valley"]
    assert 1.0 <= time.monotonic() - start < 2.5


def test_a_late_site_is_not_asked_again_before_it_has_answered_and_then_takes_part(
    grid: LineGrid, tmp_path: Path
) -> None:
    sites = consortium(grid, tmp_path)
    sites.join()
    ask(sites)
    grid.takes_s = {4: 1.0}
    ask(sites)
    asked = grid.pushed.count((4, "train"))
    grid.takes_s = {}
    assert ask(sites).late == ["valley"]
    assert grid.pushed.count((4, "train")) == asked
    time.sleep(1.0)
    grid.takes_s = {2: 0.3, 3: 0.3}
    assert sorted(ask(sites).replies) == ["city", "coast", "valley"]
    assert events(tmp_path, "readmitted") == ["valley"]


def test_a_site_that_is_away_is_not_waited_for_once_the_quorum_has_answered(
    grid: LineGrid, tmp_path: Path
) -> None:
    sites = consortium(grid, tmp_path)
    sites.join()
    grid.away = {3}
    start = time.monotonic()
    gathered = ask(sites)
    assert time.monotonic() - start < 1.0
    assert sorted(gathered.replies) == ["city", "valley"]
    assert gathered.late == []
    assert gathered.rejected == {}
    grid.away = set()
    assert sorted(ask(sites).replies) == ["city", "coast", "valley"]


def test_below_the_quorum_the_round_stays_open_for_whoever_comes_back(
    grid: LineGrid, tmp_path: Path, answers: dict[str, Callable[[Message], Message]]
) -> None:
    """An app that died once is asked again; what the others have answered stays."""
    crashes = iter([True])

    def crash_once(reply: Message) -> Message:
        if next(crashes, False):
            reply.__dict__["_content"], reply.__dict__["_error"] = (
                None,
                Error(ErrorCode.CLIENT_APP_CRASHED, "x"),
            )
            reply.metadata.__dict__["_src_node_id"] = SUPERLINK_NODE_ID
        return reply

    answers["coast"] = crash_once
    sites = consortium(grid, tmp_path, quorum=3)
    sites.join()
    assert sorted(ask(sites).replies) == ["city", "coast", "valley"]
    assert [grid.pushed.count((node, "train")) for node in NODES] == [1, 2, 1]


def test_below_the_quorum_nobody_waits_for_a_site_that_was_rejected_for_good(
    grid: LineGrid, tmp_path: Path, answers: dict[str, Callable[[Message], Message]]
) -> None:
    def fail(reply: Message) -> Message:
        reply.content = pack(Failure(site="coast", failed="FECG-323"))
        return reply

    answers["coast"] = fail
    sites = consortium(grid, tmp_path, quorum=3)
    sites.join()
    start = time.monotonic()
    assert ask(sites).rejected == {"coast": "FECG-323"}
    assert time.monotonic() - start < 1.0


def test_a_site_outside_its_hours_is_asked_again_and_named_if_it_stays_away(
    grid: LineGrid, tmp_path: Path, answers: dict[str, Callable[[Message], Message]]
) -> None:
    def closed(reply: Message) -> Message:
        reply.content = pack(Failure(site="coast", failed="FECG-418"))
        return reply

    answers["coast"] = closed
    sites = consortium(grid, tmp_path, quorum=3, **{"patience-s": 2.5, "deadline-s": 0.5})
    sites.join()
    assert ask(sites).rejected == {"coast": "FECG-418"}
    assert grid.pushed.count((3, "train")) == 2


def status_while(sites: Consortium, folder: Path, work: Callable[[], object]) -> list[dict[str, Any]]:
    """Every status.json that is written while something goes on."""
    seen: list[dict[str, Any]] = []
    honest = sites.journal.write

    def watch() -> None:
        honest()
        seen.append(json.loads((folder / "status.json").read_text()))

    sites.journal.write = watch  # type: ignore[method-assign]
    work()
    sites.journal.write = honest  # type: ignore[method-assign]
    return seen


def test_the_status_names_whom_it_waits_for_and_for_how_long(grid: LineGrid, tmp_path: Path) -> None:
    grid.takes_s = {4: 1.6}
    sites = consortium(grid, tmp_path, quorum=3)
    sites.join()
    seen = status_while(sites, tmp_path, lambda: ask(sites))
    waiting = [entry for entry in seen if entry["waiting-for"] == ["valley"]]
    assert waiting[-1]["state"] == "running"  # it works, and nobody knows yet how long it usually takes
    assert waiting[-1]["at-most-s"] == 5.0
    assert {
        "name": "valley",
        "state": "working",
        "last-round": None,
        "code": None,
        "seconds": None,
    } in waiting[-1]["sites"]  # type: ignore[operator]


def test_an_ordinary_round_runs_and_one_that_takes_longer_than_usual_waits(
    grid: LineGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedecg_server.consortium.UNUSUAL_S", 0.4)
    monkeypatch.setattr("fedecg_server.journal.UPDATE_EVERY_S", 0.0)
    grid.takes_s = {2: 0.3, 3: 0.3, 4: 0.3}
    sites = consortium(grid, tmp_path, quorum=3)
    sites.join()
    for _ in range(2):
        assert {entry["state"] for entry in status_while(sites, tmp_path, lambda: ask(sites))} == {"running"}
    grid.takes_s = {2: 0.3, 3: 0.3, 4: 1.8}
    states = [entry["state"] for entry in status_while(sites, tmp_path, lambda: ask(sites))]
    assert states[0] == "running"
    assert states[-1] == "waiting"
    assert states == sorted(states)  # it changes once


def test_a_round_that_too_few_sites_work_on_waits_from_its_beginning(
    grid: LineGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedecg_server.journal.UPDATE_EVERY_S", 0.0)
    grid.takes_s = {2: 0.3, 3: 0.3, 4: 0.3}
    sites = consortium(grid, tmp_path, quorum=3, **{"patience-s": 0.8, "deadline-s": 0.8})
    sites.join()
    grid.away = {4}
    assert {entry["state"] for entry in status_while(sites, tmp_path, lambda: ask(sites))} == {"waiting"}


def test_joining_waits_for_the_sites_of_the_lock_but_not_longer_than_the_grace(
    grid: LineGrid, tmp_path: Path
) -> None:
    grid.away = {4}
    sites = consortium(grid, tmp_path, ("city", "coast", "valley"), NODES, **{"grace-s": 1.0})
    start = time.monotonic()
    sites.join()
    assert 1.0 <= time.monotonic() - start < 2.5
    assert sorted(sites.members) == ["city", "coast"]
    grid.away = set()
    grid.takes_s = {2: 1.2}
    ask(sites)  # whoever comes later is greeted in a round and takes part from the next
    assert sorted(ask(sites).replies) == ["city", "coast", "valley"]


def test_the_end_of_joining_that_status_names_is_that_of_the_grace_once_the_quorum_is_there(
    grid: LineGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedecg_server.journal.UPDATE_EVERY_S", 0.0)
    grid.away = {3, 4}
    sites = consortium(grid, tmp_path, ("city", "coast", "valley"), NODES, **{"grace-s": 1.0})
    threading.Timer(0.5, grid.away.discard, (3,)).start()
    start = time.monotonic()
    seen = status_while(sites, tmp_path, sites.join)
    took_s = time.monotonic() - start
    before = [entry["at-most-s"] for entry in seen if "coast" in entry["waiting-for"]]
    after = [entry["at-most-s"] for entry in seen if entry["waiting-for"] == ["valley"]]
    assert before
    assert set(before) == {5.0}  # patience-s
    assert after
    assert all(abs(at_most_s - took_s) < 0.5 for at_most_s in after)  # and not 5 s


def test_too_few_sites_end_the_greeting_with_their_codes(grid: LineGrid, tmp_path: Path) -> None:
    grid.away = {3, 4}
    sites = consortium(grid, tmp_path, ("city", "coast", "valley"), NODES, **{"patience-s": 0.5})
    with pytest.raises(
        FederationError, match=r"FECG-507 joined sites: found 1 of 1 nodes; expected at least 2"
    ):
        sites.join()


def test_a_node_that_is_not_on_the_list_is_not_even_greeted(grid: LineGrid, tmp_path: Path) -> None:
    sites = consortium(grid, tmp_path, ("city", "coast"), {2: "city", 3: "coast"})
    sites.join()
    assert {node for node, _ in grid.pushed} == {2, 3}


def test_a_site_that_takes_another_name_than_its_key_has_is_refused(grid: LineGrid, tmp_path: Path) -> None:
    sites = consortium(grid, tmp_path, (), {2: "city", 3: "harbour", 4: "valley"})
    sites.join()
    assert sorted(sites.members) == ["city", "valley"]
    assert sites.refused == {"harbour": "FECG-519"}
