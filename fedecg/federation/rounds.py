"""The book of a study: who was expected, who answered, what was rejected, and what validation said.

In:  replies as the strategy accepts or rejects them. Out: `RoundRecord`s, which are written after every round and
read by the report. Pure data; called by the server.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fedecg.errors import FederationError
from fedecg.evaluation import GlobalConcordance

__all__ = ["RoundRecord", "check_quorum", "validation_entry"]


@dataclass
class RoundRecord:
    """One round as it happened; counts and codes only."""

    stage: str
    round: int
    expected: list[str]
    answered: list[str] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)  # site -> FECG code
    late: list[str] = field(default_factory=list)  # still busy when the round was closed
    loss: dict[str, float] = field(default_factory=dict)
    weights_evaluated: int | None = None  # validation speaks of the weights after this many rounds
    validation: dict[str, Any] | None = None
    hazard_ratio: float | None = None  # sum exp(eta) H0 / events: near 1 while the baseline fits
    repeated: bool = False  # the baseline had drifted: thrown away and done again with a fresh one
    bytes: int = 0
    seconds: float = 0.0

    @property
    def missing(self) -> list[str]:
        """Sites that were expected and were not there."""
        heard = {*self.answered, *self.rejected, *self.late}
        return [site for site in self.expected if site not in heard]

    def entry(self) -> dict[str, Any]:
        """As it is written to rounds.json."""
        return {key.replace("_", "-"): value for key, value in asdict(self).items()} | {
            "missing": self.missing
        }

    @staticmethod
    def of(entry: Mapping[str, Any]) -> RoundRecord:
        """Back from rounds.json."""
        known = {key.replace("-", "_"): value for key, value in entry.items() if key != "missing"}
        return RoundRecord(**known)


def check_quorum(record: RoundRecord, quorum: int) -> None:
    """A round counts only if enough sites answered.

    Raises:
        FederationError: FECG-507 with the names of the sites that answered, were rejected, or are missing.
    """
    if len(record.answered) >= quorum:
        return
    rejected = ", ".join(f"{site} ({code})" for site, code in sorted(record.rejected.items())) or "none"
    missing = ", ".join([*record.missing, *record.late]) or "none"
    raise FederationError(
        "FECG-507",
        f"{record.stage} round {record.round}",
        found=f"{len(record.answered)} usable replies (rejected: {rejected}; missing: {missing})",
        expected=f"at least {quorum} (federation.quorum)",
        fix="The code beside a site's name says what stopped it; its own log says more.",
    )


def validation_entry(result: GlobalConcordance) -> dict[str, Any]:
    """The part of a federated C-index that is written down; None where no pair can be compared."""
    figures = {
        "stratified": result.stratified,
        "global": result.c_index,
        "lower": result.lower,
        "upper": result.upper,
        "ci-low": result.ci_low,
        "ci-high": result.ci_high,
    }
    return {key: float(value) if math.isfinite(value) else None for key, value in figures.items()} | {
        "events": int(result.events),
        "few-events": result.few_events,
    }
