"""The flow of a cohort as a picture: boxes as in CONSORT and STROBE.

In:  the document of a flow (`fedecg.cohort.flow.flow_document`, or `flow_outside`). Out: a .pdf, .svg or .png; the same
     document gives the same bytes. Called by `fedecg cohort build` and `fedecg cohort flow --figure`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from fedecg.cohort.flow import SCHEMA, outcome_texts
from fedecg.files import write_whole
from fedecg.report.look import BLUE, GREY, INK, LIGHT, look, rendered

__all__ = ["draw_flow", "write_flow_figure"]

WIDTH_IN = 6.6
LINE_IN, PAD_IN, GAP_IN = 0.165, 0.09, 0.17  # of a line of text, around it, between boxes
TRUNK = (0.08, 2.72)  # left edge and width of the boxes of who remains, in
SIDE = (3.12, 3.40)  # of who left
MIDDLE = TRUNK[0] + TRUNK[1] / 2
TOP_IN, FOOT_IN = 0.42, 0.16  # above the first box, of a line below the last
TRUNK_LETTERS, SIDE_LETTERS, END_LETTERS = 38, 50, 28
NO_DATE = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
FAINT = "#F3F5F7"


def write_flow_figure(document: Mapping[str, Any], path: Path) -> None:
    """Write the picture; the kind is that of the path's ending.

    Raises:
        RunError: FECG-601 the file cannot be written.
    """
    write_whole(path, rendered(draw_flow(document), path.suffix.removeprefix("."), NO_DATE[path.suffix]))


def draw_flow(document: Mapping[str, Any]) -> Figure:
    """Who was there, who left at each rule, the cohort, and what became of it."""
    steps = [(_lines(step), step) for step in document["steps"]]
    start = textwrap.wrap(
        f"Patients with an ECG: {_said(document['patients'])} ({_said(document['ecgs'])} ECGs)", TRUNK_LETTERS
    )
    ends, foot = _ends(document), _foot(document)
    told = sum(_is_told(step) for _, step in steps[:-1])
    middle = sum(GAP_IN + _height(lines) for lines, _ in steps) + told * (GAP_IN + _height([""]))
    below = GAP_IN + _height(["", ""]) + GAP_IN + _height(ends[0]) + 0.2 + FOOT_IN * len(foot)
    total = TOP_IN + _height(start) + middle + GAP_IN + below
    with look():
        figure = Figure(figsize=(WIDTH_IN, total))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, WIDTH_IN), ylim=(total, 0))
        axes.set_axis_off()
        axes.text(TRUNK[0], TOP_IN / 2, _heading(document), fontsize=10, weight="bold", va="center")
        y = trunk = _box(axes, TRUNK, TOP_IN, start)
        for number, (lines, step) in enumerate(steps):
            y = _left(axes, y + GAP_IN, lines, empty=not _is_told(step))
            if _is_told(step) and number < len(steps) - 1:
                _arrow(axes, (MIDDLE, trunk), (MIDDLE, y + GAP_IN))
                y = trunk = _box(axes, TRUNK, y + GAP_IN, [f"{_said(step['remaining'])} remain"])
        _outcomes(axes, trunk, y + GAP_IN, document, ends)
        for number, line in enumerate(reversed(foot)):
            axes.text(TRUNK[0], total - 0.1 - FOOT_IN * number, line, fontsize=7.5, color=GREY, va="bottom")
    return figure


def _is_told(step: Mapping[str, Any]) -> bool:
    """Whether anybody left, so that it is said how many remain."""
    return bool(step["left"] != 0)


def _heading(document: Mapping[str, Any]) -> str:
    inside = document["schema"] == SCHEMA
    return "Flow of patients" + ("" if inside else ", small counts merged or withheld")


def _left(axes: Axes, top: float, lines: Sequence[str], *, empty: bool) -> float:
    """Who left at one rule, beside the trunk; returns the lower edge."""
    bottom = _box(axes, SIDE, top, lines, faint=empty)
    _arrow(axes, (MIDDLE, (top + bottom) / 2), (SIDE[0], (top + bottom) / 2))
    return bottom


def _outcomes(
    axes: Axes, trunk: float, top: float, document: Mapping[str, Any], ends: Sequence[Sequence[str]]
) -> None:
    """The cohort, reached from the trunk's last box, and what became of it."""
    median = document["median_follow_up_days"]
    said = f"{median:,.0f} days" if isinstance(median, float) else _said(median)
    _arrow(axes, (MIDDLE, trunk), (MIDDLE, top))
    wide = (TRUNK[0], WIDTH_IN - 2 * TRUNK[0])
    words = [
        f"{document['title'].capitalize()}: {_said(document['cohort'])} patients",
        f"median follow-up {said}",
    ]
    y = _box(axes, wide, top, words, strong=True)
    width = (wide[1] - 2 * GAP_IN) / 3
    for number, lines in enumerate(ends):
        left = wide[0] + number * (width + GAP_IN)
        _arrow(axes, (left + width / 2, y), (left + width / 2, y + GAP_IN))
        _box(axes, (left, width), y + GAP_IN, lines)


def _box(
    axes: Axes,
    across: tuple[float, float],
    top: float,
    lines: Sequence[str],
    *,
    faint: bool = False,
    strong: bool = False,
) -> float:
    """A box with text; returns its lower edge."""
    left, width = across
    height = _height(lines)
    axes.add_patch(
        FancyBboxPatch(
            (left, top), width, height,
            boxstyle="round,pad=0,rounding_size=0.04",
            linewidth=1.4 if strong else 0.8,
            edgecolor=LIGHT if faint else BLUE if strong else INK,
            facecolor=FAINT if faint else "white",
        )
    )  # fmt: skip
    axes.text(
        left + 0.09,
        top + height / 2,
        "\n".join(lines),
        fontsize=8,
        va="center",
        linespacing=1.25,
        color=GREY if faint else INK,
        weight="bold" if strong else "normal",
        parse_math=False,
    )
    return top + height


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    arrow = {
        "arrowstyle": "-|>",
        "color": INK,
        "linewidth": 0.8,
        "shrinkA": 0,
        "shrinkB": 0,
        "mutation_scale": 8,
    }
    axes.annotate("", xy=end, xytext=start, arrowprops=arrow)


def _lines(step: Mapping[str, Any]) -> list[str]:
    """Who left, each merged rule in a line of its own."""
    reasons = str(step["text"]).split("; ")
    if len(reasons) == 1:
        return textwrap.wrap(f"{_said(step['left'])} left: {reasons[0]}", SIDE_LETTERS)
    lines = [f"{_said(step['left'])} left for any of:"]
    for reason in reasons:
        lines += textwrap.wrap(reason, SIDE_LETTERS - 2, initial_indent="– ", subsequent_indent="   ")
    return lines


def _ends(document: Mapping[str, Any]) -> list[list[str]]:
    """The three outcomes, of as many lines each."""
    texts = outcome_texts(document)
    ends = [textwrap.wrap(f"{text}: {_said(document[key])}", END_LETTERS) for key, text in texts.items()]
    longest = max(map(len, ends))
    return [[*lines, *[""] * (longest - len(lines))] for lines in ends]


def _foot(document: Mapping[str, Any]) -> list[str]:
    """Parts where they are counted, and what is withheld where something may be."""
    parts = [
        f"{one['part']} {_said(one['patients'])} (events: {_said(one['events'])})"
        for one in document["parts"]
        if not one["fold"]
    ]
    folds = max((one["fold"] for one in document["parts"]), default=0)
    words = [f"Parts: {', '.join(parts)}."] * bool(parts) + [f"Test parts: {folds} folds."] * bool(folds)
    if document["schema"] != SCHEMA:
        least = document["thresholds"]
        words.append(
            f"Rules by which fewer than {least['patients']} patients left are counted together; "
            f"fewer than {least['patients']} patients or {least['events']} events are not shown."
        )
    return [line for text in words for line in textwrap.wrap(text, 104)]


def _height(lines: Sequence[str]) -> float:
    return LINE_IN * len(lines) + 2 * PAD_IN


def _said(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
