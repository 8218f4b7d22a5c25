"""ECG paper measured in the files themselves: millimetres in the PDF's content stream and in the SVG's paths."""

import re
import struct
import xml.etree.ElementTree as ElementTree
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.spatial import cKDTree

from fedecg.report.ecg_layout import PaperPanel, paper_layout
from fedecg.report.ecg_paper import draw_ecg, save_ecg
from fedecg.signals import LEADS, read_recording

POINT_MM = 25.4 / 72
CLOSE_MM = 0.05


def step(rate_hz: float, start_s: float = 1.0) -> np.ndarray:
    """(12, samples) mV: 1 mV for 1 s in every lead."""
    time_s = np.arange(round(10 * rate_hz)) / rate_hz
    return np.tile((time_s >= start_s - 1e-9) & (time_s < start_s + 1 - 1e-9), (12, 1)).astype(float)


# ---- what a file holds -------------------------------------------------------------------------------------


class Stroke:
    """A stroked line of a file: (n, 2) mm from the lower left corner, and its width in mm."""

    def __init__(
        self, pieces: list[list[tuple[float, float]]], width_pt: float, state: dict[str, Any]
    ) -> None:
        self.pieces = [np.array(piece) * POINT_MM for piece in pieces]
        self.width_mm, self.state = width_pt * POINT_MM, state

    @property
    def points(self) -> np.ndarray:
        return np.concatenate(self.pieces)


def pdf_strokes(path: Path) -> list[Stroke]:
    """Every line that the PDF's page strokes, from its content stream; curves are not ours."""
    strokes: list[Stroke] = []
    for content in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", path.read_bytes(), re.S):
        try:
            text = zlib.decompress(content).decode("latin-1")
        except zlib.error:
            continue
        if not text.startswith("/DeviceRGB CS"):  # a font or an image
            continue
        strokes += _page_strokes(re.sub(r"\(.*?\)|<.*?>", "", text).split())
    return strokes


def _page_strokes(tokens: list[str]) -> list[Stroke]:
    found: list[Stroke] = []
    numbers: list[float] = []
    pieces: list[list[tuple[float, float]]] = []
    states: list[dict[str, Any]] = [{"cm": []}]
    for token in tokens:
        if re.fullmatch(r"-?[\d.]+", token):
            numbers.append(float(token))
            continue
        if token == "q":
            states.append(dict(states[-1]))
        elif token == "Q":
            states.pop()
        elif token in ("w", "j", "cm"):
            states[-1][token] = numbers[-1:]
        elif token in ("m", "l"):
            pieces += [[]] if token == "m" else []
            pieces[-1].append((numbers[-2], numbers[-1]))
        elif token in ("S", "n", "f"):
            if token == "S":
                assert not states[-1]["cm"]  # else the coordinates would not be the page's
                found.append(Stroke(pieces, states[-1]["w"][0], states[-1]))
            pieces = []
        numbers = []
    return found


def svg_strokes(path: Path) -> list[Stroke]:
    """Every line of the SVG that has a stroke; glyphs have none."""
    root = ElementTree.parse(path).getroot()
    height = float(root.attrib["height"].removesuffix("pt"))
    assert root.attrib["viewBox"] == f"0 0 {root.attrib['width'][:-2]} {root.attrib['height'][:-2]}"
    found = []
    for element in root.iter("{http://www.w3.org/2000/svg}path"):
        style = dict(part.strip().split(": ") for part in element.get("style", "").split(";") if part.strip())
        if "stroke" not in style or "z" in element.attrib["d"]:
            continue
        pieces = [
            [(float(x), height - float(y)) for x, y in re.findall(r"([-\d.]+) ([-\d.]+)", piece)]
            for piece in element.attrib["d"].split("M")[1:]
        ]
        found.append(Stroke(pieces, float(style.get("stroke-width", 1)), style))
    return found


STROKES = {"pdf": pdf_strokes, "svg": svg_strokes}


def trace_of(panel: PaperPanel, strokes: list[Stroke]) -> Stroke:
    """The stroke that begins where the panel does."""
    return next(
        stroke
        for stroke in strokes
        if np.allclose(stroke.points[0], (panel.left_mm, panel.baseline_mm), atol=0.01)
        and stroke.points[-1][0] > panel.left_mm + 20
    )


def crossings(line: np.ndarray, level: float) -> list[float]:
    """Where a line passes a height."""
    x, y = line.T
    at = np.flatnonzero((y[:-1] - level) * (y[1:] - level) < 0)
    return [x[k] + (level - y[k]) / (y[k + 1] - y[k]) * (x[k + 1] - x[k]) for k in at]


def saved(figure: Figure, folder: Path, kind: str) -> Path:
    path = folder / f"ecg.{kind}"
    save_ecg(figure, path)
    return path


# ---- true to scale -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pdf", "svg"])
@pytest.mark.parametrize(
    ("layout", "speed", "gain", "rate_hz"),
    [
        ("12x1", 25, 10, 500),
        ("3x4", 25, 10, 500),
        ("6x2", 25, 10, 100),
        ("12x1", 50, 10, 1000),
        ("12x1", 25, 20, 250),
        ("3x4", 50, 5, 400),
    ],
)
def test_a_step_of_1_mv_and_1_s_measures_what_the_paper_says(
    tmp_path: Path, kind: str, layout: Any, speed: Any, gain: Any, rate_hz: int
) -> None:
    figure = draw_ecg((step(rate_hz), rate_hz), layout=layout, speed_mm_s=speed, gain_mm_mv=gain)
    panel = paper_layout(layout, speed_mm_s=speed, gain_mm_mv=gain).panel("I")
    line = trace_of(panel, STROKES[kind](saved(figure, tmp_path, kind))).points
    assert np.ptp(line[:, 1]) == pytest.approx(gain, abs=CLOSE_MM)
    rise, fall = crossings(line, panel.baseline_mm + gain / 2)
    assert fall - rise == pytest.approx(speed, abs=CLOSE_MM)


@pytest.mark.parametrize("kind", ["pdf", "svg"])
def test_the_grid_is_a_line_every_millimetre_and_a_thick_one_every_five(tmp_path: Path, kind: str) -> None:
    strokes = STROKES[kind](saved(draw_ecg((step(500), 500)), tmp_path, kind))
    grids = sorted((stroke for stroke in strokes if len(stroke.pieces) > 50), key=lambda grid: grid.width_mm)
    for grid, spacing, width in zip(grids, (1.0, 5.0), (0.1, 0.25), strict=True):
        assert grid.width_mm == pytest.approx(width, abs=0.01)
        for axis, across in ((0, 270), (1, 190)):
            lines = sorted(piece[0, axis] for piece in grid.pieces if np.ptp(piece[:, axis]) < 0.01)
            assert len(lines) == across / spacing + 1
            np.testing.assert_allclose(np.diff(lines), spacing, atol=0.01)
    thick = {round(float(piece[0, 1]), 2) for piece in grids[1].pieces}
    assert {round(panel.baseline_mm, 2) for panel in paper_layout().panels} <= thick


@pytest.mark.parametrize("kind", ["pdf", "svg"])
def test_a_trace_is_a_pen_line_of_0_3_mm_with_round_joins(tmp_path: Path, kind: str) -> None:
    trace = trace_of(
        paper_layout().panel("I"), STROKES[kind](saved(draw_ecg((step(500), 500)), tmp_path, kind))
    )
    assert 0.25 <= trace.width_mm <= 0.35
    joins = trace.state["j"] if kind == "pdf" else trace.state.get("stroke-linejoin", "round")
    assert joins in ([1.0], "round")  # an SVG of matplotlib's has round joins unless a line says otherwise


@pytest.mark.parametrize("order", ["standard", "cabrera"])
def test_the_pdf_holds_a_real_ecg_to_a_twentieth_of_a_millimetre(
    data_root: Path, tmp_path: Path, order: Any
) -> None:
    record = next(iter(sorted((data_root / "ptbxl" / "records500").rglob("*.hea"))))
    recording = read_recording(record)
    strokes = pdf_strokes(saved(draw_ecg(recording, layout="12x1", order=order), tmp_path, "pdf"))
    drawn = [stroke for stroke in strokes if np.ptp(stroke.points[:, 0]) > 240 and len(stroke.pieces) == 1]
    time_s = np.arange(recording.signal_mv.shape[1]) / recording.rate_hz
    for stroke, panel in zip(drawn, paper_layout("12x1", order=order).panels, strict=True):
        place = np.column_stack(
            [panel.x_mm(time_s), panel.y_mm(recording.signal_mv[LEADS.index(panel.lead)])]
        )
        # Points on straight stretches are left out, so: how far each sample is from the line as drawn.
        assert cKDTree(_dotted(stroke.points)).query(place)[0].max() < CLOSE_MM
        assert cKDTree(_dotted(place)).query(stroke.points)[0].max() < CLOSE_MM


def _dotted(line: np.ndarray) -> np.ndarray:
    """A line as dots, 0.01 mm apart."""
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    dots = np.arange(0, along[-1], 0.01)
    return np.column_stack([np.interp(dots, along, line[:, axis]) for axis in (0, 1)])


@pytest.mark.parametrize(
    ("options", "size_mm"),
    [
        ({}, (297, 210)),
        ({"layout": "12x1"}, (297, 210)),
        ({"layout": "6x2", "order": "cabrera"}, (297, 210)),
        ({"speed_mm_s": 50}, (552, 210)),
        ({"layout": "median"}, (172, 170)),
        ({"layout": "median", "speed_mm_s": 50}, (297, 170)),
        ({"layout": "12x1", "gain_mm_mv": 20}, (297, 330)),
    ],
)
def test_the_sheet_of_ten_seconds_is_a4_and_others_are_as_long_as_they_must_be(
    tmp_path: Path, options: dict[str, Any], size_mm: tuple[float, float]
) -> None:
    page = saved(draw_ecg((step(500), 500), **options), tmp_path, "pdf").read_bytes()
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", page)
    assert box is not None
    assert [float(side) * POINT_MM for side in box.groups()] == pytest.approx(size_mm, abs=0.01)


def test_the_png_has_300_dots_an_inch(tmp_path: Path) -> None:
    content = saved(draw_ecg((step(500), 500)), tmp_path, "png").read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    assert (width, height) == (int(297 / 25.4 * 300), int(210 / 25.4 * 300))
    at = content.index(b"pHYs") + 4
    assert struct.unpack(">I", content[at : at + 4])[0] == pytest.approx(300 / 0.0254, abs=1)


def test_a_gap_in_a_lead_lifts_the_pen(tmp_path: Path) -> None:
    signal = step(500, start_s=6.0)
    signal[:, 1000:2000] = np.nan
    path = saved(draw_ecg((signal, 500), layout="12x1"), tmp_path, "pdf")
    panel = paper_layout("12x1").panel("I")
    before, after = trace_of(panel, pdf_strokes(path)).pieces
    assert before[-1, 0] == pytest.approx(float(panel.x_mm(999 / 500)), abs=0.01)
    assert after[0, 0] == pytest.approx(float(panel.x_mm(4.0)), abs=0.01)
