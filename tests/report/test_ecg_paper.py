"""What stands where on ECG paper, read back from the artists; bytes and words of the files."""

import itertools
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from fedecg.errors import SignalError
from fedecg.report.ecg_layout import STRIP_HEIGHT_MM, PaperPanel, paper_layout
from fedecg.report.ecg_paper import draw_ecg, save_ecg
from fedecg.signals import LEADS, Recording

LAYOUTS = ("3x4", "6x2", "12x1", "median")


def ecg(duration_s: float = 10.0, rate_hz: float = 500.0) -> np.ndarray:
    """(12, samples) mV: something that moves in each lead, and not twice alike."""
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    phases = np.arange(12)[:, None]
    return 0.4 * np.sin(2 * np.pi * 1.1 * time_s + phases) + 0.1 * np.sin(
        2 * np.pi * 0.13 * (phases + time_s)
    )


def saved(figure: Figure, folder: Path, kind: str) -> Path:
    path = folder / f"ecg.{kind}"
    save_ecg(figure, path)
    return path


# ---- what stands where -------------------------------------------------------------------------------------


def axes_of(figure: Figure) -> Axes:
    return figure.axes[0]


def lines(figure: Figure, label: str) -> list[np.ndarray]:
    return [np.asarray(line.get_xydata()) for line in axes_of(figure).lines if line.get_label() == label]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in axes_of(figure).texts]


def in_mv(panel: PaperPanel, line: np.ndarray) -> np.ndarray:
    return (line[:, 1] - panel.baseline_mm) / panel.gain_mm_mv * panel.sign


def test_the_places_of_the_usual_sheet_are_those_worked_out_by_hand() -> None:
    paper = paper_layout()
    # 13.5 margin, 5, 2.5 + 5 + 2.5 for the pulse; four rows 40 apart, 15 spare, 20 above each row's lower edge
    assert [paper.panel(lead).left_mm for lead in ("I", "aVR", "V1", "V4")] == [28.5, 91.0, 153.5, 216.0]
    assert [paper.panel(lead).baseline_mm for lead in ("I", "II", "III")] == [165.0, 125.0, 85.0]
    assert [panel.lead for panel in paper.panels if panel.rhythm] == ["II"]
    rhythm = paper.panels[-1]
    assert (rhythm.left_mm, rhythm.baseline_mm, rhythm.start_s, rhythm.stop_s) == (28.5, 45.0, 0.0, 10.0)
    v1 = paper.panel("V1")
    assert float(v1.x_mm(5.2)) == pytest.approx(153.5 + 5.0)
    assert float(v1.y_mm(-0.5)) == pytest.approx(160.0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("order", ["standard", "cabrera"])
def test_each_lead_is_drawn_in_its_own_window_at_its_own_height(layout: Any, order: Any) -> None:
    signal, rate_hz = ecg(1.2 if layout == "median" else 10.0), 500.0
    figure = draw_ecg((signal, rate_hz), layout=layout, order=order)
    paper = paper_layout(layout, order=order, duration_s=signal.shape[1] / rate_hz)
    for panel in paper.panels:
        (line,) = lines(figure, f"{'rhythm' if panel.rhythm else 'trace'} {panel.lead}")
        sample = (panel.start_s + (line[:, 0] - panel.left_mm) / 25) * rate_hz
        np.testing.assert_allclose(sample, np.round(sample), atol=1e-6)
        assert sample[0] == pytest.approx(panel.start_s * rate_hz)
        assert sample[-1] >= panel.stop_s * rate_hz - 1.001
        expected = signal[LEADS.index(panel.lead)].astype(np.float32)[np.round(sample).astype(int)]
        np.testing.assert_allclose(in_mv(panel, line), expected, atol=1e-6)


def test_columns_follow_each_other_in_time_above_the_rhythm_strip() -> None:
    paper = paper_layout("3x4")
    assert [paper.panel(lead).start_s for lead in ("I", "aVF", "V2", "V6")] == [0.0, 2.5, 5.0, 7.5]
    for panel in paper.panels:
        assert float(panel.x_mm(panel.start_s)) == pytest.approx(float(paper.panels[-1].x_mm(panel.start_s)))


def test_a_median_beat_shows_every_lead_over_the_same_time() -> None:
    panels = paper_layout("median", duration_s=1.2).panels
    assert {(panel.start_s, panel.stop_s) for panel in panels} == {(0.0, 1.2)}
    assert [panel.row for panel in panels] == [0, 1, 2] * 4
    assert panels[3].left_mm - panels[0].left_mm == pytest.approx(1.2 * 25 + 2.5)


def test_cabrera_orders_the_limb_leads_by_angle_and_turns_avr_over() -> None:
    figure = draw_ecg((ecg(), 500), layout="12x1", order="cabrera", rhythm_lead="aVR")
    labels = [text for text in texts(figure) if text.lstrip("−") in LEADS]
    assert labels == ["aVL", "I", "−aVR", "II", "aVF", "III", "V1", "V2", "V3", "V4", "V5", "V6"]
    drawn = paper_layout("12x1", order="cabrera")
    (line,) = lines(figure, "trace aVR")
    upward = (line[:, 1] - drawn.panel("aVR").baseline_mm) / 10
    np.testing.assert_allclose(upward, -ecg()[LEADS.index("aVR")], atol=1e-6)


def test_a_rhythm_strip_of_avr_is_upright_and_says_so_in_cabrera_order_too() -> None:
    rhythm = paper_layout("3x4", order="cabrera", rhythm_lead="aVR").panels[-1]
    assert (rhythm.label, rhythm.sign) == ("aVR", 1.0)


@pytest.mark.parametrize(("layout", "rows"), [("3x4", 4), ("6x2", 6), ("12x1", 12), ("median", 3)])
@pytest.mark.parametrize(("speed", "gain"), [*itertools.product((25, 50), (5, 10, 20))])
def test_every_row_starts_with_1_mv_for_a_fifth_of_a_second(
    layout: Any, rows: int, speed: Any, gain: Any
) -> None:
    figure = draw_ecg((ecg(), 500), layout=layout, speed_mm_s=speed, gain_mm_mv=gain)
    paper = paper_layout(layout, speed_mm_s=speed, gain_mm_mv=gain)
    pulses = lines(figure, "calibration")
    assert len(pulses) == rows
    for pulse, baseline in zip(pulses, paper.baselines_mm, strict=True):
        low, high = pulse[:, 1].min(), pulse[:, 1].max()
        assert (low, high) == pytest.approx((baseline, baseline + gain))
        assert high <= paper.top_mm
        raised = pulse[pulse[:, 1] > baseline]
        assert np.ptp(raised[:, 0]) == pytest.approx(0.2 * speed)
        assert pulse[-1, 0] == pytest.approx(paper.panels[0].left_mm)


# ---- short, long, missing, enormous ------------------------------------------------------------------------


def test_a_lead_that_was_not_recorded_and_a_flat_one_are_dashed_and_say_so() -> None:
    signal = ecg()
    signal[LEADS.index("V2")] = np.nan
    signal[LEADS.index("aVL")] = 0.7  # wherever it is stuck
    figure = draw_ecg((signal, 500))
    for lead, said in (("V2", "not recorded"), ("aVL", "flat")):
        artist = next(line for line in axes_of(figure).lines if line.get_label() == f"trace {lead}")
        panel = paper_layout().panel(lead)
        assert artist.is_dashed()
        np.testing.assert_allclose(
            artist.get_xydata(),
            [(panel.left_mm, panel.baseline_mm), (panel.left_mm + 62.5, panel.baseline_mm)],
        )
        (text,) = [text for text in axes_of(figure).texts if text.get_text() == said]
        assert text.get_position()[1] == panel.baseline_mm + 1
    assert sum(line.is_dashed() for line in axes_of(figure).lines) == 2


def test_a_pause_is_no_flat_lead() -> None:
    signal = ecg()
    signal[:, :1250] = 0.0
    figure = draw_ecg((signal, 500))
    assert "flat" not in texts(figure)
    assert not any(line.is_dashed() for line in axes_of(figure).lines)


def test_a_lead_that_is_recorded_elsewhere_but_not_in_its_window_was_not_recorded_there() -> None:
    signal = ecg()
    signal[1, : 1250 + 1] = np.inf
    figure = draw_ecg((signal, 500))
    assert texts(figure).count("not recorded") == 1
    (rhythm,) = lines(figure, "rhythm II")
    assert np.isnan(rhythm[:, 1]).sum() == 1251


@pytest.mark.parametrize("layout", LAYOUTS)
def test_enormous_waves_cross_rows_but_never_leave_the_grid(layout: Any) -> None:
    figure = draw_ecg((ecg() * 1e4, 500), layout=layout)
    paper = paper_layout(layout)
    heights = np.concatenate([np.asarray(line.get_ydata()) for line in axes_of(figure).lines])
    assert paper.bottom_mm < heights.min() < paper.bottom_mm + 1
    assert paper.top_mm - 1 < heights.max() < paper.top_mm


def test_a_wave_of_3_4_mv_is_whole_even_in_the_first_row() -> None:
    signal = ecg()
    signal[0, 600] = 3.4
    (line,) = lines(draw_ecg((signal, 500)), "trace I")
    assert in_mv(paper_layout().panel("I"), line).max() == pytest.approx(3.4)


def test_the_middle_of_a_long_recording_is_drawn_and_the_footer_says_which() -> None:
    signal = ecg(30.0, 100.0)
    figure = draw_ecg((signal, 100), layout="12x1")
    (line,) = lines(figure, "trace V5")
    panel = paper_layout("12x1", duration_s=30).panel("V5")
    np.testing.assert_allclose(in_mv(panel, line), signal[10, 1000:2001], atol=1e-6)
    assert texts(figure)[-1].endswith("10.0–20.0 s of 30.0 s")


def test_columns_of_a_short_recording_overlap_rather_than_stay_empty() -> None:
    paper = paper_layout("3x4", duration_s=5.5)
    assert [paper.panel(lead).start_s for lead in ("I", "aVR", "V1", "V4")] == [0.0, 1.0, 2.0, 3.0]
    assert {panel.stop_s - panel.start_s for panel in paper.panels if not panel.rhythm} == {2.5}
    assert texts(draw_ecg((ecg(5.5), 500)))[-1].endswith("5.5 s recorded: columns overlap in time")


def test_a_recording_shorter_than_a_column_ends_where_it_ends() -> None:
    figure = draw_ecg((ecg(1.0), 500))
    for lead in LEADS:
        (line,) = lines(figure, f"trace {lead}")
        assert len(line) == 500
        assert line[0, 0] == paper_layout().panel(lead).left_mm


@given(
    layout=st.sampled_from(LAYOUTS),
    duration_s=st.floats(0.01, 4000.0),
    speed=st.sampled_from((25, 50)),
    gain=st.sampled_from((5, 10, 20)),
    order=st.sampled_from(("standard", "cabrera")),
    rhythm_lead=st.sampled_from(LEADS),
)
def test_whatever_its_length_each_lead_has_one_place_on_the_grid(
    layout: Any, duration_s: float, speed: Any, gain: Any, order: Any, rhythm_lead: str
) -> None:
    paper = paper_layout(
        layout,
        duration_s=duration_s,
        speed_mm_s=speed,
        gain_mm_mv=gain,
        order=order,
        rhythm_lead=rhythm_lead,
    )
    assert sorted(panel.lead for panel in paper.panels if not panel.rhythm) == sorted(LEADS)
    for panel in paper.panels:
        assert 0 <= panel.start_s < panel.stop_s <= duration_s
        left, right = panel.x_mm([panel.start_s, panel.stop_s])
        assert paper.left_mm < left < right < paper.right_mm
        assert paper.bottom_mm < panel.strip_mm < panel.strip_mm + STRIP_HEIGHT_MM < panel.baseline_mm
        assert panel.baseline_mm < panel.label_mm < paper.top_mm - 3
    boxes = [(panel.row, *panel.x_mm([panel.start_s, panel.stop_s])) for panel in paper.panels]
    for row in {panel.row for panel in paper.panels}:
        spans = sorted(box[1:] for box in boxes if box[0] == row)
        assert all(before[1] <= after[0] + 1e-6 for before, after in itertools.pairwise(spans))


@settings(max_examples=15, deadline=None)
@given(rate_hz=st.floats(100, 1000), duration_s=st.floats(0.5, 12.0))
def test_any_rate_and_length_can_be_drawn(rate_hz: float, duration_s: float) -> None:
    signal = ecg(duration_s, rate_hz)
    figure = draw_ecg((signal, rate_hz))
    paper = paper_layout(duration_s=signal.shape[1] / rate_hz)
    for panel in paper.panels:
        (line,) = lines(figure, f"{'rhythm' if panel.rhythm else 'trace'} {panel.lead}")
        spare_mm = 25 / rate_hz + 1e-3  # a sample, where a window begins between two
        assert line[0, 0] == pytest.approx(panel.left_mm, abs=spare_mm)
        assert line[-1, 0] == pytest.approx(float(panel.x_mm(panel.stop_s)), abs=spare_mm)


# ---- strips ------------------------------------------------------------------------------------------------


def strip_images(figure: Figure, lead: str) -> list[AxesImage]:
    return [image for image in axes_of(figure).images if image.get_label() == f"strip {lead}"]


def test_a_strip_stands_under_its_trace_at_the_time_it_speaks_of() -> None:
    # 20 pieces of 0.5 s; V1 is shown from 5.0 to 7.5 s: pieces 10 to 14, 12.5 mm each
    values = np.arange(20) / 20
    figure = draw_ecg((ecg(), 500), strips={"V1": values})
    (image,) = strip_images(figure, "V1")
    panel = paper_layout().panel("V1")
    np.testing.assert_array_equal(np.asarray(image.get_array()), values[None, 10:15])
    left, right, low, high = image.get_extent()
    assert (left, right) == pytest.approx((panel.left_mm, panel.left_mm + 62.5))
    assert (high - low, high) == pytest.approx((2.0, panel.strip_mm + 2.0))
    assert high < panel.baseline_mm
    assert not strip_images(figure, "V2")


def test_pieces_that_a_window_cuts_keep_their_place_in_time() -> None:
    # 3 pieces of 3.33 s; aVR is shown from 2.5 to 5.0 s: pieces 0 and 1, of which the window shows a part
    figure = draw_ecg((ecg(), 500), strips={"aVR": np.array([0.1, 0.2, 0.3])})
    (image,) = strip_images(figure, "aVR")
    panel = paper_layout().panel("aVR")
    assert np.asarray(image.get_array()).tolist() == [[0.1, 0.2]]
    assert image.get_extent()[:2] == pytest.approx(
        (panel.left_mm - 62.5, panel.left_mm + 25 * (20 / 3 - 2.5))
    )
    clip = image.get_clip_box()
    assert clip is not None
    shown = axes_of(figure).transData.inverted().transform(clip.extents.reshape(2, 2))
    assert shown[:, 0] == pytest.approx((panel.left_mm, panel.left_mm + 62.5))


def test_a_strip_of_the_rhythm_lead_stands_under_both_its_traces() -> None:
    figure = draw_ecg((ecg(), 500), strips={"II": np.linspace(0, 1, 40)})
    short, whole = strip_images(figure, "II")
    assert np.asarray(short.get_array()).shape == (1, 10)
    assert np.asarray(whole.get_array()).shape == (1, 40)


def test_strips_have_one_hue_that_darkens_and_a_key() -> None:
    figure = draw_ecg(
        (ecg(), 500), strips={"I": [0.0, np.nan, 1.0, 0.5]}, layout="12x1", strip_label="attention"
    )
    (image,) = strip_images(figure, "I")
    shades = image.cmap(np.linspace(0, 1, 11))[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert np.all(np.diff(shades) < 0)
    blank = image.to_rgba(image.get_array())[0, 1]
    assert blank[3] == 0  # NaN: the paper shows
    assert to_hex(image.to_rgba(image.get_array())[0, 2]) == "#0072b2"
    assert [text for text in texts(figure) if "low" in text] == ["attention   low"]
    assert "high" in texts(figure)
    assert "high" not in texts(draw_ecg((ecg(), 500)))


@pytest.mark.parametrize(
    "strips", [{"I": [0.2, 1.2]}, {"I": [-0.1]}, {"I": []}, {"I": [[0.1]]}, {"I": [np.inf]}, {"V7": [0.5]}]
)
def test_strips_that_cannot_be_are_refused(strips: dict[str, Any]) -> None:
    with pytest.raises(SignalError, match=r"FECG-262 strip under a trace: .* values from 0 to 1 or NaN"):
        draw_ecg((ecg(), 500), strips=strips)


# ---- files and words ---------------------------------------------------------------------------------------


def test_the_sheet_says_leads_speed_gain_and_filter_and_nothing_else() -> None:
    figure = draw_ecg((ecg(), 500), footer="0.5–40 Hz, 50 Hz notch")
    assert sorted(texts(figure)) == sorted([*LEADS, "II", "25 mm/s     10 mm/mV     0.5–40 Hz, 50 Hz notch"])
    assert len(figure.texts) == 0


def test_a_footer_is_plain_text_of_one_line(tmp_path: Path) -> None:
    figure = draw_ecg((ecg(), 500), footer="<b>$\\alpha$\n\x1b[31m", strip_label="$x$", strips={"I": [0.0]})
    assert texts(figure)[-3].endswith("<b>$\\alpha$??[31m")
    assert b"<b>" not in saved(figure, tmp_path, "svg").read_bytes()


@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_the_same_ecg_gives_the_same_bytes_without_a_date(tmp_path: Path, kind: str) -> None:
    options: dict[str, Any] = {"strips": {"V3": np.linspace(0, 1, 50)}, "footer": "0.5–40 Hz"}
    first = saved(draw_ecg((ecg(), 500), **options), tmp_path, kind).read_bytes()
    with mpl.rc_context(
        {"savefig.bbox": "tight", "lines.linewidth": 9, "font.size": 20, "svg.fonttype": "none"}
    ):
        second = saved(draw_ecg((ecg(), 500), **options), tmp_path, kind).read_bytes()
    assert first == second
    assert not re.search(rb"Date|[Mm]atplotlib v|20\d\d-\d\d-\d\d", first)


def test_the_suffix_may_be_in_capitals_and_another_is_refused(tmp_path: Path) -> None:
    save_ecg(draw_ecg((ecg(), 500)), tmp_path / "ECG.PDF")
    assert (tmp_path / "ECG.PDF").read_bytes().startswith(b"%PDF")
    with pytest.raises(SignalError, match=r"FECG-263 file for the ECG: .* ends in \.svg, \.pdf or \.png"):
        save_ecg(draw_ecg((ecg(), 500)), tmp_path / "ecg.jpg")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "4x3"}, "layout of the ECG paper: .* 3x4, 6x2, 12x1, median"),
        ({"speed_mm_s": 30}, "speed in mm/s of the ECG paper: .* 25, 50"),
        ({"gain_mm_mv": 2}, "gain in mm/mV of the ECG paper: .* 5, 10, 20"),
        ({"order": "nehb"}, "order of the leads of the ECG paper: .* standard, cabrera"),
        ({"rhythm_lead": "V9"}, "rhythm lead of the ECG paper: .* one of I, II"),
        ({"duration_s": 0.0}, "duration of the recording on ECG paper: .* seconds, > 0"),
    ],
)
def test_options_that_there_are_none_of_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SignalError, match=f"FECG-261 {message}"):
        paper_layout(**options)


def test_a_recording_and_its_bare_signal_are_drawn_alike_and_a_wrong_shape_is_refused(tmp_path: Path) -> None:
    signal = ecg().astype(np.float32)
    whole = saved(draw_ecg(Recording(signal, 500)), tmp_path, "svg").read_bytes()
    assert whole == saved(draw_ecg((signal, 500)), tmp_path, "svg").read_bytes()
    with pytest.raises(SignalError, match="FECG-211"):
        draw_ecg((signal[:8], 500))


def test_a_drawing_leaves_the_signal_as_it_was() -> None:
    signal = ecg().astype(np.float32)
    signal[3, 5] = np.inf
    before = signal.copy()
    draw_ecg(Recording(signal, 500))
    np.testing.assert_array_equal(signal, before)
