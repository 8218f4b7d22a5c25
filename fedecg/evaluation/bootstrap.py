"""Difference in concordance between two risks of the same patients, by a paired bootstrap.

In:  outcomes, two risks of the same n patients (or one risk against several), a generator; with strata, pairs and
     draws stay within a stratum.
Out: `PairedDifference`: C of a minus C of b, its 95 % percentile interval, and how often its sign is the other one.
Called by the comparison table (federated against pooled, against local).

A replicate draws patients with replacement, which gives patient i a weight w_i. A pair then counts w_i w_j times, and
which pairs are comparable does not depend on the risk, so
    C_a - C_b = sum_ij w_i w_j S_ij / (2 D),  D = sum of w_i w_j over comparable pairs,
where S_ij in -2..2 is what a's order of the pair says minus what b's says (1 concordant, 0 tied, -1 discordant).
Against K models (their mean C), K S_ij is a's order times K minus the sum of theirs. Only events have rows, and all
replicates are one matrix product. Its sums are whole numbers, at most 2 K n; below 2**24 float32 holds them exactly in
any order of adding: the same bits on any number of threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedecg.evaluation.concordance import stratified_concordance
from fedecg.evaluation.inputs import Outcomes, checked_models, checked_outcomes, checked_strata

__all__ = ["PairedDifference", "paired_bootstrap"]

BLOCK = 1 << 23  # numbers in one block of weights or of pairs: 32 MB as float32

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class PairedDifference:
    """C of risk a minus C of risk b on the same patients.

    Attributes:
        difference: of the two exact indices; NaN where nothing is comparable.
        ci_low, ci_high: 2.5 % and 97.5 % quantiles of the replicates' differences; NaN without replicates.
        p_value: two-sided, twice the smaller share of replicates with difference <= 0 or >= 0, at most 1.
        replicates: replicates with comparable pairs, on which the interval rests.
    """

    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    replicates: int


def paired_bootstrap(
    time: ArrayLike,
    event: ArrayLike,
    risk_a: ArrayLike,
    risk_b: ArrayLike,
    generator: np.random.Generator,
    replicates: int = 1000,
    stratum: ArrayLike | None = None,
) -> PairedDifference:
    """Compare two risks of the same patients.

    Args:
        time: (n,) days to the event or the last contact, >= 0.
        event: (n,) 1/True = event seen, 0/False = censored.
        risk_a: (n,) no unit; larger means earlier event.
        risk_b: the same, on any scale; or (models, n): the mean of the models' C stands for C of b.
        generator: source of the draws; the same state gives the same result.
        replicates: number of draws, >= 0.
        stratum: (n,) label of each patient's site for the stratified C; None: all pairs.

    Raises:
        CohortError: FECG-235..238, columns that cannot be used.

    Source: Efron, Tibshirani 1993, An Introduction to the Bootstrap, ch. 13; p: Davison, Hinkley 1997, ch. 4.
    """
    a = checked_outcomes(time, event, risk_a)
    b = checked_models(time, event, risk_b)
    labels = np.zeros(a.time.size) if stratum is None else np.asarray(stratum)
    c_b = np.mean([stratified_concordance(*model, labels).c_index for model in b])
    difference = float(stratified_concordance(*a, labels).c_index - c_b)
    advantage, comparable = np.zeros(replicates), np.zeros(replicates)
    for rows in checked_strata(labels, a.time.size):
        of_stratum = a.rows(rows)
        if of_stratum.event.any():
            risks_b = [model.risk[rows] for model in b]
            _add_replicates(of_stratum, risks_b, generator, advantage, comparable)
    drawn = advantage[comparable > 0] / (2 * len(b) * comparable[comparable > 0])
    if not drawn.size:
        return PairedDifference(difference, math.nan, math.nan, math.nan, 0)
    ci_low, ci_high = np.quantile(drawn, (0.025, 0.975))
    opposite = min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    p_value = float(min(1.0, 2 * (1 + opposite) / (1 + drawn.size)))
    return PairedDifference(difference, float(ci_low), float(ci_high), p_value, drawn.size)


def _add_replicates(
    a: Outcomes,
    risks_b: list[Float64],
    generator: np.random.Generator,
    advantage: Float64,
    comparable: Float64,
) -> None:
    """Draw one stratum's patients for every replicate and add its sums to both arrays."""
    latest_last = np.lexsort((~a.event, a.time))
    ordered = a.rows(latest_last)
    risks_b = [risk[latest_last] for risk in risks_b]
    event_rows = np.flatnonzero(ordered.event)
    first_later = _first_later_exit(ordered)
    patients = ordered.time.size
    at_once = max(1, BLOCK // patients)
    for start in range(0, advantage.size, at_once):
        part = slice(start, min(start + at_once, advantage.size))
        weight = _draw_weights(patients, part.stop - part.start, generator)
        comparable[part] += _comparable_weight(weight, event_rows, first_later)
        for low in range(0, event_rows.size, at_once):
            rows, later = event_rows[low : low + at_once], first_later[low : low + at_once]
            pairs = _order_difference(rows, later, ordered.risk, risks_b)
            per_event = weight @ pairs.T
            advantage[part] += np.einsum("be,be->b", per_event, weight[:, rows], dtype=np.float64)


def _first_later_exit(ordered: Outcomes) -> NDArray[np.intp]:
    """For every event: position from which patients (sorted by time, events first) make a pair with it."""
    _, moment = np.unique(ordered.time, return_inverse=True)
    exit_order = 2 * moment + ~ordered.event
    return np.searchsorted(exit_order, exit_order[ordered.event], side="right")


def _draw_weights(patients: int, replicates: int, generator: np.random.Generator) -> Float32:
    """(replicates, patients): how often each patient is drawn."""
    drawn = generator.integers(patients, size=(replicates, patients))
    drawn += patients * np.arange(replicates)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=replicates * patients)
    return counts.reshape(replicates, patients).astype(np.float32)


def _comparable_weight(
    weight: Float32, event_rows: NDArray[np.intp], first_later: NDArray[np.intp]
) -> Float64:
    """(replicates,): comparable pairs of each replicate, as weight of the event times weight of all later exits."""
    before = np.zeros((weight.shape[0], weight.shape[1] + 1))
    np.cumsum(weight, axis=1, out=before[:, 1:])
    later = before[:, -1:] - before[:, first_later]
    return np.asarray(np.einsum("be,be->b", weight[:, event_rows], later, dtype=np.float64))


def _order_difference(
    event_rows: NDArray[np.intp], first_later: NDArray[np.intp], risk_a: Float64, risks_b: list[Float64]
) -> Float32:
    """(events, patients): K signs of a's risk difference minus the sum of the K models' signs; 0 where not a pair."""
    pairs = np.zeros((event_rows.size, risk_a.size), dtype=np.float32)
    for risk, weight in ((risk_a, len(risks_b)), *((risk_b, -1) for risk_b in risks_b)):
        own = risk[event_rows][:, None]
        pairs += weight * ((own > risk).astype(np.float32) - (own < risk))
    pairs[np.arange(risk_a.size) < first_later[:, None]] = 0
    return pairs
