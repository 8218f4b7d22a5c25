"""A web server for this machine alone: a few fixed answers, to be read and nothing else.

In:  a port, and a function for each path. Out: answers on 127.0.0.1. Called by the dashboard and the metrics.
A path is looked up among the given ones and never becomes the name of a file. Only GET and HEAD are answered, and only
to whoever calls the server by a name of this machine: a page from elsewhere whose name was pointed here (DNS
rebinding) calls it by another. Nothing is written: no log, no cookie.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore, Thread
from typing import Any

from fedecg.errors import RunError

__all__ = ["HTML", "JSON", "Answer", "LoopbackServer", "serving"]

LOOPBACK = "127.0.0.1"
HTML, JSON = "text/html; charset=utf-8", "application/json"
TEXT = "text/plain; charset=utf-8"
NAMES = re.compile(r"(localhost|127\.0\.0\.1)(:\d{1,5})?", re.IGNORECASE)
METHODS = ("GET", "HEAD")
CONNECTIONS = 32  # at once; more are closed unread
SILENCE_S = 10.0  # a caller that says nothing for so long is hung up on
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class Answer:
    """What a path answers."""

    body: bytes
    kind: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


class LoopbackServer(ThreadingHTTPServer):
    """Listens on 127.0.0.1 from its making on; answers while it is `serving`.

    Args:
        port: 0: any free one.
        routes: path -> makes the answer; called from several threads.
        key: of the port in server.toml, for the error.

    Raises:
        RunError: FECG-691 if the port cannot be had.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = CONNECTIONS

    def __init__(self, port: int, routes: Mapping[str, Callable[[], Answer]], key: str) -> None:
        self.routes = routes
        self._free = BoundedSemaphore(CONNECTIONS)
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            raise RunError(
                "FECG-691",
                f"{key} {port} on {LOOPBACK}",
                found=f"a port that cannot be had ({error.strerror or type(error).__name__})",
                expected="a free port",
                fix=f"Is it served already? See: ss -ltnp | grep {port}. Else change {key} in server.toml; 0 = off.",
            ) from None

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """Its first page."""
        return f"http://{LOOPBACK}:{self.port}/"

    def server_bind(self) -> None:
        """Bind without asking the network for this machine's name, as HTTPServer does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = LOOPBACK, self.port

    def process_request(self, request: Any, client_address: Any) -> None:
        """One thread a connection, and not without end."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and let the next one in."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that has gone is no event."""


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackServer
    timeout = SILENCE_S
    server_version, sys_version = "fedecg", ""

    def parse_request(self) -> bool:
        """Refuse what is neither GET nor HEAD, and whoever calls by another name."""
        if not super().parse_request():
            return False
        if self.command not in METHODS:
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)
            return False
        called = self.headers.get_all("Host") or []
        if len(called) != 1 or not NAMES.fullmatch(called[0].strip()):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return False
        return True

    def do_GET(self) -> None:
        """The answer of a known path."""
        route = self.server.routes.get(self.path.partition("?")[0])
        if route is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            answer = route()
        except Exception as error:  # a fault of the page is no fault of the study
            fault = f"FECG-599 {type(error).__name__}: the page has a fault that fedecg did not foresee.\n"
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, Answer(fault.encode()))
            return
        self._send(HTTPStatus.OK, answer)

    def do_HEAD(self) -> None:
        """The same, without its body."""
        self.do_GET()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """One line that repeats nothing of the request."""
        del message, explain
        status = HTTPStatus(code)
        allow = {"Allow": ", ".join(METHODS)} if status is HTTPStatus.METHOD_NOT_ALLOWED else {}
        self._send(status, Answer(f"{status.value} {status.phrase}\n".encode(), headers=allow))

    def _send(self, status: HTTPStatus, answer: Answer) -> None:
        self.close_connection = True
        self.send_response(status)
        size = {"Content-Type": answer.kind, "Content-Length": str(len(answer.body)), "Connection": "close"}
        for name, value in {**HEADERS, **size, **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: stderr is the study's."""


@contextmanager
def serving(server: LoopbackServer) -> Iterator[LoopbackServer]:
    """Answer from a daemon thread until the end of the block; then the port is free again."""
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="loopback", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
