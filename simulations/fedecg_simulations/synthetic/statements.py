"""Statements of a reader: PTB-XL SCP codes with likelihoods, and a short English report.

In:  `Physiology`. Out: per patient a code -> likelihood dict and a report. Called by `consortium`.

As in PTB-XL, form and rhythm statements carry likelihood 0 ("not stated how likely"); diagnostic ones 100, 80 or
50, smaller near the threshold. A few statements are left out (`statement.missed`); the rhythm never.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedecg_simulations.synthetic.findings import value
from fedecg_simulations.synthetic.physiology import Physiology, row_draws

__all__ = ["SENTENCES", "state_findings"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

# Code -> the sentence of the report. Order = order in a report: rhythm, conduction, voltage, infarction, ST-T.
SENTENCES = {
    "SR": "sinus rhythm",
    "AFIB": "atrial fibrillation",
    "STACH": "sinus tachycardia",
    "SBRAD": "sinus bradycardia",
    "SARRH": "sinus arrhythmia",
    "NORM": "normal ECG",
    "1AVB": "first degree AV block",
    "LAO/LAE": "left atrial enlargement",
    "CLBBB": "complete left bundle branch block",
    "CRBBB": "complete right bundle branch block",
    "LAFB": "left anterior fascicular block",
    "IVCD": "non-specific intraventricular conduction delay",
    "LVH": "left ventricular hypertrophy",
    "VCLVH": "voltage criteria for left ventricular hypertrophy",
    "ASMI": "old anteroseptal myocardial infarction",
    "IMI": "old inferior myocardial infarction",
    "QWAVE": "pathological Q waves",
    "NDT": "non-diagnostic T wave abnormality",
    "NST_": "non-specific ST-T changes",
    "ISC_": "ST-T changes suggesting ischaemia or strain",
    "LOWT": "low amplitude T waves",
    "INVT": "inverted T waves",
    "LNGQT": "long QT interval",
}
_RHYTHM = ("SR", "AFIB", "STACH", "SBRAD", "SARRH")
_FORM = ("VCLVH", "QWAVE", "LOWT", "INVT")
_DOUBT = {100.0: "", 80.0: "probable ", 50.0: "possible ", 0.0: ""}


def state_findings(
    physiology: Physiology, seed: np.random.SeedSequence
) -> tuple[tuple[dict[str, float], ...], tuple[str, ...]]:
    """Codes (likelihood 0, 50, 80 or 100) and reports of n patients; row i does not depend on n."""
    stated = (
        _rhythm(physiology) | _conduction(physiology) | _ventricle(physiology) | _repolarisation(physiology)
    )
    usual = (*_RHYTHM[:1], *_RHYTHM[2:])  # every rhythm but AF
    abnormal = np.any([~np.isnan(level) for code, level in stated.items() if code not in usual], axis=0)
    stated["NORM"] = np.where(abnormal, np.nan, 100.0)
    _, chance = row_draws(seed, len(physiology.age_years), 0, len(SENTENCES))
    level = np.stack([stated[code] for code in SENTENCES], axis=1)
    kept = ~np.isnan(level) & ((chance >= value("statement.missed")) | np.isin(list(SENTENCES), _RHYTHM))
    names = list(SENTENCES)
    codes = tuple({names[j]: float(level[i, j]) for j in np.flatnonzero(kept[i])} for i in range(len(level)))
    rates = physiology.features["heart_rate_bpm"]
    return codes, tuple(_report(row, rate) for row, rate in zip(codes, rates, strict=True))


def _report(codes: dict[str, float], rate_bpm: float) -> str:
    first, *rest = (_DOUBT[level] + SENTENCES[code] for code, level in codes.items())
    return ". ".join([f"{first}, rate {rate_bpm:.0f}/min", *rest]) + "."


def _plain(present: Flags) -> Floats:
    """A form or rhythm statement: likelihood 0 where present, NaN where absent."""
    return np.where(present, 0.0, np.nan)


def _graded(margin: Floats, unit: float, among: Flags | None = None) -> Floats:
    """A diagnostic statement: 100 from `unit` above the threshold, 80 from half of it, 50 from 0, else NaN."""
    level = np.select([margin >= unit, margin >= unit / 2, margin >= 0.0], [100.0, 80.0, 50.0], np.nan)
    return level if among is None else np.where(among, level, np.nan)


def _rhythm(physiology: Physiology) -> dict[str, Floats]:
    rate, af = physiology.features["heart_rate_bpm"], physiology.findings["af"]
    fast = ~af & (rate > value("threshold.stach"))
    slow = ~af & (rate < value("threshold.sbrad"))
    varying = ~af & ~fast & ~slow & (physiology.features["rr_variability"] > value("threshold.sarrh"))
    flags = {"AFIB": af, "STACH": fast, "SBRAD": slow, "SARRH": varying, "SR": ~(af | fast | slow | varying)}
    return {code: _plain(flag) for code, flag in flags.items()}


def _conduction(physiology: Physiology) -> dict[str, Floats]:
    found, feature = physiology.findings, physiology.features
    block = found["lbbb"] | found["rbbb"]
    return {
        "1AVB": _graded(feature["pr_ms"] - value("threshold.1avb"), 10.0),
        "LAO/LAE": _graded(feature["p_ms"] - value("threshold.atrium"), 8.0),
        "CLBBB": np.where(found["lbbb"], 100.0, np.nan),
        "CRBBB": np.where(found["rbbb"], 100.0, np.nan),
        "LAFB": _graded(-feature["axis_deg"] - 40.0, 8.0, found["lafb"]),
        "IVCD": _graded(feature["qrs_ms"] - value("threshold.wide"), 10.0, ~block),
        "LNGQT": _graded(feature["qtc_ms"] - value("threshold.qtc"), 15.0, ~block),
    }


def _ventricle(physiology: Physiology) -> dict[str, Floats]:
    found, feature = physiology.findings, physiology.features
    voltage, readable = feature["voltage_mv"], ~found["lbbb"]
    high, low = value("threshold.voltage"), value("threshold.voltage_low")
    scar = np.maximum(feature["scar_anterior"], feature["scar_inferior"])
    return {
        "LVH": _graded(voltage - high, 0.6, readable),
        "VCLVH": _plain(readable & (voltage >= low) & (voltage < high)),
        "ASMI": _graded(feature["scar_anterior"] - value("scar.low"), 0.3, found["ami"]),
        "IMI": _graded(feature["scar_inferior"] - value("scar.low"), 0.3, found["imi"]),
        "QWAVE": _plain(scar > 0.9),
    }


def _repolarisation(physiology: Physiology) -> dict[str, Floats]:
    t, readable = physiology.features["t_v5_mv"], ~physiology.findings["lbbb"]
    low, flat, ischaemic = (value(f"threshold.{name}_t") for name in ("low", "flat", "ischaemic"))
    return {
        "NDT": _graded(low - t, 0.03, readable & (t >= flat)),
        "NST_": _graded(flat - t, 0.02, readable & (t >= ischaemic)),
        "ISC_": _graded(ischaemic - t, 0.06, readable),
        "LOWT": _plain(readable & (np.abs(t) < flat)),
        "INVT": _plain(readable & (t < value("threshold.inverted_t"))),
    }
