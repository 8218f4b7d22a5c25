"""A study as the demo might end: seven sites, one of them tiny, one lost for two rounds."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedecg.cohort import SUBGROUPS
from fedecg.evaluation import AssessmentPlan, RiskTimeGrid, assessment_entry, risk_grid, site_sums
from fedecg.objectives import Baseline
from fedecg.report.html import report_html

MakeAssessment = Callable[..., dict[str, Any]]

SITES = {
    "harbour-general": (2140, 128),
    "st-anne": (1312, 71),
    "northfield": (980, 44),
    "university-east": (764, 52),
    "lakeside": (412, 19),
    "rural-3": (96, 4),
    "clinic-hill": (11, 0),
}
MIX = {"NORM": 0.44, "MI": 0.2, "STTC": 0.16, "CD": 0.12, "HYP": 0.08}


def _site(index: int, name: str, patients: int, events: int) -> dict[str, Any]:
    validation = patients // 10
    tilt = {
        label: share * (1 + 0.6 * math.sin(index + 2 * k)) for k, (label, share) in enumerate(MIX.items())
    }
    return {
        "name": name,
        "patients": patients,
        "events": events,
        "train": patients - validation,
        "validation": validation,
        "label-mix": {label: round(share * patients) for label, share in tilt.items()},
    }


def _column(c: float, stratified: float, half: float = 0.022) -> dict[str, float]:
    return {
        "c-index": c,
        "c-index-stratified": stratified,
        "ci-low": c - half,
        "ci-high": c + half,
        "stratified-ci-low": stratified - half,
        "stratified-ci-high": stratified + half,
    }


def _summary() -> dict[str, Any]:
    return {
        "study": "demo",
        "outcomes": "simulated",
        "sites": [_site(index, name, *size) for index, (name, size) in enumerate(SITES.items())],
        "folds": None,
        "columns": {
            "true-hazard": _column(0.781, 0.776, 0.02),
            "pooled": _column(0.731, 0.724),
            "federated": _column(0.722, 0.712),
            "local-best": _column(0.684, 0.671),
            "local-mean": _column(0.622, 0.612),
            "age-sex": _column(0.633, 0.629),
            "site-only": _column(0.561, 0.5, 0.0),
        },
        "test": {
            "patients": 4100,
            "events": 312,
            "comparable-pairs": 1_181_204,
            "comparable-pairs-stratified": 203_111,
        },
        "differences": {
            "federated-minus-pooled": {
                "difference": -0.012,
                "ci-low": -0.026,
                "ci-high": 0.003,
                "share-below-zero": 0.943,
            },
            "federated-minus-local-mean": {
                "difference": 0.1,
                "ci-low": 0.071,
                "ci-high": 0.128,
                "share-below-zero": 0.0,
            },
        },
        "federated-c-index": {
            "stratified": 0.712,
            "global": 0.7215,
            "lower": 0.719,
            "upper": 0.724,
            "ci-low": 0.697,
            "ci-high": 0.746,
            "pooled-reference": 0.722,
            "few-events": False,
        },
        "rounds": {"align": 4, "survival": 12},
        "best-round": 9,
        "bytes-per-round": 5_140_000.0,
        "seconds": {"ingest": 21.5, "align": 48.2, "survival": 151.7, "pooled": 74.0, "evaluation": 9.1},
        "code-fingerprint": "3f0c" * 16,
        "settings-sha256": "9be1" * 16,
        "seed": 0,
    }


def _rounds() -> list[dict[str, Any]]:
    return [_round("align", number) for number in range(1, 5)] + [
        _round("survival", number) for number in range(1, 13)
    ]


def _round(stage: str, number: int) -> dict[str, Any]:
    names = sorted(SITES)
    missing = ["rural-3"] if stage == "survival" and number in (4, 5) else []
    rejected = ["clinic-hill"] if stage == "survival" and number == 7 else []
    answered = [name for name in names if name not in missing]
    c = 0.715 - 0.2 * math.exp(-number / 3) - 0.0015 * max(0, number - 9)
    validation = {
        "stratified": c,
        "global": c + 0.01,
        "lower": c + 0.002,
        "upper": c + 0.018,
        "ci-low": c - 0.05,
        "ci-high": c + 0.07,
        "few-events": False,
    }
    return {
        "stage": stage,
        "round": number,
        "expected": names,
        "answered": answered,
        "missing": missing,
        "rejected": rejected,
        "loss": {name: 0.3 + 0.4 * math.exp(-number / 4) for name in answered},
        "validation": validation if stage == "survival" else None,
        "seconds": 11.5,
        "bytes": 5_140_000,
    }


@pytest.fixture
def summary() -> dict[str, Any]:
    """A test may change it."""
    return _summary()


@pytest.fixture
def rounds() -> list[dict[str, Any]]:
    """A test may change them."""
    return _rounds()


@pytest.fixture(scope="session")
def plain_page() -> str:
    """The report of that study as it is; drawn once, as its figures take a second."""
    return report_html(_summary(), _rounds())


YEAR = 365.25
HAZARD = 0.03 / YEAR  # of the event, a day, at log hazard 0


def plan(groups: int = 3, sd: float = 0.8) -> AssessmentPlan:
    """As the coordinator makes it, with a baseline that is right."""
    horizons, last = np.array([1.0, 3.0, 5.0, 10.0]) * YEAR, 12 * YEAR
    return AssessmentPlan(
        grid=RiskTimeGrid(np.arange(200.0, 3000.0, 200.0), risk_grid(0.0, sd, 20)),
        edges_days=np.union1d(np.arange(0.0, last, 30.0), horizons),
        group_cuts=risk_grid(0.0, sd, groups),
        calibration_cuts=risk_grid(0.0, sd, 10),
        horizons_days=horizons,
        tau_days=5 * YEAR,
        centre=0.0,
        subgroups=SUBGROUPS,
        baseline=Baseline(np.arange(0.0, last), HAZARD * np.arange(0.0, last)),
    )


def _members(draw: np.random.Generator, patients: int, female: float) -> np.ndarray:
    """Sex and age band of everybody, in the order of `SUBGROUPS`."""
    woman, band = draw.random(patients) < female, draw.choice(4, patients, p=[0.1, 0.3, 0.35, 0.25])
    return np.stack([woman, ~woman, *(band == number for number in range(4))], axis=1)


@pytest.fixture(scope="session")
def make_assessment() -> MakeAssessment:
    """Figures of made-up sites, by the very functions that a study uses, as assessment.json has them."""

    def make(
        sites: dict[str, int],
        *,
        events: bool = True,
        deaths: bool = False,
        follow_up_years: float = 9.0,
        groups: int = 3,
        sd: float = 0.8,
        female: float = 0.5,
    ) -> dict[str, Any]:
        wanted, sums = plan(groups, sd), {}
        for number, (name, patients) in enumerate(sites.items()):
            draw = np.random.default_rng([number, patients])
            risk = draw.normal(0, sd, patients)
            event = draw.exponential(1 / (HAZARD * np.exp(risk))) if events else np.full(patients, np.inf)
            death = draw.exponential(20 * YEAR, patients) if deaths else np.full(patients, np.inf)
            censored = draw.uniform(0.4, 1.0, patients) * follow_up_years * YEAR
            time = np.ceil(np.minimum(np.minimum(event, death), censored))
            cause = np.where(censored <= np.minimum(event, death), 0, np.where(event <= death, 1, 2))
            sums[name] = site_sums(time, cause, risk, _members(draw, patients, female), wanted)
        return assessment_entry(wanted, "test", sums)

    return make


@pytest.fixture(scope="session")
def _assessment(make_assessment: MakeAssessment) -> dict[str, Any]:
    return make_assessment({"harbour": 900, "st-anne": 600, "rural": 120, "clinic": 40})


@pytest.fixture
def assessment(_assessment: dict[str, Any]) -> dict[str, Any]:
    """Four sites, one of them tiny; a copy that a test may change."""
    return copy.deepcopy(_assessment)
