"""What a study spent of each site's privacy budget, by phase, and in which form sums left the sites.

In:  the rounds, the settings, which parts of the final evaluation there were; spends by site and phase, of a study
with differential privacy. Out: lines, a `Grid`. Called by `html`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedecg.config import StudySettings
from fedecg.report.disclosure import NOTHING_WITHHELD_NOTE, Thresholds
from fedecg.report.grid import Grid
from fedecg.report.wording import byte_size, printable

__all__ = ["PrivacySection", "Spends", "privacy_section"]

# Site -> phase -> epsilon spent there. This version has no ledger that would give it.
Spends = Mapping[str, Mapping[str, float]]

NOTHING = "none, no DP"
NO_DP = (
    "No differential privacy in this run: nothing was spent, at any site, in any phase. What left a site was protected "
    "by being sums and weights, not by noise."
)
FORMS = {
    "plain": "Sums left the sites in plain: whoever runs the coordinator can read every site's own sums.",
    "masked": "Sums and updates left the sites under masks: whoever runs the coordinator can read the totals over all "
    "sites that answered, and of no site its own. Whoever compares totals over different sites learns the difference.",
}
# Phase -> what left a site in it, beside counts of patients and events when it joined.
SENT = {
    "align": "alignment: weight updates and a loss a round",
    "survival": "survival: weight updates, a loss, hazard sums and counts by time and risk bin a round; before them, "
    "once, events by month",
    "evaluate": "evaluation: counts of the test part and, once, the sums behind every figure here",
    "explain": "attention: sums of what hiding parts of ECGs does",
}


@dataclass(frozen=True)
class PrivacySection:
    """What the page shows.

    Attributes:
        lines: in words. grid: one row a site, a column a phase.
    """

    lines: tuple[str, ...]
    grid: Grid


def privacy_section(
    summary: Mapping[str, Any],
    rounds: Sequence[Mapping[str, Any]],
    settings: StudySettings | None,
    *,
    evaluated: bool,
    explained: bool,
    thresholds: Thresholds,
    spends: Spends | None = None,
) -> PrivacySection:
    """Spend by site and phase.

    Args:
        summary, rounds: as in summary.json and rounds.json.
        settings: of the study; None where they are not at hand.
        evaluated, explained: whether there was a final evaluation, and a test of attention.
        thresholds: of this report's disclosure control.
        spends: epsilon by site and phase; None without differential privacy.
    """
    stages = {entry.get("stage") for entry in rounds}
    there = {
        "align": "align" in stages,
        "survival": "survival" in stages,
        "evaluate": evaluated,
        "explain": explained,
    }
    phases = [phase for phase, was in there.items() if was]
    names = [str(site.get("name", site.get("site", ""))) for site in summary.get("sites") or []]
    return PrivacySection(
        lines=_lines(summary, settings, phases, thresholds, spends),
        grid=Grid(
            header=("site", *phases),
            rows=tuple(
                (printable(name), *(_spent(spends, name, phase) for phase in phases)) for name in names
            ),
            numeric=(False, *(True,) * len(phases)),
        ),
    )


def _lines(
    summary: Mapping[str, Any],
    settings: StudySettings | None,
    phases: Sequence[str],
    thresholds: Thresholds,
    spends: Spends | None,
) -> tuple[str, ...]:
    told = "; ".join(SENT[phase] for phase in phases)
    size = f" {byte_size(summary.get('bytes-per-round'))} up and down per site and survival round."
    lines = [NO_DP] if spends is None else ["Epsilon by site and phase; unit: the patient."]
    if settings is not None:
        lines.append(FORMS[settings.privacy.sums])
    lines.append(f"What left a site: {told}.{size}" if told else "No phase is on record.")
    rule = f"Disclosure control of this report: {thresholds.rule()}, nor what would give it away."
    return (*lines, NOTHING_WITHHELD_NOTE if not any(thresholds) else rule)


def _spent(spends: Spends | None, site: str, phase: str) -> str:
    return NOTHING if spends is None else f"{spends.get(site, {}).get(phase, 0.0):.3g}"
