"""One process a folder: the lock that says so, who holds it, and how its holder is asked to end.

In:  a lock file, and beside it, with the ending `.pid`, the number of its holder. Out: the lock, held by the kernel for
as long as its process lives, however it ends; the holder's process id. Called by simulations, agent and coordinator.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["LockHeldError", "StopError", "UnknownHolderError", "ask_to_stop", "held", "holder"]

TRY_S, LOOK_EVERY_S = (
    1.0,
    0.05,
)  # whoever only looks holds the lock for a moment; a pid is written a moment after it
PROC = Path("/proc")


class LockHeldError(Exception):
    """Another process has the lock."""


class UnknownHolderError(Exception):
    """The lock is held, and it cannot be told by whom."""


class StopError(Exception):
    """The holder is another user's, or goes on; the text says which.

    Args:
        pid: of the holder.
        found: what was found.
    """

    def __init__(self, pid: int, found: str) -> None:
        super().__init__(found)
        self.pid, self.found = pid, found


@contextmanager
def held(lock: Path) -> Iterator[int]:
    """Hold the lock; gives its file descriptor, which a child process may be handed to hold it, too.

    Raises:
        LockHeldError: another process has it.
    """
    lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lock.open("a") as file:
        until = time.monotonic() + TRY_S
        while not _take(file.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > until:
                raise LockHeldError
            time.sleep(LOOK_EVERY_S)
        pid = lock.with_suffix(".pid")
        pid.write_text(f"{os.getpid()}\n", encoding="utf-8")
        try:
            yield file.fileno()
        finally:
            pid.unlink(missing_ok=True)


def holder(lock: Path) -> int | None:
    """Process id of whoever holds the lock; None if nobody does.

    The number in the file is believed only of a process that has the lock's file open: it may be anybody's by now.

    Raises:
        UnknownHolderError: it is held, and it cannot be told by whom.
    """
    until = time.monotonic() + TRY_S
    while time.monotonic() < until:
        pid = _written_pid(lock.with_suffix(".pid"))
        if pid is not None and _has_open(pid, lock):
            return pid  # the lock is not touched while somebody has it: whoever starts must find it free
        if _free(lock):
            return None
        time.sleep(LOOK_EVERY_S)
    raise UnknownHolderError


def ask_to_stop(lock: Path, timeout_s: float) -> bool:
    """SIGTERM to the holder, and wait for its end; returns whether there was one.

    Raises:
        StopError: it is another user's, or still runs after `timeout_s`.
        UnknownHolderError: as `holder`.
    """
    pid = holder(lock)
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:  # it was ending by itself
        pass
    except PermissionError:
        raise StopError(pid, "another user's process") from None
    until = time.monotonic() + timeout_s
    while holder(lock) == pid:
        if time.monotonic() > until:
            raise StopError(pid, f"a process that still runs {timeout_s:.0f} s after it was asked to stop")
        time.sleep(LOOK_EVERY_S)
    return True


def _take(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _free(lock: Path) -> bool:
    try:
        with lock.open("r") as file:
            return _take(file.fileno(), fcntl.LOCK_SH)
    except FileNotFoundError:
        return True


def _written_pid(file: Path) -> int | None:
    try:
        pid = int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return pid if pid > 0 else None  # kill(0) and kill(-1) reach others


def _has_open(pid: int, file: Path) -> bool:
    if not PROC.is_dir():
        return True
    try:
        return any(link.exists() and link.samefile(file) for link in (PROC / str(pid) / "fd").iterdir())
    except OSError:
        return False
