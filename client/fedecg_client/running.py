"""Is this site's agent running, and who is it? And its end, asked for from outside.

In:  a site's state folder. Out: the lock that one agent holds, its process id, or that there is none. Called by the
agent, and by `fedecg-client` status, stop, doctor and preflight.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedecg.errors import RunError
from fedecg.locks import LockHeldError, StopError, UnknownHolderError, ask_to_stop, held, holder

__all__ = ["only_one", "running_agent", "stop_agent"]

LOCK = "agent.lock"


@contextmanager
def only_one(state: Path) -> Iterator[None]:
    """Hold the folder: one agent a site.

    Raises:
        RunError: FECG-641 if another process holds it.
    """
    try:
        with held(state / LOCK):
            yield
    except LockHeldError:
        raise RunError(
            "FECG-641",
            "site folder",
            found="an agent that runs already",
            expected="one agent a site",
            fix="Stop it with `fedecg-client stop`, or leave it: `fedecg-client status` says what it does.",
        ) from None


def running_agent(state: Path) -> int | None:
    """Process id of the agent that runs for this site; None if none does.

    Raises:
        RunError: FECG-659 if the folder is locked and it cannot be told by whom.
    """
    try:
        return holder(state / LOCK)
    except UnknownHolderError:
        raise _unknown() from None


def stop_agent(state: Path, timeout_s: float) -> bool:
    """End the running agent cleanly.

    Returns:
        Whether there was one.

    Raises:
        RunError: FECG-659 if it is another user's, cannot be told, or still runs after `timeout_s`.
    """
    try:
        return ask_to_stop(state / LOCK, timeout_s)
    except UnknownHolderError:
        raise _unknown() from None
    except StopError as error:
        raise RunError(
            "FECG-659",
            "agent",
            found=error.found,
            expected="its end within a few seconds",
            fix=f"kill -9 {error.pid} loses no finished work; another user's process: as that user.",
        ) from None


def _unknown() -> RunError:
    return RunError(
        "FECG-659",
        "agent",
        found="a folder that is locked by a process that cannot be told",
        expected="state/agent.pid as the agent wrote it",
        fix="Is it another user's? The process: fuser state/agent.lock.",
    )
