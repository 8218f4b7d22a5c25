"""The warm process that does a site's work: torch and the installed app are imported once, messages come one at a time.

In:  a message's bytes over a socket from the agent. Out: the reply's bytes. Started by the agent, as
`python -P -m fedecg_client.worker FD PARENT FOLDER`; whoever kills it, the agent stays online and starts another.

What came by wire is read by Flower's own message classes alone (protobuf, numpy without pickle); no received code is
imported. The worker never outlives its agent: on Linux the kernel kills it, elsewhere it ends when the socket does.
A worker that was stopped (SIGSTOP, a debugger, a frozen container) is no reason to wait: handing over a message and
taking the reply end with the task's limit and with the agent's stop, as the work between them does.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fedecg_client.environment import FLOWER_ENVIRONMENT
from fedecg_client.faults import StoppedError, version_error
from fedecg_client.frames import Frames

if TYPE_CHECKING:
    from fedecg_client.wire import Contents, Received, Reply

__all__ = ["UNKNOWN_FAULT", "TaskLimitError", "Worker", "WorkerDiedError", "main"]

READY = b"ready"
UNKNOWN_FAULT = "FECG-599"  # all that the coordinator is told of an exception
START_S = 300.0  # importing torch on a slow disk
END_S = 2.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h

log = logging.getLogger("fedecg.client")


class WorkerDiedError(Exception):
    """The worker ended before it answered (killed, out of memory, a fault in compiled code)."""


class TaskLimitError(Exception):
    """A task ran longer than the site allows."""


class Worker:
    """The agent's side: starts the process, hands it a message, waits for the reply.

    Args:
        folder: the site's folder.
        stop: set when the agent is to stop; every wait ends then, with `StoppedError`.
        tick: called several times a second while a task runs.
    """

    def __init__(self, folder: Path, stop: threading.Event, tick: Callable[[], None]) -> None:
        self.folder, self.stop, self.tick = folder, stop, tick
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Frames | None = None
        self._until_s = 0.0
        self._ready = False

    @property
    def pid(self) -> int | None:
        """The process, if it is running and has imported the app."""
        return self._process.pid if self._ready and self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Start it and wait until it has imported the app. Must be called in the agent's main thread.

        Raises:
            WorkerDiedError: it was killed before it was ready, or was not ready in time and was ended.
            RunError: FECG-642 if it ended by itself before it was ready: the installed programs do not fit.
            StoppedError: the agent is to stop.
        """
        self.end()
        ours, theirs = socket.socketpair()
        self._line = Frames(ours, self._look)
        try:
            arguments = [str(theirs.fileno()), str(os.getpid()), str(self.folder)]
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "fedecg_client.worker", *arguments],
                env={**os.environ, **FLOWER_ENVIRONMENT},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        finally:
            theirs.close()
        try:
            self._until_s = time.monotonic() + START_S
            self._ready = self._line.receive() == READY
        except (EOFError, OSError, TaskLimitError):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)
        if self._ready:
            return
        status = self._process.poll()
        self.end()
        if status is None or status < 0:
            raise WorkerDiedError
        raise version_error("an app that does not start (its last words are in the agent's log)")

    def ask(self, received: Received, contents: Contents, limit_s: float) -> Reply:
        """Have one message answered.

        Raises:
            WorkerDiedError: it ended before it answered; `start` it again.
            TaskLimitError: it was ended after `limit_s`, whether it worked, did not read or did not write.
            StoppedError: the agent is to stop.
        """
        from fedecg_client.wire import Reply

        if self._line is None:
            raise WorkerDiedError
        self._until_s = time.monotonic() + limit_s
        try:
            self._line.send_frame(received.to_bytes(), contents)
            head, contents = self._line.receive_frame()
        except (EOFError, OSError):
            self.end()
            raise WorkerDiedError from None
        except TaskLimitError:
            self.end()
            raise
        return Reply.from_bytes(head, contents)

    def end(self) -> None:
        """End the process: at once if it is idle, after at most 2 s if it works or stands still."""
        self._ready = False
        if self._line is not None:
            self._line.close()
            self._line = None
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _look(self) -> None:
        """Called while something is waited for: a stop and the limit end that."""
        if self.stop.is_set():
            raise StoppedError
        if time.monotonic() > self._until_s:
            raise TaskLimitError
        self.tick()


def main(arguments: list[str]) -> int:
    """The process itself: import the app, then answer until the socket ends."""
    descriptor, parent, folder = int(arguments[0]), int(arguments[1]), arguments[2]
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the agent's, who ends this process
    signal.signal(signal.SIGTERM, leave)  # files that are being written are tidied away
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    os.environ.update(FLOWER_ENVIRONMENT)
    from fedecg_client.wire import Received

    line = Frames(socket.socket(fileno=descriptor))
    answer = answering(folder)
    line.send(READY)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            head, contents = line.receive_frame()
            reply = answer(Received.from_bytes(head), contents)
            del contents
            line.send_frame(reply.request.SerializeToString(), reply.contents)
            del reply
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is ending by itself
    return 0


def leave(*_: object) -> None:
    """End once; a second request would only interrupt the tidying up."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


def answering(folder: str) -> Callable[[Received, Contents], Reply]:
    """The installed app as a function of a message's bytes; whatever it raises becomes a code."""
    from fedecg_client.app import app
    from fedecg_client.wire import context_of, deflate, error_reply, inflate

    def answer(received: Received, contents: Contents) -> Reply:
        try:
            context = context_of(received, folder)
            return deflate(app(inflate(received, contents), context))
        except Exception as error:
            log.error("%s: %s", UNKNOWN_FAULT, type(error).__name__)
            return error_reply(received, "raised", UNKNOWN_FAULT)

    return answer


def die_with(parent: int) -> None:
    """Be killed by the kernel when the agent ends, however it ends (Linux; elsewhere the socket's end is the sign)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we could say so
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
