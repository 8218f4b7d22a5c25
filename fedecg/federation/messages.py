"""What travels between coordinator and sites: one JSON document and, where there are weights, one flat vector.

In:  a document (strict pydantic model: `documents`, `tasks`) and a vector. Out: a Flower `RecordDict`, and back.
This is the only file that knows record keys. Both sides call it; nothing else is ever sent, and nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from fedecg.config import Section
from fedecg.errors import FederationError
from fedecg.federation.documents import LedgerHead
from fedecg.federation.tasks import Failure

__all__ = [
    "PIECE_BYTES",
    "document_of",
    "from_record",
    "let_go",
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
PIECE_BYTES = (
    1 << 19
)  # of one array: gRPC gives up a line on which nothing else has passed for 60 s (docs/flower.md)
# Weights; changes (`transfer`); masked words (`masked`).
KINDS = (np.dtype(np.float32), np.dtype(np.float16), np.dtype(np.uint16), np.dtype(np.uint32))
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


def let_go(content: RecordDict) -> None:
    """Free the arrays of a message that is done with: Flower's records refer to themselves, so that they would stay
    until Python's collector comes by, a model each."""
    for record in content.array_records.values():
        record.clear()


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
