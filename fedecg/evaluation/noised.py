"""Concordance from histograms with noise: both C's, and an interval that knows of patients and of noise.

In:  of every site patients by (time bin, risk bin, event) plus Gaussian noise of a known scale, on one grid.
Out: `NoisedConcordance`; risk cuts. Called by the coordinator under differential privacy.

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
from scipy.special import ndtr, ndtri, stdtrit

from fedecg.evaluation.intervals import FEW_EVENTS

__all__ = ["NoisedConcordance", "NoisedCounts", "noised_concordance", "noised_risk_cuts"]

Float64 = NDArray[np.float64]

STEPS = 1001  # values of C that are tried
MOST_LEVEL = 0.5  # of the comparable pairs in one risk bin: beyond it, bins tell nothing
MOST_MEAN, LEAST_SD, MOST_SD = 10.0, 0.05, 5.0  # of log hazards
MODES, SPREADS = 101, 12  # of log hazards that are tried


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


def noised_risk_cuts(tables: Sequence[tuple[Float64, NoisedCounts]], bins: int) -> Float64:
    """Cuts between bins of about equal numbers of patients, as noised tables of the same patients show them.

    They are quantiles of the split normal that is likeliest: log hazards have one mode and, where few are at high risk,
    a long tail. A bin's count is taken as it is, also below 0: what is floored would look like patients far out. All
    modes and spreads of a grid are tried first, since far from the patients the likelihood is flat.

    Args:
        tables: each with its risk cuts (R - 1,); of all sites together.
        bins: number of bins.

    Returns:
        (bins - 1,) rising, finite, whatever the noise.

    Source: split normal: Wallis 2014, Statist Sci 29:106-112.
    """
    known = [(cuts, table.cells.sum(axis=(0, 2)), _bin_noise(table)) for cuts, table in tables]
    modes, left, right = np.meshgrid(
        np.linspace(-MOST_MEAN, MOST_MEAN, MODES), *2 * [np.geomspace(LEAST_SD, MOST_SD, SPREADS)]
    )
    tried = np.stack([modes.ravel(), np.log(left.ravel()), np.log(right.ravel())], axis=1)
    start: Float64 = np.array(tried[int(np.argmin(_misfit(tried, known)))])

    def misfit(at: Float64) -> float:
        return float(_misfit(at, known))

    spreads = (math.log(LEAST_SD), math.log(MOST_SD))
    limits = [(-MOST_MEAN, MOST_MEAN), spreads, spreads]
    best = minimize(misfit, start, method="Nelder-Mead", bounds=limits).x
    mode, low, high = float(best[0]), math.exp(best[1]), math.exp(best[2])
    wanted = np.arange(1, bins) / bins
    below = low / (low + high)
    inside = np.where(wanted < below, wanted / (2 * below), 0.5 + (wanted - below) / (2 * (1 - below)))
    return np.asarray(mode + np.where(wanted < below, low, high) * ndtri(inside))


def _misfit(at: Float64, known: Sequence[tuple[Float64, Float64, float]]) -> Float64:
    """-2 log likelihood (...) of the counts, by split normals at (..., 3): mode, log of the left and the right spread.

    Args:
        known: of each table its cuts, its counts, and the variance of their noise.
    """
    total = np.zeros(at.shape[:-1])
    for cuts, patients, noise in known:
        share = _split_normal_shares(cuts, at)
        number = np.maximum(share @ patients / (share**2).sum(axis=-1), 1.0)
        expected = number[..., None] * share
        variance = noise + expected * (1 - share)
        total += ((patients - expected) ** 2 / variance + np.log(variance)).sum(axis=-1)
    return total


def _split_normal_shares(cuts: Float64, at: Float64) -> Float64:
    """Of split normal variables, as `_misfit` has them, how much lies in each bin, (..., R)."""
    mode, low, high = at[..., :1], np.exp(at[..., 1:2]), np.exp(at[..., 2:])
    beyond = ndtr((cuts - mode) / np.where(cuts < mode, low, high))
    below = low / (low + high)
    reached = np.where(cuts < mode, 2 * below * beyond, below + (1 - below) * (2 * beyond - 1))
    return np.diff(reached, axis=-1, prepend=0.0, append=1.0)


def _bin_noise(table: NoisedCounts) -> float:
    """Variance of a risk bin's count by noise; 1 more, for counts that have none."""
    times, _, outcomes = table.cells.shape
    return float(times * outcomes * table.noise**2 + 1.0)


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
