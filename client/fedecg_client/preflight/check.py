"""One check: its name, whether it holds, what was found, and how to mend it.

In:  a function that looks at something. Out: a `Check`, whatever that function met. Called by the checks and by whoever
shows them. A fault that nobody foresaw is a failed check with its kind alone: its text may hold a value or a path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedecg.errors import FedecgError

__all__ = ["Check", "exit_status_of", "failed", "of_error", "passed", "skipped", "tried", "wrong"]

UNFORESEEN = "FECG-599"
# Which status a failed check ends the command with, and which of several comes first.
STATUS = {"data": 3, "settings": 3, "policy": 4, "machine": 1, "connection": 1}


@dataclass(frozen=True)
class Check:
    """What came of one check.

    Attributes:
        name: of the check.
        kind: a key of `STATUS`.
        ok: None = could not be tried.
        code: of the fault.
        found: in words, for the people at the site.
        fix: what to do.
        details: more of it, for the full report.
    """

    name: str
    kind: str
    ok: bool | None
    code: str | None = None
    found: str = ""
    fix: str = ""
    details: dict[str, Any] = field(default_factory=dict)


def passed(name: str, kind: str, found: str, **details: Any) -> Check:
    """It is as it must be."""
    return Check(name, kind, True, found=found, details=details)


def failed(name: str, kind: str, code: str, found: str, fix: str, **details: Any) -> Check:
    """It is not."""
    return Check(name, kind, False, code, found, fix, details)


def skipped(name: str, kind: str, why: str) -> Check:
    """It could not be tried."""
    return Check(name, kind, None, found=why)


def of_error(name: str, kind: str, error: FedecgError) -> Check:
    """What was raised, as a check."""
    return failed(
        name, kind, error.code, f"{error.what}: found {error.found}; expected {error.expected}", error.fix
    )


def tried(name: str, kind: str, look: Callable[[], Check]) -> Check:
    """Look, and make a failed check of whatever is raised."""
    try:
        return look()
    except FedecgError as error:
        return of_error(name, kind, error)
    except Exception as error:
        return failed(name, kind, UNFORESEEN, type(error).__name__, "Tell whoever maintains fedecg.")


def exit_status_of(checks: Iterable[Check]) -> int:
    """0 all hold; 3 data or settings are wrong; 4 the policy; 1 the machine or the connection."""
    statuses = {STATUS[check.kind] for check in checks if check.ok is False}
    return next((status for status in (3, 4, 1) if status in statuses), 0)


def wrong(checks: Sequence[Check]) -> list[Check]:
    """Those that do not hold."""
    return [check for check in checks if check.ok is False]
