"""Does a loss couple the patients of a batch? Found out by numbers, before the first protected step of a round.

In:  a network, what the stage trains, the loss of a step, a few records. Out: nothing, or an error that stops training.
Called by `fedecg.training.protected`. The losses that are allowed are known by name; this catches what the list cannot
know: a layer that normalises over the batch, a loss that compares its records, a gradient that the samplers miss.

A loss is a sum of per-patient terms only if what one patient adds to the gradient is the same whoever else is there:
with G(S) the gradient of the sum over a batch S, G(A + x) + G(B + y) = G(A + y) + G(B + x). And then the rows of
`SampleGradients` must add up to G, with the same row for x beside A as beside B.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedecg.errors import ModelError
from fedecg.privacy.sample_gradients import SampleGradients

__all__ = ["MOST_RECORDS", "refuse_coupled_patients"]

Rows = NDArray[np.int64]

MOST_RECORDS = 8
TOLERANCE = (
    1e-4  # of the largest norm compared; float32 leaves less than a fifth of it (tests), a coupling 1e-1
)


def refuse_coupled_patients(
    network: nn.Module, names: Sequence[str], loss_of: Callable[[int, Rows], Tensor], rows: Rows
) -> None:
    """Compare gradients of a few small batches; the network is afterwards as it was.

    Args:
        names: state tensors of the stage.
        loss_of: as in `dp_descend`.
        rows: records to look at, events among them; the first 8 are. One alone has nobody to depend on.

    Raises:
        ModelError: FECG-385, layers without an exact gradient a patient; FECG-388, a patient's gradient depends on who
            else is in the batch; FECG-389, the per-patient gradients are not those of the loss.
    """
    if len(rows) < 2:
        return
    one, other, *rest = rows[:MOST_RECORDS].tolist()
    half = len(rest) // 2
    beside, elsewhere = (rest[:half], rest[half : 2 * half]) if half else ([one], [other])
    batches = [np.array([*company, patient]) for company in (beside, elsewhere) for patient in (one, other)]
    with _left_as_it_was(network):
        sums = [_gradient(network, names, loss_of, batch) for batch in batches]
        scale = float(max(total.norm() for total in sums))
        _refuse_coupling(float((sums[0] + sums[3] - sums[1] - sums[2]).norm()), scale)
        gradients = SampleGradients(network, names)
        with gradients.attached():
            of_one = [_per_patient(gradients, loss_of, batch) for batch in (batches[0], batches[2])]
    _refuse_incomplete(float((of_one[0].sum(dim=0) - sums[0]).norm()), scale)
    _refuse_coupling(float((of_one[0][-1] - of_one[1][-1]).norm()), scale)


@contextmanager
def _left_as_it_was(network: nn.Module) -> Iterator[None]:
    """Training mode inside; mode, running statistics and gradients as before afterwards."""
    modes = {module: module.training for module in network.modules()}
    kept = [buffer.clone() for buffer in network.buffers()]
    network.train()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        for buffer, before in zip(network.buffers(), kept, strict=True):
            buffer.copy_(before)


def _gradient(
    network: nn.Module, names: Sequence[str], loss_of: Callable[[int, Rows], Tensor], batch: Rows
) -> Tensor:
    """Gradient of the sum over a batch, all parameters one behind the other, as autograd has it."""
    weights = [weight for name, weight in network.named_parameters() if name in names]
    loss = loss_of(0, batch) * len(batch)
    if not loss.requires_grad:
        return torch.zeros(sum(weight.numel() for weight in weights), dtype=loss.dtype)
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    return torch.cat(
        [
            torch.zeros_like(weight).ravel() if part is None else part.ravel()
            for weight, part in zip(weights, found, strict=True)
        ]
    )


def _per_patient(gradients: SampleGradients, loss_of: Callable[[int, Rows], Tensor], batch: Rows) -> Tensor:
    """(N, P)."""
    rows = gradients.of(lambda: loss_of(0, batch) * len(batch), len(batch))
    return torch.cat([row.reshape(len(batch), -1) for row in rows], dim=1)


def _refuse_coupling(difference: float, scale: float) -> None:
    if difference <= TOLERANCE * scale:  # NaN does not pass
        return
    raise ModelError(
        "FECG-388",
        "differential privacy of every patient",
        found="a patient's gradient that changes with the other patients of its batch",
        expected="a loss that is a sum over patients, and layers that couple none",
        fix='Use align.loss = "bank", survival.loss = "cox-pooled" or "grouped", model.preset = "fedecg".',
    )


def _refuse_incomplete(difference: float, scale: float) -> None:
    if difference <= TOLERANCE * scale:
        return
    raise ModelError(
        "FECG-389",
        "differential privacy of every patient",
        found="gradients of the patients that do not add up to that of the loss",
        expected="every parameter reached through its own layer only",
        fix='This is a fault of fedecg, not of the data: report it, and set privacy.mode = "none" meanwhile.',
    )
