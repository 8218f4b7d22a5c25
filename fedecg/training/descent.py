"""Optimiser steps of a local round: loss, gradient, bound on its norm, pull to the round's start, step.

In:  a network, the names of what the stage trains, batches, a loss of a batch. Out: the network, changed in place,
     and the mean loss. Called by `fedecg.training.local`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedecg.config import AlignSettings, SurvivalSettings
from fedecg.errors import ModelError
from fedecg.model import learning_rate
from fedecg.training.checkpoint import UNWATCHED, Standing, Watch

__all__ = ["ENCODER", "descend", "optimiser_of"]

Rows = NDArray[np.int64]

ENCODER = "encoder."  # how the names of its weights begin


def descend(
    network: nn.Module,
    names: Collection[str],
    stage: AlignSettings | SurvivalSettings,
    proximal_mu: float,
    batches: Sequence[Rows],
    loss_of: Callable[[Rows], Tensor],
    rng: np.random.Generator | None = None,
    watch: Watch = UNWATCHED,
    pull: Mapping[str, Tensor] | None = None,
) -> float:
    """One optimiser step a batch, in place, on the parameters among `names` only.

    The gradient's norm is bounded by `clip-norm`; then FedProx adds mu * (w - w at the start), the gradient of
    mu/2 |w - w at the start|^2, and SCAFFOLD its control variates, which clipping must not weaken. The optimiser starts
    anew. A round that the watch's checkpoint knows goes on where it stood: called with the weights, the batches and the
    generator's state of the first time, it ends with the same bits.

    Args:
        network: in training mode during the steps, afterwards in the mode in which it was.
        names: state tensors of the stage (`fedecg.model.stage_tensors`); other parameters stay as they are.
        stage: optimiser, learning rate (the encoder's: `fedecg.model.learning_rate`), weight decay, clip norm.
        proximal_mu: 0 is plain FedAvg.
        batches: rows of each step.
        loss_of: mean loss of a batch, with its graph.
        rng: the generator that `loss_of` draws from, if any beside torch's.
        watch: sees every step; may continue a round that was killed.
        pull: name -> what is added to the gradient of every step (SCAFFOLD: c - c_i); None: nothing.

    Returns:
        Mean loss over the steps, each before its step; 0 without steps.

    Raises:
        ModelError: FECG-323 a loss or a gradient that is not finite (the network is then half-way and must be
            thrown away); FECG-324 BatchNorm in the network and a batch of one record. Nothing is changed then.

    Source: FedProx: Li et al. 2020, arXiv 1812.06127; SCAFFOLD: Karimireddy et al. 2020, arXiv 1910.06378;
        AdamW: Loshchilov & Hutter 2019, arXiv 1711.05101.
    """
    _refuse_single_records(network, batches)
    named = {name: weight for name, weight in network.named_parameters() if name in names}
    parameters = list(named.values())
    start = [weight.detach().clone() for weight in parameters] if proximal_mu else []
    standing, training = Standing(network, optimiser_of(named, stage), rng), network.training
    network.train()
    network.zero_grad(
        set_to_none=True
    )  # a round that failed half-way must not leave its gradients to this one
    try:
        watch.begin(standing, len(batches))
        for batch in batches[standing.step :]:
            loss = loss_of(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(parameters, stage.clip_norm)
            value = float(loss.detach())
            _refuse_non_finite(value, float(norm), standing.step + 1, len(batches))
            for weight, origin in zip(parameters, start, strict=bool(start)):
                if weight.grad is not None:
                    weight.grad.add_(weight.detach() - origin, alpha=proximal_mu)
            _add(pull or {}, named)
            standing.optimiser.step()
            standing.optimiser.zero_grad()
            standing.step += 1
            standing.loss_sum += value
            watch.stepped(standing, len(batches))
    finally:
        network.train(training)
    return standing.loss_sum / max(len(batches), 1)


def _add(pull: Mapping[str, Tensor], named: Mapping[str, nn.Parameter]) -> None:
    """To the gradients that there are."""
    for name, weight in named.items():
        if name in pull and weight.grad is not None:
            weight.grad.add_(pull[name])


def optimiser_of(
    named: Mapping[str, nn.Parameter], stage: AlignSettings | SurvivalSettings
) -> torch.optim.Optimizer:
    """A new optimiser over named parameters, as the stage has it; those of the encoder may have rates of their own."""
    groups = _groups(named, stage)
    if stage.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=stage.learning_rate, weight_decay=stage.weight_decay, fused=True)
    return torch.optim.SGD(groups, lr=stage.learning_rate, weight_decay=stage.weight_decay)


def _groups(
    named: Mapping[str, nn.Parameter], stage: AlignSettings | SurvivalSettings
) -> list[dict[str, Any]]:
    """Weights by learning rate: all in one group where they share it."""
    by_rate: dict[float, list[nn.Parameter]] = {}
    for name, weight in named.items():
        by_rate.setdefault(learning_rate(name, stage), []).append(weight)
    return [{"params": weights, "lr": rate} for rate, weights in by_rate.items()]


def _refuse_single_records(network: nn.Module, batches: Sequence[Rows]) -> None:
    """A batch norm of one record is undefined in the risk head; skipping the site silently would hide it."""
    normalised = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in network.modules())
    single = sum(len(batch) == 1 for batch in batches)
    if normalised and single:
        raise ModelError(
            "FECG-324",
            "training batches",
            found=f"{single} of {len(batches)} with a single record, in a network with BatchNorm",
            expected="at least 2 records in a batch",
            fix='Use model.preset = "fedecg", a larger batch-size, or leave sites of one record out of training.',
        )


def _refuse_non_finite(loss: float, norm: float, step: int, steps: int) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        return
    raise ModelError(
        "FECG-323",
        "training",
        found=f"a {'gradient' if math.isfinite(loss) else 'loss'} that is not finite at step {step} of {steps}",
        expected="finite numbers",
        fix="Lower learning-rate or clip-norm, and check the site's signals with its quality report.",
    )
