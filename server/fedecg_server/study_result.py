"""What a finished study says of itself: its sites, its rounds, its figures, what was spent and sent.

In:  the study, the weights that validation chose, their evaluation. Out: the result, as `result.json` holds it.
Called by the study at its end.
"""

from __future__ import annotations

from typing import Any

from fedecg.config import Stage, settings_sha256
from fedecg.federation.documents import PartCounts
from fedecg.federation.rounds import alignment_summary
from fedecg.fingerprint import code_fingerprint
from fedecg_server.masked import MaskedSums
from fedecg_server.noised import NoisedConclusion, spent_by_sites
from fedecg_server.stage import Candidate
from fedecg_server.study_state import StudyState

__all__ = ["STAGES", "privacy_entry", "study_result"]

STAGES: tuple[Stage, ...] = ("align", "survival")


def study_result(study: StudyState, best: Candidate, evaluation: dict[str, Any]) -> dict[str, Any]:
    """Everything that is known once the best weights are evaluated."""
    survival = [record for record in study.records if record.stage == "survival"]
    exchanged = sum(record.bytes for record in survival) / max(sum(len(r.expected) for r in survival), 1)
    incomplete = any(record.missing or record.rejected or record.late for record in study.records)
    return {
        "status": "completed-partial" if study.refused or incomplete else "completed",
        "run": study.run,
        "lock-sha256": study.lock.sha256(),
        "sites": [_site_entry(study, name) for name in sorted(study.consortium.members)],
        "refused": study.refused,
        "parts-of-all-sites": _of_all(study.masked),
        "rounds": {
            stage: sum(r.stage == stage and not r.repeated for r in study.records) for stage in STAGES
        },
        "best-round": best.rounds,
        "alignment": alignment_summary(study.records),
        "evaluation": evaluation,
        "privacy": _privacy(study),
        "bytes-per-round": exchanged,
        "seconds": {stage: round(took, 3) for stage, took in study.seconds.items()},
        "code-fingerprint": code_fingerprint(),
        "settings-sha256": settings_sha256(study.settings),
    }


def _privacy(study: StudyState) -> dict[str, Any]:
    """Mode, and what was spent, unless that is each site's own."""
    privacy = study.settings.privacy
    if privacy.mode == "client":
        return study.releases.entry()
    return {"mode": privacy.mode, "sums": privacy.sums, "sites": []}


def privacy_entry(study: StudyState, end: NoisedConclusion) -> dict[str, Any]:
    """Mode, and what the study cost each site, as far as its replies have come."""
    joined = {name: member.joined for name, member in study.consortium.members.items()}
    budgets = {name: reply.budget for name, reply in joined.items() if reply.budget is not None}
    sites = spent_by_sites(budgets, {**study.survey, **study.late_survey}, study.records, end.spends)
    privacy = study.settings.privacy
    return {"mode": privacy.mode, "sums": privacy.sums, "unit": "patient", "sites": sites}


def _site_entry(study: StudyState, name: str) -> dict[str, Any]:
    if study.masked is not None:  # only what all have together is known
        return {"name": name}
    parts = study.consortium.members[name].joined.parts
    if study.private:
        return {"name": name, "patients": None, "events": None, "parts": {}}
    known = not any(counts.withheld for counts in parts.values())
    return {
        "name": name,
        "patients": sum(counts.patients for part, counts in parts.items() if part != "align")
        if known
        else None,
        "events": sum(part.events for part in parts.values()) if known else None,
        "parts": {part: _part_entry(counts) for part, counts in parts.items()},
    }


def _of_all(masked: MaskedSums | None) -> dict[str, Any] | None:
    """Patients and events by part where no site's own are known."""
    return None if masked is None else {part: counts.model_dump() for part, counts in masked.parts.items()}


def _part_entry(counts: PartCounts) -> dict[str, int | None]:
    """What a site withholds is not known, and no nought."""
    return {
        "patients": None if counts.withheld else counts.patients,
        "events": None if counts.withheld else counts.events,
    }
