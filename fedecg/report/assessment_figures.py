"""Figures of the final evaluation: survival by group of risk, and predicted against observed risk.

In:  the assessment of a study, as in assessment.json.
Out: matplotlib Figures; the same input gives the same bytes. Called by `figures` (files) and `html`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from fedecg.evaluation.intervals import NORMAL_975
from fedecg.report.assessment import Assessment, figure_horizon, log_rank_line, slope_line
from fedecg.report.look import (
    BLUE,
    GREEN,
    GREY,
    INK,
    PURPLE,
    VERMILION,
    WIDTH_IN,
    look,
    new_figure,
    say_nothing_to_show,
)
from fedecg.report.wording import DAYS_A_YEAR, count, ratio, years

__all__ = [
    "LAST_SHARE",
    "LEAST_AT_RISK",
    "Curves",
    "Shown",
    "calibration_figure",
    "group_names",
    "shown",
    "shown_curves",
    "survival_figure",
    "year_ticks",
]

LEAST_AT_RISK = 20  # in the smallest group; behind that a curve is noise
LAST_SHARE = 0.05  # of all patients, where a group is smaller than that from the start
AT_RISK_PT = 10  # on a phone of 390 px a point is a pixel
LABEL_GAP = 0.07  # between names beside the curves, as a share of the axes' height
CALIBRATION_IN = 4.8  # height of the figure
SQUARE = (0.16, 1.0 / CALIBRATION_IN, 0.64, 0.64 * WIDTH_IN / CALIBRATION_IN)  # of the figure
STEP = 0.05  # the risk axis ends at a multiple of it

# Lowest risk first. In grey the strokes tell the groups apart.
COLOURS = (BLUE, GREEN, VERMILION, PURPLE, INK)
STROKES = ("-.", "--", "-", ":", (0, (5, 1, 1, 1, 1, 1)))

Float64 = NDArray[np.float64]


class Curves(NamedTuple):
    """Curves as they are drawn: E edges (years), G groups, lowest risk first.

    Attributes:
        edges_years: (E,) from 0.
        value, low, high: (G, E) from that edge on, with its 95 % interval.
        at_risk: (G, E) patients.
    """

    edges_years: Float64
    value: Float64
    low: Float64
    high: Float64
    at_risk: Float64


def survival_figure(assessment: Assessment, *, simulated: bool) -> Figure:
    """Kaplan-Meier by group of risk with 95 % bands and numbers at risk; with deaths, cumulative incidence."""
    deaths = bool(assessment["deaths"])
    curves = shown_curves(assessment)
    groups = [group for group in range(len(curves.at_risk)) if curves.at_risk[group, :1].sum() > 0]
    title = "Cumulative incidence by group of risk" if deaths else "Survival by group of risk"
    with look():
        figure = new_figure(title, 2.95 + 0.22 * max(len(groups), 1), simulated=simulated)
        if not groups:
            say_nothing_to_show(figure.add_subplot(), "no patients were evaluated")
            return figure
        heights = (2.3, 0.22 * (len(groups) + 1))
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=heights)
        names = group_names(len(curves.at_risk))
        for group in groups:
            _draw_curve(axes, curves, group, names[group])
        _set_axes(axes, curves, deaths)
        _name_curves(axes, curves, groups, names)
        _write_numbers_at_risk(below, curves, groups, names)
        axes.set_title(log_rank_line(assessment), loc="left", fontsize=8.5, color=GREY)
    return figure


def calibration_figure(assessment: Assessment, *, simulated: bool) -> Figure:
    """Observed against predicted risk by group at the last horizon that has figures, with 95 % intervals."""
    at = figure_horizon(assessment)
    with look():
        figure = new_figure("Calibration", CALIBRATION_IN, simulated=simulated)
        figure.set_layout_engine("none")  # constrained layout leaves gaps around a square panel
        axes = figure.add_axes(SQUARE)
        if at is None:
            say_nothing_to_show(axes, "no horizon has figures")
            return figure
        groups = assessment["risk-calibration"]
        columns = (_floats(groups[name][at]) for name in ("predicted", "observed", "observed-se"))
        top = _draw_groups(axes, *columns)
        axes.plot([0, top], [0, top], color=GREY, linewidth=1, linestyle=(0, (4, 3)), label="equal")
        ticks = [tick for tick in MaxNLocator(6).tick_values(0, top) if 0 <= tick <= top]
        axes.set(xlim=(0, top), ylim=(0, top), xticks=ticks, yticks=ticks)
        horizon = years(assessment["horizons-days"][at])
        for axis, kind in ((axes.xaxis, "predicted"), (axes.yaxis, "observed")):
            axis.set_major_formatter(_as_percent)
            axis.set_label_text(f"{kind} risk at {horizon} year{'' if horizon == '1' else 's'}")
        overall = ratio(groups["ratio"][at], groups["ratio-low"][at], groups["ratio-high"][at])
        _write_below(figure, f"O/E at this horizon: {overall}.\n{slope_line(assessment)}")
    return figure


def group_names(groups: int) -> tuple[str, ...]:
    """Names of groups, lowest risk first."""
    few = {1: ("all",), 2: ("low", "high"), 3: ("low", "middle", "high")}
    ends = {1: "1 (low)", groups: f"{groups} (high)"}
    return few.get(groups) or tuple(ends.get(number, str(number)) for number in range(1, groups + 1))


class Shown(NamedTuple):
    """How far the curves are shown.

    Attributes:
        until_days: the last edge.
        smallest_group: the rule is the smallest group's; otherwise the share of all patients.
    """

    until_days: float
    smallest_group: bool


def shown(edges_days: ArrayLike, at_risk: ArrayLike) -> Shown:
    """How far the curves are shown: to the last edge with 20 at risk in the smallest group that has anybody.

    Where that is within a year (small studies), to the last edge that 5 % of all patients reach.

    Args:
        edges_days: (B,) left edges of the bins.
        at_risk: (G, B) patients at risk at each edge.
    """
    edges, patients = _floats(edges_days), _floats(at_risk)
    present = patients[patients[:, 0] > 0]
    if not present.size:
        return Shown(0.0, False)
    limit = _last_edge(edges, np.asarray((present >= LEAST_AT_RISK).all(axis=0)))
    if limit >= DAYS_A_YEAR:
        return Shown(limit, True)
    everybody = patients.sum(axis=0)
    limit = _last_edge(edges, everybody >= LAST_SHARE * max(everybody[0], 1))
    return Shown(max(limit, float(edges[min(1, edges.size - 1)])), False)


def _last_edge(edges: Float64, fulfilled: NDArray[np.bool_]) -> float:
    return float(edges[fulfilled].max()) if fulfilled.any() else 0.0


def shown_curves(assessment: Assessment) -> Curves:
    """The curves up to where they are shown: survival, or, where deaths are known, cumulative incidence of the event.

    What assessment.json states after bin b holds at edge b + 1. A group's curve ends (NaN) where nobody of it is at
    risk any more.
    """
    incidence = bool(assessment["deaths"])
    entry = assessment["incidence" if incidence else "survival"]
    at_risk, edges = _floats(entry["at-risk"]), _floats(entry["edges-days"])
    names = ("incidence", "ci-low", "ci-high") if incidence else ("survival", "ci-low", "ci-high")
    columns = [_floats([group[0] for group in entry[name]] if incidence else entry[name]) for name in names]
    early = edges <= shown(edges, at_risk).until_days
    start = 0.0 if incidence else 1.0
    value, low, high = (np.insert(column[:, :-1], 0, start, axis=1)[:, early] for column in columns)
    ended = np.insert(at_risk[:, :-1] <= 0, 0, False, axis=1)[
        :, early
    ]  # behind the last patient of the group
    value, low, high = (np.where(ended, np.nan, column) for column in (value, low, high))
    return Curves(edges[early] / DAYS_A_YEAR, value, low, high, at_risk[:, early])


def year_ticks(curves: Curves) -> Float64:
    """(t,) whole years, as many as their numbers at risk leave room for; quarters where follow-up is short."""
    last, widest = float(curves.edges_years[-1]), len(count(float(curves.at_risk.max())))
    room = 9 if widest < 5 else 6
    step = next((step for step in (0.25, 0.5, 1, 2, 5, 10, 20) if last / step < room), 50)
    return np.arange(0, last + 1e-9, step if last < 2 else max(step, 1))


def _draw_curve(axes: Axes, curves: Curves, group: int, name: str) -> None:
    colour = COLOURS[group % len(COLOURS)]
    axes.fill_between(
        curves.edges_years,
        curves.low[group],
        curves.high[group],
        step="post",
        color=colour,
        alpha=0.18,
        linewidth=0,
    )
    axes.step(
        curves.edges_years,
        curves.value[group],
        where="post",
        color=colour,
        linewidth=1.6,
        linestyle=STROKES[(group + group // len(COLOURS)) % len(STROKES)],
        label=name,
    )


def _set_axes(axes: Axes, curves: Curves, deaths: bool) -> None:
    last = float(curves.edges_years[-1])
    axes.set_xlim(0, last)
    axes.set_xticks(year_ticks(curves))
    axes.yaxis.set_major_formatter(_as_percent)
    axes.tick_params(axis="x", labelbottom=True)
    axes.set_xlabel("years since the ECG")
    if deaths:
        highest = np.nanmax(curves.high, initial=0.0)
        axes.set_ylim(0, min(1.0, STEP * max(1, np.ceil(highest / STEP))))
        axes.set_ylabel("with the event")
        return
    lowest = float(np.nanmin(curves.low, initial=1.0))
    bottom = STEP * min(np.floor(lowest / STEP), 1 / STEP - 1)
    axes.set_ylim(bottom, 1)
    axes.set_ylabel("without the event" if bottom == 0 else f"without the event (from {_as_percent(bottom)})")


def _name_curves(axes: Axes, curves: Curves, groups: Sequence[int], names: Sequence[str]) -> None:
    """Names at the curves' ends, moved apart where they would overlap."""
    bottom, top = axes.get_ylim()
    ends = {group: (_last_known(curves.value[group]) - bottom) / (top - bottom) for group in groups}
    ordered = sorted(groups, key=lambda group: (ends[group], group))
    heights = _apart([ends[group] for group in ordered])
    for group, height in zip(ordered, heights, strict=True):
        axes.text(
            1.015,
            height,
            names[group],
            va="center",
            color=COLOURS[group % len(COLOURS)],
            fontweight="bold",
            transform=axes.transAxes,
        )


def _apart(heights: Sequence[float]) -> list[float]:
    """Rising heights within 0..1, at least `LABEL_GAP` apart."""
    moved = []
    floor = 0.0
    for height in heights:
        moved.append(max(height, floor))
        floor = moved[-1] + LABEL_GAP
    ceiling = 1.0
    for at in reversed(range(len(moved))):
        moved[at] = min(moved[at], ceiling)
        ceiling = moved[at] - LABEL_GAP
    return moved


def _write_numbers_at_risk(axes: Axes, curves: Curves, groups: Sequence[int], names: Sequence[str]) -> None:
    """Patients at risk at the ticks: those of the bin that holds the day. Highest risk on top."""
    rows = list(reversed(groups))
    for row, group in enumerate(rows):
        for year in year_ticks(curves):
            at = int(np.searchsorted(curves.edges_years, year + 1e-9, side="right")) - 1
            axes.text(
                year, row, count(curves.at_risk[group, at]), ha="center", va="center", fontsize=AT_RISK_PT
            )
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [names[group] for group in rows])
    for label, group in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_color(COLOURS[group % len(COLOURS)])
    axes.set_title("patients at risk", loc="left", fontsize=AT_RISK_PT, color=GREY, pad=2)
    widest = len(count(float(curves.at_risk.max())))
    axes.tick_params(length=0, labelbottom=False)
    axes.tick_params(axis="y", pad=5 + 3.4 * widest)  # beside the first number, which is centred at year 0
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_groups(axes: Axes, predicted: Float64, observed: Float64, se: Float64) -> float:
    """Draw the groups that have patients; returns where both axes end."""
    known = np.isfinite(predicted) & np.isfinite(observed)
    spread = known & (se > 0)  # not where nobody, or everybody, was a case
    margin = NORMAL_975 * np.where(spread, se, 0.0)
    low, high = np.maximum(observed - margin, 0), np.minimum(observed + margin, np.maximum(observed, 1))
    axes.vlines(predicted[spread], low[spread], high[spread], color=BLUE, linewidth=1.4, label="95 % CI")
    kinds = ((spread, BLUE, "groups"), (known & ~spread, "white", "no interval"))
    for chosen, face, label in (kind for kind in kinds if kind[0].any()):
        axes.plot(
            predicted[chosen],
            observed[chosen],
            marker="o",
            markersize=5,
            linestyle="none",
            color=BLUE,
            markerfacecolor=face,
            clip_on=False,
            label=label,
            zorder=3,
        )
    if (known & ~spread).any():
        note = "open: no interval (none or all had the event)"
        axes.set_title(note, loc="left", fontsize=8.5, color=GREY)
    highest = float(np.max([predicted[known], high[known]]))
    return 1.06 * highest if highest > 0 else 1.0


def _write_below(figure: Figure, text: str) -> None:
    figure.text(0.012, 0.015, text, ha="left", va="bottom", fontsize=8.5, color=GREY)


def _last_known(values: Float64) -> float:
    known = values[np.isfinite(values)]
    return float(known[-1]) if known.size else 0.0


def _as_percent(value: float, _: object = None) -> str:
    return f"{100 * value:.3g} %"


def _floats(values: ArrayLike | None) -> Float64:
    """An array in which null is NaN."""
    return np.array(values, dtype=np.float64)
