"""Calibration of absolute risks by public horizons, from sums that add up over sites: predicted against observed.

In:  at a site: outcomes, log hazards, predicted event probabilities, weights from the site's own curve of censoring.
     At the coordinator: sites' sums.
Out: `RiskCalibration`: predicted and observed risk by group, observed / predicted cases over all groups.
Called by the site (`risk_calibration_sums`), then by the coordinator; pooled arrays are one site.

An event at t by the horizon counts 1 / G(t-), where G is the Kaplan-Meier curve of censoring at the patient's own
site: it stands for itself and for those who would have had theirs then, had they not been censored. Weighted cases
over patients then estimate the risk; for all patients of one site this *is* 1 - Kaplan-Meier.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedecg.errors import FederationError
from fedecg.evaluation.calibration import checked_values, poisson_ratio, refuse_values
from fedecg.evaluation.censoring import ratio
from fedecg.evaluation.inputs import checked_outcomes
from fedecg.evaluation.intervals import NORMAL_975

__all__ = [
    "RiskCalibration",
    "RiskCalibrationPlan",
    "RiskCalibrationSums",
    "risk_calibration",
    "risk_calibration_sums",
]


Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RiskCalibrationPlan:
    """What all sites agree on before absolute risks are compared; public.

    Attributes:
        horizons_days: (K,) days, > 0.
        risk_cuts: (G - 1,) log hazards between G groups, increasing (deciles: `risk_grid(mean, sd, 10)`).
        min_at_risk: a site with fewer patients followed beyond a horizon is left out there.
    """

    horizons_days: Float64
    risk_cuts: Float64
    min_at_risk: int = 20


@dataclass(frozen=True, eq=False)
class RiskCalibrationSums:
    """What a site tells of its absolute risks; adds up over sites of one plan. All (K, G), horizon by risk group.

    Attributes:
        patients: int64, patients in the group; 0 at a horizon at which the site was left out.
        predicted: sum of predicted probabilities; expected cases.
        cases: sum of the weights of events by the horizon; cases, had nobody been censored.
        case_squares: sum of the squares of these weights.

    Raises:
        FederationError: FECG-538, sums of different plans are added.
    """

    patients: Int64
    predicted: Float64
    cases: Float64
    case_squares: Float64

    def __add__(self, other: RiskCalibrationSums) -> RiskCalibrationSums:
        if self.patients.shape != other.patients.shape:
            raise FederationError(
                "FECG-538",
                "calibration sums",
                found=f"shapes {self.patients.shape} and {other.patients.shape}",
                expected="one shape (horizons, risk groups), that of the study's plan",
            )
        return RiskCalibrationSums(
            self.patients + other.patients,
            self.predicted + other.predicted,
            self.cases + other.cases,
            self.case_squares + other.case_squares,
        )


@dataclass(frozen=True, eq=False)
class RiskCalibration:
    """Predicted against observed risk; NaN in groups without patients.

    Attributes:
        patients: (K, G) int64, patients by horizon and risk group.
        predicted: (K, G) mean predicted probability.
        observed: (K, G) weighted share of cases; may exceed 1 in a small group.
        observed_se: (K, G) its standard error, the weights taken as known (which errs on the wide side).
        ratio, ratio_low, ratio_high: (K,) observed / predicted cases over all groups, 95 % interval on the log scale;
            without cases 0 with the exact Poisson upper limit.
    """

    patients: Int64
    predicted: Float64
    observed: Float64
    observed_se: Float64
    ratio: Float64
    ratio_low: Float64
    ratio_high: Float64


def risk_calibration_sums(
    time: ArrayLike,
    event: ArrayLike,
    risk: ArrayLike,
    probability: ArrayLike,
    case_weight: ArrayLike,
    plan: RiskCalibrationPlan,
) -> RiskCalibrationSums:
    """Sum a site's predicted risks and weighted cases by risk group; no patient at all is a site of zeros.

    Args:
        time: (n,) days to the event or the last contact, >= 0.
        event: (n,) 1/True = event seen, 0/False = censored.
        risk: (n,) log hazard; decides the group.
        probability: (n, K) predicted probability of an event by each horizon, 1 - exp(-H0(horizon) exp(risk)).
        case_weight: (n, K) 1 / G(time-) for an event by the horizon, 0 for everybody else; G is the site's own
            Kaplan-Meier curve of censoring, where events come before censorings at equal times.
        plan: horizons and groups.

    Raises:
        CohortError: FECG-235..238, columns that cannot be used.
        FederationError: FECG-537, probabilities or weights that cannot be used.
    """
    outcomes = checked_outcomes(time, event, risk)
    shape = (outcomes.time.size, plan.horizons_days.size)
    predicted = checked_values("probability", probability, shape, 1.0)
    weight = checked_values("case weight", case_weight, shape, math.inf)
    case = outcomes.event[:, None] & (outcomes.time[:, None] <= plan.horizons_days)
    refuse_values("case weight", (weight == 0) | case, "positive without an event by the horizon", "0 there")
    group = np.searchsorted(plan.risk_cuts, outcomes.risk, side="right")
    groups = np.arange(plan.risk_cuts.size + 1)
    member = (group == groups[:, None]).astype(np.float64)  # (G, n)
    kept = (outcomes.time[:, None] > plan.horizons_days).sum(axis=0) >= plan.min_at_risk

    def by_group(columns: Float64) -> Float64:
        return np.asarray((member @ (columns * kept)).T, dtype=np.float64)

    patients = by_group(np.ones(shape)).astype(np.int64)
    return RiskCalibrationSums(patients, by_group(predicted), by_group(weight), by_group(weight**2))


def risk_calibration(sums: RiskCalibrationSums) -> RiskCalibration:
    """Predicted and observed risk by group, and observed over predicted cases, at each horizon.

    Assumes that censoring does not depend on the risk within a site.

    Source: weighted cases: Gerds, Andersen, Kattan 2014, Stat Med 33:3191-203; for one group without risk they are the
        Kaplan-Meier estimate: Satten, Datta 2001, Am Stat 55:207-10.
    """
    squares = np.maximum(sums.case_squares - ratio(sums.cases**2, sums.patients), 0.0)
    total = [field.sum(axis=1) for field in (sums.patients, sums.predicted, sums.cases, sums.case_squares)]
    intervals = [_weighted_ratio(*map(float, horizon)) for horizon in zip(*total, strict=True)]
    overall, low, high = np.array(intervals).reshape(-1, 3).T
    return RiskCalibration(
        patients=sums.patients,
        predicted=ratio(sums.predicted, sums.patients),
        observed=ratio(sums.cases, sums.patients),
        observed_se=ratio(np.sqrt(squares), sums.patients),
        ratio=overall,
        ratio_low=low,
        ratio_high=high,
    )


def _weighted_ratio(
    patients: float, predicted: float, cases: float, squares: float
) -> tuple[float, float, float]:
    """Weighted cases / predicted cases with a 95 % interval on the log scale."""
    if not (cases > 0 and predicted > 0):
        return poisson_ratio(0.0, predicted)
    margin = math.exp(NORMAL_975 * math.sqrt(max(squares - cases**2 / patients, 0.0)) / cases)
    observed = cases / predicted
    return observed, observed / margin, observed * margin
