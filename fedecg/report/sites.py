"""The sites as a report may show them: small ones are withheld, and what would give them away with them.

In:  the sites of a summary, the final evaluation by site. Out: `SiteDisclosure`: one decision for every table, figure
and file of a report, since two tables that withhold different sites tell together what neither does.
Called by `html`, `model_card`, `tripod`; passed to `assessment`, `table`, `figures`, `figure_data`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedecg.cohort import PARTS
from fedecg.report.disclosure import (
    NOTHING_WITHHELD,
    NOTHING_WITHHELD_NOTE,
    STUDY,
    Thresholds,
    shown,
    thresholds_of,
    with_companions,
)
from fedecg.report.wording import is_known, printable

__all__ = [
    "SiteDisclosure",
    "evaluated",
    "of_study",
    "part_sizes",
    "site_disclosure",
    "withheld_by",
    "withheld_words",
]

Site = Mapping[str, Any]
CONCORDANCE = "concordance"


@dataclass(frozen=True)
class SiteDisclosure:
    """What is withheld of which site.

    Attributes:
        thresholds: of what is shown.
        patients: sites whose numbers of patients are withheld, in all tables and parts.
        events: sites whose events and figures are withheld; those of `patients` are among them.
        beside: sites that are withheld only because they would give others away.
        at_sites: site -> parts of the evaluation that the site itself has kept back.
    """

    thresholds: Thresholds = STUDY
    patients: frozenset[str] = frozenset()
    events: frozenset[str] = frozenset()
    beside: frozenset[str] = frozenset()
    at_sites: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def number_of_patients(self, site: str, number: int) -> int | str:
        """The number, or the words that stand for it."""
        return shown(number, site in self.patients, self.thresholds.patients)

    def number_of_events(self, site: str, number: int) -> int | str:
        """The number, or the words that stand for it."""
        return shown(number, site in self.events, self.thresholds.events)

    def total(self, number: int, kind: str = "patients") -> int | str:
        """Of all sites, which can be small, too."""
        least = self.thresholds.events if kind == "events" else self.thresholds.patients
        return shown(number, number < least, least)

    def _kept_back(self) -> list[str]:
        """What the sites have not told, which is not that there was nothing to tell."""
        lines = []
        too_small = withheld_by({"withheld": self.at_sites})
        if too_small:
            lines.append(f"Not evaluated: {withheld_words(too_small)}.")
        for name, parts in sorted(self.at_sites.items()):
            if name not in too_small:
                lines.append(
                    f"Withheld by {printable(name)} itself, too few patients behind it: {', '.join(parts)}."
                )
        return lines

    def notes(self) -> tuple[str, ...]:
        """What is withheld and why, or that nothing is."""
        kept_back = self._kept_back()
        if self.thresholds == NOTHING_WITHHELD:
            return (NOTHING_WITHHELD_NOTE, *kept_back)
        if not self.events:
            return tuple(kept_back)
        lines = [
            *kept_back,
            f"Disclosure control: of a site {self.thresholds.rule()}, in no part, nor the figures of a site with "
            "such a number of events.",
        ]
        if self.beside:
            names = ", ".join(printable(name) for name in sorted(self.beside))
            lines.append(
                f"Also withheld, since the total less the rest would give the small ones away: {names}."
            )
        return tuple(lines)


def withheld_by(assessment: Mapping[str, Any] | None) -> list[str]:
    """Sites that have kept back the whole evaluation, by name."""
    told = (assessment or {}).get("withheld") or {}
    return sorted(name for name, parts in told.items() if CONCORDANCE in parts)


def evaluated(assessment: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The evaluation; None without one, and where every site has kept it back: its noughts are then of nobody."""
    sites = set((assessment or {}).get("sites") or {})
    return None if assessment is None or sites <= set(withheld_by(assessment)) else assessment


def withheld_words(sites: Sequence[str]) -> str:
    """Who has kept the evaluation back, and by which rule; the thresholds themselves stand in each site.toml."""
    return (
        f"withheld by {', '.join(map(printable, sites))} (below their thresholds of {STUDY.patients} patients or "
        f"{STUDY.events} events behind a figure, or what their site.toml says instead)"
    )


def of_study(summary: Mapping[str, Any], assessment: Mapping[str, Any] | None) -> SiteDisclosure:
    """The decision for a run: nothing is withheld of a simulation (`disclosure.thresholds_of`)."""
    return site_disclosure(summary.get("sites") or [], assessment, thresholds_of(summary))


def site_disclosure(
    sites: Sequence[Site], assessment: Mapping[str, Any] | None, thresholds: Thresholds = STUDY
) -> SiteDisclosure:
    """Which sites to withhold.

    Args:
        sites: of a summary: `name`, `patients`, `events`, parts.
        assessment: as in assessment.json, with patients and events of every site that was evaluated; None without.
    """
    evaluated = (assessment or {}).get("sites") or {}
    tables = [{site.get("name", site.get("site", "")): site for site in sites}, evaluated]
    patients = _columns(tables, lambda site: {"patients": site.get("patients"), **part_sizes(site)})
    events = _columns(tables, lambda site: {"events": site.get("events")})
    few_patients, few_events = _small(patients, thresholds.patients), _small(events, thresholds.events)
    hidden_patients = with_companions(few_patients, patients, thresholds.patients)
    hidden_events = with_companions(hidden_patients | few_events, events, thresholds.events)
    return SiteDisclosure(
        thresholds,
        frozenset(hidden_patients),
        frozenset(hidden_events),
        frozenset(hidden_events - few_patients - few_events),
        (assessment or {}).get("withheld") or {},
    )


def part_sizes(site: Site) -> dict[str, Any]:
    """Patients of each part, which a site states as plain values (a simulation) or as tables (a coordinator)."""
    tables = {part: counts.get("patients") for part, counts in (site.get("parts") or {}).items()}
    return tables | {part: site[part] for part in PARTS if part in site}


def _columns(tables: Sequence[Mapping[str, Site]], numbers: Any) -> list[dict[str, int]]:
    """Name of a site -> number, for each kind of number of each table."""
    columns: dict[tuple[int, str], dict[str, int]] = {}
    for at, table in enumerate(tables):
        for name, site in table.items():
            for kind, number in numbers(site).items():
                if is_known(number):
                    columns.setdefault((at, kind), {})[name] = int(number)
    return list(columns.values())


def _small(columns: Sequence[Mapping[str, int]], least: int) -> set[str]:
    return {name for column in columns for name, number in column.items() if number < least}
