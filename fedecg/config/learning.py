"""What is trained and how: the network, alignment (stage 1), survival (stage 2).

In:  sections `model`, `align`, `survival` of a study. Out: frozen models.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PlainSerializer, model_validator

from fedecg.config.section import Fraction, NonNegative, Positive, Section

__all__ = ["AlignSettings", "ModelSettings", "StageSettings", "SurvivalSettings"]


class ModelSettings(Section):
    """The dual-attention network."""

    preset: Literal["fedecg", "paper"] = "fedecg"
    encoder: Literal["dual-attention", "xresnet1d", "transformer"] = (
        "dual-attention"  # the others are to be compared with: as many parameters, no attention across leads
    )
    size: Literal["base", "small"] = "base"  # `small`: for tests and research grids; `paper` has one size
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2


MOST = 100_000  # rounds of a stage, steps of a round: more is a slip of the pen
Rounds = Annotated[int, Field(ge=0, le=MOST)]
Steps = Annotated[int, Field(ge=1, le=MOST)]


class StageSettings(Section):
    """What both training stages have in common."""

    rounds: Rounds = 10
    local_steps: Steps = 20  # optimiser steps a site makes in a round, the same at every site
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 64
    learning_rate: Positive = 1e-3
    weight_decay: NonNegative = 1e-2
    optimizer: Literal["adamw", "sgd"] = "adamw"  # starts anew every round; sgd: plain, without momentum
    clip_norm: Positive = 5.0  # bound on the norm of a local gradient
    reconstruction: Fraction = 0.0  # weight of the reconstruction loss; the rest goes to the main loss


class AlignSettings(StageSettings):
    """Stage 1: pull the ECG embedding to the embedding of what the report says."""

    loss: Literal["bank", "paper", "infonce"] = "bank"
    class_weights: Literal["none", "public"] = (
        "none"  # bank: rare statements count more, by public frequencies
    )
    start: str = ""  # folder of an aligned model to begin with; with rounds = 0 it goes straight to survival
    bank: str = "minilm-demo"  # a bank in the package, or a path to a .safetensors bank
    likelihood_zero: Literal["stated", "paper"] = "stated"  # PTB-XL: 0 means "not stated how likely"
    # Codes of the bank that alignment is not shown, neither as targets nor as negatives: for zero-shot on unseen ones.
    leave_out: Annotated[tuple[str, ...], Field(strict=False), PlainSerializer(list)] = ()
    targets: Literal["stated", "shuffled"] = (
        "stated"  # shuffled: a control, each record gets what another of its site and part states
    )
    temperature: Annotated[float, Field(ge=0.01, le=1.0)] = 0.1  # start value; learned within [0.01, 1]
    reconstruction: Fraction = 0.1
    masked_leads: Annotated[int, Field(ge=0, le=11)] = (
        3  # leads hidden from the encoder in a step, one draw for the batch
    )

    @model_validator(mode="after")
    def _weights_belong_to_bank(self) -> AlignSettings:
        if self.class_weights != "none" and self.loss != "bank":
            raise ValueError('expected class-weights = "none" unless loss = "bank"')
        return self


MOST_GRID_BINS = 100_000  # days up to 273 years


class SurvivalSettings(StageSettings):
    """Stage 2: Cox fine-tuning."""

    start: str = ""  # folder of a finished model to go on with, risk head and all; with align.rounds = 0
    loss: Literal["cox-batch", "cox-site", "cox-pooled", "grouped"] = "cox-pooled"
    ties: Literal["efron", "breslow"] = (
        "efron"  # cox-batch and cox-site; cox-pooled is Breslow on binned times
    )
    baseline: Literal["shared", "site"] = "shared"  # cox-pooled: one baseline hazard for all, or one a site
    bins: Annotated[int, Field(ge=2, le=4096)] = 64  # most time bins of the pooled baseline hazard
    grid_days: Positive = 30.0  # public grid on which sites report events once
    horizon_days: Positive = 7305.0  # the public grid ends here (20 years)
    exp_bound: Annotated[float, Field(gt=0, le=50)] = 10.0  # beyond it exp(log hazard) is continued linearly
    freeze_rounds: Rounds = 0  # the encoder stays as it is in so many first rounds
    encoder_rate: Annotated[float, Field(ge=0, le=10)] = (
        1.0  # of learning-rate, for the encoder; the rest has 1
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] = (
        1.0  # a factor more of the learning rate for every level of the encoder further from the risk head
    )
    alignment: Annotated[float, Field(ge=0, lt=1)] = (
        0.0  # weight of the alignment loss kept in survival training; the rest is the survival loss
    )

    @model_validator(mode="after")
    def _grid_is_of_reasonable_size(self) -> SurvivalSettings:
        if self.horizon_days / self.grid_days > MOST_GRID_BINS:
            raise ValueError(f"expected at most {MOST_GRID_BINS} bins of grid-days up to horizon-days")
        return self

    @property
    def intercepts(self) -> int:
        """Baseline parameters among the network's weights: one a time bin for `grouped`, else none."""
        return self.bins if self.loss == "grouped" else 0
