"""From a log hazard to what a reader understands: risk by each horizon with its interval, and a percentile.

In:  log hazards (n,), the baseline hazard and the validation patients' log hazards in a model file.
Out: risks (n, K) with intervals, percentiles (n,). Called by `predictor` and `outside`. Pure.

The interval is the uncertainty of the baseline hazard alone, with the log hazard taken as known: it says nothing of
how far the network itself may be off, and is no prediction interval of a patient.

Before the first event among the validation patients the estimate of H0 is 0, which no log hazard, however high, would
move. That is a statement about the patients that were seen, not a risk: none is given, but an upper limit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import ModelError
from fedecg.evaluation import DAYS_A_YEAR, absolute_risk
from fedecg.evaluation.intervals import NORMAL_975
from fedecg.model import BaselineFile, PopulationFile
from fedecg.objectives import Baseline

__all__ = ["HORIZONS_YEARS", "HorizonRisk", "PercentileBound", "RiskScale", "checked_horizons_years"]

HORIZONS_YEARS = (1.0, 3.0, 5.0, 10.0)

# With no event seen, a Poisson mean above this has a probability below 2.5 % (exact limit: -log 0.025).
NO_EVENT_LIMIT = -math.log(0.025)

Float64 = NDArray[np.float64]
PercentileBound = Literal["", "at least", "at most"]
MOST_EXPONENT = 700.0  # exp of more is no double


@dataclass(frozen=True)
class HorizonRisk:
    """Probability of the event within some years of the ECG.

    Attributes:
        years: the horizon.
        risk: in [0, 1]; None where the baseline hazard does not reach that far, and where no event was seen by the
            horizon among the patients that it comes from (`no_event`).
        low, high: 95 % interval from the variance of the baseline hazard alone (not of the network); where no event
            was seen, 0 and an upper limit of 97.5 %; None where the baseline hazard does not reach that far.
    """

    years: float
    risk: float | None
    low: float | None
    high: float | None

    @property
    def no_event(self) -> bool:
        """No event was seen by then in the validation patients: there is an upper limit and no risk."""
        return self.risk is None and self.high is not None


@dataclass(frozen=True, eq=False)
class RiskScale:
    """What log hazards of a model are read against.

    Args:
        baseline: cumulative hazard of the patients that validated the model, and its variance.
        population: their log hazards in bins, or None.

    Raises:
        ModelError: FECG-321 the hazard is no rising step function; FECG-345 variance or population do not fit.
    """

    baseline: BaselineFile
    population: PopulationFile | None

    def __post_init__(self) -> None:
        hazard = self.hazard  # raises FECG-321
        _check_variance(np.array(self.baseline.variance), hazard)
        if self.population is not None:
            _check_population(self.population)

    @property
    def hazard(self) -> Baseline:
        """H0 as a step function of days."""
        return Baseline(np.array(self.baseline.edges_days), np.array(self.baseline.cumulative_hazard))

    @property
    def follow_up_days(self) -> float:
        """Left edge of the last time bin with an event: as far as H0 is known; 0 without any events."""
        hazard = self.hazard
        rises = np.flatnonzero(np.diff(hazard.cumulative_hazard, prepend=0.0) > 0)
        return float(hazard.edges_days[rises[-1]]) if rises.size else 0.0

    def known(self, horizons_years: Sequence[float]) -> tuple[float, ...]:
        """The horizons that the baseline hazard reaches."""
        return tuple(years for years in horizons_years if years * DAYS_A_YEAR <= self.follow_up_days)

    def before_events(self, horizons_years: Sequence[float]) -> tuple[float, ...]:
        """The horizons by which no event was seen, although the baseline hazard reaches them."""
        known = self.known(horizons_years)
        at_days = self.hazard.reached(np.array(known, dtype=np.float64) * DAYS_A_YEAR)
        return tuple(years for years, hazard in zip(known, at_days.tolist(), strict=True) if hazard == 0)

    def risks(self, log_hazard: Float64, horizons_years: Sequence[float]) -> list[tuple[HorizonRisk, ...]]:
        """Risks of n patients by K horizons; a horizon beyond the follow-up of H0 has none (never extrapolated).

        1 - exp(-H0(t) exp(log hazard)); interval on the log(-log) scale, log H0 -+ 1.96 sqrt(variance) / H0.

        Where no event was seen by t, the number of events expected by then, H0(t) W with W the sum of exp(log hazard)
        at risk, is below 3.69 with 97.5 % confidence (exact Poisson limit of 0 events). W at the first event is
        H0 / variance there (d/W over d/W^2), and earlier it was no smaller: the limit is on the safe side.

        Args:
            log_hazard: (n,), finite.
            horizons_years: (K,), years > 0, rising.

        Source: Kalbfleisch, Prentice 2002, The Statistical Analysis of Failure Time Data, section 1.4 (log(-log));
            Garwood 1936, Biometrika 28:437-442 (exact limits of a Poisson mean).
        """
        days = np.array(horizons_years, dtype=np.float64) * DAYS_A_YEAR
        risk = absolute_risk(log_hazard, self.hazard, days)
        spread = NORMAL_975 * self._relative_error(days)
        with np.errstate(divide="ignore"):  # a risk of 1 has a log survival of -inf, and bounds of 1
            log_survival = np.log1p(-risk)
        low, high = (-np.expm1(log_survival * factor) for factor in (np.exp(-spread), np.exp(spread)))
        none_seen = self.hazard.reached(days) == 0
        limit = -np.expm1(-self._hazard_limit() * np.exp(np.minimum(log_hazard, MOST_EXPONENT)))[:, None]
        risk = np.where(none_seen, np.nan, risk)
        low, high = np.where(none_seen, 0.0, low), np.where(none_seen, limit, high)
        beyond = days > self.follow_up_days
        columns = [np.where(beyond, np.nan, column) for column in (risk, low, high)]
        return [
            tuple(
                HorizonRisk(years, _known(risk), _known(low), _known(high))
                for years, risk, low, high in zip(horizons_years, *rows, strict=True)
            )
            for rows in zip(*columns, strict=True)
        ]

    def _hazard_limit(self) -> float:
        """Upper limit of H0 before the first event; NaN where there is no event at all."""
        hazard, variance = self.hazard.cumulative_hazard, np.array(self.baseline.variance)
        first = np.flatnonzero((hazard > 0) & (variance > 0))[:1]
        return float(NO_EVENT_LIMIT * variance[first[0]] / hazard[first[0]]) if first.size else math.nan

    def _relative_error(self, days: Float64) -> Float64:
        """sqrt(variance) / H0 (K,), the standard error of log H0; NaN before the first event."""
        hazard = self.hazard
        variance = Baseline(hazard.edges_days, np.array(self.baseline.variance)).reached(days)
        at_days = hazard.reached(days)
        relative: Float64 = np.divide(
            np.sqrt(variance), at_days, out=np.full(len(days), np.nan), where=at_days > 0
        )
        return relative

    def percentiles(self, log_hazard: Float64) -> list[float | None]:
        """Percent (n,) of the validation patients with a lower log hazard; None without such patients.

        Interpolated inside a bin. The end bins are open: whoever falls there gets the percentile of their cut, which
        is "at least" or "at most" his own (`percentile_bounds`).
        """
        population = self.population
        if population is None or not population.risk_cuts or not sum(population.patients):
            return [None] * len(log_hazard)
        below = np.cumsum(population.patients)[:-1] / sum(population.patients)
        return [float(100 * share) for share in np.interp(log_hazard, population.risk_cuts, below)]

    def percentile_bounds(self, log_hazard: Float64) -> list[PercentileBound]:
        """What stands before each percentile (n,): "at least" in the highest bin, "at most" in the lowest, else ""."""
        cuts = self.population.risk_cuts if self.population else []
        if not cuts:
            return [""] * len(log_hazard)
        return [
            "at least" if eta > cuts[-1] else "at most" if eta < cuts[0] else ""
            for eta in log_hazard.tolist()
        ]


def checked_horizons_years(horizons_years: Sequence[float]) -> tuple[float, ...]:
    """Horizons as they were given.

    Raises:
        ModelError: FECG-346, not at least one, finite, > 0 and strictly rising.
    """
    years = np.array(list(horizons_years), dtype=np.float64)
    wrong = int(np.sum(~(np.isfinite(years) & (years > 0)))) + int(np.sum(~(np.diff(years) > 0)))
    if wrong or not years.size:
        raise ModelError(
            "FECG-346",
            "horizons of a prediction",
            found=f"{years.size} of them, {wrong} not positive or not rising",
            expected="years > 0 in rising order, at least one",
            fix="Example: --horizons 1,3,5,10",
        )
    return tuple(float(value) for value in years)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _check_variance(variance: Float64, hazard: Baseline) -> None:
    usable = variance.shape == hazard.edges_days.shape
    if not usable or not np.isfinite(variance).all() or (np.diff(variance, prepend=0.0) < 0).any():
        _refuse("baseline variance", "another length than the hazard's, or values that fall")


def _check_population(population: PopulationFile) -> None:
    cuts = np.array(population.risk_cuts)
    if len(population.patients) != len(cuts) + 1 or not np.isfinite(cuts).all() or (np.diff(cuts) <= 0).any():
        _refuse("population", "cuts that do not rise, or another number of bins than of cuts + 1")


def _refuse(what: str, found: str) -> None:
    raise ModelError(
        "FECG-345",
        f"{what} in model.json",
        found=found,
        expected="what a study writes",
        fix="Copy the whole model folder again.",
    )
