"""Simulated outcomes for PTB-XL, which has no follow-up: a stated hazard of heart failure.

In:  ages, sexes and SCP codes of the patients, the share of events that is wanted, a seed.
Out: log hazards, events and follow-up. Called by `ptbxl.py`; whatever is trained on them says "simulated".

The directions are those of the literature; the sizes are chosen, not estimated, so that a few hundred ECGs can
show something. Nothing about heart failure can be learned from them.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedecg.text import scp_statements

__all__ = ["EFFECTS", "Effect", "log_hazard", "simulate_follow_up"]

LOG_HAZARD_PER_DECADE = 0.15  # of age, from 60 years; a missing age counts as the median
LOG_HAZARD_OF_MEN = 0.2  # against women; a missing sex counts as half of it
WEIBULL_SHAPE = 1.2  # of the baseline: the hazard rises slowly with time
FOLLOW_UP_DAYS = 3652.0  # everybody's follow-up ends after ten years
LOST_PER_DAY = 0.02 / 365.25  # two in a hundred a year are lost before that


@dataclass(frozen=True)
class Effect:
    """A finding that raises the hazard when any of its codes is stated, whatever its likelihood."""

    finding: str
    log_hazard: float
    codes: frozenset[str]


def _of_class(superclass: str, *more: str) -> frozenset[str]:
    members = (code for code, statement in scp_statements().items() if statement.superclass == superclass)
    return frozenset([*members, *more])


# Each finding counts once a record; findings add up on the log scale.
EFFECTS = (
    Effect("myocardial infarction or Q waves", 0.9, _of_class("MI", "QWAVE")),
    Effect("hypertrophy or atrial enlargement", 0.8, _of_class("HYP", "VCLVH")),
    Effect("left bundle branch block", 1.0, frozenset({"CLBBB", "ILBBB"})),
    Effect("right bundle branch block or other wide QRS", 0.5, frozenset({"CRBBB", "IVCD"})),
    Effect("fascicular block", 0.3, frozenset({"LAFB", "LPFB"})),
    Effect("slow or blocked AV conduction", 0.4, frozenset({"1AVB", "2AVB", "3AVB", "LPR"})),
    Effect("atrial fibrillation or flutter", 1.0, frozenset({"AFIB", "AFLT"})),
    Effect("ST-T changes", 0.7, _of_class("STTC", "STD_", "INVT", "LOWT", "NT_", "TAB_")),
    Effect("low QRS voltage", 0.6, frozenset({"LVOLT"})),
    Effect("ventricular ectopy", 0.4, frozenset({"PVC", "BIGU", "TRIGU"})),
    Effect("sinus tachycardia", 0.4, frozenset({"STACH"})),
    Effect("pacemaker", 0.8, frozenset({"PACE"})),
)


def log_hazard(
    age_years: NDArray[np.float64], female: NDArray[np.float64], codes: Sequence[Mapping[str, float]]
) -> NDArray[np.float64]:
    """Log hazard of every patient, against a woman of 60 years without a finding.

    Args:
        age_years: (N,), NaN = missing, counts as the median of the known ones (60 where none is known).
        female: (N,), 1, 0, or NaN = missing.
        codes: N dictionaries, SCP code -> likelihood; likelihood 0 counts as stated.

    Returns:
        (N,) float64, no unit.
    """
    known = age_years[~np.isnan(age_years)]
    age = np.where(np.isnan(age_years), np.median(known) if len(known) else 60.0, age_years)
    male = 1 - np.where(np.isnan(female), 0.5, female)
    found = np.array(
        [[not effect.codes.isdisjoint(stated) for effect in EFFECTS] for stated in codes], dtype=np.float64
    ).reshape(len(codes), len(EFFECTS))
    effects = np.array([effect.log_hazard for effect in EFFECTS])
    hazard: NDArray[np.float64] = (
        LOG_HAZARD_PER_DECADE * (age - 60) / 10 + LOG_HAZARD_OF_MEN * male + found @ effects
    )
    return hazard


def simulate_follow_up(
    hazard: NDArray[np.float64], event_fraction: float, seed: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Draw the time to heart failure or to the end of follow-up, whichever comes first.

    Proportional hazards with a Weibull baseline. Its scale is set so that exactly the nearest whole number to
    `event_fraction` * N patients (at least 1, at most N - 1) have their event within their own follow-up.

    Args:
        hazard: (N,), log hazards, N >= 2.
        event_fraction: wanted share of events, in (0, 1).
        seed: of the study; no other draw of the study uses the same stream.

    Returns:
        event (N,) bool and follow_up_days (N,) float64, whole days, >= 1.
    """
    rng = np.random.default_rng([seed, zlib.crc32(b"ptbxl follow-up")])
    time = (rng.exponential(size=len(hazard)) / np.exp(hazard)) ** (1 / WEIBULL_SHAPE)
    censoring_days = np.minimum(FOLLOW_UP_DAYS, rng.exponential(1 / LOST_PER_DAY, size=len(hazard)))
    # A patient has the event when scale * time <= censoring, that is, for every scale up to this limit.
    limit = np.sort(censoring_days / time)[::-1]
    events = int(np.clip(round(event_fraction * len(hazard)), 1, len(hazard) - 1))
    scale_days = np.sqrt(limit[events - 1] * limit[events])
    event = scale_days * time <= censoring_days
    days = np.ceil(np.where(event, scale_days * time, censoring_days))
    return event, np.maximum(days, 1.0)
