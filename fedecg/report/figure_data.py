"""The data of every figure as CSV, no finer than what the figure shows.

In:  the summary, the rounds and the assessment of a study. Out: CSV text, and links that hold it. Called by `html`.

A cell of text that a spreadsheet would take for a formula (it begins with = + - @) gets a quotation mark in front;
numbers stay numbers, and what is not known is an empty cell. Sites and subgroups pass the same disclosure control as
the page.
"""

from __future__ import annotations

import base64
import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from fedecg.evaluation.intervals import NORMAL_975
from fedecg.report.assessment import Assessment, figure_horizon
from fedecg.report.assessment_figures import group_names, shown_curves, year_ticks
from fedecg.report.decision import decision_shown
from fedecg.report.disclosure import STUDY, WITHHELD, Thresholds
from fedecg.report.findings import Summary, comparison_rows, validation_points
from fedecg.report.sites import SiteDisclosure, of_study
from fedecg.report.subgroups import subgroup_rows
from fedecg.report.wording import DAYS_A_YEAR, is_known, printable, shares

__all__ = [
    "calibration_csv",
    "comparison_csv",
    "csv_link",
    "csv_text",
    "decision_csv",
    "rounds_csv",
    "sites_csv",
    "subgroups_csv",
    "survival_csv",
]

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
DIGITS = 6  # significant

Cell = str | float | None


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """One table as CSV (RFC 4180): header, rows, CRLF.

    Args:
        header: names of the columns.
        rows: text, numbers, or None (also NaN and infinity) for an empty cell.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerows([[_cell(cell) for cell in row] for row in (header, *rows)])
    return file.getvalue()


def csv_link(text: str) -> str:
    """An address that holds the CSV itself; with a byte order mark, by which spreadsheets know UTF-8."""
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(("\ufeff" + text).encode()).decode()


def comparison_csv(summary: Summary) -> str:
    """Both C-indices of every way to train, with intervals."""
    header = (
        "model",
        "stratified-c",
        "stratified-ci-low",
        "stratified-ci-high",
        "global-c",
        "ci-low",
        "ci-high",
    )
    rows = [
        (
            row.label,
            *(row.stratified.value, row.stratified.low, row.stratified.high),
            *(row.overall.value, row.overall.low, row.overall.high),
        )
        for row in comparison_rows(summary)
    ]
    return csv_text(header, rows)


def rounds_csv(rounds: Sequence[Mapping[str, Any]]) -> str:
    """C-index on the validation part by survival round, with the bounds of the global one."""
    names = ("stratified", "global", "lower", "upper")
    points = validation_points(rounds)
    return csv_text(
        ("survival-round", *names),
        [(number, *(points[number].get(name) for name in names)) for number in sorted(points)],
    )


def sites_csv(summary: Summary, disclosure: SiteDisclosure | None = None) -> str:
    """Patients, events and, where stated, the share of each label, by site, after disclosure control."""
    allowed = disclosure or of_study(summary, None)
    sites = summary.get("sites") or []
    mixes = [
        {} if site["name"] in allowed.patients else shares(site.get("label-mix") or {}) for site in sites
    ]
    labels = list(dict.fromkeys(label for mix in mixes for label in mix))
    return csv_text(
        ("site", "patients", "events", *(f"share {label}" for label in labels)),
        [
            (
                str(site["name"]),
                _number(site.get("patients"), partial(allowed.number_of_patients, site["name"])),
                _number(site.get("events"), partial(allowed.number_of_events, site["name"])),
                *(mix.get(label) for label in labels),
            )
            for site, mix in zip(sites, mixes, strict=True)
        ],
    )


def _number(value: Any, allowed: Callable[[int], int | str]) -> Cell:
    return allowed(round(value)) if is_known(value) else None


def survival_csv(assessment: Assessment) -> str:
    """The curves by group of risk; patients at risk where the figure says them."""
    curves = shown_curves(assessment)
    names = group_names(len(curves.at_risk))
    told = {int(np.searchsorted(curves.edges_years, year + 1e-9, "right")) - 1 for year in year_ticks(curves)}
    value = "incidence" if assessment["deaths"] else "survival"
    rows = [
        (
            name,
            float(curves.edges_years[at]),
            *(float(column[group, at]) for column in (curves.value, curves.low, curves.high)),
            float(curves.at_risk[group, at]) if at in told else None,
        )
        for group, name in enumerate(names)
        for at in range(curves.edges_years.size)
        if curves.at_risk[group, 0] > 0 and is_known(curves.value[group, at])
    ]
    return csv_text(("risk-group", "years", value, "ci-low", "ci-high", "at-risk"), rows)


def calibration_csv(assessment: Assessment) -> str:
    """Predicted and observed risk by group, at the horizon of the figure."""
    header = ("years", "group", "predicted", "observed", "ci-low", "ci-high")
    at = figure_horizon(assessment)
    if at is None:
        return csv_text(header, ())
    groups, horizon = assessment["risk-calibration"], assessment["horizons-days"][at] / DAYS_A_YEAR
    columns = (groups[name][at] for name in ("predicted", "observed", "observed-se"))
    return csv_text(
        header,
        [
            (horizon, number, predicted, observed, *_interval(observed, se))
            for number, (predicted, observed, se) in enumerate(zip(*columns, strict=True), start=1)
            if is_known(predicted) and is_known(observed)
        ],
    )


def decision_csv(assessment: Assessment) -> str:
    """Net benefit, in true positives a patient, by threshold, at the horizon of the figure."""
    header = ("years", "threshold", "model", "treat-all", "treat-nobody")
    curve = decision_shown(assessment)
    if curve is None:
        return csv_text(header, ())
    columns = (curve.thresholds.tolist(), curve.model.tolist(), curve.treat_all.tolist())
    return csv_text(header, [(float(curve.years), *values, 0) for values in zip(*columns, strict=True)])


def subgroups_csv(assessment: Assessment, thresholds: Thresholds = STUDY) -> str:
    """C and O/E of every subgroup, after disclosure control."""
    names = ("c-index", "ci-low", "ci-high", "ratio", "ratio-low", "ratio-high")
    rows = [
        (
            row.name,
            row.patients,
            row.events,
            *((row.figures[name] for name in names) if row.figures else (WITHHELD,) * len(names)),
        )
        for row in subgroup_rows(assessment, thresholds)
    ]
    return csv_text(("subgroup", "patients", "events", *names), rows)


def _interval(observed: float, se: float | None) -> tuple[float | None, float | None]:
    """As drawn: within 0 and 1, none where nobody or everybody was a case."""
    if not (is_known(se) and se > 0):
        return None, None
    return max(observed - NORMAL_975 * se, 0.0), min(observed + NORMAL_975 * se, max(observed, 1.0))


def _cell(value: Cell) -> str:
    if isinstance(value, str):
        text = printable(value)
        return f"'{text}" if value.startswith(FORMULA_STARTS) else text
    if value is None or not math.isfinite(value):
        return ""
    return str(value) if isinstance(value, int) else f"{value:.{DIGITS}g}"
