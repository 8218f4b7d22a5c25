"""What the consortium is like: concordance of the true hazard, of age and sex, of single features; events.

In:  a seed (100 or more: 0-9 are kept for comparisons). Out: `Calibration`.
Called by the tests and by hand: `python -m fedecg_simulations.synthetic.calibration 100`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter
from lifelines.utils import concordance_index
from numpy.typing import NDArray

from fedecg_simulations.synthetic.consortium import Patients, consortium
from fedecg_simulations.synthetic.hazard import ecg_log_hazard
from fedecg_simulations.synthetic.sites import DEFAULT_SITES

__all__ = ["Calibration", "calibration_report", "calibration_text"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Figures of one consortium, measured on its test part.

    Attributes:
        patients, events: of the test part.
        event_share: site -> share of patients with an event in the test part; "all" = overall.
        c_true, c_true_stratified: of the true log hazard, over all pairs and over pairs within a site.
        c_ecg: of its ECG part alone, over all pairs: no reader of the ECG can do better on average.
        c_age_sex: of a Cox model of age and sex, fitted and measured on the test part (so rather too high).
        c_feature: single measured feature or finding -> max(C, 1 - C).
        prevalence: finding -> share.
        code_share: code -> share.
    """

    patients: int
    events: int
    event_share: dict[str, float]
    c_true: float
    c_true_stratified: float
    c_ecg: float
    c_age_sex: float
    c_feature: dict[str, float]
    prevalence: dict[str, float]
    code_share: dict[str, float]

    def gain_share(self, c: float) -> float:
        """A C's share of the true hazard's gain over 0.5."""
        return (c - 0.5) / (self.c_true - 0.5)


def calibration_report(seed: int, test_patients: int = 6000) -> Calibration:
    """Measure the default consortium's test part; about 5 s for 6,000 patients."""
    tests = [test for _, _, test in consortium(DEFAULT_SITES, test_patients, seed)]

    def pooled(field: str) -> NDArray[np.float64]:
        return np.concatenate([getattr(test, field) for test in tests])

    days, event, risk = pooled("follow_up_days"), pooled("event"), pooled("true_log_hazard")
    ecg = np.concatenate([ecg_log_hazard(test.physiology) for test in tests])
    share = {test.site: float(test.event.mean()) for test in tests} | {"all": float(event.mean())}
    table = pd.DataFrame(
        {"days": days, "event": event, "age": pooled("age_years"), "female": pooled("female")}
    )
    cox = CoxPHFitter().fit(table, "days", "event")
    columns = _features(tests)
    codes = [code for test in tests for row in test.codes for code in row]
    return Calibration(
        patients=len(event),
        events=int(event.sum()),
        event_share=share,
        c_true=_c(days, event, risk),
        c_true_stratified=_stratified_c(tests),
        c_ecg=_c(days, event, ecg),
        c_age_sex=_c(days, event, np.asarray(cox.predict_log_partial_hazard(table))),
        c_feature={name: _either_way(days, event, column) for name, column in columns.items()},
        prevalence={
            name: float(np.mean(np.concatenate([test.findings[name] for test in tests])))
            for name in tests[0].findings
        },
        code_share={code: codes.count(code) / len(event) for code in sorted(set(codes))},
    )


def calibration_text(report: Calibration) -> str:
    """The report as lines of text."""
    lines = [
        f"test part: {report.patients} patients, {report.events} events",
        "events: " + ", ".join(f"{site} {share:.1%}" for site, share in report.event_share.items()),
        f"C true {report.c_true:.3f} (within sites {report.c_true_stratified:.3f}), ECG part {report.c_ecg:.3f}",
        f"C age + sex {report.c_age_sex:.3f} = {report.gain_share(report.c_age_sex):.0%} of the gain",
    ]
    by_c = sorted(report.c_feature.items(), key=lambda item: -item[1])
    lines += [f"C {name} {c:.3f} = {report.gain_share(c):.0%}" for name, c in by_c]
    lines.append("findings: " + ", ".join(f"{name} {share:.1%}" for name, share in report.prevalence.items()))
    lines.append("codes: " + ", ".join(f"{code} {share:.1%}" for code, share in report.code_share.items()))
    return "\n".join(lines)


def _features(tests: list[Patients]) -> dict[str, Floats]:
    """Each measured feature and finding over all sites; where there is no P wave, the median stands in."""
    columns = {}
    for name in tests[0].features:
        column = np.concatenate([test.features[name] for test in tests])
        columns[name] = np.where(np.isnan(column), np.nanmedian(column), column)
    for name in tests[0].findings:
        columns[name] = np.concatenate([test.findings[name] for test in tests]).astype(np.float64)
    return columns


def _c(days: Floats, event: Floats, risk: Floats) -> float:
    return float(concordance_index(days, -risk, event))


def _either_way(days: Floats, event: Floats, risk: Floats) -> float:
    c = _c(days, event, risk)
    return max(c, 1.0 - c)


def _stratified_c(tests: list[Patients]) -> float:
    """C over pairs within a site: each site's C weighted with its comparable pairs."""
    good, pairs = 0.0, 0.0
    for test in tests:
        days, event = test.follow_up_days, test.event
        comparable = sum(
            float(np.sum((days > days[i]) | ((days == days[i]) & ~event))) for i in np.flatnonzero(event)
        )
        if comparable:
            good += comparable * _c(days, event.astype(np.float64), test.true_log_hazard)
            pairs += comparable
    return good / pairs


if __name__ == "__main__":
    print(calibration_text(calibration_report(int(sys.argv[1]))))
