"""One coordinator a folder: the lock that says so, and who holds it.

In:  the coordinator's folder. Out: `state/server.lock`, held by the kernel for as long as its process lives, and
`state/server.pid`. Called by the supervisor, and by whoever stops it or asks whether it runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fedecg.errors import RunError
from fedecg.locks import LockHeldError, StopError, UnknownHolderError, ask_to_stop, held, holder
from fedecg_server.coordinator import Coordinator

__all__ = ["only_one", "running_pid", "stop_running"]


@contextmanager
def only_one(coordinator: Coordinator) -> Iterator[None]:
    """Hold the folder's lock; it is free again when the process ends, however it ends.

    Raises:
        RunError: FECG-685 if another process has it.
    """
    try:
        with held(coordinator.lock_file):
            yield
    except LockHeldError:
        raise RunError(
            "FECG-685",
            "coordinator",
            found="a process that runs in this folder already",
            expected="one at a time",
            fix="See it: fedecg-server status. End it: fedecg-server stop.",
        ) from None


def running_pid(coordinator: Coordinator) -> int | None:
    """Process id of the coordinator that runs in this folder; None if none does.

    Raises:
        RunError: FECG-689 if the folder is locked and it cannot be told by whom.
    """
    try:
        return holder(coordinator.lock_file)
    except UnknownHolderError:
        raise _unknown() from None


def stop_running(coordinator: Coordinator, timeout_s: float) -> bool:
    """End the running coordinator cleanly; returns whether there was one.

    Raises:
        RunError: FECG-689 if it is another user's, cannot be told, or still runs after `timeout_s`.
    """
    try:
        return ask_to_stop(coordinator.lock_file, timeout_s)
    except UnknownHolderError:
        raise _unknown() from None
    except StopError as error:
        raise RunError(
            "FECG-689",
            "coordinator",
            found=error.found,
            expected="its end within 10 s",
            fix=f"kill -9 {error.pid} leaves no child behind, and loses nothing.",
        ) from None


def _unknown() -> RunError:
    return RunError(
        "FECG-689",
        "coordinator",
        found="a folder that is locked by a process that cannot be told",
        expected="state/server.pid as the coordinator wrote it",
        fix="Was state/server.pid changed? The process: fuser state/server.lock. Is it another user's?",
    )
