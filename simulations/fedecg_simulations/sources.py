"""From `[data] source` to a `Dataset`.

In:  study settings. Out: patients, recordings (made or read later) and what a simulation alone knows.
Called by the runner and by `fedecg-simulate partition`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from fedecg.cohort import Cohort
from fedecg.config import DataSettings, StudySettings
from fedecg.errors import SettingsError
from fedecg.signals import Recording
from fedecg_simulations import synthetic
from fedecg_simulations.cinc2021 import load_cinc2021
from fedecg_simulations.code15 import load_code15
from fedecg_simulations.dataset import Dataset
from fedecg_simulations.mimic_iv_ecg import load_mimic_iv_ecg
from fedecg_simulations.own_cohort import load_own_cohort
from fedecg_simulations.ptbxl import load_ptbxl
from fedecg_simulations.synthetic import DEFAULT_SITES, Patients, consortium, make_recordings
from fedecg_simulations.table_folder import load_table_folder

__all__ = ["load_dataset"]

CHUNK = 64  # recordings made at once: the generator is fastest on stacks


def load_dataset(settings: StudySettings) -> Dataset:
    """The data set that `[data]` names.

    Raises:
        SettingsError: FECG-106 a published data set without its folder.
        FedecgError: whatever is wrong with that folder.
    """
    data = settings.data
    if data.source == "synthetic":
        return load_synthetic(settings)
    if not data.path:
        raise SettingsError(
            "FECG-106",
            "data.path",
            found="nothing",
            expected=f"the folder of {data.source} as published (cohort: the file cohort-files.csv)",
            fix="Give it with --data PATH.",
        )
    return LOADERS[data.source](data, settings.seed)


# Source -> its loader, called with `[data]` and the study's seed.
LOADERS: Mapping[str, Callable[[DataSettings, int], Dataset]] = {
    "cohort": lambda data, _: load_own_cohort(data.path),
    "code15": lambda data, seed: load_code15(data.path, seed),
    "ptbxl": lambda data, seed: load_ptbxl(data.path, data.records_hz, seed, data.event_fraction),
    "cinc2021": lambda data, seed: load_cinc2021(
        data.path, seed, data.event_fraction, data.sources, data.patients
    ),
    "mimic-iv-ecg": lambda data, seed: load_mimic_iv_ecg(
        data.path, seed, data.event_fraction, data.clinical, data.rules, data.patients
    ),
    "folder": lambda data, seed: load_table_folder(
        data.path, data.table, data.columns, seed, data.event_fraction
    ),
}


def load_synthetic(settings: StudySettings) -> Dataset:
    """The embedded consortium: every site's patients for training and validation, and its share of the test part."""
    sizes = settings.data.sites or DEFAULT_SITES
    groups = [
        patients
        for _, train, test in consortium(sizes, settings.data.test_patients, settings.seed)
        for patients in (train, test)
        if len(patients)
    ]
    total = sum(map(len, groups))
    joined = {
        name: np.concatenate([getattr(patients, name) for patients in groups])
        for name in ("part", "event", "follow_up_days", "age_years", "female", "true_log_hazard")
    }
    cohort = Cohort(
        record=np.arange(total),
        patient=np.arange(total),
        part=joined["part"],
        event=joined["event"],
        follow_up_days=joined["follow_up_days"],
        entry_days=np.zeros(total),
        died=np.zeros(total, dtype=np.bool_),
        age_years=joined["age_years"],
        female=joined["female"],
        codes=tuple(codes for patients in groups for codes in patients.codes),
        reports=tuple(report for patients in groups for report in patients.reports),
    )
    site = np.concatenate([np.full(len(patients), patients.site) for patients in groups])
    sized = ", ".join(f"{patients.site} {patients.generated_for} {len(patients)}" for patients in groups)
    return Dataset(
        cohort=cohort,
        columns={"site": site},
        recordings=[
            partial(_recording, patients, row) for patients in groups for row in range(len(patients))
        ],
        source=f"synthetic, generator {_generator_sha256()}, seed {settings.seed}, {sized}",
        outcomes="simulated",
        true_log_hazard=joined["true_log_hazard"],
        folds={"train": "generated", "validation": "generated", "test": "generated apart"},
    )


def _recording(patients: Patients, row: int) -> Recording:
    """One recording; its neighbours are made with it and kept until they are asked for."""
    chunk = _chunk(patients, row // CHUNK)
    return Recording(chunk[row % CHUNK], patients.rate_hz)


@lru_cache(maxsize=1)
def _chunk(patients: Patients, number: int) -> np.ndarray:
    rows = range(number * CHUNK, min((number + 1) * CHUNK, len(patients)))
    return make_recordings(patients, list(rows))


def _generator_sha256() -> str:
    """Hash of the generator's sources: another generator makes other ECGs, and needs another store."""
    folder = Path(synthetic.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
