"""One exchange with sites: what is asked and has come, who is still open, and how long to wait before the next look.

In:  names of sites, what they are asked. Out: replies by site name; who was late or rejected. Called by the consortium.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from flwr.app import Message, RecordDict

__all__ = ["COMES_BACK", "Asked", "Exchange", "Gathered", "ask_again", "look_s"]

Reply = TypeVar("Reply")

FIRST_LOOK_S, LONGEST_LOOK_S, SHARE_OF_ELAPSED = 0.05, 2.0, 0.02
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # before a site that failed is asked again
UNREACHABLE = "FECG-508"
# Its process or line; its hours; its rounds of the day; somebody there looks at its first message first.
COMES_BACK = {UNREACHABLE, "FECG-418", "FECG-419", "FECG-449"}


@dataclass
class Gathered(Generic[Reply]):
    """What came of an exchange, by site name."""

    expected: list[str]
    replies: dict[str, Reply] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)  # site -> FECG code
    late: list[str] = field(default_factory=list)
    bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Asked:
    """A task that is out."""

    site: str
    kind: str
    at_s: float
    exchange: int


@dataclass
class Exchange(Generic[Reply]):
    """One exchange while it lasts."""

    number: int
    kind: str
    content: Callable[[], RecordDict]
    read: Callable[[str, Message], Reply]
    start_s: float
    gathered: Gathered[Reply]
    at_most_s: float | None
    content_for: Callable[[str], RecordDict] | None = None
    enough_s: float | None = None  # seconds after the start when the quorum had answered
    failed: dict[str, tuple[str, int]] = field(default_factory=dict)  # site -> last passing code, how often
    again_s: dict[str, float] = field(default_factory=dict)  # not to be asked before

    @property
    def open(self) -> list[str]:
        """Sites that have neither answered nor been rejected for good."""
        done = self.gathered
        return [site for site in done.expected if site not in done.replies and site not in done.rejected]

    @property
    def elapsed_s(self) -> float:
        """Since the exchange began."""
        return time.monotonic() - self.start_s


def ask_again(exchange: Exchange[Reply], site: str, code: str | None) -> None:
    """A site that failed for the moment is asked again after a pause, 1, 2, 4 .. 30 s."""
    times = exchange.failed.get(site, ("", 0))[1]
    if code:
        exchange.failed[site] = (code, times + 1)
    exchange.again_s[site] = time.monotonic() + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**times)


def look_s(elapsed: float) -> float:
    """Pause before the next look: never more than 2 % late, and no storm of requests in a long round."""
    return min(LONGEST_LOOK_S, max(FIRST_LOOK_S, SHARE_OF_ELAPSED * elapsed))
