"""The authors' names and shapes of the tensors that our `paper` preset has under its own.

In:  the authors' tensors by name; the names and shapes of ours. Out: ours, and what does not fit.
Called by `fedecg.model.imported`.

Both networks compute the same; they differ in how the tensors lie: twelve temporal modules there are one stacked module
here, one-dimensional convolutions are two-dimensional, and the pooled channels run width by width there, lead by lead
here. Names are those of Chen et al.'s public code (cherise215/LLM-ECG-Dual-Attention, ecg_net_attention.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedecg.model.lead_maps import LEADS

__all__ = ["ENCODER_CHILDREN", "FIRST", "Misfit", "Part", "Shapes", "converted", "misfit", "their_shapes"]

Part = Literal["encoder", "decoder"]
Shapes = Mapping[str, tuple[int, ...]]

FIRST = "input_conv.0.weight"  # a tensor that every encoder of theirs has; what stands before it is a prefix
# First words of the encoder's names; theirs may have more behind it, which our preset has not (`linear`).
ENCODER_CHILDREN = ("input_conv", "encoder", "attention")

# Beginnings of our names -> beginnings of theirs.
ENCODER = {
    "maps.lead_conv": "input_conv.0",
    "maps.lead_norm": "input_conv.1",
    "maps.dense_conv": "input_conv.3",
    "maps.dense_norm": "input_conv.4",
    "maps.stages": "encoder",
    "cross_lead.attention.attention_norm": "attention.norm2",
    "cross_lead.attention.query_key_value.weight": "attention.lead_mha.in_proj_weight",
    "cross_lead.attention.query_key_value.bias": "attention.lead_mha.in_proj_bias",
    "cross_lead.attention.out": "attention.lead_mha.out_proj",
    "cross_lead.attention.mlp_norm": "attention.lead_norm_1",
    "cross_lead.attention.mlp.0": "attention.lead_mlp.fc1",
    "cross_lead.attention.mlp.3": "attention.lead_mlp.fc2",
    "pooling.mean": "attention.attention_pool_1.1",
    "pooling.maximum": "attention.attention_pool_2.1",
    "temporal.attention_norm": "attention.time_norm_1.{lead}",
    "temporal.query_key_value.weight": "attention.time_mha.{lead}.in_proj_weight",
    "temporal.query_key_value.bias": "attention.time_mha.{lead}.in_proj_bias",
    "temporal.out": "attention.time_mha.{lead}.out_proj",
    "temporal.mlp_norm": "attention.mlp_norm_1.{lead}",
    "temporal.mlp.0": "attention.time_mlp.{lead}.fc1",
    "temporal.mlp.3": "attention.time_mlp.{lead}.fc2",
}
DECODER = {
    "spread.0": "linear.0",
    "spread.1": "linear.1",
    "stages": "decoder",
    "last": "final_conv.0",
}
BEGINNINGS: dict[Part, dict[str, str]] = {"encoder": ENCODER, "decoder": DECODER}
# Layers of a residual stage, inside `maps.stages.N` and `stages.N`.
STAGE_LAYERS = {
    "conv_1": "conv1",
    "conv_2": "conv2",
    "norm_1": "bn1",
    "norm_2": "bn2",
    "grow": "idfunc_0",
    "shortcut": "idfunc_1",
}


@dataclass(frozen=True)
class Misfit:
    """Their names that do not fit the preset; all empty = everything fits.

    Attributes:
        missing: not in the checkpoint. unknown: not in the preset. misshaped: of another shape.
    """

    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    misshaped: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unknown or self.misshaped)


def their_shapes(part: Part, ours: Shapes) -> dict[str, tuple[int, ...]]:
    """Names and shapes that the authors' state has where ours has these.

    Args:
        part: of the network. ours: names and shapes of our encoder or decoder.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in ours.items():
        names = _their_names(part, name)
        if len(names) == LEADS:
            shape = shape[1:]
        elif name.startswith("pooling") and name.endswith("weight"):
            shape = (*shape, 1)
        elif name in ("maps.lead_conv.weight", "maps.dense_conv.weight"):
            shape = (*shape[:2], shape[3])
        shapes |= dict.fromkeys(names, shape)
    return shapes


def misfit(part: Part, state: Mapping[str, Tensor], ours: Shapes) -> Misfit:
    """Compare their tensors of a part, named without prefix, with those that the preset takes."""
    expected = their_shapes(part, ours)
    return Misfit(
        missing=tuple(name for name in expected if name not in state),
        unknown=tuple(name for name in state if name not in expected),
        misshaped=tuple(
            name for name, shape in expected.items() if name in state and state[name].shape != shape
        ),
    )


def converted(part: Part, state: Mapping[str, Tensor], ours: Shapes) -> dict[str, Tensor]:
    """Our state from theirs, which fits (`misfit` is empty); floats become float32.

    Args:
        part: of the network. state: their tensors, without prefix. ours: our names and shapes.
    """
    return {name: _tensor(part, name, state).reshape(shape) for name, shape in ours.items()}


def _tensor(part: Part, name: str, state: Mapping[str, Tensor]) -> Tensor:
    theirs = [_as_float32(state[one]) for one in _their_names(part, name)]
    tensor = torch.stack(theirs) if len(theirs) > 1 else theirs[0].clone()
    if name.startswith("pooling") and name.endswith("weight"):
        return tensor.view(len(tensor), -1, LEADS).transpose(1, 2)
    return tensor


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor.long()


def _their_names(part: Part, name: str) -> tuple[str, ...]:
    """Twelve names where our tensor is a stack over the leads, one name everywhere else."""
    ours, theirs = next(pair for pair in BEGINNINGS[part].items() if name.startswith(pair[0]))
    tail = name.removeprefix(ours)
    if ours.endswith("stages"):
        _, number, layer, last = tail.split(".")
        tail = f".{number}.{STAGE_LAYERS[layer]}.{last}"
    if "{lead}" in theirs:
        return tuple(theirs.format(lead=lead) + tail for lead in range(LEADS))
    return (theirs + tail,)
