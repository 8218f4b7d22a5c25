"""Curves that are read off a life table: survival, follow-up and cumulative incidence by group of risk.

In:  `LifeTable` of one site, of pooled patients, or summed over sites.
Out: curves (value after each bin, standard error, 95 % interval) and their values at horizons; all groups at once.
Called by the coordinator and by the report's figures.

Value "after bin b" is the value just before edges_days[b + 1], and with one distinct time in each bin that from
edges_days[b] on. A group with nobody has NaN curves. Behind the last patient a curve stays where it is, with
nobody at risk. A curve that has reached its end (nobody left without the event) has no standard error: NaN.

At a horizon h, only bins that end at or before h count: an event in the bin that holds the horizon cannot be
placed before or after it. A horizon that is an edge has the exact value of "time < h"; for "time <= h" in whole
days, the study's edge and the horizon to ask for are h + 1. One inside a bin has the value at the start of
that bin. Where every bin holds one distinct time, its left edge (`single_times`), "time <= h" is exact for any h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedecg.evaluation.intervals import NORMAL_975
from fedecg.evaluation.life_table import LifeTable, divided

__all__ = [
    "AtHorizons",
    "IncidenceCurves",
    "SurvivalCurves",
    "aalen_johansen",
    "kaplan_meier",
    "reverse_kaplan_meier",
]

ROUNDING = 1e-12  # survival of exactly one half must count as one half, however its product was rounded

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class AtHorizons:
    """Curves at H horizons; the rule is the module's.

    Attributes:
        horizons_days: (H,) days, as asked for.
        value, se, ci_low, ci_high: (G, H), of incidence (G, 2, H); NaN for a group with nobody.
        at_risk: (G, H) patients who leave in none of the bins that count; for an edge, those followed up to it.
    """

    horizons_days: Float64
    value: Float64
    se: Float64
    ci_low: Float64
    ci_high: Float64
    at_risk: Int64


@dataclass(frozen=True, eq=False)
class SurvivalCurves:
    """Probability of being still without the event (or, reversed, still under observation), by group.

    Attributes:
        edges_days: (B,) left edges of the bins, days.
        survival: (G, B) after each bin.
        se: (G, B) Greenwood's standard error; 0 before the first event, NaN where survival is 0.
        ci_low, ci_high: (G, B) 95 % interval on the log(-log) scale; 1 before the first event, NaN where 0.
        at_risk: (G, B) patients at risk at the start of each bin.
    """

    edges_days: Float64
    survival: Float64
    se: Float64
    ci_low: Float64
    ci_high: Float64
    at_risk: Int64

    def at(self, horizons_days: ArrayLike, *, single_times: bool = False) -> AtHorizons:
        """Values at horizons (H,) in days; `single_times` says that a bin holds one distinct time, its left edge."""
        columns = ((self.survival, 1.0), (self.se, 0.0), (self.ci_low, 1.0), (self.ci_high, 1.0))
        return _at_horizons(self.edges_days, horizons_days, columns, self.at_risk, single_times)

    def quantile_days(self, shares: ArrayLike) -> Float64:
        """Left edge (G, Q) in days of the bin in which each share (Q,) of the patients has had the event.

        0.5 is the median. inf where so many never have it, NaN for a group with nobody. Exact where bins
        hold one distinct time, elsewhere too early by less than a bin.

        Source: Brookmeyer, Crowley 1982, Biometrics 38:29-41 (first time at which survival is 1 - share or less).
        """
        left = 1 - np.asarray(shares, dtype=np.float64)
        passed = self.survival[:, np.newaxis, :] <= left[:, np.newaxis] + ROUNDING
        days = np.where(passed.any(axis=2), self.edges_days[passed.argmax(axis=2)], np.inf)
        return np.where(self.at_risk[:, :1] > 0, days, np.nan)


@dataclass(frozen=True, eq=False)
class IncidenceCurves:
    """Probability of having had the event, and of having died before it; the second axis is the cause.

    Attributes:
        edges_days: (B,) left edges of the bins, days.
        incidence: (G, 2, B) after each bin, [:, 0] the event, [:, 1] death before it.
        se: (G, 2, B) standard error; 0 before the first of the cause, NaN where incidence is 1.
        ci_low, ci_high: (G, 2, B) 95 % interval on the log(-log) scale; 0 before the first of the cause.
        cumulative_hazard: (G, 2, B) Nelson-Aalen estimate of the cause-specific cumulative hazard.
        at_risk: (G, B) patients at risk at the start of each bin.
    """

    edges_days: Float64
    incidence: Float64
    se: Float64
    ci_low: Float64
    ci_high: Float64
    cumulative_hazard: Float64
    at_risk: Int64

    def at(self, horizons_days: ArrayLike, *, single_times: bool = False) -> AtHorizons:
        """Values at horizons (H,) in days; `single_times` says that a bin holds one distinct time, its left edge."""
        columns = ((self.incidence, 0.0), (self.se, 0.0), (self.ci_low, 0.0), (self.ci_high, 0.0))
        return _at_horizons(self.edges_days, horizons_days, columns, self.at_risk, single_times)


def kaplan_meier(table: LifeTable) -> SurvivalCurves:
    """Survival without the event by group; deaths before it count as censored.

    Assumes censoring independent of the event. Where deaths are known, 1 - survival overstates the risk: use
    `aalen_johansen`.

    Source: Kaplan, Meier 1958, JASA 53:457-81; Greenwood 1926; interval: Kalbfleisch, Prentice 1980.
    """
    return _product_limit(table, table.at_risk, table.exits[..., 1])


def reverse_kaplan_meier(table: LifeTable) -> SurvivalCurves:
    """Distribution of the follow-up by group: how long patients would be seen if nobody had an event or died.

    `quantile_days([0.25, 0.5, 0.75])` is the median follow-up with its quartiles. In one bin events and deaths
    leave before censored patients do.

    Source: Schemper, Smith 1996, Control Clin Trials 17:343-6.
    """
    left_before = table.exits[..., 1] + table.exits[..., 2]
    return _product_limit(table, table.at_risk - left_before, table.exits[..., 0])


def aalen_johansen(table: LifeTable) -> IncidenceCurves:
    """Cumulative incidence of the event and of death before it, by group.

    Assumes censoring independent of both. Without deaths it is 1 - Kaplan-Meier, and so is its standard error.

    Source: Aalen, Johansen 1978, Scand J Stat 5:141-50; variance (delta method, Greenwood type): Dinse, Larson
    1986, Biometrika 73:379-86, eq. 6; hazards: Nelson 1972, Aalen 1978.
    """
    at_risk = table.at_risk[:, np.newaxis, :].astype(np.float64)
    by_cause = table.exits[..., 1:].swapaxes(1, 2)
    either = by_cause.sum(axis=1, keepdims=True)
    survival = np.cumprod(1 - divided(either, at_risk), axis=2)
    before = np.concatenate([np.ones_like(survival[..., :1]), survival[..., :-1]], axis=2)
    hazard = divided(by_cause, at_risk)
    incidence = np.cumsum(before * hazard, axis=2)
    # Var F(t) = sum_k (F(t) - F_k)^2 g_k + own_k - 2 (F(t) - F_k) cross_k, multiplied out into running sums.
    g = divided(divided(either, at_risk), at_risk - either)
    own = before**2 * divided(hazard, at_risk) * divided(at_risk - by_cause, at_risk)
    cross = before * divided(hazard, at_risk)
    variance = (
        incidence**2 * np.cumsum(g, axis=2)
        - 2 * incidence * np.cumsum(incidence * g + cross, axis=2)
        + np.cumsum(incidence**2 * g + own + 2 * incidence * cross, axis=2)
    )
    cumulative_hazard, nobody = np.cumsum(hazard, axis=2), table.at_risk[:, 0] == 0
    incidence[nobody], cumulative_hazard[nobody] = np.nan, np.nan
    se = np.where(incidence < 1 - ROUNDING, np.sqrt(np.maximum(variance, 0)), np.nan)
    ci_low, ci_high = _log_log_interval(incidence, divided(se, incidence))
    return IncidenceCurves(
        edges_days=table.edges_days,
        incidence=incidence,
        se=se,
        ci_low=ci_low,
        ci_high=ci_high,
        cumulative_hazard=cumulative_hazard,
        at_risk=table.at_risk,
    )


def _product_limit(table: LifeTable, at_risk: Int64, events: Int64) -> SurvivalCurves:
    survival = np.cumprod(1 - divided(events, at_risk), axis=1, dtype=np.float64)
    survival[table.at_risk[:, 0] == 0] = np.nan
    greenwood = np.cumsum(divided(divided(events, at_risk), at_risk - events), axis=1)
    relative_se = np.where(survival > 0, np.sqrt(greenwood), np.nan)
    ci_low, ci_high = _log_log_interval(survival, relative_se)
    return SurvivalCurves(table.edges_days, survival, survival * relative_se, ci_low, ci_high, table.at_risk)


def _log_log_interval(probability: Float64, relative_se: Float64) -> tuple[Float64, Float64]:
    """95 % interval, symmetric for log(-log p); p itself where p is 0 or 1 for want of any event, or NaN."""
    inside = (probability > 0) & (probability < 1) & np.isfinite(relative_se)
    log_p = np.log(probability, out=np.full_like(probability, -1.0), where=inside)
    factor = np.exp(NORMAL_975 * np.where(inside, relative_se, 0.0) / -log_p)
    certain = probability + 0 * relative_se  # NaN where there is no standard error
    low, high = (np.exp(log_p * power) for power in (factor, 1 / factor))
    return np.where(inside, low, certain), np.where(inside, high, certain)


def _at_horizons(
    edges_days: Float64,
    horizons_days: ArrayLike,
    columns: Sequence[tuple[Float64, float]],
    at_risk: Int64,
    single_times: bool,
) -> AtHorizons:
    """Values after the last bin that counts; before the first, what each column starts from."""
    horizons = np.asarray(horizons_days, dtype=np.float64)
    settled_days = edges_days if single_times else np.append(edges_days[1:], np.inf)
    counted = np.searchsorted(settled_days, horizons, side="right")
    nobody = at_risk[:, 0] == 0

    def read(column: Float64, start: float) -> Float64:
        first = np.full_like(column[..., :1], start)
        first[nobody] = np.nan
        return np.concatenate([first, column], axis=-1)[..., counted]

    value, se, ci_low, ci_high = (read(column, start) for column, start in columns)
    followed = np.concatenate([at_risk, np.zeros_like(at_risk[:, :1])], axis=1)[:, counted]
    return AtHorizons(horizons, value, se, ci_low, ci_high, followed)
