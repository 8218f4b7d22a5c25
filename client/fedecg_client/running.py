"""Is this site's agent running, and who is it? And its end, asked for from outside.

In:  a site's state folder. Out: the agent's process id, or that there is none. Called by `fedecg-client` status, stop,
doctor and preflight. What counts is the lock, which the kernel frees however its holder ends; the number in agent.pid
is believed only of a process that has the lock's file open.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from pathlib import Path

from fedecg.errors import RunError

__all__ = ["running_agent", "stop_agent"]

TRY_S, LOOK_EVERY_S = 1.0, 0.05  # the number is written a moment after the lock is taken
PROC = Path("/proc")


def running_agent(state: Path) -> int | None:
    """Process id of the agent that runs for this site; None if none does.

    Raises:
        RunError: FECG-659 if the folder is locked and it cannot be told by whom.
    """
    until = time.monotonic() + TRY_S
    while time.monotonic() < until:
        pid = _written_pid(state / "agent.pid")
        if pid is not None and _has_open(pid, state / "agent.lock"):
            return (
                pid  # the lock is not touched while somebody has it: an agent that starts must find it free
            )
        if _free(state / "agent.lock"):
            return None
        time.sleep(LOOK_EVERY_S)
    raise RunError(
        "FECG-659",
        "agent",
        found="a locked folder, and no process id of whoever locks it",
        expected="state/agent.pid as the agent wrote it",
        fix="Is it another user's? The process: fuser state/agent.lock.",
    )


def stop_agent(state: Path, timeout_s: float) -> bool:
    """End the running agent cleanly.

    Returns:
        Whether there was one.

    Raises:
        RunError: FECG-659 if it is another user's, or still runs after `timeout_s`.
    """
    pid = running_agent(state)
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:  # it was ending by itself
        pass
    except PermissionError:
        raise _goes_on("another user's process", "Stop it as the user that started it.") from None
    until = time.monotonic() + timeout_s
    while running_agent(state) == pid:
        if time.monotonic() > until:
            raise _goes_on(
                f"a process that still runs {timeout_s:.0f} s after it was asked to stop",
                f"kill -9 {pid} loses no finished work.",
            )
        time.sleep(LOOK_EVERY_S)
    return True


def _free(lock: Path) -> bool:
    try:
        with lock.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False


def _written_pid(file: Path) -> int | None:
    try:
        pid = int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return pid if pid > 0 else None  # kill(0) and kill(-1) reach others


def _has_open(pid: int, file: Path) -> bool:
    """Whether that process has the lock's file open: a number in a file may be anybody's by now."""
    if not PROC.is_dir():
        return True
    try:
        return any(link.exists() and link.samefile(file) for link in (PROC / str(pid) / "fd").iterdir())
    except OSError:
        return False


def _goes_on(found: str, fix: str) -> RunError:
    return RunError("FECG-659", "agent", found=found, expected="its end within a few seconds", fix=fix)
