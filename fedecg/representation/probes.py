"""Linear probes: how well a linear model finds a family of labels in frozen embeddings, by share of the labels.

In:  `SiteEmbeddings` of one model. Out: a `ProbeResult` a family and share. Called by `document`.

The probe is one logistic regression a class, fitted by Newton steps on sums over the sites (so it is the pooled one),
with one ridge penalty a family and share: that of the least log loss on the validation part, which is a sum, too.
Features are standardised by pooled mean and deviation. As in PTB-XL's own benchmark a family's records are those with
at least one label of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort import ALIGN
from fedecg.objectives.linear_logistic import (
    LogisticSums,
    design,
    fit_logistic,
    log_loss,
    logistic_sums,
    pooled_scaling,
    pooled_span,
)
from fedecg.representation.families import Family, classes_of, family_labels
from fedecg.representation.macro import MacroAuc, SiteScores, macro_auc
from fedecg.representation.records import SiteEmbeddings

__all__ = [
    "FEWEST_LABELLED",
    "FRACTIONS",
    "LinearProbe",
    "ProbeResult",
    "SiteWeights",
    "fit_probe",
    "linear_probe",
]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
SiteWeights = Sequence[Float64]  # of each site (1 + B, N): how often each record counts in each replicate

FRACTIONS = (0.01, 0.1, 1.0)
FEWEST_LABELLED = 50  # training records with a label of the family; with fewer a probe tells of luck
STRENGTHS = (
    1e4,
    1e3,
    1e2,
    1e1,
    1.0,
    0.1,
)  # of the penalty, from the strongest: each fit starts at the one before
LOG_ODDS_CUTS = np.linspace(-12.0, 12.0, 481)  # public cuts between bins of a probe's score


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """Probes of one family.

    Attributes:
        beta: (C, 1 + E), intercept first, per standardised feature; NaN for a class that is in no or in every record.
        mean, sd: (E,), (E,) of the pooled training embeddings.
        strength: of the penalty.
    """

    beta: Float64
    mean: Float64
    sd: Float64
    strength: float


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """One family at one share of the labels.

    Attributes:
        family, fraction: which.
        labelled: training records that the probe learned from.
        macro: None where it is not shown.
        strength: of the penalty, None without a probe.
        reason: why it is not shown, or "".
    """

    family: Family
    fraction: float
    labelled: int
    macro: MacroAuc | None
    strength: float | None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class _Table:
    """A site's records of one family: rows of its embeddings, by part."""

    site: SiteEmbeddings
    label: Bool
    train: Bool
    validation: Bool
    test: Bool


def linear_probe(
    sites: Sequence[SiteEmbeddings],
    family: Family,
    fraction: float,
    weights: SiteWeights,
    seed: int = 0,
) -> ProbeResult:
    """Fit and judge one family's probe over the sites.

    Args:
        sites: of one model.
        fraction: share of the training patients whose labels are used, in (0, 1]; larger shares hold the smaller ones.
        weights: of the bootstrap.
        seed: which patients a share holds.

    Raises:
        ModelError: FECG-376, as `fit_logistic`.
    """
    tables = [_table(site, family, fraction, seed) for site in sites]
    labelled = int(sum(table.train.sum() for table in tables))
    tell = partial(ProbeResult, family, fraction, labelled)
    if labelled < FEWEST_LABELLED:
        return tell(None, None, f"{labelled} labelled training records, fewer than {FEWEST_LABELLED}")
    if not any(table.validation.any() for table in tables):
        return tell(None, None, "no labelled validation records to choose the penalty by")
    probe = fit_probe(
        [(table.site.embedding[table.train], table.label[table.train]) for table in tables],
        [(table.site.embedding[table.validation], table.label[table.validation]) for table in tables],
    )
    scores = [
        SiteScores(
            table.label[table.test],
            design(table.site.embedding[table.test], (probe.mean, probe.sd)) @ probe.beta.T,
            weight[:, table.test],
        )
        for table, weight in zip(tables, weights, strict=True)
    ]
    return tell(macro_auc(scores, classes_of(family), LOG_ODDS_CUTS), probe.strength)


def fit_probe(
    train: Sequence[tuple[Float64, Bool]], validation: Sequence[tuple[Float64, Bool]]
) -> LinearProbe:
    """Logistic regressions of all classes over the sites, from sums alone.

    Args:
        train, validation: of each site, embeddings (n, E) and labels (n, C).

    Raises:
        ModelError: FECG-376, as `fit_logistic`.
    """
    embeddings = [embedding for embedding, _ in train]
    mean, sd = pooled_scaling(embeddings)
    span = pooled_span(embeddings, (mean, sd))
    tables = [(_rotated(embedding, mean, sd, span), label) for embedding, label in train]
    held_out = [(_rotated(embedding, mean, sd, span), label) for embedding, label in validation]
    positives = sum(label.sum(axis=0) for _, label in tables)
    records = sum(len(label) for _, label in tables)
    fitted = np.flatnonzero((positives > 0) & (positives < records))
    beta = np.zeros((positives.size, span.shape[1] + 1))
    best, least, best_strength = beta, np.inf, STRENGTHS[0]
    for strength in STRENGTHS:
        beta = beta.copy()
        for at in fitted:
            of_class = partial(_sums, [(z, label[:, at]) for z, label in tables])
            beta[at] = fit_logistic(of_class, beta[at], strength).beta
        loss = sum(log_loss(z, label[:, at], beta[at]) for z, label in held_out for at in fitted)
        if loss < least:
            best, least, best_strength = beta, loss, strength
    unknown = np.setdiff1d(np.arange(positives.size), fitted)
    whole = np.column_stack([best[:, :1], best[:, 1:] @ span.T])
    whole[unknown] = np.nan
    return LinearProbe(whole, mean, sd, best_strength)


def _rotated(embedding: Float64, mean: Float64, sd: Float64, span: Float64) -> Float64:
    z = design(embedding, (mean, sd))
    return np.column_stack([z[:, :1], z[:, 1:] @ span])


def _sums(tables: Sequence[tuple[Float64, Bool]], beta: Float64) -> LogisticSums:
    """What the sites send for beta, added up."""
    return reduce(add, (logistic_sums(z, label, beta) for z, label in tables))


def _table(site: SiteEmbeddings, family: Family, fraction: float, seed: int) -> _Table:
    label = family_labels(site.codes, family)
    labelled = label.any(axis=1)
    train = labelled & np.isin(site.part, ("train", ALIGN)) & _chosen(site, fraction, seed)
    return _Table(
        site, label, train, labelled & (site.part == "validation"), labelled & (site.part == "test")
    )


def _chosen(site: SiteEmbeddings, fraction: float, seed: int) -> Bool:
    """(N,) bool, records of the patients whose labels are used; by seed and the site's name alone."""
    patients, of_record = np.unique(site.patient, return_inverse=True)
    drawn = np.random.default_rng([seed, *site.name.encode()]).random(len(patients))
    return np.asarray(drawn[of_record] < fraction)
