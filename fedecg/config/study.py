"""One study: its sections together, and what holds between them.

In:  a study (or simulation) file. Out: frozen `StudySettings`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from fedecg.config.exchange import EvaluationSettings, FederationSettings, PrivacySettings
from fedecg.config.inputs import DataSettings, PartitionSettings, SignalSettings
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
    site_defaults: SiteDefaults = SiteDefaults()
    signals: SignalSettings = SignalSettings()
    model: ModelSettings = ModelSettings()
    align: AlignSettings = AlignSettings()
    survival: SurvivalSettings = SurvivalSettings()
    federation: FederationSettings = FederationSettings()
    privacy: PrivacySettings = PrivacySettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _private_alignment_is_a_sum(self) -> StudySettings:
        if self.privacy.mode == "sample" and self.align.loss == "infonce":
            raise ValueError(
                'expected align.loss = "bank" or "paper" with privacy.mode = "sample": infonce couples the records of '
                "a batch, so that no record's share of a step can be bounded"
            )
        return self
