"""Weights as one flat float32 vector, the form in which they travel.

In:  a network and the names of state tensors. Out: a vector, or the network with the vector's values.
Called by `fedecg.training` and by the server. Both sides derive the layout from the settings, it is never sent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedecg.errors import ModelError

__all__ = ["Layout", "layout", "load_vector", "to_vector"]

Layout = tuple[tuple[str, tuple[int, ...]], ...]


def layout(network: nn.Module, names: Sequence[str]) -> Layout:
    """Name and shape of each tensor, in the order in which they lie in the vector.

    Args:
        names: state tensors, as `stage_tensors` gives them.
    """
    state = network.state_dict()
    return tuple((name, tuple(state[name].shape)) for name in names)


def to_vector(network: nn.Module, names: Sequence[str]) -> NDArray[np.float32]:
    """The named tensors one behind the other, (P,), float32; a copy.

    Args:
        names: state tensors, as `stage_tensors` gives them.
    """
    state = network.state_dict()
    return np.concatenate([state[name].detach().cpu().numpy().astype(np.float32).ravel() for name in names])


def load_vector(network: nn.Module, names: Sequence[str], vector: NDArray[np.float32]) -> None:
    """Copy a vector into the named tensors of the network, in place; nothing is changed if it is refused.

    Args:
        names: state tensors, as `stage_tensors` gives them.
        vector: (P,), as `to_vector` gives it for the same names.

    Raises:
        ModelError: FECG-303, wrong length; FECG-304, values that are not finite.
    """
    state = network.state_dict()
    sizes = [state[name].numel() for name in names]
    if vector.shape != (sum(sizes),):
        raise ModelError(
            "FECG-303",
            "weight vector",
            found=f"shape {tuple(vector.shape)}",
            expected=f"({sum(sizes)},), {len(names)} tensors",
            fix="Both sides must run the same [model] and [signals] settings.",
        )
    wrong = int(np.count_nonzero(~np.isfinite(vector)))
    if wrong:
        raise ModelError(
            "FECG-304",
            "weight vector",
            found=f"{wrong} of {vector.size} values that are not finite",
            expected="finite float32",
            fix="The training that made it diverged: lower learning-rate or clip-norm.",
        )
    with torch.no_grad():
        for name, part in zip(names, np.split(vector, np.cumsum(sizes)[:-1]), strict=True):
            target = state[name]
            target.copy_(torch.from_numpy(np.ascontiguousarray(part, np.float32)).view(target.shape))
