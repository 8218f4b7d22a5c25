"""What an aligned model says without any probe: zero-shot findings by statement, and retrieval both ways.

In:  `SiteEmbeddings` of a model and the bank that it was aligned to. Out: `ZeroShot`, `Retrieval`.
Called by `document`.

Zero-shot: the score of a code is the cosine of the projected ECG to the code's statement. Retrieval from ECG to
statement ranks the bank's statements, the same for all sites, so hits add up and the federated figure is the pooled
one; from statement to ECG it ranks the test ECGs of a site among themselves, and hits add up as well.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from fedecg.representation.families import stated_codes
from fedecg.representation.macro import MacroAuc, SiteScores, macro_auc
from fedecg.representation.records import SiteEmbeddings
from fedecg.text import Bank

__all__ = ["DEPTHS", "Recall", "Retrieval", "ZeroShot", "retrieve", "zero_shot"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

COSINE_CUTS = np.linspace(-1.0, 1.0, 401)[1:-1]  # public cuts between bins of a cosine
DEPTHS = (1, 5, 10)


@dataclass(frozen=True, eq=False)
class ZeroShot:
    """Zero-shot AUC.

    Attributes:
        seen: over the codes that alignment was shown.
        left_out: over the codes that it was not shown; None where there are none.
    """

    seen: MacroAuc
    left_out: MacroAuc | None


@dataclass(frozen=True)
class Recall:
    """Share of the queries whose answer stands among the first `depth`.

    Attributes:
        depth: k.
        recall: share; NaN without queries.
        low, high: 95 % bootstrap interval over patients; NaN where queries are statements.
        guess: share that is found without looking: by the codes that most training records state (ECG to statement),
            by chance (statement to ECG).
    """

    depth: int
    recall: float
    low: float
    high: float
    guess: float


@dataclass(frozen=True)
class Retrieval:
    """Recall both ways.

    Attributes:
        ecgs: test ECGs that state a code of the bank: queries of `to_statement`.
        statements: codes that a test ECG of a site states, summed over sites: queries of `to_ecg`.
        to_statement: one of the ECG's own codes is among the first k statements.
        to_ecg: one of the site's ECGs that state the code is among the first k of its test ECGs.
    """

    ecgs: int
    statements: int
    to_statement: tuple[Recall, ...]
    to_ecg: tuple[Recall, ...]


def zero_shot(
    sites: Sequence[SiteEmbeddings], bank: Bank, weights: Sequence[Float64], left_out: Collection[str] = ()
) -> ZeroShot:
    """AUC of every code of the bank over the test part, federated and pooled.

    Args:
        weights: of the bootstrap, of each site.
        left_out: codes that alignment was not shown (`align.leave-out`).
    """
    seen = [code for code in bank.codes if code not in left_out]
    hidden = [code for code in bank.codes if code in left_out]
    return ZeroShot(
        _macro(sites, bank, weights, seen), _macro(sites, bank, weights, hidden) if hidden else None
    )


def retrieve(sites: Sequence[SiteEmbeddings], bank: Bank, weights: Sequence[Float64]) -> Retrieval:
    """Recall at `DEPTHS`, ECG to statement and statement to ECG."""
    found = [_Found.of(site, bank) for site in sites]
    usual = np.argsort(-np.sum([one.training_uses for one in found], axis=0), kind="stable")
    weight = np.concatenate([weight[:, one.rows] for weight, one in zip(weights, found, strict=True)], axis=1)
    queries = [query for one in found for query in one.queries()]
    return Retrieval(
        ecgs=weight.shape[1],
        statements=len(queries),
        to_statement=tuple(_to_statement(found, weight, usual, depth) for depth in DEPTHS),
        to_ecg=tuple(_to_ecg(queries, depth) for depth in DEPTHS),
    )


@dataclass(frozen=True, eq=False)
class _Found:
    """One site's test ECGs with a code of the bank.

    Attributes:
        rows: their rows of the site.
        stated: (n, K) bool. cosine: (n, K).
        training_uses: (K,) training records that state each code.
    """

    rows: NDArray[np.intp]
    stated: Bool
    cosine: Float64
    training_uses: Float64

    @classmethod
    def of(cls, site: SiteEmbeddings, bank: Bank) -> _Found:
        stated = stated_codes(site.codes, bank.codes)
        rows = np.flatnonzero((site.part == "test") & stated.any(axis=1))
        training = np.isin(site.part, ("validation", "test"), invert=True)
        cosine = _cosine(site.projected[rows], bank.vectors.astype(np.float64))
        return cls(rows, stated[rows], cosine, stated[training].sum(axis=0).astype(np.float64))

    def queries(self) -> list[tuple[float, int, int]]:
        """(best rank of an ECG that states it, ECGs that do, all ECGs) of every code that a test ECG states."""
        places = np.flatnonzero(self.stated.any(axis=0)).tolist()
        ecgs = len(self.rows)
        return [
            (
                _best_rank(self.cosine[:, at], self.stated[:, at]),
                int(self.stated[:, at].sum()),
                ecgs,
            )
            for at in places
        ]


def _macro(
    sites: Sequence[SiteEmbeddings], bank: Bank, weights: Sequence[Float64], codes: Sequence[str]
) -> MacroAuc:
    column: Mapping[str, int] = {code: at for at, code in enumerate(bank.codes)}
    statements = bank.vectors[[column[code] for code in codes]].astype(np.float64)
    scores = []
    for site, weight in zip(sites, weights, strict=True):
        test = site.part == "test"
        label = stated_codes(site.codes, codes)[test]
        scores.append(SiteScores(label, _cosine(site.projected[test], statements), weight[:, test]))
    return macro_auc(scores, codes, COSINE_CUTS)


def _cosine(projected: Float64, statements: Float64) -> Float64:
    """(n, K); rounded, so that ECGs on one point are tied and rounding errors do not rank them."""
    return np.round(projected @ statements.T, 9)


def _best_rank(score: Float64, right: Bool) -> float:
    """Rank, from 1, of the highest right answer; with ties the middle of the places that it may have."""
    best = score[right].max()
    return float(1 + (score > best).sum() + (score[~right] == best).sum() / 2)


def _to_statement(found: Sequence[_Found], weight: Float64, usual: NDArray[np.intp], depth: int) -> Recall:
    ranks = [
        _best_rank(row, stated) for one in found for row, stated in zip(one.cosine, one.stated, strict=True)
    ]
    hit = (np.array(ranks) <= depth).astype(np.float64)
    guessed = np.concatenate([one.stated[:, usual[:depth]].any(axis=1) for one in found])
    if not hit.size:
        return Recall(depth, *(float("nan"),) * 4)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = (weight @ hit) / weight.sum(axis=1)
    drawn = shares[1:][np.isfinite(shares[1:])]
    low, high = np.quantile(drawn, (0.025, 0.975)) if drawn.size else (np.nan, np.nan)
    return Recall(depth, float(shares[0]), float(low), float(high), float(guessed.mean()))


def _to_ecg(queries: Sequence[tuple[float, int, int]], depth: int) -> Recall:
    if not queries:
        return Recall(depth, *(float("nan"),) * 4)
    recall = np.mean([rank <= depth for rank, _, _ in queries])
    guess = np.mean(
        [
            1 - comb(ecgs - right, depth) / comb(ecgs, depth) if ecgs >= depth else 1.0
            for _, right, ecgs in queries
        ]
    )
    return Recall(depth, float(recall), float("nan"), float("nan"), float(guess))
