"""Survival and calibration figures hold the right data, stay legible, and come out the same every time."""

import csv
import io
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedecg.report.assessment_figures import calibration_figure, group_names, shown, survival_figure
from fedecg.report.figure_data import survival_csv
from fedecg.report.figures import figure_svg, save_figures

Entry = dict[str, Any]
MakeAssessment = Callable[..., Entry]
YEAR = 365.25
STUDIES: dict[str, dict[str, Any]] = {
    "usual": {"sites": {"a": 900, "b": 300}},
    "deaths": {"sites": {"a": 900, "b": 300}, "deaths": True},
    "no events": {"sites": {"a": 100, "b": 50}, "events": False},
    "short": {"sites": {"a": 200, "b": 40}, "follow_up_years": 0.6},
    "tiny": {"sites": {"a": 36, "b": 24, "c": 0}},
    "large": {"sites": {"a": 60_000}},
    "ten groups": {"sites": {"a": 4000}, "groups": 10},
    "one patient": {"sites": {"a": 1}},
    "nobody": {"sites": {"a": 0}},
}


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def line(axes: Axes, label: str) -> np.ndarray:
    return np.asarray(next(one for one in axes.get_lines() if one.get_label() == label).get_xydata())


def test_a_survival_curve_starts_at_1_and_holds_each_bin_from_its_end_on(assessment: Entry) -> None:
    axes = survival_figure(assessment, simulated=True).axes[0]
    curves = assessment["survival"]
    for group, name in enumerate(("low", "middle", "high")):
        drawn = line(axes, name)
        assert drawn[0].tolist() == [0, 1]
        assert drawn[1:, 0] * YEAR == pytest.approx(curves["edges-days"][1 : len(drawn)])
        assert drawn[1:, 1].tolist() == curves["survival"][group][: len(drawn) - 1]
    assert all(one.get_drawstyle() == "steps-post" for one in axes.get_lines())


def test_the_curve_at_a_horizon_is_the_value_at_that_horizon(assessment: Entry) -> None:
    drawn = line(survival_figure(assessment, simulated=True).axes[0], "high")
    at_5_years = drawn[np.isclose(drawn[:, 0], 5), 1]
    assert at_5_years.tolist() == [assessment["survival-at-horizons"]["value"][2][2]]


def test_the_bands_are_the_95_percent_intervals(assessment: Entry) -> None:
    axes = survival_figure(assessment, simulated=True).axes[0]
    curves = assessment["survival"]
    band = axes.collections[2].get_paths()[0].vertices
    edge = curves["edges-days"][41] / YEAR
    heights = band[np.isclose(band[:, 0], edge), 1]
    for name in ("ci-low", "ci-high"):
        assert np.isclose(heights, curves[name][2][40]).any()


def test_curves_end_where_20_are_at_risk_in_the_smallest_group(assessment: Entry) -> None:
    curves = assessment["survival"]
    limit = line(survival_figure(assessment, simulated=True).axes[0], "low")[-1, 0] * YEAR
    at = int(np.flatnonzero(np.isclose(curves["edges-days"], limit))[0])
    at_risk = np.array(curves["at-risk"])
    assert at_risk[:, at].min() >= 20
    assert at_risk[:, at + 1].min() < 20


def test_a_curve_ends_with_the_last_patient_of_its_group(assessment: Entry) -> None:
    curves = assessment["survival"]
    for group, last in ((0, 5), (2, 9)):  # the last bin in which anybody of the group is at risk
        curves["at-risk"][group] = [30.0] * (last + 1) + [0.0] * (len(curves["edges-days"]) - last - 1)
    curves["at-risk"][1] = [400.0] * len(curves["edges-days"])
    figure = survival_figure(assessment, simulated=True)
    for name, last in (("low", 5), ("high", 9)):
        drawn = line(figure.axes[0], name)
        seen = drawn[np.isfinite(drawn[:, 1]), 0]
        assert seen.max() == pytest.approx(
            curves["edges-days"][last + 1] / YEAR
        )  # with what its bin ended in
    assert np.isfinite(line(figure.axes[0], "middle")[:, 1]).all()
    told = list(csv.DictReader(io.StringIO(survival_csv(assessment))))
    assert sum(row["risk-group"] == "low" for row in told) == 7
    assert all(row["survival"] for row in told)


def test_small_studies_are_shown_while_1_patient_in_20_is_at_risk() -> None:
    edges = [0.0, 400.0, 800.0, 1200.0]
    assert shown(edges, [[30, 25, 20, 3], [90, 80, 70, 60]]) == (800.0, True)
    assert shown(edges, [[30, 25, 20, 3], [0, 0, 0, 0]]) == (800.0, True)  # an empty group decides nothing
    assert shown(edges, [[10, 8, 3, 0], [30, 20, 2, 1]]) == (800.0, False)
    assert shown(edges, [[10, 0, 0, 0], [30, 0, 0, 0]]) == (400.0, False)
    assert shown(edges, [[0, 0, 0, 0]]) == (0.0, False)


def test_numbers_at_risk_stand_below_whole_years(assessment: Entry) -> None:
    axes, below = survival_figure(assessment, simulated=True).axes
    curves = assessment["survival"]
    rows = [label.get_text() for label in below.get_yticklabels()]
    assert rows == ["high", "middle", "low"]
    written = {(text.get_position()[0], text.get_position()[1]): text.get_text() for text in below.texts}
    ticks = [float(tick) for tick in axes.get_xticks()]
    assert ticks == [float(year) for year in range(len(ticks))]
    for year, (row, group) in itertools.product(ticks, enumerate((2, 1, 0))):
        at = int(np.searchsorted(curves["edges-days"], year * YEAR, side="right")) - 1
        assert written[year, row] == f"{curves['at-risk'][group][at]:,}"


def test_with_deaths_the_cumulative_incidence_of_the_event_is_drawn(make_assessment: MakeAssessment) -> None:
    entry = make_assessment({"a": 900, "b": 300}, deaths=True)
    figure = survival_figure(entry, simulated=True)
    drawn = line(figure.axes[0], "high")
    assert drawn[0].tolist() == [0, 0]
    assert drawn[1:, 1].tolist() == entry["incidence"]["incidence"][2][0][: len(drawn) - 1]
    assert "Cumulative incidence by group of risk" in texts(figure)
    assert figure.axes[0].get_ylim()[0] == 0


def test_the_log_rank_test_stands_in_the_figure(assessment: Entry) -> None:
    assessment["log-rank-by-site"]["p-value"] = 0.0312
    assert "log-rank p = 0.031 (stratified by site)" in texts(survival_figure(assessment, simulated=True))
    assessment["log-rank-by-site"]["p-value"] = None
    assert "log-rank test: nothing to compare" in texts(survival_figure(assessment, simulated=True))


def test_an_axis_that_does_not_start_at_0_says_so(assessment: Entry) -> None:
    axes = survival_figure(assessment, simulated=True).axes[0]
    bottom = axes.get_ylim()[0]
    assert bottom > 0
    assert axes.get_ylabel() == f"without the event (from {100 * bottom:.0f} %)"


def test_groups_keep_apart_in_grey_by_their_strokes(make_assessment: MakeAssessment) -> None:
    for groups in (2, 3, 10):
        axes = survival_figure(make_assessment({"a": 4000}, groups=groups), simulated=True).axes[0]
        looks = {(one.get_color(), str(one._dash_pattern)) for one in axes.get_lines()}  # type: ignore[attr-defined]
        assert len(looks) == groups == len(set(group_names(groups)))


def test_names_beside_the_curves_do_not_overlap(make_assessment: MakeAssessment) -> None:
    for study in ("no events", "ten groups"):
        figure = survival_figure(make_assessment(**STUDIES[study]), simulated=True)
        figure_svg(figure)
        boxes = sorted((text.get_window_extent() for text in figure.axes[0].texts), key=lambda box: box.y0)
        assert len(boxes) > 1
        assert all(low.y1 <= high.y0 for low, high in itertools.pairwise(boxes))


def test_calibration_points_are_the_groups_at_the_last_horizon_with_figures(assessment: Entry) -> None:
    axes = calibration_figure(assessment, simulated=True).axes[0]
    risk = assessment["risk-calibration"]
    assert risk["ratio"][3] is None
    assert line(axes, "groups").tolist() == [
        list(pair) for pair in zip(risk["predicted"][2], risk["observed"][2], strict=True)
    ]
    assert axes.get_xlabel() == "predicted risk at 5 years"
    assert axes.get_xlim() == axes.get_ylim()
    assert line(axes, "equal")[:, 0].tolist() == line(axes, "equal")[:, 1].tolist()


def test_calibration_intervals_are_1_96_standard_errors_within_0_and_1(assessment: Entry) -> None:
    axes = calibration_figure(assessment, simulated=True).axes[0]
    risk = assessment["risk-calibration"]
    spans = [segment[:, 1].tolist() for segment in axes.collections[0].get_segments()]  # type: ignore[attr-defined]
    for (low, high), observed, se in zip(spans, risk["observed"][2], risk["observed-se"][2], strict=True):
        assert low == pytest.approx(max(0, observed - 1.959964 * se))
        assert high == pytest.approx(observed + 1.959964 * se)


def test_the_panel_of_the_calibration_is_square(assessment: Entry) -> None:
    figure = calibration_figure(assessment, simulated=True)
    figure_svg(figure)
    box = figure.axes[0].get_window_extent()
    assert box.width == pytest.approx(box.height)


def test_groups_without_an_interval_are_open(make_assessment: MakeAssessment) -> None:
    entry = make_assessment({"a": 100, "b": 50}, events=False)
    figure = calibration_figure(entry, simulated=True)
    axes = figure.axes[0]
    assert "groups" not in [one.get_label() for one in axes.get_lines()]
    assert line(axes, "no interval")[:, 1].tolist() == [0.0] * 10
    assert "open: no interval (none or all had the event)" in texts(figure)


def test_the_calibration_tells_ratio_and_slope(assessment: Entry) -> None:
    risk, whole = assessment["risk-calibration"], assessment["hazard-calibration"]
    text = "\n".join(texts(calibration_figure(assessment, simulated=True)))
    assert f"O/E at this horizon: {risk['ratio'][2]:.2f} ({risk['ratio-low'][2]:.2f}–" in text
    assert f"Calibration slope, over the whole follow-up: {whole['slope']:.2f} (" in text


def test_groups_without_patients_are_left_out(assessment: Entry) -> None:
    for name in ("predicted", "observed", "observed-se"):
        assessment["risk-calibration"][name][2][0] = None
    assert len(line(calibration_figure(assessment, simulated=True).axes[0], "groups")) == 9
    for name in ("survival", "ci-low", "ci-high"):
        assessment["survival"][name][0] = [None] * len(assessment["survival"][name][0])
    assessment["survival"]["at-risk"][0] = [0] * len(assessment["survival"]["at-risk"][0])
    drawn = survival_figure(assessment, simulated=True).axes[0].get_lines()
    assert [one.get_label() for one in drawn] == ["middle", "high"]


def test_what_is_missing_is_said(make_assessment: MakeAssessment) -> None:
    nobody = make_assessment({"a": 0})
    assert "no patients were evaluated" in texts(survival_figure(nobody, simulated=True))
    assert "no horizon has figures" in texts(calibration_figure(nobody, simulated=True))


@pytest.mark.parametrize("study", STUDIES)
def test_no_text_is_cut_at_the_edge(make_assessment: MakeAssessment, study: str) -> None:
    entry = make_assessment(**STUDIES[study])
    for figure in (survival_figure(entry, simulated=True), calibration_figure(entry, simulated=True)):
        figure_svg(figure)
        box = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height


@pytest.mark.parametrize("study", STUDIES)
def test_numbers_at_risk_do_not_overlap(make_assessment: MakeAssessment, study: str) -> None:
    figure = survival_figure(make_assessment(**STUDIES[study]), simulated=True)
    figure_svg(figure)
    written = [*figure.axes[-1].texts, *figure.axes[-1].get_yticklabels()] if len(figure.axes) == 2 else []
    boxes = [text.get_window_extent() for text in written if text.get_text()]
    for one, other in itertools.combinations(boxes, 2):
        assert not (one.x0 < other.x1 and other.x0 < one.x1 and one.y0 < other.y1 and other.y0 < one.y1)


def test_both_figures_are_labelled_when_outcomes_are_simulated(assessment: Entry) -> None:
    for draw in (survival_figure, calibration_figure):
        assert "SIMULATED outcomes" in texts(draw(assessment, simulated=True))
        assert not any("simulated" in text.lower() for text in texts(draw(assessment, simulated=False)))


def test_files_of_an_assessment_stand_beside_the_others_and_are_the_same_every_time(
    assessment: Entry, summary: dict[str, Any], rounds: list[dict[str, Any]], tmp_path: Path
) -> None:
    first = save_figures(summary, rounds, tmp_path / "a", assessment)
    second = save_figures(summary, rounds, tmp_path / "b", assessment)
    assert [path.name for path in first[6:]] == [
        f"{name}.{kind}"
        for name in ("survival", "calibration", "decision", "subgroups")
        for kind in ("png", "svg")
    ]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
