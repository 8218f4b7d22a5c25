"""Masked sums as messages: a reply as words and back, what a site sends and is asked for, what rules them out.

In:  a site's reply and update; the sum of all sites' words. Out: documents and vectors that `messages` packs; the
     sum, in the very form of one site's reply, so that whoever reads plain replies reads it, too.
Called by both sides. What the masks are: `fedecg.privacy.masking`. How numbers become words, and the error of it:
`fedecg.privacy.fixed_point`.

Numbers are added up; what names or numbers a thing (`SAME`) must be the same from every site and is sent as it is. With
every reply travel the patients and events of the site's parts: totals then speak of those who have answered.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from fedecg.config import Section, StudySettings
from fedecg.errors import FederationError, SettingsError
from fedecg.evaluation import RiskTimeGrid
from fedecg.federation.aggregation import ABSURD, ROBUST, norm, update_norm
from fedecg.federation.documents import ALL, CountsDocument, JoinedPart, PartCounts
from fedecg.federation.masking_terms import KeyEntry
from fedecg.federation.tasks import Task
from fedecg.privacy.fixed_point import (
    counts_of_words,
    sums_of_words,
    words_of_counts,
    words_of_sums,
    words_of_update,
)
from fedecg.privacy.masking import Words

__all__ = [
    "CensusReply",
    "CensusTask",
    "KeysReply",
    "KeysTask",
    "MaskedReply",
    "Total",
    "UnmaskReply",
    "UnmaskTask",
    "as_bytes",
    "as_text",
    "joined_words",
    "parted_vector",
    "parted_words",
    "read_total",
    "refuse_unmaskable",
    "told",
    "update_words",
]

PARTS: tuple[JoinedPart, ...] = ("train", "validation", "test", "align")
# What is said in the open: the study's own names and numbers, and what no masked reply has (empty, or False).
SAME = {"site", "code_fingerprint", "version", "round", "ledger", "alignment", "withheld"}
Reply = TypeVar("Reply", bound=Section)
Sealed = Annotated[str, Field(max_length=1 << 20)]  # base64
Same = dict[str, str | bool | int | None]  # name -> what is not added up
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class KeysTask(Task):
    """Make a key for the masked sums of this run."""


class KeysReply(Section):
    """It, signed."""

    site: str
    entry: KeyEntry


class CensusTask(Task):
    """How many patients and events are there in all? The masked stand-in for what sites tell when they join."""


class CensusReply(Section):
    """Nothing but what travels with every masked reply."""

    site: str


class Row(Section):
    """Numbers of one name: how many, and of which kind; -1: a number by itself."""

    name: str
    kind: Literal["count", "sum"]
    length: Annotated[int, Field(ge=-1, le=2**24)]


class MaskedReply(Section):
    """A reply whose numbers are words under masks (the vector); here is what they are and who can open which mask."""

    site: str
    tag: Hash
    layout: list[Row]
    same: Same
    bundles: dict[str, Sealed]
    commitments: dict[str, Hash]


class UnmaskTask(Task):
    """These sites have answered: open their sum. `bundles`: each one's shares, sealed for the site that is asked."""

    answered: list[str]
    bundles: dict[str, Sealed]


class UnmaskReply(Section):
    """Shares of the own masks of those that answered, and of the masks of their pairs with those that did not."""

    site: str
    tag: Hash
    own: dict[str, Sealed]
    pairs: dict[str, dict[str, Sealed]]


@dataclass(frozen=True, eq=False)
class Total:
    """What all sites that answered say together.

    Attributes:
        reply: as if one site had sent it; its name is `ALL`.
        parts: patients and events of their parts; parts that nobody has are left out.
        update: (P,) words of the sum of their updates; empty where none was asked for.
    """

    reply: Section
    parts: dict[JoinedPart, PartCounts]
    update: NDArray[np.uint32]


def refuse_unmaskable(study: StudySettings) -> None:
    """What needs the numbers of a single site has no place in a study with masked sums.

    Raises:
        SettingsError: FECG-565 with all of them.
    """
    evaluation, federation = study.evaluation, study.federation
    ruled_out = {
        f"federation.algorithm = {federation.algorithm} (compares updates)": federation.algorithm in ROBUST,
        "federation.transfer (masked updates are words of 32 bits)": federation.transfer != "float32",
        "evaluation.explain (tells of groups at one site)": evaluation.explain,
        "evaluation.baselines (one figure a site)": evaluation.baselines,
        "privacy.mode (noise is added at the site)": study.privacy.mode == "sample",
    }
    found = [what for what, ruled in ruled_out.items() if ruled]
    if found:
        raise SettingsError(
            "FECG-565",
            'settings with privacy.sums = "masked"',
            found="; ".join(found),
            expected="sums over all sites alone",
            fix='Set federation.algorithm = "fedavg" (or "fedprox"), federation.transfer = "float32",'
            ' evaluation.explain = false, evaluation.baselines = false; or agree on privacy.sums = "plain".',
        )


def told(reply: Section, parts: Mapping[JoinedPart, PartCounts], grid: RiskTimeGrid | None) -> dict[str, Any]:
    """A reply as a tree of numbers that can be added up.

    Args:
        reply: of a site, checked.
        parts: of its cohort.
        grid: of the concordances in it.
    """
    nobody, counted = PartCounts(patients=0, events=0), {"patients", "events"}
    tree = reply.model_dump()
    if grid is not None:
        _with_pairs_told(tree, grid)
    return {
        "reply": tree,
        "parts": {part: parts.get(part, nobody).model_dump(include=counted) for part in PARTS},
    }


def parted_words(tree: Mapping[str, Any]) -> tuple[list[Row], Same, NDArray[np.uint64]]:
    """Layout, what is the same everywhere, and the words of a tree.

    Raises:
        FederationError: FECG-445 numbers that cannot be masked.
    """
    rows: list[Row] = []
    same: Same = {}
    counts: list[int] = []
    sums: list[float] = []
    for name, value in _leaves("", tree):
        last = name.rsplit("/", 1)[-1]
        if last == "site":
            continue
        if last in SAME and value == []:
            continue
        if value is None or (last in SAME and isinstance(value, str | int)):
            same[name] = value
            continue
        column = value if isinstance(value, list) else [value]
        if not all(type(one) in (int, float) for one in column):
            raise _no_number(name)
        kind: Literal["count", "sum"] = "sum" if any(isinstance(one, float) for one in column) else "count"
        rows.append(Row(name=name, kind=kind, length=len(column) if isinstance(value, list) else -1))
        (sums if kind == "sum" else counts).extend(column)
    words = [
        words_of_counts(np.array(counts, dtype=np.int64)),
        words_of_sums(np.array(sums, dtype=np.float64)),
    ]
    return rows, same, np.concatenate(words)


def read_total(kind: type[Reply], layout: Sequence[Row], same: Same, words: Words, sites: int) -> Total:
    """The sum in the form of one site's reply.

    Args:
        kind: of reply.
        layout, same: as every site sent them.
        words: opened.
        sites: in the sum; losses, the only means, are divided by it.

    Raises:
        FederationError: FECG-567 words that the layout does not describe, or numbers that are no such reply.
    """
    sizes = {kind: sum(abs(row.length) for row in layout if row.kind == kind) for kind in ("count", "sum")}
    if words.sums.size != sizes["count"] + 2 * sizes["sum"]:
        raise _does_not_fit("numbers of another length than their layout")
    counts = counts_of_words(words.sums[: sizes["count"]]).tolist()
    sums = sums_of_words(words.sums[sizes["count"] :]).tolist()
    tree: dict[str, Any] = {"reply": {"site": ALL}, "parts": {}}
    for name, value in same.items():
        _put(tree, name, value)
    places = {"count": 0, "sum": 0}
    for row in layout:
        column, start = (counts if row.kind == "count" else sums), places[row.kind]
        places[row.kind] = start + abs(row.length)
        _put(tree, row.name, column[start] if row.length < 0 else column[start : start + row.length])
    if "loss" in tree["reply"]:
        tree["reply"]["loss"] /= sites
    try:
        parts = {part: PartCounts.model_validate(tree["parts"][part]) for part in PARTS}
        reply = kind.model_validate(tree["reply"])
    except (ValidationError, KeyError):
        raise _does_not_fit("numbers that are no reply to this task") from None
    return Total(reply, {part: one for part, one in parts.items() if one.patients}, words.update)


def update_words(
    study: StudySettings, update: NDArray[np.float32], received: NDArray[np.float32], share: float
) -> NDArray[np.uint32]:
    """A site's part of the sum of all updates; it is judged here, since nobody else can see it.

    Args:
        study: its settings.
        update, received: (P,) weights after and before.
        share: of the site in the average.

    Raises:
        FederationError: FECG-445 not finite, too long, or beyond the bound of a coordinate.
    """
    change = update - received
    words = words_of_update(change, share, study.privacy.masked_bound)
    longest = ABSURD * max(norm(received), 1.0)
    if update_norm(update, received) > longest:
        raise FederationError(
            "FECG-445",
            "update of a site, before it is masked",
            found=f"one longer than {longest:.3g}",
            expected=f"at most {ABSURD:g} times the norm of the weights",
            fix="Lower the learning rate or check this site's signals.",
        )
    return words


def joined_words(words: Words) -> NDArray[np.uint32]:
    """One vector, as it travels: the update, then each word of 64 bits as two of 32."""
    return np.concatenate([words.update, words.sums.astype("<u8").view("<u4")])


def parted_vector(vector: NDArray[Any] | None, layout: Sequence[Row]) -> Words:
    """The reverse of `joined_words`.

    Raises:
        FederationError: FECG-567 no words, or fewer than the layout describes.
    """
    wide = 2 * sum(abs(row.length) * (1 if row.kind == "count" else 2) for row in layout)
    if vector is None or vector.dtype != np.uint32 or len(vector) < wide:
        raise _does_not_fit("no words, or fewer than their layout says")
    update, sums = np.split(vector, [len(vector) - wide])
    return Words(update, sums.astype("<u4").view("<u8"))


def as_text(value: bytes) -> str:
    """Bytes in a document."""
    return base64.b64encode(value).decode()


def as_bytes(text: str) -> bytes:
    """Back.

    Raises:
        FederationError: FECG-569 no base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise FederationError(
            "FECG-569",
            "shares of a masked sum",
            found="text that is no base64",
            expected="what the other side sent",
            fix="Both sides must run the same version of fedecg.",
        ) from None


def _with_pairs_told(tree: dict[str, Any], grid: RiskTimeGrid) -> None:
    """Wherever there are counts of a concordance, in place."""
    for name, value in tree.items():
        if isinstance(value, dict) and "cells" in value and "credit_squares" in value:
            document = CountsDocument.model_validate(value)
            tree[name] = document.with_pairs_told(grid).model_dump()
        elif isinstance(value, dict):
            _with_pairs_told(value, grid)


def _leaves(path: str, tree: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name in sorted(tree):
        value, here = tree[name], f"{path}/{name}" if path else name
        found += _leaves(here, value) if isinstance(value, dict) else [(here, value)]
    return found


def _put(tree: dict[str, Any], name: str, value: object) -> None:
    *path, last = name.split("/")
    for step in path:
        tree = tree.setdefault(step, {})
    tree[last] = value


def _no_number(name: str) -> FederationError:
    return FederationError(
        "FECG-445",
        f"{name} of a masked reply",
        found="something that is no number",
        expected="numbers, which can be added up: anything else would tell of one site",
        fix="Report this: a reply has a field that masked sums do not know.",
    )


def _does_not_fit(found: str) -> FederationError:
    return FederationError(
        "FECG-567",
        "masked replies",
        found=found,
        expected="the same kind of reply from every site",
        fix="All sites must run the same version of fedecg; a site that answers falsely spoils the sum of all.",
    )
