"""Figures of a study: the comparison, the C-index by round, the sites.

In:  the summary and the rounds of a study, as in summary.json and rounds.json; for the files also assessment.json.
Out: matplotlib Figures, drawn without pyplot's global state; the same input gives the same bytes.
     Called by the simulation's runner (files beside the report) and by `html` (inside the report).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from fedecg.files import write_whole
from fedecg.report.assessment import Assessment, cell, figure_horizon
from fedecg.report.assessment_figures import calibration_figure, survival_figure
from fedecg.report.decision import decision_figure, decision_shown
from fedecg.report.disclosure import WITHHELD, thresholds_of
from fedecg.report.findings import CHANCE, Row, Summary, comparison_rows, is_simulated, validation_points
from fedecg.report.look import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LIGHT,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    look,
    new_figure,
    rendered,
    say_nothing_to_show,
)
from fedecg.report.sites import SiteDisclosure, of_study
from fedecg.report.subgroup_figure import subgroup_figure
from fedecg.report.wording import count, is_known, printable, shares

__all__ = ["comparison_figure", "figure_svg", "rounds_figure", "save_figures", "sites_figure"]

SITES_SHOWN = 40  # a row each; a simulation may have thousands, all of which are in the table
LABELS_SHOWN = 6  # of a label mix; the rest is one grey piece
NAME_CHARACTERS = 18

MIX_COLOURS = (BLUE, ORANGE, SKY, VERMILION, GREEN, PURPLE)


def comparison_figure(summary: Summary) -> Figure:
    """Stratified C-index with 95 % interval of every way to train; null columns are left out."""
    rows = [row for row in comparison_rows(summary) if row.stratified.value is not None]
    with look():
        figure, axes = _panel(summary, "C-index on the test part", height_in=1.15 + 0.27 * max(len(rows), 3))
        axes.axvline(CHANCE, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1, label="chance")
        for y, row in enumerate(reversed(rows)):
            _draw_row(axes, y, row)
        axes.set_yticks(range(len(rows)), [row.label for row in reversed(rows)])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(-0.6, max(len(rows), 1) - 0.4)
        axes.set_xlim(*_c_limits(rows))
        axes.set_xlabel("stratified C-index, 95 % CI (dashed line: chance)")
        if not rows:
            say_nothing_to_show(axes, "no model was scored")
    return figure


def rounds_figure(summary: Summary, rounds: Sequence[Mapping[str, Any]]) -> Figure:
    """C-index on the validation part by survival round: stratified line, global line with its bounds."""
    points = validation_points(rounds)
    number = sorted(points)
    stratified, overall, lower, upper = (
        _series([points[rounds_trained].get(name) for rounds_trained in number])
        for name in ("stratified", "global", "lower", "upper")
    )
    with look():
        figure, axes = _panel(summary, "C-index by round, validation part", height_in=3.1)
        axes.set_xlabel("after survival round")
        axes.set_ylabel("C-index")
        if not points:
            say_nothing_to_show(axes, "no round was scored")
            return figure
        axes.axhline(CHANCE, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.fill_between(
            number,
            lower,
            upper,
            color=ORANGE,
            alpha=0.3,
            linewidth=0 if len(number) > 1 else 3,  # one round alone has bounds but no area
            label="global C: guaranteed bounds",
        )
        axes.plot(number, overall, color=VERMILION, linewidth=1.2, linestyle="--", label="global C")
        axes.plot(
            number, stratified, color=BLUE, linewidth=1.8, marker="o", markersize=3.5, label="stratified C"
        )
        _mark_best(axes, summary.get("best-round"), number, stratified)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.margins(y=0.08)
        last = max(number[-1], summary.get("best-round") or 0)
        axes.set_xlim(number[0] - 0.5, last + 0.5)
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def sites_figure(summary: Summary, disclosure: SiteDisclosure | None = None) -> Figure:
    """Patients and events of every site, and, where stated, the mix of labels.

    Args:
        disclosure: of which sites what is withheld; None = decided from the summary alone.
    """
    allowed = disclosure or of_study(summary, None)
    known = summary.get("sites") or []
    sites = list(reversed(_largest(known)))
    mixes = [{} if site["name"] in allowed.patients else _mix(site) for site in sites]
    with look():
        height_in = 1.5 + 0.27 * max(len(sites), 3)
        title = (
            "Sites" if len(sites) == len(known) else f"The {len(sites)} largest of {count(len(known))} sites"
        )
        figure = new_figure(title, height_in, simulated=is_simulated(summary))
        if not sites:
            say_nothing_to_show(figure.add_subplot(), "no sites")
            return figure
        if not any(mixes):
            _draw_sizes(figure.add_subplot(), sites, allowed)
        else:
            sizes, labels = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1))
            _draw_sizes(sizes, sites, allowed)
            _draw_mixes(labels, mixes)
        _name_pieces(figure)
    return figure


def figure_svg(figure: Figure) -> bytes:
    """The figure as SVG, without date or versions."""
    return rendered(figure, "svg", {"Date": None, "Creator": None})


def save_figures(
    summary: Summary,
    rounds: Sequence[Mapping[str, Any]],
    folder: str | Path,
    assessment: Assessment | None = None,
) -> list[Path]:
    """Write every figure as PNG (150 dpi) and SVG.

    Args:
        summary, rounds: as in summary.json and rounds.json.
        folder: made if absent.
        assessment: as in assessment.json; None for a run that has none, which has the first three figures only.
            Calibration and decision curve need a horizon with figures.

    Returns:
        The paths, two a figure.

    Raises:
        RunError: FECG-601.
    """
    figures = {
        "comparison": comparison_figure(summary),
        "rounds": rounds_figure(summary, rounds),
        "sites": sites_figure(summary, of_study(summary, assessment)),
    }
    if assessment is not None:
        simulated = is_simulated(summary)
        figures["survival"] = survival_figure(assessment, simulated=simulated)
        if figure_horizon(assessment) is not None:
            figures["calibration"] = calibration_figure(assessment, simulated=simulated)
        if decision_shown(assessment) is not None:
            figures["decision"] = decision_figure(assessment, simulated=simulated)
        figures["subgroups"] = subgroup_figure(assessment, thresholds_of(summary), simulated=simulated)
    written = []
    for name, figure in figures.items():
        for suffix, content in (
            ("png", rendered(figure, "png", {"Software": None})),
            ("svg", figure_svg(figure)),
        ):
            path = Path(folder) / f"{name}.{suffix}"
            write_whole(path, content)
            written.append(path)
    return written


def _panel(summary: Summary, title: str, height_in: float) -> tuple[Figure, Axes]:
    figure = new_figure(title, height_in, simulated=is_simulated(summary))
    return figure, figure.add_subplot()


def _draw_row(axes: Axes, y: int, row: Row) -> None:
    colour = {"federated": BLUE, "age-sex": GREY, "site-only": GREY}.get(row.key, INK)
    value, low, high = row.stratified.value, row.stratified.low, row.stratified.high
    if value is None:
        return
    if low is not None and high is not None:
        axes.plot([low, high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt", zorder=2)
    filled = row.key != "true-hazard"  # the ceiling is no model: an open mark
    axes.plot(
        [value],
        [y],
        marker="o",
        markersize=6,
        color=colour,
        markerfacecolor=colour if filled else "white",
        linestyle="none",
        label=row.label,
        zorder=3,
    )
    axes.text(
        1.02,
        y,
        f"{value:.3f}",
        va="center",
        color=colour,
        transform=axes.get_yaxis_transform(),
        fontweight="bold" if row.key == "federated" else "normal",
    )


def _c_limits(rows: Sequence[Row]) -> tuple[float, float]:
    known = [CHANCE] + [
        number
        for row in rows
        for number in (row.stratified.value, row.stratified.low, row.stratified.high)
        if number is not None
    ]
    return max(0.0, min(known) - 0.02), min(1.0, max(max(known) + 0.02, 0.6))


def _series(values: Sequence[float | None]) -> list[float]:
    return [value if is_known(value) else math.nan for value in values]


def _mark_best(axes: Axes, best: int | None, number: Sequence[int], stratified: Sequence[float]) -> None:
    if best is None:
        return
    label = f"best round ({best})"
    if best not in number:  # the last weights are judged after the last round
        axes.axvline(best, color=INK, linewidth=1, linestyle=":", label=label)
        return
    axes.plot(
        [best],
        [stratified[number.index(best)]],
        marker="o",
        markersize=9,
        markerfacecolor="none",
        markeredgecolor=INK,
        markeredgewidth=1.4,
        linestyle="none",
        label=label,
        zorder=4,
    )


def _draw_sizes(axes: Axes, sites: Sequence[Mapping[str, Any]], allowed: SiteDisclosure) -> None:
    patients, events = (
        np.array([0 if site["name"] in hidden else site.get(key) or 0 for site in sites], dtype=float)
        for key, hidden in (("patients", allowed.patients), ("events", allowed.events))
    )
    rows = range(len(sites))
    axes.barh(rows, patients, height=0.68, color=LIGHT, label="patients")
    axes.barh(rows, events, height=0.68, color=INK, label="events")
    for y, site in enumerate(sites):
        axes.text(patients[y], y, f" {_sizes(site, allowed)}", va="center", fontsize=8.5)
    axes.set_ylim(-0.6, len(sites) - 0.4)
    axes.set_xlim(0, max(patients.max(), 1) * 1.62)  # room for the numbers
    axes.xaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: count(value))
    axes.set_yticks(rows, [_short(printable(site["name"])) for site in sites])
    _as_plain_text(axes.get_yticklabels())
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("patients / events")


def _largest(sites: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that a figure has room for, in their own order."""
    size = [site.get("patients") or 0 for site in sites]
    kept = sorted(range(len(sites)), key=lambda place: (-size[place], place))[:SITES_SHOWN]
    return [sites[place] for place in sorted(kept)]


def _sizes(site: Mapping[str, Any], allowed: SiteDisclosure) -> str:
    patients = cell(allowed.number_of_patients(site["name"], site.get("patients") or 0))
    events = cell(allowed.number_of_events(site["name"], site.get("events") or 0))
    if site["name"] in allowed.patients:
        return WITHHELD
    return f"{patients} / {events}"


def _draw_mixes(axes: Axes, mixes: Sequence[Mapping[str, float]]) -> None:
    totals: dict[str, float] = {}
    for mix in mixes:
        for label, share in mix.items():
            totals[label] = totals.get(label, 0.0) + share
    shown = sorted(totals, key=lambda label: (-totals[label], label))[:LABELS_SHOWN]
    left = np.zeros(len(mixes))
    for label, colour in zip(shown, MIX_COLOURS, strict=False):
        left += _draw_pieces(axes, left, [mix.get(label, 0.0) for mix in mixes], colour, label)
    if len(totals) > len(shown):
        rest = [sum(share for label, share in mix.items() if label not in shown) for mix in mixes]
        _draw_pieces(axes, left, rest, "#EEEEEE", "other")
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "50", "100 %"])
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("label mix")


def _draw_pieces(
    axes: Axes, left: np.ndarray, widths: Sequence[float], colour: str, label: str
) -> np.ndarray:
    pieces = axes.barh(
        range(len(widths)), widths, left=left, height=0.68, color=colour, edgecolor="white", linewidth=0.8
    )
    pieces.set_label(_short(printable(label)))
    return np.asarray(widths, dtype=float)


def _name_pieces(figure: Figure) -> None:
    # Names are given: a legend that gathers them itself leaves out those with an underscore in front.
    pieces = [bars for axes in figure.axes for bars in axes.containers if isinstance(bars, BarContainer)]
    legend = figure.legend(
        [bars.patches[0] for bars in pieces],
        [str(bars.get_label()) for bars in pieces],
        loc="outside lower center",
        ncols=4,
        columnspacing=1.2,
        handlelength=1.0,
    )
    _as_plain_text(legend.get_texts())


def _mix(site: Mapping[str, Any]) -> dict[str, float]:
    return shares(site.get("label-mix") or {})


def _short(name: str) -> str:
    """Long names keep both ends: sites are often numbered at the end."""
    if len(name) <= NAME_CHARACTERS:
        return name
    return f"{name[: NAME_CHARACTERS - 8]}…{name[-7:]}"


def _as_plain_text(texts: Sequence[Text]) -> None:
    # A dollar sign in a name is a dollar sign, not the start of mathematics.
    for text in texts:
        text.set_parse_math(False)
