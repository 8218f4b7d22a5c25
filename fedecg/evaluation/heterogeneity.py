"""How much sites differ: random-effects summary of one estimate a site, with an interval for a further site.

In:  an estimate and its standard error from each site (a C-index, a calibration slope, ...).
Out: `RandomEffects`: mean over sites with its interval, spread between sites, prediction interval.
Called by the coordinator's report, beside the pooled figure (which it does not replace: averaged C-indices are not
the C-index of all pairs).

Model: estimate_i ~ N(mu_i, se_i^2), mu_i ~ N(mu, tau^2); tau^2 by restricted maximum likelihood (REML), as
Debray et al. 2017 (BMJ 356:i6460) recommend for the performance of prediction models, with the interval of
Hartung and Knapp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import chdtrc, expit, logit, ndtri, stdtrit

__all__ = ["RandomEffects", "c_index_heterogeneity", "random_effects"]

GRID = 200  # places at which the slope of the likelihood is looked at, on a logarithmic scale
SMALLEST = 1e-8  # of them, as a share of the largest

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class RandomEffects:
    """Summary of k sites; NaN where k sites do not tell.

    Attributes:
        estimate: mean over sites; NaN if k = 0.
        ci_low, ci_high: its 95 % interval, t with k - 1 degrees of freedom (k = 1: the site's own, normal).
        prediction_low, prediction_high: 95 % interval for the true value at a further site, t with k - 2 degrees of
            freedom; NaN if k < 3. With few sites of moderate spread it is too narrow: 10 sites with tau as large as
            their errors, 89 % of further sites inside; 94 % at 40 sites or at twice that tau (simulated;
            so found too by Partlett, Riley 2017, Stat Med 36:301-17).
        se: standard error of the mean, on the scale of the model (logit for C).
        tau: standard deviation between sites, on the scale of the model; NaN if k < 2.
        i_squared: 0..1, share of the variation between estimates that is not sampling; NaN if k < 2.
        q: Cochran's Q; 0 if k < 2.
        q_p_value: p of Q, chi-square with k - 1 degrees of freedom; NaN if k < 2.
        sites: k, the sites that entered.
        left_out: sites without a usable estimate and standard error.
    """

    estimate: float
    ci_low: float
    ci_high: float
    prediction_low: float
    prediction_high: float
    se: float
    tau: float
    i_squared: float
    q: float
    q_p_value: float
    sites: int
    left_out: int


def c_index_heterogeneity(c_index: ArrayLike, se: ArrayLike) -> RandomEffects:
    """Summary of sites' C-indices, on the logit scale; estimate and intervals are returned as C-indices.

    Args:
        c_index: (k,) 0..1; NaN, 0 and 1 have no place on the logit scale and are left out.
        se: (k,) standard errors of the C-indices; NaN, inf and 0 are left out.

    Source: Snell, Ensor, Debray, Moons, Riley 2018, Stat Methods Med Res 27:3505-22 (logit scale for C).
    """
    index, error = np.asarray(c_index, dtype=np.float64), np.asarray(se, dtype=np.float64)
    inside = (index > 0) & (index < 1)
    index = np.where(inside, index, 0.5)
    on_logit = random_effects(np.where(inside, logit(index), np.nan), error / (index * (1 - index)))
    return RandomEffects(
        estimate=float(expit(on_logit.estimate)),
        ci_low=float(expit(on_logit.ci_low)),
        ci_high=float(expit(on_logit.ci_high)),
        prediction_low=float(expit(on_logit.prediction_low)),
        prediction_high=float(expit(on_logit.prediction_high)),
        se=on_logit.se,
        tau=on_logit.tau,
        i_squared=on_logit.i_squared,
        q=on_logit.q,
        q_p_value=on_logit.q_p_value,
        sites=on_logit.sites,
        left_out=on_logit.left_out,
    )


def random_effects(estimate: ArrayLike, se: ArrayLike) -> RandomEffects:
    """Summary of sites' estimates of anything that is about normal; the order of the sites does not matter.

    The variance of Hartung and Knapp is not taken below that of the ordinary random-effects mean: with few sites
    that happen to agree it would claim too much.

    Args:
        estimate: (k,) one a site; those that are not finite are left out.
        se: (k,) their standard errors; those that are not finite and > 0 are left out.

    Source: REML: Viechtbauer 2005, J Educ Behav Stat 30:261-93; interval: Hartung, Knapp 2001, Stat Med 20:3875-89,
        bounded as in Röver, Knapp, Friede 2015, BMC Med Res Methodol 15:99; prediction interval: Higgins, Thompson,
        Spiegelhalter 2009, J R Stat Soc A 172:137-59, Riley, Higgins, Deeks 2011, BMJ 342:d549; I^2: Higgins,
        Thompson 2002, Stat Med 21:1539-58.
    """
    values, variances, left_out = _usable(estimate, se)
    k = values.size
    if k < 2:
        return _one_or_none(values, variances, left_out)
    q = float(_squares(values, variances, 0.0))
    tau_squared = _reml(values, variances)
    mean, mean_variance = _mean(values, variances, tau_squared)
    inflation = float(_squares(values, variances, tau_squared)) / (k - 1)
    se_mean = math.sqrt(mean_variance * max(1.0, inflation))
    margin = float(stdtrit(k - 1, 0.975)) * se_mean
    spread = math.nan
    if k > 2:
        spread = float(stdtrit(k - 2, 0.975)) * math.hypot(se_mean, math.sqrt(tau_squared))
    return RandomEffects(
        estimate=mean,
        ci_low=mean - margin,
        ci_high=mean + margin,
        prediction_low=mean - spread,
        prediction_high=mean + spread,
        se=se_mean,
        tau=math.sqrt(tau_squared),
        i_squared=max(0.0, 1 - (k - 1) / q) if q else 0.0,
        q=q,
        q_p_value=float(chdtrc(k - 1, q)),
        sites=k,
        left_out=left_out,
    )


def _usable(estimate: ArrayLike, se: ArrayLike) -> tuple[Float64, Float64, int]:
    """Estimates and variances of the sites that can be used, in an order of their own, and how many cannot."""
    values, errors = np.asarray(estimate, dtype=np.float64), np.asarray(se, dtype=np.float64)
    usable = np.isfinite(values) & np.isfinite(errors) & (errors > 0)
    values, errors = values[usable], errors[usable]
    order = np.lexsort((errors, values))  # so that the order of the sites leaves no trace in the last bits
    return values[order], errors[order] ** 2, int(np.count_nonzero(~usable))


def _one_or_none(values: Float64, variances: Float64, left_out: int) -> RandomEffects:
    mean, se = (float(values[0]), math.sqrt(variances[0])) if values.size else (math.nan, math.nan)
    margin = float(ndtri(0.975)) * se
    nothing = math.nan
    return RandomEffects(
        estimate=mean,
        ci_low=mean - margin,
        ci_high=mean + margin,
        prediction_low=nothing,
        prediction_high=nothing,
        se=se,
        tau=nothing,
        i_squared=nothing,
        q=0.0,
        q_p_value=nothing,
        sites=values.size,
        left_out=left_out,
    )


def _reml(values: Float64, variances: Float64) -> float:
    """tau^2 >= 0 of the highest restricted likelihood: 0, or a place where its slope turns from up to down."""
    reach = 4 * float(np.ptp(values)) ** 2  # the slope falls from here on
    if reach == 0:
        return 0.0
    grid = np.concatenate([[0.0], reach * np.geomspace(SMALLEST, 1, GRID)])
    rising = _slope(grid, values, variances) > 0
    tops = np.flatnonzero(rising[:-1] & ~rising[1:])
    found = [
        float(
            brentq(
                lambda x: float(_slope(x, values, variances)), grid[top], grid[top + 1], xtol=1e-14 * reach
            )
        )
        for top in tops
    ]
    return max([0.0, *found], key=lambda tau_squared: _log_likelihood(tau_squared, values, variances))


def _log_likelihood(tau_squared: float, values: Float64, variances: Float64) -> float:
    """Restricted log-likelihood, but for a constant."""
    total = variances + tau_squared
    squares = _squares(values, variances, tau_squared)
    return -0.5 * float(np.log(total).sum() + np.log((1 / total).sum()) + squares)


def _slope(tau_squared: Float64 | float, values: Float64, variances: Float64) -> Float64:
    """Twice the derivative of the restricted log-likelihood by tau^2, at one place or at several."""
    weight = 1 / (variances + np.expand_dims(tau_squared, -1))
    total = weight.sum(axis=-1)
    mean = (weight * values).sum(axis=-1) / total
    squared = weight**2
    spread = (squared * (values - mean[..., np.newaxis]) ** 2).sum(axis=-1)
    return np.asarray(squared.sum(axis=-1) / total - total + spread)


def _mean(values: Float64, variances: Float64, tau_squared: float) -> tuple[float, float]:
    """Weighted mean and its variance."""
    weight = 1 / (variances + tau_squared)
    return float(weight @ values / weight.sum()), float(1 / weight.sum())


def _squares(values: Float64, variances: Float64, tau_squared: float) -> float:
    """Sum of squared standardised distances from the mean; Cochran's Q where tau^2 is 0."""
    mean, _ = _mean(values, variances, tau_squared)
    return float(((values - mean) ** 2 / (variances + tau_squared)).sum())
