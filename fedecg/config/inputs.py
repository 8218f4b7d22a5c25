"""What a study learns from: the ECGs and how they are split (simulations), and the way to the network's input.

In:  sections `data`, `partition`, `signals` of a study. Out: frozen models.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedecg.config.section import Count, Positive, Section

__all__ = [
    "AFTER_R_S",
    "BEFORE_R_S",
    "DataSettings",
    "PartitionSettings",
    "SignalSettings",
    "median_samples",
]


class DataSettings(Section):
    """Where the ECGs come from (simulations only)."""

    source: Literal["synthetic", "ptbxl", "code15", "cohort"] = "synthetic"
    path: str = ""  # folder of the data set as published; `--data` overrides it
    store: Annotated[str, Field(min_length=1)] = "runs/store"  # preprocessed signals are kept and reused here
    sites: dict[str, Annotated[int, Field(ge=1, le=1_000_000)]] = Field(
        default_factory=dict
    )  # synthetic: site name -> patients for train + validation
    test_patients: Annotated[int, Field(ge=1, le=1_000_000)] = (
        6000  # synthetic: patients of the separate test part
    )
    records_hz: Literal[100, 500] = 100  # ptbxl: which of the two published folders to read
    event_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.30  # ptbxl: share of simulated events
    events: Annotated[int, Field(ge=0)] = (
        0  # training events whose outcome is known, over all sites; the other patients align only. 0 = all
    )
    aligned: str = ""  # aligned networks are kept and reused here, a folder; "" = every study aligns its own


class PartitionSettings(Section):
    """How records become virtual sites (simulations only)."""

    by: Literal["column", "dirichlet", "quantity", "iid"] = "column"
    column: Literal["site", "device"] = "site"
    sites: Count = 4  # number of virtual sites, unless `by = "column"`
    label: Literal["superclass", "event"] = "superclass"  # what a Dirichlet split skews
    follow_up: Literal["full", "staggered", "disjoint"] = (
        "full"  # sites stop at different times; or see other years
    )
    alpha: Positive = 0.5  # Dirichlet concentration or, for `quantity`, evenness; small = uneven


class SignalSettings(Section):
    """From a recording to the network's input; stored inside every model file."""

    input: Literal["rhythm", "median"] = (
        "rhythm"  # the middle of the recording, or the median of its beats (then rate-hz 500 has samples 608)
    )
    rate_hz: Annotated[int, Field(ge=50, le=1000)] = 100
    samples: Annotated[int, Field(ge=64, le=16384, multiple_of=32)] = 1024
    highpass_hz: Positive = 0.5
    lowpass_hz: Positive = 40.0
    powerline: Literal["50", "60", "none"] = (
        "none"  # notch; a hospital that builds its own store chooses its own
    )

    @model_validator(mode="after")
    def _band_fits_rate(self) -> SignalSettings:
        if not self.highpass_hz < self.lowpass_hz < self.rate_hz / 2:
            raise ValueError("expected highpass-hz < lowpass-hz < rate-hz / 2")
        return self

    @model_validator(mode="after")
    def _length_is_that_of_a_beat(self) -> SignalSettings:
        if self.input == "median" and self.samples != median_samples(self.rate_hz):
            raise ValueError(
                f'expected samples = {median_samples(self.rate_hz)} with input = "median" at {self.rate_hz} Hz'
            )
        return self


BEFORE_R_S, AFTER_R_S = 0.4, 0.8  # of a median beat: 1.2 s, P to T at ordinary rates


def median_samples(rate_hz: int) -> int:
    """Length of the network's input for a median beat: 1.2 s, padded to the next multiple of 32 (500 Hz: 608)."""
    return -32 * (-(round(BEFORE_R_S * rate_hz) + round(AFTER_R_S * rate_hz)) // 32)
