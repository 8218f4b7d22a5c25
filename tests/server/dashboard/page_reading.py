"""How the tests ask the page and read what it says; plain functions."""

from __future__ import annotations

import http.client
import re
from html.parser import HTMLParser

from fedecg_server.loopback_http import LoopbackServer

PATHS = ("/", "/parts.json", "/status.json", "/rounds.json", "/events.json")


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
