"""What the coordinator asks of a site, and what the site answers: one document a task and one a reply.

In:  the documents that both are made of. Out: strict models of all that is asked of every study; figures, noise, masks
and baselines have theirs beside the code that makes them. `messages` packs them; both sides call it.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from fedecg.config import MOST_REPEATS, Section, Stage
from fedecg.federation.documents import (
    AlignmentFigures,
    Code,
    Count,
    CountsDocument,
    GridDocument,
    HazardDocument,
    JoinedPart,
    LedgerHead,
    Part,
    PartCounts,
    RiskMoments,
    RoundSums,
    Run,
    SignedSum,
)
from fedecg.federation.lock import StudyLock
from fedecg.federation.masking_terms import Masking
from fedecg.federation.spent import Budget, NoisedSums

__all__ = [
    "EvaluateReply",
    "EvaluateTask",
    "Failure",
    "JoinReply",
    "JoinTask",
    "SurveyReply",
    "SurveyTask",
    "Task",
    "TrainReply",
    "TrainTask",
]


class JoinTask(Section):
    """Who is there? Sent once to each node, without weights, with the whole study that the site is asked to join."""

    lock: StudyLock
    run: Run = ""


class JoinReply(Section):
    """A site's name, its counts by part, and the code it runs."""

    site: str
    parts: dict[JoinedPart, PartCounts]
    code_fingerprint: str
    lock_sha256: str
    budget: Budget | None = None  # privacy.mode = "sample": then `parts` is empty


class Task(Section):
    """Common to all tasks that carry weights."""

    lock_sha256: str  # the study that the site joined
    run: Run = ""  # of the study: what an earlier run released about patients stays released
    stage: Stage
    round: Count
    repeat: Annotated[int, Field(ge=0, le=MOST_REPEATS)] = (
        0  # training again, with the seed of `repeated_seed`
    )
    bank_sha256: str  # the code bank that both sides must hold
    space_sha256: str = ""  # what puts reports beside its statements; read by sites with reports
    frequencies_sha256: str = ""  # public counts of codes; read where align.class-weights = "public"
    settings: dict[str, Any]  # those of the lock; the site validates them itself
    accepted: dict[str, str] = {}  # site -> sha256 of its reply to the exchange before: it has arrived
    rejected: dict[str, Code] = {}  # site -> why the coordinator left out the last reply that it had of it
    ledger: dict[
        str, LedgerHead
    ] = {}  # site -> the farthest head of its ledger that the coordinator has seen
    masking: Masking | None = None  # privacy.sums = "masked": the sum that the reply goes into


class SurveyTask(Task):
    """Before survival training: events and hazard sums on the public grid, moments of the log hazard."""


class SurveyReply(Section):
    """Sums over the public grid (`grid-days` wide bins): nothing is trained."""

    site: str
    train_events: list[Count]
    train_exp_sums: list[SignedSum]
    risk: RiskMoments
    ledger: LedgerHead | None = None  # privacy.mode = "sample"


class TrainTask(Task):
    """One local round; survival rounds bring the baseline hazard and the evaluation grid."""

    hazard: HazardDocument | None = None
    grid: GridDocument | None = None
    own_hazards: dict[
        str, HazardDocument
    ] = {}  # site -> from its noised sums (mode "sample", baseline = "site")
    controls: dict[
        str, Count
    ] = {}  # scaffold: site -> round of the control variate that the coordinator counts


class TrainReply(Section):
    """Beside the update (the vector): counts, and sums under the weights that the site received."""

    site: str
    round: Count
    patients: Count
    events: Count
    steps: Count
    loss: float | None
    code_fingerprint: str
    sums: RoundSums | None = None  # survival rounds
    alignment: AlignmentFigures | None = None  # alignment rounds
    noised: NoisedSums | None = (
        None  # privacy.mode = "sample": then counts are 0, and loss, sums, alignment None
    )
    ledger: LedgerHead | None = None  # privacy.mode = "sample"


class EvaluateTask(Task):
    """Score given weights on parts of each site's cohort; nothing is trained."""

    grid: GridDocument
    edges_days: list[float]  # left edges of the baseline hazard's time bins
    parts: list[Part]


class EvaluateReply(Section):
    """Concordance counts by part, and the sums from which the shipped baseline hazard is made (validation)."""

    site: str
    counts: dict[Part, CountsDocument]
    validation_events: list[Count]
    validation_exp_sums: list[SignedSum]
    risk: RiskMoments
    ledger: LedgerHead | None = None  # privacy.mode = "sample"


class Failure(Section):
    """A site could not do its task: the code alone, never the text of an exception."""

    site: str
    failed: Code
