"""The model card: what a model is, was made from and can do, beside its weights; and the reporting checklists.

In:  the summary, the assessment and the settings of a study, the folder of its model.
Out: model_card.md and tripod.md in that folder. Called by the simulation's runner and by `fedecg report`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fedecg.config import StudySettings
from fedecg.errors import RunError
from fedecg.files import in_words, write_whole
from fedecg.intended_use import INTENDED_USE, NOT_INTENDED
from fedecg.model.package import CARD, CHECKLISTS, SETTINGS, write_sums
from fedecg.report.assessment import Assessment, horizon_grid, horizon_notes, site_grid, site_notes
from fedecg.report.decision import decision_words
from fedecg.report.findings import Summary, endpoint, is_simulated
from fedecg.report.markdown import escaped, list_lines, table_lines
from fedecg.report.privacy_section import protection_lines
from fedecg.report.sites import evaluated
from fedecg.report.study_words import (
    Study,
    data_lines,
    evaluation_part_lines,
    limit_lines,
    preparation_line,
    training_lines,
)
from fedecg.report.subgroups import subgroup_grid, subgroup_notes
from fedecg.report.tripod import tripod_markdown

__all__ = ["model_card_markdown", "write_model_card"]


def write_model_card(
    folder: str | Path, summary: Summary, assessment: Assessment | None, settings: StudySettings
) -> list[Path]:
    """Write model_card.md and tripod.md beside the model, and their sums into its SHA256SUMS.

    Args:
        folder: of the model (model.json, weights.safetensors).
        summary: as in summary.json; columns that a run does not have are null.
        assessment: as in assessment.json; None for a run that has none.
        settings: of the study.

    Returns:
        The two paths.

    Raises:
        RunError: FECG-601 a file cannot be written; FECG-602 no readable model.json.
        ModelError: FECG-308 a SHA256SUMS of another form.
    """
    folder = Path(folder)
    study = Study(summary, evaluated(assessment), settings, _model(folder / SETTINGS))
    paths = [folder / CARD, folder / CHECKLISTS]
    for path, text in zip(paths, (model_card_markdown(study), tripod_markdown(study)), strict=True):
        write_whole(path, text)
    write_sums(folder, (CARD, CHECKLISTS))
    return paths


def model_card_markdown(study: Study) -> str:
    """The card as Markdown; ends with a newline."""
    label = " (outcomes SIMULATED)" if is_simulated(study.summary) else ""
    lines = [
        f"# Model card: {escaped(str(study.summary.get('study', 'study')))}{label}",
        "",
        f"Risk of {endpoint(study.summary)} from a 12-lead ECG: a log hazard, and with the baseline hazard a risk by a "
        "horizon. "
        "Research software, not a medical device.",
    ]
    for title, body in (
        ("Intended use", list_lines(INTENDED_USE)),
        ("Not intended", list_lines(NOT_INTENDED)),
        ("Data", list_lines((*data_lines(study), f"Input: {preparation_line(study)}"))),
        ("Training", list_lines(training_lines(study))),
        ("Privacy", list_lines(protection_lines(study.summary))),
        ("Evaluation", _evaluation(study)),
        ("Subgroups", _subgroups(study)),
        ("Limits", list_lines(limit_lines(study))),
        ("Hashes", list_lines(f"{name}: {value}" for name, value in _hashes(study))),
    ):
        lines += ["", f"## {title}", "", *body]
    return "\n".join(lines) + "\n"


def _evaluation(study: Study) -> list[str]:
    lines = list_lines(evaluation_part_lines(study))
    if study.assessment is None:
        return lines
    decision, _ = decision_words(study.assessment)
    return [
        *lines,
        f"- {escaped(decision)}",
        *("", "By horizon:", ""),
        *table_lines(horizon_grid(study.assessment, study.disclosure)),
        *_below(horizon_notes(study.assessment)),
        *("", "By site:", ""),
        *table_lines(site_grid(study.assessment, study.disclosure)),
        *_below(site_notes(study.assessment, study.disclosure)),
    ]


def _subgroups(study: Study) -> list[str]:
    if study.assessment is None or not study.assessment["subgroups"]:
        return ["No figures by sex or age."]
    return [
        *table_lines(subgroup_grid(study.assessment, study.thresholds)),
        *_below(subgroup_notes(study.assessment, study.thresholds)),
    ]


def _below(notes: Iterable[str]) -> list[str]:
    return ["", *list_lines(notes)]


def _hashes(study: Study) -> list[tuple[str, str]]:
    named = (
        ("weights, sha256", study.model.get("weights-sha256")),
        ("code bank, sha256", study.model.get("bank-sha256") or "none (not aligned)"),
        ("settings, sha256", study.summary.get("settings-sha256")),
        ("code fingerprint", study.summary.get("code-fingerprint")),
        ("code fingerprint, sites and coordinator", study.summary.get("federation-code-fingerprint")),
        ("seed", study.summary.get("seed")),
    )
    return [(name, "not stated" if value is None else str(value)) for name, value in named]


def _model(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        content, found = None, in_words(error)
    else:
        found = f"JSON of another kind ({type(content).__name__})"
    if isinstance(content, dict):
        return content
    raise RunError(
        "FECG-602",
        file.name,
        found=found,
        expected="the model.json of a finished run",
        fix="Run the study again.",
    )
