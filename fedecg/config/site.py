"""What a site decides for itself, whatever a study asks: its files, its coordinator, its policy, its budget.

In:  `site.toml`. Out: frozen `SiteSettings`; `SiteDefaults` for the virtual sites of a simulation.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from fedecg.config.section import ADDRESS, SHA256, SITE_NAME, Fraction, Positive, Section

__all__ = [
    "PolicySettings",
    "ServerSettings",
    "SiteDefaults",
    "SitePrivacySettings",
    "SiteSettings",
    "TextSettings",
    "VirtualTextSettings",
]


class SitePrivacySettings(Section):
    """How much a site lets its patients be known; a study decides none of it."""

    epsilon: Positive | None = (
        None  # budget of every patient, over all studies; none: no study with mode = "sample"
    )
    # With delta one patient in 1/delta may be told whole: it has to be far below one over the patients of a site.
    delta: Annotated[float, Field(gt=0, le=1e-3)] | None = None
    sums: Literal["any", "masked", "noised"] = (
        "any"  # the least protection of sums that this site takes part in
    )
    threshold_patients: Annotated[int, Field(ge=0)] = 10  # fewest distinct patients behind a plain cell
    threshold_events: Annotated[int, Field(ge=0)] = (
        5  # fewest events behind a plain cell that tells of events
    )
    approve: Literal["none", "first-round"] = "none"  # look at the first message of a study before it leaves

    @model_validator(mode="after")
    def _epsilon_and_delta_together(self) -> SitePrivacySettings:
        if (self.epsilon is None) != (self.delta is None):
            raise ValueError("expected epsilon and delta, or neither")
        return self


Phase = Literal["align", "survival", "evaluate", "explain", "baselines"]
TIME = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
HOURS = re.compile(f"({TIME})-({TIME}|24:00)")


class ServerSettings(Section):
    """Where a site finds its coordinator, and what it knows it by."""

    address: Annotated[str, Field(pattern=ADDRESS)]  # host:port of the fleet port
    ca: str = "ca.crt"  # the coordinator's certificate authority, absolute or relative to this file
    key: str = (
        "node.key"  # the site's private key, absolute or relative to this file; it never leaves the site
    )


class PolicySettings(Section):
    """What a site takes part in. Without it a site takes part in nothing."""

    studies: list[str] = []  # names of studies; "*" = any (simulations), and then no lock is kept
    phases: list[Phase] = ["align", "survival", "evaluate", "explain", "baselines"]
    # To the first lock of a study: `fedecg-client accept` (or policy.locks), or whatever comes first.
    consent: Literal["ask", "first"] = "ask"
    locks: dict[str, Annotated[str, Field(pattern=SHA256)]] = {}  # study -> sha256 of the only lock allowed
    rounds_a_day: Annotated[int, Field(ge=1)] = 10_000
    hours: str = "00:00-24:00"  # local time; may cross midnight
    most_local_steps: Annotated[int, Field(ge=1)] = 10_000  # of a round
    task_limit_s: Positive = 6 * 3600.0  # a task that runs longer is ended
    keep_replies: bool = True  # until acknowledged, so that a lost reply is sent again byte for byte

    @field_validator("hours")
    @classmethod
    def _some_hours(cls, hours: str) -> str:
        times = HOURS.fullmatch(hours)
        if times is None:
            raise ValueError('expected two times from "00:00" to "24:00", such as "20:00-06:00"')
        if times[1] == times[2]:
            raise ValueError('expected an end that is not the beginning; all day is "00:00-24:00"')
        return hours


class TextSettings(Section):
    """Free-text reports of a site, and the language model that reads them there. Without it codes alone are used."""

    encoder: Annotated[str, Field(min_length=1)]  # folder of the bank's own language model
    reports: str = ""  # table (csv) with the columns record, report; "": column report of the cohort table
    mix: Fraction = 0.5  # weight of the report where a record has codes, too; the rest is the codes'
    by_sentence: bool = True  # each sentence points at statements of its own; or the report as a whole
    temperature: Annotated[float, Field(ge=0.005, le=1.0)] = 0.05  # small: the nearest statement alone
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch: Annotated[int, Field(ge=1, le=1024)] = 16  # reports at once


class VirtualTextSettings(TextSettings):
    """Section [text] of virtual sites (simulations only): their reports are those of the data set."""

    reports: Literal[""] = ""  # they come with the data set, each site's to its own folder
    sites: list[
        str
    ] = []  # those that report; none: all whose records have reports. The others take part by codes


class SiteDefaults(SitePrivacySettings):
    """The same for every virtual site (simulations only): their data are public or generated, so nothing is small."""

    threshold_patients: Annotated[int, Field(ge=0)] = 0
    threshold_events: Annotated[int, Field(ge=0)] = 0
    text: VirtualTextSettings | None = None  # none: by codes alone


class SiteSettings(Section):
    """What a site decides for itself: `site.toml` in the site's folder."""

    name: Annotated[str, Field(pattern=SITE_NAME)]
    store: str  # folder of the signal store, absolute or relative to this file
    cohort: str  # cohort table (csv), absolute or relative to this file
    text: TextSettings | None = None  # none: the site takes part by codes
    server: ServerSettings | None = None  # none: a virtual site of a simulation
    policy: PolicySettings = PolicySettings()
    privacy: SitePrivacySettings = SitePrivacySettings()
