"""The true hazard of heart failure, and follow-up drawn from it.

In:  `Physiology`, a site's profile. Out: the log hazard (n,), events and days. Called by `consortium`.

h(t | x) = site rate * shape * rate * t^(shape - 1) * exp(log hazard(x)), t in years (Weibull); the site's rate
is part of its baseline and not of the log hazard. Censoring is administrative: the end of the site's follow-up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedecg_simulations.synthetic.findings import value
from fedecg_simulations.synthetic.physiology import Physiology, row_draws
from fedecg_simulations.synthetic.sites import SiteProfile

__all__ = ["DAYS_PER_YEAR", "draw_follow_up", "ecg_log_hazard", "true_log_hazard"]

Floats = NDArray[np.float64]
DAYS_PER_YEAR = 365.25


def true_log_hazard(physiology: Physiology) -> Floats:
    """Log hazard (n,) against a man-woman average of 62 years with median ECG features; no site enters.

    Source: rows `effect.*` of `findings.TABLE`.
    """
    age = np.log(value("effect.age")) * (physiology.age_years - 62.0) / 10.0
    sex = np.log(value("effect.female")) * (physiology.female - 0.5)
    return np.asarray(age + sex + ecg_log_hazard(physiology))


def ecg_log_hazard(physiology: Physiology) -> Floats:
    """The part (n,) of the true log hazard that can be read off the ECG."""
    found, feature = physiology.findings, physiology.features
    terms = {
        "qrs": _qrs_sd(physiology),
        "lbbb": found["lbbb"],
        "rbbb": found["rbbb"],
        "af": found["af"],
        "heart_rate": np.where(
            found["af"], 0.0, (feature["heart_rate_bpm"] - value("heart_rate.sinus")) / 10.0
        ),
        "voltage": np.log(feature["voltage_mv"] / value("voltage.median")) / value("voltage.spread"),
        "scar": feature["scar_anterior"] + feature["scar_inferior"],
        "repolarisation": (feature["t_v5_mv"] - value("repolarisation.t_v5"))
        / value("repolarisation.t_slope"),
    }
    total = np.zeros(len(physiology.age_years))
    for name, score in terms.items():
        total += value("effect.ecg_factor") * np.log(value(f"effect.{name}")) * score
    return total


def draw_follow_up(
    log_hazard: Floats, site: SiteProfile, seed: np.random.SeedSequence
) -> tuple[NDArray[np.bool_], Floats]:
    """Events (n,) and follow-up (n,) in whole days, >= 1; row i does not depend on n."""
    _, uniforms = row_draws(seed, len(log_hazard), 0, 2)
    cumulative_hazard = -np.log1p(-uniforms[:, 0])
    scale = value("time.rate") * site.event_rate * np.exp(log_hazard)
    event_years = (cumulative_hazard / scale) ** (1.0 / value("time.shape"))
    shortest, longest = site.follow_up_years
    end_years = shortest + (longest - shortest) * uniforms[:, 1]
    days = np.maximum(np.ceil(DAYS_PER_YEAR * np.minimum(event_years, end_years)), 1.0)
    return event_years <= end_years, days


def _qrs_sd(physiology: Physiology) -> Floats:
    """Left ventricular activation time in SD of its logarithm, among those with or without LBBB."""
    lbbb = physiology.findings["lbbb"]
    median = np.where(lbbb, value("qrs.lbbb"), value("qrs.normal"))
    spread = np.where(lbbb, value("qrs.lbbb_spread"), value("qrs.normal_spread"))
    return np.asarray(np.log(physiology.features["lv_activation_ms"] / median) / spread, dtype=np.float64)
