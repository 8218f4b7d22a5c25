"""Optimiser steps under which no patient can be made out: sample, clip, add up, add noise, step (DP-SGD).

In:  a network, an optimiser over what the stage trains, the rows of a part with their patients, a loss that is a mean
     of per-patient terms, a `Protection`. Out: the network, changed in place; a mean loss for the site's own log.
Called by `fedecg.training.local` beside `descend`, which is the same without protection.

Guarantees, for neighbours that differ in one patient with all records:
    - each patient is in a step with chance q, independent of all others (Poisson), with one record of its own;
    - its share of the step's sum has a norm of at most `clip` (a share that is not finite counts as 0);
    - to the sum of every step, also of one without patients, is added Gaussian noise of `noise-multiplier` x `clip`;
    - the sum is divided by a number that everybody knows, and the number of steps is the study's, whatever data there
      are: what a step does beyond the sum depends on no patient;
    - dropout and lead masks are the same for all patients of a step, whoever they are and however many fit in memory.
Every step is then one sampled Gaussian mechanism of `noise-multiplier` at rate q, as `accountant` counts it. Not
covered: that sums are rounded to float32, and how long a step takes; the time stays at the site.

Source: Abadi et al. 2016, arXiv 1607.00133; Mironov, Talwar, Zhang 2019, arXiv 1908.10530 (sampled Gaussian).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedecg.config import PrivacySettings
from fedecg.errors import ModelError
from fedecg.privacy.sample_gradients import SampleGradients
from fedecg.privacy.secret import secret_generator

__all__ = ["Patients", "Protection", "StepLoss", "dp_descend"]

Rows = NDArray[np.int64]
StepLoss = Callable[[int, Rows], Tensor]

ROUNDING = 1e-5  # relative, of a norm summed up in float32: what is kept below `clip` for it


@dataclass(frozen=True)
class Protection:
    """How the steps of a round are protected.

    Attributes:
        noise_multiplier: standard deviation of the noise over `clip`; the site's own, from its epsilon and delta.
        sampling_rate: q, chance of a patient to be in a step.
        clip: bound on the norm of a patient's gradient.
        hazard_clip: B; beyond it the exp(log hazard) of the loss grows no further, in its gradient.
        physical_batch: patients in memory at once.
        randomness: a new secret generator; tests put in one that they know.
    """

    noise_multiplier: float
    sampling_rate: float
    clip: float
    hazard_clip: float
    physical_batch: int
    randomness: Callable[[], np.random.Generator] = secret_generator

    @staticmethod
    def of(privacy: PrivacySettings, noise_multiplier: float) -> Protection:
        """What a study's settings and the site's noise say."""
        return Protection(
            noise_multiplier,
            privacy.sampling_rate,
            privacy.clip,
            privacy.hazard_clip,
            privacy.physical_batch,
        )

    @property
    def exp_bound(self) -> float:
        """Log hazard beyond which exp goes on as a straight line: its slope is then min(exp(log hazard), B)."""
        return math.log(self.hazard_clip)


class Patients:
    """The records of each patient, to draw from.

    Args:
        rows: (n,), records.
        patient: (n,), whose each is.
    """

    def __init__(self, rows: Rows, patient: NDArray[np.int64]) -> None:
        order = np.argsort(patient, kind="stable")
        _, self._first, self._records = np.unique(patient[order], return_index=True, return_counts=True)
        self._rows = rows[order]

    def __len__(self) -> int:
        return len(self._first)

    def drawn(self, sampling_rate: float, rng: np.random.Generator) -> Rows:
        """One random record of each patient who is in the step; none, now and then."""
        inside = rng.random(len(self)) < sampling_rate
        record = rng.integers(self._records[inside]) if inside.any() else 0
        drawn: Rows = self._rows[self._first[inside] + record]
        return drawn


def dp_descend(
    network: nn.Module,
    names: Sequence[str],
    optimiser: torch.optim.Optimizer,
    patients: Patients,
    loss_of: StepLoss,
    protection: Protection,
    *,
    steps: int,
    divisor: float,
    proximal_mu: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> float:
    """So many protected optimiser steps, in place, on the parameters among `names` only.

    FedProx adds mu * (w - w at the start) after clipping and noise: it knows no patient. A round is never continued
    from within: one that was killed is computed anew, with new noise, as a new spend.

    Args:
        network: in training mode during the steps, afterwards in the mode in which it was.
        names: state tensors of the stage; other parameters stay as they are.
        optimiser: over these parameters.
        patients: of the site.
        loss_of: of the number of a step and some rows of it, the mean of their per-patient terms, with its graph.
            What it draws at random (dropout, lead masks) follows from the number of the step alone.
        protection: clip, noise, rate.
        steps: how many, from the study's lock.
        divisor: of each noised sum, from the study's lock, never from the site's data.
        proximal_mu: 0 is plain FedAvg.
        progress: called with the steps made and their number.

    Returns:
        Mean loss over the patients drawn, each before its step; 0 if none was. It is not protected: for the site's log.

    Raises:
        ModelError: FECG-385, layers without an exact gradient a patient; FECG-323, the noised weights are not finite.
    """
    gradients = SampleGradients(network, names)
    start = [weight.detach().clone() for weight in gradients.parameters] if proximal_mu else []
    rng, training = protection.randomness(), network.training
    seen, loss_sum = 0, 0.0
    network.train()
    network.zero_grad(set_to_none=True)
    try:
        with gradients.attached():
            for step in range(steps):
                drawn = patients.drawn(protection.sampling_rate, rng)
                sums, loss = _clipped_sums(gradients, loss_of, step, drawn, protection)
                add_noise(sums, protection, rng)
                for number, weight in enumerate(gradients.parameters):
                    weight.grad = sums[number].div_(divisor)
                    if proximal_mu:
                        weight.grad.add_(weight.detach() - start[number], alpha=proximal_mu)
                optimiser.step()
                seen, loss_sum = seen + len(drawn), loss_sum + loss
                if progress is not None:
                    progress(step + 1, steps)
    finally:
        network.zero_grad(set_to_none=True)
        network.train(training)
    _refuse_non_finite(gradients.parameters)
    return loss_sum / max(seen, 1)


def clip_factors(rows: Sequence[Tensor], clip: float) -> Tensor:
    """What each patient's gradient is multiplied with, (N,), so that its norm is at most `clip`; 0 if not finite.

    Args:
        rows: for each parameter (N, ...).
    """
    norms = torch.stack([row.reshape(len(row), -1).norm(dim=1) for row in rows], dim=1).norm(dim=1)
    factors = (clip / (norms * (1 + ROUNDING))).clamp(max=1.0)
    return torch.where(norms.isfinite(), factors, 0.0)


def add_noise(sums: Sequence[Tensor], protection: Protection, rng: np.random.Generator) -> None:
    """Add Gaussian noise of `noise-multiplier` x `clip` to every number, in place."""
    scale = protection.noise_multiplier * protection.clip
    if not scale:
        return
    for total in sums:
        noise = torch.from_numpy(rng.standard_normal(total.numel(), dtype=np.float32))
        total.add_(noise.view(total.shape), alpha=scale)


def _clipped_sums(
    gradients: SampleGradients, loss_of: StepLoss, step: int, drawn: Rows, protection: Protection
) -> tuple[list[Tensor], float]:
    """Sums over the patients drawn of their clipped gradients, a parameter each; and of their losses."""
    sums = [torch.zeros_like(weight) for weight in gradients.parameters]
    losses = 0.0
    for at in range(0, len(drawn), protection.physical_batch):
        batch = drawn[at : at + protection.physical_batch]
        rows, loss = _rows_of(gradients, loss_of, step, batch)
        factors = clip_factors(rows, protection.clip)
        for total, row in zip(sums, rows, strict=True):
            total += _weighted(row, factors)
        losses += loss
    return sums, losses


def _rows_of(
    gradients: SampleGradients, loss_of: StepLoss, step: int, batch: Rows
) -> tuple[list[Tensor], float]:
    """Each patient's gradient, for each parameter (N, ...); and the sum of their losses."""
    values: list[float] = []

    def loss_sum() -> Tensor:
        loss = loss_of(step, batch) * len(batch)
        values.append(float(loss.detach()))
        return loss

    rows = gradients.of(loss_sum, len(batch))
    return rows, values[0]


def _weighted(row: Tensor, factors: Tensor) -> Tensor:
    """Sum over patients of their rows (N, ...) times their factors (N,); one of factor 0 counts for nothing."""
    flat = row.reshape(len(row), -1)
    if not bool(factors.all()):
        flat = flat.nan_to_num(0.0, 0.0, 0.0) if not bool(flat.isfinite().all()) else flat
    return (factors.to(flat.dtype) @ flat).view(row.shape[1:])


def _refuse_non_finite(parameters: Sequence[nn.Parameter]) -> None:
    wrong = sum(not bool(weight.isfinite().all()) for weight in parameters)
    if wrong:
        raise ModelError(
            "FECG-323",
            "training",
            found=f"noised weights that are not finite, in {wrong} of {len(parameters)} tensors",
            expected="finite numbers",
            fix="Lower learning-rate, or raise batch-size, by which noise is divided, too.",
        )
