"""Where each lead stands on ECG paper: row, time window, and the way from (seconds, mV) to millimetres.

In:  the layout's name, paper speed, gain, order of the leads, length of the recording.
Out: `PaperLayout`. Called by `ecg_paper`, and by whoever draws something of his own on the same paper.

Millimetres count from the lower left corner of the sheet, to the right and upwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedecg.errors import SignalError
from fedecg.signals.recording import LEADS

__all__ = [
    "STANDARD_PAPER",
    "STRIP_HEIGHT_MM",
    "Gain",
    "LayoutName",
    "Order",
    "PaperLayout",
    "PaperOptions",
    "PaperPanel",
    "Speed",
    "paper_layout",
]

LayoutName = Literal["3x4", "6x2", "12x1", "median"]
Speed = Literal[25, 50]
Gain = Literal[5, 10, 20]
Order = Literal["standard", "cabrera"]


@dataclass(frozen=True)
class PaperOptions:
    """What can be chosen of an ECG on paper; see `paper_layout`."""

    layout: LayoutName = "3x4"
    speed_mm_s: Speed = 25
    gain_mm_mv: Gain = 10
    order: Order = "standard"


STANDARD_PAPER = PaperOptions()

# Cabrera's circle, 30 degrees a step from left above to right below, so that neighbours look alike.
CABRERA: tuple[str, ...] = ("aVL", "I", "aVR", "II", "aVF", "III", *LEADS[6:])
INVERTED_IN_CABRERA = "aVR"  # at -150 degrees it has no place between I (0) and II (60); -aVR, at 30, has

# At 25 mm/s the sheet of ten seconds is A4 on its side: 297 x 210 mm, printed at 100 %.
SIDE_MM, TOP_BOTTOM_MM = 13.5, 10.0
PULSE_S, PULSE_LEAD_MM = 0.2, 2.5  # 1 mV for 0.2 s, between two stretches of baseline
BEFORE_PULSE_MM = 5.0
STRIP_HEIGHT_MM = 2.0
STRIP_DEPTH_MM = 14.0  # lower edge of a strip below the baseline, where the row has that much


@dataclass(frozen=True)
class _Form:
    """What a layout's name stands for; a window of `window_s` for each lead."""

    rows: int
    columns: int
    window_s: float
    pitch_mm: float  # from a row to the next
    spare_mm: float  # of grid above the rows, and as much below, for tall waves
    gap_mm: float = 0.0  # between columns
    after_mm: float = 5.0  # between the last column and the edge of the grid
    rhythm: bool = False
    simultaneous: bool = False

    @property
    def whole_s(self) -> float:
        """Time that all columns together are meant to cover."""
        return self.window_s if self.simultaneous else self.columns * self.window_s


_FORMS: dict[str, _Form] = {
    "3x4": _Form(3, 4, 2.5, pitch_mm=40, spare_mm=15, rhythm=True),
    "6x2": _Form(6, 2, 5.0, pitch_mm=30, spare_mm=5),
    "12x1": _Form(12, 1, 10.0, pitch_mm=15, spare_mm=5),
    "median": _Form(3, 4, 1.2, pitch_mm=40, spare_mm=15, gap_mm=2.5, after_mm=2.5, simultaneous=True),
}


@dataclass(frozen=True)
class PaperPanel:
    """One lead's place on the sheet.

    Attributes:
        lead: of `LEADS`. label: as printed: the lead, or "−aVR" where it is drawn upside down.
        sign: 1.0, or -1.0 where the lead is drawn upside down.
        row, column: 0 is the uppermost, the leftmost. rhythm: whether it is the long strip below the others.
        start_s, stop_s: the piece of the recording shown, in seconds from its first sample.
        left_mm: where start_s stands. baseline_mm: where 0 mV stands. label_mm: lower edge of the label.
        strip_mm: lower edge of the lead's strip; it is `STRIP_HEIGHT_MM` high.
    """

    lead: str
    label: str
    sign: float
    row: int
    column: int
    rhythm: bool
    start_s: float
    stop_s: float
    left_mm: float
    baseline_mm: float
    label_mm: float
    strip_mm: float
    speed_mm_s: float
    gain_mm_mv: float

    def x_mm(self, time_s: ArrayLike) -> NDArray[np.float64]:
        """Place of times, in seconds from the recording's first sample; any shape, the same back."""
        return self.left_mm + (np.asarray(time_s, dtype=np.float64) - self.start_s) * self.speed_mm_s

    def y_mm(self, value_mv: ArrayLike) -> NDArray[np.float64]:
        """Height of values of the lead as recorded, in mV; upside down where the panel is. Any shape."""
        return self.baseline_mm + np.asarray(value_mv, dtype=np.float64) * (self.sign * self.gain_mm_mv)


@dataclass(frozen=True)
class PaperLayout:
    """A sheet of ECG paper.

    Attributes:
        width_mm, height_mm: the sheet. left_mm, bottom_mm, right_mm, top_mm: the grid on it, in whole 5 mm.
        panels: one a lead, in the order drawn, then the rhythm strip where there is one.
        baselines_mm: of each row, from above.
        speed_mm_s, gain_mm_mv: scale.
        start_s, stop_s: the piece of the recording that the sheet shows.
        overlapping: columns show overlapping times, since the recording is too short for one after the other.
    """

    width_mm: float
    height_mm: float
    left_mm: float
    bottom_mm: float
    right_mm: float
    top_mm: float
    panels: tuple[PaperPanel, ...]
    baselines_mm: tuple[float, ...]
    speed_mm_s: float
    gain_mm_mv: float
    start_s: float
    stop_s: float
    overlapping: bool

    def panel(self, lead: str) -> PaperPanel:
        """The panel of a lead of `LEADS` (not the rhythm strip)."""
        return next(panel for panel in self.panels if panel.lead == lead and not panel.rhythm)

    @property
    def pulse_mm(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Calibration pulse of a row: x on the sheet, y above the baseline; 1 mV for 0.2 s."""
        x, width = self.left_mm + BEFORE_PULSE_MM, PULSE_S * self.speed_mm_s
        corners = (x, x + PULSE_LEAD_MM, x + PULSE_LEAD_MM + width)
        up = self.gain_mm_mv
        return (
            (corners[0], corners[1], corners[1], corners[2], corners[2], corners[2] + PULSE_LEAD_MM),
            (0.0, 0.0, up, up, 0.0, 0.0),
        )


def paper_layout(
    layout: LayoutName = "3x4",
    *,
    duration_s: float = 10.0,
    speed_mm_s: Speed = 25,
    gain_mm_mv: Gain = 10,
    order: Order = "standard",
    rhythm_lead: str = "II",
) -> PaperLayout:
    """Lay out a sheet.

    At 50 mm/s the sheet is wider and every lead keeps its time, as on a roll that runs at twice the speed: half
    the time would leave 1.25 s of a lead, in which a slow heart does not beat once.
    At 20 mm/mV twelve rows stand 25 mm apart, so that the calibration pulse stays on the paper.
    A recording longer than the sheet shows its middle (what the network sees, too). One that is too short for
    columns one after the other has columns that overlap in time, so that each is full for as long as it can be.

    Args:
        layout: "3x4": 2.5 s of each lead, in columns one after the other in time, and 10 s of one lead below;
            "6x2": 5 s; "12x1": 10 s; "median": one beat of 1.2 s, all leads at the same time, 3 rows of 4.
        duration_s: of the recording, > 0.
        order: "cabrera" orders the limb leads aVL, I, −aVR, II, aVF, III.
        rhythm_lead: of the strip below 3x4; the other layouts have none.

    Raises:
        SignalError: FECG-261, an option that is none of those above, or a duration that is not positive.

    Source: Kligfield et al. 2007 (AHA/ACC/HRS, part I) for scales, formats and the order after Cabrera.
    """
    _check_options(layout, speed_mm_s, gain_mm_mv, order, rhythm_lead, duration_s)
    form = _FORMS[layout]
    rows = form.rows + form.rhythm
    pitch = max(form.pitch_mm, gain_mm_mv + 5.0)
    above_bottom = 5.0 * min(pitch // 10, (pitch - gain_mm_mv) // 5)  # a baseline lies on a thick line
    lowest_mm = TOP_BOTTOM_MM + form.spare_mm + above_bottom
    baselines = tuple(lowest_mm + (rows - 1 - row) * pitch for row in range(rows))
    top_mm = TOP_BOTTOM_MM + rows * pitch + 2 * form.spare_mm
    first_mm = SIDE_MM + BEFORE_PULSE_MM + 2 * PULSE_LEAD_MM + PULSE_S * speed_mm_s
    step_mm = form.window_s * speed_mm_s + form.gap_mm
    cells = _cells(form, order, rhythm_lead, duration_s)
    panels = tuple(
        PaperPanel(
            **cell._asdict(),
            left_mm=first_mm + cell.column * step_mm,
            baseline_mm=baselines[cell.row],
            label_mm=baselines[cell.row] + min(pitch - above_bottom - 4.0, 12.0),
            strip_mm=baselines[cell.row] - min(STRIP_DEPTH_MM, above_bottom - 1.0),
            speed_mm_s=float(speed_mm_s),
            gain_mm_mv=float(gain_mm_mv),
        )
        for cell in cells
    )
    right_mm = first_mm + form.columns * step_mm - form.gap_mm + form.after_mm
    return PaperLayout(
        width_mm=right_mm + SIDE_MM,
        height_mm=top_mm + TOP_BOTTOM_MM,
        left_mm=SIDE_MM,
        bottom_mm=TOP_BOTTOM_MM,
        right_mm=right_mm,
        top_mm=top_mm,
        panels=panels,
        baselines_mm=baselines,
        speed_mm_s=float(speed_mm_s),
        gain_mm_mv=float(gain_mm_mv),
        start_s=min(panel.start_s for panel in panels),
        stop_s=max(panel.stop_s for panel in panels),
        overlapping=not form.simultaneous and form.columns > 1 and duration_s < form.whole_s,
    )


class _Cell(NamedTuple):
    """What stands where: the fields of a panel that no millimetre enters."""

    lead: str
    label: str
    sign: float
    row: int
    column: int
    rhythm: bool
    start_s: float
    stop_s: float


def _cells(form: _Form, order: str, rhythm_lead: str, duration_s: float) -> list[_Cell]:
    starts = _column_starts(form, duration_s)
    cells = []
    for number, lead in enumerate(CABRERA if order == "cabrera" else LEADS):
        column, row = divmod(number, form.rows)
        stop_s = min(starts[column] + form.window_s, duration_s)
        inverted = order == "cabrera" and lead == INVERTED_IN_CABRERA
        label, sign = (f"−{lead}", -1.0) if inverted else (lead, 1.0)
        cells.append(_Cell(lead, label, sign, row, column, False, starts[column], stop_s))
    if form.rhythm:
        stop_s = min(starts[0] + form.whole_s, duration_s)
        cells.append(_Cell(rhythm_lead, rhythm_lead, 1.0, form.rows, 0, True, starts[0], stop_s))
    return cells


def _column_starts(form: _Form, duration_s: float) -> list[float]:
    """Where each column's time begins, in seconds from the first sample."""
    first_s = max(0.0, (duration_s - form.whole_s) / 2)
    if form.simultaneous or form.columns == 1:
        return [first_s] * form.columns
    step_s = max(0.0, min(form.window_s, (duration_s - form.window_s) / (form.columns - 1)))
    return [first_s + column * step_s for column in range(form.columns)]


def _check_options(
    layout: str, speed_mm_s: float, gain_mm_mv: float, order: str, rhythm_lead: str, duration_s: float
) -> None:
    choices: tuple[tuple[str, object, Sequence[object]], ...] = (
        ("layout", layout, get_args(LayoutName)),
        ("speed in mm/s", speed_mm_s, get_args(Speed)),
        ("gain in mm/mV", gain_mm_mv, get_args(Gain)),
        ("order of the leads", order, get_args(Order)),
        ("rhythm lead", rhythm_lead, LEADS),
    )
    for what, given, known in choices:
        if given not in known:
            raise SignalError(
                "FECG-261",
                f"{what} of the ECG paper",
                found="another value",
                expected="one of " + ", ".join(map(str, known)),
            )
    if not (math.isfinite(duration_s) and duration_s > 0):
        raise SignalError(
            "FECG-261",
            "duration of the recording on ECG paper",
            found="a value that is not positive or not finite",
            expected="seconds, > 0",
        )
