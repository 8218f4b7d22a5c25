"""An attacker who has one update and wants the ECG that it was learned from; plain functions, no pytest.

In:  the network before a round, what the round changed. Out: the signals whose gradient is most like that change.
The attacker knows everything but the signal: weights, loss, outcome, that one step of plain gradient descent was made
on one record of a site, no dropout, and that limb leads obey Einthoven's law. All of that is in its favour.

Source: Geiping et al. 2020, arXiv 2003.14053 (cosine distance of gradients, total variation), here layer by layer.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from dp_sites import bank, baseline_of, protection_of, site_of, study_with
from scipy.optimize import brentq
from torch import Tensor

from fedecg.config import SignalSettings, StudySettings
from fedecg.model import Network, build_network
from fedecg.objectives import pooled_cox_loss
from fedecg.privacy.accountant import Spend, epsilon_of
from fedecg.signals import SignalStore, build_store, read_recording
from fedecg.training import SiteData, train_survival

SAMPLES = 128  # 1.28 s: a beat or two
EPSILON, DELTA = 8.0, 1e-5
SMOOTH = 1e-2  # weight of the total variation


@dataclass(frozen=True, eq=False)
class Victim:
    """A site of one patient, what it sent, and what it hides."""

    site: SiteData
    update: list[Tensor]
    signal_mv: Tensor


def real_store(folder: Path, data_root: Path) -> SignalStore:
    """A few ECGs of PTB-XL."""
    headers = sorted((data_root / "ptbxl" / "records500").rglob("*.hea"))[:40]
    recordings = [read_recording(header) for header in headers]
    return build_store(folder, "r" * 64, SignalSettings(samples=SAMPLES), recordings, powerline="none")


def settings_of() -> StudySettings:
    """One step of plain gradient descent at rate 1: the update is the gradient."""
    step = {
        "local-steps": 1,
        "batch-size": 1,
        "optimizer": "sgd",
        "learning-rate": 1.0,
        "encoder-rate": 1.0,
        "weight-decay": 0.0,
        "clip-norm": 1e6,
        "freeze-rounds": 0,
    }
    return study_with(
        signals={"samples": SAMPLES},
        model={"dropout": 0.0},
        survival=step,
        privacy={"clip": 1.0, "sampling-rate": 0.999_999},
    )


def network_of(settings: StudySettings) -> Network:
    return build_network(settings.model, SAMPLES, len(bank()[0]), 5)


def noise_of_one_step() -> float:
    """The least noise with which a single step on everybody is (8, 1e-5)-private: more steps need more."""

    def epsilon(noise: float) -> float:
        return epsilon_of([Spend("training", "train", noise)], DELTA)

    return float(brentq(lambda noise: epsilon(noise) - EPSILON, 0.1, 10.0, xtol=1e-6))


def victim(store: SignalStore, record: int, protected: bool = False) -> Victim:
    """One local round, as a site makes it."""
    settings = settings_of()
    network, site = network_of(settings), site_of(store, [record], event=np.array([True]))
    before = [weight.detach().clone() for weight in learned(network)]
    dp = protection_of(settings, noise_of_one_step(), seed=record) if protected else None
    train_survival(network, site, settings, 1, baseline_of(), bank_vectors=bank(), dp=dp)
    update = [old - new.detach() for old, new in zip(before, learned(network), strict=True)]
    return Victim(site, update, site.signals(np.array([0]))[0])


def learned(network: Network) -> list[torch.nn.Parameter]:
    """What the update of a survival round is of."""
    return [*network.encoder.parameters(), *network.risk.parameters()]


def gradient(network: Network, sites: list[SiteData], signals: Tensor) -> list[Tensor]:
    """Sum over sites of the gradient of one record each, with its graph."""
    baseline, bound = baseline_of(), settings_of().survival.exp_bound
    loss = torch.zeros(())
    for site, signal in zip(sites, signals, strict=True):
        row = np.array([0])
        exposure = baseline.exposure(site.entry_days(row), site.events(row), site.follow_up_days(row))
        log_hazard = network.log_hazard(network.embed(signal[None]))
        hazard, event = torch.from_numpy(exposure).float(), torch.from_numpy(site.events(row))
        loss = loss + pooled_cox_loss(log_hazard, event, hazard, bound, bound)
    return list(torch.autograd.grad(loss, learned(network), create_graph=True))


def inverted(sites: list[SiteData], update: list[Tensor], steps: int, seed: int = 0) -> Tensor:
    """(sites, 12, samples): one record a site whose gradients, added up, point where the update points."""
    network = network_of(settings_of()).train()
    free = 0.3 * torch.randn(len(sites), 8, SAMPLES, generator=torch.Generator().manual_seed(seed))
    free.requires_grad_()
    optimiser = torch.optim.Adam([free], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        found = gradient(network, sites, twelve_leads(free))
        apart = sum(_angle(one, other) for one, other in zip(found, update, strict=True)) / len(update)
        rough = (free[..., 1:] - free[..., :-1]).abs().mean()
        (apart + SMOOTH * rough).backward()
        optimiser.step()
        schedule.step()
    return twelve_leads(free.detach())


def twelve_leads(free: Tensor) -> Tensor:
    """I, II and six chest leads (N, 8, T) -> (N, 12, T)."""
    one, two, *chest = free.unbind(1)
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    return torch.stack([*limb, *chest], dim=1)


def likeness(found: Tensor, signal: Tensor) -> float:
    """Mean over leads of the correlation of two ECGs (12, T)."""
    one, other = found - found.mean(dim=1, keepdim=True), signal - signal.mean(dim=1, keepdim=True)
    return float(torch.cosine_similarity(one, other, dim=1).mean())


def _angle(one: Tensor, other: Tensor) -> Tensor:
    return 1 - (one * other).sum() / (one.norm() * other.norm() + 1e-12)
