"""What travels between coordinator and sites: one JSON document and, where there are weights, one flat vector.

In:  a document (strict pydantic model) and a float32 vector. Out: a Flower `RecordDict`, and back.
This is the only file that knows record keys. Both sides call it; nothing else is ever sent, and nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError, model_validator

from fedecg.config import MOST_REPEATS, Section, Stage
from fedecg.errors import FederationError
from fedecg.evaluation import Concordance, PairSquares, RiskTimeGrid, SiteCounts
from fedecg.evaluation.cells import CellPairs, Runs
from fedecg.federation.lock import StudyLock
from fedecg.federation.masking_terms import Masking
from fedecg.federation.spent import Budget, NoisedSums
from fedecg.privacy.ledger import Head

__all__ = [
    "ALL",
    "AlignmentFigures",
    "CountsDocument",
    "EvaluateReply",
    "EvaluateTask",
    "Failure",
    "GridDocument",
    "HazardDocument",
    "JoinReply",
    "JoinTask",
    "JoinedPart",
    "LedgerHead",
    "PartCounts",
    "RiskMoments",
    "RoundSums",
    "SurveyReply",
    "SurveyTask",
    "TrainReply",
    "TrainTask",
    "document_of",
    "from_record",
    "pack",
    "read_reply",
    "reply_sha256",
    "size_bytes",
    "to_record",
    "told_head",
    "unpack",
]

WEIGHTS = "weights"
VECTOR = "flat"
DOCUMENT = "document"
JSON = "json"

# Bounds far beyond any study, so that no sum over sites can overflow.
Count = Annotated[int, Field(ge=0, le=2**40)]
Code = Annotated[str, Field(pattern=r"^FECG-[0-9]{3}$")]
Run = Annotated[str, Field(pattern=r"^[0-9a-f]{0,32}$")]  # a random name of one
Sum = Annotated[float, Field(ge=0, le=1e100)]
SignedSum = Annotated[float, Field(ge=-1e100, le=1e100)]
Part = Literal["train", "validation", "test"]
JoinedPart = Literal[Part, "align"]  # align: ECGs without a known outcome, which nothing evaluates
FARTHEST_RISK = 50.0
ALL = "all sites"  # whose name masked sums bear; no site has it
PIECE_BYTES = (
    1 << 19
)  # of one array: gRPC gives up a line on which nothing else has passed for 60 s (docs/flower.md)
# Weights; changes (`transfer`); masked words (`masked`).
KINDS = (np.dtype(np.float32), np.dtype(np.float16), np.dtype(np.uint16), np.dtype(np.uint32))


class HazardDocument(Section):
    """Baseline cumulative hazard: left edges of the time bins, `edges_days` (B,), and `cumulative` (B,)."""

    edges_days: list[float]
    cumulative: list[Sum]


class GridDocument(Section):
    """Cuts of the joint (time, risk, event) histogram: inner cuts only, both ends open."""

    time_cuts_days: list[float]
    risk_cuts: list[float]


class CountsDocument(Section):
    """What one site knows of its concordance: cells (T, R, 2) flattened, its exact pair counts and their squares."""

    cells: list[Count]
    concordant: Count
    discordant: Count
    tied_risk: Count
    credit_squares: Sum
    mixed_squares: Sum
    comparable_squares: Sum
    # Pairs within sites as their own cells tell them (`CellPairs`): in sums of several sites only.
    within: Annotated[list[Count], Field(min_length=7, max_length=7)] | None = None
    # Places of the grid's cuts that the site has kept, where it has merged cells that were too small; None: all. The
    # patients of merged bins then stand in the first of them.
    time_kept: list[Count] | None = None
    risk_kept: list[Count] | None = None
    withheld: bool = False  # not evaluated: too small; the noughts say nothing

    @staticmethod
    def of(counts: SiteCounts) -> CountsDocument:
        """From the evaluation room's type."""
        pairs = counts.pairs
        kept = (None, None) if counts.runs is None else [places.tolist() for places in counts.runs.kept]
        return CountsDocument(
            time_kept=kept[0],
            risk_kept=kept[1],
            cells=[int(cell) for cell in counts.cells.ravel()],
            concordant=pairs.concordant,
            discordant=pairs.discordant,
            tied_risk=pairs.tied_risk,
            credit_squares=counts.squares.credit,
            mixed_squares=counts.squares.mixed,
            comparable_squares=counts.squares.comparable,
        )

    def counts(self, grid: RiskTimeGrid) -> SiteCounts:
        """Back to the evaluation room's type.

        Raises:
            FederationError: FECG-503 if the number of cells is not that of the grid.
        """
        expected = math.prod(grid.shape)
        if len(self.cells) != expected:
            raise FederationError(
                "FECG-503",
                "cells of a reply",
                found=f"{len(self.cells)} numbers",
                expected=f"{expected} numbers",
            )
        pairs = Concordance.from_counts(self.concordant, self.discordant, self.tied_risk)
        squares = PairSquares(self.credit_squares, self.mixed_squares, self.comparable_squares)
        cells = np.array(self.cells, dtype=np.int64).reshape(grid.shape)
        within = None if self.within is None else CellPairs(*self.within)
        return SiteCounts(cells, pairs, squares, within, self._runs(cells))

    def _runs(self, cells: NDArray[np.int64]) -> Runs | None:
        """Bins that the site has merged; FECG-503 unless they are runs of the grid's with everybody in their first."""
        if self.time_kept is None and self.risk_kept is None:
            return None
        cuts = [bins - 1 for bins in cells.shape[:2]]
        kept = [
            list(range(most)) if places is None else places
            for places, most in zip((self.time_kept, self.risk_kept), cuts, strict=True)
        ]
        rising = all(
            places == sorted({place for place in places if place < most})
            for places, most in zip(kept, cuts, strict=True)
        )
        runs = Runs.between(np.array(kept[0]), np.array(kept[1]), cells.shape) if rising else None
        if runs is None or not runs.holds(cells):
            raise FederationError(
                "FECG-503",
                "cells of a reply",
                found="merged bins that are none of the grid's, or patients in the midst of them",
                expected="rising places of the grid's cuts, patients in the first bin of each run",
            )
        return runs

    def with_pairs_told(self, grid: RiskTimeGrid) -> CountsDocument:
        """The same, ready to be added to those of other sites without losing which pairs are within sites."""
        return self.model_copy(update={"within": list(self.counts(grid).told)})


class JoinTask(Section):
    """Who is there? Sent once to each node, without weights, with the whole study that the site is asked to join."""

    lock: StudyLock
    run: Run = ""


class PartCounts(Section):
    """Patients and events of one part of a site's cohort."""

    patients: Count
    events: Count
    withheld: bool = False  # fewer than the site's thresholds; the noughts say nothing

    @model_validator(mode="after")
    def _events_are_of_patients(self) -> PartCounts:
        if self.events > self.patients:
            raise ValueError("expected at most one event a patient")
        return self


class JoinReply(Section):
    """A site's name, its counts by part, and the code it runs."""

    site: str
    parts: dict[JoinedPart, PartCounts]
    code_fingerprint: str
    lock_sha256: str
    budget: Budget | None = None  # privacy.mode = "sample": then `parts` is empty


class RiskMoments(Section):
    """Sums of the log hazard over validation patients: the evaluation grid is centred on their mean.

    Log hazards count as at most +-50 here, so that a single one gone astray does not move the grid.
    """

    patients: Count
    sum: SignedSum
    square_sum: Sum

    @model_validator(mode="after")
    def _of_some_patients(self) -> RiskMoments:
        most = self.patients * FARTHEST_RISK**2 * (1 + 1e-9)
        if not self.sum**2 <= self.patients * self.square_sum * (1 + 1e-9) <= self.patients * most:
            raise ValueError("expected the moments of as many log hazards within +-50")
        return self

    @staticmethod
    def of(log_hazard: NDArray[np.float64]) -> RiskMoments:
        """From (n,) log hazards."""
        bounded = np.clip(log_hazard, -FARTHEST_RISK, FARTHEST_RISK)
        total, squares = float(bounded.sum()), float(np.square(bounded).sum())
        return RiskMoments(patients=len(log_hazard), sum=total, square_sum=squares)


class LedgerHead(Section):
    """How far a site's ledger went when it answered: what the coordinator returns, so that an older one is noticed."""

    sequence: Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @staticmethod
    def of(head: Head) -> LedgerHead:
        """From the privacy room's type."""
        return LedgerHead(sequence=head.sequence, sha256=head.sha256)

    def head(self) -> Head:
        """Back to the privacy room's type."""
        return Head(self.sequence, self.sha256)


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


class RoundSums(Section):
    """Sums under the weights that a site received: hazard sums by exit bin, validation counts and moments.

    A hazard sum is negative where more enter late than leave; summed from a bin to the last they never are.
    """

    train_exp_sums: list[SignedSum]
    validation: CountsDocument
    risk: RiskMoments
    train_events: list[Count] | None = None  # by exit bin, of those who answered (masked sums)


class AlignmentFigures(Section):
    """What a site says of its alignment round, unless that must stay at home (`PrivacySettings.tells_of_alignment`).

    How many records of what alignment learns from state something, and, in rounds in which it is looked at, on how many
    records which effective ranks were found, of embeddings and of targets (`fedecg.training.collapse`).
    """

    stated: Count
    records: Count = 0
    rank: Annotated[float, Field(ge=0, le=2**40)] | None = None
    target_rank: Annotated[float, Field(ge=0, le=2**40)] | None = None

    @model_validator(mode="after")
    def _ranks_of_some_records(self) -> AlignmentFigures:
        if not (self.rank is None) == (self.target_rank is None) == (self.records == 0):
            raise ValueError("expected both ranks with the records that they are of, or none of the three")
        return self


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


Document = TypeVar("Document", bound=Section)


def pack(document: Section, weights: NDArray[Any] | None = None) -> RecordDict:
    """Put a document and a flat vector into a Flower record."""
    content = RecordDict()
    content[DOCUMENT] = ConfigRecord({JSON: document.model_dump_json(by_alias=True)})
    if weights is not None:
        content[WEIGHTS] = to_record(weights)
    return content


def read_reply(message: Message, kind: type[Document]) -> tuple[Document, NDArray[Any] | None]:
    """Read a site's reply.

    Raises:
        FederationError: FECG-508 if Flower reports that none could be had; else as `unpack`.
    """
    if message.has_error():
        raise FederationError(
            "FECG-508",
            "reply of a site",
            found=f"Flower error {message.error.code}",
            expected="a reply",
            fix="Its process ended or its connection broke; see that site's log.",
        )
    return unpack(message.content, kind)


def to_record(weights: NDArray[Any]) -> ArrayRecord:
    """A flat vector of one of KINDS as Flower carries it: one array, or as many of PIECE_BYTES as it takes.

    An array costs two objects, each of them a call and a transaction a hop, so that a small vector stays whole. A large
    one is split for slow lines: an object must pass within 60 s (gRPC; the SuperLink itself waits 180 s for each).
    """
    vector = np.ascontiguousarray(weights, dtype=weights.dtype.newbyteorder("<"))
    length = PIECE_BYTES // vector.itemsize
    names = _piece_names(math.ceil(len(vector) / length))
    starts = range(0, max(len(vector), 1), length)
    return ArrayRecord(
        {name: Array(vector[start : start + length]) for name, start in zip(names, starts, strict=True)}
    )


def from_record(record: ArrayRecord) -> NDArray[Any]:
    """The flat vector of a record.

    Raises:
        FederationError: FECG-501 for anything but one vector of KINDS, split as `to_record` splits it.
    """
    names = _piece_names(len(record))
    if set(names) != set(record):
        raise _no_vector("arrays of other names")
    first = _piece(record, names[0])
    length = PIECE_BYTES // first.itemsize
    if len(names) == 1 and len(first) <= length:
        return first
    if any(len(record[name].data) < PIECE_BYTES for name in names[:-1]):  # before their sum is allocated
        raise _no_vector("pieces of other lengths or kinds")
    last = _piece(record, names[-1])
    whole = np.empty(length * (len(names) - 1) + len(last), first.dtype)
    for number, name in enumerate(names):
        piece = _piece(record, name)
        is_last = number == len(names) - 1
        if piece.dtype != first.dtype or not (0 < len(piece) <= length if is_last else len(piece) == length):
            raise _no_vector("pieces of other lengths or kinds")
        whole[number * length : number * length + len(piece)] = piece
    return whole


def _piece_names(pieces: int) -> list[str]:
    return [VECTOR] if pieces <= 1 else [f"{VECTOR}-{number}" for number in range(pieces)]


def _piece(record: ArrayRecord, name: str) -> NDArray[Any]:
    try:
        values = record[name].numpy()
    except Exception:  # whatever Flower makes of bytes that are no array
        raise _no_vector("another array") from None
    if values.dtype not in KINDS or values.ndim != 1:
        raise _no_vector("another array")
    return values


def _no_vector(found: str) -> FederationError:
    return FederationError(
        "FECG-501",
        "weights of a message",
        found=found,
        expected=f"one vector of float32, or a change in 16 bits, in pieces of {PIECE_BYTES} bytes",
    )


def size_bytes(content: RecordDict) -> int:
    """Payload of a message: the vector and the document, without Flower's own framing."""
    arrays = sum(len(array.data) for record in content.array_records.values() for array in record.values())
    return arrays + len(_json_of(content).encode())


def reply_sha256(content: RecordDict) -> str:
    """Hash of a reply as it travels, so that both sides can name one: its document and its arrays' bytes.

    Raises:
        FederationError: FECG-501 where there is no document.
    """
    digest = hashlib.sha256()
    parts = [_json_of(content).encode()]
    for name, record in sorted(content.array_records.items()):
        for key, array in sorted(record.items()):
            parts += [name.encode(), key.encode(), array.data]
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))  # keeps the parts apart
        digest.update(part)
    return digest.hexdigest()


def unpack(content: RecordDict, kind: type[Document]) -> tuple[Document, NDArray[Any] | None]:
    """Read a record that came over the wire.

    Raises:
        FederationError: FECG-501 for anything but the expected document; the other side's own code if it reports
            a failure.
    """
    text = _json_of(content)
    try:
        document = kind.model_validate_json(text)
    except ValidationError as error:
        raise _not_the_document(text, kind, error) from None
    return document, _vector_of(content)


def told_head(content: RecordDict) -> LedgerHead | None:
    """The head of a site's ledger that its reply carries; None where there is none."""
    try:
        return _WithHead.model_validate_json(_json_of(content)).ledger
    except (ValidationError, FederationError):
        return None


class _WithHead(BaseModel):
    """Of any reply, that field alone."""

    ledger: LedgerHead | None = None


def document_of(content: RecordDict) -> dict[str, Any]:
    """A message's document as it travels, key by key.

    Raises:
        FederationError: FECG-501 where there is none.
    """
    document: dict[str, Any] = json.loads(_json_of(content))
    return document


def _json_of(content: RecordDict) -> str:
    record = content.config_records.get(DOCUMENT)
    text = record.get(JSON) if record is not None else None
    if not isinstance(text, str):
        raise FederationError("FECG-501", "message", found="no JSON document", expected="a fedecg document")
    return text


def _vector_of(content: RecordDict) -> NDArray[Any] | None:
    record = content.array_records.get(WEIGHTS)
    return None if record is None else from_record(record)


def _not_the_document(text: str, kind: type[Section], error: ValidationError) -> FederationError:
    try:
        failure = Failure.model_validate_json(text)
    except ValidationError:
        where = ", ".join(
            sorted({".".join(map(str, problem["loc"])) or "document" for problem in error.errors()})
        )
        return FederationError(
            "FECG-501", f"{kind.__name__} message", found=f"problems in: {where}", expected="its schema"
        )
    return FederationError(
        failure.failed,
        "task of a site",
        found="a failure with this code",
        expected="a reply",
        fix="See that site's log.",
    )
