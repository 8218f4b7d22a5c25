"""What a killed round goes on from: every half a minute all that a step changes is written to the site's disk.

In:  a round's network, optimiser and generators. Out: one file; later, the same round continued from it, with the
     weights and the loss that it would have had without the kill, bit by bit.
Called by `fedecg.training.descent` through a `Watch`; the client makes that, a simulation has none.

The file belongs to one task, which its key names: the task brings the weights that the round began with, the
settings and the baseline hazard, so that only what came after needs to be kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedecg.errors import RunError
from fedecg.training.sealed import read_sealed, write_sealed

__all__ = ["UNWATCHED", "Checkpoint", "Standing", "Watch"]

Clock = Callable[[], float]

EVERY_S = 30.0  # so much of a round is lost at most

log = logging.getLogger("fedecg.training")


@dataclass
class Standing:
    """Where a round stands: all that its steps change.

    Attributes:
        network: parameters and buffers.
        optimiser: over the parameters of the stage.
        rng: the generator that the steps draw from; None if they draw from torch's alone.
        step: steps made.
        loss_sum: over these steps.
    """

    network: nn.Module
    optimiser: torch.optim.Optimizer
    rng: np.random.Generator | None = None
    step: int = 0
    loss_sum: float = 0.0


class Checkpoint:
    """The file of a round in progress.

    Args:
        path: of the file; a new one replaces the old.
        key: of the task; a file of another task is left alone until it is replaced.
        every_s: seconds between two writes.
        clock: seconds.
    """

    def __init__(self, path: Path, key: str, every_s: float = EVERY_S, clock: Clock = time.monotonic) -> None:
        self._path, self._key, self._every_s, self._clock = path, key, every_s, clock
        self._due = clock() + every_s

    def part(self, name: str) -> Checkpoint:
        """Of a round that is a part of the task: the same file under another key."""
        return Checkpoint(self._path, f"{self._key} {name}", self._every_s, self._clock)

    def restore(self, standing: Standing) -> None:
        """Go to where this task's round stood; nothing happens where there is no whole file of it."""
        kept = read_sealed(self._path)
        if kept is None or kept[1].get("task") != self._task():
            return
        arrays, document = kept
        _put_back(standing, {name: torch.from_numpy(array) for name, array in arrays.items()})
        if standing.rng is not None:
            standing.rng.bit_generator.state = document["numpy"]
        standing.step, standing.loss_sum = document["step"], document["loss-sum"]
        log.info("the round goes on after step %d", standing.step)

    def stepped(self, standing: Standing) -> None:
        """Write, if it is time; a disk that is full costs the checkpoint, not the round."""
        if self._clock() < self._due:
            return
        try:
            write_sealed(self._path, _taken(standing), self._document(standing))
        except RunError as error:
            log.warning("checkpoint of the round not written: %s", error)
        self._due = self._clock() + self._every_s

    def remove(self) -> None:
        """The round is over."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _task(self) -> list[str]:
        return [self._key, torch.__version__]  # another torch would not give the same bits

    def _document(self, standing: Standing) -> dict[str, Any]:
        return {
            "task": self._task(),
            "step": standing.step,
            "loss-sum": standing.loss_sum,
            "numpy": None if standing.rng is None else standing.rng.bit_generator.state,
        }


@dataclass(frozen=True)
class Watch:
    """Who sees the steps of a round: a checkpoint, and whoever shows how far it is; nobody, in a simulation.

    Attributes:
        checkpoint: None = nothing is kept.
        progress: called with the steps made and their number.
    """

    checkpoint: Checkpoint | None = None
    progress: Callable[[int, int], None] | None = None

    def begin(self, standing: Standing, steps: int) -> None:
        """Before the first step: go to where this round once stood."""
        if self.checkpoint is not None:
            self.checkpoint.restore(standing)
        if self.progress is not None:
            self.progress(standing.step, steps)

    def stepped(self, standing: Standing, steps: int) -> None:
        """After each step."""
        if self.progress is not None:
            self.progress(standing.step, steps)
        if self.checkpoint is not None:
            self.checkpoint.stepped(standing)


UNWATCHED = Watch()


def _taken(standing: Standing) -> dict[str, NDArray[Any]]:
    """Every tensor of a standing by its name, and the state of torch's generator."""
    tensors = {f"network.{name}": tensor for name, tensor in standing.network.state_dict().items()}
    for number, weight in enumerate(_weights(standing)):
        for name, value in standing.optimiser.state.get(weight, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{number}.{name}"] = value
    tensors["torch"] = torch.get_rng_state()
    return {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors.items()}


def _put_back(standing: Standing, tensors: dict[str, Tensor]) -> None:
    """The reverse of `_taken`, in place."""
    torch.set_rng_state(tensors.pop("torch"))
    network = {name.removeprefix("network."): t for name, t in tensors.items() if name.startswith("network.")}
    standing.network.load_state_dict(network)
    weights = _weights(standing)
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, number, slot = name.split(".")
            weight = weights[int(number)]
            # In the weight's own memory layout, which the fused optimiser relies on; a step counter has no layout.
            room = torch.empty_like(weight if tensor.shape == weight.shape else tensor, dtype=tensor.dtype)
            standing.optimiser.state[weight][slot] = room.detach().copy_(tensor)


def _weights(standing: Standing) -> list[nn.Parameter]:
    return [weight for group in standing.optimiser.param_groups for weight in group["params"]]
