"""summary.json of a coordinator: what a simulation's says, as far as it follows from what has left the sites.

In:  the files of a run. Out: one document; what only a simulation can know is null. Called by the server when a study
ends, and by `fedecg report`. The pooled and the site-only column need patients side by side, and a hazard that is
known. A site's own model stays at its site, so there is "local-own", each site's model on that site's own patients, and
neither a best of them nor their mean on everybody's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedecg.config import StudySettings
from fedecg.explanation.entry import without_arrays
from fedecg.report.assessment import without_curves
from fedecg.report.findings import COLUMNS
from fedecg.report.sites import evaluated, withheld_by

__all__ = ["coordinator_summary"]

ONLY_A_SIMULATION_KNOWS = (
    "endpoint",
    *("outcomes", "folds", "notes", "local-models-left-out", "differences"),
    *("refused-recordings", "quality", "starts-sha256"),
)
FROM_THE_RESULT = (
    *("status", "rounds", "best-round", "alignment", "privacy", "bytes-per-round", "seconds"),
    *("code-fingerprint", "settings-sha256"),
)


def coordinator_summary(
    result: Mapping[str, Any],
    settings: StudySettings,
    assessment: Mapping[str, Any] | None,
    explanation: Mapping[str, Any] | None,
    baselines: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The summary of a study whose patients stayed where they are.

    Args:
        result, assessment, explanation, baselines: as in the run's files; None where there is no such file.
        settings: of the study.
    """
    told = evaluated(assessment)
    pairs = (told or {}).get("concordance") or {}
    part = (result.get("evaluation") or {}).get((assessment or {}).get("part", "test"))
    kept_back = withheld_by(assessment)
    columns = {
        "federated": _column(pairs) if pairs else None,
        "local-own": _within((baselines or {}).get("local")),
        "age-sex": _within((baselines or {}).get("age-sex")),
    }
    return {
        **dict.fromkeys(ONLY_A_SIMULATION_KNOWS),
        "study": settings.name,
        "seed": settings.seed,
        "sites": [_site(site) for site in result.get("sites") or []],
        "columns": dict.fromkeys(COLUMNS) | columns,
        "test": {
            "patients": pairs.get("patients"),
            "events": pairs.get("events"),
            "comparable-pairs": None,
            "comparable-pairs-stratified": pairs.get("comparable-within"),
        },
        **({"withheld-by": kept_back} if kept_back else {}),
        "federated-c-index": part if told or not kept_back else None,
        "assessment": None if told is None else without_curves(told),
        "explanation": None if explanation is None else without_arrays(explanation),
        "federation-code-fingerprint": result.get("code-fingerprint"),
        **{name: result.get(name) for name in FROM_THE_RESULT},
    }


def _site(site: Mapping[str, Any]) -> dict[str, Any]:
    parts = site.get("parts") or {}
    return {name: site.get(name) for name in ("name", "patients", "events")} | {"parts": parts}


def _column(pairs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "c-index": pairs["c-index"],
        "ci-low": pairs["ci-low"],
        "ci-high": pairs["ci-high"],
        "c-index-stratified": pairs["stratified"],
        "stratified-ci-low": pairs["stratified-ci-low"],
        "stratified-ci-high": pairs["stratified-ci-high"],
    }


def _within(entry: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A column of models that rank the patients of one site each: there is no C over all pairs."""
    if entry is None:
        return None
    return {
        "c-index": None,
        "ci-low": None,
        "ci-high": None,
        "c-index-stratified": entry["stratified"],
        "stratified-ci-low": entry["stratified-ci-low"],
        "stratified-ci-high": entry["stratified-ci-high"],
    }
