"""FedBN at a site: its normalisation layers stay its own; what comes from the others is everything else.

In:  a network that holds a task's weights. Out: the same with the norms of this site; after a local round they are kept
     in state/own/, a small file a round.
Called by `fedecg_client.opened` for every task, so that a site trains, counts and is evaluated with its own norms, and
by `fedecg_client.work.train`.

The norms travel with the update all the same (a few per cent of it), and the coordinator averages them as it averages
all: a site that has none yet, or never took part, begins with that mean. It ships with the model, and such a site can
re-estimate running statistics on its own ECGs (`fedecg.training.recalibrated`). Which tensors are norms:
`fedecg.model.local_norms`.

Source: Li et al. 2021, FedBN, arXiv 2102.07623.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fedecg.config import Stage
from fedecg.federation.tasks import Task, TrainTask
from fedecg.model import Network, local_norms
from fedecg.training import read_sealed, write_sealed
from fedecg_client.folder import made_state, site_state

__all__ = ["keep_norms", "own_norms", "with_own_norms"]

STAGES: tuple[Stage, ...] = ("survival", "align")


def with_own_norms(folder: Path, task: Task, network: Network) -> None:
    """Put the site's own norms in place of those that came; nothing happens where it has none yet.

    Args:
        folder: of the site.
        task: a training task's weights are those before its round, any other's those after its.
        network: holds the weights; changed in place.
    """
    done = task.round - 1 if isinstance(task, TrainTask) else task.round
    norms = own_norms(folder, task.run, task.stage, done)
    state = network.state_dict()
    with torch.no_grad():
        for name, values in norms.items():
            if name in state and tuple(state[name].shape) == values.shape:
                state[name].copy_(torch.from_numpy(values))


def own_norms(folder: Path, run: str, stage: Stage, done: int) -> dict[str, NDArray[np.float32]]:
    """Name -> values of the site's norms after so many rounds of a stage; empty where it has none.

    Of the latest round of the stage that the site took part in, up to `done`; before its first in survival, those that
    alignment ended with.
    """
    folder = site_state(folder) / "own"
    found: dict[int, Path] = {}
    for file in folder.glob(f"norms-{run or 'run'}-{stage}-*.safetensors"):
        number = re.fullmatch(r".*-(\d+)", file.stem)
        if number and int(number[1]) <= done:
            found[int(number[1])] = file
    for _, file in sorted(found.items(), reverse=True):
        kept = read_sealed(file)
        if kept is not None:
            return kept[0]
    return own_norms(folder.parent.parent, run, "align", ALL_ROUNDS) if stage == "survival" else {}


def keep_norms(folder: Path, task: TrainTask, network: Network, names: tuple[str, ...]) -> None:
    """Write the norms after a local round.

    Args:
        names: of the stage's tensors.

    Raises:
        RunError: FECG-601 if there is no room.
    """
    state = network.state_dict()
    norms = {name: state[name].detach().cpu().numpy().copy() for name in local_norms(network, names)}
    file = f"norms-{task.run or 'run'}-{task.stage}-{task.round}.safetensors"
    write_sealed(made_state(folder) / "own" / file, norms, {"stage": task.stage})


ALL_ROUNDS = 2**31
