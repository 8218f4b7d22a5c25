"""Figures of attention show the numbers that they were given."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from fedecg.explanation import Attention, Deletion
from fedecg.explanation.deletion import AreaDifference
from fedecg.report.attention_figures import (
    attention_paper,
    beat_paper,
    deletion_figure,
    group_bars_figure,
    lead_attention_figure,
    lead_change_figure,
    occlusion_paper,
)
from fedecg.report.ecg_layout import PaperOptions
from fedecg.report.figures import figure_svg
from fedecg.report.look import INK


def attention(favourite: int = 9, share: float = 0.34) -> Attention:
    leads = np.full((1, 12, 12), (1 - share) / 11)
    leads[:, :, favourite] = share
    time = np.full((1, 12, 8), 1 / 8)
    time[0, 2] = [0.44, *[0.08] * 7]
    return Attention(time, leads)


def texts(figure: Figure) -> list[str]:
    figure.draw_without_rendering()
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_matrix_and_the_bars_can_be_read() -> None:
    figure = lead_attention_figure(attention())
    matrix, bars = figure.axes
    # 4.08 times even is full colour, 0.72 times even nearly none.
    colours = np.asarray(matrix.images[0].get_array())
    np.testing.assert_allclose(colours[:, 9], 1)
    np.testing.assert_allclose(np.delete(colours, 9, axis=1), (0.72 - 0.5) / (4.08 - 0.5))
    assert [text.get_text() for text in matrix.texts].count("34") == 12
    assert [text.get_text() for text in bars.texts].count("34.0") == 1
    assert [text.get_text() for text in bars.texts].count("6.0") == 11


def test_even_attention_across_leads_does_not_look_high() -> None:
    even = Attention(np.full((1, 12, 8), 1 / 8), np.full((1, 12, 12), 1 / 12))
    matrix = lead_attention_figure(even).axes[0]
    np.testing.assert_allclose(np.asarray(matrix.images[0].get_array()), 0.5 / 1.5)
    assert {text.get_color() for text in matrix.texts} == {INK}


def test_strips_that_begin_between_multiples_of_32_are_drawn_where_they_begin() -> None:
    signal_mv = np.random.default_rng(0).normal(0, 0.2, (12, 256)).astype(np.float32)
    early = replace(attention(), early_samples=6)
    drawn = strip_images(attention_paper(signal_mv, 100.0, early, paper=PaperOptions("12x1")))
    strip = drawn["strip III"][0]
    assert strip.size == 128  # two samples each
    assert np.sum(strip == strip.max()) == 13  # the first step, 6 of its 32 samples before the recording


def strip_images(figure: Figure) -> dict[str, np.ndarray]:
    return {str(image.get_label()): np.asarray(image.get_array()) for image in figure.axes[0].images}


def test_strips_stand_under_their_own_leads() -> None:
    signal_mv = np.random.default_rng(0).normal(0, 0.2, (12, 256)).astype(np.float32)
    figure = attention_paper(
        signal_mv, 100.0, attention(), paper=PaperOptions("12x1"), footer="filter 0.5–40 Hz"
    )
    strips = [image for label, image in strip_images(figure).items() if "key" not in label]
    assert len(strips) == 12
    highest = [strip.max() for strip in strips]
    assert np.argmax(highest) == 2
    assert highest[2] == pytest.approx(1)  # 3.52 times even: above twice even, full colour
    change = np.zeros((12, 8))
    change[5, 3] = -0.4
    strips = [
        image
        for label, image in strip_images(
            occlusion_paper(signal_mv, 100.0, change, paper=PaperOptions("12x1"))
        ).items()
        if "key" not in label
    ]
    assert strips[5].max() == 1
    assert max(strip.max() for number, strip in enumerate(strips) if number != 5) == 0


def test_hiding_nothing_that_matters_is_drawn() -> None:
    signal_mv = np.random.default_rng(0).normal(0, 0.2, (12, 256)).astype(np.float32)
    assert strip_images(occlusion_paper(signal_mv, 100.0, np.zeros((12, 8))))


def test_a_beat_is_drawn_with_its_strip() -> None:
    figure = beat_paper(np.zeros((12, 120)), 100.0, np.linspace(0.9, 1.1, 120) * np.ones((12, 1)))
    strips = [image for label, image in strip_images(figure).items() if "key" not in label]
    assert len(strips) == 12
    assert max(strip.max() for strip in strips) == pytest.approx(0.4)  # 1.1 times even does not look high


def test_bars_of_hiding_carry_their_numbers() -> None:
    change = np.linspace(-0.3, 0.25, 12)
    assert {"-0.300", "+0.250"} <= set(texts(lead_change_figure(change)))
    loss = np.linspace(0, 0.011, 12)
    loss[3] = np.nan
    said = texts(lead_change_figure(np.abs(change), loss))
    assert {"0.300", "0.011", "–"} <= set(said)


def test_the_loss_of_c_is_drawn_with_its_intervals_and_what_it_stands_on() -> None:
    loss = np.linspace(-0.01, 0.02, 12)
    low, high = loss - 0.03, loss + 0.03
    low[4] = high[4] = np.nan
    figure = lead_change_figure(np.ones(12), loss, (low, high), "12 events: too few events")
    (intervals,) = [one for one in figure.axes[1].collections if one.get_label() == "95 % CI"]
    ends = np.array([segment[:, 0] for segment in intervals.get_segments()])
    known = np.delete(np.arange(12), 4)
    np.testing.assert_allclose(ends[known], np.stack([low, high], axis=1)[known])
    np.testing.assert_allclose(ends[4], loss[4])
    assert figure.axes[1].get_title() == "12 events: too few events"
    left, right = figure.axes[1].get_xlim()
    assert left < np.nanmin(low)
    assert right > np.nanmax(high)


def curves(ecgs: int = 30) -> Deletion:
    difference = AreaDifference(0.1, 0.0, 0.2)
    shares = np.array([0, 0.5, 1.0])
    return Deletion(ecgs, shares, np.arange(9.0).reshape(3, 3), np.ones((3, 3)), *[difference] * 4)


def test_the_curves_are_those_of_the_result() -> None:
    figure = deletion_figure(curves())
    lines = figure.axes[0].get_lines()
    assert [str(line.get_label()) for line in lines] == ["attention", "random", "gradient x input"]
    for line, curve in zip(lines, curves().deletion, strict=True):
        np.testing.assert_allclose(line.get_ydata(), curve)


def test_groups_are_named_as_they_are() -> None:
    figure = group_bars_figure({"high $risk$": attention(9), "low": attention(3), "<b>": attention(1)})
    figure.draw_without_rendering()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["high $risk$", "low", "<b>"]
    assert len(figure.axes[0].patches) == 36
    assert b"<b>" not in figure_svg(figure)


def test_nobody_is_said_to_be_nobody() -> None:
    nobody = Attention(np.full((1, 12, 8), np.nan), np.full((1, 12, 12), np.nan))
    for figure in (
        lead_attention_figure(nobody),
        group_bars_figure({"high": nobody}),
        deletion_figure(curves(0)),
    ):
        assert texts(figure) == ["no ECG"]


def test_no_number_of_a_bar_leaves_its_axes() -> None:
    figure = lead_change_figure(np.array([-1.234, *[0.0] * 10, 2.345]), np.array([-0.01, *[0.0] * 10, 0.02]))
    figure.draw_without_rendering()
    for axes in figure.axes:
        box = axes.get_window_extent()
        for text in axes.texts:
            assert isinstance(text, Annotation)
            extent = text.get_window_extent()
            assert extent.x0 >= box.x0 - 1
            assert extent.x1 <= box.x1 + 1
