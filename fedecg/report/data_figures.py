"""Pictures of a site's data, drawn from the numbers that the page shows and from nothing else.

In:  rows of labels and numbers, some withheld; survival at years. Out: Figures. Called by `data_report`.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from fedecg.report.look import BLUE, GREY, look, new_figure
from fedecg.report.wording import count, printable

__all__ = ["bars_figure", "survival_steps_figure"]

Cell = int | str


def bars_figure(unit: str, rows: Sequence[tuple[str, Cell]]) -> Figure:
    """A bar a row, from the top; the word of a withheld one in its place.

    Args:
        unit: what is counted. rows: label, number or word; one of them a number above 0.
    """
    with look():
        figure = new_figure("", 0.7 + 0.26 * max(len(rows), 2), simulated=False)
        axes = figure.add_subplot()
        widest = max(number for _, number in rows if isinstance(number, int))
        for place, (_, number) in enumerate(rows):
            shown = number if isinstance(number, int) else 0
            axes.barh(place, shown, color=BLUE, height=0.7)
            text = count(number) if isinstance(number, int) else number
            axes.annotate(
                text,
                (shown, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=GREY,
            )
        axes.set_yticks(range(len(rows)), [printable(label) for label, _ in rows])
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.set_xlim(0, widest * 1.18)
        axes.set_xlabel(unit)
    return figure


def survival_steps_figure(points: Sequence[tuple[float, float | str]]) -> Figure:
    """Share without the event at the years that are shown, joined by straight lines.

    Args:
        points: years, survival or a word; one of them a survival.
    """
    known = [(0.0, 1.0), *((years, value) for years, value in points if isinstance(value, float))]
    with look():
        figure = new_figure("", 2.4, simulated=False)
        axes = figure.add_subplot()
        years, survival = zip(*known, strict=True)
        axes.plot(years, survival, color=BLUE, marker="o", markersize=3.5, linewidth=1.5)
        for year, value in known[1:]:
            axes.annotate(
                f"{value:.2f}",
                (year, value),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        axes.set(xlabel="years from the ECG", ylabel="share of patients", xlim=(0, max(years) * 1.05))
        axes.set_ylim(max(0.0, min(survival) - 0.1), 1.04)
    return figure
