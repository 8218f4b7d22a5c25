"""A TCP line between a site and its coordinator that can be cut at a byte, held, slowed down, or put out of order.

In:  the coordinator's port; what is to go wrong. Out: a port of its own, for the site's `address`. TLS goes through it
unread: it knows bytes and connections alone, as a firewall or a bad router does. Used by chaos.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

CHUNK = 16_384
GATHER_S = 3.0  # connections that come within this time are put into the opposite order
HELD_AT_MOST_S = 300.0


@dataclass
class Trap:
    """Springs once, when so many bytes have gone one way, over all connections.

    Attributes:
        after: bytes that still pass.
        up: from the site to the coordinator; else the other way.
        late_s: None: the rest is held until `release`. Else the site sees a cut at once, and what was on its way
            arrives at the coordinator that much later, when the site has long come back by another connection.
    """

    after: int
    up: bool = True
    late_s: float | None = None
    sprung: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    cut: bool = False  # what becomes of the connection when it is released
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def springs_within(self, data: bytes) -> int | None:
        """How many of these bytes still pass, if the trap springs within them."""
        with self._lock:
            if self.sprung.is_set():
                return None
            if len(data) < self.after:
                self.after -= len(data)
                return None
            self.sprung.set()
            return self.after

    def release(self, cut: bool) -> None:
        """Let the held connection go on, or cut it."""
        self.cut = cut
        self.released.set()


class Line:
    """One line; closed by `close`.

    Args:
        port: of the coordinator on this machine.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.trap: Trap | None = None
        self.bytes_per_s = 0.0  # 0: as fast as it goes
        self.reorders = False
        self.flows = threading.Event()
        self.flows.set()
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._waiting: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def hang_up(self) -> None:
        """Cut every connection that stands."""
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """No more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.flows.set()
        if self.trap:
            self.trap.release(cut=True)
        self.hang_up()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.connections += 1
                if not self.reorders:
                    self._connect(near)
                    continue
                self._waiting.append(near)
                if len(self._waiting) == 1:
                    threading.Timer(GATHER_S, self._connect_in_opposite_order).start()

    def _connect_in_opposite_order(self) -> None:
        waiting, self._waiting = self._waiting, []
        for near in reversed(waiting):
            self._connect(near)
            time.sleep(0.2)

    def _connect(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(("127.0.0.1", self.port))
        except OSError:
            near.close()
            return
        self._open |= {near, far}
        for source, target, up in ((near, far, True), (far, near, False)):
            threading.Thread(target=self._pass, args=(source, target, up), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, up: bool) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                if not self._forward(data, source, target, up):
                    break
        for end in (source, target):
            self._open.discard(end)
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _forward(self, data: bytes, source: socket.socket, target: socket.socket, up: bool) -> bool:
        """Pass some bytes on; whether the connection goes on."""
        if self.bytes_per_s:
            time.sleep(len(data) / self.bytes_per_s)
        self.flows.wait(HELD_AT_MOST_S)
        trap = self.trap
        passing = trap.springs_within(data) if trap and trap.up == up else None
        if trap is None or passing is None:
            target.sendall(data)
            return True
        target.sendall(data[:passing])
        if trap.late_s is not None:
            source.shutdown(socket.SHUT_RDWR)
            time.sleep(trap.late_s)
            target.sendall(data[passing:])
            return False
        trap.released.wait(HELD_AT_MOST_S)
        if trap.cut:
            return False
        target.sendall(data[passing:])
        return True
