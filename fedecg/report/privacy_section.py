"""What a study spent of each site's privacy budget, by phase, and in which form sums left the sites.

In:  the rounds, the settings, which parts of the final evaluation there were; spends by site and phase, of a study
with differential privacy. Out: lines, a `Grid`. Called by `html`, and by `table` for the screen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedecg.config import StudySettings
from fedecg.federation.few_sites import FEWEST_SITES, WEAK_EPSILON
from fedecg.report.disclosure import NOTHING_WITHHELD_NOTE, Thresholds
from fedecg.report.grid import Grid
from fedecg.report.wording import byte_size, printable

__all__ = [
    "PrivacySection",
    "Spends",
    "privacy_section",
    "protection_lines",
    "site_level_lines",
    "spend_grid",
]

# Site -> phase -> epsilon spent there.
Spends = Mapping[str, Mapping[str, float]]

NOTHING = "none, no DP"
NOTHING_SAID = "not known"
NO_DP = (
    "No differential privacy in this run: nothing was spent, at any site, in any phase. What left a site was protected "
    "by being sums and weights, not by noise."
)
FORMS = {
    "noised": "Beside the updates (DP-SGD) only sums with noise left the sites: events and clipped hazards by time "
    "bin, and histograms: of validation patients two, the first a look at where the risks lie, of test patients one. "
    "No site has said how many patients it has, nor any loss.",
    "plain": "Sums left the sites in plain: whoever runs the coordinator can read every site's own sums.",
    "masked": "Sums and updates left the sites under masks: whoever runs the coordinator can read the totals over all "
    "sites that answered, and of no site its own. Whoever compares totals over different sites learns the difference.",
}
OF_SPENDS = (
    "Epsilon by site and phase; unit: the patient. A row's last column is what the site's most exposed patient has "
    "spent on this study together; phases add up to more, since epsilons compose less than additively. It counts the "
    "replies that came: what a lost one cost, and other studies, stand in the site's ledger (fedecg-client ledger)."
)
NOISED_INTERVALS = "Intervals of C include the noise; there are no guaranteed bounds."
# Phase -> what left a site in it, beside counts of patients and events when it joined.
SENT = {
    "align": "alignment: weight updates and a loss a round",
    "survival": "survival: weight updates, a loss, hazard sums and counts by time and risk bin a round; before them, "
    "once, events by month",
    "evaluate": "evaluation: counts of the test part and, once, the sums behind every figure here",
    "explain": "attention: sums of what hiding parts of ECGs does",
}


WEAK = (
    "An epsilon of {:.3g} bounds hardly anything: it lets whoever sees the model tell almost for certain whether a "
    "site took part. More noise (privacy.client-epsilon) or fewer rounds bring it down."
)
UNPROTECTED = (
    "What this does not protect: single patients (the unit is the site, and its update left it without noise); sums "
    "and counts, losses and the evaluation, to which no noise is added; anything from whoever runs the coordinator, "
    "which adds the noise and "
)
READ_BEFORE = {
    "plain": "reads each site's clipped update before it does.",
    "masked": "reads the sum of the clipped updates before it does, though no single one; under masks it cannot check "
    "that a site has clipped.",
}
OF_ALL = "all sites: {}"

NOISED_SENT = {
    "align": "alignment: updates of noised steps",
    "survival": "survival: updates of noised steps; noised events once, noised hazard sums every few rounds",
    "evaluate": "evaluation: noised histograms, and noised sums of the baseline that ships",
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
    told = _told(summary)
    spends = {site["name"]: site["phases"] for site in told} if spends is None and told else spends
    stages = {entry.get("stage") for entry in rounds}
    there = {
        "align": "align" in stages,
        "survival": "survival" in stages,
        "evaluate": evaluated or bool(told),
        "explain": explained,
    }
    phases = [phase for phase, was in there.items() if was]
    whole = {site["name"]: _of_budget(site) for site in told}
    of_sites = _of_sites(summary)
    together = of_sites.get("phases") or {}
    names = [str(site.get("name", site.get("site", ""))) for site in summary.get("sites") or []]
    return PrivacySection(
        lines=_lines(summary, settings, phases, thresholds, spends),
        grid=Grid(
            header=("site", *phases, *(("study, of its budget",) if whole else ())),
            rows=tuple(
                (
                    printable(name),
                    *(
                        OF_ALL.format(f"{together[phase]:.3g}")
                        if phase in together
                        else _spent(spends, name, phase)
                        for phase in phases
                    ),
                    *((whole.get(name, NOTHING_SAID),) if whole else ()),
                )
                for name in names
            ),
            numeric=(False, *(True,) * (len(phases) + bool(whole))),
        ),
    )


def spend_grid(summary: Mapping[str, Any]) -> Grid | None:
    """Site by site what a study with differential privacy spent, for the screen; None without."""
    told = _told(summary)
    if not told:
        return None
    phases = list(told[0]["phases"])
    return Grid(
        header=("site", *phases, "study", "budget", "delta"),
        rows=tuple(
            (
                printable(site["name"]),
                *(f"{site['phases'].get(phase, 0.0):.3g}" for phase in phases),
                f"{site['epsilon']:.3g}",
                f"{site['budget']:.3g}",
                f"{site['delta']:.0e}",
            )
            for site in told
        ),
        numeric=(False, *(True,) * (len(phases) + 3)),
    )


def site_level_lines(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """What a study with differential privacy of sites spent, and what that does not protect; nothing without."""
    told = _of_sites(summary)
    if not told:
        return ()
    lines = [
        f"Differential privacy of sites: epsilon {told['epsilon']:.3g} at delta {told['delta']:.0e} for a site with "
        f"all its patients, over {told['releases']} noised means of updates of both stages (noise {told['noise']:g} x "
        f"the clip of {told['clip']:g}); a mean made twice counts twice. Not counted as less where not all sites took "
        "part: the study's seed tells which did. Other runs with the same sites add to it.",
        *(WEAK.format(told["epsilon"]),) * (told["epsilon"] > WEAK_EPSILON),
        UNPROTECTED + READ_BEFORE.get(str(told["sums"]), READ_BEFORE["plain"]),
    ]
    if told["forced"]:
        lines.append(
            f"Forced with {told['of-sites']} sites; fewer than {FEWEST_SITES} are too few for one to be hidden among "
            "the others without drowning what they have learned. Do not rely on it to protect a site or its patients."
        )
    return tuple(lines)


def protection_lines(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """What a model card says of differential privacy: how much there was, for whom, or that there was none."""
    told = _told(summary)
    if not told:
        return site_level_lines(summary) or (NO_DP,)
    most = max(told, key=lambda site: float(site["epsilon"]))
    return (
        f"Differential privacy of patients: epsilon {most['epsilon']:.3g} at delta {most['delta']:.0e} at the site "
        f"that spent most of {len(told)}, over the weights of every round, the baseline hazard and the evaluation "
        "together. Unit: a patient with all records at one site; whoever was at two sites has spent at both. Earlier "
        "studies on the same patients stand in the sites' ledgers.",
    )


def _of_sites(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """What summary.json says of differential privacy of sites; empty without."""
    privacy: Mapping[str, Any] = summary.get("privacy") or {}
    return privacy if privacy.get("mode") == "client" else {}


def _of_budget(site: Mapping[str, Any]) -> str:
    return f"{site['epsilon']:.3g} of {site['budget']:.3g} at delta {site['delta']:.0e}"


def _told(summary: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """What summary.json says that each site has spent."""
    sites: Sequence[Mapping[str, Any]] = (summary.get("privacy") or {}).get("sites") or ()
    return sites


def _lines(
    summary: Mapping[str, Any],
    settings: StudySettings | None,
    phases: Sequence[str],
    thresholds: Thresholds,
    spends: Spends | None,
) -> tuple[str, ...]:
    private = settings is not None and settings.privacy.mode == "sample"
    sent = NOISED_SENT if private else SENT
    told = "; ".join(sent[phase] for phase in phases if phase in sent)
    size = f" {byte_size(summary.get('bytes-per-round'))} up and down per site and survival round."
    lines = list(site_level_lines(summary)) or ([NO_DP] if spends is None else [OF_SPENDS])
    if private:
        lines.append(NOISED_INTERVALS)
    if settings is not None:
        lines.append(FORMS[settings.privacy.sums])
    lines.append(f"What left a site: {told}.{size}" if told else "No phase is on record.")
    rule = f"Disclosure control of this report: {thresholds.rule()}, nor what would give it away."
    return (*lines, NOTHING_WITHHELD_NOTE if not any(thresholds) else rule)


def _spent(spends: Spends | None, site: str, phase: str) -> str:
    return NOTHING if spends is None else f"{spends.get(site, {}).get(phase, 0.0):.3g}"
