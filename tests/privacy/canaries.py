"""Canaries for audits of protected training: patients whose gradients are single coordinates; nothing of pytest.

A site has 2,048 of them, one a weight of one layer of the small network. Each is in the site's data with chance 1/2.
What trains is `descend_protected` with its sampling, clipping, noise, probe and hooks; only the loss is made for it:
its gradient in one patient is one coordinate, far longer than the clip. The attacker knows which, and reads the update.

Several sites are one run: their patients are disjoint and each has noise of its own, so that what all of them release
is as private for each canary as what its own site does.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from dp_sites import RECORDS, protection_of, site_of, small_network, study_with
from numpy.typing import NDArray
from scipy.optimize import brentq
from torch import Tensor

from fedecg.config import StudySettings
from fedecg.privacy.accountant import Spend, epsilon_of
from fedecg.privacy.dp_steps import Protection
from fedecg.signals import SignalStore
from fedecg.training.checkpoint import UNWATCHED
from fedecg.training.descent import descend
from fedecg.training.protected import descend_protected
from fedecg.training.randomness import site_generator
from fedecg.training.sampling import shuffled_batches

LAYER = "encoder.cross_lead.attention.mlp.0.weight"
OUT, IN = 64, 32
CANARIES = OUT * IN  # of a site
EPSILON, DELTA, RATE, STEPS = 1.0, 1e-5, 0.25, 16
LENGTH = 10.0  # of a canary's gradient, in clips


@dataclass(frozen=True, eq=False)
class Attacked:
    """What the audit knows: the score of each canary, and which were in the data."""

    scores: NDArray[np.float64]
    inside: NDArray[np.bool_]


Round = Callable[[SignalStore, NDArray[np.int64], int], NDArray[np.float64]]


def claimed_noise() -> float:
    """The noise multiplier with which the site's own accountant counts epsilon 1 for the steps of a round."""

    def epsilon(noise: float) -> float:
        return epsilon_of([Spend("training", "train", noise, RATE, STEPS)], DELTA)

    return float(brentq(lambda noise: epsilon(noise) - EPSILON, 1.0, 20.0, xtol=1e-6))


def attacked(store: SignalStore, sites: int, round_of: Round, seed: int = 1) -> Attacked:
    """One run over so many sites.

    Args:
        round_of: trains a site with some of the canaries; returns what its update shows of each.
        seed: of who is in the data, and of the noise that the rounds draw.
    """
    rng = np.random.default_rng(seed)
    inside = rng.random((sites, CANARIES)) < 0.5
    scores = [round_of(store, np.flatnonzero(row), seed * 10_000 + site) for site, row in enumerate(inside)]
    return Attacked(np.concatenate(scores), inside.ravel())


def protected_round(store: SignalStore, rows: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """A round of DP-SGD at the claimed epsilon, with noise of a generator that is known."""
    settings = _settings()
    dp: Protection = protection_of(settings, claimed_noise(), seed)
    network = small_network(settings)
    before = _weights(network)
    site = _site(store)
    loss = _loss(network)
    descend_protected(
        network, [LAYER], "survival", site, settings, 1, rows, lambda _: lambda at, _: loss(at), dp, UNWATCHED
    )
    return _shown(before, network)


def plain_round(store: SignalStore, rows: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """A round without differential privacy, on the same canaries; every one is in one of its batches."""
    settings = _settings()
    stage = settings.survival.model_copy(update={"batch_size": CANARIES // STEPS})
    network = small_network(settings)
    before = _weights(network)
    rng = site_generator(seed, "site", "survival", 1)
    batches = shuffled_batches(rows, stage.batch_size, STEPS, rng)
    descend(network, [LAYER], stage, 0.0, batches, _loss(network), rng)
    return _shown(before, network)


def _settings() -> StudySettings:
    steps = {
        "local-steps": STEPS,
        "batch-size": 1,
        "optimizer": "sgd",
        "learning-rate": 1.0,
        "encoder-rate": 1.0,
        "weight-decay": 0.0,
    }
    return study_with(survival=steps, privacy={"sampling-rate": RATE, "clip": 1.0, "physical-batch": 512})


def _site(store: SignalStore):
    return site_of(store, np.arange(CANARIES) % RECORDS, patient=np.arange(CANARIES))


def _loss(network: torch.nn.Module) -> Callable[[NDArray[np.int64]], Tensor]:
    layer = network.get_submodule(LAYER.removesuffix(".weight"))

    def loss_of(rows: NDArray[np.int64]) -> Tensor:
        at = torch.from_numpy(rows)
        inputs = torch.nn.functional.one_hot(at % IN, IN).float()
        outputs = layer(inputs).gather(1, (at // IN)[:, None])
        return -LENGTH * outputs.mean()

    return loss_of


def _weights(network: torch.nn.Module) -> Tensor:
    return network.get_parameter(LAYER).detach().clone()


def _shown(before: Tensor, network: torch.nn.Module) -> NDArray[np.float64]:
    """How far the round moved each canary's weight its way."""
    return (_weights(network) - before).double().ravel().numpy()
