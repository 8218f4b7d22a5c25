"""What a fitted Cox model says: standard errors, hazard ratios, p, baseline, proportional hazards; all from sums.

In:  `CoxFit` at the coordinator; for robust errors also `ResidualSums`: it sends `ScoreCurves` to the sites for them.
Out: `CoxInference`, `Baseline` of each stratum. Called by `fedecg-simulate cox`. Pure, numpy float64.

A score residual is a patient's own share of the gradient. Risk-set curves (sums of 1 / S0 and of S1 / S0^2 by bin) are
all that a site needs for its patients' residuals; it returns the sum of r r'. With a bin for every event time the
curves tell single patients' covariates, as the exact grid does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from fedecg.objectives.hazard import Baseline
from fedecg.objectives.linear_cox import CoxFit
from fedecg.objectives.linear_cox_sums import (
    CoxPatients,
    SiteDesign,
    Stratum,
    event_terms,
    from_right,
    site_design,
)

__all__ = [
    "CoxInference",
    "ProportionalHazards",
    "ResidualSums",
    "ScoreCurves",
    "baselines",
    "cox_inference",
    "gap_to_exact",
    "proportional_hazards",
    "residual_sums",
    "score_curves",
    "site_residuals",
]

Floats = NDArray[np.float64]
NORMAL_975 = 1.959963984540054
VANISHED = 1e-12  # robust over model variance: below, it is rounding


@dataclass(frozen=True, eq=False)
class ScoreCurves:
    """What the coordinator sends back to the sites of a stratum, at the solution.

    Attributes:
        hazard: (bins,) sum of 1 / S0 over the bin's events: the step of the baseline hazard.
        hazard_x: (bins, p) sum of S1 / S0^2 over the bin's events.
        tied_hazard, tied_hazard_x: the same for a patient with an event in the bin, who by Efron has left for some of
            the bin's events; equal to the above with Breslow ties.
        mean_x: (bins, p) mean of S1 / S0 over the bin's events; 0 without events.
    """

    hazard: Floats
    hazard_x: Floats
    tied_hazard: Floats
    tied_hazard_x: Floats
    mean_x: Floats


@dataclass(frozen=True, eq=False)
class ResidualSums:
    """A site's score residuals r (p,); adds up over sites.

    Attributes:
        by_patient: (p, p) sum of r r' over patients.
        by_site: (p, p) R R' with R the site's sum of r, for errors clustered by site.
    """

    by_patient: Floats
    by_site: Floats

    def __add__(self, other: ResidualSums) -> ResidualSums:
        return ResidualSums(self.by_patient + other.by_patient, self.by_site + other.by_site)


@dataclass(frozen=True, eq=False)
class CoxInference:
    """One row a covariate, (p,) each, per unit of the covariate.

    Attributes:
        log_hazard_ratio, se, z, p: Wald test against 0, two-sided; NaN where a robust variance vanishes, which it does
            with hardly any events, or with one site as the only cluster.
        hazard_ratio, ci_low, ci_high: exp of the above, 95 % interval.
        variance: (p, p) of the log hazard ratios, from which se is taken.
    """

    log_hazard_ratio: Floats
    se: Floats
    z: Floats
    p: Floats
    hazard_ratio: Floats
    ci_low: Floats
    ci_high: Floats
    variance: Floats


@dataclass(frozen=True, eq=False)
class ProportionalHazards:
    """Does a log hazard ratio change with time, by default with 1 - Kaplan-Meier just before it?

    Attributes:
        statistic, p: (p,) chi-squared with 1 degree of freedom, one test a covariate.
        global_statistic, global_p: all p covariates at once, p degrees of freedom.
        NaN where all events have one value of time.
    """

    statistic: Floats
    p: Floats
    global_statistic: float
    global_p: float


def score_curves(stratum: Stratum) -> ScoreCurves:
    """Curves of a stratum's risk sets, from its sums at the solution."""
    terms, bins = event_terms(stratum), stratum.events.events.size

    def by_bin(values: Floats) -> Floats:
        sums = np.zeros((bins, *values.shape[1:]))
        np.add.at(sums, terms.bin, values)
        return sums

    step, stays = 1 / terms.hazard, 1 - terms.gone
    events = np.maximum(stratum.events.events, 1)
    return ScoreCurves(
        by_bin(step),
        by_bin(step[:, None] * terms.mean_x),
        by_bin(stays * step),
        by_bin((stays * step)[:, None] * terms.mean_x),
        by_bin(terms.mean_x) / events[:, None],
    )


def residual_sums(design: SiteDesign, beta: Floats, curves: ScoreCurves) -> ResidualSums:
    """What a site sends for robust standard errors.

    Args:
        design: the site's patients.
        beta: (p,) standardised coefficients.
        curves: of the stratum that the site is in.

    Source: Lin, Wei 1989, J Am Stat Assoc 84:1074-8; with Efron ties a tied event is at risk for its share only
        (Therneau, Grambsch 2000, Modeling Survival Data, ch. 4).
    """
    x = design.z[:, 1:]
    exposure, exposure_x = _exposure(design, curves)
    residual = -np.exp(x @ beta)[:, None] * (x * exposure[:, None] - exposure_x)
    residual[design.event] += x[design.event] - curves.mean_x[design.exit_bin[design.event]]
    total = residual.sum(axis=0)
    return ResidualSums(residual.T @ residual, np.outer(total, total))


def _exposure(design: SiteDesign, curves: ScoreCurves) -> tuple[Floats, Floats]:
    """Baseline hazard (N,) that each patient was exposed to, and the same weighted by the risk set's mean x (N, p)."""
    together = np.column_stack([curves.hazard, curves.hazard_x])
    tied = np.column_stack([curves.tied_hazard, curves.tied_hazard_x])
    cumulative = np.concatenate([np.zeros((1, together.shape[1])), np.cumsum(together, axis=0)])
    exposure = cumulative[design.exit_bin + 1] - cumulative[design.first_bin]
    own = design.exit_bin[design.event]
    exposure[design.event] += tied[own] - together[own]
    return exposure[:, 0], exposure[:, 1:]


def site_residuals(fit: CoxFit, sites: Sequence[CoxPatients]) -> ResidualSums:
    """`ResidualSums` of all sites of a fit, in one process; sites in the order in which they were fitted."""
    curves = [score_curves(stratum) for stratum in fit.optimum.strata]
    if fit.settings.baseline == "shared":
        curves *= len(sites)
    designs = (site_design(site, fit.scaling, fit.edges_days) for site in sites)
    sums = (residual_sums(design, fit.optimum.beta, own) for design, own in zip(designs, curves, strict=True))
    return reduce(add, sums)


def cox_inference(
    fit: CoxFit,
    residuals: ResidualSums | None = None,
    cluster: Literal["patient", "site"] = "patient",
) -> CoxInference:
    """Wald tests and intervals.

    Args:
        fit: the fitted model.
        residuals: None: the variance is the inverse of the information; else it is the robust one (sandwich), which
            holds where the model does not.
        cluster: whose residuals are independent; `site` needs many sites.
    """
    inverse = np.linalg.inv(fit.optimum.information)
    variance = inverse
    if residuals is not None:
        meat = residuals.by_patient if cluster == "patient" else residuals.by_site
        variance = inverse @ meat @ inverse
    known = np.diag(variance) > VANISHED * np.diag(inverse)
    se = np.sqrt(np.where(known, np.diag(variance), np.nan)) / fit.scaling.sd
    variance = variance / fit.scaling.sd / fit.scaling.sd[:, None]
    z = fit.coefficients / se
    # A hazard ratio beyond the range of float64 is infinite; its logarithm stands beside it.
    with np.errstate(over="ignore"):
        ratio, low, high = (np.exp(fit.coefficients + margin * se) for margin in (0, -NORMAL_975, NORMAL_975))
    return CoxInference(fit.coefficients, se, z, chdtrc(1, z**2), ratio, low, high, variance)


def proportional_hazards(fit: CoxFit, time: Floats | None = None) -> ProportionalHazards:
    """Scaled Schoenfeld residuals against a transform of time, from sums alone.

    The default is that of R's cox.zph before survival 3.0: 1 - KM(t-), with the Kaplan-Meier curve of all patients just
    before the event, so 0 at the first. (lifelines' "km" is KM(t); survival >= 3.0 keeps the time but replaces these
    residuals by a score test, whose figures differ.) Tied events share their time; lifelines' default, the rank,
    numbers them in the order of the rows, which is no function of the data.

    The sum of the residuals of a bin's events is their sum of x less the sum of the risk sets' means, which the
    coordinator has. The information is taken as spread evenly over the events.

    Args:
        fit: the fitted model.
        time: (bins,) value of time for each bin's events; None: 1 - Kaplan-Meier just before the bin.

    Source: Grambsch, Therneau 1994, Biometrika 81:515-26; figures as in Fox 2002, Cox Proportional-Hazards Regression
        for Survival Data (appendix to An R and S-PLUS Companion to Applied Regression), and, at its time values, as
        lifelines.statistics.proportional_hazard_test (without late entry, which that leaves out of the residuals).
    """
    sent_once = reduce(add, (stratum.events for stratum in fit.optimum.strata))
    events = sent_once.events
    residual = reduce(add, (_schoenfeld(stratum) for stratum in fit.optimum.strata))
    if time is None:
        time = 1 - _kaplan_meier_before(events, sent_once.leaving)
    number = fit.optimum.events
    about = time - float(events @ time) / number
    spread = float(events @ about**2)
    if spread <= 0:
        unknown = np.full(len(fit.names), np.nan)
        return ProportionalHazards(unknown, unknown, np.nan, np.nan)
    inverse = np.linalg.inv(fit.optimum.information)
    slope = about @ residual
    statistic = number * (inverse @ slope) ** 2 / (np.diag(inverse) * spread)
    overall = float(number * slope @ inverse @ slope / spread)
    return ProportionalHazards(
        statistic, chdtrc(1, statistic), overall, float(chdtrc(len(fit.names), overall))
    )


def _schoenfeld(stratum: Stratum) -> Floats:
    """Sum (bins, p) of the Schoenfeld residuals of each bin's events."""
    terms = event_terms(stratum)
    residual = stratum.events.event_x.copy()
    np.subtract.at(residual, terms.bin, terms.mean_x)
    return residual


def _kaplan_meier_before(events: NDArray[np.int64], leaving: NDArray[np.int64]) -> Floats:
    """Kaplan-Meier curve (bins,) of all patients just before the events of each bin."""
    survived = 1 - events / np.maximum(np.cumsum(leaving[::-1])[::-1], 1)
    return np.concatenate([[1.0], np.cumprod(survived)[:-1]])


def baselines(fit: CoxFit) -> list[Baseline]:
    """Breslow's baseline hazard of each stratum, for a patient with the pooled mean of every covariate.

    Source: Breslow 1972, discussion of Cox 1972; also with Efron ties, as in lifelines.
    """
    found = []
    for events, risk in fit.optimum.strata:
        hazard = from_right(risk.leaving[:, 0, 0])
        steps = np.divide(events.events, hazard, out=np.zeros_like(hazard), where=events.events > 0)
        found.append(Baseline(fit.edges_days, np.cumsum(steps)))
    return found


def gap_to_exact(fit: CoxFit, exact: CoxFit) -> float:
    """How far a coarse grid moves the coefficients: the largest |difference| in exact standard errors."""
    return float((np.abs(fit.coefficients - exact.coefficients) / cox_inference(exact).se).max())
