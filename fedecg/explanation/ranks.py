"""Spearman's rank correlation of many maps at once.

In:  two arrays of maps. Out: one correlation a map. Called by `randomisation`, `stability` and `occlusion`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["spearman"]

Float64 = NDArray[np.float64]


def spearman(one: Float64, other: Float64) -> Float64:
    """Rank correlation along the last axis, ties at their mean rank; 0 where either map is constant.

    Args:
        one, other: (..., k); shapes broadcast.

    Returns:
        (...,) in [-1, 1]. A constant map ranks nothing, so it agrees with nothing.

    Source: Spearman 1904.
    """
    first, second = (_centred_ranks(values) for values in (one, other))
    product = (first * second).sum(axis=-1)
    scale = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    return np.asarray(np.divide(product, scale, out=np.zeros_like(product), where=scale > 0))


def _centred_ranks(values: Float64) -> Float64:
    from scipy.stats import rankdata  # 20 MB, which a coordinator does without

    return np.asarray(rankdata(values, axis=-1) - (values.shape[-1] + 1) / 2)
