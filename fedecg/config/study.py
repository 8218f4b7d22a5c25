"""One study: its sections together, and what holds between them.

In:  a study (or simulation) file. Out: frozen `StudySettings`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, model_validator

from fedecg.config.exchange import EvaluationSettings, FederationSettings, PrivacySettings
from fedecg.config.inputs import DataSettings, DriftSettings, PartitionSettings, SignalSettings
from fedecg.config.learning import AlignSettings, ModelSettings, SurvivalSettings
from fedecg.config.section import STUDY_NAME, Section
from fedecg.config.site import SiteDefaults

__all__ = ["StudySettings"]


class StudySettings(Section):
    """One study: what the coordinator decides, plus, in a simulation, the data and how they are split."""

    name: Annotated[str, Field(pattern=STUDY_NAME)] = "study"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataSettings = DataSettings()
    partition: PartitionSettings = PartitionSettings()
    drift: DriftSettings = DriftSettings()
    site_defaults: SiteDefaults = SiteDefaults()
    signals: SignalSettings = SignalSettings()
    model: ModelSettings = ModelSettings()
    align: AlignSettings = AlignSettings()
    survival: SurvivalSettings = SurvivalSettings()
    federation: FederationSettings = FederationSettings()
    privacy: PrivacySettings = PrivacySettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _private_losses_are_sums(self) -> StudySettings:
        if self.privacy.mode == "sample":
            for found, why, instead in _coupled(self):
                raise ValueError(
                    f'expected {instead} with privacy.mode = "sample": {found} couples {why}, so that no '
                    "record's share of a step can be bounded"
                )
        return self

    @model_validator(mode="after")
    def _algorithm_is_possible(self) -> StudySettings:
        algorithm, private = self.federation.algorithm, self.privacy.mode == "sample"
        if algorithm in ("scaffold", "fedbn") and (private or self.privacy.sums == "masked"):
            raise ValueError(
                f'expected another federation.algorithm than "{algorithm}" with privacy.mode = "sample" or '
                'privacy.sums = "masked": what it keeps for each site would have to be seen, or bounded, site by site'
            )
        if algorithm == "fedbn" and self.evaluation.explain and self.evaluation.explain_seeds:
            raise ValueError(
                'expected evaluation.explain-seeds = 0 with federation.algorithm = "fedbn": a site keeps the norms of '
                "one training"
            )
        trained = [stage for stage in (self.align, self.survival) if stage.rounds > 0]
        if algorithm == "scaffold" and any(stage.optimizer != "sgd" for stage in trained):
            raise ValueError(
                'expected optimizer = "sgd" in [align] and [survival] (those with rounds) with federation.algorithm = '
                '"scaffold": its control variates are mean gradients, which steps of AdamW do not tell'
            )
        return self

    @model_validator(mode="after")
    def _sites_count_the_same(self) -> StudySettings:
        if self.privacy.mode == "client":
            for found, why, instead in _not_of_a_site(self):
                raise ValueError(f'expected {instead} with privacy.mode = "client": {found} {why}')
        return self

    @model_validator(mode="after")
    def _one_model_to_begin_with(self) -> StudySettings:
        if self.survival.start and (self.align.rounds or self.align.start):
            raise ValueError(
                'expected align.rounds = 0 and align.start = "" with survival.start: a finished model is aligned'
            )
        return self

    @model_validator(mode="after")
    def _encoder_can_do_what_is_asked(self) -> StudySettings:
        if self.model.encoder == "dual-attention":
            return self
        if self.survival.layer_decay != 1:
            raise ValueError(
                f'expected survival.layer-decay = 1 with model.encoder = "{self.model.encoder}": '
                "levels are those of the dual-attention encoder"
            )
        if self.evaluation.explain:
            raise ValueError(
                f'expected evaluation.explain = false with model.encoder = "{self.model.encoder}": it has no attention '
                "across leads to be tested"
            )
        if self.model.encoder == "xresnet1d" and self.privacy.mode == "sample":
            raise ValueError(
                'expected another model.encoder than "xresnet1d" with privacy.mode = "sample": its BatchNorm couples '
                "the patients of a batch"
            )
        return self

    @model_validator(mode="after")
    def _fraction_of_plain_sums(self) -> StudySettings:
        if self.federation.fraction < 1 and (self.privacy.mode == "sample" or self.privacy.sums == "masked"):
            raise ValueError(
                'expected federation.fraction = 1 with privacy.mode = "sample" or privacy.sums = "masked": budgets and '
                "keys are planned for all sites of every round"
            )
        return self

    @property
    def validation_chooses(self) -> bool:
        """Whether the weights that ship are those of the best round; else they are the last.

        With differential privacy of patients no round is validated; with that of sites the choice would be one more
        release, without noise. Where other sites take part in every round they are judged on other patients in every
        round, few of whom can be compared.
        """
        return self.privacy.mode == "none" and self.federation.fraction >= 1


def _not_of_a_site(study: StudySettings) -> Iterator[tuple[str, str, str]]:
    """What of a study has no place where every site's share of an aggregate is bounded: what, why, what instead."""
    algorithm, weight = study.federation.algorithm, study.federation.weight
    mean = 'federation.algorithm = "fedavg", "fedprox", "fedadam" or "fedyogi"'
    if algorithm in ("median", "trimmed-mean", "krum"):
        yield f'"{algorithm}"', "is no sum of clipped updates, to which noise could be added", mean
    if algorithm in ("scaffold", "fedbn"):
        yield f'"{algorithm}"', "keeps things of each site to which no noise is added", mean
    survival = study.survival
    if survival.rounds and (
        survival.loss == "grouped" or (survival.loss == "cox-pooled" and survival.baseline == "shared")
    ):
        instead = 'survival.baseline = "site", and loss = "cox-pooled" or "cox-site",'
        yield (
            "a baseline hazard of all",
            "takes each site's exact sums into the updates of the others",
            instead,
        )
    if weight != "auto":
        yield f'"{weight}"', "would give one site more than its share", 'federation.weight = "auto"'
    if study.model.preset == "paper":
        yield "its BatchNorm", "has running variances, which noise makes negative", 'model.preset = "fedecg"'
    if study.model.encoder == "xresnet1d":
        yield "its BatchNorm", "has running variances, which noise makes negative", "another model.encoder"
    if study.data.aligned and not study.data.public_patients:
        yield "data.aligned", "takes an alignment whose releases nobody would count", 'data.aligned = ""'


def _coupled(study: StudySettings) -> Iterator[tuple[str, str, str]]:
    """What of a study is no sum over patients, what it couples, and what to take instead."""
    if study.align.loss == "infonce":
        yield "infonce", "the records of a batch", 'align.loss = "bank" or "paper"'
    if study.align.targets == "shuffled":
        yield "shuffled", "the statements of a site's records", 'align.targets = "stated"'
    if study.survival.loss in ("cox-batch", "cox-site"):
        whole = "site" if study.survival.loss == "cox-site" else "batch"
        yield study.survival.loss, f"the patients of a {whole}", 'survival.loss = "cox-pooled" or "grouped"'
    if study.model.preset == "paper":
        yield "its BatchNorm", "the patients of a batch", 'model.preset = "fedecg"'
