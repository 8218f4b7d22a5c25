"""Calibration of log hazards, from sums that add up over sites: observed / expected events, slope, intercept.

In:  at a site: outcomes, log hazards and the model's baseline cumulative hazard at each patient's own follow-up.
     At the coordinator: sites' sums.
Out: `HazardCalibration`. Called by the site (`hazard_calibration_sums`), then by the coordinator; pooled arrays are
     one site. `risk_calibration` is its sister for absolute risks at horizons.

With H_i the model's baseline cumulative hazard at the follow-up of patient i, the number of events d_i can be treated
as Poisson with mean H_i exp(risk_i) if the model is right, whatever the censoring. Recalibrated, the mean is
H_i exp(a + b risk_i). Its score equations leave one equation for b: with M0(b) = sum H_i exp(b x_i), x_i = risk_i -
centre, and D events,
    d/db log M0(b) = mean of x over the events,      a = log(D / M0(b)) - b centre.
log M0 is convex. Sites send M0, M0' and M0'' at fixed slopes; these bracket b, and the polynomial that meets log M0
and its first two derivatives at four nodes around it gives b. That is the slope of the patients' own data: to 1e-6
for normal risks of sd up to 1.5 (1e-9 seen). Extreme risks (Student's t with 4 degrees) with a far slope cost digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import gammaincinv

from fedecg.errors import FederationError
from fedecg.evaluation.inputs import checked_outcomes
from fedecg.evaluation.intervals import NORMAL_975

__all__ = [
    "FARTHEST",
    "SLOPE_NODES",
    "HazardCalibration",
    "HazardCalibrationSums",
    "checked_values",
    "hazard_calibration",
    "hazard_calibration_sums",
    "poisson_ratio",
    "refuse_values",
]

Float64 = NDArray[np.float64]

# Slopes -0.5 .. 3, exact in binary; public, the same at every site.
SLOPE_NODES: Float64 = np.arange(-4, 25) / 8
SLOPE_NODES.setflags(write=False)
UNIT_SLOPE = 12  # SLOPE_NODES[12] is 1: M0 there is what the model itself expects
STENCIL = 4  # nodes that the slope is interpolated from
FARTHEST = (
    60.0  # exp(3 x 60) is far from overflow, squares and sums included, and from what a message may hold
)
LEAST_SPREAD = 1e-10  # of the squared log hazard; below, the spread of the log hazards is rounding


@dataclass(frozen=True, eq=False)
class HazardCalibrationSums:
    """What a site tells of the calibration of its log hazards; adds up over sites of one centre.

    Attributes:
        centre: no unit; public, subtracted from every log hazard before anything is summed. Not added up.
        patients, events: counts of patients.
        event_sum: sum of (log hazard - centre) over the events.
        moments: (29, 3); at each of `SLOPE_NODES` the sums over patients of H exp(b x) times 1, x and x^2, where
            x = log hazard - centre; in expected events at b = 1 (apart from exp(centre)).

    Raises:
        FederationError: FECG-538, sums around different centres are added.
    """

    centre: float
    patients: int
    events: int
    event_sum: float
    moments: Float64

    def __add__(self, other: HazardCalibrationSums) -> HazardCalibrationSums:
        if self.centre != other.centre:
            raise FederationError(
                "FECG-538",
                "calibration sums",
                found="2 sites with different centres of the log hazard",
                expected="the centre that the coordinator sent to every site",
            )
        return HazardCalibrationSums(
            self.centre,
            self.patients + other.patients,
            self.events + other.events,
            self.event_sum + other.event_sum,
            self.moments + other.moments,
        )


@dataclass(frozen=True)
class HazardCalibration:
    """Calibration of a log hazard with its baseline; every float is NaN where it is not defined.

    Attributes:
        patients, events: over all sites.
        expected: events that the model expects over the follow-up.
        ratio, ratio_low, ratio_high: observed / expected events, 1 = calibrated in the large; exact Poisson 95 %
            interval. NaN where nothing is expected. Without events the ratio is 0, with a finite upper limit.
        log_ratio: log of it, the intercept for a slope of 1; NaN without events.
        slope, slope_se, slope_low, slope_high: b with its Wald 95 % interval; below 1 = risks too extreme.
        intercept, intercept_se: a; exp(a + b risk) times the model's baseline is the recalibrated hazard.
        slope_out_of_range: there is no slope between -0.5 and 3; slope and intercept are then NaN.
    """

    patients: int
    events: int
    expected: float
    ratio: float
    ratio_low: float
    ratio_high: float
    log_ratio: float
    slope: float
    slope_se: float
    slope_low: float
    slope_high: float
    intercept: float
    intercept_se: float
    slope_out_of_range: bool


def hazard_calibration_sums(
    time: ArrayLike, event: ArrayLike, risk: ArrayLike, cumulative_hazard: ArrayLike, centre: float
) -> HazardCalibrationSums:
    """Sum a site's observed and expected events; no patient at all is a site of zeros.

    Args:
        time: (n,) days to the event or the last contact, >= 0; checked, not used: it is in the cumulative hazard.
        event: (n,) 1/True = event seen, 0/False = censored.
        risk: (n,) log hazard, no unit, within 60 of the centre.
        cumulative_hazard: (n,) the model's baseline H0 at each patient's own follow-up (`Baseline.at`), >= 0. An
            event where it is 0 counts as observed and is not expected.
        centre: public, about the mean log hazard of the study, |centre| <= 60.

    Raises:
        CohortError: FECG-235..238, columns that cannot be used.
        FederationError: FECG-537, hazards that cannot be used, or log hazards far from the centre.
    """
    outcomes = checked_outcomes(time, event, risk)
    hazard = checked_values("cumulative hazard", cumulative_hazard, outcomes.time.shape, math.inf)
    far = int(np.count_nonzero(np.abs(outcomes.risk - centre) > FARTHEST))
    if far or not abs(centre) <= FARTHEST:
        raise FederationError(
            "FECG-537",
            "log hazard",
            found=f"{far} of {outcomes.risk.size} values far from the centre"
            if far
            else "a centre far from 0",
            expected=f"within {FARTHEST:.0f}",
            fix="Such log hazards mean that training diverged; lower survival.learning-rate.",
        )
    centred = outcomes.risk - centre
    powers = np.stack([np.ones_like(centred), centred, centred**2])
    moments = np.array([powers @ (hazard * np.exp(slope * centred)) for slope in SLOPE_NODES])
    event_sum = math.fsum(centred[outcomes.event])
    return HazardCalibrationSums(centre, centred.size, int(outcomes.event.sum()), event_sum, moments)


def hazard_calibration(sums: HazardCalibrationSums) -> HazardCalibration:
    """Observed over expected events, calibration slope and intercept of all patients in the sums.

    The baseline is taken as known. The slope differs by definition from the coefficient of a Cox model with the risk as
    its only covariate, which has a free baseline; where the model is right, both estimate 1.

    Source: Crowson, Atkinson, Therneau 2016, Stat Methods Med Res 25:1692-706; interval: Garwood 1936, Biometrika
        28:437-42.
    """
    expected = math.exp(sums.centre) * float(sums.moments[UNIT_SLOPE, 0])
    ratio, low, high = poisson_ratio(sums.events, expected)
    fit = _fit(sums)
    # Inverse of the Poisson information of (a, b), with log hazards counted from 0 and not from the centre.
    variance = 1 / (sums.events * fit.spread) if fit.spread > 0 else math.nan
    slope_se = math.sqrt(variance)
    intercept_variance = (
        1 / sums.events + (fit.mean + sums.centre) ** 2 * variance if sums.events else math.nan
    )
    return HazardCalibration(
        patients=sums.patients,
        events=sums.events,
        expected=expected,
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        log_ratio=math.log(ratio) if ratio > 0 else math.nan,
        slope=fit.slope,
        slope_se=slope_se,
        slope_low=fit.slope - NORMAL_975 * slope_se,
        slope_high=fit.slope + NORMAL_975 * slope_se,
        intercept=math.log(sums.events) - fit.log_sum - fit.slope * sums.centre if sums.events else math.nan,
        intercept_se=math.sqrt(intercept_variance),
        slope_out_of_range=fit.out_of_range,
    )


class _Fit(NamedTuple):
    """Solution of the score equations; NaN where there is none.

    Attributes:
        slope: b.
        log_sum: log M0(b), centred log hazards.
        mean, spread: first and second derivative of log M0 at b.
        out_of_range: b lies outside `SLOPE_NODES`.
    """

    slope: float
    log_sum: float
    mean: float
    spread: float
    out_of_range: bool


def _fit(sums: HazardCalibrationSums) -> _Fit:
    derivatives = _log_derivatives(sums.moments)
    if not sums.events or derivatives is None:
        return _Fit(math.nan, math.nan, math.nan, math.nan, False)
    wanted = sums.event_sum / sums.events
    mean = derivatives[:, 1]
    if not mean[0] <= wanted <= mean[-1]:
        return _Fit(math.nan, math.nan, math.nan, math.nan, True)
    last = SLOPE_NODES.size - 1
    left = min(int(np.searchsorted(mean, wanted, side="right")) - 1, last - 1)
    first = min(max(left - STENCIL // 2 + 1, 0), last + 1 - STENCIL)
    nodes = SLOPE_NODES[first : first + STENCIL] - SLOPE_NODES[left]
    near = derivatives[first : first + STENCIL] - [derivatives[left, 0], 0, 0]
    from scipy.interpolate import KroghInterpolator  # 25 MB, which a coordinator in its rounds does without

    polynomial = KroghInterpolator(np.repeat(nodes, 3), near.ravel())
    right = float(SLOPE_NODES[left + 1] - SLOPE_NODES[left])
    step = _root(lambda b: float(polynomial.derivative(b, der=1)) - wanted, right)
    log_sum = float(derivatives[left, 0] + polynomial(step))
    spread = float(polynomial.derivative(step, der=2))
    if spread <= LEAST_SPREAD * (
        1 + wanted**2
    ):  # only the highest (or lowest) risks had events: b is infinite
        return _Fit(math.nan, math.nan, math.nan, math.nan, True)
    return _Fit(float(SLOPE_NODES[left]) + step, log_sum, wanted, spread, False)


def _log_derivatives(moments: Float64) -> Float64 | None:
    """log M0 and its first two derivatives at the nodes, (29, 3); None where log hazards do not differ."""
    whole = moments[:, 0]
    if not (whole > 0).all():
        return None
    mean, square = moments[:, 1] / whole, moments[:, 2] / whole
    spread = np.maximum(square - mean**2, 0.0)
    if (spread <= LEAST_SPREAD * (1 + square)).all():
        return None
    return np.stack([np.log(whole), mean, spread], axis=1)


def _root(gap: Callable[[float], float], right: float) -> float:
    """Where `gap`, which rises, crosses 0 between 0 and `right`; an end, where rounding puts it beyond."""
    if gap(0.0) >= 0:
        return 0.0
    return right if gap(right) <= 0 else float(brentq(gap, 0.0, right, xtol=1e-13))


def poisson_ratio(observed: float, expected: float) -> tuple[float, float, float]:
    """Observed / expected with its exact 95 % interval; NaN where nothing is expected."""
    if not expected > 0:
        return math.nan, math.nan, math.nan
    # Half the quantiles of chi-square with 2 * observed, and 2 * observed + 2, degrees of freedom.
    low = gammaincinv(observed, 0.025) if observed else 0.0
    high = gammaincinv(observed + 1, 0.975)
    return observed / expected, float(low) / expected, float(high) / expected


def checked_values(column: str, values: ArrayLike, shape: tuple[int, ...], most: float) -> Float64:
    """Values of this shape from 0 to `most`.

    Raises:
        FederationError: FECG-537, another shape, or values that are not finite or out of range.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape != shape:
        raise FederationError(
            "FECG-537",
            column,
            found=f"shape {numbers.shape}",
            expected=f"shape {shape}",
            fix="Give one row a patient, in the order of the outcomes, and one column a horizon.",
        )
    usable = np.isfinite(numbers) & (numbers >= 0) & (numbers <= most)
    span = "finite and >= 0" if math.isinf(most) else f"0 to {most:g}"
    refuse_values(column, usable, "not finite or out of range", span)
    return numbers


def refuse_values(column: str, usable: NDArray[np.bool_], wrong: str, expected: str) -> None:
    """Raise FECG-537 with the number of values that are not usable, if there are any."""
    refused = int(np.count_nonzero(~usable))
    if refused:
        found = f"{refused} of {usable.size} values that are {wrong}"
        raise FederationError("FECG-537", column, found=found, expected=expected)
