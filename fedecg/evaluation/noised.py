"""Concordance from histograms with noise: both C's, and an interval that knows of patients and of noise.

In:  of every site patients by (time bin, risk bin, event) plus Gaussian noise of a known scale, on one grid.
Out: `NoisedConcordance`; the mean and spread of the log hazard. Called by the coordinator under differential privacy.

A pair counts where its time bins differ and the earlier of the two is an event; in one risk bin it is half concordant.
With x the cells of a table, the concordant and the comparable pairs are quadratic forms x'Ax and x'Bx in which no
cell meets itself, nor any of its own time bin. The noise of different cells is independent, so that both forms of the
noised cells are unbiased as they are: cells are neither floored nor projected, which would move C.

For a value c, N - c D is a form with S = A - c B (symmetric, x'Sx counts each pair twice), whose variance has two
parts, both estimated without bias from the noised cells (sigma: of the noise in a cell):
    patients  sum_k x_k (2 Sx)_k^2      the influence function of a ratio of U-statistics, as in `intervals`
    noise     4 sigma^2 |Sx|^2 + 2 sigma^4 tr(S^2)
The interval holds every c that |N - c D| <= q sd(c) does not rule out (Fieller 1954): it stays honest where noise
leaves D hardly above 0, and then is all of [0, 1]. Nothing is guaranteed: there are no bounds. A grid of 8 quantiles of
the risk leaves an eighth of the pairs level, which draws C some 0.005 towards 1/2; where half of the pairs are level
the cuts lie beside the patients, and nothing is said of C.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import ndtr, stdtrit

from fedecg.evaluation.intervals import FEW_EVENTS

__all__ = ["NoisedConcordance", "NoisedCounts", "noised_concordance", "noised_spread"]

Float64 = NDArray[np.float64]

STEPS = 1001  # values of C that are tried
MOST_LEVEL = 0.5  # of the comparable pairs in one risk bin: beyond it, bins tell nothing
LEAST_SHARE = 1e-6  # of a bin, in the likelihood of a spread
MOST_MEAN, LEAST_SD, MOST_SD = 10.0, 0.05, 5.0  # of a log hazard


@dataclass(frozen=True, eq=False)
class NoisedCounts:
    """One site's table.

    Attributes:
        cells: (T, R, 2), patients by time bin, risk bin and event, with noise; may be negative.
        noise: standard deviation of the noise in each cell.
    """

    cells: Float64
    noise: float


@dataclass(frozen=True)
class NoisedConcordance:
    """Concordance within sites and over all pairs, with 95 % intervals that include the noise; None: nothing is known.

    Attributes:
        stratified, c_index: in [0, 1]; None where noise leaves no comparable pair, or bins do not tell patients apart.
        stratified_low, stratified_high, ci_low, ci_high: the intervals.
        patients, events: of all sites, as the noised cells add up; not whole numbers.
        few_events: fewer than `FEW_EVENTS` events.
    """

    stratified: float | None
    stratified_low: float
    stratified_high: float
    c_index: float | None
    ci_low: float
    ci_high: float
    patients: float
    events: float
    few_events: bool


def noised_concordance(sites: Sequence[NoisedCounts]) -> NoisedConcordance:
    """Both C's of a federation.

    Args:
        sites: tables of one shape, at least one.

    Source: Fieller 1954, J R Stat Soc B 16:175-85 (ratio); variance of Gaussian forms: Searle 1971, ch. 2.
    """
    pooled = NoisedCounts(
        np.sum([site.cells for site in sites], axis=0), math.sqrt(sum(site.noise**2 for site in sites))
    )
    events = float(pooled.cells[..., 1].sum())
    quantile = float(stdtrit(max(events - 1, 1.0), 0.975))
    blind = _level_share(pooled.cells) > MOST_LEVEL
    stratified, low, high = (None, 0.0, 1.0) if blind else _ratio_interval(sites, quantile)
    everywhere, all_low, all_high = (None, 0.0, 1.0) if blind else _ratio_interval([pooled], quantile)
    return NoisedConcordance(
        stratified=stratified,
        stratified_low=low,
        stratified_high=high,
        c_index=everywhere,
        ci_low=all_low,
        ci_high=all_high,
        patients=float(pooled.cells.sum()),
        events=events,
        few_events=events < FEW_EVENTS,
    )


def noised_spread(cells: Float64, risk_cuts: Float64) -> tuple[float, float]:
    """Mean and standard deviation of the log hazard: the normal one that is likeliest for patients by risk bin.

    Args:
        cells: (T, R, 2), with noise, added up over the sites.
        risk_cuts: (R - 1,) rising.

    Returns:
        (0, 1) where noise leaves nobody; else within what a log hazard can be.
    """
    patients = np.maximum(cells.sum(axis=(0, 2)), 0.0)
    if not patients.sum() or not risk_cuts.size:
        return 0.0, 1.0
    share = patients / patients.sum()

    def misfit(found: Float64) -> float:
        mean, sd = found[0], math.exp(found[1])
        reached = np.concatenate([[0.0], ndtr((risk_cuts - mean) / sd), [1.0]])
        return -float(np.sum(share * np.log(np.maximum(np.diff(reached), LEAST_SHARE))))

    middle = float(np.interp(0.5, np.cumsum(share)[:-1], risk_cuts))
    limits = [(-MOST_MEAN, MOST_MEAN), (math.log(LEAST_SD), math.log(MOST_SD))]
    best = minimize(misfit, np.array([middle, 0.0]), method="Nelder-Mead", bounds=limits)
    return float(best.x[0]), math.exp(float(best.x[1]))


def pair_forms(bins: tuple[int, int]) -> tuple[Float64, Float64]:
    """The forms of twice the concordant (ties half) and twice the comparable pairs, symmetric, (T R 2, T R 2).

    Args:
        bins: T, R.
    """
    time, risk, event = (axis.ravel() for axis in np.indices((*bins, 2)))
    earlier = (time[:, None] < time[None]) & (event[:, None] == 1)
    higher = (risk[:, None] > risk[None]) + 0.5 * (risk[:, None] == risk[None])
    concordant, comparable = earlier * higher, earlier.astype(np.float64)
    return concordant + concordant.T, comparable + comparable.T


def _level_share(cells: Float64) -> float:
    """Of the comparable pairs, how many are in one risk bin; 0 where there are none."""
    time, risk, _ = cells.shape
    _, comparable = pair_forms((time, risk))
    at = np.indices(cells.shape)[1].ravel()
    flat, level = cells.ravel(), comparable * (at[:, None] == at[None])
    pairs = float(flat @ comparable @ flat)
    return float(flat @ level @ flat) / pairs if pairs > 0 else 0.0


def _ratio_interval(tables: Sequence[NoisedCounts], quantile: float) -> tuple[float | None, float, float]:
    """(C, low, high) of the pairs within each of the tables, added up."""
    time_bins, risk_bins, _ = tables[0].cells.shape
    concordant, comparable = pair_forms((time_bins, risk_bins))
    parts = [_moments(table, concordant, comparable) for table in tables]
    credit, pairs = sum(part.credit for part in parts), sum(part.pairs for part in parts)
    c_index = np.linspace(0.0, 1.0, STEPS)
    variance = np.sum([part.variance(c_index) for part in parts], axis=0)
    inside = c_index[(credit - c_index * pairs) ** 2 <= quantile**2 * variance]
    estimate = float(np.clip(credit / pairs, 0.0, 1.0)) if pairs > 0 else None
    if estimate is None or not inside.size:
        return (estimate, 0.0, 1.0) if estimate is None else (estimate, estimate, estimate)
    return estimate, float(min(inside[0], estimate)), float(max(inside[-1], estimate))


@dataclass(frozen=True, eq=False)
class _Moments:
    """A table's forms and the variance of their difference: for each c a parabola, (3,) from c^0 to c^2."""

    credit: float
    pairs: float
    patients: Float64
    noise: Float64
    least_noise: Float64

    def variance(self, c_index: Float64) -> Float64:
        """Of N - c D, both counted twice; each part where it is estimated below what it can be, at its least."""
        powers = c_index[:, None] ** np.arange(3)
        noise = np.maximum(powers @ self.noise, powers @ self.least_noise)
        return np.asarray(np.maximum(powers @ self.patients, 0.0) + noise)


def _moments(table: NoisedCounts, concordant: Float64, comparable: Float64) -> _Moments:
    cells, noise = table.cells.ravel(), table.noise
    credit, pairs = concordant @ cells, comparable @ cells  # of one patient of each cell

    def parabola(one: Float64, both: Float64, other: Float64) -> Float64:
        return np.array([one.sum(), -2 * both.sum(), other.sum()])

    own = (concordant**2).sum(axis=1), (concordant * comparable).sum(axis=1), (comparable**2).sum(axis=1)
    squares = credit**2, credit * pairs, pairs**2
    corrected = tuple(square - noise**2 * row for square, row in zip(squares, own, strict=True))
    traces = parabola(*own)
    return _Moments(
        credit=float(cells @ credit),
        pairs=float(cells @ pairs),
        patients=4 * parabola(*(cells * square for square in corrected)),
        noise=4 * noise**2 * parabola(*corrected) + 2 * noise**4 * traces,
        least_noise=2 * noise**4 * traces,
    )
