"""Figures of attention show the numbers that they were given."""

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
from fedecg.report.figures import figure_svg


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
    np.testing.assert_allclose(matrix.images[0].get_array(), attention().leads[0])
    assert [text.get_text() for text in matrix.texts].count("34") == 12
    assert [text.get_text() for text in bars.texts].count("34.0") == 1
    assert [text.get_text() for text in bars.texts].count("6.0") == 11


def strip_images(figure: Figure) -> dict[str, np.ndarray]:
    return {str(image.get_label()): np.asarray(image.get_array()) for image in figure.axes[0].images}


def test_strips_stand_under_their_own_leads() -> None:
    signal_mv = np.random.default_rng(0).normal(0, 0.2, (12, 256)).astype(np.float32)
    figure = attention_paper(signal_mv, 100.0, attention(), layout="12x1", footer="filter 0.5–40 Hz")
    strips = [image for label, image in strip_images(figure).items() if "key" not in label]
    assert len(strips) == 12
    highest = [strip.max() for strip in strips]
    assert np.argmax(highest) == 2
    assert highest[2] == pytest.approx(1)  # 3.52 times even: above twice even, full colour
    change = np.zeros((12, 8))
    change[5, 3] = -0.4
    strips = [
        image
        for label, image in strip_images(occlusion_paper(signal_mv, 100.0, change, layout="12x1")).items()
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
