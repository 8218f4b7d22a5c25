"""The dashboard beside files that are damaged, half-written or not to be read."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from page_reading import PATHS, ask, seen
from watched_run import WatchedRun

from fedecg_server.loopback_http import LoopbackServer
from fedecg_server.run_view import RunFiles


def spoil(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


DAMAGED = {
    "status.json": [b"", b"{", b"[]", b"null", b'{"state": 3}', b'{"state":"running","phase":"join","round":"x"}',
                    b"\xff\xfe", b"[" * 100_000, b'{"waited-s": NaN}'],
    "rounds.json": [b"", b"[", b"{}", b"[1]", b'[{"stage":"survival"}]', b'[{"stage":"survival","round":1,"loss":[]}]',
                    b'[{"stage":"survival","round":1,"loss":{"city":Infinity}}]'],
    "result.json": [b"", b"{", b"[]"],
    "failed.json": [b"", b"{", b'{"code": 1}'],
    "study.toml": [b"=", b"\xff", b'name = "x"\nunknown = 1\n'],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content"), [(name, content) for name in DAMAGED for content in DAMAGED[name]]
)
def test_a_damaged_file_is_named_and_the_rest_is_shown(
    server: LoopbackServer, run: WatchedRun, name: str, content: bytes
) -> None:
    run.begin()
    run.play("survival", 2, of=10)
    spoil(run.folder.path / name, content)
    told = seen(server)
    assert f"{name} is damaged or half-written; what it says is left out here." in told
    assert "survival round 2 is over: 3 answered" in told  # of events.jsonl
    for path in PATHS[1:]:
        assert ask(server, path)[0] == 200
    assert json.loads(ask(server, "/status.json")[1])["problems"]


def test_lines_of_the_event_log_that_are_damaged_are_counted(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    with (run.folder.path / "events.jsonl").open("ab") as file:
        file.write(b"nonsense\n{}\n\xff\n")
    run.journal.event("late", site="city")
    told = seen(server)
    assert "events.jsonl has damaged lines (3), which are left out here." in told
    assert "city was late" in told


def test_a_line_that_is_still_being_written_is_read_when_it_is_whole(
    server: LoopbackServer, run: WatchedRun
) -> None:
    run.begin()
    path, line = (
        run.folder.path / "events.jsonl",
        '{"time": "2026-01-01T00:00:00+00:00", "event": "late", "site": "city"}\n',
    )
    with path.open("a") as file:
        file.write(line[:30])
        file.flush()
        assert "damaged" not in seen(server)
        assert "city was late" not in seen(server)
        file.write(line[30:])
    assert "city was late" in seen(server)


def test_a_status_that_is_missing_among_rounds_is_said(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    run.play("survival", 2, of=10)
    (run.folder.path / "status.json").unlink()
    assert "status.json is missing: what the study does now is not known." in seen(server)


def test_files_that_may_not_be_read_are_said(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    for name in ("status.json", "events.jsonl"):
        (run.folder.path / name).unlink()
        (run.folder.path / name).mkdir()
    told = seen(server)
    for name in ("status.json", "events.jsonl"):
        assert f"{name} cannot be read (a folder)." in told


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.7, 0.97])
def test_every_file_cut_off_anywhere_gives_a_page(
    server: LoopbackServer, run: WatchedRun, kept: float
) -> None:
    run.begin()
    run.play("survival", 3, of=10)
    run.finish(best=2)
    for name in ("status.json", "rounds.json", "result.json", "study.toml", "events.jsonl"):
        whole = (run.folder.path / name).read_bytes()
        spoil(run.folder.path / name, whole[: int(len(whole) * kept)])
        assert ask(server)[0] == 200
    assert "Completed." in seen(server)  # result.json stands, whatever it says


def test_a_page_beside_a_study_that_writes_is_never_broken(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    over = threading.Event()

    def write() -> None:
        for number in range(1, 41):
            run.play("survival", 1, of=40, first=number)
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    looked = 0
    while not over.is_set():
        for path in ("/", "/parts.json", "/status.json"):
            status, text, _ = ask(server, path)
            assert status == 200
            assert "damaged" not in text
        looked += 1
    writer.join()
    assert looked > 2
    assert "40 of 20" in seen(server)


def test_files_that_have_not_changed_are_not_read_again(run: WatchedRun) -> None:
    run.begin()
    files = RunFiles(run.folder.path)
    view = files.view()
    assert files.view() is view
    run.journal.event("late", site="city")
    assert files.view() is not view
    assert files.view().status is view.status
