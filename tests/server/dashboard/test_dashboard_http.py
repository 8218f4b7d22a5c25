"""The dashboard: whom it answers, and with what headers; what is hostile stays text."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import socket
import threading
import time

import pytest
from page_reading import PATHS, ask
from watched_run import WatchedRun

from fedecg.errors import FederationError
from fedecg_server.coordinator import Coordinator
from fedecg_server.loopback_http import CONNECTIONS, Answer, LoopbackServer, serving

HOSTILE = "<img src=x onerror=alert(1)>\x1b[31m\u202e\"'&"


def raw(server: LoopbackServer, request: bytes) -> str:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").read().decode()


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
    run.journal.mark("city", HOSTILE, HOSTILE)
    run.wait([HOSTILE], 5.0, 60.0)
    run.fail(FederationError("FECG-507", HOSTILE, found=HOSTILE, expected=HOSTILE))
    _, html, _ = ask(server)
    parts = json.loads(ask(server, "/parts.json")[1])
    for text in (html, *parts["parts"].values()):
        assert "<img" not in text
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;?[31m?&#34;&#39;&amp;" in parts["parts"]["sites"]
    assert parts["parts"]["sites"].count("<tr>") == 2  # its head and the city: no site has such a name
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
