"""What the log hazard becomes when parts of an ECG are hidden.

In:  a network, signals (n, 12, samples) in mV, which steps or leads to hide.
Out: log hazards. Called by `deletion` and `occlusion`.

A hidden stretch of a lead is replaced by the lead's median, which lies on its isoelectric line. A hidden lead is masked
as in training, so that nothing of it reaches the network.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedecg.explanation.attention import checked_signals
from fedecg.model import Network
from fedecg.model.lead_maps import LEADS, STEP_SAMPLES

__all__ = ["gradient_times_input", "hidden_lead_hazards", "hidden_step_hazards", "plain_hazards"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

BATCH = 256


def plain_hazards(network: Network, signal_mv: Float32) -> Float64:
    """(n,) log hazards of the ECGs as they are."""
    return _hazards(network, checked_signals(network, signal_mv))


def hidden_step_hazards(network: Network, signal_mv: Float32, hidden: Bool) -> Float64:
    """Log hazards with some steps of some leads replaced by the lead's median.

    Args:
        network: in any mode; comes back in it.
        signal_mv: (n, 12, samples) float32, mV.
        hidden: (variants, n, 12, steps) or (variants, 1, 12, steps) bool, True = hidden; a step is 32 samples.

    Returns:
        (variants, n).

    Raises:
        ModelError: FECG-353, signals that do not fit.
    """
    signal = checked_signals(network, signal_mv)
    # The networks take off a lead's mean. With the median at zero what they see of a lead that is hidden whole is
    # exactly nothing, and not the rounding of a constant, which their normalisations would blow up.
    signal = signal - signal.median(dim=2, keepdim=True).values
    result = np.empty((len(hidden), len(signal)))
    for number, steps in enumerate(hidden):
        samples = torch.from_numpy(np.ascontiguousarray(steps)).repeat_interleave(STEP_SAMPLES, dim=2)
        result[number] = _hazards(network, signal.masked_fill(samples, 0.0))
    return result


def hidden_lead_hazards(network: Network, signal_mv: Float32) -> Float64:
    """(12, n) log hazards with one lead after the other hidden.

    Raises:
        ModelError: FECG-353, signals that do not fit.
    """
    signal = checked_signals(network, signal_mv)
    return np.stack([_hazards(network, signal, torch.arange(LEADS) != lead) for lead in range(LEADS)])


def gradient_times_input(network: Network, signal_mv: Float32) -> Float64:
    """(n, 12, steps): |gradient of the log hazard x signal about its mean|, summed over the samples of a step.

    Raises:
        ModelError: FECG-353, signals that do not fit.

    Source: Shrikumar et al. 2016, Not just a black box.
    """
    signal = checked_signals(network, signal_mv)
    training = network.training
    network.eval()
    try:
        parts = [_gradient_times_input(network, batch) for batch in _batches(signal)]
    finally:
        network.train(training)
    return np.concatenate([np.zeros((0, LEADS, network.samples // STEP_SAMPLES)), *parts])


def _gradient_times_input(network: Network, signal: Tensor) -> Float64:
    signal = signal.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network.log_hazard(network.embed(signal)).sum(), signal)
    product = gradient * (signal - signal.mean(dim=2, keepdim=True)).detach()
    by_step = product.detach().abs().double().view(len(signal), LEADS, -1, STEP_SAMPLES).sum(dim=3)
    return np.asarray(by_step.numpy())


def _hazards(network: Network, signal: Tensor, lead_mask: Tensor | None = None) -> Float64:
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            parts = [network.log_hazard(network.embed(batch, lead_mask)) for batch in _batches(signal)]
    finally:
        network.train(training)
    return np.concatenate([np.zeros(0), *(part.double().numpy() for part in parts)])


def _batches(signal: Tensor) -> Iterator[Tensor]:
    for start in range(0, len(signal), BATCH):
        yield signal[start : start + BATCH]
