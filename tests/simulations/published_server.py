"""A publisher's server on this machine, over real sockets, that can cut, corrupt, refuse, ignore Range or be silent."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Fault:
    """What a server does wrong once.

    Attributes:
        kind: "cut" (after `at` bytes of what it sends), "ignore-range", "corrupt" (a byte at `at`), "status", "silent"
            (for `seconds`), "other-range" (a rest that was not asked for), "slow" (`at` bytes every `seconds`).
    """

    kind: str
    at: int = 0
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0


class Publisher:
    """Files by path, faults in the order in which they happen, and the requests that came.

    Attributes:
        always: path -> a fault at every request, once those of `faults` are used up.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.always: dict[str, Fault] = {}
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.Lock()
        self.base = ""

    def asked_for(self, path: str) -> list[str]:
        """The Range of every request for a path, "" where there was none."""
        return [asked for one, asked in self.requests if one == path]

    def fault(self, path: str) -> Fault | None:
        with self.lock:
            waiting = self.faults[path]
            return waiting.pop(0) if waiting else self.always.get(path)


@contextmanager
def publisher() -> Iterator[Publisher]:
    """A running server; `base` is its address."""
    told = Publisher()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, asked = self.path.removeprefix("/"), self.headers.get("Range", "")
            with told.lock:
                told.requests.append((path, asked))
            fault = told.fault(path) or Fault("none")
            _answer(self, told.files.get(path), asked, fault)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    told.base = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(to: BaseHTTPRequestHandler, body: bytes | None, asked: str, fault: Fault) -> None:
    if fault.kind == "silent":
        time.sleep(fault.seconds)
        to.close_connection = True
        return
    if fault.kind == "status" or body is None:
        to.send_response(fault.status if fault.kind == "status" else 404)
        for name, value in fault.headers.items():
            to.send_header(name, value)
        to.send_header("Content-Length", "0")
        to.end_headers()
        return
    start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and fault.kind != "ignore-range" else 0
    if fault.kind == "other-range":
        start += 1
    if start and start >= len(body):
        to.send_response(416)
        to.send_header("Content-Length", "0")
        to.end_headers()
        return
    to.send_response(206 if start else 200)
    if start:
        to.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
    rest = bytearray(body[start:])
    to.send_header("Content-Length", str(len(rest)))
    to.end_headers()
    if fault.kind == "corrupt":
        rest[fault.at] ^= 0xFF
    _send(to, bytes(rest), fault)


def _send(to: BaseHTTPRequestHandler, rest: bytes, fault: Fault) -> None:
    try:
        if fault.kind == "slow":
            for at in range(0, len(rest), fault.at):
                to.wfile.write(rest[at : at + fault.at])
                to.wfile.flush()
                time.sleep(fault.seconds)
            return
        to.wfile.write(rest[: fault.at] if fault.kind == "cut" else rest)
        if fault.kind == "cut":
            to.wfile.flush()
            to.connection.shutdown(socket.SHUT_RDWR)
            to.close_connection = True
    except OSError:  # whoever asked has gone
        to.close_connection = True


def as_physionet(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of a set with its list of checksums, as PhysioNet writes it."""
    lines = [f"{hashlib.sha256(body).hexdigest()} {path}\n" for path, body in sorted(files.items())]
    return {**files, "SHA256SUMS.txt": "".join(lines).encode()}


def as_zenodo(files: Mapping[str, bytes], record: str) -> dict[str, bytes]:
    """The files of a record of Zenodo below its API, with the record."""
    listed = [
        {"key": key, "size": len(body), "checksum": f"md5:{hashlib.md5(body).hexdigest()}"}
        for key, body in files.items()
    ]
    document = json.dumps({"id": 1, "files": listed}).encode()
    return {record: document, **{f"{record}/files/{key}/content": body for key, body in files.items()}}
