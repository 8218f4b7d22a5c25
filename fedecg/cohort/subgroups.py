"""The subgroups that a study's evaluation looks at: sex and bands of age.

In:  a `Cohort`. Out: who belongs to which, (N, S) bool. Called by the client and by whoever evaluates a model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort.cohort import Cohort

__all__ = ["SUBGROUPS", "subgroup_members"]

AGE_BANDS_YEARS = {
    "age below 50": (0, 50),
    "age 50-64": (50, 65),
    "age 65-74": (65, 75),
    "age 75 and above": (75, 999),
}
SUBGROUPS = ("female", "male", *AGE_BANDS_YEARS)


def subgroup_members(cohort: Cohort) -> NDArray[np.bool_]:
    """(N, S) bool in the order of `SUBGROUPS`; a patient whose age or sex is missing is in none of these."""
    sexes = [cohort.female == 1, cohort.female == 0]
    bands = [(cohort.age_years >= low) & (cohort.age_years < high) for low, high in AGE_BANDS_YEARS.values()]
    return np.stack([*sexes, *bands], axis=1)
