"""Training again with other seeds: does attention look at the same places then?

In:  the finished study: its settings, its sites, the weights with which its survival stage began.
Out: the flat vectors of 1 to `evaluation.explain-seeds` other models, by real rounds. Called by the study once its
model is saved, so that whatever happens here costs the test of stability and nothing else.

`explain-seeds-from = "aligned"`: the survival stage again from the same aligned weights; what that stage adds (the risk
head; the decoder, if alignment had none) begins anew, and batches and dropout are others. `"scratch"`: both stages from
new weights. The seed is `repeated_seed` of the study's and of the repetition's number, which travels with the tasks.
Rounds stand in rounds.json as "survival, seed 1". They are not checkpointed: a study that was resumed does them again,
with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedecg.config import Stage, StudySettings
from fedecg.errors import FedecgError
from fedecg.explanation.faithfulness import NOT_ASKED, SeedsOf
from fedecg.federation.hazard import HazardState
from fedecg.federation.rounds import RoundRecord
from fedecg.model import Network, build_network, load_aligned, load_vector, stage_tensors, to_vector
from fedecg.progress import Progress
from fedecg.text import Bank
from fedecg.training.randomness import repeated_seed
from fedecg_server.consortium import Consortium
from fedecg_server.stage import AlignRounds, Candidate, StageRounds, SurvivalRounds

__all__ = ["Repeats", "survival_start"]

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Repeats:
    """The study's survival stage, or both of its stages, once more with other seeds.

    Args:
        settings: the study.
        consortium: its sites.
        bank: its code bank.
        start: weights with which the study's survival stage began.
        run: runs the rounds of a stage.
        keep: called with each round's record.
        survey: asks for the survey under given weights.
        judge: validates the weights of the last round; returns what validation chose among all.
        progress: warns of what failed.
    """

    settings: StudySettings
    consortium: Consortium
    bank: Bank
    start: Vector
    run: Callable[[StageRounds, Vector], Vector]
    keep: Callable[[RoundRecord], None]
    survey: Callable[[Vector, int], HazardState]
    judge: Callable[[SurvivalRounds], Candidate]
    progress: Progress

    @property
    def seeds_of(self) -> SeedsOf:
        """Which stages are trained again."""
        scratch = self.settings.evaluation.explain_seeds_from == "scratch" and self.settings.align.rounds > 0
        return "both stages" if scratch else "survival"

    def models(self) -> tuple[list[Vector], str]:
        """The models that could be trained, and why there may be none."""
        models: list[Vector] = []
        for repeat in range(1, self.settings.evaluation.explain_seeds + 1):
            try:
                models.append(self._trained(repeat))
            except FedecgError as error:
                self.progress.warn(f"training again, seed {repeat}: {error}")
                return models, f"training again failed ({error.code})"
        return models, NOT_ASKED

    def _trained(self, repeat: int) -> Vector:
        """Chosen as the study's own model was: the best on validation."""
        start = self._start(repeat)
        rounds = SurvivalRounds(
            self.settings,
            self.consortium,
            self.keep,
            _not_saved,
            repeat=repeat,
            hazard=self.survey(start, repeat),
        )
        rounds.current = self.run(rounds, start)
        return self.judge(rounds).vector

    def _start(self, repeat: int) -> Vector:
        network = self._new_network(repeat)
        if self.seeds_of == "survival":
            return survival_start(network, self.settings, self.start)
        names = _names(network, self.settings, "align")
        rounds = AlignRounds(self.settings, self.consortium, self.keep, _not_saved, repeat=repeat)
        load_vector(network, names, self.run(rounds, to_vector(network, names)))
        return to_vector(network, _names(network, self.settings, "survival"))

    def _new_network(self, repeat: int) -> Network:
        settings = self.settings
        network = build_network(
            settings.model,
            settings.signals.samples,
            self.bank.vectors.shape[1],
            repeated_seed(settings.seed, repeat),
            settings.align.temperature,
            settings.survival.intercepts,
        )
        if settings.align.start:
            load_aligned(network, settings.align.start, settings.signals, self.bank.sha256)
        return network


def survival_start(network: Network, settings: StudySettings, aligned: Vector) -> Vector:
    """Weights to begin the survival stage with again: what alignment taught, and the network's own where it did not.

    Args:
        network: of another seed, fresh; it changes.
        settings: the study.
        aligned: weights with which the study's own survival stage began.
    """
    names = _names(network, settings, "survival")
    taught = set(_names(network, settings, "align"))
    added = tuple(name for name in names if name not in taught)
    new = to_vector(network, added)
    load_vector(network, names, aligned)
    load_vector(network, added, new)
    return to_vector(network, names)


def _names(network: Network, settings: StudySettings, stage: Stage) -> tuple[str, ...]:
    return stage_tensors(network, stage, getattr(settings, stage).reconstruction > 0)


def _not_saved(number: int, vector: Vector) -> None:
    """Nothing of a repetition is checkpointed."""
    del number, vector
