"""What any network must beat: a Cox model of age and sex alone.

In:  cohorts. Out: log hazards. Called by simulations, for pooled patients, and by a site for its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort import Cohort
from fedecg.errors import ModelError
from fedecg.objectives.linear_cox import CoxSettings, fit_linear_cox
from fedecg.objectives.linear_cox_sums import CoxPatients

__all__ = ["age_sex_risk"]

Floats = NDArray[np.float64]
PENALTY = 1e-3  # ridge: keeps a fit with few events finite, changes nothing else


def age_sex_risk(train: Cohort, test: Cohort) -> Floats | None:
    """Log hazard (n,) of a Cox model of age and sex, fitted to the training patients from their entry on.

    Missing values take the training median; a column without two different training values is left out. None where
    neither is left, or the model cannot be fitted (no event).
    """
    known = _age_sex(train)
    use = [name for name, values in known.items() if np.unique(values[~np.isnan(values)]).size > 1]
    if not use:
        return None
    median = np.array([np.nanmedian(known[name]) for name in use])
    own, later = (
        np.where(np.isnan(x), median, x)
        for x in (np.column_stack([_age_sex(part)[name] for name in use]) for part in (train, test))
    )
    patients = CoxPatients(train.follow_up_days, train.event, own, train.entry_days)
    try:
        return fit_linear_cox([patients], use, CoxSettings(penalty=PENALTY)).log_hazard(later)
    except ModelError:
        return None


def _age_sex(cohort: Cohort) -> dict[str, Floats]:
    return {"age": cohort.age_years, "female": cohort.female}
