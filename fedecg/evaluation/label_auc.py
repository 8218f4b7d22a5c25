"""Area under the ROC curve of a label, from sites' counts, with bounds that hold for certain and a bootstrap.

In:  at a site: labels (n,) bool, scores (n,), how often each record counts in each replicate (B, n).
Out: `LabelAucSums`, which add up over sites; `LabelAuc`: the AUC of all records between its bounds, a replicate each.
Called by `fedecg.representation`.

AUC = sum over (positive i, negative j) of w_i w_j [score_i > score_j, ties half] / sum of w_i w_j. Pairs within a site
are exact; pairs across sites are known by the public bins of the score: pooled bins minus each site's own. A pair in
one bin is open: the lower bound counts it as discordant, the upper one as concordant, the estimate half. With one site
there are no such pairs, and the AUC is exact.

Replicate 0 are the records themselves (all weights 1). The others draw patients with replacement within their site, at
the site, so that counts are all that travels: the interval is that of a bootstrap stratified by site.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import FederationError
from fedecg.evaluation.auc import pairs_by_bin

__all__ = ["LabelAuc", "LabelAucSums", "label_auc", "label_auc_sums", "patient_weights"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class LabelAucSums:
    """A site's counts for R score bins and B replicates; they add up over sites of the same cuts and replicates.

    Attributes:
        cuts: (R - 1,) between score bins, rising, public.
        positive, negative: (B, R) records by score bin.
        own_pairs: (B, 3) the site's own pairs by its bins: positive in the higher, the same, the lower bin.
        credit: (B,) exact, concordant pairs + half of the tied ones within the site.
        pairs: (B,) exact, all pairs within the site.
    """

    cuts: Float64
    positive: Float64
    negative: Float64
    own_pairs: Float64
    credit: Float64
    pairs: Float64

    def __add__(self, other: LabelAucSums) -> LabelAucSums:
        if self.positive.shape != other.positive.shape or not np.array_equal(self.cuts, other.cuts):
            raise FederationError(
                "FECG-377",
                "counts of a label's AUC",
                found="counts of different score bins or replicates",
                expected="the same cuts and replicates at every site",
            )
        return LabelAucSums(
            self.cuts,
            self.positive + other.positive,
            self.negative + other.negative,
            self.own_pairs + other.own_pairs,
            self.credit + other.credit,
            self.pairs + other.pairs,
        )


@dataclass(frozen=True, eq=False)
class LabelAuc:
    """AUC of all records in the sums; NaN where there is no positive or no negative record.

    Attributes:
        auc: (B,) estimate; exact for one site.
        lower, upper: (B,) the AUC lies between them for certain.
        positives, negatives: records, of replicate 0.
    """

    auc: Float64
    lower: Float64
    upper: Float64
    positives: int
    negatives: int


def patient_weights(patient: NDArray[np.int64], replicates: int, generator: np.random.Generator) -> Float64:
    """(1 + replicates, n): how often each record counts; row 0 is ones, the others draw patients with replacement.

    Args:
        patient: (n,) of one site; all records of a patient are drawn together.
    """
    patients, of_record = np.unique(patient, return_inverse=True)
    drawn = generator.integers(max(len(patients), 1), size=(replicates, len(patients)))
    counts = np.zeros((replicates, len(patients)))
    for row, places in zip(counts, drawn, strict=True):
        row += np.bincount(places, minlength=len(patients))
    return np.vstack([np.ones(len(patient)), counts[:, of_record]])


def label_auc_sums(label: Bool, score: Float64, weight: Float64, cuts: Float64) -> LabelAucSums:
    """A site's counts, in O(n log n + B n).

    Args:
        label: (n,) bool. score: (n,), larger means more likely positive. weight: (B, n) >= 0.
        cuts: (R - 1,) public, rising; a score on a cut is in the bin above.
    """
    inside = np.searchsorted(cuts, score, side="right")
    member = np.zeros((len(score), cuts.size + 1))
    member[np.arange(len(score)), inside] = 1.0
    positive, negative = weight[:, label] @ member[label], weight[:, ~label] @ member[~label]
    credit, pairs = _exact(label, score, weight)
    return LabelAucSums(cuts, positive, negative, pairs_by_bin(positive, negative), credit, pairs)


def label_auc(sums: LabelAucSums) -> LabelAuc:
    """AUC of all records in the sums of one site, or added up over sites."""
    across = np.maximum(pairs_by_bin(sums.positive, sums.negative) - sums.own_pairs, 0.0)
    higher, same = across[:, 0], across[:, 1]
    pairs = sums.pairs + across.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        lower, upper = (sums.credit + higher) / pairs, (sums.credit + higher + same) / pairs
    return LabelAuc(
        (lower + upper) / 2, lower, upper, int(sums.positive[0].sum()), int(sums.negative[0].sum())
    )


def _exact(label: Bool, score: Float64, weight: Float64) -> tuple[Float64, Float64]:
    """(B,) credit and (B,) pairs of a site's own records."""
    order = np.argsort(score[~label], kind="stable")
    below = np.zeros((len(weight), 1 + int((~label).sum())))
    np.cumsum(weight[:, ~label][:, order], axis=1, out=below[:, 1:])
    ranked = score[~label][order]
    less, at_most = (np.searchsorted(ranked, score[label], side=side) for side in ("left", "right"))
    of_positives = weight[:, label]
    credit = (of_positives * (below[:, less] + below[:, at_most]) / 2).sum(axis=1)
    return credit, of_positives.sum(axis=1) * below[:, -1]
