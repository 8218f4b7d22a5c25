"""Synthetic ECGs, patients and hospitals with a known hazard of heart failure.

    findings.TABLE -> sites -> physiology -> hazard, statements, dipole -> recording -> consortium -> calibration

In:  site names with numbers of patients, a seed. Out: `Patients` and recordings. Called by the simulation runner.
"""

from fedecg_simulations.synthetic.consortium import (
    SITE_PROFILES,
    Patients,
    consortium,
    make_patients,
    make_recordings,
)
from fedecg_simulations.synthetic.sites import DEFAULT_SITES, SiteProfile

__all__ = [
    "DEFAULT_SITES",
    "SITE_PROFILES",
    "Patients",
    "SiteProfile",
    "consortium",
    "make_patients",
    "make_recordings",
]
