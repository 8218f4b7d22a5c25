"""The book of a study: who was expected, who answered, what was rejected, and what validation said.

In:  replies as the strategy accepts or rejects them. Out: `RoundRecord`s, which are written after every round and
read by the report. Pure data; called by the server.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fedecg.errors import FederationError, some_of
from fedecg.evaluation import GlobalConcordance
from fedecg.objectives import COLLAPSE_REMEDY, COLLAPSED_BELOW

__all__ = [
    "RoundRecord",
    "alignment_notes",
    "alignment_summary",
    "check_quorum",
    "has_collapsed",
    "validation_entry",
]


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
    alignment: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # site -> records that state something; on how many which effective ranks were found
    weights_evaluated: int | None = None  # validation speaks of the weights after this many rounds
    validation: dict[str, Any] | None = None
    hazard_ratio: float | None = None  # sum exp(eta) H0 / events: near 1 while the baseline fits
    repeated: bool = False  # the baseline had drifted: thrown away and done again with a fresh one
    spends: dict[str, list[dict[str, Any]]] = field(
        default_factory=dict
    )  # site -> what its reply cost its patients (privacy.mode = "sample")
    bytes: int = 0
    seconds: float = 0.0

    @property
    def missing(self) -> list[str]:
        """Sites that were expected and were not there."""
        heard = {*self.answered, *self.rejected, *self.late}
        return [site for site in self.expected if site not in heard]

    @property
    def silent(self) -> list[str]:
        """Sites whose records state nothing: they reconstruct only."""
        return [site for site, figures in sorted(self.alignment.items()) if not figures["stated"]]

    @property
    def collapsed(self) -> list[str]:
        """Sites whose embeddings fill less than half of the directions that their targets fill."""
        return [site for site, figures in sorted(self.alignment.items()) if has_collapsed(figures)]

    def entry(self) -> dict[str, Any]:
        """As it is written to rounds.json."""
        written = {key.replace("_", "-"): value for key, value in asdict(self).items()}
        return written | {"missing": self.missing}

    @staticmethod
    def of(entry: Mapping[str, Any]) -> RoundRecord:
        """Back from rounds.json."""
        known = {key.replace("-", "_"): value for key, value in entry.items() if key != "missing"}
        return RoundRecord(**known)


def has_collapsed(figures: Mapping[str, Any]) -> bool:
    """Whether a site's figures of an alignment round tell of a collapse; False where it was not looked at."""
    rank, target_rank = figures.get("rank"), figures.get("target-rank")
    return rank is not None and target_rank is not None and rank < COLLAPSED_BELOW * target_rank


def alignment_notes(record: RoundRecord, before: Sequence[RoundRecord] = ()) -> list[str]:
    """What is to be said of an alignment round after those `before` it, of each site once.

    Who reconstructs only, and whose embeddings have collapsed.
    """
    where, lines = f"{record.stage} round {record.round}", []
    if record.silent and record.round == 1:
        lines.append(
            f"{where}: {some_of(record.silent)} state(s) nothing of what its ECGs show (no codes, no reports): "
            "reconstruction only"
        )
    known = {site for earlier in before for site in earlier.collapsed}
    if collapsed := [site for site in record.collapsed if site not in known]:
        lines.append(
            f"{where}: embeddings collapse at {some_of(collapsed)} (they fill less than half of the "
            f"directions of what they are pulled to): {COLLAPSE_REMEDY}"
        )
    return lines


def alignment_summary(records: Sequence[RoundRecord]) -> dict[str, dict[str, Any]] | None:
    """Site -> its last figures of alignment, and whether its embeddings had collapsed; None where none were told."""
    last: dict[str, dict[str, Any]] = {}
    for record in records:
        for site, figures in record.alignment.items():
            looked_at = figures.get("rank") is not None
            known = last.get(site, {"records": 0, "rank": None, "target-rank": None})
            last[site] = {**(figures if looked_at else {**known, "stated": figures["stated"]})}
    return {site: {**last[site], "collapsed": has_collapsed(last[site])} for site in sorted(last)} or None


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
    """The part of a federated C-index that is written down; None where no pair can be compared.

    Where every site has withheld its counts the number of events is not known, and no nought.
    """
    figures = {
        "stratified": result.stratified,
        "global": result.c_index,
        "lower": result.lower,
        "upper": result.upper,
        "ci-low": result.ci_low,
        "ci-high": result.ci_high,
    }
    return {key: float(value) if math.isfinite(value) else None for key, value in figures.items()} | {
        "events": int(result.events) if result.patients else None,
        "few-events": result.few_events,
    }
