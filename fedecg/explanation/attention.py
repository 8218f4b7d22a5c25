"""What a network attends to, ECG by ECG: over time within each lead, and across the leads.

In:  a network and signals (n, 12, samples) in mV.
Out: `Attention` of each ECG; `AttentionSums` of a group of ECGs, which add up over sites.
Called by the tests of this room and by `fedecg.report`.

A step of time attention stands on 32 samples. It sees more: the convolutions below reach `receptive_samples` (152
samples, 1.5 s at 100 Hz, in preset `fedecg`; 381 in `paper`), about 32 of which are its own. A strip is therefore a
staircase of 32 samples, never smoothed into a resolution that it does not have. In preset `paper` the stem mixes all
leads before time attention: its strips say when, not in which lead. Its convolutions also look back: what step k is
sensitive to is centred 3 to 8 samples (over initialisations; 6 is taken) before the middle of samples 32 k to
32 k + 31, as its strided convolutions are centred on the first sample of their stride and its shortcuts on the middle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedecg.errors import ModelError
from fedecg.model import Network
from fedecg.model.lead_maps import LEADS, STEP_SAMPLES, zscore_leads

__all__ = [
    "Attention",
    "AttentionSums",
    "attend",
    "attention_sums",
    "checked_signals",
    "group_attention",
    "mixes_leads",
    "receptive_samples",
    "strip_scale",
]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Int64 = NDArray[np.int64]

# Of even attention: what a step keeps that no other attends to, and the least that is drawn in full colour.
NOBODY, FULL = 0.5, 2.0
BATCH = 64  # ECGs at once; the maps of 64 ECGs are about 25 MB
# Kernel and stride of every convolution along time, first to last, in input steps of that layer.
# Samples by which the 32 samples that a step stands for lie before 32 times the step.
_EARLY_SAMPLES = {"fedecg": 0, "paper": 6}
_CONVOLUTIONS = {
    "fedecg": ((12, 4), (6, 2), (5, 1), (12, 4)),
    "paper": ((5, 1), (5, 1), *((5, 2), (5, 1)) * 5),
}


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention of n ECGs, averaged over heads, without dropout.

    Attributes:
        time: (n, 12, steps), what each step of a lead receives; sums to 1 over the steps. Residual-aware: half of
            what a step carries on is itself, so an even network gives 1 / steps and no step less than half of that.
        leads: (n, 12, 12), row attends to column; each row sums to 1.
        early_samples: by which the samples of a step lie before 32 times the step; 0 but in preset `paper`.
    """

    time: Float64
    leads: Float64
    early_samples: int = 0

    @property
    def steps(self) -> int:
        """Steps of time attention."""
        return int(self.time.shape[2])

    @property
    def bars(self) -> Float64:
        """(n, 12): mean attention that each lead receives from all twelve; sums to 1, even = 1/12."""
        return np.asarray(self.leads.mean(axis=1))

    @property
    def peak(self) -> Float64:
        """(n,): the most that a step receives, as a multiple of even attention; 1 = even, at most (steps + 1) / 2."""
        return np.asarray(self.time.max(axis=(1, 2)) * self.steps)

    def strips(self) -> Float32:
        """(n, 12, samples) in [0, 1]: time attention at every sample of the input, on `strip_scale`.

        All leads of an ECG share one scale.
        """
        scaled = strip_scale(self.time * self.steps, self.peak[:, None, None])
        return scaled[:, :, self.step_of(np.arange(self.steps * STEP_SAMPLES))].astype(np.float32)

    def step_of(self, sample: Int64) -> Int64:
        """The step that stands on a sample of the input; any shape."""
        step = (np.asarray(sample) + self.early_samples) // STEP_SAMPLES
        return np.asarray(np.clip(step, 0, self.steps - 1), dtype=np.int64)

    def one(self, index: int) -> Attention:
        """The attention of one ECG, as n = 1."""
        return Attention(self.time[index : index + 1], self.leads[index : index + 1], self.early_samples)


@dataclass(frozen=True, eq=False)
class AttentionSums:
    """Attention of a group, additive over sites and groups.

    Attributes:
        ecgs: how many.
        time: (12, steps) sum of `Attention.time`.
        leads: (12, 12) sum of `Attention.leads`.
    """

    ecgs: int
    time: Float64
    leads: Float64

    def __add__(self, other: AttentionSums) -> AttentionSums:
        _same_steps(self.time.shape[1], other.time.shape[1])
        return AttentionSums(self.ecgs + other.ecgs, self.time + other.time, self.leads + other.leads)

    def mean(self) -> Attention:
        """The group's mean attention as that of one ECG; NaN for a group of nobody."""
        ecgs = self.ecgs or np.nan
        return Attention(self.time[None] / ecgs, self.leads[None] / ecgs)


def attend(network: Network, signal_mv: Float32) -> Attention:
    """Attention of each ECG; the network comes back in the mode in which it was.

    Time attention A (each row sums to 1) becomes A' = (A + 1) / 2, as the residual connection passes half of a step
    on unchanged; what step k receives is the mean of column k. It is attention rollout for the one layer there is.

    Args:
        network: any preset and size.
        signal_mv: (n, 12, samples) float32, mV, leads in standard order, preprocessed as in training.

    Raises:
        ModelError: FECG-353, signals of another shape than the network's, or not finite.

    Source: Abnar & Zuidema 2020, Quantifying attention flow in transformers (rollout and its residual).
    """
    signal = checked_signals(network, signal_mv)
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            parts = [_attend(network, batch) for batch in _batches(signal)]
    finally:
        network.train(training)
    steps = network.samples // STEP_SAMPLES
    time = [np.zeros((0, LEADS, steps)), *(part.time for part in parts)]
    leads = [np.zeros((0, LEADS, LEADS)), *(part.leads for part in parts)]
    early = _EARLY_SAMPLES[network.settings.preset]
    return Attention(np.concatenate(time), np.concatenate(leads), early)


def attention_sums(attention: Attention, members: Bool | None = None) -> AttentionSums:
    """Sums over the ECGs that belong to a group.

    Args:
        attention: of n ECGs.
        members: (n,) bool; None = all.
    """
    kept = np.ones(len(attention.time), dtype=np.bool_) if members is None else members
    return AttentionSums(int(kept.sum()), attention.time[kept].sum(axis=0), attention.leads[kept].sum(axis=0))


def group_attention(attention: Attention, groups: Mapping[str, Bool]) -> dict[str, AttentionSums]:
    """Sums of several groups (high and low risk, each finding); an ECG may be in any number of them.

    Args:
        attention: of n ECGs.
        groups: name -> (n,) bool.
    """
    return {name: attention_sums(attention, members) for name, members in groups.items()}


def strip_scale(multiple: Float64, peak: Float64 | float) -> Float64:
    """Colour of attention, 0 to 1: 0 = a step that no other attends to, 1 = `peak`, or twice even attention if more.

    So even attention is a third of the scale at most, and never looks high.

    Args:
        multiple: of even attention, any shape, 0.5 or more. peak: of the picture; shapes broadcast.
    """
    return np.asarray((multiple - NOBODY) / (np.maximum(peak, FULL) - NOBODY))


def mixes_leads(network: Network) -> bool:
    """Whether a lead's time attention already sees the other leads (preset `paper`: its stem is dense)."""
    return network.settings.preset == "paper"


def receptive_samples(preset: str) -> int:
    """Input samples that reach one step through the convolutions, which overlap with those of its neighbours.

    The normalisations, over a lead's whole map, let in a little of everything else.
    """

    def grow(reached: tuple[int, int], layer: tuple[int, int]) -> tuple[int, int]:
        (samples, stride), (kernel, step) = reached, layer
        return samples + (kernel - 1) * stride, stride * step

    return reduce(grow, _CONVOLUTIONS[preset], (1, 1))[0]


def checked_signals(network: Network, signal_mv: Float32) -> Tensor:
    """The signals as a tensor.

    Raises:
        ModelError: FECG-353, signals of another shape than the network's, or not finite.
    """
    shape, wanted = np.shape(signal_mv), (LEADS, network.samples)
    fits = len(shape) == 3 and shape[1:] == wanted
    if not fits or not np.isfinite(signal_mv).all():
        raise ModelError(
            "FECG-353",
            "signals to be explained",
            found="values that are not finite" if fits else f"an array of shape {shape}",
            expected=f"finite mV of shape (ECGs, {wanted[0]}, {wanted[1]})",
            fix="Preprocess the recordings with the signal settings of the model.",
        )
    return torch.from_numpy(np.array(signal_mv, dtype=np.float32))


def _batches(signal: Tensor) -> Iterator[Tensor]:
    for start in range(0, len(signal), BATCH):
        yield signal[start : start + BATCH]


def _attend(network: Network, signal: Tensor) -> Attention:
    given = zscore_leads(signal) if network.settings.preset == "paper" else signal
    maps = network.encoder.attention(given)
    # Column means of (A + 1) / 2, without building the identity.
    received = maps.time.double().mean(dim=(2, 3)) / 2 + 1 / (2 * maps.time.shape[-1])
    return Attention(received.numpy(), maps.lead.double().mean(dim=1).numpy())


def _same_steps(one: int, other: int) -> None:
    if one != other:
        raise ModelError(
            "FECG-354",
            "maps of attention",
            found=f"{one} and {other} steps",
            expected="the same number of steps",
            fix="Compare and add up models of one signal length only.",
        )
