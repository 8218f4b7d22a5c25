"""Training again with other seeds: does attention look at the same places then?

In:  the finished study: its settings, its sites, the weights with which its survival stage began.
Out: the flat vectors of 1 to `evaluation.explain-seeds` other models, by real rounds. Called by the study once its
model is saved, so that whatever happens here costs the test of stability and nothing else.

`explain-seeds-from = "aligned"`: the survival stage again from the same aligned weights; what that stage adds (the risk
head; the decoder, if alignment had none) begins anew, and batches and dropout are others. `"scratch"`: both stages from
new weights. The seed is `repeated_seed` of the study's and of the repetition's number, which travels with the tasks.
Rounds stand in rounds.json as "survival, seed 1". A repetition that was finished is kept, and a study that is resumed
takes it up; one that was not begins again with its first round, and ends with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fedecg.config import Stage, StudySettings
from fedecg.errors import FedecgError
from fedecg.explanation.faithfulness import NOT_ASKED, SeedsOf
from fedecg.federation.hazard import HazardState
from fedecg.federation.rounds import RoundRecord
from fedecg.model import Network, build_network, load_aligned, load_vector, tensors_of_stage, to_vector
from fedecg.progress import Progress
from fedecg.text import Bank
from fedecg.training.randomness import repeated_seed
from fedecg_server.between_rounds import BetweenRounds
from fedecg_server.concluded import Concluded
from fedecg_server.consortium import Consortium
from fedecg_server.run_folder import RunFolder
from fedecg_server.shelf import Shelved
from fedecg_server.stage import AlignRounds, Candidate, StageRounds, SurvivalRounds, repeat_label

__all__ = ["Book", "Repeats", "survival_start"]

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Book:
    """Where repetitions stand once they are finished.

    Args:
        concluded: the files of the run.
        folder: of the run; its book of rounds.
        records: the study's, to which those of a repetition are added.
        seconds: the study's, by stage.
    """

    concluded: Concluded
    folder: RunFolder
    records: list[RoundRecord]
    seconds: dict[str, float]

    def once(self, repeat: int, train: Callable[[], Shelved]) -> Shelved:
        """The model of a repetition, trained now or before the run was resumed; the book says the same."""
        kept = self.concluded.repetition(repeat)
        if kept is None:
            begin, sign = len(self.folder.rounds), repeat_label("", repeat)
            vector = train()
            seconds = {stage: took for stage, took in self.seconds.items() if stage.endswith(sign)}
            self.concluded.keep_repetition(repeat, vector, self.folder.rounds[begin:], seconds)
            return vector
        repetition, vector = kept
        for record in map(RoundRecord.of, repetition.records):
            self.folder.keep(record)
            if record.stage != repeat_label("validation", repeat):
                self.records.append(record)
        self.seconds.update(repetition.seconds)
        return vector


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
        book: of the repetitions that are finished.
        memory_of: a stage and a repetition -> what the algorithm remembers, at first nothing.
    """

    settings: StudySettings
    consortium: Consortium
    bank: Bank
    start: Shelved
    run: Callable[[StageRounds, Vector], Shelved]
    keep: Callable[[RoundRecord], None]
    survey: Callable[[Vector, int], HazardState]
    judge: Callable[[SurvivalRounds], Candidate]
    progress: Progress
    book: Book
    memory_of: Callable[[Stage, int], BetweenRounds]

    @property
    def seeds_of(self) -> SeedsOf:
        """Which stages are trained again."""
        scratch = self.settings.evaluation.explain_seeds_from == "scratch" and self.settings.align.rounds > 0
        return "both stages" if scratch else "survival"

    def models(self) -> tuple[list[Shelved], str]:
        """The models that could be trained, and why there may be none."""
        models: list[Shelved] = []
        for repeat in range(1, self.settings.evaluation.explain_seeds + 1):
            try:
                models.append(self.book.once(repeat, partial(self._trained, repeat)))
            except FedecgError as error:
                self.progress.warn(f"training again, seed {repeat}: {error}")
                return models, f"training again failed ({error.code})"
        return models, NOT_ASKED

    def _trained(self, repeat: int) -> Shelved:
        """Chosen as the study's own model was: the best on validation."""
        start = self._start(repeat)
        rounds = SurvivalRounds(
            self.settings,
            self.consortium,
            self.keep,
            _not_saved,
            repeat=repeat,
            remembered=self.memory_of("survival", repeat),
            hazard=self.survey(start, repeat),
        )
        rounds.current = self.run(rounds, start).whole()
        return self.judge(rounds).vector

    def _start(self, repeat: int) -> Vector:
        network = self._new_network(repeat)
        if self.seeds_of == "survival":
            return survival_start(network, self.settings, self.start.whole())
        names = tensors_of_stage(network, self.settings, "align")
        rounds = AlignRounds(
            self.settings,
            self.consortium,
            self.keep,
            _not_saved,
            repeat=repeat,
            remembered=self.memory_of("align", repeat),
        )
        load_vector(network, names, self.run(rounds, to_vector(network, names)).whole())
        return to_vector(network, tensors_of_stage(network, self.settings, "survival"))

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
    names = tensors_of_stage(network, settings, "survival")
    taught = set(tensors_of_stage(network, settings, "align"))
    added = tuple(name for name in names if name not in taught)
    new = to_vector(network, added)
    load_vector(network, names, aligned)
    load_vector(network, added, new)
    return to_vector(network, names)


def _not_saved(number: int, vector: Vector) -> None:
    """Nothing of a repetition is checkpointed."""
    del number, vector
