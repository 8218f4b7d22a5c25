"""A real signal store with one planted feature, a cohort whose hazard grows with it, a linear network; plain functions.

Called by the fixtures of this folder, and by `killed_rounds.py`, which has no pytest.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from fedecg.cohort import Cohort
from fedecg.config import SignalSettings, StudySettings
from fedecg.signals import Recording, SignalStore, build_store
from fedecg.training import SiteData

RECORDS = 240
SAMPLES = 256
BANK_DIM = 6
SIGNALS = SignalSettings(samples=SAMPLES)


def recording(feature: float, rng: np.random.Generator) -> Recording:
    """5 s at 100 Hz: noise that obeys Einthoven's law, and `feature` mV of a 7 Hz wave in V2."""
    limb = 0.1 * rng.normal(size=(2, 500))
    one, two = limb
    augmented = [-(one + two) / 2, one - two / 2, two - one / 2]
    chest = 0.1 * rng.normal(size=(6, 500))
    chest[1] += feature * np.sin(2 * np.pi * 7 * np.arange(500) / 100)
    signal_mv = np.vstack([one, two, two - one, *augmented, chest]).astype(np.float32)
    return Recording(signal_mv, 100.0)


def planted_feature() -> np.ndarray:
    """(240,) the planted feature of each record."""
    return np.random.default_rng(1).normal(size=RECORDS)


def planted_store(folder: Path) -> SignalStore:
    rng = np.random.default_rng(2)
    records = [recording(0.3 * value, rng) for value in planted_feature()]
    return build_store(folder, "k" * 64, SIGNALS, records, powerline="none")


def planted_cohort() -> Cohort:
    """All records, one a patient; the hazard grows with the planted feature; whole weeks, so there are ties."""
    rng = np.random.default_rng(3)
    days = np.ceil(rng.exponential(600 * np.exp(-1.5 * planted_feature())) / 7) * 7
    censored = np.ceil(rng.uniform(100, 900, RECORDS) / 7) * 7
    return Cohort(
        record=np.arange(RECORDS),
        patient=np.arange(RECORDS) + 1000,
        part=np.array(["train"] * RECORDS),
        event=days <= censored,
        follow_up_days=np.minimum(days, censored),
        entry_days=np.zeros(RECORDS),
        died=np.zeros(RECORDS, dtype=bool),
        age_years=np.full(RECORDS, 60.0),
        female=np.zeros(RECORDS),
        codes=({},) * RECORDS,
    )


def planted_site(store: SignalStore, rows, name="site", **columns) -> SiteData:
    """A site of some records; its two codes state whether the feature is positive."""
    feature, at = planted_feature(), np.asarray(rows, dtype=np.int64)
    targets = np.stack([feature > 0, feature <= 0], axis=1).astype(np.float32)
    part = planted_cohort().select(at)
    return SiteData(name, Cohort(**{**part.__dict__, **columns}), store, targets[at])


def planted_bank() -> np.ndarray:
    """(2, 6) float32: two statements."""
    vectors = np.random.default_rng(4).normal(size=(2, BANK_DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def study_of(**sections) -> StudySettings:
    """Settings with some keys of the sections changed: `study_of(survival={...}, federation={...})`."""
    return StudySettings.model_validate({"signals": {"samples": SAMPLES}, **sections})


class LinearNetwork(nn.Module):
    """`fedecg.model.Network` in float64 with linear parts only, for equalities to 1e-6 and better."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(12 * SAMPLES, 4), nn.Dropout(dropout))
        self.risk = nn.Linear(4, 1, bias=False)
        self.projection = nn.Linear(4, BANK_DIM)
        self.decoder = nn.Linear(4, 12 * SAMPLES)
        self.temperature_scale = nn.Parameter(torch.tensor(-1.0))
        self.intercepts = nn.Parameter(torch.zeros(RECORDS))
        self.double()
        draw = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for weight in self.parameters():
                if weight.dim() == 2:
                    weight.normal_(0, weight.shape[1] ** -0.5, generator=draw)
                elif weight.dim() == 1:
                    weight.zero_()

    def embed(self, signal_mv, lead_mask=None):
        shown = signal_mv.double() if lead_mask is None else signal_mv.double() * lead_mask[:, None]
        return self.encoder(shown.flatten(1))

    def log_hazard(self, embedding):
        return self.risk(embedding).squeeze(1)

    def observe(self, embedding):
        """No running statistics."""

    def project(self, embedding):
        return self.projection(embedding)

    def reconstruct(self, embedding):
        return self.decoder(embedding).unflatten(1, (12, SAMPLES))

    def reconstruction_target(self, signal_mv):
        return signal_mv.double()

    @property
    def temperature(self):
        return self.temperature_scale.exp()
