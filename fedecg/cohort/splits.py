"""Train, validation and test parts by patient.

In:  patients and events, one entry a record, and the shares of the parts.
Out: (N,) part of each record. Called where a data set brings no split of its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort.cohort import PARTS
from fedecg.errors import CohortError

__all__ = ["split_by_patient"]


def split_by_patient(
    patient: NDArray[np.int64],
    event: NDArray[np.bool_],
    fractions: tuple[float, float, float],
    rng: np.random.Generator,
) -> NDArray[np.str_]:
    """Draw the part of every patient, separately among patients with and without an event.

    Among the patients with an event, and among those without, each part gets its share to within one patient.
    The result depends on the set of patients, not on the order of the rows.

    Args:
        patient: (N,) int64, pseudonymous index.
        event: (N,) bool; a patient counts as one with an event when any of the records says so.
        fractions: shares of train, validation and test; each >= 0, sum 1.
        rng: the only source of chance.

    Returns:
        (N,) str, "train", "validation" or "test"; all records of a patient have the same.

    Raises:
        CohortError: FECG-229 shares that are negative or do not add up to 1.
    """
    share = np.asarray(fractions, dtype=np.float64)
    if share.shape != (3,) or not np.all(share >= 0) or abs(share.sum() - 1) > 1e-9:
        raise CohortError(
            "FECG-229",
            "shares of the parts",
            found="shares that cannot be used",
            expected="three, >= 0, sum 1",
        )
    patients, row_patient = np.unique(patient, return_inverse=True)
    has_event = np.bincount(row_patient, weights=event, minlength=len(patients)) > 0
    part = np.empty(len(patients), dtype=f"U{max(map(len, PARTS))}")
    for stratum in (has_event, ~has_event):
        shuffled = rng.permutation(np.flatnonzero(stratum))
        edges = np.rint(np.cumsum(share)[:2] * len(shuffled)).astype(np.int64)
        for name, members in zip(PARTS, np.split(shuffled, edges), strict=True):
            part[members] = name
    return part[row_patient]
