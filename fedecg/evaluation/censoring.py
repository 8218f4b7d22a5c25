"""Inverse-probability-of-censoring weights from a site's own follow-up, and who counts at a horizon.

In:  one site's times and events, the study's horizons in days.
Out: `CensoringCurve`, the Kaplan-Meier curve G of staying uncensored; `HorizonGroups`, weighted cases and controls.
Called by `brier`, `auc` and `uno` at a site; `added` and `ratio` also by the coordinator.

G(t) = P(censored after t). Conventions are those of scikit-survival: events at a time come before censorings at that
time; G is right-continuous, so a case (event at T_i <= horizon) weighs 1 / G(T_i) with censorings *at* T_i included,
and a control (T_i > horizon) weighs 1 / G(horizon). Assumes that, within a site, censoring is independent of risk and
event. Each site uses its own curve: follow-up differs between sites, and a pooled curve is right for none of them.

Horizon rule: a site contributes at a horizon if at least `min_at_risk` of its patients are still followed after it
and G(horizon) > 0; otherwise it contributes nothing there, cases and controls alike (cases alone would be a biased
choice). Sums carry how many patients and sites contributed. As nobody comes back to the risk set, whoever
contributes at a horizon does so at every earlier one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedecg.errors import FederationError
from fedecg.evaluation.inputs import Outcomes

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "MIN_AT_RISK",
    "CensoringCurve",
    "HorizonGroups",
    "added",
    "censoring_curve",
    "checked_horizons",
    "horizon_groups",
    "ratio",
]

MIN_AT_RISK = 20  # design: horizons end where a site has fewer patients at risk

Float64 = NDArray[np.float64]
Rows = NDArray[np.intp]
Sums = TypeVar("Sums", bound="DataclassInstance")


@dataclass(frozen=True, eq=False)
class CensoringCurve:
    """Kaplan-Meier curve of censoring; a step function of the days since the ECG.

    Attributes:
        times_days: (m,) distinct times at which somebody was censored, ascending; empty = no censoring, G = 1.
        uncensored: (m,) G from that time on, not increasing, in [0, 1].
    """

    times_days: Float64
    uncensored: Float64

    def at(self, time_days: ArrayLike) -> Float64:
        """G at each time, right-continuous: 1 before the first censoring, flat after the last."""
        steps = np.append(1.0, self.uncensored)
        return np.asarray(steps[np.searchsorted(self.times_days, time_days, side="right")])

    def mean_weight(self, edges_days: Float64) -> Float64:
        """Time average of 1 / G in each bin between two edges; 1 / G itself where G is flat in the bin.

        Args:
            edges_days: (B + 1,) strictly increasing from 0; G > 0 before the last edge.

        Returns:
            (B,) weights, >= 1.
        """
        inside = self.times_days < edges_days[-1]
        steps_days = np.append(0.0, self.times_days[inside])
        weight = 1 / np.append(1.0, self.uncensored[inside])
        integral = np.append(0.0, np.cumsum(np.diff(steps_days) * weight[:-1]))
        step = np.searchsorted(steps_days, edges_days, side="right") - 1
        at_edges = integral[step] + (edges_days - steps_days[step]) * weight[step]
        # Rounding of the differences must not leave the range that the steps have in the bin.
        before_next = np.searchsorted(steps_days, edges_days[1:], side="left") - 1
        mean = np.diff(at_edges) / np.diff(edges_days)
        return np.asarray(np.clip(mean, weight[step[:-1]], weight[before_next]))


def censoring_curve(time: Float64, event: NDArray[np.bool_]) -> CensoringCurve:
    """Kaplan-Meier curve of censoring: censorings are the events, events leave the risk set just before them.

    Args:
        time: (n,) days to the event or the last contact, checked by `checked_outcomes`.
        event: (n,) bool; True = event seen, False = censored.

    Returns:
        The curve; without patients or without censoring G = 1. G ends at 0 if the last to leave is censored.

    Source: Kaplan, Meier 1958, J Am Stat Assoc 53:457-81; equals
        sksurv.nonparametric.kaplan_meier_estimator(reverse=True).
    """
    times, censored = np.unique(time[~event], return_counts=True)
    exits, events = np.sort(time), np.sort(time[event])
    at_risk = exits.size - np.searchsorted(exits, times, side="left")
    at_risk -= np.searchsorted(events, times, side="right") - np.searchsorted(events, times, side="left")
    return CensoringCurve(times, np.cumprod(1 - censored / at_risk, dtype=np.float64))


class HorizonGroups(NamedTuple):
    """Cases and controls of one site at one horizon, with their weights.

    Attributes:
        cases: (c,) rows of patients with the event at or before the horizon.
        case_weight: (c,) 1 / G(T_i) of each.
        controls: (d,) rows of patients followed beyond the horizon, without event up to it.
        control_weight: 1 / G(horizon), the same for all of them.
    """

    cases: Rows
    case_weight: Float64
    controls: Rows
    control_weight: float


def horizon_groups(
    outcomes: Outcomes, horizons_days: Float64, min_at_risk: int
) -> list[HorizonGroups | None]:
    """Weighted cases and controls of a site at each horizon; None where the site does not contribute.

    Args:
        outcomes: one site's patients, checked; their risk is not looked at.
        horizons_days: (K,) days, as `checked_horizons` returns them.
        min_at_risk: fewest patients (of time > horizon) with whom a site contributes; 0 leaves only G > 0.
    """
    curve = censoring_curve(outcomes.time, outcomes.event)
    groups: list[HorizonGroups | None] = []
    for horizon, uncensored in zip(horizons_days, curve.at(horizons_days), strict=True):
        controls = np.flatnonzero(outcomes.time > horizon)
        if not outcomes.time.size or controls.size < min_at_risk or uncensored == 0:
            groups.append(None)
            continue
        cases = np.flatnonzero(outcomes.event & (outcomes.time <= horizon))
        weight = 1 / curve.at(outcomes.time[cases])
        groups.append(HorizonGroups(cases, weight, controls, float(1 / uncensored)))
    return groups


def checked_horizons(horizons_days: ArrayLike, name: str = "horizons_days") -> Float64:
    """Horizons of a study as (K,) float64; one number is one horizon, `name` is what the message calls them.

    Raises:
        FederationError: FECG-535, not at least one, finite, > 0 and strictly increasing.
    """
    try:
        horizons = np.atleast_1d(np.asarray(horizons_days, dtype=np.float64))
    except (TypeError, ValueError):  # not numbers
        horizons = np.empty(0)
    usable = horizons.ndim == 1 and horizons.size > 0
    bad = np.count_nonzero(~(np.isfinite(horizons) & (horizons > 0)))
    unordered = np.count_nonzero(~(np.diff(horizons) > 0)) if usable else 0
    if usable and not bad and not unordered:
        return horizons
    raise FederationError(
        "FECG-535",
        name,
        found=f"shape {horizons.shape}, {bad} not finite and positive, {unordered} places out of order",
        expected="one row of at least one horizon, days > 0, strictly increasing",
    )


def added(mine: Sums, theirs: Sums, plan: tuple[str, ...]) -> Sums:
    """Add two records of sums field by field; the fields named in `plan` are public and must agree.

    Raises:
        FederationError: FECG-536, the two were made for different plans.
    """
    different = [name for name in plan if not np.array_equal(getattr(mine, name), getattr(theirs, name))]
    if different:
        raise FederationError(
            "FECG-536",
            type(mine).__name__,
            found=f"two records that differ in {', '.join(different)}",
            expected="sums of one plan: the same horizons and cuts at every site",
            fix="Ask the sites again, with the study's plan.",
        )
    names = [field.name for field in fields(mine) if field.name not in plan]
    return replace(mine, **{name: getattr(mine, name) + getattr(theirs, name) for name in names})


def ratio(part: ArrayLike, whole: ArrayLike) -> Float64:
    """part / whole element by element, NaN where the whole is not positive."""
    parts, wholes = np.broadcast_arrays(
        np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    )
    return np.asarray(np.divide(parts, wholes, out=np.full(parts.shape, np.nan), where=wholes > 0))
