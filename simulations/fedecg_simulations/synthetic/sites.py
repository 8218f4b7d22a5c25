"""Six virtual hospitals: what differs between them.

In:  nothing. Out: `SITE_PROFILES`, keyed by name, and `profile(name)`. Called by `consortium` and `physiology`.
All numbers are chosen; what they multiply stands with its source in `findings.TABLE`.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedecg.errors import SettingsError

__all__ = ["DEFAULT_SITES", "SITE_PROFILES", "SiteProfile", "profile"]


@dataclass(frozen=True)
class SiteProfile:
    """One virtual hospital.

    Attributes:
        rate_hz: sampling rate of its recorder.
        powerline_hz: mains frequency, 50 or 60.
        gain: amplitude of its recordings / true amplitude (a small miscalibration).
        noise: factor on the noise rows of the table.
        age_mean_years, age_sd_years: of its patients, before truncation to 30-92 years.
        female: share of women.
        load: shift of the latent remodelling, in SD; more of it means more findings.
        event_rate: factor on the baseline hazard.
        follow_up_years: shortest and longest administrative follow-up.
    """

    rate_hz: float
    powerline_hz: float
    gain: float
    noise: float
    age_mean_years: float
    age_sd_years: float
    female: float
    load: float
    event_rate: float
    follow_up_years: tuple[float, float]


SITE_PROFILES: dict[str, SiteProfile] = {
    "university": SiteProfile(500.0, 50.0, 1.00, 0.8, 61.0, 11.0, 0.48, 0.15, 1.1, (3.0, 10.0)),
    "city": SiteProfile(500.0, 60.0, 1.02, 1.0, 62.0, 11.0, 0.52, 0.00, 1.0, (2.0, 8.0)),
    "coast": SiteProfile(250.0, 50.0, 0.98, 1.1, 64.0, 10.0, 0.51, 0.00, 0.9, (4.0, 10.0)),
    "valley": SiteProfile(250.0, 60.0, 1.03, 1.3, 60.0, 12.0, 0.55, -0.20, 0.7, (3.0, 9.0)),
    "cardiac": SiteProfile(1000.0, 50.0, 0.99, 0.7, 66.0, 10.0, 0.40, 0.50, 1.4, (1.0, 6.0)),
    "rural": SiteProfile(400.0, 50.0, 0.95, 1.6, 65.0, 11.0, 0.56, -0.30, 0.8, (5.0, 10.0)),
}

# Train + validation patients where nothing else is set: unequal, the smallest with a handful of events.
DEFAULT_SITES: dict[str, int] = {
    "university": 1000,
    "city": 700,
    "coast": 500,
    "valley": 350,
    "cardiac": 250,
    "rural": 200,
}


def profile(name: str) -> SiteProfile:
    """The profile of a virtual hospital.

    Raises:
        SettingsError: FECG-611, no such profile; the message lists the known ones.
    """
    if name not in SITE_PROFILES:
        raise SettingsError(
            "FECG-611",
            "data.sites",
            found=f"no profile named {name!r}",
            expected="one of " + ", ".join(SITE_PROFILES),
            fix="Rename the key in [data.sites]; its value is the number of patients.",
        )
    return SITE_PROFILES[name]
