"""The one table of the synthetic consortium: prevalences, shapes, effects, thresholds, noise, each with its source.

In:  nothing. Out: `TABLE`, read with `value(key)`; `table_markdown()` prints it into docs/synthetic.md.
Called by every module of this folder. It was fixed before any training comparison: whoever changes a row
measures again with `calibration_report` (seeds from 100 on) and states the new figures in docs/synthetic.md.

A source is a published figure (author, year), or "chosen" where the number is ours. "Near X" means that the
publication reports the quantity and that our round number lies near it; it is not copied from one of its cells.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TABLE", "Row", "table_markdown", "value"]


@dataclass(frozen=True)
class Row:
    """One number of the simulation: what it is, its unit, where it comes from."""

    key: str
    value: float
    unit: str
    meaning: str
    source: str


_PTBXL = "Wagner 2020 (PTB-XL), statement counts of 21,837 ECGs"
_NORMAL = "chosen, near Rijnbeek 2014 and Palhares 2017 (normal ECG limits)"
_ARIC = (
    "Rautaharju 2007 (ARIC): 2-fold to 1.5-fold risk in the highest decile; log HR / 1.95 is the HR per SD"
)

_ROWS = (
    # Prevalence of the yes/no findings at age 62 at a site of average disease load.
    Row("prevalence.af", 0.060, "share", "atrial fibrillation", f"{_PTBXL}: AFIB 1,514 (6.9 %)"),
    Row(
        "prevalence.lbbb", 0.025, "share", "complete left bundle branch block", f"{_PTBXL}: CLBBB 536 (2.5 %)"
    ),
    Row(
        "prevalence.rbbb",
        0.030,
        "share",
        "complete right bundle branch block",
        f"{_PTBXL}: CRBBB 542 (2.5 %)",
    ),
    Row("prevalence.lafb", 0.060, "share", "left anterior fascicular block", f"{_PTBXL}: LAFB 1,626 (7.4 %)"),
    Row(
        "prevalence.ami",
        0.070,
        "share",
        "old anteroseptal infarction",
        f"{_PTBXL}: ASMI 2,363 (10.8 %); fewer, chosen",
    ),
    Row(
        "prevalence.imi",
        0.080,
        "share",
        "old inferior infarction",
        f"{_PTBXL}: IMI 2,685 (12.3 %); fewer, chosen",
    ),
    # How findings hang together.
    Row(
        "severity.on_finding", 0.40, "log odds per SD", "latent remodelling -> AF, LBBB, infarction", "chosen"
    ),
    Row(
        "severity.on_feature",
        0.12,
        "correlation",
        "latent remodelling -> QRS, voltage, ST-T, rate, atrium",
        "chosen",
    ),
    Row(
        "age.on_af",
        0.35,
        "log odds per 10 years",
        "age -> AF; weaker than in the population, so that the ECG is no age reader",
        "chosen",
    ),
    Row(
        "age.on_finding",
        0.10,
        "log odds per 10 years",
        "age -> blocks, infarction",
        "chosen, kept weak likewise",
    ),
    Row(
        "age.on_feature",
        0.03,
        "SD per 10 years",
        "age -> QRS, voltage, ST-T, atrium",
        "chosen, kept weak likewise",
    ),
    Row(
        "age.on_axis",
        -4.0,
        "degrees per 10 years",
        "the axis turns left with age",
        "chosen; the trend is in Rijnbeek 2014",
    ),
    # Continuous features: median and spread before the effects above.
    Row("heart_rate.sinus", 71.0, "bpm", "median in sinus rhythm", _NORMAL),
    Row(
        "heart_rate.sinus_spread",
        0.19,
        "log SD",
        "gives STACH (> 100) 3.8 % and SBRAD 2.9 %",
        f"{_PTBXL}: STACH 826, SBRAD 637",
    ),
    Row("heart_rate.af", 86.0, "bpm", "median in AF", "chosen"),
    Row("rr.sinus", 0.030, "SD/mean", "median heart-rate variability over 10 s", "chosen"),
    Row("rr.sinus_spread", 0.45, "log SD", "spread between patients", "chosen"),
    Row(
        "rr.af",
        0.22,
        "SD/mean",
        "RR intervals in AF, independent from beat to beat",
        "chosen; McSharry 2003 models sinus rhythm only",
    ),
    Row("pr.mean", 162.0, "ms", "PR interval", _NORMAL),
    Row("pr.sd", 21.0, "ms", "gives 1AVB (> 200 ms) 3.6 %", f"{_PTBXL}: 1AVB 797"),
    Row("p.mean", 106.0, "ms", "P duration", _NORMAL),
    Row("p.sd", 11.0, "ms", "gives LAO/LAE 2.0 %", f"{_PTBXL}: LAO/LAE 427"),
    Row("qrs.normal", 93.0, "ms", "median QRS duration without complete block", _NORMAL),
    Row(
        "qrs.normal_spread",
        0.125,
        "log SD",
        "QRS duration; gives IVCD (>= 120 ms) about 2 %",
        "chosen, near PMC3012354 (Framingham): SD 11 ms",
    ),
    Row(
        "qrs.lbbb",
        146.0,
        "ms",
        "median QRS duration in LBBB",
        "chosen; ARIC classes are 120-139 and >= 140 ms (Zhang 2015)",
    ),
    Row("qrs.lbbb_spread", 0.090, "log SD", "QRS duration in LBBB", "chosen"),
    Row("qrs.rbbb_delay", 42.0, "ms", "late right ventricular activation added in RBBB", "chosen"),
    Row("qtc.mean", 416.0, "ms", "QT at 60 bpm (Hodges)", "chosen, near PMC3825808 (women: 413 ms, SD 14)"),
    Row("qtc.sd", 19.0, "ms", "spread between patients", "chosen, near the same"),
    Row("axis.mean", 38.0, "degrees", "frontal QRS axis without LAFB", _NORMAL),
    Row("axis.sd", 24.0, "degrees", "spread between patients", _NORMAL),
    Row(
        "axis.lafb",
        -52.0,
        "degrees",
        "median axis in LAFB (SD 7)",
        "definition: axis between -45 and -90 degrees",
    ),
    Row("voltage.median", 2.35, "mV", "Sokolow-Lyon voltage SV1 + RV5 of the ventricle", _NORMAL),
    Row(
        "voltage.spread",
        0.29,
        "log SD",
        "gives voltage >= 3.5 mV in about 9 %",
        f"{_PTBXL}: LVH 2,137 (9.8 %)",
    ),
    Row("voltage.female", 0.90, "ratio", "women / men", "chosen; the difference is in Rijnbeek 2014"),
    Row("repolarisation.t_v5", 0.33, "mV", "T wave in V5 at repolarisation score 0", _NORMAL),
    Row(
        "repolarisation.t_slope",
        -0.15,
        "mV per SD",
        "T in V5 falls with the score, below 0 from 2.2 SD on",
        "chosen",
    ),
    Row("repolarisation.st_slope", -0.055, "mV per SD above 0.8", "ST in V5 falls with the score", "chosen"),
    Row("repolarisation.on_voltage", 0.25, "correlation", "strain goes with voltage", "chosen"),
    Row("scar.low", 0.6, "relative depth", "smallest scar", "chosen"),
    Row("scar.high", 1.25, "relative depth", "largest scar", "chosen"),
    # Effects on the log hazard: the published hazard ratio; ECG effects are multiplied by effect.ecg_factor.
    Row("effect.age", 1.30, "HR per 10 years", "age", "Chahal 2015 (MESA): 1.30 per 10 years"),
    Row(
        "effect.female",
        0.80,
        "HR",
        "women / men",
        "Rautaharju 2013 (ARIC): 9.5 % of women, 11.9 % of men in 14 years",
    ),
    Row(
        "effect.ecg_factor",
        1.9,
        "factor",
        "on the log HR of each ECG term: the ECG stands for what is not simulated (pressure, ...)",
        "chosen for the constraints on C",
    ),
    Row(
        "effect.qrs",
        1.23,
        "HR per SD log QRS",
        "QRS duration without the delay of RBBB",
        "Dhingra 2006 (Framingham): 1.23 per SD",
    ),
    Row(
        "effect.lbbb",
        2.29,
        "HR",
        "LBBB",
        "Zhang 2015 (ARIC): 2.29 for all ventricular blocks but lone RBBB, 2.87 for LBBB",
    ),
    Row("effect.rbbb", 1.00, "HR", "RBBB: none", "Zhang 2015 (ARIC): lone RBBB not associated"),
    Row(
        "effect.af",
        1.67,
        "HR",
        "atrial fibrillation",
        "Nicoli 2022 (REGARDS): 1.67; Santhanakrishnan 2016: 2.34 HFpEF, 1.32 HFrEF",
    ),
    Row(
        "effect.heart_rate",
        1.16,
        "HR per 10 bpm",
        "heart rate in sinus rhythm; none in AF",
        "Nanchen 2013 (Rotterdam): 1.16 in men; Chahal 2015: 1.30",
    ),
    Row(
        "effect.voltage",
        1.19,
        "HR per SD log voltage",
        "LV voltage",
        f"{_ARIC}; ECG LV mass 2-fold in men, not in women: mean",
    ),
    Row(
        "effect.scar",
        2.00,
        "HR at depth 1",
        "old infarction, each",
        "chosen; Rautaharju 2007 (ARIC): > 1.5 for old (silent) infarction",
    ),
    Row("effect.repolarisation", 1.23, "HR per SD", "ST-T score", f"{_ARIC}; ST depression in V5 1.5-fold"),
    Row("effect.other", 1.00, "HR", "axis, LAFB, PR, P, QTc, variability: none, they are controls", "chosen"),
    # Time.
    Row("time.shape", 1.20, "Weibull shape", "hazard rises slowly with time", "chosen"),
    Row(
        "time.rate",
        0.0034,
        "per year^shape",
        "cumulative hazard after 1 year at log hazard 0",
        "chosen for 4-8 % events",
    ),
    # Thresholds of the statements.
    Row("threshold.stach", 100.0, "bpm", "STACH above", "definition"),
    Row("threshold.sbrad", 51.0, "bpm", "SBRAD below", f"chosen for {_PTBXL}: SBRAD 2.9 %"),
    Row("threshold.sarrh", 0.075, "SD/mean", "SARRH above", f"{_PTBXL}: SARRH 772 (3.5 %)"),
    Row("threshold.1avb", 200.0, "ms", "1AVB above", "definition"),
    Row(
        "threshold.atrium",
        128.0,
        "ms",
        "LAO/LAE above",
        "chosen; definition 120 ms with a notch or a negative P in V1",
    ),
    Row("threshold.wide", 120.0, "ms", "IVCD from, without bundle branch block", "definition"),
    Row("threshold.voltage", 3.5, "mV", "LVH from (Sokolow-Lyon)", "Sokolow 1949"),
    Row("threshold.voltage_low", 3.2, "mV", "VCLVH from, below LVH", "chosen"),
    Row("threshold.low_t", 0.14, "mV", "NDT below: T in V5", f"chosen for {_PTBXL}: NDT 1,829 (8.4 %)"),
    Row(
        "threshold.flat_t",
        0.07,
        "mV",
        "NST_ below, LOWT below: T in V5",
        f"chosen for {_PTBXL}: NST_ 770 (3.5 %)",
    ),
    Row("threshold.ischaemic_t", 0.02, "mV", "ISC_ below: T in V5", f"chosen; {_PTBXL}: ISC_ 1,275 (5.8 %)"),
    Row("threshold.inverted_t", -0.03, "mV", "INVT below: T in V5", "chosen"),
    Row("threshold.qtc", 460.0, "ms", "LNGQT from", "definition (women 460 ms)"),
    Row("statement.missed", 0.04, "share", "statements that the reader leaves out", "chosen"),
    # Noise; a site's profile multiplies it, and a log SD of noise.spread lies between recordings.
    Row("noise.wander", 0.060, "mV", "baseline wander, SD, 0.1-0.5 Hz", "chosen"),
    Row("noise.emg", 0.015, "mV", "muscle and amplifier noise, SD in 0-250 Hz", "chosen"),
    Row("noise.hum", 0.010, "mV", "mains hum, amplitude", "chosen"),
    Row("noise.spread", 0.45, "log SD", "between recordings", "chosen"),
    Row(
        "noise.breathing",
        0.03,
        "ratio",
        "QRS amplitude changes with breathing",
        "chosen; effect in Sameni 2007",
    ),
    Row(
        "noise.electrodes",
        0.07,
        "of the lead vector's length",
        "electrode places and body shape, SD",
        "chosen",
    ),
    Row("noise.shape", 0.06, "of each wave's vector", "wave shape between patients, SD", "chosen"),
    Row("noise.fibrillation", 0.055, "mV", "f-wave amplitude in V1", "chosen"),
)

TABLE: dict[str, Row] = {row.key: row for row in _ROWS}


def value(key: str) -> float:
    """The number of a row, in the row's unit."""
    return TABLE[key].value


def table_markdown() -> str:
    """The table as Markdown, as it stands in docs/synthetic.md."""
    lines = ["| key | value | unit | meaning | source |", "|---|---|---|---|---|"]
    lines += [f"| `{r.key}` | {r.value:g} | {r.unit} | {r.meaning} | {r.source} |" for r in TABLE.values()]
    return "\n".join(lines) + "\n"
