"""The dashboard: what it says of a run as the study writes it, what it answers to whom, and damaged files."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from coordinator_process import Running, free_port, make_coordinator, until
from watched_run import LOCK, SITES, WatchedRun

from fedecg.config import StudySettings
from fedecg.errors import FederationError, RunError
from fedecg.progress import Progress
from fedecg_server.cli import main
from fedecg_server.coordinator import Coordinator, create_coordinator, open_coordinator
from fedecg_server.dashboard import dashboard_server, serve_dashboard
from fedecg_server.loopback_http import CONNECTIONS, Answer, LoopbackServer, serving
from fedecg_server.run_view import RunFiles
from fedecg_server.watch import watch

HOSTILE = "<img src=x onerror=alert(1)>\x1b[31m\u202e\"'&"
PATHS = ("/", "/parts.json", "/status.json", "/rounds.json", "/events.json")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Coordinator:
    return create_coordinator(tmp_path_factory.mktemp("made") / "coordinator", "127.0.0.1", 19092)


@pytest.fixture
def coordinator(template: Coordinator, tmp_path: Path) -> Coordinator:
    """A folder of its own, with the keys of all the others: making them takes a moment."""
    folder = tmp_path / "coordinator"
    folder.mkdir()
    for name in ("server.toml", "study.toml", "sites.json", "tls"):
        (folder / name).symlink_to(template.folder / name)
    (folder / "run").mkdir()
    (folder / "state").mkdir()
    return Coordinator(folder, template.settings)


@pytest.fixture
def run(coordinator: Coordinator) -> WatchedRun:
    return WatchedRun(coordinator.run, coordinator.study())


@pytest.fixture
def server(coordinator: Coordinator) -> Iterator[LoopbackServer]:
    with serving(dashboard_server(coordinator, 0, supervised=True)) as server:
        yield server


def ask(
    server: LoopbackServer, path: str = "/", method: str = "GET", **headers: str
) -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


def raw(server: LoopbackServer, request: bytes) -> str:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").read().decode()


def words(html: str) -> str:
    """What a reader sees of a page."""
    pieces: list[str] = []

    class Reader(HTMLParser):
        def handle_data(self, data: str) -> None:
            pieces.append(data)

    Reader().feed(re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.DOTALL))
    return " ".join(" ".join(pieces).split())


def seen(server: LoopbackServer) -> str:
    status, html, _ = ask(server)
    assert status == 200
    return words(html)


def curve(html: str, kind: str) -> list[tuple[float, float]]:
    """The points of a line in the first chart that has it; the same line stands in its legend after it."""
    path = re.findall(f'<g class="{kind}"><path d="([^"]+)"/>', html)[0]
    return [(float(x), float(y)) for x, y in (point.split() for point in re.split(r"[ML]", path)[1:])]


# What it says


def test_before_the_study_it_says_that_none_has_begun(server: LoopbackServer) -> None:
    told = seen(server)
    assert "No study has begun in this folder." in told
    assert "Nothing has happened yet." in told
    assert "could be read" not in told


def test_a_running_study_is_told_in_words(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    run.play("align", 10, of=10)
    run.play("survival", 4, of=10, late=["valley"], rejected={"coast": "FECG-545"})
    run.journal.enter("survival", 10, 5)
    run.wait(["valley"], 34.0, 600.0)
    told = seen(server)
    assert "Running. Stage 2: the network learns time to heart failure." in told
    assert "14 of 20 rounds done, about 30 s of rounds left" in told  # six rounds of 5 s, the median
    assert "Now: survival, round 5 of 10." in told
    assert "Waiting for valley : 34 s of at most 10 min" in told
    assert "city answered 4 3.4" in told
    assert (
        "coast last reply left out FECG-545: an update far longer than the others' and the site's own 3 3.5"
        in told
    )
    assert "survival 4 1 of 3 not: coast FECG-545, valley late" in told
    assert "16.8 MB sent and received in all" in told
    for fingerprint in (LOCK, "00c0ffee"):
        assert fingerprint in told


def test_c_index_losses_and_the_best_round_are_drawn_and_written(
    server: LoopbackServer, run: WatchedRun
) -> None:
    run.begin()
    run.play("survival", 5, of=10)
    points = [run.c_index(number) for number in range(1, 6)]
    parts = json.loads(ask(server, "/parts.json")[1])["parts"]
    assert f"Best so far: 4, {points[-1]['stratified']:.3f}." in words(parts["c-index"])
    bounds = f"guaranteed to lie in {points[-1]['lower']:.3f}–{points[-1]['upper']:.3f}"
    assert bounds in words(parts["c-index"])
    assert len(curve(parts["c-index"], "stratified")) == 5
    assert 'class="ring" cx="348.0"' in parts["c-index"]  # the last of the five is the best
    for at in range(len(SITES)):
        assert len(curve(parts["losses"], f"site-{at}")) == 5
    table = parts["loss-table"]
    assert re.findall(r'<abbr title="([^"]+)"', table) == list(SITES)
    assert table.count("<tr>") == 6


def test_the_curve_is_higher_where_the_c_index_is_higher(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    run.play("survival", 6, of=10)
    html = json.loads(ask(server, "/parts.json")[1])["parts"]["c-index"]
    heights = [y for _, y in curve(html, "stratified")]
    assert heights == sorted(heights, reverse=True)  # SVG counts from the top
    grid = dict(re.findall(r'<path d="M46 ([\d.]+)H348"/><text [^>]*>([\d.]+)</text>', html))
    at = {float(text): float(y) for y, text in grid.items()}
    (low, y_low), (high, y_high) = sorted(at.items())[0], sorted(at.items())[-1]
    value = low + (y_low - heights[-1]) / (y_low - y_high) * (high - low)
    assert value == pytest.approx(run.c_index(6)["stratified"], abs=0.002)


def test_below_the_quorum_it_says_whom_it_waits_for(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    run.journal.enter("survival", 10, 1)
    run.wait(["coast", "valley"], 95.0, 86400.0, below_quorum=True)
    told = seen(server)
    assert "Waiting: too few sites for a round." in told
    assert "Waiting for coast, valley : 95 s of at most 24 h" in told


def test_a_finished_study_names_its_best_round_and_its_fingerprints(
    server: LoopbackServer, run: WatchedRun
) -> None:
    run.begin()
    run.play("survival", 10, of=10)
    run.finish(best=3)
    told = seen(server)
    assert "Completed." in told
    assert f"Best round: 3, {run.c_index(4)['stratified']:.3f}." in told
    assert "ab" * 32 in told
    assert "cd" * 32 in told
    assert "of rounds left" not in told
    assert "As the study saw them last." in told


def test_an_error_is_told_with_its_message(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    run.fail(FederationError("FECG-507", "survival round 3", found="1 usable replies", expected="at least 2"))
    told = seen(server)
    assert "FECG-507 survival round 3: found 1 usable replies; expected at least 2." in told
    assert "The study ended with an error (FECG-507: fewer usable replies than the quorum)" in told


def test_a_study_whose_process_has_gone_is_stopped(coordinator: Coordinator, run: WatchedRun) -> None:
    run.begin()
    with serving(dashboard_server(coordinator, 0)) as server:
        assert "Stopped. `fedecg-server start` goes on with it." in seen(server)
        status = json.loads(ask(server, "/status.json")[1])
    assert (status["state"], status["running"]) == ("stopped", False)


def test_events_are_the_last_two_hundred(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    for number in range(300):
        run.journal.event("late", site="city", kind=f"train {number}")
    events = json.loads(ask(server, "/events.json")[1])
    assert [event["kind"] for event in events] == [f"train {number}" for number in range(100, 300)]


def test_the_json_is_what_the_study_wrote(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    run.play("survival", 3, of=10)
    written = json.loads((run.folder.path / "status.json").read_text())
    told = json.loads(ask(server, "/status.json")[1])
    times = {"started", "updated"}
    assert {key: told[key] for key in written if key not in times} == {
        key: written[key] for key in written if key not in times
    }
    for key in times:
        assert told[key].replace("Z", "+00:00") == written[key]
    rounds = json.loads((run.folder.path / "rounds.json").read_text())
    answered = json.loads(ask(server, "/rounds.json")[1])
    assert [entry | {"hazard-ratio": None} for entry in answered] == rounds


def test_a_run_that_is_begun_anew_is_read_anew(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    run.play("survival", 3, of=10)
    assert "3 of 20 rounds done" in seen(server)
    run.folder.path.rename(run.folder.path.with_name("run-earlier"))
    again = WatchedRun(run.folder.path, run.settings)
    again.begin()
    told = seen(server)
    assert "0 of 20 rounds done" in told
    assert len(json.loads(ask(server, "/events.json")[1])) == 5  # start, phase, three joins


def test_stages_that_are_trained_again_are_told_apart(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    run.play("survival", 10, of=10)
    run.play("survival, seed 2", 2, of=10)
    told = seen(server)
    assert "It is trained again (survival, seed 2), to test its attention." in told
    assert "10 of 20 rounds done" in told


def test_more_sites_than_colours_are_all_drawn(coordinator: Coordinator, server: LoopbackServer) -> None:
    names = tuple(f"hospital-{number:02d}" for number in range(30))
    run = WatchedRun(coordinator.run, coordinator.study(), names)
    run.begin()
    run.play("align", 3, of=10)
    html = json.loads(ask(server, "/parts.json")[1])["parts"]["losses"]
    assert len(re.findall(r'<g class="site-\d"><path d="M\d+ [^"]*"/>\n', html)) == 8
    assert len(re.findall(r'<g class="other"><path d="M\d+ [^"]*"/>\n', html)) == 22
    assert "22 other sites" in html


# To whom


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_nothing_but_get_and_head_is_answered(server: LoopbackServer, method: str) -> None:
    status, text, headers = ask(server, "/", method)
    assert (status, text, headers["Allow"]) == (405, "405 Method Not Allowed\n", "GET, HEAD")


@pytest.mark.parametrize("path", PATHS)
def test_head_has_the_headers_of_get_and_no_body(server: LoopbackServer, run: WatchedRun, path: str) -> None:
    run.begin()
    status, text, headers = ask(server, path, "HEAD")
    _, body, same = ask(server, path)
    assert (status, text) == (200, "")
    assert headers["Content-Length"] == same["Content-Length"] == str(len(body.encode()))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9094", "127.0.0.1.evil.example", "localhost@evil", "",
                                  "127.0.0.2", "localhost:9094:1", "0.0.0.0"])  # fmt: skip
def test_a_page_from_elsewhere_is_not_answered(server: LoopbackServer, run: WatchedRun, host: str) -> None:
    run.begin()
    for path in PATHS:
        status, text, _ = ask(server, path, Host=host)
        assert (status, text) == (421, "421 Misdirected Request\n")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9094", "127.0.0.1:80", "127.0.0.1"])
def test_this_machine_is_answered_by_its_names(server: LoopbackServer, host: str) -> None:
    assert ask(server, "/", Host=host)[0] == 200


def test_a_whole_address_is_no_path(server: LoopbackServer) -> None:
    request = b"GET http://evil.example/status.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert raw(server, request).startswith("HTTP/1.0 404 ")


def test_two_hosts_or_none_are_refused(server: LoopbackServer) -> None:
    twice = b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
    assert raw(server, twice).startswith("HTTP/1.0 421 ")
    assert raw(server, b"GET / HTTP/1.0\r\n\r\n").startswith("HTTP/1.0 421 ")


@pytest.mark.parametrize("path", ["/study.toml", "/../server.toml", "/..%2f..%2fetc%2fpasswd", "//etc/passwd", "/run/",
                                  "/tls/ca.key", "/status.json/", "/%2e%2e/tls/ca.key", "/status.json%00",
                                  "/templates/dashboard.js"])  # fmt: skip
def test_no_path_becomes_a_file(server: LoopbackServer, run: WatchedRun, path: str) -> None:
    run.begin()
    assert ask(server, path)[:2] == (404, "404 Not Found\n")


@pytest.mark.parametrize("request_", [b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"<script>\r\n\r\n",
                                      b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
                                      b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n"])  # fmt: skip
def test_nonsense_is_refused_without_repeating_it(server: LoopbackServer, request_: bytes) -> None:
    text = raw(server, request_)
    assert "script>" not in text
    assert not re.search(r" 200 | 500 ", text.partition("\n")[0])
    assert ask(server)[0] == 200


def test_it_listens_on_this_machine_alone(server: LoopbackServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", server.port), timeout=2)


def test_the_page_may_load_and_run_nothing_but_itself(server: LoopbackServer, run: WatchedRun) -> None:
    run.begin()
    run.play("survival", 3, of=10)
    _, html, headers = ask(server)
    policy = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert (
        policy["default-src"]
        == policy["base-uri"]
        == policy["form-action"]
        == policy["frame-ancestors"]
        == "'none'"
    )
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        (inline,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert policy[rule] == f"'sha256-{digest}'"
    assert "Set-Cookie" not in headers
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert not re.search(
        r"\b(src|srcset|action|style|on\w+)\s*=", re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.S)
    )
    assert set(re.findall(r'href="([^"]*)"', html)) == {
        "data:,",
        "/status.json",
        "/rounds.json",
        "/events.json",
    }


@pytest.mark.parametrize("path", [*PATHS, "/nothing"])
def test_every_answer_has_the_safe_headers(server: LoopbackServer, path: str) -> None:
    headers = ask(server, path)[2]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "Python" not in headers["Server"]
    assert headers["Access-Control-Allow-Origin"] is None


def test_hostile_names_and_codes_are_only_text(coordinator: Coordinator, server: LoopbackServer) -> None:
    run = WatchedRun(
        coordinator.run, coordinator.study().model_copy(update={"name": HOSTILE}), (HOSTILE, "city")
    )
    run.begin()
    run.play("survival", 2, of=10)
    run.play(HOSTILE, 1, of=10, rejected={HOSTILE: HOSTILE}, late=["city"])
    run.journal.event("refused", site=HOSTILE, code=HOSTILE)
    run.journal.event(HOSTILE)
    run.wait([HOSTILE], 5.0, 60.0)
    run.fail(FederationError("FECG-507", HOSTILE, found=HOSTILE, expected=HOSTILE))
    _, html, _ = ask(server)
    parts = json.loads(ask(server, "/parts.json")[1])
    for text in (html, *parts["parts"].values()):
        assert "<img" not in text
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;?[31m?&#34;&#39;&amp;" in parts["parts"]["sites"]
    for part in ("sites", "losses", "loss-table", "rounds", "events"):
        assert "&lt;img" in parts["parts"][part], part
    assert "\x1b" not in parts["said"] + parts["title"]  # the page puts both in as text


def test_a_caller_that_says_nothing_does_not_keep_others_out(server: LoopbackServer) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(CONNECTIONS - 1)]
    try:
        time.sleep(0.2)
        assert ask(server)[0] == 200
    finally:
        for connection in silent:
            connection.close()


def test_callers_beyond_the_limit_are_hung_up_on(server: LoopbackServer) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(CONNECTIONS)]
    try:
        time.sleep(0.2)
        before = threading.active_count()
        with pytest.raises((OSError, http.client.HTTPException)):
            ask(server)
        assert threading.active_count() <= before
    finally:
        for connection in silent:
            connection.close()
    end = time.monotonic() + 5
    while server._free._value < CONNECTIONS and time.monotonic() < end:
        time.sleep(0.02)
    assert ask(server)[0] == 200


def test_a_fault_of_the_page_is_named_by_its_kind_and_nothing_else() -> None:
    def faulty() -> Answer:
        raise KeyError("secret")

    with serving(LoopbackServer(0, {"/": faulty}, "dashboard-port")) as server:
        told = "FECG-599 KeyError: the page has a fault that fedecg did not foresee.\n"
        assert ask(server)[:2] == (500, told)


# Damaged files


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
        assert f"{name} cannot be read (IsADirectoryError)." in told


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


# Beside a study, and on its own


def with_ports(coordinator: Coordinator, dashboard: int, metrics: int) -> Coordinator:
    """Its server.toml with other ports; the process that serves reads them there."""
    written = coordinator.server_file.read_text().splitlines()
    lines = [line for line in written if not line.startswith(("dashboard-port", "metrics-port"))]
    coordinator.server_file.unlink()  # a link to that of all tests
    lines += [f"dashboard-port = {dashboard}", f"metrics-port = {metrics}", ""]
    coordinator.server_file.write_text("\n".join(lines))
    return open_coordinator(coordinator.folder)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def fetched(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_watching_serves_what_is_switched_on_and_ends_with_its_block(
    coordinator: Coordinator, run: WatchedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run.begin()
    page, figures = free_port(), free_port()
    threads = threading.active_count()
    with watch(with_ports(coordinator, page, figures), Progress()):
        until(lambda: not is_free(page) and not is_free(figures), 20.0)
        assert "Sites are joining." in fetched(page, "/")
        assert "fedecg_study_state" in fetched(figures, "/metrics")
        assert threading.active_count() == threads  # none in this process
    assert is_free(page)
    assert is_free(figures)
    assert (coordinator.log / "watch.log").read_text() == ""
    said = capsys.readouterr().err
    assert f"dashboard: http://127.0.0.1:{page}/" in said
    assert f"metrics: http://127.0.0.1:{figures}/" in said


def test_what_is_switched_off_is_not_served(
    coordinator: Coordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    with watch(with_ports(coordinator, 0, 0), Progress()):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_a_coordinator_that_waits_for_sites_shows_it_and_leaves_nothing_behind(
    tmp_path: Path, end: str
) -> None:
    page, figures = free_port(), free_port()
    coordinator = with_ports(make_coordinator(tmp_path / "coordinator"), page, figures)
    with Running(coordinator) as running:
        until(running.waits_for_sites, 120.0, "a study that waits")
        assert "Waiting: too few sites for a round. Sites are joining." in words(fetched(page, "/"))
        assert 'fedecg_study_state{state="waiting"} 1.0' in fetched(figures, "/metrics")
        assert f"dashboard: http://127.0.0.1:{page}/" in running.text()
        if end == "stopped":
            assert running.ask_to_stop() == 0
        else:
            running.process.kill()
            running.process.wait()
        until(lambda: is_free(page) and is_free(figures), 5.0, "free ports")


def test_a_port_that_is_taken_costs_the_page_and_not_the_study(
    coordinator: Coordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with watch(with_ports(coordinator, taken, figures), Progress()):
            until(lambda: not is_free(figures), 20.0)
        said = capsys.readouterr().err
        with pytest.raises(RunError) as raised:
            serve_dashboard(coordinator, taken, print)
    assert "warning: no dashboard: FECG-691" in said
    assert str(raised.value) == (
        f"FECG-691 dashboard-port {taken} on 127.0.0.1: found a port that cannot be had (Address already in use); "
        f"expected a free port. Is it served already? See: ss -ltnp | grep {taken}. Else change dashboard-port in "
        "server.toml; 0 = off."
    )


def test_the_page_is_there_for_a_finished_study_until_ctrl_c(
    coordinator: Coordinator, run: WatchedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.begin()
    run.play("survival", 3, of=10)
    run.finish(best=2)
    said: list[str] = []

    def look_and_interrupt(_: float) -> None:
        url = said[0].split()[0]
        connection = http.client.HTTPConnection(url.removeprefix("http://").rstrip("/"), timeout=5)
        connection.request("GET", "/status.json")
        said.append(connection.getresponse().read().decode())
        connection.close()
        raise KeyboardInterrupt

    monkeypatch.setattr("fedecg_server.dashboard.time.sleep", look_and_interrupt)
    assert serve_dashboard(coordinator, 0, said.append) == 0
    assert json.loads(said[1])["state"] == "completed"


def test_the_command_shows_a_study_that_has_stopped_until_it_is_asked_to_end(
    coordinator: Coordinator, run: WatchedRun
) -> None:
    run.begin()
    run.play("survival", 3, of=10)
    command = [sys.executable, "-m", "fedecg_server.cli", "dashboard", str(coordinator.folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            (port,) = re.findall(r"^http://127\.0\.0\.1:(\d+)/ \(this machine only; Ctrl-C ends it\)\n", line)
            connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=5)
            connection.request("GET", "/")
            assert "Stopped." in words(connection.getresponse().read().decode())
            connection.close()
            process.terminate()
            assert process.wait(5.0) == 0
            assert process.stderr is not None
            assert process.stderr.read() == ""
        finally:
            process.kill()


@pytest.mark.parametrize("port", ["-1", "65536", "x"])
def test_a_port_that_cannot_be_is_wrong_use(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["dashboard", "--port", port])
    assert ended.value.code == 2
    assert "argument --port" in capsys.readouterr().err


def test_the_page_loads_neither_torch_nor_flower_nor_matplotlib() -> None:
    code = "import sys, fedecg_server.watch, fedecg_server.dashboard, fedecg_server.metrics; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("'torch'", "'flwr'", "'matplotlib'", "'pandas'"):
        assert heavy not in loaded


def test_a_long_study_is_shown_fast(
    coordinator: Coordinator, run: WatchedRun, server: LoopbackServer
) -> None:
    run.begin()
    entries: list[dict[str, Any]] = []
    for number in range(1, 1001):
        entries.append(run._record("survival", number, {}).entry())
    (run.folder.path / "rounds.json").write_text(json.dumps(entries))
    ask(server)
    began = time.perf_counter()
    for _ in range(5):
        run.journal.write()
        assert ask(server, "/parts.json")[0] == 200
    assert (time.perf_counter() - began) / 5 < 0.5


def test_settings_of_the_study_are_read_from_the_run(run: WatchedRun) -> None:
    run.begin()
    settings = RunFiles(run.folder.path).view().settings
    assert isinstance(settings, StudySettings)
    assert settings == run.settings
