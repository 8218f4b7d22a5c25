"""What a study learns from: the ECGs and how they are split (simulations), and the way to the network's input.

In:  sections `data`, `partition`, `drift`, `signals` of a study. Out: frozen models.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedecg.config.section import Count, Fraction, Positive, Section

__all__ = [
    "AFTER_R_S",
    "BEFORE_R_S",
    "DataColumns",
    "DataSettings",
    "DriftSettings",
    "PartitionSettings",
    "SignalSettings",
    "median_samples",
]


class DataColumns(Section):
    """What the columns of `data.table` are called; "" = the table has no such column."""

    file: Annotated[str, Field(min_length=1)] = "file"  # of the ECG, from data.path
    patient: str = "patient"  # the first row of each counts; "": every row is a patient
    part: str = ""  # train, validation, test or align; "": drawn by patient
    event: str = ""  # 1 or 0; "": outcomes are simulated
    follow_up_days: str = ""  # to the event or the last contact
    entry_days: str = ""
    died: str = ""  # 1: follow-up ended with a death before any event
    age_years: str = ""
    sex: str = ""
    codes: str = ""  # SCP codes, with or without likelihoods
    snomed: str = ""  # SNOMED CT codes as in CinC 2021
    site: str = ""
    device: str = ""
    source: str = ""
    year: str = ""
    endpoint: str = "heart failure"  # what the event is, in words

    @model_validator(mode="after")
    def _event_has_a_time(self) -> DataColumns:
        if bool(self.event) != bool(self.follow_up_days):
            raise ValueError("expected event with follow-up-days, or neither (outcomes are then simulated)")
        if not self.event and (self.died or self.entry_days):
            raise ValueError("expected died and entry-days only with event")
        return self


class DataSettings(Section):
    """Where the ECGs come from (simulations only)."""

    source: Literal["synthetic", "ptbxl", "code15", "cinc2021", "mimic-iv-ecg", "folder", "cohort"] = (
        "synthetic"
    )
    path: str = ""  # folder of the data set as published; `--data` overrides it
    store: Annotated[str, Field(min_length=1)] = "runs/store"  # preprocessed signals are kept and reused here
    sites: dict[str, Annotated[int, Field(ge=1, le=1_000_000)]] = Field(
        default_factory=dict
    )  # synthetic: site name -> patients for train + validation
    test_patients: Annotated[int, Field(ge=1, le=1_000_000)] = (
        6000  # synthetic: patients of the separate test part
    )
    public_patients: Annotated[int, Field(ge=0, le=1_000_000)] = (
        0  # synthetic: a public data set of so many; [align] then learns from it alone, before the study. 0 = none
    )
    records_hz: Literal[100, 500] = 100  # ptbxl: which of the two published folders to read
    event_fraction: Annotated[float, Field(gt=0, lt=1)] = (
        0.30  # share of simulated events, where outcomes are simulated
    )
    sources: list[str] = []  # cinc2021: which of its sources; none = all that are there
    clinical: str = ""  # mimic-iv-ecg: folder of MIMIC-IV; "" = outcomes are simulated
    rules: Literal["", "paper-hyp", "paper-mi"] = (
        ""  # mimic-iv-ecg with clinical: the cohort's; "" = whoever had no heart failure before
    )
    patients: Annotated[int, Field(ge=0)] = 0  # cinc2021, mimic-iv-ecg: so many, drawn at random; 0 = all
    table: str = ""  # folder: its table
    columns: DataColumns = DataColumns()  # folder: of that table
    events: Annotated[int, Field(ge=0)] = (
        0  # training events whose outcome is known, over all sites; the other patients align only. 0 = all
    )
    aligned: str = ""  # aligned networks are kept and reused here, a folder; "" = every study aligns its own

    @model_validator(mode="after")
    def _public_patients_are_generated(self) -> DataSettings:
        if self.public_patients and self.source != "synthetic":
            raise ValueError(
                'expected public-patients = 0 unless source = "synthetic": align on a public data set in a study of '
                "its own, and name its model in align.start"
            )
        return self

    @model_validator(mode="after")
    def _settings_belong_to_the_source(self) -> DataSettings:
        if self.rules and not self.clinical:
            raise ValueError("expected rules only with clinical: they need diagnoses")
        of: dict[str, tuple[str, ...]] = {
            "sources": ("cinc2021",),
            "clinical": ("mimic-iv-ecg",),
            "table": ("folder",),
            "patients": ("cinc2021", "mimic-iv-ecg"),
        }
        for name, sources in of.items():
            if getattr(self, name) and self.source not in sources:
                raise ValueError(f"expected {name} only with source = {' or '.join(sources)}")
        if self.source == "folder" and not self.table:
            raise ValueError('expected table = "NAME.csv" with source = folder')
        return self


class PartitionSettings(Section):
    """How records become virtual sites (simulations only)."""

    by: Literal["column", "dirichlet", "quantity", "iid"] = "column"
    column: Literal["site", "device", "source", "year"] = (
        "site"  # which of these there are depends on the data
    )
    sites: Count = 4  # number of virtual sites, unless `by = "column"`
    label: Literal["superclass", "event"] = "superclass"  # what a Dirichlet split skews
    follow_up: Literal["full", "staggered", "disjoint"] = (
        "full"  # sites stop at different times; or see other years
    )
    alpha: Positive = 0.5  # Dirichlet concentration or, for `quantity`, evenness; small = uneven
    sizes: Literal["drawn", "equal", "power-law"] = (
        "drawn"  # of the sites: as `by` draws them; or as said, whatever the labels
    )
    exponent: Positive = 1.0  # power-law: the k-th largest site in proportion to k^-exponent

    @model_validator(mode="after")
    def _sizes_can_be_had(self) -> PartitionSettings:
        if self.sizes != "drawn" and self.by == "column":
            raise ValueError('expected sizes = "drawn" with by = "column": the column decides')
        if self.sizes == "equal" and self.by == "quantity":
            raise ValueError('expected sizes = "drawn" or "power-law" with by = "quantity"')
        return self


LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 50.0, 2000.0


class DriftSettings(Section):
    """Recorders that differ by virtual site (simulations only); each site draws its own from the seed and its name."""

    gain: Annotated[float, Field(ge=0, le=1)] = 0.0  # SD of log gain: 0.05 = about 5 % off
    hum_mv: Annotated[float, Field(ge=0, le=1)] = (
        0.0  # most mains hum at an electrode, amplitude in mV; a site has up to that, at 50 or 60 Hz
    )
    rates_hz: Annotated[
        list[Annotated[float, Field(ge=LOWEST_RATE_HZ, le=HIGHEST_RATE_HZ)]], Field(max_length=20)
    ] = []  # sampling rates of recorders, of which a site draws one; none: as recorded
    exchanged_arms: Fraction = 0.0  # most ECGs with exchanged arm electrodes; a site has up to that
    missing_leads: Annotated[int, Field(ge=0, le=6)] = 0  # most chest leads that a site's recorder lacks


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
