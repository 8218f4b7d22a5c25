"""The whole evaluation in sums, 10 sites of 50,000 patients, against scikit-survival and lifelines on one site.

    .venv/bin/python benchmarks/survival_eval.py

One line of JSON: `ratio` = seconds that the peers need for Brier score, AUC at four horizons, Uno's C and
Kaplan-Meier of ONE site / seconds that one site needs for its sums of all figures. Besides: seconds of the coordinator,
bytes that a site sends (at most 256 KB), largest difference between figures from sums and the peers' on one site.
Measure with nothing else running.
"""

from __future__ import annotations

import json
import time

import numpy as np
from lifelines import KaplanMeierFitter
from sksurv.metrics import brier_score, concordance_index_ipcw, cumulative_dynamic_auc
from sksurv.util import Surv

import fedecg  # noqa: F401 - settles the threads before numpy starts
from fedecg.evaluation import (
    AssessmentPlan,
    RiskTimeGrid,
    SiteSums,
    absolute_risk,
    assess,
    risk_grid,
    site_sums,
)
from fedecg.federation.sums import AssessReply
from fedecg.objectives import Baseline, public_grid

SITES, PATIENTS = 10, 50_000
HORIZONS = np.array([1.0, 3.0, 5.0, 10.0]) * 365.25
TAU = 5 * 365.25


def site(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Time, event and log hazard; about 5 % events, follow-up of 4 to 12 years."""
    rng = np.random.default_rng(number)
    eta = rng.normal(size=PATIENTS)
    failure = rng.exponential(80_000 * np.exp(-eta))
    censored = rng.uniform(1500, 4400, PATIENTS)
    return np.ceil(np.minimum(failure, censored)), failure <= censored, eta


def study_plan() -> AssessmentPlan:
    """As the coordinator makes it: 24 x 50 bins, 30-day life tables."""
    baseline = Baseline(np.array([0.0, *HORIZONS]), np.array([0.0, *HORIZONS]) / 80_000)
    return AssessmentPlan(
        grid=RiskTimeGrid(np.linspace(180, 4300, 23), risk_grid(0, 1, 50)),
        edges_days=np.union1d(public_grid(30.0, 7305.0), HORIZONS),
        group_cuts=risk_grid(0, 1, 3),
        calibration_cuts=risk_grid(0, 1, 10),
        horizons_days=HORIZONS,
        tau_days=TAU,
        centre=0.0,
        subgroups=("all", "odd"),
        baseline=baseline,
    )


def peers(columns: tuple[np.ndarray, np.ndarray, np.ndarray], plan: AssessmentPlan) -> dict[str, np.ndarray]:
    """The same figures from one site's arrays."""
    days, event, eta = columns
    outcome = Surv.from_arrays(event, days)
    survival = 1 - absolute_risk(eta, plan.baseline, HORIZONS)
    figures = {
        "brier": brier_score(outcome, outcome, survival, HORIZONS)[1],
        "auc": cumulative_dynamic_auc(outcome, outcome, eta, HORIZONS)[0],
        "uno": np.array([concordance_index_ipcw(outcome, outcome, eta, TAU)[0]]),
    }
    KaplanMeierFitter().fit(days, event)
    return figures


def sums_of(columns: tuple[np.ndarray, np.ndarray, np.ndarray], plan: AssessmentPlan) -> SiteSums:
    """A site's sums, with two subgroups."""
    days, event, eta = columns
    return site_sums(days, event, eta, np.stack([eta <= 0, eta > 0], axis=1), plan)


def main() -> None:
    """Measure and print."""
    plan, sites = study_plan(), {f"site-{number}": site(number) for number in range(SITES)}
    start = time.perf_counter()
    sums = {
        name: site_sums(days, event, eta, np.stack([eta < 9, eta > 0], axis=1), plan)
        for name, (days, event, eta) in sites.items()
    }
    at_sites = time.perf_counter() - start
    sent = max(len(AssessReply.of(name, one).model_dump_json(by_alias=True)) for name, one in sums.items())
    start = time.perf_counter()
    assess(sums, HORIZONS)
    at_coordinator = time.perf_counter() - start
    start = time.perf_counter()
    expected = peers(sites["site-0"], plan)
    theirs = time.perf_counter() - start
    one = assess({"site-0": sums["site-0"]}, HORIZONS)
    ours = {"brier": one.brier.score, "auc": one.auc.auc, "uno": np.array([one.uno.c_index])}
    apart = max(float(np.max(np.abs(value - expected[name]))) for name, value in ours.items())
    print(
        json.dumps(
            {
                "benchmark": "survival_eval",
                "ratio": round(theirs / (at_sites / SITES), 2),
                "peer": "scikit-survival and lifelines, one site's arrays",
                "sites": SITES,
                "patients-a-site": PATIENTS,
                "seconds-a-site": round(at_sites / SITES, 3),
                "seconds-coordinator": round(at_coordinator, 3),
                "seconds-peer": round(theirs, 3),
                "kilobytes-a-site": round(sent / 1024, 1),
                "largest-difference": apart,
            }
        )
    )


if __name__ == "__main__":
    main()
