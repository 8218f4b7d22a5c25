"""Where a site's training alone stands, kept on its disk after every local round: a kill costs one of them.

In:  weights, the best weights so far, baseline hazard and grid of the site alone.
Out: state/checkpoint/alone.safetensors, and the same again for the same task.
Called by `fedecg_client.alone`; a simulation keeps nothing.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedecg.config import Stage
from fedecg.errors import RunError
from fedecg.federation.hazard import HazardState
from fedecg.federation.tasks import SurveyReply
from fedecg.training import read_sealed, write_sealed

__all__ = ["AloneFile", "AloneStanding"]

Vector = NDArray[np.float32]
FILE = "alone.safetensors"

log = logging.getLogger("fedecg.client")


@dataclass
class AloneStanding:
    """Between two local rounds.

    Attributes:
        vector: (P,) weights of the stage.
        stage: that is trained.
        done: rounds of the stage.
        attempts: at the next round, that ended with a baseline which had drifted.
        survey: of the site alone, once the survival stage has begun.
        score: concordance on validation of the best weights so far.
        best: (P,) these weights; empty before the first.
        cumulative, risk_cuts: baseline hazard and grid, as `HazardState.restore` takes them.
    """

    vector: Vector
    stage: Stage = "align"
    done: int = 0
    attempts: int = 0
    survey: SurveyReply | None = None
    score: float = float("-inf")
    best: Vector = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    cumulative: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    risk_cuts: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def take_up(self, hazard: HazardState) -> None:
        """The baseline and the grid that the next round begins with."""
        self.cumulative, self.risk_cuts = hazard.cumulative, hazard.grid.risk_cuts


class AloneFile:
    """The file of one task.

    Args:
        folder: of the site's checkpoints.
        key: of the task; what was kept for another one is as if it were not there.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._path, self._task = folder / FILE, [key, torch.__version__]

    def read(self) -> AloneStanding | None:
        """Where this task stood, if a whole file says so."""
        kept = read_sealed(self._path)
        if kept is None or kept[1].pop("task", None) != self._task:
            return None
        arrays, document = kept
        survey = document.pop("survey")
        fields: dict[str, Any] = {**arrays, **document}
        standing = AloneStanding(**fields, survey=survey and SurveyReply.model_validate_json(survey))
        log.info("training alone goes on after %s round %d", standing.stage, standing.done)
        return standing

    def write(self, standing: AloneStanding) -> None:
        """Replace the file; a disk that is full costs the file, not the training."""
        arrays = {name: getattr(standing, name) for name in ("vector", "best", "cumulative", "risk_cuts")}
        document = {name: getattr(standing, name) for name in ("stage", "done", "attempts", "score")}
        survey = standing.survey.model_dump_json(by_alias=True) if standing.survey else None
        try:
            write_sealed(self._path, arrays, {**document, "survey": survey, "task": self._task})
        except RunError as error:
            log.warning("where training alone stands was not written: %s", error)

    def remove(self) -> None:
        """The task is done."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
