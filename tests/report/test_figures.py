"""Figures hold the right data, stay legible with odd names, and come out the same every time."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fedecg.errors import RunError
from fedecg.report.figures import (
    comparison_figure,
    figure_svg,
    rounds_figure,
    save_figures,
    sites_figure,
)

Summary = dict[str, Any]
Rounds = list[dict[str, Any]]


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def _line(axes: Axes, label: str) -> np.ndarray:
    line = next(line for line in axes.get_lines() if line.get_label() == label)
    return np.asarray(line.get_xydata())


def test_the_comparison_shows_each_column_where_it_belongs(summary: Summary) -> None:
    axes = comparison_figure(summary).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[0] == "site only"  # lowest; the table reads from the top
    for key, label in (("federated", "federated"), ("local-mean", "local, mean")):
        value = summary["columns"][key]["c-index-stratified"]
        assert _line(axes, label).tolist() == [[value, labels.index(label)]]
    assert _line(axes, "chance")[:, 0].tolist() == [0.5, 0.5]


def test_the_comparison_draws_the_stratified_interval(summary: Summary) -> None:
    axes = comparison_figure(summary).axes[0]
    spans = {tuple(np.asarray(line.get_xdata())) for line in axes.get_lines()}
    pooled = summary["columns"]["pooled"]
    assert (pooled["stratified-ci-low"], pooled["stratified-ci-high"]) in spans


def test_null_columns_are_left_out_of_the_comparison(summary: Summary) -> None:
    summary["columns"]["true-hazard"] = None
    summary["columns"]["pooled"]["stratified-ci-low"] = None
    axes = comparison_figure(summary).axes[0]
    assert "true hazard" not in [label.get_text() for label in axes.get_yticklabels()]
    summary["columns"] = {}
    assert "no model was scored" in _texts(comparison_figure(summary))


def test_rounds_hold_stratified_line_bounds_and_best_round(summary: Summary, rounds: Rounds) -> None:
    axes = rounds_figure(summary, rounds).axes[0]
    survival = [entry for entry in rounds if entry["stage"] == "survival"]
    wanted = [[entry["round"], entry["validation"]["stratified"]] for entry in survival]
    assert _line(axes, "stratified C").tolist() == wanted
    assert _line(axes, "best round (9)").tolist() == [wanted[8]]
    band = axes.collections[0].get_paths()[0].vertices
    for entry in survival:
        heights = band[band[:, 0] == entry["round"], 1]
        bounds = entry["validation"]
        assert (heights.min(), heights.max()) == pytest.approx((bounds["lower"], bounds["upper"]))


def test_rounds_leave_a_gap_where_a_bound_is_null(summary: Summary, rounds: Rounds) -> None:
    rounds[-1]["validation"].update({"global": None, "lower": None, "upper": None})
    axes = rounds_figure(summary, rounds).axes[0]
    assert math.isnan(_line(axes, "global C")[-1, 1])


def test_rounds_without_scores_or_best_round_still_draw(summary: Summary, rounds: Rounds) -> None:
    assert "no round was scored" in _texts(rounds_figure(summary, rounds[:4]))
    summary["best-round"] = None
    assert not any("best round" in text for text in _texts(rounds_figure(summary, rounds)))


def test_sites_show_patients_events_and_shares_of_labels(summary: Summary) -> None:
    figure = sites_figure(summary)
    sizes, mixes = figure.axes
    bars = {container.get_label(): container for container in sizes.containers}
    sites = summary["sites"][::-1]
    assert [bar.get_width() for bar in bars["patients"]] == [site["patients"] for site in sites]
    assert [bar.get_width() for bar in bars["events"]] == [site["events"] for site in sites]
    ends = [bar.get_x() + bar.get_width() for bar in mixes.containers[-1]]
    assert ends == pytest.approx([1.0] * len(sites))
    assert "2,140 / 128" in " ".join(_texts(figure))


def test_rare_labels_are_gathered_in_one_piece(summary: Summary) -> None:
    summary["sites"] = [
        {"name": "a", "patients": 9, "events": 1, "label-mix": {f"L{k}": 9 - k for k in range(9)}},
        {"name": "b", "patients": 0, "events": 0, "label-mix": {}},
    ]
    mixes = sites_figure(summary).axes[1]
    assert [container.get_label() for container in mixes.containers] == [
        *(f"L{k}" for k in range(6)),
        "other",
    ]
    piece = mixes.containers[-1][1]
    assert isinstance(piece, Rectangle)
    assert piece.get_width() == pytest.approx((3 + 2 + 1) / 45)


def test_sites_without_a_label_mix_take_one_panel(summary: Summary) -> None:
    summary["sites"] = [{"name": "a", "patients": 5, "events": 1}]
    assert len(sites_figure(summary).axes) == 1
    summary["sites"] = []
    assert "no sites" in _texts(sites_figure(summary))


def test_hostile_and_long_names_are_drawn_as_they_stand(summary: Summary) -> None:
    summary["sites"][0].update({"name": "$\\frac{$</svg><script>", "label-mix": {"$x^$_{": 1, "_hidden": 1}})
    summary["sites"][1]["name"] = "the-very-long-name-of-a-hospital-07"
    figure = sites_figure(summary)
    svg = figure_svg(figure)
    assert b"<script" not in svg
    assert svg.count(b"</svg>") == 1
    texts = _texts(figure)
    assert "the-very-l…ital-07" in texts
    assert "_hidden" in texts


def test_every_figure_is_labelled_when_outcomes_are_simulated(summary: Summary, rounds: Rounds) -> None:
    def figures() -> list[Figure]:
        return [comparison_figure(summary), rounds_figure(summary, rounds), sites_figure(summary)]

    assert all("SIMULATED outcomes" in _texts(figure) for figure in figures())
    summary["outcomes"] = "observed"
    assert not any("simulated" in text.lower() for figure in figures() for text in _texts(figure))


def test_no_text_is_cut_at_the_edge(summary: Summary, rounds: Rounds) -> None:
    for figure in (comparison_figure(summary), rounds_figure(summary, rounds), sites_figure(summary)):
        figure_svg(figure)  # lays out
        box = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height


def test_files_are_the_same_every_time(summary: Summary, rounds: Rounds, tmp_path: Path) -> None:
    first = save_figures(summary, rounds, tmp_path / "a")
    second = save_figures(summary, rounds, tmp_path / "b")
    names = [f"{name}.{kind}" for name in ("comparison", "rounds", "sites") for kind in ("png", "svg")]
    assert [path.name for path in first] == names
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(names)  # nothing half-written
    assert b"<dc:date>" not in first[1].read_bytes()


def test_a_folder_that_cannot_be_made_is_an_error_with_a_code(
    summary: Summary, rounds: Rounds, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError) as caught:
        save_figures(summary, rounds, tmp_path / "file" / "figures")
    assert str(caught.value) == (
        "FECG-601 file comparison.png: found a path that leads through a file; expected a folder that can be written, "
        "with space left. Free space on that disk, or write to another folder."
    )


def test_a_target_that_cannot_be_replaced_leaves_nothing_behind(
    summary: Summary, rounds: Rounds, tmp_path: Path
) -> None:
    (tmp_path / "comparison.png").mkdir()
    with pytest.raises(RunError, match="FECG-601"):
        save_figures(summary, rounds, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["comparison.png"]


def test_one_round_alone_shows_its_bounds_and_a_whole_number(summary: Summary, rounds: Rounds) -> None:
    summary["best-round"] = 1
    axes = rounds_figure(summary, [entry for entry in rounds if entry["round"] == 1]).axes[0]
    assert axes.collections[0].get_linewidth()[0] > 0
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


def test_a_best_round_judged_after_the_last_is_still_marked(summary: Summary, rounds: Rounds) -> None:
    for entry in rounds:
        entry["weights-evaluated"] = entry["round"] - 1
    summary["best-round"] = 12
    axes = rounds_figure(summary, rounds).axes[0]
    assert _line(axes, "stratified C")[:, 0].tolist() == list(range(12))
    assert _line(axes, "best round (12)")[:, 0].tolist() == [12, 12]
    assert axes.get_xlim()[1] > 12
