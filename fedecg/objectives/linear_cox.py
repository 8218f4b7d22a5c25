"""An exact federated Cox model for tables: log hazard = x beta, by Newton steps from sums over sites.

In:  sites' patients (one process) or their sums. Out: `CoxFit`: coefficients, information, and the sums at the
     solution. Called by `fedecg-simulate cox`; standard errors and tests are in `linear_cox_inference`. Pure, numpy.

With an edge at every event time of the federation (`exact_grid`) the result is that of the pooled rows, and
neighbouring bins differ by single patients: **differencing tells those patients' covariates**. Exact mode is for one
machine or under masked sums; elsewhere take `public_grid`, whose likelihood treats the events of a bin as tied.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from fedecg.errors import ModelError
from fedecg.objectives.column_sums import column_sums
from fedecg.objectives.hazard import event_time_grid
from fedecg.objectives.linear_cox_sums import (
    FAR,
    CoxPatients,
    EventSums,
    Likelihood,
    RiskSums,
    Scaling,
    Stratum,
    event_sums,
    partial_likelihood,
    risk_sums,
    site_design,
)

__all__ = ["CoxFit", "CoxSettings", "Optimum", "exact_grid", "fit_linear_cox", "maximise", "pooled_scaling"]

Floats = NDArray[np.float64]

MAX_STEPS = 60
MAX_HALVINGS = 40
DECREMENT = 1e-20  # squared length of a Newton step in standard errors at which beta stands still
ROUNDING = 1e-12  # relative: a likelihood that falls by less has not fallen, a covariate that varies by less does not
COLLINEAR = 1e-11  # smallest over largest eigenvalue of the information at beta = 0
DIVERGED = 1e-8  # information left in the worst direction, of that at beta = 0; finite optima keep > 1e-4
FARTHEST = 100.0  # standard deviation of the log hazard in a risk set at which no optimum is waited for
STRONGEST = 1e100  # penalty x patients; well above any use, well within the range of float64
SMALLEST = 1e-300  # sum of squares that float64 still holds with all its digits
NAMED = 0.1  # columns with this share of the largest weight in a direction are named


@dataclass(frozen=True)
class CoxSettings:
    """What all sites and the coordinator agree on.

    Attributes:
        ties: how events of one bin share a risk set.
        baseline: `shared`: one baseline hazard, risk sets over all sites; `site`: strata by site.
        penalty: ridge, >= 0; penalty * patients / 2 * |standardised beta|^2 is taken off the log likelihood, as
            lifelines' `penalizer` does (standard deviations with n - 1).
    """

    ties: Literal["efron", "breslow"] = "efron"
    baseline: Literal["shared", "site"] = "shared"
    penalty: float = 0.0


@dataclass(frozen=True, eq=False)
class Optimum:
    """Where the Newton steps end, per standardised covariate.

    Attributes:
        beta: (p,) log hazard ratio per pooled standard deviation.
        strata: sums at beta, one a stratum; with baseline `site` in the order of the sites.
        information: (p, p) minus the Hessian, penalty included.
        log_likelihood, log_likelihood_null: at beta and at 0, without the penalty.
        patients, events: over all sites.
        steps: Newton steps taken.
        rounds: times that the sites were asked for `RiskSums` (a halved step asks again).
    """

    beta: Floats
    strata: tuple[Stratum, ...]
    information: Floats
    log_likelihood: float
    log_likelihood_null: float
    patients: int
    events: int
    steps: int
    rounds: int


@dataclass(frozen=True, eq=False)
class CoxFit:
    """The fitted model, as the coordinator knows it.

    Attributes:
        names: p names of the covariates.
        coefficients: (p,) log hazard ratio per unit of each covariate.
        scaling: pooled mean and standard deviation.
        edges_days: (bins,) left edges of the grid.
        settings: ties, baseline, penalty.
        optimum: the same per standardised covariate, with the sums at the solution.
    """

    names: tuple[str, ...]
    coefficients: Floats
    scaling: Scaling
    edges_days: Floats
    settings: CoxSettings
    optimum: Optimum

    def log_hazard(self, covariates: Floats) -> Floats:
        """Log hazard (N,) of covariates (N, p), relative to a patient with the pooled mean."""
        return (covariates - self.scaling.mean) @ self.coefficients


class _Point(NamedTuple):
    beta: Floats
    strata: tuple[Stratum, ...]
    plain: Likelihood
    penalised: Likelihood


def exact_grid(sites: Sequence[CoxPatients]) -> Floats:
    """Left edges (bins,) in days, one at every event time of the federation; for one machine or masked sums."""
    grids = [event_time_grid(site.event, site.follow_up_days) for site in sites]
    return reduce(np.union1d, grids, np.zeros(1))


def pooled_scaling(sites: Sequence[CoxPatients], names: Sequence[str]) -> Scaling:
    """Pooled mean and standard deviation in two messages: the second is about the mean, so that nothing cancels.

    Args:
        sites: at least one patient in all.
        names: p names of the covariates, for the message.

    Raises:
        ModelError: FECG-332, a covariate that is the same in all patients; FECG-336, one with sums that are not
            finite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        first = reduce(add, (column_sums(site.covariates, np.zeros(len(names))) for site in sites))
        mean = first.total / first.rows
        second = reduce(add, (column_sums(site.covariates, mean) for site in sites))
    _refuse_out_of_range(second.squares, names)
    sd = np.sqrt(second.squares / max(second.rows - 1, 1))
    constant = [name for name, same in zip(names, sd <= ROUNDING * np.abs(mean), strict=True) if same]
    if constant:
        raise ModelError(
            "FECG-332",
            "covariates of the Cox model",
            found=f"{len(constant)} of {len(names)} with one value in all {first.rows} patients: "
            + ", ".join(constant),
            expected="covariates that differ between patients",
            fix="Leave them out.",
        )
    return Scaling(mean, sd)


def _refuse_out_of_range(squares: Floats, names: Sequence[str]) -> None:
    usable = np.isfinite(squares) & ((squares == 0) | (squares > SMALLEST))
    lost = [name for name, fine in zip(names, usable, strict=True) if not fine]
    if lost:
        raise ModelError(
            "FECG-336",
            "covariates of the Cox model",
            found=f"{len(lost)} of {len(names)} whose squares leave the range of numbers: {', '.join(lost)}",
            expected="finite numbers, their sum of squares between 1e-300 and 1e308",
            fix="Multiply these columns by a power of ten.",
        )


def fit_linear_cox(
    sites: Sequence[CoxPatients],
    names: Sequence[str],
    settings: CoxSettings,
    edges_days: Floats | None = None,
) -> CoxFit:
    """Fit the model with all sites in one process; each is asked for its sums alone.

    Args:
        sites: patients of every site; a site may be empty or without events.
        names: p names of the covariates, for the messages of errors.
        settings: ties, baseline, penalty.
        edges_days: (bins,) left edges that all sites share, ascending from 0; None: `exact_grid`.

    Raises:
        ModelError: FECG-331 no event, FECG-332 a constant covariate, FECG-333 collinear covariates, FECG-334 no
            optimum of the coefficients in sight, FECG-335 no convergence, FECG-336 sums that are not finite.
    """
    if not any(site.event.any() for site in sites):
        patients = sum(len(site.event) for site in sites)
        raise ModelError(
            "FECG-331",
            "Cox model",
            found=f"no event in {patients} patients of {len(sites)} sites",
            expected="at least one event in the federation",
            fix="Check which value of the event column means that the event was seen.",
        )
    edges = exact_grid(sites) if edges_days is None else edges_days
    scaling = pooled_scaling(sites, names)
    designs = [site_design(site, scaling, edges) for site in sites]

    def ask(beta: Floats) -> Iterator[RiskSums]:  # one after the other: they are large
        return (risk_sums(design, beta, settings.ties) for design in designs)

    optimum = maximise(ask, [event_sums(design) for design in designs], names, settings)
    return CoxFit(tuple(names), optimum.beta / scaling.sd, scaling, edges, settings, optimum)


def maximise(
    ask: Callable[[Floats], Iterable[RiskSums]],
    sent_once: Sequence[EventSums],
    names: Sequence[str],
    settings: CoxSettings,
) -> Optimum:
    """The coordinator's part: Newton steps with halving, until a step is 1e-10 standard errors long.

    Args:
        ask: standardised beta (p,) -> `RiskSums` of every site, in the order of `sent_once`.
        sent_once: `EventSums` of every site, with at least one event in all.
        names: p names of the covariates, for the messages of errors.
        settings: ties, baseline, penalty.

    Raises:
        ModelError: FECG-333..336, as `fit_linear_cox`.
    """
    patients = sum(site.patients for site in sent_once)
    strength = _ridge(settings.penalty, patients)
    rounds = 0

    def evaluate(beta: Floats) -> _Point:
        nonlocal rounds
        rounds += 1
        strata = _strata(sent_once, ask(beta), settings)
        plain = reduce(add, (partial_likelihood(stratum, beta) for stratum in strata))
        return _Point(beta, strata, plain, plain.penalised(beta, strength))

    start = here = evaluate(np.zeros(len(names)))
    _refuse_unusable(start, sent_once)
    _refuse_collinear(start.penalised.information, names)
    for steps in range(MAX_STEPS):
        direction = _newton_step(here.penalised)
        if here.penalised.gradient @ direction <= DECREMENT:
            return Optimum(
                here.beta,
                here.strata,
                here.penalised.information,
                here.plain.value,
                start.plain.value,
                patients,
                sum(int(site.events.sum()) for site in sent_once),
                steps,
                rounds,
            )
        here = _climb(evaluate, here, direction, _far_out(sent_once, names))
        _refuse_divergence(start, here, sent_once, names)
    far = _far_out(sent_once, names)
    raise _no_convergence(f"a beta that still moves after {MAX_STEPS} Newton steps{far}")


def _ridge(penalty: float, patients: int) -> float:
    strength = penalty * patients
    if strength <= STRONGEST:
        return strength
    raise ModelError(
        "FECG-336",
        "penalty of the Cox model",
        found="a penalty that, times the number of patients, leaves no room for the likelihood",
        expected=f"penalty x patients of at most {STRONGEST:g}",
        fix="At 1e6 already all coefficients are 0.",
    )


def _strata(
    events: Sequence[EventSums], risk: Iterable[RiskSums], settings: CoxSettings
) -> tuple[Stratum, ...]:
    if settings.baseline == "site":
        return tuple(Stratum(*site) for site in zip(events, risk, strict=True))
    return (Stratum(reduce(add, events), reduce(add, risk)),)


def _newton_step(likelihood: Likelihood) -> Floats:
    return np.linalg.solve(likelihood.information, likelihood.gradient).astype(np.float64)


def _climb(evaluate: Callable[[Floats], _Point], here: _Point, direction: Floats, far: str) -> _Point:
    """The Newton step, halved until the likelihood does not fall; it is concave, so that some length will do."""
    least = here.penalised.value - ROUNDING * (1 + abs(here.penalised.value))
    for halvings in range(MAX_HALVINGS):
        there = evaluate(here.beta + 0.5**halvings * direction)
        if there.penalised.is_finite() and there.penalised.value >= least:
            return there
    raise _no_convergence(f"no step that raises the likelihood, after {MAX_HALVINGS} halvings{far}")


def _no_convergence(found: str) -> ModelError:
    return ModelError(
        "FECG-335",
        "Newton steps of the Cox model",
        found=found,
        expected="a step shorter than 1e-10 standard errors",
        fix="Look for wrong units and typing errors in the covariates, or set a penalty.",
    )


def _refuse_unusable(start: _Point, events: Sequence[EventSums]) -> None:
    if start.penalised.is_finite():
        return
    wrong = sum(not np.isfinite(stratum.risk.leaving).all() for stratum in start.strata)
    raise ModelError(
        "FECG-336",
        "sums of the Cox model",
        found=f"{wrong} of {len(start.strata)} strata with risk sums that are not finite"
        if wrong
        else "bins with events and nobody at risk",
        expected=f"finite sums of the same patients as the events, from {len(events)} sites",
        fix="Covariates must be finite at every site, and entry before the event.",
    )


def _refuse_collinear(information: Floats, names: Sequence[str]) -> None:
    values, vectors = eigh(information)
    flat = values <= COLLINEAR * max(values[-1], ROUNDING)
    if flat.any():
        columns = _columns(vectors[:, flat], names)
        raise ModelError(
            "FECG-333",
            "covariates of the Cox model",
            found=f"{int(flat.sum())} of {len(names)} directions without information, over {', '.join(columns)}",
            expected="covariates of which none is a sum of others, and which differ within risk sets",
            fix="Leave one of them out, or set a penalty. With strata by site a column must differ within sites.",
        )


def _refuse_divergence(
    start: _Point, here: _Point, events: Sequence[EventSums], names: Sequence[str]
) -> None:
    """Where the likelihood rises for ever, information falls by a factor e with every step along that direction.

    Where single patients of nearly the same covariates stand in the way, it falls too slowly to wait for: there the
    spread of the log hazards in the risk sets (their variance summed over events is beta' information beta) tells. A
    patient far outside all others spreads them likewise, though an optimum may exist: the message counts such values.
    """
    values, vectors = eigh(here.penalised.information, start.penalised.information)
    spread = here.beta @ start.plain.information @ here.beta / sum(int(site.events.sum()) for site in events)
    if values[0] >= DIVERGED and spread <= FARTHEST**2:
        return
    columns = _columns(vectors[:, :1] if values[0] < DIVERGED else here.beta[:, None], names)
    far = _far_out(events, names, columns)
    fix = "Merge rare categories, leave these columns out, or set a penalty."
    raise ModelError(
        "FECG-334",
        "coefficients of the Cox model",
        found=f"no optimum over {', '.join(columns)}{far}",
        expected="events and patients at risk on both sides of every covariate (no perfect separation)"
        + (" and no values far out" if far else ""),
        fix=f"Look for wrong units and typing errors first. {fix}" if far else fix,
    )


def _far_out(
    events: Sequence[EventSums], names: Sequence[str], columns: Collection[str] | None = None
) -> str:
    """How many values of the columns (None: of all) stand far out, as the end of a sentence; empty for none."""
    counts = dict(zip(names, reduce(add, (site.far_out for site in events)).tolist(), strict=True))
    far = [f"{name} {counts[name]}" for name in columns or names if counts[name]]
    if not far:
        return ""
    return f", with values more than {FAR:g} standard deviations from the mean: {', '.join(far)}"


def _columns(directions: Floats, names: Sequence[str]) -> list[str]:
    """Names of the standardised covariates that take part in any of the directions (p, k)."""
    weight = np.abs(directions) / np.abs(directions).max(axis=0)
    return [name for name, share in zip(names, weight.max(axis=1), strict=True) if share >= NAMED]
