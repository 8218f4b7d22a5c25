"""What a reply of a round must keep to: its task, the code that joined, as many patients as joined.

In:  the reply, what was asked, what was said when joining. Out: nothing, or a refusal.
Called by the rounds of a stage, of a site's reply and of the opened sum of masked ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from fedecg.errors import FederationError
from fedecg.federation.tasks import TrainReply

__all__ = ["check_asked", "check_joined"]


class Counted(Protocol):
    """Of a part of the cohort, as a site joined with it."""

    @property
    def patients(self) -> int: ...

    @property
    def events(self) -> int: ...


def check_asked(asked: bool) -> None:
    """The reply is one to this round's task.

    Raises:
        FederationError: FECG-509 it is another site's, or another round's.
    """
    if not asked:
        raise FederationError(
            "FECG-509",
            "reply",
            found="another site's or another round's",
            expected="the reply to this round's task",
        )


def check_joined(reply: TrainReply, code_fingerprint: str, learned: Iterable[Counted]) -> None:
    """The reply comes from the code that joined, of no more patients than joined.

    Args:
        reply: of a site, or of all together.
        code_fingerprint: that it joined with.
        learned: parts that this stage learns from.

    Raises:
        FederationError: FECG-510 other code; FECG-515 more patients or events than joined.
    """
    if reply.code_fingerprint != code_fingerprint:
        raise FederationError(
            "FECG-510",
            "code of a site",
            found="another fingerprint",
            expected="the one it joined with",
            fix="Install the same version of fedecg at every site.",
        )
    parts = list(learned)
    patients, events = sum(part.patients for part in parts), sum(part.events for part in parts)
    if reply.patients > patients or reply.events > events:
        raise FederationError(
            "FECG-515",
            "patients and events of a reply",
            found="more than the site joined with",
            expected=f"at most {patients} and {events}",
        )
