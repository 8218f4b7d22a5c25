"""Sites for tests of protected training: a real signal store of noise, a cohort, plain functions; nothing of pytest."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fedecg.cohort import Cohort
from fedecg.config import SignalSettings, StudySettings
from fedecg.model import Network, build_network
from fedecg.objectives import Baseline
from fedecg.privacy.dp_steps import Protection
from fedecg.signals import Recording, SignalStore, build_store
from fedecg.training import SiteData

RECORDS, SAMPLES, BANK_DIM, CODES = 40, 64, 6, 3
SIGNALS = SignalSettings(samples=SAMPLES)
EDGES = np.array([0.0, 100.0, 250.0, 500.0])


def noise_store(folder: Path) -> SignalStore:
    """40 recordings of noise that obey Einthoven's law, 3 s at 100 Hz."""
    rng = np.random.default_rng(2)

    def recording() -> Recording:
        one, two = 0.2 * rng.normal(size=(2, 300))
        chest = 0.2 * rng.normal(size=(6, 300))
        limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
        return Recording(np.vstack([*limb, chest]).astype(np.float32), 100.0)

    return build_store(folder, "k" * 64, SIGNALS, [recording() for _ in range(RECORDS)], powerline="none")


def site_of(store: SignalStore, rows=range(RECORDS), **columns) -> SiteData:
    """A site of some records, one a patient unless told; a third have the event, each states one of three codes."""
    at = np.asarray(rows, dtype=np.int64)
    rng = np.random.default_rng(3)
    days = rng.uniform(20, 600, RECORDS)
    cohort = Cohort(
        record=at,
        patient=at + 1000,
        part=np.array(["train"] * len(at), dtype=np.str_),
        event=at % 3 == 0,
        follow_up_days=days[at],
        entry_days=np.zeros(len(at)),
        died=np.zeros(len(at), dtype=bool),
        age_years=np.full(len(at), 60.0),
        female=np.zeros(len(at)),
        codes=({},) * len(at),
    )
    return SiteData("site", replace(cohort, **columns), store, np.eye(CODES, dtype=np.float32)[at % CODES])


def bank() -> np.ndarray:
    """(3, 6) float32."""
    vectors = np.random.default_rng(4).normal(size=(CODES, BANK_DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def study_with(**sections) -> StudySettings:
    """A protected study on the small network."""
    tree = {
        "signals": {"samples": SAMPLES},
        "model": {"size": "small"},
        "privacy": {"mode": "sample", "sums": "noised", "sampling-rate": 0.5},
    }
    for name, keys in sections.items():
        tree[name] = {**tree.get(name, {}), **keys}
    return StudySettings.model_validate(tree)


def small_network(settings: StudySettings) -> Network:
    return build_network(settings.model, SAMPLES, BANK_DIM, 5, intercepts=settings.survival.intercepts)


def baseline_of() -> Baseline:
    return Baseline(EDGES, np.array([0.05, 0.15, 0.3, 0.6]))


def known(seed: int):
    """A stand-in for the secret generator."""
    return lambda: np.random.default_rng(seed)


def protection_of(settings: StudySettings, noise: float = 1.0, seed: int | None = 9, **changes) -> Protection:
    """The study's protection with a generator that the test knows, or, without a seed, with the secret one."""
    plain = Protection.of(settings.privacy, noise)
    return replace(plain, **({} if seed is None else {"randomness": known(seed)}), **changes)


def weights_of(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([weight.detach().ravel().double() for weight in network.parameters()])
