"""What any network must beat: a Cox model of age and sex alone.

In:  cohorts. Out: log hazards. Called by simulations, for pooled patients, and by a site for its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort import Cohort
from fedecg.errors import ModelError
from fedecg.objectives.linear_cox import CoxSettings, fit_linear_cox
from fedecg.objectives.linear_cox_sums import CoxPatients

__all__ = ["age_sex_risk", "covariate_risk"]

Floats = NDArray[np.float64]
PENALTY = 1e-3  # ridge: keeps a fit with few events finite, changes nothing else


def age_sex_risk(train: Cohort, test: Cohort) -> Floats | None:
    """Log hazard (n,) of a Cox model of age and sex, fitted to the training patients from their entry on.

    None where no column is left, or the model cannot be fitted (no event).
    """
    return covariate_risk(train, test, {}, {})


def covariate_risk(
    train: Cohort, test: Cohort, measured: Mapping[str, Floats], measured_test: Mapping[str, Floats]
) -> Floats | None:
    """The same with more columns, as heart rate and QRS duration.

    Missing values take the training median; a column without two different training values is left out. None where
    none is left, or the model cannot be fitted (no event).

    Args:
        train, test: cohorts.
        measured, measured_test: name -> (n,) of their patients, NaN where missing.
    """
    known, later_known = _age_sex(train) | dict(measured), _age_sex(test) | dict(measured_test)
    use = [name for name, values in known.items() if np.unique(values[~np.isnan(values)]).size > 1]
    if not use:
        return None
    median = np.array([np.nanmedian(known[name]) for name in use])
    own, later = (
        np.where(np.isnan(x), median, x)
        for x in (np.column_stack([part[name] for name in use]) for part in (known, later_known))
    )
    patients = CoxPatients(train.follow_up_days, train.event, own, train.entry_days)
    try:
        return fit_linear_cox([patients], use, CoxSettings(penalty=PENALTY)).log_hazard(later)
    except ModelError:
        return None


def _age_sex(cohort: Cohort) -> dict[str, Floats]:
    return {"age": cohort.age_years, "female": cohort.female}
