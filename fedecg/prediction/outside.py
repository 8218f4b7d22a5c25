"""A finished model at a hospital that took no part: the whole evaluation on its patients, and its own baseline.

In:  a `Model`, a hospital's patients: a table and their record files, or a site folder (see `own_patients`).
Out: `OutsideEvaluation`, whose document is that of a study (`assessment.json`); a model folder with the baseline
scaled to this hospital. Called by `commands`.

Everything stays at the hospital: nothing here sends, and the document and the scaled model tell of its patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.codes import CODES
from fedecg.cohort import Cohort, subgroup_members
from fedecg.config import EvaluationSettings, SurvivalSettings
from fedecg.errors import ModelError
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
from fedecg.prediction.own_patients import OwnPatients, Part, patients_of_site, patients_of_table
from fedecg.prediction.predictor import Model
from fedecg.prediction.risk import RiskScale
from fedecg.progress import Progress

__all__ = ["OutsideEvaluation", "evaluate_outside", "recalibrate"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OutsideEvaluation:
    """How a model does at one hospital.

    Attributes:
        site: name in its site.toml, or "this-hospital".
        document: every figure, as in a study's assessment.json.
        observed, expected: events that were seen, and that the model's baseline expects of these patients.
        notes: what was left out, and why.
        left_out: FECG code -> patients whose ECG cannot be used.
    """

    site: str
    document: dict[str, Any] = field(repr=False)
    observed: int
    expected: float
    notes: tuple[str, ...]
    left_out: dict[str, int]


def evaluate_outside(
    model: Model,
    cohort: str | Path,
    part: Part = "all",
    settings: EvaluationSettings | None = None,
    *,
    records: str | Path | None = None,
    store: str | Path | None = None,
    progress: Progress | None = None,
) -> OutsideEvaluation:
    """Evaluate a model on a hospital's own patients; its groups of risk are those of about equal size there.

    Args:
        model: with a baseline hazard.
        cohort: a table (csv), whose ECGs are files in `records` or rows of `store`; or a folder with site.toml. A
            store must have been made with the model's signal settings, but for the powerline notch.
        part: of the cohort table; "all" = everybody.
        settings: horizons, groups, bins; None = the defaults of a study.
        records: folder of record files; one that cannot be used leaves its patient out.
        store: folder of a signal store.
        progress: says how far the reading of record files is.

    Raises:
        SettingsError, SignalError, CohortError: site.toml, store or table cannot be used; FECG-266 nobody in the
            part; FECG-267 a patient with several records; FECG-268, FECG-269 a hospital's own table.
        ModelError: FECG-347 no baseline hazard, or one that ends before every horizon; FECG-350 a store of other
            signals; FECG-326 log hazards that are not finite.
    """
    wanted = settings or EvaluationSettings()
    scale = _scale(model)
    horizons = _reached(scale, wanted.horizons_years)
    patients = _patients(model, Path(cohort), part, records, store, progress)
    days, eta = patients.cohort.follow_up_days, patients.log_hazard
    cause = np.where(patients.cohort.event, 1, np.where(patients.cohort.died, 2, 0))
    plan = _plan(wanted.model_copy(update={"horizons_years": horizons}), scale, days, cause, eta)
    sums = site_sums(days, cause, eta, subgroup_members(patients.cohort), plan)
    document = assessment_entry(plan, part, {patients.name: sums})
    whole = document["hazard-calibration"]
    return OutsideEvaluation(
        site=patients.name,
        document=document,
        observed=int(whole["events"]),
        expected=float(whole["expected"]),
        notes=_notes(wanted.horizons_years, horizons, patients),
        left_out=patients.left_out,
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


def _patients(
    model: Model,
    cohort: Path,
    part: Part,
    records: str | Path | None,
    store: str | Path | None,
    progress: Progress | None,
) -> OwnPatients:
    if cohort.is_dir() and records is None and store is None:
        return patients_of_site(model, cohort, part)
    return patients_of_table(
        model,
        cohort,
        part,
        records=None if records is None else Path(records),
        store=None if store is None else Path(store),
        progress=progress,
    )


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


def _notes(wanted: Sequence[float], reached: Sequence[float], patients: OwnPatients) -> tuple[str, ...]:
    notes = _training_note(patients.cohort)
    notes += [
        f"{number} of {len(patients.cohort) + sum(patients.left_out.values())} patients left out: {code} {CODES[code]}."
        for code, number in patients.left_out.items()
    ]
    beyond = [f"{years:g}" for years in wanted if years not in reached]
    if beyond:
        notes.append(f"No figures at {', '.join(beyond)} years: beyond the model's baseline hazard.")
    late = int(np.sum(patients.cohort.entry_days > 0))
    if late:
        notes.append(
            f"{late} patients entered after their ECG; they are counted as followed from the ECG on."
        )
    return tuple(notes)


def _training_note(cohort: Cohort) -> list[str]:
    training = int(np.sum(cohort.part == "train"))
    if not training:
        return []
    return [
        f"{training} of the {len(cohort)} patients evaluated are of the part train: if they trained this model, the "
        "figures flatter it. --part test leaves them out."
    ]
