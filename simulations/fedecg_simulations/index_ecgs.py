"""One ECG a patient, its outcome and its part, as a `Dataset`.

In:  who the patients are, what their ECGs are said to show, where the files lie; what became of them; who is in which
     part. Out: one validated `Dataset`. Called by the loaders of sets with one ECG a patient: `simulated_outcomes`,
     `mimic_outcomes` and `table_folder`. Sets that come with numbers of patients (`ptbxl`, `code15`, `own_cohort`) keep
     them, and make theirs.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort import Cohort, split_by_patient
from fedecg.signals import Recording
from fedecg_simulations.dataset import Dataset

__all__ = [
    "SHARES",
    "SHARES_IN_WORDS",
    "IndexEcgs",
    "Outcomes",
    "Parts",
    "drawn_patients",
    "given_or_drawn",
    "with_outcomes",
]

SHARES = (0.7, 0.1, 0.2)  # of patients: training, validation, test
SHARES_IN_WORDS: Mapping[str, str] = {"train": "70 %", "validation": "10 %", "test": "20 %"}


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


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What became of the patients; (N,) each, as a `Cohort` has them.

    Attributes:
        known: "simulated" or "observed".
        true_log_hazard: (N,) of simulated ones; None: nobody knows it.
        endpoint: what the event is, in words.
    """

    event: NDArray[np.bool_]
    died: NDArray[np.bool_]
    follow_up_days: NDArray[np.float64]
    entry_days: NDArray[np.float64]
    known: Literal["simulated", "observed"]
    true_log_hazard: NDArray[np.float64] | None = None
    endpoint: str = Dataset.endpoint


@dataclass(frozen=True, eq=False)
class Parts:
    """Who is in which part: (N,) names, and how that came about, for the summary."""

    of: NDArray[np.str_]
    folds: Mapping[str, str]


def with_outcomes(ecgs: IndexEcgs, outcomes: Outcomes, parts: Parts) -> Dataset:
    """Join what is known of N patients.

    Raises:
        CohortError: FECG-221..230 as `Cohort.validate`.
    """
    size = len(ecgs.codes)
    cohort = Cohort(
        record=np.arange(size),
        patient=np.arange(size),
        part=parts.of,
        event=outcomes.event,
        follow_up_days=outcomes.follow_up_days,
        entry_days=outcomes.entry_days,
        died=outcomes.died,
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
        outcomes=outcomes.known,
        true_log_hazard=outcomes.true_log_hazard,
        folds=dict(parts.folds),
        notes=ecgs.notes,
        endpoint=outcomes.endpoint,
    )


def given_or_drawn(part: NDArray[np.str_] | None, event: NDArray[np.bool_], seed: int) -> Parts:
    """The set's own (N,) parts; where it has none, drawn by patient, the same shares with and without an event."""
    if part is not None:
        return Parts(part, {"note": "parts as the table has them"})
    rng = np.random.default_rng([seed, zlib.crc32(b"parts of a set")])
    drawn = split_by_patient(np.arange(len(event)), event, SHARES, rng)
    return Parts(drawn, {**SHARES_IN_WORDS, "note": "drawn by patient and event"})


def drawn_patients(size: int, patients: int, seed: int) -> NDArray[np.int64]:
    """(n,) rows of `patients` of `size`, drawn at random, ascending; all for 0, or more than there are."""
    if not 0 < patients < size:
        return np.arange(size)
    rng = np.random.default_rng([seed, zlib.crc32(b"patients of a set")])
    return np.sort(rng.permutation(size)[:patients])
