"""The table of a grid: one tidy row a cell; means over seeds; differences from a baseline, seed by seed.

In:  the cells of a grid and their outcomes. Out: rows, a data frame, means with t-intervals. Pure.
Called by `grid_report` and by `fedecg-simulate grid --json`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from fedecg_simulations.grid_cells import Outcome
from fedecg_simulations.grid_plan import Cell, GridPlan

__all__ = [
    "COLUMNS", "GAIN_KEPT", "Combination", "Difference", "Mean", "combinations", "differences", "figures_of", "frame",
    "grid_rows", "kept_over_seeds", "mean_over_seeds", "means",
]  # fmt: skip

# Ways to train or to guess, as in summary.json; those that a grid does not have stay empty.
COLUMNS = (
    "pooled",
    "federated",
    "finetuned",
    "shared-norms",
    "unseen-site",
    "random-encoder",
    "local-mean",
    "local-best",
    "local-own",
    "age-sex",
    "age-sex-hr-qrs",
    "site-only",
    "true-hazard",
)
MEASURES = ("c-index", "c-index-stratified")
FEDERATED, POOLED, GAIN_KEPT, CHANCE = "federated", "pooled", "gain-kept", 0.5
LEVEL = 0.95

Row = dict[str, Any]
Combination = tuple[str, ...]  # a variant of every axis, in the order of the axes


@dataclass(frozen=True)
class Mean:
    """Mean over seeds with its 95 % t-interval, NaN where undefined: no value, or no spread to estimate from."""

    value: float
    low: float
    high: float
    number: int  # of values
    p_value: float  # two-sided t test of mean = 0


@dataclass(frozen=True)
class Difference:
    """A combination of variants minus its baseline, federated column, seed by seed."""

    combination: Combination
    baseline: Combination
    mean: Mean


def grid_rows(plan: GridPlan, outcomes: Mapping[str, Outcome]) -> list[Row]:
    """One row a cell, in the order of the plan; None where there is no value.

    Keys: every axis; `seed`; `status` (completed, completed-partial, failed, waiting); `code` and `exit` of a failed
    cell; `outcomes` (simulated or observed); for every column COLUMN.c-index and COLUMN.c-index-stratified;
    `gain-kept`; `test-events`; `seconds`; `settings-sha256`; `code-fingerprint` of the code that made it.
    """
    return [_row(cell, outcomes[cell.name]) for cell in plan.cells]


def frame(plan: GridPlan, rows: Sequence[Row]) -> pd.DataFrame:
    """The rows with one type a column, whatever is missing: text, whole numbers or float64."""
    table = pd.DataFrame(list(rows))
    whole = {"seed", "exit", "test-events"}
    text = {*plan.axes, "status", "code", "outcomes", "settings-sha256", "code-fingerprint"}
    kinds = {name: "Int64" if name in whole else "string" if name in text else "float64" for name in table}
    return table.astype(kinds)


def figures_of(plan: GridPlan) -> dict[str, str]:
    """Name of a figure -> key of the row that holds it, for the plan's measure."""
    return {name: f"{name}.{plan.measure}" for name in COLUMNS} | {GAIN_KEPT: GAIN_KEPT}


def combinations(plan: GridPlan) -> list[Combination]:
    """All combinations of variants, in the order of the grid file."""
    return list(dict.fromkeys(_combination(plan, cell.variants) for cell in plan.cells))


def means(plan: GridPlan, rows: Sequence[Row]) -> dict[Combination, dict[str, Mean]]:
    """For every combination, each figure's mean over the seeds that are finished; gain kept: `kept_over_seeds`.

    Intervals of a C-index end at 0 and 1: with two seeds a t-interval is 13 standard errors wide on either side.
    """
    values = _values(plan, rows)
    table: dict[Combination, dict[str, Mean]] = {}
    for combination in combinations(plan):
        own = values[combination]
        table[combination] = {
            name: _within_unit(mean_over_seeds(own.get(key, {}).values()))
            for name, key in figures_of(plan).items()
        }
        gains = [_gains(row) for row in rows if _combination(plan, row) == combination]
        pairs = [
            (ours - CHANCE, theirs - CHANCE)
            for ours, theirs in gains
            if ours is not None and theirs is not None
        ]
        table[combination][GAIN_KEPT] = kept_over_seeds(
            [ours for ours, _ in pairs], [theirs for _, theirs in pairs]
        )
    return table


def kept_over_seeds(federated: Sequence[float], pooled: Sequence[float]) -> Mean:
    """Mean federated gain over chance as a share of the mean pooled gain, paired by seed, with its 95 % interval.

    A mean of the seeds' own shares would be ruled by the seeds in which pooled training gained next to nothing. NaN
    where the mean pooled gain is not clearly above 0 (lower end of its own 95 % interval); one seed has no interval.

    Args:
        federated, pooled: (n,) stratified C - 0.5 of the same seeds.

    Source: ratio estimator with linearised variance: Cochran 1977, Sampling Techniques, ch. 6.
    """
    whole = mean_over_seeds(pooled)
    if not whole.number or not (whole.low if whole.number > 1 else whole.value) > 0:
        return Mean(math.nan, math.nan, math.nan, whole.number, math.nan)
    share = float(np.mean(federated)) / whole.value
    residual = mean_over_seeds(np.array(federated) - share * np.array(pooled))
    half = (residual.high - residual.low) / 2 / whole.value
    return Mean(share, share - half, share + half, whole.number, math.nan)


def differences(plan: GridPlan, rows: Sequence[Row]) -> list[Difference]:
    """Federated figure of every combination minus that of its baseline, paired by seed.

    The baseline of a combination is the same one with the variants of `report.baseline` put in.
    """
    if not plan.baseline:
        return []
    key = figures_of(plan)[FEDERATED]
    values = {combination: figures.get(key, {}) for combination, figures in _values(plan, rows).items()}
    found = []
    for combination in combinations(plan):
        variants = dict(zip(plan.axes, combination, strict=True)) | dict(plan.baseline)
        baseline = _combination(plan, variants)
        if baseline == combination:
            continue
        ours, theirs = values[combination], values[baseline]
        pairs = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
        found.append(Difference(combination, baseline, mean_over_seeds(pairs)))
    return found


def mean_over_seeds(values: Iterable[float]) -> Mean:
    """Mean, 95 % t-interval and t test of values (n,), one a seed.

    No value: all NaN. One: no interval. All alike: an interval of no width, and no p-value.

    Source: Student 1908, The probable error of a mean.
    """
    x = np.fromiter(values, dtype=np.float64)
    number = len(x)
    if number < 2:
        return Mean(float(x[0]) if number else math.nan, math.nan, math.nan, number, math.nan)
    value, se = float(x.mean()), float(x.std(ddof=1) / math.sqrt(number))
    half = float(stats.t.ppf((1 + LEVEL) / 2, number - 1)) * se
    p_value = float(2 * stats.t.sf(abs(value) / se, number - 1)) if se > 0 else math.nan
    return Mean(value, value - half, value + half, number, p_value)


def _within_unit(mean: Mean) -> Mean:
    """A mean of shares: nothing outside 0 and 1 is possible. NaN stays."""
    low, high = (float(np.clip(end, 0.0, 1.0)) for end in (mean.low, mean.high))
    return replace(mean, low=low, high=high)


def _row(cell: Cell, outcome: Outcome) -> Row:
    summary, failure = outcome.summary or {}, outcome.failure or {}
    columns = summary.get("columns") or {}
    figures = {
        f"{name}.{measure}": (columns.get(name) or {}).get(measure)
        for name in COLUMNS
        for measure in MEASURES
    }
    took = sum(summary["seconds"].values()) if outcome.finished else failure.get("seconds")
    return {
        **cell.variants,
        "seed": cell.seed,
        "status": outcome.status,
        "code": failure.get("code"),
        "exit": failure.get("exit"),
        "outcomes": summary.get("outcomes"),
        **figures,
        GAIN_KEPT: _gain_kept(figures),
        "test-events": (summary.get("test") or {}).get("events"),
        "seconds": took,
        "settings-sha256": cell.sha256,
        "code-fingerprint": summary.get("code-fingerprint") or failure.get("code-fingerprint"),
    }


def _gain_kept(figures: Mapping[str, float | None]) -> float | None:
    """Share of pooled training's gain over chance that federated training keeps; None where pooled has none."""
    federated, pooled = _gains(figures)
    if federated is None or pooled is None or pooled <= CHANCE:
        return None
    return (federated - CHANCE) / (pooled - CHANCE)


def _gains(row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Stratified C of federated and of pooled training."""
    return row[f"{FEDERATED}.c-index-stratified"], row[f"{POOLED}.c-index-stratified"]


def _values(plan: GridPlan, rows: Sequence[Row]) -> dict[Combination, dict[str, dict[int, float]]]:
    """Combination -> key of a figure -> seed -> value."""
    values: dict[Combination, dict[str, dict[int, float]]] = {c: {} for c in combinations(plan)}
    for row in rows:
        for key, value in _known(plan, row):
            values[_combination(plan, row)].setdefault(key, {})[row["seed"]] = value
    return values


def _known(plan: GridPlan, row: Row) -> Iterator[tuple[str, float]]:
    for key in figures_of(plan).values():
        if row[key] is not None:
            yield key, row[key]


def _combination(plan: GridPlan, variants: Mapping[str, str]) -> Combination:
    return tuple(variants[axis] for axis in plan.axes)
