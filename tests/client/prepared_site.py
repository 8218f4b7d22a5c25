"""A site with ECGs of simulated patients and a network's weights, for tests that ask the real app; plain functions."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from asking import NOTHING_IS_SMALL, POLICY, write_site

from fedecg.cohort import read_cohort, write_cohort
from fedecg.config import DataSettings, StudySettings
from fedecg.model import build_network, stage_tensors, to_vector
from fedecg.signals import build_store, store_key
from fedecg.text import load_bank
from fedecg_simulations.sources import load_dataset


def prepared_site(
    folder: Path,
    study: StudySettings,
    patients: int = 40,
    tested: int = 5,
    policy: str = POLICY,
    privacy: str = NOTHING_IS_SMALL,
) -> Path:
    """A site's folder, not joined yet; `privacy` is that section of its site.toml."""
    data = DataSettings(sites={"city": patients}, test_patients=tested)
    dataset = load_dataset(study.model_copy(update={"data": data}))
    key = store_key(study.signals, dataset.source, "none")
    store = build_store(folder / "stores", key, study.signals, dataset.recordings, powerline="none")
    site = write_site(folder / "site", policy, privacy=privacy)
    shutil.copytree(store.folder, site / "store")
    write_cohort(dataset.cohort, site / "cohort.csv")
    return site


def many_events(site: Path) -> Path:
    """The same with an event for every other patient, at times all over ten years."""
    cohort = read_cohort(site / "cohort.csv")
    rng = np.random.default_rng(0)
    event = rng.random(len(cohort)) < 0.5
    days = np.where(event, rng.uniform(30, 3000, len(cohort)), rng.uniform(200, 3900, len(cohort)))
    write_cohort(replace(cohort, event=event, died=event & False, follow_up_days=days), site / "cohort.csv")
    return site


def first_weights(study: StudySettings, stage: str = "align") -> np.ndarray:
    """Those that a stage starts from."""
    bank = load_bank(study.align.bank)
    network = build_network(study.model, study.signals.samples, bank.vectors.shape[1], seed=0)
    return to_vector(network, stage_tensors(network, stage, stage == "align"))
