"""A site trains alone, as if there were no others: what the study's figures are compared with.

In:  the site's folder, a task, the weights that every site started from. Out: counts of the site's own model, and of
     age and sex, on the site's own patients; no weights leave.
Called by the ClientApp. Rounds, steps and the choice of the best round are those of the study: the same functions do
the work, one site answers, and its update is the next global vector.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.config import Stage, StudySettings
from fedecg.errors import FederationError, ModelError
from fedecg.evaluation import age_sex_risk
from fedecg.federation.baselines import BaselinesReply, BaselinesTask
from fedecg.federation.documents import CountsDocument, JoinedPart, PartCounts
from fedecg.federation.hazard import HazardState, check_events
from fedecg.federation.rounds import RoundRecord
from fedecg.federation.tasks import EvaluateTask, SurveyTask, TrainReply, TrainTask
from fedecg.federation.transfer import decoded
from fedecg.model import build_network, load_vector, to_vector
from fedecg.text import load_bank
from fedecg.training import UNWATCHED, Watch, log_hazards
from fedecg_client import plain_sums, work
from fedecg_client.alone_kept import AloneStanding
from fedecg_client.opened import Weights, opened, settings_here, trained_names
from fedecg_client.workplace import Workplace

__all__ = ["baselines"]

Vector = NDArray[np.float32]
MAX_ATTEMPTS = 3


def baselines(place: Workplace, task: BaselinesTask, weights: Weights) -> tuple[BaselinesReply, None]:
    """Train alone, score the part asked for; a model that cannot be fitted costs its figures only."""
    site, network, settings = opened(place.folder, task, weights)
    grid, rows = work.evaluation_grid(task.grid), site.rows(task.part)
    limits, local, code = plain_sums.thresholds_of(place.folder, settings), None, ""
    try:
        vector = Alone(place, task, site.name, work.parts_of(site.cohort)).train(weights)
        load_vector(network, trained_names(network, settings, "survival"), vector)
        local = work.concordance_counts(log_hazards(network, site, rows), site, task.part, grid, limits)
    except (FederationError, ModelError) as error:
        code = error.code
    control = age_sex_risk(site.cohort.select(site.rows("train")), site.cohort.select(rows))
    age_sex = None if control is None else work.concordance_counts(control, site, task.part, grid, limits)
    return BaselinesReply(site=site.name, local=local, local_code=code, age_sex=age_sex), None


class Alone:
    """Both stages with one site.

    Args:
        place: where the site works; its watch is told of rounds.
        task: settings and lock.
        name: of the site.
        parts: patients and events of the site.
    """

    def __init__(
        self, place: Workplace, task: BaselinesTask, name: str, parts: dict[JoinedPart, PartCounts]
    ) -> None:
        self.settings = _plain(settings_here(place.folder, task))
        self.place, self.watch = place, place.watch
        self.task, self.name, self.parts = task, name, parts
        self.standing = AloneStanding(np.zeros(0, dtype=np.float32))

    def train(self, weights: Weights) -> Vector:
        """The weights of the survival stage that validation judged best.

        Raises:
            FederationError: FECG-512 no event; FECG-511 a baseline that cannot be kept.
            ModelError: whatever makes a local round impossible.
        """
        check_events(self.parts["train"].events if "train" in self.parts else 0, 1)
        kept = self.place.alone.read() if self.place.alone else None
        self.standing = kept or AloneStanding(np.asarray(weights, dtype=np.float32))
        if self.standing.stage == "align":
            self.align()
        self.survive()
        return self.standing.best

    def align(self) -> None:
        """The rounds of alignment; then the weights of survival training."""
        standing = self.standing
        while standing.done < self.settings.align.rounds:
            _, standing.vector = self.round(TrainTask(**self.common("align", standing.done + 1)))
            standing.done += 1
            self.keep()
        network = build_network(
            self.settings.model,
            self.settings.signals.samples,
            load_bank(self.settings.align.bank).vectors.shape[1],
            self.settings.seed,
            self.settings.align.temperature,
            self.settings.survival.intercepts,
        )
        load_vector(network, trained_names(network, self.settings, "align"), standing.vector)
        standing.vector = to_vector(network, trained_names(network, self.settings, "survival"))
        standing.stage, standing.done = "survival", 0

    def survive(self) -> None:
        """Survey, rounds, validation of the last weights."""
        standing, rounds = self.standing, self.settings.survival.rounds
        if standing.survey is None:
            standing.survey, _ = work.survey(
                self.place, SurveyTask(**self.common("survival", 0)), standing.vector
            )
        hazard = HazardState(self.settings, {self.name: standing.survey}, {self.name: self.parts})
        if standing.cumulative.size:
            hazard.restore(standing.cumulative, standing.risk_cuts)
        while standing.done < rounds:
            self.survival_round(hazard)
            standing.take_up(hazard)
            self.keep()
        task = EvaluateTask(
            **self.common("survival", rounds),
            grid=hazard.grid_document,
            edges_days=hazard.shipped_edges_days.tolist(),
            parts=["validation"],
        )
        reply, _ = work.evaluate(self.place, task, standing.vector)
        self.consider(reply.counts["validation"], hazard)

    def survival_round(self, hazard: HazardState) -> None:
        """One round; where the baseline had drifted, the weights stay and it is repeated with a fresh one."""
        standing = self.standing
        task = TrainTask(
            **self.common("survival", standing.done + 1),
            hazard=hazard.document,
            grid=hazard.grid_document,
        )
        reply, after = self.round(task)
        if reply.sums:
            self.consider(reply.sums.validation, hazard)
        record = RoundRecord("survival", task.round, [self.name], [self.name])
        if hazard.digest(record, {self.name: reply}):
            standing.vector, standing.done, standing.attempts = after, task.round, 0
            return
        standing.attempts += 1
        if standing.attempts == MAX_ATTEMPTS:
            raise FederationError(
                "FECG-511",
                "baseline hazard of a site alone",
                found=f"a fit outside [1/3, 3] in {MAX_ATTEMPTS} attempts",
                expected="sum of exp(log hazard) x H0 near the number of events",
            )

    def round(self, task: TrainTask) -> tuple[TrainReply, Vector]:
        """One local round: the site's update is the next global vector."""
        rounds = {stage: getattr(self.settings, stage).rounds for stage in ("align", "survival")}
        done = task.round + (rounds["align"] if task.stage == "survival" else 0)
        if self.watch.progress:
            self.watch.progress(done - 1, sum(rounds.values()))
        vector = self.standing.vector
        reply, update = work.train(self.at_round(task), task, vector)
        after = decoded(update, vector, self.settings.federation.transfer)
        assert after is not None  # training always gives weights
        return reply, after

    def at_round(self, task: TrainTask) -> Workplace:
        """Within a round the site keeps its steps, as in a round with others; they are shown as rounds."""
        if self.watch.checkpoint is None:
            return replace(self.place, watch=UNWATCHED)
        part = self.watch.checkpoint.part(f"{task.stage} {task.round} {self.standing.attempts}")
        return replace(self.place, watch=Watch(checkpoint=part))

    def keep(self) -> None:
        """A round is done."""
        if self.place.alone:
            self.place.alone.write(self.standing)

    def consider(self, counts: CountsDocument, hazard: HazardState) -> None:
        """Remember the weights if their concordance on validation is the best so far."""
        pairs = counts.counts(hazard.grid).pairs
        score = pairs.c_index if math.isfinite(pairs.c_index) else float("-inf")
        if score >= self.standing.score:
            self.standing.score, self.standing.best = score, self.standing.vector

    def common(self, stage: Stage, number: int) -> dict[str, Any]:
        """What every task carries."""
        return {
            "lock_sha256": self.task.lock_sha256,
            "stage": stage,
            "round": number,
            "bank_sha256": self.task.bank_sha256,
            "space_sha256": self.task.space_sha256,
            "frequencies_sha256": self.task.frequencies_sha256,
            "settings": {
                **self.task.settings,
                "federation": self.settings.federation.model_dump(by_alias=True),
            },
        }


def _plain(settings: StudySettings) -> StudySettings:
    """One site has nobody to be drawn to or averaged with: fedavg, whatever the study's algorithm."""
    plain = settings.federation.model_copy(update={"algorithm": "fedavg", "proximal_mu": 0.0})
    return settings.model_copy(update={"federation": plain})
