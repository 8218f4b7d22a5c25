"""Latent patients: age, sex, findings and continuous ECG features, drawn from the table.

In:  a site's profile, a number of patients, a seed sequence.
Out: `Physiology`, arrays of n. Called by `consortium`; read by `dipole`, `hazard` and `statements`.

One latent "remodelling" per patient moves QRS duration, voltage, ST-T, heart rate and atrium a little together,
as in hearts on their way to failure. Draws are made row by row: patient i is the same whatever n is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from fedecg_simulations.synthetic.findings import value
from fedecg_simulations.synthetic.sites import SiteProfile

__all__ = ["FEATURES", "FINDINGS", "Physiology", "draw_physiology", "row_draws"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

FINDINGS = ("af", "lbbb", "rbbb", "lafb", "ami", "imi")
FEATURES = (
    "heart_rate_bpm",  # mean ventricular rate
    "rr_variability",  # SD / mean of the RR intervals
    "pr_ms",  # P onset to QRS onset; NaN in AF
    "p_ms",  # P duration; NaN in AF
    "qrs_ms",  # onset to offset
    "lv_activation_ms",  # QRS duration without the late delay of RBBB
    "qtc_ms",  # QT at 60 bpm (Hodges)
    "axis_deg",  # frontal QRS axis without infarction
    "voltage_mv",  # SV1 + RV5 of the ventricle without block and infarction
    "t_v5_mv",  # T wave in V5 without block and infarction
    "st_v5_mv",  # ST level in V5, likewise
    "scar_anterior",  # relative depth of the scar, 0 = none
    "scar_inferior",
)
_NORMALS = 13
_UNIFORMS = 9


@dataclass(frozen=True)
class Physiology:
    """What is true of n patients.

    Attributes:
        age_years: (n,).
        female: (n,), 1 = woman, 0 = man.
        findings: name in `FINDINGS` -> (n,) bool.
        features: name in `FEATURES` -> (n,) float64; NaN where a feature does not exist (no P wave in AF).
    """

    age_years: Floats
    female: Floats
    findings: dict[str, Flags]
    features: dict[str, Floats]

    def rows(self, rows: NDArray[np.int64]) -> Physiology:
        """Some patients, in the order given."""
        findings = {name: flags[rows] for name, flags in self.findings.items()}
        features = {name: numbers[rows] for name, numbers in self.features.items()}
        return Physiology(self.age_years[rows], self.female[rows], findings, features)


def row_draws(seed: np.random.SeedSequence, n: int, normals: int, uniforms: int) -> tuple[Floats, Floats]:
    """Standard normals (n, normals) and uniforms in [0, 1) (n, uniforms); row i does not depend on n."""
    for_normals, for_uniforms = (np.random.default_rng(child) for child in seed.spawn(2))
    return for_normals.standard_normal((n, normals)), for_uniforms.random((n, uniforms))


def draw_physiology(site: SiteProfile, n: int, seed: np.random.SeedSequence) -> Physiology:
    """Draw n patients of a site; see the module's text for the model and `findings.TABLE` for the numbers."""
    normals, uniforms = row_draws(seed, n, _NORMALS, _UNIFORMS)
    normal, uniform = iter(normals.T), iter(uniforms.T)
    age = np.clip(site.age_mean_years + site.age_sd_years * next(normal), 30.0, 92.0)
    decades = (age - 62.0) / 10.0
    female = (next(uniform) < site.female).astype(np.float64)
    severity = site.load + next(normal)
    findings = _draw_findings(severity, decades, uniform)
    features = _draw_features(severity, decades, female, findings, normal, uniform)
    return Physiology(age, female, findings, {name: features[name] for name in FEATURES})


def _draw_findings(severity: Floats, decades: Floats, uniform: Iterator[Floats]) -> dict[str, Flags]:
    on_finding = value("severity.on_finding") * severity + value("age.on_finding") * decades
    log_odds = {name: on_finding for name in ("lbbb", "ami", "imi")}
    log_odds["rbbb"] = log_odds["lafb"] = value("age.on_finding") * decades
    log_odds["af"] = value("severity.on_finding") * severity + value("age.on_af") * decades
    found = {
        name: next(uniform) < expit(logit(value(f"prevalence.{name}")) + log_odds[name]) for name in FINDINGS
    }
    # Other conduction disease and Q waves cannot be read behind LBBB; the reader would not state them.
    return {
        name: flags if name in ("af", "lbbb") else flags & ~found["lbbb"] for name, flags in found.items()
    }


def _draw_features(
    severity: Floats,
    decades: Floats,
    female: Floats,
    findings: dict[str, Flags],
    normal: Iterator[Floats],
    uniform: Iterator[Floats],
) -> dict[str, Floats]:
    def graded() -> Floats:
        """A feature in SD that remodelling and age push."""
        load = value("severity.on_feature")
        own: Floats = np.sqrt(1.0 - load**2) * next(normal)
        return load * severity + own + value("age.on_feature") * decades

    features = _rhythm(graded(), graded(), findings["af"], normal)
    features |= _conduction(graded(), decades, findings, normal)
    voltage, st_t = graded(), graded()
    st_t = st_t + value("repolarisation.on_voltage") * (voltage - value("severity.on_feature") * severity)
    sex = np.where(female == 1.0, value("voltage.female"), 1.0) / np.sqrt(value("voltage.female"))
    features["voltage_mv"] = value("voltage.median") * sex * np.exp(value("voltage.spread") * voltage)
    features["t_v5_mv"] = value("repolarisation.t_v5") + value("repolarisation.t_slope") * st_t
    features["st_v5_mv"] = value("repolarisation.st_slope") * np.maximum(st_t - 0.8, 0.0)
    for name, finding in (("scar_anterior", "ami"), ("scar_inferior", "imi")):
        depth = value("scar.low") + (value("scar.high") - value("scar.low")) * next(uniform)
        features[name] = np.where(findings[finding], depth, 0.0)
    return features


def _rhythm(rate: Floats, atrium: Floats, af: Flags, normal: Iterator[Floats]) -> dict[str, Floats]:
    median = np.where(af, value("heart_rate.af"), value("heart_rate.sinus"))
    heart_rate = np.clip(median * np.exp(value("heart_rate.sinus_spread") * rate), 38.0, 150.0)
    sinus_rr = value("rr.sinus") * np.exp(value("rr.sinus_spread") * next(normal))
    pr = np.clip(value("pr.mean") + value("pr.sd") * next(normal), 110.0, 300.0)
    p = np.clip(value("p.mean") + value("p.sd") * atrium, 70.0, 150.0)
    return {
        "heart_rate_bpm": heart_rate,
        "rr_variability": np.where(af, value("rr.af"), np.minimum(sinus_rr, 0.12)),
        "pr_ms": np.where(af, np.nan, np.maximum(pr, p + 12.0)),
        "p_ms": np.where(af, np.nan, p),
    }


def _conduction(
    delay: Floats, decades: Floats, findings: dict[str, Flags], normal: Iterator[Floats]
) -> dict[str, Floats]:
    lbbb = findings["lbbb"]
    usual = value("qrs.normal") * np.exp(value("qrs.normal_spread") * delay)
    blocked = np.maximum(value("qrs.lbbb") * np.exp(value("qrs.lbbb_spread") * delay), 121.0)
    activation = np.where(lbbb, blocked, np.clip(usual, 66.0, 150.0))
    late = np.maximum(value("qrs.rbbb_delay") + 8.0 * next(normal), 122.0 - activation)
    axis = value("axis.mean") + value("axis.sd") * next(normal) + value("age.on_axis") * decades
    axis_lafb = value("axis.lafb") + 7.0 * next(normal)
    qtc = value("qtc.mean") + value("qtc.sd") * next(normal) + np.where(lbbb, 25.0, 0.0)
    return {
        "qrs_ms": activation + np.where(findings["rbbb"], np.maximum(late, 20.0), 0.0),
        "lv_activation_ms": activation,
        "qtc_ms": qtc,
        "axis_deg": np.clip(np.where(findings["lafb"], axis_lafb, np.clip(axis, -29.0, 95.0)), -80.0, 95.0),
    }
