"""Figure of the subgroups: C and observed over expected events of each, with intervals, one row a subgroup.

In:  the assessment of a study, as in assessment.json. Out: a matplotlib Figure. Called by `figures` (files) and `html`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from fedecg.evaluation.intervals import FEW_EVENTS
from fedecg.report.assessment import Assessment
from fedecg.report.disclosure import STUDY, WITHHELD, Thresholds
from fedecg.report.look import BLUE, GREY, INK, look, new_figure, say_nothing_to_show
from fedecg.report.subgroups import SubgroupRow, subgroup_rows
from fedecg.report.wording import DASH, is_known

__all__ = ["subgroup_figure"]

# O/E on a logarithmic axis: half as many events as expected is as wrong as twice as many.
RATIO_TICKS = (0.1, 0.3, 1.0, 3.0, 10.0)
RATIO_ENDS = (0.08, 12.5)  # an interval that goes on beyond them has an arrow


def subgroup_figure(assessment: Assessment, thresholds: Thresholds = STUDY, *, simulated: bool) -> Figure:
    """A row a subgroup: C of its pairs within sites, O/E; open marks where events are few, a word where suppressed."""
    rows = subgroup_rows(assessment, thresholds)
    with look():
        figure = new_figure("Subgroups", 1.35 + 0.25 * max(len(rows), 3), simulated=simulated)
        if not rows:
            say_nothing_to_show(figure.add_subplot(), "no subgroups were asked for")
            return figure
        concordance, calibration = figure.subplots(1, 2, sharey=True)
        _draw(concordance, rows, ("c-index", "ci-low", "ci-high"), (0.0, 1.0))
        concordance.axvline(0.5, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        concordance.set(xlim=(0, 1), xlabel="C, 95 % CI (dashed: chance)")
        concordance.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
        calibration.set_xscale("log")
        _draw(calibration, rows, ("ratio", "ratio-low", "ratio-high"), RATIO_ENDS)
        calibration.axvline(1.0, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        calibration.set(xlim=RATIO_ENDS, xlabel="O/E, 95 % CI (dashed: right)")
        calibration.xaxis.set_major_locator(FixedLocator(RATIO_TICKS))
        calibration.xaxis.set_minor_locator(NullLocator())
        calibration.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        concordance.set_ylim(len(rows) - 0.4, -0.6)
        concordance.set_yticks(range(len(rows)), [row.name for row in rows])
        for axes in (concordance, calibration):
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
        if any(row.figures is not None and row.figures["few-events"] for row in rows):
            concordance.set_title(
                f"open: fewer than {FEW_EVENTS} events", loc="left", fontsize=8.5, color=GREY
            )
    return figure


def _draw(axes: Axes, rows: Sequence[SubgroupRow], names: Sequence[str], ends: tuple[float, float]) -> None:
    for y, row in enumerate(rows):
        if row.figures is None:
            _write(axes, y, WITHHELD)
        elif not is_known(row.figures[names[0]]):
            _write(axes, y, DASH)
        else:
            _draw_interval(axes, y, [row.figures[name] for name in names], ends, row.figures["few-events"])


def _write(axes: Axes, y: int, text: str) -> None:
    patch = {
        "facecolor": "white",
        "edgecolor": "none",
        "pad": 1.5,
    }  # else the dashed line strikes the word out
    transform = axes.get_yaxis_transform()
    axes.text(0.5, y, text, color=GREY, bbox=patch, transform=transform, va="center", ha="center")


def _draw_interval(
    axes: Axes, y: int, estimate: Sequence[Any], ends: tuple[float, float], few_events: bool
) -> None:
    value, low, high = estimate
    if is_known(low) and is_known(high):
        axes.plot(
            _within((low, high), ends), [y, y], color=INK, linewidth=1.4, solid_capstyle="butt", zorder=2
        )
        beyond = [
            (end, mark)
            for end, mark, out in zip(ends, "<>", (low < ends[0], high > ends[1]), strict=True)
            if out
        ]
        for end, mark in beyond:
            axes.plot([end], [y], marker=mark, markersize=4, color=INK, clip_on=False)
    axes.plot(
        _within((value,), ends),
        [y],
        marker="o",
        markersize=5.5,
        linestyle="none",
        color=BLUE,
        markerfacecolor="white" if few_events else BLUE,
        clip_on=False,
        zorder=3,
    )


def _within(values: Sequence[float], ends: tuple[float, float]) -> list[float]:
    return [min(max(value, ends[0]), ends[1]) for value in values]
