"""Fit, tests and concordance of the federated Cox model of a table, as one JSON document.

In:  `CoxTable`, settings. Out: a dict of plain values. Called by `cox`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import SettingsError
from fedecg.evaluation import Estimate, concordance_interval, stratified_interval
from fedecg.objectives.hazard import public_grid
from fedecg.objectives.linear_cox import CoxFit, CoxSettings, fit_linear_cox
from fedecg.objectives.linear_cox_inference import (
    CoxInference,
    ProportionalHazards,
    cox_inference,
    gap_to_exact,
    proportional_hazards,
    site_residuals,
)
from fedecg_simulations.cox_table import CoxTable

__all__ = ["analyse_table"]

MOST_BINS = 20_000
KAPLAN_MEIER = "1 - Kaplan-Meier just before the event"
LATE_ENTRY = "the concordance does not know entry times: it compares everybody from day 0"
EXACT = (
    "Exact grid, a bin for every event time: such sums tell single patients' covariates. Here all sites run on one "
    "machine; between hospitals use --grid DAYS, or masked sums."
)
COARSE = "Public grid: events of one bin are treated as tied. The gap is the largest change of a coefficient."


def analyse_table(
    table: CoxTable, settings: CoxSettings, grid_days: float | None, robust: str | None
) -> dict[str, Any]:
    """Fit a table's sites and judge the fit.

    Args:
        table: checked patients.
        settings: ties, baseline, penalty.
        grid_days: width of the public time bins; None: a bin for every event time.
        robust: None, or whose residuals are independent: `patient` or `site`.

    Returns:
        What `--json` prints; None where a figure is undefined.

    Raises:
        SettingsError: FECG-108, too fine a grid, or clusters of one site.
        ModelError: FECG-331..336.
    """
    sites = table.sites()
    groups = list(sites.values())
    _refuse_one_cluster(len(groups), robust)
    edges = None if grid_days is None else _public_edges(table, grid_days)
    fit = fit_linear_cox(groups, table.names, settings, edges)
    gap = None if edges is None else gap_to_exact(fit, fit_linear_cox(groups, table.names, settings))
    residuals = site_residuals(fit, groups) if robust else None
    inference = cox_inference(fit, residuals, "site" if robust == "site" else "patient")
    check, optimum = proportional_hazards(fit), fit.optimum
    return {
        "patients": optimum.patients,
        "events": optimum.events,
        "sites": [
            {"site": name, "patients": len(group.event), "events": int(group.event.sum())}
            for name, group in sites.items()
        ],
        "coefficients": _coefficients(fit, inference, check),
        **_concordances(table, fit, ~table.test),
        "concordance-note": None if table.patients.entry_days is None else LATE_ENTRY,
        "test": _concordances(table, fit, table.test) if table.test.any() else None,
        "proportional-hazards": {
            "time": KAPLAN_MEIER,
            "chi-squared": _known(check.global_statistic),
            "p": _known(check.global_p),
        },
        "log-likelihood": optimum.log_likelihood,
        "log-likelihood-null": optimum.log_likelihood_null,
        "newton-steps": optimum.steps,
        "ties": settings.ties,
        "baseline": settings.baseline,
        "penalty": settings.penalty,
        "standard-errors": f"robust, by {robust}" if robust else "model",
        "grid-days": "exact" if grid_days is None else grid_days,
        "bins": len(fit.edges_days),
        "gap-to-exact": gap,
        "disclosure": EXACT if grid_days is None else COARSE,
        "covariates-by-default": table.by_default,
        "identifiers": list(table.identifiers),
        "left-out": list(table.left_out),
    }


def _public_edges(table: CoxTable, grid_days: float) -> NDArray[np.float64]:
    bins = max(1, math.ceil(float(table.patients.follow_up_days.max()) / grid_days))
    if bins > MOST_BINS:
        raise SettingsError(
            "FECG-108",
            "--grid",
            found=f"{bins:,} bins up to the longest follow-up",
            expected=f"at most {MOST_BINS:,}",
            fix="Take wider bins, or exact.",
        )
    return public_grid(grid_days, grid_days * bins)


def _refuse_one_cluster(sites: int, robust: str | None) -> None:
    if robust == "site" and sites < 2:
        raise SettingsError(
            "FECG-108",
            "--robust site",
            found=f"{sites} site",
            expected="several sites, better 20 and more: each is one observation of the variance",
            fix="Use --robust patient.",
        )


def _coefficients(fit: CoxFit, inference: CoxInference, check: ProportionalHazards) -> list[dict[str, Any]]:
    columns = {
        "log-hazard-ratio": inference.log_hazard_ratio,
        "se": inference.se,
        "z": inference.z,
        "p": inference.p,
        "hazard-ratio": inference.hazard_ratio,
        "ci-low": inference.ci_low,
        "ci-high": inference.ci_high,
        "proportional-hazards-p": check.p,
    }
    return [
        {"name": name} | {key: _known(float(values[row])) for key, values in columns.items()}
        for row, name in enumerate(fit.names)
    ]


def _concordances(table: CoxTable, fit: CoxFit, rows: NDArray[np.bool_]) -> dict[str, Any]:
    """Harrell's C of all pairs and of pairs within sites, with 95 % intervals; None where nothing is comparable."""
    patients = table.part(rows)
    outcome = (patients.follow_up_days, patients.event, fit.log_hazard(patients.covariates))
    return _estimate("", concordance_interval(*outcome)) | _estimate(
        "stratified-", stratified_interval(*outcome, table.site[rows])
    )


def _estimate(prefix: str, estimate: Estimate) -> dict[str, Any]:
    return {
        f"{prefix}concordance": _known(estimate.c_index),
        f"{prefix}concordance-ci-low": _known(estimate.ci_low),
        f"{prefix}concordance-ci-high": _known(estimate.ci_high),
    }


def _known(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None
