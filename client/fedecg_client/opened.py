"""What a site opens for a task: the study's settings, its own data, and a network that holds the weights that came.

In:  the site's folder, a task, the weights it carries. Out: settings, `SiteData`, `Network`; statements of the bank.
Called by whatever does a task. Data and network are opened once a process and reused from round to round.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedecg.config import (
    AlignSettings,
    ModelSettings,
    SignalSettings,
    Stage,
    StudySettings,
    load_site,
    parse_settings,
)
from fedecg.errors import FederationError
from fedecg.federation.documents import Part
from fedecg.federation.tasks import Task
from fedecg.model import Network, build_network, load_vector, tensors_of_stage
from fedecg.privacy.withdrawal import withdrawn_state
from fedecg.text import Bank, load_bank
from fedecg.text.left_out import shown_vectors
from fedecg.training import SiteData, load_site_data
from fedecg_client import plain_sums
from fedecg_client.own_bank import require_agreed_bank, with_own_bank
from fedecg_client.own_norms import with_own_norms

__all__ = [
    "Rows",
    "State",
    "Weights",
    "bank_of",
    "observed_from_the_ecg",
    "opened",
    "settings_here",
    "state_of_data",
    "statements",
    "trained_names",
]

Weights = NDArray[Any] | None  # float32; a trained update may be a change in 16 bits
Rows = NDArray[np.int64]
State = tuple[tuple[str | int, ...], ...]  # of a site's files


def opened(folder: Path, task: Task, weights: Weights) -> tuple[SiteData, Network, StudySettings]:
    """The site's data and a network that holds the weights that came; with fedbn, and the site's own norms."""
    settings = settings_here(folder, task)
    torch.set_num_threads(settings.federation.threads)
    require_agreed_bank(folder, task, settings, bank_of(settings))
    site = _site_data(folder, state_of_data(folder), settings.signals, settings.align, settings.seed)
    plain_sums.admit(folder, site.cohort, plain_sums.thresholds_of(folder, settings))
    network = _network(
        settings.model, settings.signals.samples, settings.align.bank, settings.survival.intercepts
    )
    if weights is None or weights.dtype != np.float32:
        raise FederationError(
            "FECG-504", f"{task.stage} task", found="no float32 weights", expected="one float32 vector"
        )
    load_vector(network, trained_names(network, settings, task.stage), weights)
    if settings.federation.algorithm == "fedbn":
        with_own_norms(folder, task, network)
    return site, network, settings


def settings_here(folder: Path, task: Task) -> StudySettings:
    """The study's settings, with the site's own copy of the bank."""
    return with_own_bank(folder, parse_settings(StudySettings, task.settings))


def statements(settings: StudySettings) -> NDArray[np.float32]:
    """(K, D) statements that alignment is shown."""
    return shown_vectors(bank_of(settings), settings.align.leave_out)


def bank_of(settings: StudySettings) -> Bank:
    """The study's code bank."""
    return _bank_named(settings.align.bank)


@lru_cache(maxsize=2)
def _bank_named(name: str) -> Bank:
    return load_bank(name)


@lru_cache(maxsize=1)
def _network(model: ModelSettings, samples: int, bank: str, intercepts: int) -> Network:
    """Room for weights: every task brings those that it needs."""
    return build_network(model, samples, _bank_named(bank).vectors.shape[1], seed=0, intercepts=intercepts)


def state_of_data(folder: Path) -> State:
    """Changes when the site's name or any file of its data is replaced, so that a mended table is read anew."""
    site = load_site(folder / "site.toml")
    files = [
        Path(site.cohort),
        Path(site.store) / "store.json",
        *([Path(site.text.reports)] if site.text else []),
    ]
    found = [(file.stat().st_mtime_ns, file.stat().st_size) if file.exists() else (0, 0) for file in files]
    text = site.text.model_dump_json() if site.text else ""
    return (site.name, site.cohort, site.store, text), *found, withdrawn_state(folder)


@lru_cache(maxsize=64)
def _site_data(
    folder: Path, state: State, signals: SignalSettings, align: AlignSettings, seed: int
) -> SiteData:
    del state  # part of the key alone
    settings = StudySettings(signals=signals, align=align, seed=seed)
    return load_site_data(folder, settings, _bank_named(align.bank))


def trained_names(network: Network, settings: StudySettings, stage: Stage) -> tuple[str, ...]:
    """Tensors that a stage trains and a message carries."""
    return tensors_of_stage(network, settings, stage)


def observed_from_the_ecg(site: SiteData, part: Part) -> Rows:
    """Rows of a part; FECG-517 where anybody enters after their ECG."""
    rows = site.rows(part)
    late = int(np.sum(site.entry_days(rows) > 0))
    if late:
        raise FederationError(
            "FECG-517",
            f"{part} part of the cohort",
            found=f"{late} of {len(rows)} patients who enter after their ECG",
            expected="patients observed from their ECG on: curves and weights do not know late entries",
            fix="Evaluate on patients with entry_days = 0; training takes late entries into account.",
        )
    return rows
