"""Log-rank test of the groups of risk, from life tables alone.

In:  one `LifeTable` (of one site, of pooled patients, or summed over sites), or one for each stratum.
Out: `LogRank`. Called by the coordinator and by the report, beside the survival curves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from fedecg.errors import FederationError
from fedecg.evaluation.life_table import LifeTable, divided

__all__ = ["LogRank", "log_rank"]

NO_VARIANCE = 1e-10  # share of a group's variance below which a contrast is none

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LogRank:
    """Test that all groups have the same hazard of the event.

    Attributes:
        chi_square: the statistic; NaN, as p_value, where nothing can be compared (df 0).
        degrees_of_freedom: number of independent contrasts, with k groups at risk together k - 1.
        p_value: from the chi-square distribution.
        observed: (G,) events.
        expected: (G,) events if the hazard were the same in all groups of a stratum.
    """

    chi_square: float
    degrees_of_freedom: int
    p_value: float
    observed: Int64
    expected: Float64


def log_rank(strata: Sequence[LifeTable]) -> LogRank:
    """Compare the groups' hazards of the event within each stratum; deaths before it count as censored.

    One table is the ordinary test; one table a site is the test stratified by site, which does not take a
    difference between sites for one between groups. Strata may have bins of their own.

    Args:
        strata: at least one table; the same groups in all of them.

    Raises:
        FederationError: FECG-525 no table, FECG-531 strata of different groups.

    Source: Mantel 1966; Peto, Peto 1972, J R Stat Soc A 135:185-207; hypergeometric variance.
    """
    if not strata:
        raise FederationError(
            "FECG-525", "log-rank test", found="0 life tables", expected="at least one, the sum or one a site"
        )
    for table in strata:
        strata[0].refuse_other(table, "group_cuts")
    observed = np.stack([table.exits[..., 1].sum(axis=1) for table in strata]).sum(axis=0)
    parts = [_expected_and_covariance(table) for table in strata]
    expected = np.sum([part[0] for part in parts], axis=0)
    chi_square, contrasts = _chi_square(observed - expected, np.sum([part[1] for part in parts], axis=0))
    p_value = float(chdtrc(contrasts, chi_square)) if contrasts else math.nan
    return LogRank(chi_square, contrasts, p_value, observed, expected)


def _expected_and_covariance(table: LifeTable) -> tuple[Float64, Float64]:
    """(G,) expected events of each group and (G, G) covariance, given the numbers at risk in each bin."""
    at_risk, events = table.at_risk, table.exits[..., 1].sum(axis=0)
    everybody = at_risk.sum(axis=0)
    share = divided(at_risk, everybody)
    spread = events * divided(everybody - events, everybody - 1)
    return share @ events, np.diag(share @ spread) - (share * spread) @ share.T


def _chi_square(difference: Float64, covariance: Float64) -> tuple[float, int]:
    """Quadratic form in a generalised inverse, and the rank; groups are scaled, so that small ones are not lost."""
    scale = np.sqrt(np.diag(covariance))
    present = scale > 0
    if not present.any():
        return math.nan, 0
    scaled = (difference / np.where(present, scale, 1))[present]
    values, vectors = np.linalg.eigh(
        (covariance[present] / scale[present, None])[:, present] / scale[present]
    )
    kept = values > NO_VARIANCE
    return float(np.sum((scaled @ vectors[:, kept]) ** 2 / values[kept])), int(kept.sum())
