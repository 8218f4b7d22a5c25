"""A run folder as the plain data that a report is made of; what a run without summary.json cannot say is null.

In:  the folder of a simulation (with summary.json) or of a coordinator (result.json, study.toml, ...).
Out: `FinishedRun`. Called by `commands`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fedecg.config import StudySettings, load_study
from fedecg.errors import RunError, RunInputError
from fedecg.files import in_words
from fedecg.report.summary import coordinator_summary

__all__ = ["FinishedRun", "Outcomes", "read_run"]

Outcomes = Literal["observed", "simulated"]

MODEL = "model"
# What the pages read of assessment.json; a file of an earlier version lacks some of it.
ASSESSMENT_PARTS = frozenset(
    {
        "auc",
        "brier",
        "concordance",
        "deaths",
        "decision",
        "hazard-calibration",
        "horizons-days",
        "incidence",
        "part",
        "risk-calibration",
        "sites",
        "subgroups",
        "survival",
        "uno",
    }
)

EXPLANATION_PARTS = frozenset(
    (
        "part",
        "sites",
        "thresholds",
        "captions",
        "time",
        "leads",
        "deletion",
        "occlusion",
        "stability",
        "verdicts",
        "groups",
        "fewest-patients",
    )
)


@dataclass(frozen=True)
class FinishedRun:
    """What a finished run says.

    Attributes:
        summary: as in summary.json, or made from the other files; and, as `federation-code-fingerprint`, that of
            result.json: of what sites and coordinator run, without the simulations.
        rounds: as in rounds.json.
        assessment: as in assessment.json; None where the run has none.
        explanation: as in explanation.json; None where the run did not test its model's attention.
        settings: of the study.
        model: folder of the model, or None where the run has none.
        outcomes_stated: the run, or whoever asked, says whether outcomes are observed.
    """

    summary: dict[str, Any]
    rounds: list[dict[str, Any]]
    assessment: dict[str, Any] | None
    explanation: dict[str, Any] | None
    settings: StudySettings
    model: Path | None
    outcomes_stated: bool


def read_run(folder: Path, outcomes: Outcomes | None = None) -> FinishedRun:
    """Read the folder of a finished run.

    Args:
        folder: of a simulation or of a coordinator.
        outcomes: said by who asks, for a run that does not say it itself.

    Raises:
        RunInputError: FECG-602 a file is missing, unreadable, or of another version.
        RunError: FECG-606 outcomes contradict the run.
        SettingsError: FECG-101..103 study.toml.
    """
    rounds = _read(folder / "rounds.json", list)
    result = _read(folder / "result.json", dict)
    settings = load_study(folder / "study.toml")
    assessment = _assessment(folder / "assessment.json")
    stated = _read(folder / "summary.json", dict) if (folder / "summary.json").exists() else None
    explanation = _explanation(folder / "explanation.json")
    baselines = _read(folder / "baselines.json", dict) if (folder / "baselines.json").exists() else None
    summary = (
        coordinator_summary(result, settings, assessment, explanation, baselines)
        if stated is None
        else stated
    )
    own = summary.get("outcomes")
    if own is not None and outcomes is not None and own != outcomes:
        raise RunError(
            "FECG-606",
            "--outcomes",
            found=f"{outcomes}, where the run's summary.json says {own}",
            expected="what the run says",
            fix="Leave it out: this run states its outcomes itself.",
        )
    return FinishedRun(
        summary
        | {"outcomes": own or outcomes, "federation-code-fingerprint": result.get("code-fingerprint")},
        rounds,
        assessment,
        explanation,
        settings,
        folder / MODEL if (folder / MODEL / "model.json").exists() else None,
        (own or outcomes) is not None,
    )


def _assessment(file: Path) -> dict[str, Any] | None:
    if not file.exists():
        return None
    assessment: dict[str, Any] = _read(file, dict)
    if missing := ASSESSMENT_PARTS - set(assessment):
        raise _unreadable(file, f"{len(missing)} missing parts: {', '.join(sorted(missing))}")
    return assessment


def _explanation(file: Path) -> dict[str, Any] | None:
    if not file.exists():
        return None
    explanation: dict[str, Any] = _read(file, dict)
    if missing := EXPLANATION_PARTS - set(explanation):
        raise _unreadable(file, f"{len(missing)} missing parts: {', '.join(sorted(missing))}")
    return explanation


def _read(file: Path, kind: type) -> Any:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(file, in_words(error)) from None
    if not isinstance(content, kind):
        raise _unreadable(file, f"JSON of another kind ({type(content).__name__})")
    return content


def _unreadable(file: Path, found: str) -> RunInputError:
    return RunInputError(
        "FECG-602",
        file.name,
        found=found,
        expected="a file of a run that finished, written by this version of fedecg",
        fix="Name the folder that holds result.json; run the study again if it did not finish.",
    )
