"""The site's ledger as its people read it: what was released, what it cost, what is left.

In:  the site's folder and settings. Out: a document; lines of text. Called by `fedecg-client ledger`.
Nothing of patients is in it, pseudonyms neither. A look makes no ledger where there is none.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from fedecg.config import SitePrivacySettings
from fedecg.privacy.accountant import Accountant, Part, epsilon_of
from fedecg.privacy.book import exists_in
from fedecg.privacy.ledger import Entry, Head, Ledger, open_ledger

__all__ = ["ledger_document", "ledger_lines"]


def ledger_document(folder: Path, budget: SitePrivacySettings) -> dict[str, Any]:
    """Everything that is shown; reading the ledger checks every entry of it.

    Raises:
        PolicyError: FECG-431..433 it cannot be used.
    """
    if not exists_in(folder):
        return _document(Head(), budget, [], {}, [])
    with open_ledger(folder) as ledger:
        delta = budget.delta
        spent = {} if delta is None else {part: _epsilons(ledger, part, delta) for part in _parts(ledger)}
        studies = [] if delta is None else _studies(ledger.entries, delta)
        return _document(ledger.head, budget, _spends(ledger.entries, delta), spent, studies)


def ledger_lines(document: dict[str, Any]) -> list[str]:
    """The same in words."""
    if not document["sequence"]:
        return ["nothing was released with differential privacy yet"]
    lines = [f"{document['sequence']} entries, the last {document['sha256']}", ""]
    lines += [
        f"{'study':20} {'phase':10} {'mechanism':10} {'part':10} {'releases':>8} {'noise':>8} {'epsilon alone':>13}"
    ]
    for spend in document["spends"]:
        alone = "" if spend["epsilon"] is None else f"{spend['epsilon']:.3f}"
        lines.append(
            f"{spend['study']:20} {spend['phase']:10} {spend['mechanism']:10} {spend['part']:10}"
            f" {spend['releases']:>8} {spend['noise-multiplier']:>8.3f} {alone:>13}"
        )
    lines.append("")
    for study in document["studies"]:
        spent = ", ".join(f"{part} {epsilon:.3f}" for part, epsilon in study["epsilon"].items())
        lines.append(f"{study['study']:20} {study['runs']} run(s), epsilon of a patient at most: {spent}")
    if document["studies"]:
        lines.append("")
    for part, spent in document["epsilon"].items():
        left = document["left-by-part"].get(part)
        rest = "" if left is None else f", left at least {left:.3f}"
        lines.append(f"{part:10} epsilon {spent['rdp']:.3f} (RDP, counted), {spent['prv']:.3f} (PRV){rest}")
    if document["budget"] is None:
        return [*lines, "no budget: [privacy] of site.toml states no epsilon"]
    return [
        *lines,
        f"budget     epsilon {document['budget']:g} at delta {document['delta']:g}, left {document['left']:.3f}",
        "           (of the part of which most was released; epsilons add up to more than they cost together)",
    ]


def _document(
    head: Head,
    budget: SitePrivacySettings,
    spends: list[dict[str, Any]],
    spent: dict[Part, dict[Accountant, float]],
    studies: list[dict[str, Any]],
) -> dict[str, Any]:
    most = max((part["rdp"] for part in spent.values()), default=0.0)
    return {
        "sequence": head.sequence,
        "sha256": head.sha256 if head.sequence else None,
        "budget": budget.epsilon,
        "delta": budget.delta,
        "epsilon": spent,
        "left": None if budget.epsilon is None else max(budget.epsilon - most, 0.0),
        "left-by-part": {
            part: None if budget.epsilon is None else max(budget.epsilon - spent[part]["rdp"], 0.0)
            for part in spent
        },
        "studies": studies,
        "spends": spends,
    }


def _spends(entries: tuple[Entry, ...], delta: float | None) -> list[dict[str, Any]]:
    """Equal releases of a phase as one row, oldest first."""
    rows: Counter[tuple[str, str, str, Any]] = Counter()
    for entry in entries:
        rows[entry.purpose.study, entry.purpose.run, entry.purpose.phase, entry.spend] += 1
    return [
        {
            "study": study,
            "run": run,
            "phase": phase,
            **{name.replace("_", "-"): value for name, value in asdict(spend).items()},
            "releases": releases,
            "epsilon": None if delta is None else epsilon_of([spend] * releases, delta),
        }
        for (study, run, phase, spend), releases in rows.items()
    ]


def _studies(entries: tuple[Entry, ...], delta: float) -> list[dict[str, Any]]:
    """Each study by itself: its runs, and epsilon by part of whoever was in all of them."""
    names = dict.fromkeys(entry.purpose.study for entry in entries)
    found = []
    for name in names:
        own = [entry for entry in entries if entry.purpose.study == name]
        parts = {part: [entry.spend for entry in own if entry.spend.part == part] for part in get_args(Part)}
        found.append(
            {
                "study": name,
                "runs": len({entry.purpose.run for entry in own}),
                "epsilon": {part: epsilon_of(spends, delta) for part, spends in parts.items() if spends},
            }
        )
    return found


def _parts(ledger: Ledger) -> list[Part]:
    found = {entry.spend.part for entry in ledger.entries}
    return [part for part in get_args(Part) if part in found]


def _epsilons(ledger: Ledger, part: Part, delta: float) -> dict[Accountant, float]:
    """Of the patient of a part about whom most was released, in whatever part that was."""
    patients = {part: ledger.patients_of(part)}
    return {kind: ledger.epsilon(patients, delta, accountant=kind) for kind in get_args(Accountant)}
