"""Virtual sites as folders of their own, to try a real deployment with: what a hospital would have on its disk.

In:  settings and a folder. Out: `FOLDER/NAME/cohort.csv` and `FOLDER/NAME/store/`, one a site; nothing is shared.
Called by `fedecg-simulate hospitals`; `fedecg-client init` takes it from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort import write_cohort
from fedecg.config import StudySettings
from fedecg.errors import RunError
from fedecg.files import write_whole
from fedecg.progress import Advance, Progress
from fedecg.signals import build_store, store_key
from fedecg_simulations.dataset import Dataset
from fedecg_simulations.partitions import virtual_sites
from fedecg_simulations.sources import load_dataset

__all__ = ["write_hospitals"]

NOTE = "Made by fedecg-simulate hospitals: ECGs are {ecgs}, outcomes are {outcomes}. Not for clinical use.\n"


def write_hospitals(settings: StudySettings, out: Path, progress: Progress) -> dict[str, int]:
    """Write a folder a virtual site; returns patients by site.

    Recordings that the store refuses are left out of the cohort.

    Raises:
        RunError: FECG-607 if the folder holds something already.
        FedecgError: whatever makes the data impossible.
    """
    if out.exists() and any(out.iterdir()):
        raise RunError(
            "FECG-607",
            "folder for the hospitals",
            found="one that is not empty",
            expected="a new or an empty folder",
            fix="Choose another --out.",
        )
    dataset, parts = virtual_sites(
        load_dataset(settings), settings.partition, settings.seed, settings.data.events, settings.drift
    )
    patients = {}
    for name, rows in parts.items():
        with progress.task(f"preparing the ECGs of {name}", len(rows)) as advance:
            patients[name] = _write(dataset, rows, settings, out / name, partial(_told, advance))
    return patients


def _told(advance: Advance, done: int, _: int) -> None:
    advance(done)


def _write(
    dataset: Dataset,
    rows: NDArray[np.int64],
    settings: StudySettings,
    folder: Path,
    advance: Callable[[int, int], None],
) -> int:
    key = store_key(settings.signals, f"{dataset.source} {folder.name}", settings.signals.powerline)
    cohort = dataset.cohort.select(rows)
    recordings = [dataset.recordings[record] for record in cohort.record]
    store = build_store(
        folder / "store",
        key,
        settings.signals,
        recordings,
        powerline=settings.signals.powerline,
        progress=advance,
    )
    usable = np.array(store.codes) == ""
    numbered = replace(cohort, record=np.arange(len(rows), dtype=cohort.record.dtype)).select(usable)
    write_cohort(numbered, folder / "cohort.csv")
    ecgs = "synthetic" if settings.data.source == "synthetic" else "public"
    write_whole(folder / "ORIGIN.txt", NOTE.format(ecgs=ecgs, outcomes=dataset.outcomes.upper()))
    return int(usable.sum())
