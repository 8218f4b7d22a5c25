"""What stands in one panel of an ECG sheet: the trace or why there is none, the lead's name, its heat strip.

In:  a panel of `PaperLayout`, the recording, values from 0 to 1. Out: artists on axes in millimetres of the sheet.
Called by `ecg_paper`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from fedecg.report.ecg_layout import STRIP_HEIGHT_MM, PaperLayout, PaperPanel
from fedecg.report.look import GREY, INK
from fedecg.signals.quality import FLAT_PEAK_TO_PEAK_MV
from fedecg.signals.recording import LEADS, Recording

__all__ = [
    "MM_AN_INCH",
    "STRIP_COLOURS",
    "THIN_MM",
    "draw_lead",
    "draw_strip",
    "draw_trace",
    "label_place_mm",
    "points",
    "write",
]

MM_AN_INCH, POINTS_AN_INCH = 25.4, 72.0
TRACE_MM, THIN_MM = 0.3, 0.1
# A lead's name, 9 pt bold: from the panel's edge; width of a letter, height; clear of the trace; moved at most.
LABEL_IN_MM, LABEL_MM_A_LETTER, LABEL_HIGH_MM, LABEL_CLEAR_MM, LABEL_FARTHEST_MM = 1.0, 2.5, 2.5, 0.5, 18.0
# Points close to a straight line are left out of the files: a trace moves by 0.03 mm at most, and a file has half
# the size. At matplotlib's own 1/9 it moves by 0.07 mm.
SIMPLIFIED_PT = 0.04
# One hue; darker is more, in grey print too. The lowest value is not white, so that a strip of zeros is seen;
# the highest is light enough for a trace to be followed across it.
STRIP_COLOURS = LinearSegmentedColormap.from_list("strip", ["#EEF5FA", "#8CC0E0", "#0072B2"])


def draw_lead(axes: Axes, paper: PaperLayout, panel: PaperPanel, ecg: Recording) -> None:
    """The lead's name and its trace, or a dashed line that says why there is none.

    Args:
        axes: in mm of the sheet. paper: where traces stop. panel: of that paper. ecg: to draw, as it is.
    """
    kind = "rhythm" if panel.rhythm else "trace"
    lead_mv = ecg.signal_mv[LEADS.index(panel.lead)].astype(np.float64)
    lead_mv[~np.isfinite(lead_mv)] = np.nan
    # With the sample on the border, so that neighbours in a row meet; 1e-6 against rounding of times.
    first = int(np.ceil(panel.start_s * ecg.rate_hz - 1e-6))
    last = int(np.floor(panel.stop_s * ecg.rate_hz + 1e-6))
    shown_mv = lead_mv[first : last + 1]
    fault = _fault(lead_mv, shown_mv)
    label_mm = panel.left_mm + LABEL_IN_MM
    if fault:
        _draw_absent(axes, panel, f"{kind} {panel.lead}", fault)
    else:
        time_s = np.arange(first, first + shown_mv.size) / ecg.rate_hz
        x, y = panel.x_mm(time_s), panel.y_mm(shown_mv)
        y = np.clip(y, paper.bottom_mm + TRACE_MM, paper.top_mm - TRACE_MM)
        draw_trace(axes, x, y, f"{kind} {panel.lead}")
        label_mm = label_place_mm(panel, x, y)
    if panel.column:
        _draw_border(axes, panel)
    write(axes, label_mm, panel.label_mm, panel.label, fontsize=9, fontweight="bold")


def label_place_mm(panel: PaperPanel, x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Left edge of a lead's name: as far left as its own trace does not cross it, else where names stand.

    Args:
        x, y: (n,) the trace, mm of the sheet; NaN = pen up.
    """
    usual = panel.left_mm + LABEL_IN_MM
    width = LABEL_MM_A_LETTER * len(panel.label)
    low, high = panel.label_mm - LABEL_CLEAR_MM, panel.label_mm + LABEL_HIGH_MM + LABEL_CLEAR_MM
    with np.errstate(invalid="ignore"):  # a gap crosses nothing
        crossing = (np.minimum(y[1:], y[:-1]) < high) & (np.maximum(y[1:], y[:-1]) > low)
    starts, ends = x[:-1][crossing], x[1:][crossing]
    for left in np.arange(usual, usual + LABEL_FARTHEST_MM, 0.5):
        if not np.any((ends > left - LABEL_CLEAR_MM) & (starts < left + width + LABEL_CLEAR_MM)):
            return float(left)
    return usual


def _fault(lead_mv: NDArray[np.float64], shown_mv: NDArray[np.float64]) -> str:
    """Why there is no trace to draw; "" where there is one."""
    if np.isnan(shown_mv).all():
        return "not recorded"
    return "flat" if np.nanmax(lead_mv) - np.nanmin(lead_mv) < FLAT_PEAK_TO_PEAK_MV else ""


def _draw_absent(axes: Axes, panel: PaperPanel, label: str, fault: str) -> None:
    x = panel.x_mm([panel.start_s, panel.stop_s])
    dashes = (0, (points(1.5) / points(TRACE_MM), points(1.0) / points(TRACE_MM)))
    axes.plot(
        x,
        np.full(2, panel.baseline_mm),
        color=GREY,
        linewidth=points(TRACE_MM),
        linestyle=dashes,
        label=label,
    )
    write(axes, float(x.mean()), panel.baseline_mm + 1.0, fault, color=GREY, ha="center")


def draw_trace(axes: Axes, x: ArrayLike, y: ArrayLike, label: str) -> None:
    """A line as a pen draws it; x, y: (n,) mm of the sheet, NaN = pen up."""
    (line,) = axes.plot(
        x,
        y,
        color=INK,
        linewidth=points(TRACE_MM),
        solid_joinstyle="round",
        solid_capstyle="round",
        label=label,
        snap=False,  # a step stays where it is, in pixels too
        clip_on=False,  # it ends on the grid anyway; matplotlib makes new paths of long lines that it clips
        zorder=3,
    )
    line.get_path().simplify_threshold = SIMPLIFIED_PT


def _draw_border(axes: Axes, panel: PaperPanel) -> None:
    """Two short marks where one lead ends and the next begins, off the baseline: not to be read as a spike."""
    x, y = panel.left_mm, panel.baseline_mm
    for low, high in ((y - 4.0, y - 2.0), (y + 2.0, y + 4.0)):
        axes.plot([x, x], [low, high], color=INK, linewidth=points(TRACE_MM), label="border", zorder=2)


def draw_strip(axes: Axes, panel: PaperPanel, values: NDArray[np.float64], duration_s: float) -> None:
    """A heat strip under the trace: the pieces that the panel's window touches, cut at its edges.

    Args:
        values: (n,) 0 to 1 or NaN (blank), each for an n-th of the recording. duration_s: of the recording.
    """
    piece_s = duration_s / values.size
    first = int(np.floor(panel.start_s / piece_s + 1e-6))
    last = min(int(np.ceil(panel.stop_s / piece_s - 1e-6)), values.size)
    left, right = panel.x_mm([first * piece_s, last * piece_s])
    window = panel.x_mm([panel.start_s, panel.stop_s])
    low, high = panel.strip_mm, panel.strip_mm + STRIP_HEIGHT_MM
    frame = Rectangle((window[0], low), window[1] - window[0], STRIP_HEIGHT_MM, fill=False, edgecolor=GREY)
    frame.set(linewidth=points(THIN_MM), zorder=2)
    axes.add_patch(frame)
    image = axes.imshow(
        np.ma.masked_invalid(values[None, first:last]),
        cmap=STRIP_COLOURS,
        vmin=0,
        vmax=1,
        extent=(left, right, low, high),
        aspect="auto",
        interpolation="none",
        zorder=1,
        label=f"strip {panel.lead}",
    )
    image.set_clip_path(frame)


def write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Text at a point in mm of the sheet, 8 pt unless `style` says otherwise."""
    # A dollar sign is a dollar sign, not the start of mathematics.
    axes.text(x, y, text, **{"fontsize": 8, "parse_math": False, "zorder": 4, **style})


def points(mm: float) -> float:
    """Millimetres as points, matplotlib's unit of line widths."""
    return mm / MM_AN_INCH * POINTS_AN_INCH
