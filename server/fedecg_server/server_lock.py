"""One coordinator a folder: the lock that says so, and who holds it.

In:  the coordinator's folder. Out: `state/server.lock`, held by the kernel for as long as its process lives, and
`state/server.pid`. Called by the supervisor, and by whoever stops it or asks whether it runs.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedecg.errors import RunError
from fedecg.files import write_whole
from fedecg_server.coordinator import Coordinator

__all__ = ["only_one", "running_pid"]

TRY_S, TRY_EVERY_S = 1.0, 0.05  # `running_pid` of another process holds the lock for a moment
PROC = Path("/proc")


@contextmanager
def only_one(coordinator: Coordinator) -> Iterator[None]:
    """Hold the folder's lock; it is free again when the process ends, however it ends.

    Raises:
        RunError: FECG-685 if another process has it.
    """
    coordinator.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with coordinator.lock_file.open("a") as lock:
        until = time.monotonic() + TRY_S
        while not _take(lock.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > until:
                raise RunError(
                    "FECG-685",
                    "coordinator",
                    found="a process that runs in this folder already",
                    expected="one at a time",
                    fix="See it: fedecg-server status. End it: fedecg-server stop.",
                )
            time.sleep(TRY_EVERY_S)
        write_whole(coordinator.pid_file, f"{os.getpid()}\n")
        try:
            yield
        finally:
            coordinator.pid_file.unlink(missing_ok=True)


def running_pid(coordinator: Coordinator) -> int | None:
    """Process id of the coordinator that runs in this folder; None if none does.

    Raises:
        RunError: FECG-689 if the folder is locked and it cannot be told by whom.
    """
    until = time.monotonic() + TRY_S
    while (
        time.monotonic() < until
    ):  # who it is is written a moment after the lock, and removed a moment before it
        if _free(coordinator.lock_file):
            return None
        pid = _written_pid(coordinator)
        if pid is not None and _holds(pid, coordinator.lock_file):
            return pid
        time.sleep(TRY_EVERY_S)
    raise RunError(
        "FECG-689",
        "coordinator",
        found="a locked folder, and no process id of whoever locks it",
        expected="state/server.pid as the coordinator wrote it",
        fix="Was state/server.pid changed? The process: fuser state/server.lock. Is it another user's?",
    )


def _take(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _free(path: Path) -> bool:
    try:
        with path.open("r") as lock:
            return _take(lock.fileno(), fcntl.LOCK_SH)
    except FileNotFoundError:
        return True


def _written_pid(coordinator: Coordinator) -> int | None:
    try:
        return int(coordinator.pid_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _holds(pid: int, lock: Path) -> bool:
    """Whether that process has the lock's file open: a number in a file may be anybody's by now."""
    if not PROC.is_dir():
        return True
    try:
        return any(link.samefile(lock) for link in (PROC / str(pid) / "fd").iterdir() if link.exists())
    except OSError:
        return False
