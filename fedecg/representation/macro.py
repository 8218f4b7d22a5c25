"""Macro AUC over classes: federated from counts, with bounds, and pooled; classes with too few records stand apart.

In:  labels and scores (n, C) of each site's test records, bootstrap weights of each site.
Out: a `MacroAuc`. Called by `probes` and `zero_shot`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from fedecg.evaluation.label_auc import LabelAuc, label_auc, label_auc_sums

__all__ = ["FEWEST_POSITIVES", "ClassAuc", "MacroAuc", "SiteScores", "macro_auc", "merged_scores"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

FEWEST_POSITIVES = 10  # of a class in the test part, and as many negatives; with fewer it stands apart


@dataclass(frozen=True, eq=False)
class SiteScores:
    """A site's test records.

    Attributes:
        label: (n, C) bool.
        score: (n, C) float64, larger means more likely positive.
        weight: (1 + B, n) from `patient_weights`.
    """

    label: Bool
    score: Float64
    weight: Float64


@dataclass(frozen=True)
class ClassAuc:
    """One class.

    Attributes:
        name: of the class.
        positives: test records that have it, of all sites.
        auc: exact, of the pooled test records; None where it cannot be computed.
        lower, upper: what sites' counts guarantee.
    """

    name: str
    positives: int
    auc: float | None
    lower: float | None
    upper: float | None


@dataclass(frozen=True, eq=False)
class MacroAuc:
    """Mean AUC over the classes that are shown; NaN where there is none.

    Attributes:
        records: test records.
        shown: classes with at least `FEWEST_POSITIVES` positives and negatives.
        apart: the others.
        federated, lower, upper: estimate from counts, and what they guarantee.
        federated_low, federated_high: 95 % interval around the bounds.
        pooled: exact.
        pooled_low, pooled_high: its 95 % interval.
        replicates: (1 + B,) pooled; row 0 is `pooled`. Two models on the same records share their draws.
    """

    records: int
    shown: tuple[ClassAuc, ...]
    apart: tuple[ClassAuc, ...]
    federated: float
    lower: float
    upper: float
    federated_low: float
    federated_high: float
    pooled: float
    pooled_low: float
    pooled_high: float
    replicates: Float64 = field(repr=False)


def merged_scores(sites: Sequence[SiteScores]) -> SiteScores:
    """All sites' records as one site's; each site's patients are still drawn within their site."""
    return SiteScores(
        np.concatenate([site.label for site in sites]),
        np.concatenate([site.score for site in sites]),
        np.concatenate([site.weight for site in sites], axis=1),
    )


def macro_auc(sites: Sequence[SiteScores], names: Sequence[str], cuts: Float64) -> MacroAuc:
    """Federated and pooled macro AUC.

    Args:
        sites: scores of one model, the same number of classes and replicates everywhere.
        names: (C,) of the classes; one whose score is NaN was not fitted and stands apart.
        cuts: public cuts between score bins.
    """
    whole = merged_scores(sites)
    shown, apart, federated, pooled = [], [], [], []
    for at, name in enumerate(names):
        positives = int(whole.label[:, at].sum())
        if not positives or not np.isfinite(whole.score[:, at]).all():
            apart.append(ClassAuc(name, positives, None, None, None))
            continue
        of_class = reduce(
            add, (label_auc_sums(one.label[:, at], one.score[:, at], one.weight, cuts) for one in sites)
        )
        counted = label_auc(of_class)
        exact = label_auc(label_auc_sums(whole.label[:, at], whole.score[:, at], whole.weight, cuts))
        described = _described(name, positives, counted, exact)
        if min(positives, counted.negatives) < FEWEST_POSITIVES:
            apart.append(described)
        else:
            shown.append(described)
            federated.append(counted)
            pooled.append(exact.auc)
    return _macro(len(whole.label), tuple(shown), tuple(apart), federated, pooled, whole.weight.shape[0])


def _described(name: str, positives: int, counted: LabelAuc, exact: LabelAuc) -> ClassAuc:
    values = (exact.auc[0], counted.lower[0], counted.upper[0])
    auc, lower, upper = (None if np.isnan(value) else float(value) for value in values)
    return ClassAuc(name, positives, auc, lower, upper)


def _macro(
    records: int,
    shown: tuple[ClassAuc, ...],
    apart: tuple[ClassAuc, ...],
    federated: Sequence[LabelAuc],
    pooled: Sequence[Float64],
    replicates: int,
) -> MacroAuc:
    auc, lower, upper = (
        _mean([getattr(one, name) for one in federated], replicates) for name in ("auc", "lower", "upper")
    )
    exact = _mean(pooled, replicates)
    return MacroAuc(
        records,
        shown,
        apart,
        float(auc[0]),
        float(lower[0]),
        float(upper[0]),
        _quantile(lower, 0.025),
        _quantile(upper, 0.975),
        float(exact[0]),
        _quantile(exact, 0.025),
        _quantile(exact, 0.975),
        exact,
    )


def _mean(classes: Sequence[Float64], replicates: int) -> Float64:
    """Mean over the classes in every replicate; NaN where there is no class."""
    mean: Float64 = np.mean(classes, axis=0) if classes else np.full(replicates, np.nan)
    return mean


def _quantile(replicates: Float64, level: float) -> float:
    """Of the finite replicates without the first, which are the records themselves; NaN where there are none.

    A replicate that drew no positive of a class has no macro AUC.
    """
    drawn = replicates[1:][np.isfinite(replicates[1:])]
    return float(np.quantile(drawn, level)) if drawn.size else float("nan")
