"""A finished model at a hospital that took no part: the whole evaluation on its patients, and its own baseline.

In:  a `Model`, a site folder (site.toml -> signal store and cohort table). Out: `OutsideEvaluation`, whose document is
that of a study (`assessment.json`); a model folder with the baseline scaled to this hospital. Called by `commands`.

Everything stays at the hospital: nothing here sends, and the document and the scaled model tell of its patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort import read_cohort, subgroup_members
from fedecg.config import EvaluationSettings, SurvivalSettings, load_site
from fedecg.errors import CohortError, ModelError
from fedecg.evaluation import (
    DAYS_A_YEAR,
    AssessmentPlan,
    RiskTimeGrid,
    assessment_entry,
    assessment_plan,
    risk_grid,
    site_sums,
    time_grid,
)
from fedecg.model import BaselineFile, RecalibrationFile, load_model, save_model
from fedecg.objectives import Baseline, public_grid
from fedecg.prediction.predictor import Model
from fedecg.prediction.risk import RiskScale
from fedecg.signals import SignalStore
from fedecg.training import SiteData, log_hazards

__all__ = ["OutsideEvaluation", "evaluate_outside", "recalibrate"]

Part = Literal["all", "train", "validation", "test"]
Rows = NDArray[np.int64]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OutsideEvaluation:
    """How a model does at one hospital.

    Attributes:
        site: name in its site.toml.
        document: every figure, as in a study's assessment.json.
        observed, expected: events that were seen, and that the model's baseline expects of these patients.
        notes: what was left out, and why.
    """

    site: str
    document: dict[str, Any] = field(repr=False)
    observed: int
    expected: float
    notes: tuple[str, ...]


def evaluate_outside(
    model: Model,
    site_folder: str | Path,
    part: Part = "all",
    settings: EvaluationSettings | None = None,
) -> OutsideEvaluation:
    """Evaluate a model on a hospital's own patients; its groups of risk are those of about equal size there.

    Args:
        model: with a baseline hazard.
        site_folder: holds site.toml; its store must have been made with the model's signal settings, but for the
            powerline notch.
        part: of the cohort table; "all" = everybody.
        settings: horizons, groups, bins; None = the defaults of a study.

    Raises:
        SettingsError, SignalError, CohortError: site.toml, store or table cannot be used; FECG-266 nobody in the
            part; FECG-267 a patient with several records.
        ModelError: FECG-347 no baseline hazard, or one that ends before every horizon; FECG-350 a store of other
            signals; FECG-326 log hazards that are not finite.
    """
    wanted = settings or EvaluationSettings()
    scale = _scale(model)
    horizons = _reached(scale, wanted.horizons_years)
    site = _open_site(model, Path(site_folder))
    rows = _patients(site, part)
    days, cause = site.follow_up_days(rows), site.cause(rows)
    eta = log_hazards(model.saved.network, site, rows)
    plan = _plan(wanted.model_copy(update={"horizons_years": horizons}), scale, days, cause, eta)
    sums = site_sums(days, cause, eta, subgroup_members(site.cohort.select(rows)), plan)
    document = assessment_entry(plan, part, {site.name: sums})
    whole = document["hazard-calibration"]
    return OutsideEvaluation(
        site=site.name,
        document=document,
        observed=int(whole["events"]),
        expected=float(whole["expected"]),
        notes=_notes(wanted.horizons_years, horizons, site, rows),
    )


def recalibrate(model: Model, evaluation: OutsideEvaluation, out: str | Path) -> float:
    """Write a model whose baseline is scaled by observed over expected events: recalibration in the large.

    The log hazards, and so the order of patients, stay as they are; so does the population of the percentiles. The
    variance gains that of the ratio as a Poisson count, ratio^2 (V + H0^2 / observed): on the wide side, for the
    level of the old baseline, whose uncertainty is in V, no longer counts.

    Args:
        model: the one that was evaluated.
        out: folder of the new model, which belongs to this hospital; `model.json` records the original's hash.

    Returns:
        The ratio.

    Raises:
        ModelError: FECG-351 no event observed or expected; FECG-352 the folder holds the original model.
        RunError: FECG-601 the folder cannot be written.

    Source: Steyerberg 2019, Clinical Prediction Models, 2nd ed., chapter 20 (updating: calibration in the large).
    """
    saved, observed, expected = model.saved, evaluation.observed, evaluation.expected
    before = _scale(model).baseline
    if not observed or not expected > 0:
        raise ModelError(
            "FECG-351",
            "recalibration",
            found="no event observed, or none expected",
            expected="at least 1 event among the patients evaluated",
            fix="Evaluate on more patients or a longer follow-up.",
        )
    _refuse_original(model, Path(out))
    ratio = observed / expected
    hazard, variance = np.array(before.cumulative_hazard), np.array(before.variance)
    after = BaselineFile(
        edges_days=before.edges_days,
        cumulative_hazard=(ratio * hazard).tolist(),
        variance=(ratio**2 * (variance + hazard**2 / observed)).tolist(),
    )
    note = RecalibrationFile(
        ratio=ratio, observed=observed, expected=expected, original_sha256=saved.settings_sha256
    )
    save_model(
        out, saved.network, saved.signals, saved.bank_sha256, after, saved.population, note, saved.outcomes
    )
    return ratio


def _scale(model: Model) -> RiskScale:
    if model.scale is None:
        raise ModelError(
            "FECG-347",
            "baseline hazard of the model",
            found="none",
            expected="a model that has been through survival training",
            fix="An aligned model knows reports, not risks: fine-tune it first.",
        )
    return model.scale


def _reached(scale: RiskScale, horizons_years: Sequence[float]) -> list[float]:
    reached = list(scale.known(horizons_years))
    if not reached:
        raise ModelError(
            "FECG-347",
            "baseline hazard of the model",
            found=f"one that ends at {scale.follow_up_days / DAYS_A_YEAR:.1f} years",
            expected=f"at least the first horizon, {min(horizons_years):g} years",
            fix="Take a model whose validation patients were followed longer.",
        )
    return reached


def _open_site(model: Model, folder: Path) -> SiteData:
    """Store and cohort as site.toml names them; codes are not read, so no bank is needed."""
    settings = load_site(folder / "site.toml")
    store, cohort = SignalStore.open(settings.store), read_cohort(settings.cohort)
    needed = model.signals.model_dump(by_alias=True)
    other = [name for name in needed if name != "powerline" and store.settings.get(name) != needed[name]]
    if other:
        raise ModelError(
            "FECG-350",
            "signal store",
            found=f"{len(other)} setting(s) other than the model's: {', '.join(other)}",
            expected=", ".join(f"{name} = {needed[name]}" for name in other),
            fix="Build the store with the [signals] settings in model.json.",
        )
    return SiteData(settings.name, cohort, store, np.zeros((len(cohort), 0), dtype=np.float32))


def _patients(site: SiteData, part: Part) -> Rows:
    """Rows of the part, one a patient."""
    rows = np.arange(len(site.cohort)) if part == "all" else site.rows(part)
    if not rows.size:
        raise CohortError(
            "FECG-266",
            "patients to evaluate",
            found=f"0 of {len(site.cohort)} rows of the cohort table in the part asked for",
            expected="at least 1",
            fix="Choose another --part.",
        )
    several = rows.size - len(np.unique(site.cohort.patient[rows]))
    if several:
        raise CohortError(
            "FECG-267",
            "records to evaluate",
            found=f"{several} of {rows.size} that are a patient's second or later record",
            expected="one index ECG a patient",
            fix="Leave one record a patient in the cohort table, or choose --part test.",
        )
    return rows


def _plan(
    settings: EvaluationSettings,
    scale: RiskScale,
    days: Float64,
    cause: NDArray[np.int64],
    eta: Float64,
) -> AssessmentPlan:
    """As a study's coordinator makes it, from this hospital's own events and log hazards."""
    survival = SurvivalSettings()
    edges_days = public_grid(survival.grid_days, survival.horizon_days)
    baseline: Baseline = scale.hazard
    events, _ = np.histogram(days[cause == 1], np.append(edges_days, np.inf))
    moments = float(eta.mean()), float(eta.std())
    grid = RiskTimeGrid(
        time_grid(edges_days[1:], events[:-1], settings.time_bins), risk_grid(*moments, settings.risk_bins)
    )
    return assessment_plan(settings, grid, edges_days, moments, baseline)


def _refuse_original(model: Model, out: Path) -> None:
    if (out / "model.json").is_file() and load_model(out).settings_sha256 == model.saved.settings_sha256:
        raise ModelError(
            "FECG-352",
            "--recalibrate",
            found="the folder of the model itself",
            expected="another folder, so that the original is kept",
        )


def _notes(wanted: Sequence[float], reached: Sequence[float], site: SiteData, rows: Rows) -> tuple[str, ...]:
    notes = []
    beyond = [f"{years:g}" for years in wanted if years not in reached]
    if beyond:
        notes.append(f"No figures at {', '.join(beyond)} years: beyond the model's baseline hazard.")
    late = int(np.sum(site.entry_days(rows) > 0))
    if late:
        notes.append(
            f"{late} patients entered after their ECG; they are counted as followed from the ECG on."
        )
    return tuple(notes)
