"""The line between a site's agent and its worker: whole pieces of bytes, and no wait that cannot be ended.

In:  one end of a connected socket pair, pieces of bytes. Out: the same pieces at the other end. Called by both sides of
`fedecg_client.worker`. The agent gives a `look`, which is called several times a second while it waits, also in the
middle of a piece: a worker that was stopped neither reads nor writes, and whatever `look` raises ends the wait.

A piece on the line is its length (8 bytes, big-endian) and its bytes. A frame is: JSON {"objects": [id, ...]}, the
message's head (protobuf), then the bytes of each object.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedecg_client.wire import Contents

__all__ = ["Frames"]

LENGTH = struct.Struct("!Q")
SLICE_S = 0.2  # how late a stop is noticed


class Frames:
    """One end of the line.

    Args:
        end: a connected stream socket; closed by `close`.
        look: called before every step and every `SLICE_S` of waiting; None: wait for as long as the other side lives.
    """

    def __init__(self, end: socket.socket, look: Callable[[], None] | None = None) -> None:
        self._socket, self._look = end, look
        end.settimeout(None if look is None else SLICE_S)

    def send(self, piece: bytes) -> None:
        """Send one piece.

        Raises:
            OSError: the other side is gone.
        """
        self._send(LENGTH.pack(len(piece)))
        self._send(piece)

    def receive(self) -> bytes:
        """The next piece.

        Raises:
            EOFError, OSError: the other side is gone.
        """
        (length,) = LENGTH.unpack(self._receive(LENGTH.size))
        return bytes(self._receive(length))

    def send_frame(self, head: bytes, contents: Contents) -> None:
        """One message or reply, object by object: nothing is copied together, nothing is pickled."""
        self.send(json.dumps({"objects": list(contents)}).encode())
        self.send(head)
        for content in contents.values():
            self.send(content)

    def receive_frame(self) -> tuple[bytes, Contents]:
        """What `send_frame` sent."""
        names = json.loads(self.receive())["objects"]
        head = self.receive()
        return head, {name: self.receive() for name in names}

    def close(self) -> None:
        """The other side then finds the end."""
        self._socket.close()

    def _send(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            self._pause()
            try:
                rest = rest[self._socket.send(rest) :]
            except TimeoutError:  # nobody reads
                continue

    def _receive(self, length: int) -> bytearray:
        content = bytearray(length)
        rest = memoryview(content)
        while rest:
            self._pause()
            try:
                got = self._socket.recv_into(rest)
            except TimeoutError:  # nobody writes
                continue
            if not got:
                raise EOFError
            rest = rest[got:]
        return content

    def _pause(self) -> None:
        if self._look is not None:
            self._look()
