"""Sums of a table's columns about a public centre: what a site sends so that all can standardise by the pooled mean.

In:  at a site: values (N, p) and a centre (p,) that all sites were given. Out: `ColumnSums`, which add up over sites.
Called by `linear_cox` and `linear_logistic`. Pure, numpy float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ColumnSums", "column_sums"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ColumnSums:
    """Sums about a public centre; they add up over sites.

    Attributes:
        rows: how many.
        total: (p,) sum of x - centre.
        squares: (p,) sum of (x - centre)^2.
    """

    rows: int
    total: Floats
    squares: Floats

    def __add__(self, other: ColumnSums) -> ColumnSums:
        return ColumnSums(self.rows + other.rows, self.total + other.total, self.squares + other.squares)


def column_sums(values: Floats, centre: Floats) -> ColumnSums:
    """A site's sums about a centre (p,) that all sites were given: 0 first, then the pooled mean.

    Not finite where a square leaves the range of float64.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        about = values - centre
        return ColumnSums(len(about), about.sum(axis=0), (about**2).sum(axis=0))
