"""Figures of attention: on ECG paper, across the leads, and the tests of whether it is true.

In:  what `fedecg.explanation` returns, of one ECG or of a group's mean.
Out: matplotlib Figures; captions for tests of many ECGs come from `fedecg.explanation.caption`.
     Called by `explain` and by the study's report.
One hue throughout: darker, or longer, is more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fedecg.explanation import ORDERS, Attention, Deletion, strip_scale
from fedecg.model.lead_maps import STEP_SAMPLES
from fedecg.report.ecg_layout import STANDARD_PAPER, PaperOptions
from fedecg.report.ecg_paper import draw_ecg
from fedecg.report.ecg_traces import STRIP_COLOURS
from fedecg.report.look import BLUE, GREY, INK, LIGHT, SKY, look, new_figure, say_nothing_to_show
from fedecg.report.wording import DASH, printable
from fedecg.signals import LEADS

__all__ = [
    "FaithfulnessFigure",
    "attention_paper",
    "beat_paper",
    "deletion_figure",
    "group_bars_figure",
    "lead_attention_figure",
    "lead_change_figure",
    "occlusion_paper",
]

Float64 = NDArray[np.float64]

EVEN = 1 / len(LEADS)
DARK_FROM = 0.7  # of the scale: from here on numbers on the colour are white
LINES = ((BLUE, "-"), (GREY, ":"), (SKY, "--"))  # one an order; told apart without colour, too


@dataclass(frozen=True, eq=False)
class FaithfulnessFigure:
    """A figure with what stands beside it.

    Attributes:
        figure: as drawn. alternative: the numbers in words. caption: what the tests found.
        name: of the file of its data. data: CSV.
    """

    figure: Figure
    alternative: str
    caption: str
    name: str
    data: str


def attention_paper(
    signal_mv: NDArray[np.float32],
    rate_hz: float,
    attention: Attention,
    *,
    paper: PaperOptions = STANDARD_PAPER,
    footer: str = "no filter",
) -> Figure:
    """The ECG as the network gets it, with the time attention of each lead as a strip under its trace.

    Args:
        signal_mv: (12, samples), mV. rate_hz: of it.
        attention: of this ECG, n = 1. footer: what was filtered.
    """
    # As few pieces as show every step: one a step, unless the steps begin between multiples of 32.
    every = math.gcd(attention.early_samples, STEP_SAMPLES)
    strips = attention.strips()[0, :, ::every]
    return _paper(signal_mv, rate_hz, strips, paper, footer, "time attention")


def occlusion_paper(
    signal_mv: NDArray[np.float32],
    rate_hz: float,
    change: Float64,
    *,
    paper: PaperOptions = STANDARD_PAPER,
    footer: str = "no filter",
) -> Figure:
    """The same paper with strips of how far the log hazard moves when a stretch of a lead is hidden.

    Args:
        change: (12, steps), log hazard.
    """
    moved = np.abs(change)
    return _paper(signal_mv, rate_hz, moved / max(moved.max(), 1e-12), paper, footer, "effect of hiding")


def beat_paper(signal_mv: Float64, rate_hz: float, time: Float64, footer: str = "no filter") -> Figure:
    """A median beat, of one ECG or a group's mean, with the time attention on it.

    Args:
        signal_mv: (12, width), mV, no NaN. rate_hz: of it.
        time: (12, width), attention as a multiple of even attention.
    """
    return _paper(
        signal_mv,
        rate_hz,
        strip_scale(time, float(time.max())),
        PaperOptions("median"),
        footer,
        "time attention",
    )


def lead_attention_figure(attention: Attention, title: str = "Attention across leads") -> Figure:
    """The 12 x 12 matrix (each row's lead attends to the columns) and what each lead receives.

    Args:
        attention: n = 1, of an ECG or a group's mean.
        title: "" where what stands around the figure says it.
    """
    matrix, bars = attention.leads[0], attention.bars[0]
    with look():
        figure = new_figure(title, 6.4, simulated=False)
        if not np.isfinite(matrix).all():
            say_nothing_to_show(figure.add_subplot(), "no ECG")
            return figure
        above, below = figure.subplots(2, 1, height_ratios=(12, 4), sharex=True)
        _draw_matrix(above, matrix)
        below.bar(range(len(LEADS)), 100 * bars, width=0.72, color=BLUE)
        _number_bars(below, bars)
        below.axhline(100 * EVEN, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        below.set_xticks(range(len(LEADS)), LEADS)
        below.tick_params(axis="x", length=0)
        below.set_ylim(0, 100 * max(bars.max(), EVEN) * 1.22)
        below.set_ylabel("received, %")
        below.set_xlabel("attended lead (dashed: even attention, 8.3 %)")
    return figure


def lead_change_figure(
    change: Float64,
    c_loss: Float64 | None = None,
    interval: tuple[Float64, Float64] | None = None,
    basis: str = "",
    *,
    title: str = "Hiding one lead",
    simulated: bool = False,
) -> Figure:
    """What hiding each lead does: change of the log hazard, and the loss of C where it is known.

    Args:
        change: (12,), log hazard with the lead hidden less as it is; of one ECG, or mean absolute change of many.
        c_loss: (12,), C less C with the lead hidden.
        interval: (12,) and (12,), its 95 % interval.
        basis: on what C stands, above its bars.
        title: "" where what stands around the figure says it.
        simulated: the outcomes are, on which C stands.
    """
    known = c_loss is not None
    with look():
        figure = new_figure(title, 3.6 if basis else 3.4, simulated=simulated)
        panels = figure.subplots(1, 2 if known else 1, sharey=True, squeeze=False)[0]
        _draw_signed(panels[0], change, "mean change of log hazard" if known else "change of log hazard")
        if c_loss is not None:
            _draw_signed(panels[1], c_loss, "loss of C (95 % CI)" if interval else "loss of C", interval)
            panels[1].set_title(basis, fontsize=8.5)
    return figure


def deletion_figure(result: Deletion) -> Figure:
    """Deletion and insertion curves of the three orders."""
    with look():
        figure = new_figure("Hiding time in the order of attention", 3.2, simulated=False)
        if not result.ecgs:
            say_nothing_to_show(figure.add_subplot(), "no ECG")
            return figure
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, curves, label in (
            (left, result.deletion, "% of time hidden"),
            (right, result.insertion, "% of time kept"),
        ):
            for curve, order, (colour, style) in zip(curves, ORDERS, LINES, strict=True):
                axes.plot(
                    100 * result.shares, curve, color=colour, linestyle=style, linewidth=1.8, label=order
                )
            axes.set_xlabel(label)
            axes.set_xlim(0, 100)
            axes.set_ylim(bottom=0)
        left.set_ylabel("change of log hazard")
        left.set_title("deletion: higher is better", fontsize=9)
        right.set_title("insertion: lower is better", fontsize=9)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def group_bars_figure(groups: Mapping[str, Attention]) -> Figure:
    """What each lead receives, in two or more groups (high against low risk; with and without a finding).

    Args:
        groups: name -> the group's mean attention, n = 1.
    """
    shown = {name: one.bars[0] for name, one in groups.items() if np.isfinite(one.leads).all()}
    with look():
        figure = new_figure("Attention that each lead receives", 3.2, simulated=False)
        axes = figure.add_subplot()
        if not shown:
            say_nothing_to_show(axes, "no ECG")
            return figure
        width = 0.8 / len(shown)
        for number, ((name, bars), colour) in enumerate(zip(shown.items(), _shades(len(shown)), strict=True)):
            place = np.arange(len(LEADS)) - 0.4 + width * (number + 0.5)
            drawn = axes.bar(place, 100 * bars, width=width, color=colour, edgecolor="white", linewidth=0.4)
            drawn.set_label(printable(name))
        axes.axhline(100 * EVEN, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xticks(range(len(LEADS)), LEADS)
        axes.tick_params(axis="x", length=0)
        axes.set_ylabel("received, % (dashed: even)")
        handles, labels = axes.get_legend_handles_labels()
        legend = figure.legend(handles, labels, loc="outside lower center", ncols=min(len(shown), 3))
        for text in legend.get_texts():
            text.set_parse_math(False)  # a dollar sign in a name is a dollar sign
    return figure


def _paper(
    signal_mv: NDArray[np.floating],
    rate_hz: float,
    strips: NDArray[np.floating],
    paper: PaperOptions,
    footer: str,
    label: str,
) -> Figure:
    return draw_ecg(
        (signal_mv, rate_hz),
        layout=paper.layout,
        speed_mm_s=paper.speed_mm_s,
        gain_mm_mv=paper.gain_mm_mv,
        order=paper.order,
        footer=footer,
        strips=dict(zip(LEADS, strips, strict=True)),
        strip_label=label,
    )


def _draw_matrix(axes: Axes, matrix: Float64) -> None:
    scaled = strip_scale(matrix / EVEN, float(matrix.max() / EVEN))  # even attention never looks high
    axes.imshow(scaled, cmap=STRIP_COLOURS, vmin=0, vmax=1, aspect="auto", interpolation="none")
    for row, column in np.ndindex(matrix.shape):
        value = matrix[row, column]
        colour = "white" if scaled[row, column] > DARK_FROM else INK
        axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7.5, color=colour)
    axes.set_yticks(range(len(LEADS)), LEADS)
    axes.tick_params(length=0)
    axes.tick_params(axis="x", top=True, labeltop=True, labelbottom=False, length=0)
    axes.spines[:].set_visible(False)
    axes.set_ylabel("attending lead (rows add up to 100 %)")


def _number_bars(axes: Axes, bars: Float64) -> None:
    for lead, value in enumerate(bars):
        axes.annotate(
            f"{100 * value:.1f}",
            (lead, 100 * value),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4},  # over the dashed line
        )


def _draw_signed(
    axes: Axes, values: Float64, label: str, interval: tuple[Float64, Float64] | None = None
) -> None:
    known = np.nan_to_num(values)
    ends = np.stack([known, known] if interval is None else [_or(end, known) for end in interval])
    reach = max(float(np.abs(ends).max()), 1e-9)
    axes.barh(range(len(LEADS)), known, height=0.7, color=BLUE if interval is None else SKY)
    if interval is not None:
        axes.hlines(range(len(LEADS)), *ends, color=INK, linewidth=1.1, label="95 % CI")
    axes.axvline(0, color=INK, linewidth=0.8)
    text = "{:+.3f}" if (known < 0).any() else "{:.3f}"
    for lead, value in enumerate(values):
        side = -1 if known[lead] < 0 else 1
        axes.annotate(
            text.format(value) if np.isfinite(value) else DASH,
            (ends[0 if side < 0 else 1, lead], lead),
            xytext=(3 * side, 0),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center",
            fontsize=7.5,
        )
    axes.set_yticks(range(len(LEADS)), LEADS)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(LEADS) - 0.4, -0.6)
    low, high = min(float(ends.min()), 0.0), max(float(ends.max()), 0.0)
    axes.set_xlim(
        low - 0.6 * reach if low < 0 else -0.02 * reach, high + 0.6 * reach if high > 0 else 0.02 * reach
    )
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel(label)


def _or(end: Float64, value: Float64) -> Float64:
    """An end of an interval; the value itself where there is none."""
    return np.where(np.isfinite(end), end, value)


def _shades(count: int) -> Sequence[str]:
    """One hue, darkest first; a light grey-blue is the last."""
    shades = (BLUE, SKY, LIGHT)
    return [shades[min(number, len(shades) - 1)] for number in range(count)]
