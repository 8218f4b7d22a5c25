"""Words beside the figures of the final evaluation: for those who cannot see them, and what they show.

In:  the assessment of a study, as in assessment.json.
Out: (alternative text with the numbers, caption). Called by `html`.
"""

from __future__ import annotations

from typing import Any

from fedecg.report.assessment import Assessment, figure_horizon, log_rank_line, with_deaths
from fedecg.report.assessment_figures import LAST_SHARE, LEAST_AT_RISK, group_names, shown
from fedecg.report.disclosure import STUDY, Thresholds
from fedecg.report.subgroups import subgroup_rows
from fedecg.report.wording import c_index, is_known, percent, ratio, risk, years

__all__ = ["calibration_words", "subgroup_words", "survival_words"]


def survival_words(assessment: Assessment) -> tuple[str, str]:
    """Alternative text and caption of the survival figure."""
    deaths = assessment["deaths"]
    curve = "Aalen-Johansen estimate with death as competing risk" if deaths else "Kaplan-Meier estimate"
    limit = shown(assessment["survival"]["edges-days"], assessment["survival"]["at-risk"])
    rule = f"{percent(LAST_SHARE)} of all patients are at risk"
    if limit.smallest_group:
        rule = f"{LEAST_AT_RISK} patients of the smallest group are at risk"
    caption = (
        f"{curve} by group of predicted risk, 95 % bands, from the sum of the sites' life tables. The groups' cuts "
        "are public: quantiles of a normal log hazard with the validation patients' mean and spread. Shown while "
        f"{rule}."
    )
    return (
        f"{curve} by group of risk. {_at_last_horizon(assessment, limit.until_days)}{log_rank_line(assessment)}.",
        caption,
    )


def calibration_words(assessment: Assessment) -> tuple[str, str]:
    """Alternative text and caption of the calibration figure."""
    caption = with_deaths(
        assessment,
        "Predicted against observed risk by group of predicted risk, 95 % intervals; on the dashed line both "
        "agree. Observed risk is weighted with each site's own curve of censoring.",
    )
    at = figure_horizon(assessment)
    if at is None:
        return "Calibration: no horizon has figures.", caption
    groups = assessment["risk-calibration"]
    pairs = ", ".join(
        f"{risk(predicted)} and {risk(observed)}"
        for predicted, observed in zip(groups["predicted"][at], groups["observed"][at], strict=True)
        if is_known(predicted)
    )
    overall = ratio(groups["ratio"][at], groups["ratio-low"][at], groups["ratio-high"][at])
    horizon = years(assessment["horizons-days"][at])
    return f"Predicted and observed risk by group at year {horizon}: {pairs}. O/E {overall}.", caption


def subgroup_words(assessment: Assessment, thresholds: Thresholds = STUDY) -> tuple[str, str]:
    """Alternative text and caption of the figure of subgroups."""
    told = ", ".join(
        f"{row.name} {c_index(row.figures['c-index']) if row.figures else 'withheld'}"
        for row in subgroup_rows(assessment, thresholds)
    )
    return (
        f"C-index by subgroup: {told}; intervals and O/E are in the table of subgroups.",
        "Does the model serve everybody? C of the pairs within a site and the subgroup, and observed over expected "
        "events, with 95 % intervals.",
    )


def _at_last_horizon(assessment: Assessment, until_days: float) -> str:
    """The curves' values at the last horizon that is shown, if one is."""
    name = "incidence-at-horizons" if assessment["deaths"] else "survival-at-horizons"
    early = [at for at, days in enumerate(assessment["horizons-days"]) if days <= until_days]
    if not early:
        return ""
    values = [_event(group)[early[-1]] for group in assessment[name]["value"]]
    names = group_names(len(values))
    known = [(name, value) for name, value in zip(names, values, strict=True) if is_known(value)]
    told = ", ".join(f"{name} {risk(value)}" for name, value in known)
    kind = "With" if assessment["deaths"] else "Without"
    return f"{kind} the event at year {years(assessment['horizons-days'][early[-1]])}: {told}; "


def _event(group: list[Any]) -> list[Any]:
    """Of an incidence the first cause, the event; of survival the group itself."""
    return group[0] if group and isinstance(group[0], list) else group
