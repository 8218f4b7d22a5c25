"""A `Dataset` whose outcomes are SIMULATED: for public sets that have ECGs and no follow-up.

In:  who the patients are, what their ECGs are said to show, where the files lie. Out: `Dataset` with outcomes of the
     stated hazard of `ptbxl_hazard`, parts drawn by patient, and the true log hazard. Called by `cinc2021`,
     `mimic_iv_ecg` and `table_folder`. Nothing about heart failure can be learned from such outcomes; whatever is
     trained on them says "simulated".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import CohortError
from fedecg_simulations.dataset import Dataset
from fedecg_simulations.index_ecgs import IndexEcgs, Outcomes, given_or_drawn, with_outcomes
from fedecg_simulations.ptbxl_hazard import log_hazard, simulate_follow_up

__all__ = ["with_simulated_outcomes"]


def with_simulated_outcomes(
    ecgs: IndexEcgs, seed: int, event_fraction: float, part: NDArray[np.str_] | None = None
) -> Dataset:
    """Draw outcomes, and parts unless the set has its own.

    Args:
        ecgs: N >= 2 patients.
        seed: of the study; decides outcomes and parts.
        event_fraction: share of simulated events, in (0, 1).
        part: (N,) of the set's own.

    Raises:
        CohortError: FECG-616 fewer than two ECGs; FECG-221..230 as `Cohort.validate`.
    """
    size = len(ecgs.codes)
    if size < 2:
        raise CohortError(
            "FECG-616",
            "data set",
            found=f"{size} ECG(s) that can be used",
            expected="at least 2",
            fix="Check the folder: fedecg-simulate data check NAME PATH.",
        )
    hazard = log_hazard(ecgs.age_years, ecgs.female, ecgs.codes)
    event, follow_up_days = simulate_follow_up(hazard, event_fraction, seed)
    outcomes = Outcomes(
        event=event,
        died=np.zeros(size, dtype=np.bool_),
        follow_up_days=follow_up_days,
        entry_days=np.zeros(size),
        known="simulated",
        true_log_hazard=hazard,
    )
    return with_outcomes(ecgs, outcomes, given_or_drawn(part, event, seed))
