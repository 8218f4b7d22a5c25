"""Aligned networks that studies share: what comes after alignment does not change it.

In:  a prepared study with `data.aligned`. Out: `DATA.ALIGNED/KEY/model` (made once), and settings that start from it.
Called by the runner, for the federated column. KEY is a hash of all that alignment sees: its settings, the network's,
the signals, seed, bank, code, and which ECGs state what at which site; not outcomes, and nothing of survival training.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort import ALIGN
from fedecg.config import SiteDefaults, StudySettings
from fedecg.fingerprint import code_fingerprint
from fedecg.text import load_bank
from fedecg_server.run_folder import read_json, write_json
from fedecg_simulations.columns import run_column
from fedecg_simulations.dataset import Dataset
from fedecg_simulations.sites import write_sites

__all__ = ["with_aligned_network"]

Parts = Mapping[str, NDArray[np.int64]]

ENTRY = "aligned.json"


def with_aligned_network(
    settings: StudySettings, dataset: Dataset, parts: Parts, store: Path, out: Path
) -> tuple[StudySettings, dict[str, Any] | None]:
    """Settings that start from a network aligned as they say, made first where there is none; and what is told of it.

    Settings without `data.aligned`, without alignment rounds, or that begin with another model come back as they are.

    Args:
        settings: of the study.
        dataset, parts: patients, and site name -> rows.
        store: folder of the signal store.
        out: the run's folder; alignment is run under `columns/`.

    Raises:
        FedecgError: whatever ends the alignment.
    """
    if not settings.data.aligned or not settings.align.rounds or settings.align.start:
        return settings, None
    folder = Path(settings.data.aligned) / _key(settings, dataset, parts, store)
    reused = (folder / ENTRY).exists()
    if not reused:
        _align(settings, dataset, parts, store, out / "columns" / "aligned", folder)
    told = {"network": folder.name, "reused": reused} | read_json(folder / ENTRY)
    start = settings.align.model_copy(update={"start": str(folder / "model"), "rounds": 0})
    return settings.model_copy(update={"align": start}), told


def _align(
    settings: StudySettings, dataset: Dataset, parts: Parts, store: Path, work: Path, folder: Path
) -> None:
    """Run alignment alone; the folder appears whole or not at all."""
    started = time.monotonic()
    learning = {name: rows[dataset.cohort.part[rows] != "test"] for name, rows in parts.items()}
    write_sites(
        dataset.cohort, store, learning, work / "sites", SiteDefaults(text=settings.site_defaults.text)
    )
    alone = settings.model_copy(
        update={
            "survival": settings.survival.model_copy(update={"rounds": 0}),
            "evaluation": settings.evaluation.model_copy(update={"explain": False, "baselines": False}),
        }
    )
    result = run_column(alone, work / "sites", work, "alignment")
    rounds = [record for record in read_json(work / "rounds.json") if record["stage"] == "align"]
    part = folder.with_name(f"{folder.name}.part-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(work / "model", part / "model")
    write_json(part / "rounds.json", rounds)
    entry = {
        "status": result["status"],
        "rounds": result["rounds"]["align"],
        "loss": {"first": rounds[0]["loss"], "last": rounds[-1]["loss"]},
        "seconds": round(time.monotonic() - started, 3),
    }
    write_json(part / ENTRY, entry)
    with suppress(OSError):  # another study was faster: its network has the same bits
        part.rename(folder)
    shutil.rmtree(part, ignore_errors=True)


def _key(settings: StudySettings, dataset: Dataset, parts: Parts, store: Path) -> str:
    seen = {
        "settings": settings.model_dump(
            by_alias=True,
            include={"seed", "signals", "model", "align", "federation", "privacy"},
            exclude={"federation": {"backend"}},
        ),
        "bank": load_bank(settings.align.bank).sha256,
        "text": settings.model_dump(by_alias=True)["site-defaults"]["text"],
        "code": code_fingerprint(),
        "store": store.name,
        "sites": {name: _statements(dataset, rows) for name, rows in parts.items()},
    }
    return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()[:32]


def _statements(dataset: Dataset, rows: NDArray[np.int64]) -> str:
    """Hash of a site's ECGs that alignment learns from and what each is said to show, in the order of its table."""
    cohort = dataset.cohort.select(rows[np.isin(dataset.cohort.part[rows], ("train", ALIGN))])
    text = json.dumps([cohort.record.tolist(), cohort.codes, cohort.reports])
    return hashlib.sha256(text.encode()).hexdigest()
