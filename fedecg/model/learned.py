"""Which numbers of a flat vector gradients move, and at which rate: the others are statistics of a batch norm.

In:  a network, the names that a message carries, the stage. Out: pieces of the vector (P,).
Called by both sides of a study whose algorithm keeps something for each weight (fedadam, fedyogi, scaffold, fedbn).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from fedecg.config import StageSettings
from fedecg.model.layers import LeadNorm

__all__ = ["Piece", "learned_pieces", "learning_rate", "local_norms"]

ENCODER = "encoder."
LEVELS = (  # of the dual-attention encoder's weights, from the risk head down to the signal
    ("encoder.pooling.",),
    ("encoder.temporal.", "encoder.cross_lead."),
    ("encoder.maps.last.", "encoder.maps.context.", "encoder.maps.stages."),
    ("encoder.maps.middle.", "encoder.maps.dense_"),
    ("encoder.maps.stem.", "encoder.maps.lead_"),
)
NORMS = (LeadNorm, nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


@dataclass(frozen=True)
class Piece:
    """Neighbouring numbers of a vector that learn at one rate.

    Attributes:
        start, stop: of the piece.
        rate: learning rate of a local step; 0: no gradient moves it in this round.
        parameter: False for running statistics, which follow the data and not a gradient.
    """

    start: int
    stop: int
    rate: float
    parameter: bool = True

    @property
    def inside(self) -> slice:
        """Of the vector."""
        return slice(self.start, self.stop)


def learning_rate(name: str, stage: StageSettings) -> float:
    """The rate at which a weight learns in a stage: the head's, and in survival training the encoder's shares of it.

    A weight of the encoder has `encoder-rate` of the stage's rate and, once for each level at which it lies below the
    risk head, `layer-decay` of that: pooling, attention, then three levels of lead maps.

    Source: discriminative fine-tuning, Howard and Ruder 2018, doi 10.18653/v1/P18-1031.
    """
    if not name.startswith(ENCODER):
        return stage.learning_rate
    share: float = getattr(stage, "encoder_rate", 1.0)
    decay: float = getattr(stage, "layer_decay", 1.0)
    below = 1 + next((number for number, level in enumerate(LEVELS) if name.startswith(level)), 0)
    return share * decay**below * stage.learning_rate


def learned_pieces(
    network: nn.Module, names: Sequence[str], stage: StageSettings, round_index: int
) -> tuple[Piece, ...]:
    """The vector piece by piece, as the optimiser of a local round treats it.

    Args:
        names: state tensors, as `stage_tensors` gives them.
        stage: learning rate; of survival also `freeze-rounds`, `encoder-rate` and `layer-decay`.
        round_index: number of the round.
    """
    state, weights = network.state_dict(), {name for name, _ in network.named_parameters()}
    frozen = round_index <= getattr(stage, "freeze_rounds", 0)
    pieces: list[Piece] = []
    start = 0
    for name in names:
        still = name not in weights or (name.startswith(ENCODER) and frozen)
        piece = Piece(
            start,
            start + state[name].numel(),
            0.0 if still else learning_rate(name, stage),
            name in weights,
        )
        last = pieces[-1] if pieces else None
        if last and (last.rate, last.parameter) == (piece.rate, piece.parameter):
            pieces[-1] = Piece(last.start, piece.stop, piece.rate, piece.parameter)
        else:
            pieces.append(piece)
        start = piece.stop
    return tuple(pieces)


def local_norms(network: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """Those of the names that belong to a normalisation layer: scale, shift, and running statistics where there are.

    `fedecg`: the scales and shifts of every LayerNorm (temporal and cross-lead attention, risk head, projection);
    between its convolutions it normalises without parameters. `paper`: GroupNorm of the stem, BatchNorm of the stages
    and of the risk head with their running means and variances, LayerNorm of the attention. The `xresnet1d` encoder:
    every BatchNorm. Risk head and projection are those of the preset.
    """
    inside = {
        f"{module}.{name}" if module else name
        for module, layer in network.named_modules()
        if isinstance(layer, NORMS)
        for name, tensor in layer.state_dict().items()
        if tensor.dtype != torch.int64  # a counter of batches
    }
    return tuple(name for name in names if name in inside)
