"""One look for all figures: sizes, colours that all kinds of sight tell apart, fonts, and files without a date.

Called by `figures` and `assessment_figures` and by the grids of the simulations.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "INK",
    "LIGHT",
    "ORANGE",
    "PURPLE",
    "SKY",
    "VERMILION",
    "WIDTH_IN",
    "look",
    "new_figure",
    "rendered",
    "say_nothing_to_show",
]

WIDTH_IN = 5.0  # narrow on purpose: at 390 px the text is still about 9 px high
PNG_DPI = 150

# Okabe & Ito 2008: distinct for all common kinds of colour blindness.
BLUE, ORANGE, GREEN, SKY, VERMILION, PURPLE = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#56B4E9",
    "#D55E00",
    "#CC79A7",
)
INK, GREY, LIGHT = "#222222", "#6B6B6B", "#C9CED3"

STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so the same everywhere
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "fedecg",  # ids in the SVG would be random without it
}


@contextmanager
def look() -> Iterator[None]:
    """Draw inside: "default" first, since a matplotlibrc on someone's machine must not change a report."""
    with matplotlib.style.context(["default", STYLE]):
        yield


def new_figure(title: str, height_in: float, *, simulated: bool) -> Figure:
    """An empty figure with its title, labelled where the outcomes are simulated; to be drawn within `look`."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    figure.suptitle(title, x=0.012, ha="left", fontsize=10, fontweight="bold")
    if simulated:
        figure.text(0.988, 0.98, "SIMULATED outcomes", ha="right", va="top", fontsize=8.5, color=VERMILION)
    return figure


def say_nothing_to_show(axes: Axes, text: str) -> None:
    """Say in the middle of empty axes why they are empty."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color=GREY, transform=axes.transAxes)


def rendered(figure: Figure, kind: str, metadata: dict[str, None]) -> bytes:
    """The bytes of a figure's file.

    Args:
        kind: "png" or "svg". metadata: entries of the file to leave out (None), such as its date.
    """
    buffer = io.BytesIO()
    with look():
        figure.savefig(buffer, format=kind, dpi=PNG_DPI, metadata=metadata)
    return buffer.getvalue()
