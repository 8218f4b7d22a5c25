"""A process that the coordinator runs beside itself: it never outlives its parent, and its log stays bounded.

In:  a command, its environment, a log file. Out: a running process in a group of its own. Called by the supervisor
for the SuperLink, the app host and each call of Flower's command line.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["Child", "keep_bounded"]

LOG_BYTES = 10_000_000
EARLIER_LOGS = 2  # log.1 and log.2 beside the one that is written: 30 MB at most
PR_SET_PDEATHSIG = 1  # linux/prctl.h
LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class Child:
    """One process and whatever it starts, as a group that is stopped as a whole.

    Must be made in the main thread of a process without other threads: Linux ties the child's life to the thread that
    forked it, and gRPC does not survive a fork in between. The supervisor is such a process.

    Args:
        command: program and arguments.
        environment: all of its environment.
        log: where it writes, appending.
        inherited: file descriptors that it gets besides.
        read: whether its stdout is read through `process` and only its stderr goes to the log.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        inherited: Sequence[int] = (),
        read: bool = False,
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        keep_bounded(log)
        output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            self.process = subprocess.Popen(
                list(command),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if read else output,
                stderr=output,
                pass_fds=tuple(inherited),
                start_new_session=True,  # a Ctrl-C in the terminal is the supervisor's to pass on
                preexec_fn=_dies_with(os.getpid()),
            )
        finally:
            os.close(output)

    @property
    def pid(self) -> int:
        """Process id, and id of the group."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the group."""
        self._signal(signal.SIGTERM)

    def stop(self, within_s: float) -> None:
        """Wait for its end, and end it and whatever it started with SIGKILL where it takes longer.

        Args:
            within_s: time that it has after `ask_to_stop`, in seconds.
        """
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, within_s))
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


def keep_bounded(log: Path) -> None:
    """Move a log that has become long to `log.1` (and that to `log.2`), also while somebody appends to it."""
    if not log.exists() or log.stat().st_size <= LOG_BYTES:
        return
    for number in range(EARLIER_LOGS, 1, -1):
        with suppress(FileNotFoundError):
            _earlier(log, number - 1).replace(_earlier(log, number))
    with suppress(OSError):  # on a full disk the end of a log is worth less than the space
        shutil.copyfile(log, _earlier(log, 1))
    os.truncate(log, 0)  # not renamed: whoever has it open goes on at its new end


def _earlier(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")


def _dies_with(parent: int) -> Callable[[], None]:
    """Runs in the child before its program: the kernel kills it when its parent is gone, however that ended."""

    def prepare() -> None:
        if LIBC is not None:
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the kernel was told
            os._exit(1)

    return prepare
