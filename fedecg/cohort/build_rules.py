"""The rules of a cohort in words, as they were applied.

In:  `CohortSettings`. Out: lines of text, for flow.json and whoever checks the cohort. Called by `build`.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedecg.cohort.build_settings import CohortSettings
from fedecg.cohort.icd import CodeList

__all__ = ["rules_in_words", "titles"]


def titles(lists: Sequence[CodeList]) -> str:
    """The lists in words, each once."""
    return " or ".join(dict.fromkeys(one.title for one in lists))


def rules_in_words(settings: CohortSettings) -> tuple[str, ...]:
    """One line a rule."""
    return (
        *([f"rule set: {settings.rules.base}"] if settings.rules.base else []),
        f"index ECG: the {settings.ecgs.choose} one that meets the inclusion; one a patient",
        _inclusion(settings),
        f"exclusion: before the ECG or on its day, {_codes(settings.exclude.code_lists())}",
        f"event: the first after the day of the ECG, {_codes(settings.event.code_lists())}",
        *_wash_out(settings),
        f"end of follow-up: {_end(settings)}",
        f"diagnoses dated by: {settings.diagnoses.dated_by if settings.diagnoses.admissions else 'their own date'}",
        _split(settings),
    )


def _inclusion(settings: CohortSettings) -> str:
    rule = settings.include
    if not rule.code_lists():
        return "inclusion: everybody with an ECG"
    span = f", at most {rule.within_days} days before it" if rule.within_days else ""
    return f"inclusion: on or before the day of the ECG{span}, {_codes(rule.code_lists())}"


def _codes(lists: Sequence[CodeList]) -> str:
    """Every list with its codes."""
    said = [f"{one.title} (ICD-10 {_entries(one.icd_10)}; ICD-9 {_entries(one.icd_9)})" for one in lists]
    return " or ".join(said) or "none but the event's"


def _entries(entries: Sequence[str]) -> str:
    return " ".join(entries) or "none"


def _wash_out(settings: CohortSettings) -> list[str]:
    days = settings.event.wash_out_days
    if not days:
        return []
    if settings.event.wash_out == "drop":
        return [f"wash-out: patients with the event in the {days} days after the ECG leave"]
    return [f"wash-out: observation begins {days} days after the ECG, for those who are still followed then"]


def _end(settings: CohortSettings) -> str:
    rule = settings.follow_up
    ends = ["the last contact"] * bool(rule.end_table) + [rule.end_date] * bool(rule.end_date)
    deaths = "; death before the event is a competing one" if rule.death_table else "; deaths are not known"
    return " or, if earlier, ".join(ends) + deaths


def _split(settings: CohortSettings) -> str:
    split = settings.split
    test = f"each of {split.folds} folds in turn" if split.folds else f"{split.test:.0%}"
    return f"parts by patient, seed {split.seed}: test {test}, validation {split.validation:.0%} of all, train the rest"
