"""What the final evaluation says of the federated model: tables by horizon and by site, and the lines beside them.

In:  the assessment of a study, as in assessment.json (`fedecg.evaluation.assessment_entry`); null is "not defined".
Out: `Grid`s and sentences. Called by `table` (terminal), `html` and `assessment_figures`, so that all say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedecg.evaluation.intervals import FEW_EVENTS
from fedecg.report.disclosure import WITHHELD, is_withheld
from fedecg.report.grid import Grid
from fedecg.report.sites import SiteDisclosure, site_disclosure
from fedecg.report.wording import (
    DASH,
    DAYS_A_YEAR,
    c_index,
    count,
    decimal,
    is_known,
    p_value,
    percent,
    printable,
    ratio,
    risk,
    years,
)

__all__ = [
    "Assessment",
    "cell",
    "compact_horizon_grid",
    "evaluation_lines",
    "figure_horizon",
    "has_horizons",
    "horizon_grid",
    "horizon_notes",
    "log_rank_line",
    "ratio_line",
    "short_line",
    "site_grid",
    "site_notes",
    "slope_line",
    "with_deaths",
    "without_curves",
]

Assessment = Mapping[str, Any]

CURVES = ("survival", "incidence")  # a value a bin: for figures, too long for a summary
SLOPES = "−0.5 to 3"  # where the calibration slope is looked for
DEATHS_NOTE = "Risks are as if nobody died of other causes; the cumulative incidence is lower."
ENOUGH_SITES = 40  # for a prediction interval of nominal coverage: 89 % at 10 sites, 94 % at 40


def without_curves(assessment: Assessment) -> dict[str, Any]:
    """The assessment as summary.json holds it: all but the curves."""
    return {name: value for name, value in assessment.items() if name not in CURVES}


def has_horizons(assessment: Assessment) -> bool:
    """Whether any site contributed at any horizon."""
    return any(is_known(sites) and sites > 0 for sites in assessment["brier"]["sites"])


def figure_horizon(assessment: Assessment) -> int | None:
    """Place of the last horizon at which predicted and observed risk are known, or None."""
    sites = assessment["brier"]["sites"]
    known = [
        at
        for at, number in enumerate(sites)
        if number and _mean_risk(assessment, "predicted", at) is not None
    ]
    return known[-1] if known else None


def horizon_grid(assessment: Assessment, disclosure: SiteDisclosure | None = None) -> Grid:
    """One row a horizon: who contributes, observed against predicted risk, Brier score, AUC.

    Args:
        disclosure: of which sites what is withheld; None = as for a study, decided by the table of sites alone.
    """
    allowed = disclosure or site_disclosure([], assessment)
    brier, auc = assessment["brier"], assessment["auc"]
    return Grid(
        header=(
            "years",
            "patients",
            "sites",
            "events",
            "observed",
            "predicted",
            "O/E (95 % CI)",
            "Brier",
            "scaled",
            "AUC (bounds)",
        ),
        rows=tuple(
            (
                years(days),
                _of_contributors(assessment, brier["patients"][at], brier["sites"][at], allowed),
                _or_dash(brier["sites"][at]),
                count(brier["cases"][at]) if brier["sites"][at] else DASH,
                *_risks(assessment, at),
                decimal(brier["score"][at], 4),
                decimal(brier["scaled"][at], 3),
                c_index(auc["auc"][at], auc["lower"][at], auc["upper"][at]),
            )
            for at, days in enumerate(assessment["horizons-days"])
        ),
        numeric=(False, *(True,) * 9),
    )


def compact_horizon_grid(assessment: Assessment) -> Grid:
    """The same in 80 columns of a terminal."""
    brier, auc = assessment["brier"], assessment["auc"]
    return Grid(
        header=("years", "events", "observed", "predicted", "O/E (95 % CI)", "Brier", "AUC"),
        rows=tuple(
            (
                years(days),
                count(brier["cases"][at]) if brier["sites"][at] else DASH,
                *_risks(assessment, at),
                decimal(brier["score"][at], 4),
                c_index(auc["auc"][at]),
            )
            for at, days in enumerate(assessment["horizons-days"])
        ),
        numeric=(False, *(True,) * 6),
    )


def horizon_notes(assessment: Assessment) -> tuple[str, ...]:
    """What the table by horizon means, and why it has dashes."""
    brier = assessment["brier"]
    lines = [
        f"On the {assessment['part']} part, from sums alone. Observed: weighted with each site's own curve of "
        "censoring. O/E: observed over predicted cases, 1 is right. Scaled Brier score: 0 is no better than "
        "telling everybody the mean risk, 1 is perfect. AUC: cases by the horizon against patients followed "
        "beyond it; its true value lies between the bounds."
    ]
    horizons = list(zip(assessment["horizons-days"], brier["sites"], brier["cases"], strict=True))
    empty = [years(days) for days, sites, _ in horizons if not sites]
    if empty:
        lines.append(
            f"A dash at {_years_list(empty)}: no site had {_least(assessment)} followed beyond that horizon."
        )
    without = [years(days) for days, sites, cases in horizons if sites and not cases]
    if without:
        lines.append(f"No event by {_years_list(without)}: no AUC and no scaled Brier score there.")
    if assessment["deaths"]:
        lines.append(
            f"{_number(assessment['deaths'], 'death')} before the event: counted as censored here, as a "
            f"competing risk in the figure. {DEATHS_NOTE}"
        )
    return tuple(lines)


def site_grid(assessment: Assessment, disclosure: SiteDisclosure | None = None) -> Grid:
    """One row a site, by name: its size and its own C; a star marks few events.

    Args:
        disclosure: of which sites what is withheld; None = as for a study, decided by this table alone.
    """
    allowed = disclosure or site_disclosure([], assessment)
    return Grid(
        header=("site", "patients", "events", "comparable pairs", "C (95 % CI)"),
        rows=tuple(
            (
                printable(name),
                cell(allowed.number_of_patients(name, own["patients"])),
                cell(allowed.number_of_events(name, own["events"])),
                WITHHELD if name in allowed.events else count(own["comparable-within"]),
                WITHHELD if name in allowed.events else _own_c(own),
            )
            for name, own in sorted(assessment["sites"].items())
        ),
        numeric=(False, True, True, True, True),
        total=("all, within sites", *_pooled_cells(assessment["concordance"], allowed)),
    )


def cell(number: int | str) -> str:
    """A number, or the words that stand for it, as text."""
    return number if isinstance(number, str) else count(number)


def site_notes(assessment: Assessment, disclosure: SiteDisclosure | None = None) -> tuple[str, ...]:
    """The random-effects summary of the sites' C, how far to trust it, and what is withheld."""
    allowed = disclosure or site_disclosure([], assessment)
    lines = [_mean_line(assessment["heterogeneity"])]
    told = [own for name, own in assessment["sites"].items() if name not in allowed.events]
    if any(_is_uncertain(own) for own in (*told, assessment["concordance"])):
        lines.append(f"*: fewer than {FEW_EVENTS} events; the interval is narrower than it should be.")
    entered = assessment["heterogeneity"]["sites"] or 0
    if entered > 1:
        lines.append(
            "The mean of sites' C is not the C-index of all patients, nor that of all pairs within sites: it "
            "describes a typical site."
        )
    if 2 < entered < ENOUGH_SITES:
        lines.append(f"With as few as {entered} sites the prediction interval is too narrow.")
    return (*lines, *allowed.notes())


def evaluation_lines(assessment: Assessment, disclosure: SiteDisclosure | None = None) -> tuple[str, ...]:
    """The figures that have no horizon or one of their own, a line each."""
    return (
        _uno_line(assessment, disclosure or site_disclosure([], assessment)),
        _follow_up_line(assessment["follow-up-days"]),
        ratio_line(assessment),
        slope_line(assessment),
        _detectable_line(assessment),
    )


def short_line(assessment: Assessment) -> str:
    """Uno's C, O/E and slope, for a terminal; says where no horizon has figures."""
    uno, whole = assessment["uno"], assessment["hazard-calibration"]
    start = "" if has_horizons(assessment) else "No horizon has figures. "
    return (
        f"{start}Uno's C at {years(uno['tau-days'])} years {c_index(uno['c-index'])}; "
        f"O/E {ratio(whole['ratio'], whole['ratio-low'], whole['ratio-high'])}; slope {_slope(whole)}."
    )


def ratio_line(assessment: Assessment) -> str:
    """Calibration in the large, over the whole follow-up."""
    whole = assessment["hazard-calibration"]
    text = ratio(whole["ratio"], whole["ratio-low"], whole["ratio-high"])
    return (
        f"Calibration in the large, over the whole follow-up: O/E {text}; {_number(whole['events'], 'event')}, "
        f"{decimal(whole['expected'], 1)} expected."
    )


def slope_line(assessment: Assessment) -> str:
    """Calibration slope, or why there is none."""
    return f"Calibration slope, over the whole follow-up: {_slope(assessment['hazard-calibration'])}."


def log_rank_line(assessment: Assessment) -> str:
    """The test between the groups of risk."""
    test = assessment["log-rank-by-site"]
    if not is_known(test["p-value"]):
        return "log-rank test: nothing to compare"
    deaths = "; deaths as censored" if assessment["deaths"] else ""
    return f"log-rank {p_value(test['p-value'])} (stratified by site{deaths})"


def with_deaths(assessment: Assessment, text: str) -> str:
    """The text, and, where deaths before the event are known, what they mean for an absolute risk."""
    return f"{text} {DEATHS_NOTE}" if assessment["deaths"] else text


def _risks(assessment: Assessment, at: int) -> tuple[str, str, str]:
    """Observed and predicted risk of the contributing patients, and their ratio."""
    groups = assessment["risk-calibration"]
    if not assessment["brier"]["sites"][at]:
        return DASH, DASH, DASH
    return (
        risk(_mean_risk(assessment, "observed", at)),
        risk(_mean_risk(assessment, "predicted", at)),
        ratio(groups["ratio"][at], groups["ratio-low"][at], groups["ratio-high"][at]),
    )


def _mean_risk(assessment: Assessment, column: str, at: int) -> float | None:
    """Mean of the groups' risks, weighted by their patients."""
    groups = assessment["risk-calibration"]
    pairs = [
        (patients, value)
        for patients, value in zip(groups["patients"][at], groups[column][at], strict=True)
        if patients and is_known(value)
    ]
    whole = sum(patients for patients, _ in pairs)
    return sum(patients * value for patients, value in pairs) / whole if whole else None


def _pooled_cells(pooled: Mapping[str, Any], allowed: SiteDisclosure) -> tuple[str, ...]:
    patients, events = allowed.total(pooled["patients"]), allowed.total(pooled["events"], "events")
    if is_withheld(patients) or is_withheld(events):
        return cell(patients), cell(events), WITHHELD, WITHHELD
    return (
        count(pooled["patients"]),
        count(pooled["events"]),
        count(pooled["comparable-within"]),
        _own_c(pooled),
    )


def _own_c(own: Mapping[str, Any]) -> str:
    text = c_index(own["stratified"], own["stratified-ci-low"], own["stratified-ci-high"])
    return f"{text}*" if _is_uncertain(own) else text


def _is_uncertain(own: Mapping[str, Any]) -> bool:
    return bool(own["few-events"]) and is_known(own["stratified"])


def _mean_line(effects: Mapping[str, Any]) -> str:
    missing = effects["left-out"]
    left_out = f" {_number(missing, 'site')} without a C or its error left out." if missing else ""
    if not effects["sites"] or not is_known(effects["estimate"]):
        return f"Mean over sites: {DASH}; no site has a C with an interval.{left_out}"
    mean = c_index(effects["estimate"], effects["ci-low"], effects["ci-high"])
    if effects["sites"] == 1:
        return f"One site with a C, {mean}: nothing to say of the spread between sites.{left_out}"
    if is_known(effects["prediction-low"]) and is_known(effects["prediction-high"]):
        further = (
            f"a further site's C is expected in {c_index(effects['prediction-low'])}–"
            f"{c_index(effects['prediction-high'])} (95 % prediction interval)"
        )
    else:
        further = "no prediction interval from fewer than 3 sites"
    return (
        f"Mean over {effects['sites']} sites (random effects): {mean}; {further}; spread between sites: "
        f"tau {decimal(effects['tau'], 2)} on the logit scale, I² {percent(effects['i-squared'])}.{left_out}"
    )


def _of_contributors(
    assessment: Assessment, patients: float | None, sites: float | None, allowed: SiteDisclosure
) -> str:
    """Patients of the sites that contribute; withheld where the total less them would tell of a withheld site."""
    if allowed.patients and sites and sites < len(assessment["sites"]):
        return WITHHELD
    return _or_dash(patients)


def _uno_line(assessment: Assessment, allowed: SiteDisclosure) -> str:
    uno = assessment["uno"]
    until = f"Uno's C up to {years(uno['tau-days'])} years: "
    if not uno["sites"]:
        return f"{until}{DASH}; no site had {_least(assessment)} followed that long."
    patients = _of_contributors(assessment, uno["patients"], uno["sites"], allowed)
    who = f"{patients} patient{'' if uno['patients'] == 1 else 's'}, {_number(uno['events'], 'event')}"
    who = who.replace(f"{WITHHELD} patients", "number of patients withheld")
    if not is_known(uno["c-index"]):
        return f"{until}{DASH}; no comparable pair ({who})."
    return f"{until}{c_index(uno['c-index'])}, within sites {c_index(uno['stratified'])} ({who})."


def _follow_up_line(quartiles_days: Sequence[float | None]) -> str:
    """A quartile that is null was not reached."""
    known = [None if days is None else days / DAYS_A_YEAR for days in quartiles_days]
    low, median, high = (decimal(value, 1) for value in known)
    return f"Median follow-up: {median} years (quartiles {low} and {high}), reverse Kaplan-Meier."


def _slope(whole: Mapping[str, Any]) -> str:
    if is_known(whole["slope"]):
        return ratio(whole["slope"], whole["slope-low"], whole["slope-high"])
    if whole["slope-out-of-range"]:
        return f"outside {SLOPES}"
    return "not given (no events)" if not whole["events"] else "not given (one risk for all)"


def _detectable_line(assessment: Assessment) -> str:
    events, smallest = assessment["concordance"]["events"], assessment["minimal-detectable-difference"]
    if not is_known(smallest["difference"]):
        return f"With {_number(events, 'event')} there is no telling what difference in C could be seen."
    return (
        f"With {_number(events, 'event')} a difference in C below {c_index(smallest['difference'])} could not be "
        "expected to show (80 % power), two models of unrelated risks."
    )


def _least(assessment: Assessment) -> str:
    return _number(max(assessment["min-at-risk"], 1), "patient")


def _years_list(texts: Sequence[str]) -> str:
    return f"{', '.join(texts)} year{'' if list(texts) == ['1'] else 's'}"


def _number(value: float | None, noun: str) -> str:
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"


def _or_dash(value: float | None) -> str:
    return count(value) if value else DASH
