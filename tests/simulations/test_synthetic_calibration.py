"""The true hazard and what it makes of the consortium: constraints of the study, measured on the test part."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter

from fedecg_simulations.synthetic import DEFAULT_SITES, SITE_PROFILES, make_patients
from fedecg_simulations.synthetic.calibration import Calibration, calibration_report, calibration_text
from fedecg_simulations.synthetic.findings import TABLE, table_markdown, value
from fedecg_simulations.synthetic.hazard import DAYS_PER_YEAR, draw_follow_up, true_log_hazard
from fedecg_simulations.synthetic.physiology import Physiology

DOCS = Path(__file__).resolve().parents[2] / "docs" / "synthetic.md"


@pytest.fixture(scope="module", params=[100, 101, 102])
def report(request: pytest.FixtureRequest) -> Calibration:
    return calibration_report(request.param)


def average_patient() -> Physiology:
    """One man-woman average of 62 years with median features and no finding."""
    median = {
        "heart_rate_bpm": value("heart_rate.sinus"),
        "lv_activation_ms": value("qrs.normal"),
        "voltage_mv": value("voltage.median"),
        "t_v5_mv": value("repolarisation.t_v5"),
    }
    one = make_patients("city", 1, 100).physiology
    features = {name: np.array([median.get(name, 0.0)]) for name in one.features}
    findings = {name: np.array([False]) for name in one.findings}
    return Physiology(np.array([62.0]), np.array([0.5]), findings, features)


def test_true_hazard_is_neither_trivial_nor_hopeless(report: Calibration) -> None:
    assert report.patients >= 4000
    assert report.events >= 300
    assert 0.72 <= report.c_true <= 0.85
    assert abs(report.c_true_stratified - report.c_true) < 0.02


def test_age_and_sex_have_at_most_half_of_the_gain(report: Calibration) -> None:
    assert 0.1 < report.gain_share(report.c_age_sex) <= 0.5


def test_no_single_feature_has_more_than_sixty_percent_of_the_gain(report: Calibration) -> None:
    assert max(map(report.gain_share, report.c_feature.values())) <= 0.6


def test_several_features_matter_and_the_controls_do_not(report: Calibration) -> None:
    assert sum(report.gain_share(c) > 0.25 for c in report.c_feature.values()) >= 4
    for control in ("rbbb", "lafb", "pr_ms", "axis_deg", "qtc_ms"):
        assert report.gain_share(report.c_feature[control]) < 0.2


def test_four_to_eight_percent_have_events_and_sites_differ(report: Calibration) -> None:
    assert 0.04 <= report.event_share["all"] <= 0.08
    by_site = [report.event_share[name] for name in DEFAULT_SITES]
    assert max(by_site) > 1.3 * min(by_site)


def test_prevalences_are_near_the_table(report: Calibration) -> None:
    for name, share in report.prevalence.items():
        assert 0.7 * value(f"prevalence.{name}") < share < 1.5 * value(f"prevalence.{name}")
    assert 0.35 < report.code_share["NORM"] < 0.6
    assert len(report.code_share) >= 20


def test_the_report_reads_as_lines_with_the_figures(report: Calibration) -> None:
    text = calibration_text(report)
    assert f"{report.patients} patients, {report.events} events" in text
    assert f"C true {report.c_true:.3f}" in text


def test_the_average_patient_has_log_hazard_zero() -> None:
    assert true_log_hazard(average_patient()) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"age_years": 72.0}, np.log(1.30)),
        ({"female": 1.0}, 0.5 * np.log(0.80)),
        ({"af": True, "heart_rate_bpm": 130.0}, 1.9 * np.log(1.67)),
        ({"heart_rate_bpm": 81.0}, 1.9 * np.log(1.16)),
        ({"lbbb": True, "lv_activation_ms": 146.0}, 1.9 * np.log(2.29)),
        ({"rbbb": True, "qrs_ms": 140.0}, 0.0),
        ({"lv_activation_ms": 93.0 * np.exp(0.125)}, 1.9 * np.log(1.23)),
        ({"voltage_mv": 2.35 * np.exp(0.29)}, 1.9 * np.log(1.19)),
        ({"t_v5_mv": 0.18}, 1.9 * np.log(1.23)),
        ({"scar_inferior": 0.8}, 0.8 * 1.9 * np.log(2.0)),
        ({"lafb": True, "axis_deg": -60.0, "pr_ms": 260.0, "qtc_ms": 480.0, "rr_variability": 0.1}, 0.0),
    ],
)
def test_log_hazard_by_hand(change: dict[str, float], expected: float) -> None:
    patient = average_patient()
    for name, number in change.items():
        for column in (patient.features, patient.findings):
            if name in column:
                column[name] = np.array([number])
        if name in ("age_years", "female"):
            patient = replace(patient, **{name: np.array([number])})
    assert true_log_hazard(patient) == pytest.approx(expected, abs=1e-9)


def test_follow_up_is_positive_whole_days_within_the_sites_window() -> None:
    for name, site in SITE_PROFILES.items():
        patients = make_patients(name, 2000, 100)
        years = patients.follow_up_days / DAYS_PER_YEAR
        assert patients.follow_up_days.min() >= 1.0
        assert np.array_equal(patients.follow_up_days, np.round(patients.follow_up_days))
        assert years[~patients.event].min() >= site.follow_up_years[0] - 0.01
        assert years.max() <= site.follow_up_years[1] + 0.01


def test_times_follow_the_weibull_hazard() -> None:
    site = replace(SITE_PROFILES["city"], event_rate=1.0, follow_up_years=(1e6, 1e6))
    event, days = draw_follow_up(np.full(20_000, 2.0), site, np.random.SeedSequence(100))
    assert event.all()
    cumulative = value("time.rate") * np.exp(2.0) * (days / DAYS_PER_YEAR) ** value("time.shape")
    # A cumulative hazard at one's own event time is exponential with mean 1.
    assert cumulative.mean() == pytest.approx(1.0, abs=0.03)
    assert np.median(cumulative) == pytest.approx(np.log(2.0), abs=0.03)


def test_a_cox_model_finds_the_true_hazard_ratio_back() -> None:
    tests = [make_patients("university", 8000, seed, "test") for seed in (100, 101)]
    table = pd.DataFrame(
        {
            name: np.concatenate([getattr(test, name) for test in tests])
            for name in ("follow_up_days", "event", "true_log_hazard")
        }
    )
    fit = CoxPHFitter().fit(table, "follow_up_days", "event")
    assert fit.params_["true_log_hazard"] == pytest.approx(
        1.0, abs=4 * fit.standard_errors_["true_log_hazard"]
    )


def test_the_ecg_tells_little_of_age() -> None:
    patients = make_patients("university", 4000, 100)
    columns = [np.nan_to_num(column, nan=100.0) for column in (*patients.features.values(),)]
    columns += [flags.astype(float) for flags in patients.findings.values()]
    design = np.column_stack([np.ones(len(patients)), *columns])
    fitted = design @ np.linalg.lstsq(design, patients.age_years, rcond=None)[0]
    assert 0.005 < 1.0 - np.var(patients.age_years - fitted) / np.var(patients.age_years) < 0.12


def test_every_row_of_the_table_has_a_source_and_stands_in_the_docs() -> None:
    assert all(row.source and row.unit and row.meaning for row in TABLE.values())
    assert table_markdown() in DOCS.read_text(encoding="utf-8")


def test_the_docs_state_the_figures_measured_now() -> None:
    text = DOCS.read_text(encoding="utf-8")
    report = calibration_report(100)
    line = re.search(r"^\| 100 \|.*$", text, flags=re.MULTILINE)
    assert line
    cells = [cell.strip() for cell in line[0].strip("|").split("|")]
    assert cells[1:5] == [
        str(report.events),
        f"{report.event_share['all']:.1%}",
        f"{report.c_true:.3f}",
        f"{report.c_true_stratified:.3f}",
    ]
