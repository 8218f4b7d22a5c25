"""Parts of a cohort by patient, from nothing but the patients' names, their events and a seed.

In:  names, events, `SplitSection`. Out: the part of every patient, for each fold. Called by `build`.
The order of patients is that of HMAC-SHA256 of their names, keyed by the seed: the same on every machine and for every
order of rows, and without a random number generator whose stream another version might change.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort.build_settings import SplitSection

__all__ = ["keyed_order", "parts_by_patient"]

TRAIN, VALIDATION, TEST = "train", "validation", "test"
_KEY = "fedecg cohort split {seed}"


def keyed_order(names: Sequence[str], seed: int) -> NDArray[np.int64]:
    """(n,) indices of the names in the order of their keyed hashes."""
    key = _KEY.format(seed=seed).encode()
    digests = [hmac.new(key, name.encode(), hashlib.sha256).digest() for name in names]
    return np.array(sorted(range(len(names)), key=lambda one: (digests[one], names[one])), dtype=np.int64)


def parts_by_patient(
    names: Sequence[str], event: NDArray[np.bool_], split: SplitSection
) -> list[NDArray[np.str_]]:
    """The part of every patient: one array without folds, else one for each fold as the test part.

    Among the patients with an event, and among those without, each part has its share to within one patient. The folds'
    test parts do not overlap and make up the cohort.

    Args:
        names: (n,) each patient once. event: (n,).

    Returns:
        Arrays (n,) of "train", "validation" or "test".
    """
    order = keyed_order(names, split.seed)
    folds = [np.full(len(names), TRAIN, dtype="U10") for _ in range(split.folds or 1)]
    for has_event in (True, False):
        members = order[event[order] == has_event]
        for fold, part in enumerate(folds):
            test, rest = _test_part(members, split, fold)
            part[test] = TEST
            part[rest[: round(split.validation * len(members))]] = VALIDATION
    return folds


def _test_part(
    members: NDArray[np.int64], split: SplitSection, fold: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The test part and the others, each in their order."""
    if split.folds:
        edges = np.rint(np.arange(split.folds + 1) * len(members) / split.folds).astype(np.int64)
        first, last = edges[fold], edges[fold + 1]
    else:
        first, last = 0, round(split.test * len(members))
    return members[first:last], np.concatenate([members[:first], members[last:]])
