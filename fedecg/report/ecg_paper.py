"""A 12-lead ECG on paper as cardiologists read it: true to scale, with an optional heat strip under each trace.

In:  a `Recording` (or a signal in mV and its rate), a layout, what was filtered, strips of values from 0 to 1.
Out: a matplotlib Figure in millimetres of paper; SVG, PDF or PNG of it, the same bytes for the same input.
     Called by whoever shows an ECG: the command line, explanations, reports.

Nothing is filtered or shifted here: 0 mV lies on the row's baseline. No name, number or date is drawn or stored.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from numpy.typing import ArrayLike, NDArray

from fedecg.errors import SignalError
from fedecg.files import write_whole
from fedecg.report.ecg_layout import (
    STRIP_HEIGHT_MM,
    Gain,
    LayoutName,
    Order,
    PaperLayout,
    Speed,
    paper_layout,
)
from fedecg.report.ecg_traces import (
    MM_AN_INCH,
    STRIP_COLOURS,
    THIN_MM,
    draw_lead,
    draw_strip,
    draw_trace,
    points,
    write,
)
from fedecg.report.look import look
from fedecg.report.wording import printable
from fedecg.signals.recording import LEADS, Recording

__all__ = ["draw_ecg", "save_ecg"]

PNG_DPI = 300
THICK_MM = 0.25
THIN_RED, THICK_RED = "#F7CDC8", "#EBA59C"  # in grey: 16 and 30 % black, under a trace of 87 %
KEY_MM = 20.0  # width of the strip's key


def draw_ecg(
    recording: Recording | tuple[ArrayLike, float],
    *,
    layout: LayoutName = "3x4",
    speed_mm_s: Speed = 25,
    gain_mm_mv: Gain = 10,
    order: Order = "standard",
    rhythm_lead: str = "II",
    footer: str = "no filter",
    strips: Mapping[str, ArrayLike] | None = None,
    strip_label: str = "",
) -> Figure:
    """Draw an ECG; see `paper_layout` for what the options mean and for where things stand.

    A lead without a finite sample in its window is a dashed line "not recorded", one that moves less than 20 µV
    in the whole recording a dashed line "flat". Traces may cross the neighbour's row; at the edge of the grid
    they run along it, like a pen at its stop.

    Args:
        recording: or (signal, rate): (12, samples) in mV in the order of `LEADS`, NaN = not recorded; Hz.
        footer: what was filtered, printed after speed and gain; never anything that names a patient.
        strips: by lead of `LEADS` (any of them), (n,) values from 0 to 1 that divide the recording's whole time
            into n equal pieces; NaN stays blank. Drawn 2 mm high under the lead's trace, darker is more.
        strip_label: what the strips show, for their key above the grid.

    Returns:
        A figure whose first axes are in millimetres of the sheet.

    Raises:
        SignalError: FECG-211 shape or rate, FECG-261 an option, FECG-262 strips.
    """
    ecg = recording if isinstance(recording, Recording) else _recording(*recording)
    duration_s = ecg.signal_mv.shape[1] / ecg.rate_hz
    values = {lead: _checked_strip(lead, strip) for lead, strip in (strips or {}).items()}
    paper = paper_layout(
        layout,
        duration_s=duration_s,
        speed_mm_s=speed_mm_s,
        gain_mm_mv=gain_mm_mv,
        order=order,
        rhythm_lead=rhythm_lead,
    )
    with look():
        figure, axes = _sheet(paper)
        _draw_grid(axes, paper)
        _draw_pulses(axes, paper)
        for panel in paper.panels:
            if panel.lead in values:
                draw_strip(axes, panel, values[panel.lead], duration_s)
            draw_lead(axes, paper, panel, ecg)
        said = _footer(paper, footer, duration_s, layout)
        write(axes, paper.left_mm, paper.bottom_mm - 2.0, said, va="top")
        if values:
            _draw_key(axes, paper, strip_label)
    return figure


def save_ecg(figure: Figure, path: str | Path) -> None:
    """Write a figure as its suffix says (.svg, .pdf, .png at 300 dpi), without date or program names.

    Raises:
        SignalError: FECG-263, another suffix.
        RunError: FECG-601, the file cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    left_out: dict[str, dict[str, None]] = {
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
        "png": {"Software": None},
    }
    if kind not in left_out:
        raise SignalError(
            "FECG-263",
            "file for the ECG",
            found="another suffix",
            expected="a name that ends in .svg, .pdf or .png",
        )
    buffer = io.BytesIO()
    with look():
        figure.savefig(buffer, format=kind, dpi=PNG_DPI, metadata=left_out[kind])
    write_whole(path, buffer.getvalue())


def _recording(signal_mv: ArrayLike, rate_hz: float) -> Recording:
    return Recording(np.asarray(signal_mv, dtype=np.float32), rate_hz)


def _checked_strip(lead: str, strip: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(strip, dtype=np.float64)
    known = values[~np.isnan(values)]
    if lead not in LEADS or values.ndim != 1 or not values.size or np.any((known < 0) | (known > 1)):
        raise SignalError(
            "FECG-262",
            "strip under a trace",
            found=f"an array of shape {values.shape}" if lead in LEADS else "an unknown lead",
            expected="for a lead of " + ", ".join(LEADS) + ": (n,), n >= 1, values from 0 to 1 or NaN",
        )
    return values


def _sheet(paper: PaperLayout) -> tuple[Figure, Axes]:
    """An empty sheet; its axes cover the grid and count in mm of the sheet."""
    width, height = paper.width_mm, paper.height_mm
    figure = Figure(figsize=(width / MM_AN_INCH, height / MM_AN_INCH))
    span_x, span_y = paper.right_mm - paper.left_mm, paper.top_mm - paper.bottom_mm
    axes = figure.add_axes((paper.left_mm / width, paper.bottom_mm / height, span_x / width, span_y / height))
    axes.set_axis_off()
    axes.set(xlim=(paper.left_mm, paper.right_mm), ylim=(paper.bottom_mm, paper.top_mm), autoscale_on=False)
    return figure, axes


def _draw_grid(axes: Axes, paper: PaperLayout) -> None:
    edges = (paper.left_mm, paper.bottom_mm, paper.right_mm, paper.top_mm)
    for step_mm, width_mm, colour in ((1, THIN_MM, THIN_RED), (5, THICK_MM, THICK_RED)):
        # One outline for all lines; not clipped, so that the outermost are as thick as the others.
        lines = PathPatch(_grid_outline(edges, step_mm), fill=False, edgecolor=colour, clip_on=False)
        lines.set(linewidth=points(width_mm), zorder=0, label=f"grid {step_mm} mm")
        axes.add_patch(lines)


def _grid_outline(edges: tuple[float, float, float, float], step_mm: int) -> Outline:
    left, bottom, right, top = edges
    across = [((x, bottom), (x, top)) for x in np.arange(left, right + 0.5, step_mm)]
    along = [((left, y), (right, y)) for y in np.arange(bottom, top + 0.5, step_mm)]
    ends = np.array(across + along).reshape(-1, 2)
    return Outline(ends, [Outline.MOVETO, Outline.LINETO] * (len(ends) // 2))


def _draw_pulses(axes: Axes, paper: PaperLayout) -> None:
    x, rise = paper.pulse_mm
    for baseline_mm in paper.baselines_mm:
        draw_trace(axes, x, baseline_mm + np.asarray(rise), "calibration")


def _footer(paper: PaperLayout, filtered: str, duration_s: float, layout: str) -> str:
    parts = [f"{paper.speed_mm_s:g} mm/s", f"{paper.gain_mm_mv:g} mm/mV", printable(filtered)]
    shown_s = paper.stop_s - paper.start_s
    if layout == "median":
        parts.append("median beat")
    elif duration_s - shown_s > 0.1:
        parts.append(f"{paper.start_s:.1f}–{paper.stop_s:.1f} s of {duration_s:.1f} s")
    elif paper.overlapping:
        parts.append(f"{duration_s:.1f} s recorded: columns overlap in time")
    return "     ".join(part for part in parts if part)


def _draw_key(axes: Axes, paper: PaperLayout, strip_label: str) -> None:
    """What the strips' colours mean, above the right end of the grid."""
    right, bottom = paper.right_mm, paper.top_mm + 1.5
    left, top = right - 8.0 - KEY_MM, bottom + STRIP_HEIGHT_MM
    axes.imshow(
        np.linspace(0, 1, 64)[None],
        cmap=STRIP_COLOURS,
        extent=(left, left + KEY_MM, bottom, top),
        aspect="auto",
        interpolation="none",
        clip_on=False,
        label="key",
    )
    write(axes, left - 1.5, bottom, f"{printable(strip_label)}   low".strip(), ha="right")
    write(axes, left + KEY_MM + 1.5, bottom, "high")
