"""SCAFFOLD at a site: its own control variate, on its own disk; nothing of it leaves.

In:  a task's vector (weights, then the control variate of all sites). Out: the weights; a pull for each local step; and
     after the round, in state/own/, the control variate that follows from it.
Called by `fedecg_client.work.train`. The file appears whole or not at all, and holds two rounds: that which the
coordinator counts, by the task's `controls`, and the one being answered. A reply that was lost, rejected, or belonged
to a round that was repeated leaves the first as it was; a round that is computed again ends with the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedecg.config import StudySettings
from fedecg.errors import FederationError
from fedecg.federation.scaffold import own_change, parted
from fedecg.federation.tasks import TrainTask
from fedecg.model import Network, layout, learned_pieces, tensors_of_stage
from fedecg.training import read_sealed, write_sealed
from fedecg_client.folder import made_state

__all__ = ["OwnControl", "control_of", "weights_of"]

Vector = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class OwnControl:
    """A site's control variate in one round.

    Attributes:
        file: that keeps it.
        counted: round whose control variate the coordinator counts; 0: none yet.
        round: that is being worked on.
        everybody, own: c and c_i, (P,).
    """

    file: Path
    counted: int
    round: int
    everybody: Vector
    own: Vector

    def pull(self, network: Network, names: tuple[str, ...]) -> dict[str, Tensor]:
        """Name -> c - c_i, which every local step adds to its gradient."""
        difference = torch.from_numpy(self.everybody - self.own)
        shapes = layout(network, names)
        parts = torch.split(difference, [int(np.prod(shape)) for _, shape in shapes])
        return {name: part.view(shape) for (name, shape), part in zip(shapes, parts, strict=True)}

    def keep(
        self,
        network: Network,
        settings: StudySettings,
        task: TrainTask,
        sent: Vector,
        trained: Vector,
        steps: int,
    ) -> None:
        """Write what follows from the round.

        Args:
            sent: (P,) weights that came. trained: (P,) those that go, as the coordinator will read them.
            steps: that were made.

        Raises:
            RunError: FECG-601 if there is no room.
        """
        stage = settings.align if task.stage == "align" else settings.survival
        names = tensors_of_stage(network, settings, task.stage)
        pieces = learned_pieces(network, names, stage, task.round)
        after = self.own.copy()
        for part, change in own_change(pieces, sent, self.everybody, trained, steps):
            after[part] += change
        kept = {_key(self.counted): self.own} if self.counted else {}
        write_sealed(self.file, kept | {_key(self.round): after}, {"stage": task.stage})


def weights_of(settings: StudySettings, vector: Vector | None) -> tuple[Vector | None, Vector | None]:
    """Weights and control variate of all sites that a training task carries; the latter only with scaffold.

    Raises:
        FederationError: FECG-504 a vector that cannot be halved.
    """
    if settings.federation.algorithm != "scaffold" or vector is None:
        return vector, None
    return parted(vector)


def control_of(folder: Path, task: TrainTask, site: str, everybody: Vector) -> OwnControl:
    """The site's own control variate, as the coordinator counts it.

    Args:
        folder: of the site.
        task: says of which round it must be.
        site: its name.
        everybody: (P,) c.

    Raises:
        FederationError: FECG-392 it is not there: the site's state folder is another than it was.
        RunError: FECG-601 no folder for it can be made.
    """
    file = made_state(folder) / "own" / f"control-{task.run or 'run'}-{task.stage}-{task.repeat}.safetensors"
    counted = task.controls.get(site, 0)
    own = np.zeros_like(everybody)
    if counted:
        found = read_sealed(file)
        kept = None if found is None else found[0].get(_key(counted))
        if kept is None or kept.shape != everybody.shape:
            raise FederationError(
                "FECG-392",
                "this site's control variate",
                found="none of the round that the coordinator counts, or a damaged one",
                expected="state/own in the site's folder as this site left it",
                fix="Restore state/ from a backup of this run; without it the site cannot go on in this run.",
            )
        own = kept
    return OwnControl(file, counted, task.round, everybody, own)


def _key(number: int) -> str:
    return f"round-{number}"
