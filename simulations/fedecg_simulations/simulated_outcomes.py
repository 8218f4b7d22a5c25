"""A `Dataset` whose outcomes are SIMULATED: for public sets that have ECGs and no follow-up.

In:  who the patients are, what their ECGs are said to show, where the files lie. Out: `Dataset` with outcomes of the
     stated hazard of `ptbxl_hazard`, parts drawn by patient, and the true log hazard. Called by `cinc2021`,
     `mimic_iv_ecg` and `table_folder`. Nothing about heart failure can be learned from such outcomes; whatever is
     trained on them says "simulated".
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort import Cohort, split_by_patient
from fedecg.errors import CohortError
from fedecg.signals import Recording
from fedecg_simulations.dataset import Dataset
from fedecg_simulations.ptbxl_hazard import log_hazard, simulate_follow_up

__all__ = ["DRAWN", "SHARES", "IndexEcgs", "drawn_parts", "drawn_patients", "with_simulated_outcomes"]

SHARES = (0.7, 0.1, 0.2)  # of patients: training, validation, test
DRAWN: Mapping[str, str] = {
    "train": "70 %",
    "validation": "10 %",
    "test": "20 %",
    "note": "drawn by patient and event",
}


@dataclass(frozen=True, eq=False)
class IndexEcgs:
    """One ECG a patient, N rows.

    Attributes:
        age_years: (N,), NaN = missing. female: (N,), 1, 0 or NaN = missing.
        codes: N dictionaries, SCP code -> likelihood in percent.
        columns: name -> (N,) str, what a partition by column splits on.
        recordings: N callables, each of which reads one ECG.
        source: data set, files and rows in one text: part of the signal store's key.
        notes: counts worth telling.
    """

    age_years: NDArray[np.float64]
    female: NDArray[np.float64]
    codes: tuple[dict[str, float], ...]
    columns: Mapping[str, NDArray[np.str_]]
    recordings: Sequence[Callable[[], Recording]]
    source: str
    notes: Mapping[str, int]


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
    cohort = Cohort(
        record=np.arange(size),
        patient=np.arange(size),
        part=drawn_parts(np.arange(size), event, seed) if part is None else part,
        event=event,
        follow_up_days=follow_up_days,
        entry_days=np.zeros(size),
        died=np.zeros(size, dtype=np.bool_),
        age_years=ecgs.age_years,
        female=ecgs.female,
        codes=ecgs.codes,
    )
    cohort.validate()
    return Dataset(
        cohort=cohort,
        columns=ecgs.columns,
        recordings=ecgs.recordings,
        source=ecgs.source,
        outcomes="simulated",
        true_log_hazard=hazard,
        folds=dict(DRAWN) if part is None else {"note": "parts as the table has them"},
        notes=ecgs.notes,
    )


def drawn_parts(patient: NDArray[np.int64], event: NDArray[np.bool_], seed: int) -> NDArray[np.str_]:
    """(N,) part of each row, by patient, the same shares with and without an event."""
    return split_by_patient(
        patient, event, SHARES, np.random.default_rng([seed, zlib.crc32(b"parts of a set")])
    )


def drawn_patients(size: int, patients: int, seed: int) -> NDArray[np.int64]:
    """(n,) rows of `patients` of `size`, drawn at random, ascending; all for 0, or more than there are."""
    if not 0 < patients < size:
        return np.arange(size)
    rng = np.random.default_rng([seed, zlib.crc32(b"patients of a set")])
    return np.sort(rng.permutation(size)[:patients])
