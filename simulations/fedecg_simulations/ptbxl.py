"""PTB-XL as a `Dataset`: its index ECGs (`fedecg.cohort.ptbxl`) with outcomes that are SIMULATED.

In:  a folder of PTB-XL as it is published.
Out: one index ECG a patient, parts from `strat_fold`, simulated outcomes (`ptbxl_hazard.py`): PTB-XL has no
     follow-up. Called by the simulation runner. No message names a patient, a date or a file of a record.

Source of the data set: Wagner et al. 2020, Scientific Data 7:154, doi 10.1038/s41597-020-0495-6; CC BY 4.0.
"""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from fedecg.cohort import Cohort
from fedecg.cohort.ptbxl import read_ptbxl
from fedecg.errors import CohortError
from fedecg.signals import read_recording
from fedecg_simulations.dataset import Dataset
from fedecg_simulations.ptbxl_hazard import log_hazard, simulate_follow_up

__all__ = ["OTHER_VERSIONS", "load_ptbxl"]

# Records of the versions before 1.0.3: they hold ECGs twice, and some patients under two numbers.
OTHER_VERSIONS = MappingProxyType({21_837: "1.0.0 or 1.0.1", 21_801: "1.0.2"})


def load_ptbxl(path: str | Path, records_hz: int, seed: int, event_fraction: float) -> Dataset:
    """Read the tables, choose the ECGs, and simulate outcomes. Signals are read later, by `recordings`.

    Args:
        path: folder of PTB-XL.
        records_hz: 100 or 500, which of the published recordings to use.
        seed: of the study; decides the simulated outcomes alone.
        event_fraction: share of simulated events, in (0, 1).

    Raises:
        CohortError: FECG-617 another version; FECG-621..624 as `read_ptbxl`; FECG-226 ages or likelihoods out of range.
    """
    _require_version(Path(path) / "ptbxl_database.csv")
    index, folder = read_ptbxl(path, records_hz), Path(path)
    hazard = log_hazard(index.age_years, index.female, index.codes)
    event, follow_up_days = simulate_follow_up(hazard, event_fraction, seed)
    ecgs = len(index.names)
    cohort = Cohort(
        record=np.arange(ecgs),
        patient=index.patient,
        part=index.part,
        event=event,
        follow_up_days=follow_up_days,
        entry_days=np.zeros(ecgs),
        died=np.zeros(ecgs, dtype=np.bool_),
        age_years=index.age_years,
        female=index.female,
        codes=index.codes,
        reports=index.reports,
    )
    cohort.validate()
    return Dataset(
        cohort=cohort,
        columns={"site": index.site, "device": index.device, "year": index.year},
        recordings=[partial(read_recording, folder / name) for name in index.names],
        source=f"ptbxl, {records_hz} Hz, {ecgs} records, sha256 {index.sha256}",
        outcomes="simulated",
        true_log_hazard=hazard,
        folds=index.folds,
        notes=index.notes,
    )


def _require_version(table: Path) -> None:
    """Before any signal is read. A part of the set has fewer records than any version; that is not judged here."""
    try:
        with table.open(encoding="utf-8", newline="") as file:
            records = sum(1 for _ in csv.reader(file)) - 1
    except (OSError, ValueError, csv.Error):
        return  # whoever reads it next says what is wrong with it
    if records in OTHER_VERSIONS:
        raise CohortError(
            "FECG-617",
            "version of ptbxl",
            found=f"{records:,} records, those of version {OTHER_VERSIONS[records]}",
            expected="21,799 records, those of version 1.0.3",
            fix="Fetch version 1.0.3: fedecg-simulate data fetch ptbxl PATH.",
        )
