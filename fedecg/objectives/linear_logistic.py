"""Federated logistic regression of a table: what sites send for it, and the pooled fit that the sums give.

In:  at a site: features (N, p), labels (N,) bool. Out: `ColumnSums` (twice, for mean and standard deviation) and
     `LogisticSums` (once a Newton step); at the coordinator: a `LogisticFit`. Called by `fedecg.representation`.
     Pure, numpy float64.

The penalised log likelihood is sum over all records of log p(label) - strength / 2 |w|^2; the intercept is free. Its
value, gradient and information are sums over records, so sums of sites are those of the pooled table, and the fit is
the pooled one, whatever record lies where. scikit-learn's `LogisticRegression(C=1 / strength)` has the same optimum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from fedecg.errors import ModelError
from fedecg.objectives.column_sums import column_sums

__all__ = [
    "LogisticFit",
    "LogisticSums",
    "design",
    "fit_logistic",
    "log_loss",
    "logistic_sums",
    "pooled_scaling",
    "pooled_span",
]

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

MOST_STEPS = 50
MOST_HALVINGS = 30
CONVERGED = 1e-9  # norm of the gradient, per record
# Halving stops where a step changes the likelihood by less than rounding does.
ROUNDING = 1e-12
NOTHING = 1e-13  # of the largest eigenvalue of x'x: rounding of directions that no record has


@dataclass(frozen=True, eq=False)
class LogisticSums:
    """What a site sends for one beta; adds up over sites.

    Attributes:
        records: how many.
        value: nats, sum over records of log p(label).
        gradient: (1 + p,), intercept first.
        information: (1 + p, 1 + p), minus the Hessian.
    """

    records: int
    value: float
    gradient: Floats
    information: Floats

    def __add__(self, other: LogisticSums) -> LogisticSums:
        return LogisticSums(
            self.records + other.records,
            self.value + other.value,
            self.gradient + other.gradient,
            self.information + other.information,
        )

    def penalised(self, beta: Floats, strength: float) -> LogisticSums:
        """Less strength / 2 |w|^2 with w = beta[1:]."""
        weights = np.concatenate([[0.0], beta[1:]])
        information = self.information.copy()
        information[np.arange(1, beta.size), np.arange(1, beta.size)] += strength
        return LogisticSums(
            self.records,
            self.value - 0.5 * strength * float(weights @ weights),
            self.gradient - strength * weights,
            information,
        )


@dataclass(frozen=True, eq=False)
class LogisticFit:
    """Optimum of the penalised pooled likelihood.

    Attributes:
        beta: (1 + p,), intercept first, per standardised feature.
        steps: Newton steps, each one exchange with the sites (more where a step was halved).
    """

    beta: Floats
    steps: int


def pooled_scaling(features: list[Floats]) -> tuple[Floats, Floats]:
    """Pooled mean and standard deviation (p,), (p,) from two exchanges of sums; a constant feature keeps its unit.

    Args:
        features: (N_site, p) of each site; only sums of them are used.
    """
    zero = np.zeros(features[0].shape[1])
    first = reduce(add, (column_sums(one, zero) for one in features))
    mean = first.total / max(first.rows, 1)
    second = reduce(add, (column_sums(one, mean) for one in features))
    sd = np.sqrt(second.squares / max(second.rows, 1))
    # Rounding leaves a trace of a deviation in a feature that is constant.
    constant = sd <= 1e-9 * np.maximum(np.abs(mean), 1e-30)
    return mean, np.where(constant, 1.0, sd)


def design(features: Floats, scaling: tuple[Floats, Floats]) -> Floats:
    """(N, 1 + p): a column of ones and the standardised features; stays at the site."""
    mean, sd = scaling
    return np.column_stack([np.ones(len(features)), (features - mean) / sd])


def pooled_span(features: list[Floats], scaling: tuple[Floats, Floats]) -> Floats:
    """Directions (p, r) that the standardised features of all sites fill, from one exchange of sums, x'x of each site.

    A ridge fit lies in them, so fitting r coefficients and rotating them back is the fit of all p; r is at most the
    number of records, which with few labels is far below p.
    """
    designs = [design(one, scaling)[:, 1:] for one in features]
    power, direction = np.linalg.eigh(reduce(add, (x.T @ x for x in designs)))
    span: Floats = direction[:, power > NOTHING * max(power[-1], 0.0)]
    return span


def logistic_sums(z: Floats, label: Booleans, beta: Floats) -> LogisticSums:
    """What a site sends for beta (1 + p,).

    Args:
        z: (N, 1 + p) from `design`.
        label: (N,) bool.
    """
    score = z @ beta
    chance = _chance(score)
    weighted = z * (chance * (1 - chance))[:, None]
    return LogisticSums(len(z), -_nats(score, label), z.T @ (label - chance), weighted.T @ z)


def log_loss(z: Floats, label: Booleans, beta: Floats) -> float:
    """Sum over records of -log p(label), nats; adds up over sites."""
    return _nats(z @ beta, label)


def fit_logistic(sums_at: Callable[[Floats], LogisticSums], start: Floats, strength: float) -> LogisticFit:
    """Newton's method on sums, each step halved until the likelihood rises.

    Args:
        sums_at: beta (1 + p,) -> sums of all sites there.
        start: (1 + p,), zeros, or the fit of a stronger penalty.
        strength: of the penalty, > 0, which makes the optimum unique and finite wherever both labels occur.

    Raises:
        ModelError: FECG-376, the fit does not converge (sums that no records have).

    Source: Newton-Raphson on grouped sums, as for the Cox model of `linear_cox_sums`.
    """
    beta = start
    here = sums_at(beta).penalised(beta, strength)
    for steps in range(1, MOST_STEPS + 1):
        if not np.isfinite(here.value):
            break
        if np.linalg.norm(here.gradient) <= CONVERGED * max(here.records, 1):
            return LogisticFit(beta, steps - 1)
        direction = cho_solve(cho_factor(here.information), here.gradient)
        beta, here, moved = _step(sums_at, beta, here, direction, strength)
        if not moved:
            return LogisticFit(beta, steps)
    raise ModelError(
        "FECG-376",
        "linear probe",
        found=f"no optimum after {MOST_STEPS} Newton steps",
        expected="finite sums of the same records at every step",
        fix="Check that the embeddings are finite: fedecg verify MODEL.",
    )


def _step(
    sums_at: Callable[[Floats], LogisticSums],
    beta: Floats,
    here: LogisticSums,
    direction: Floats,
    strength: float,
) -> tuple[Floats, LogisticSums, bool]:
    """The longest of the steps 1, 1/2, 1/4 ... that does not lower the likelihood; False: rounding decides by now."""
    slack = ROUNDING * (1 + abs(here.value))
    for halving in range(MOST_HALVINGS):
        there = beta + direction / 2**halving
        sums = sums_at(there).penalised(there, strength)
        if sums.value >= here.value - slack:
            return there, sums, True
    return beta, here, False


def _chance(score: Floats) -> Floats:
    """1 / (1 + exp(-score)) without overflow."""
    chance: Floats = np.exp(-np.logaddexp(0.0, -score))
    return chance


def _nats(score: Floats, label: Booleans) -> float:
    return float(np.logaddexp(0.0, np.where(label, -score, score)).sum())
