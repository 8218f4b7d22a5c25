"""Tables of a grid: rows, means and paired differences worked by hand, and what its four files say."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fedecg.config import StudySettings
from fedecg_simulations.grid_cells import Outcome
from fedecg_simulations.grid_plan import Cell, GridPlan
from fedecg_simulations.grid_report import grid_figure, outcomes_of, summary_text, write_report
from fedecg_simulations.grid_table import (
    differences,
    frame,
    grid_rows,
    kept_over_seeds,
    mean_over_seeds,
    means,
)

FEDERATED = {("iid", "batch"): [0.60, 0.62, 0.61], ("iid", "sums"): [0.70, 0.74], ("skew", "batch"): [0.55]}
POOLED = 0.75


def summary(federated: float, code: str = "c" * 64) -> dict[str, Any]:
    column = {"c-index": federated + 0.01, "c-index-stratified": federated, "ci-low": None, "ci-high": None}
    return {
        "status": "completed",
        "outcomes": "simulated",
        "columns": {
            "pooled": column | {"c-index-stratified": POOLED},
            "federated": column,
            "local-mean": None,
        },
        "test": {"patients": 60, "events": 12},
        "seconds": {"align": 1.5, "survival": 2.0},
        "code-fingerprint": code,
    }


def small_grid(baseline: dict[str, str] | None = None) -> tuple[GridPlan, dict[str, Outcome]]:
    """Two partitions, two losses, three seeds; some cells waiting, one failed."""
    cells, outcomes = [], {}
    for seed in range(3):
        for partition in ("iid", "skew"):
            for loss in ("batch", "sums"):
                name = f"partition={partition},loss={loss},seed={seed}"
                cells.append(
                    Cell(name, {"partition": partition, "loss": loss}, seed, StudySettings(), "s" * 64)
                )
                values = FEDERATED.get((partition, loss), [])
                outcomes[name] = (
                    Outcome("completed", summary=summary(values[seed]))
                    if seed < len(values)
                    else Outcome("waiting")
                )
    failure = {"code": "FECG-512", "message": "m", "exit": 1, "seconds": 0.5, "code-fingerprint": "c" * 64}
    outcomes["partition=skew,loss=sums,seed=0"] = Outcome("failed", failure=failure)
    baseline = {"loss": "batch"} if baseline is None else baseline
    plan = GridPlan("small", ("partition", "loss"), tuple(cells), "c-index-stratified", baseline)
    return plan, outcomes


def test_a_row_a_cell_whatever_became_of_it() -> None:
    rows = grid_rows(*small_grid())
    assert [row["status"] for row in rows] == [
        "completed", "completed", "completed", "failed",
        "completed", "completed", "waiting", "waiting",
        "completed", "waiting", "waiting", "waiting",
    ]  # fmt: skip
    first, failed, waiting = rows[0], rows[3], rows[6]
    assert (first["partition"], first["loss"], first["seed"]) == ("iid", "batch", 0)
    assert first["federated.c-index-stratified"] == 0.60
    assert first["federated.c-index"] == 0.61
    assert first["local-mean.c-index"] is first["true-hazard.c-index"] is None
    assert first["gain-kept"] == pytest.approx(0.10 / 0.25)
    assert (first["test-events"], first["seconds"], first["outcomes"]) == (12, 3.5, "simulated")
    assert (failed["code"], failed["exit"], failed["seconds"]) == ("FECG-512", 1, 0.5)
    assert waiting["federated.c-index"] is waiting["code"] is waiting["seconds"] is None
    assert all(row.keys() == first.keys() for row in rows)


def test_a_seed_in_which_pooled_training_gained_next_to_nothing_does_not_rule_the_share() -> None:
    pooled, federated = [0.20, 0.22, 0.18, 0.21, 0.001], [0.17, 0.19, 0.16, 0.18, 0.10]
    kept = kept_over_seeds(federated, pooled)
    assert kept.value == pytest.approx(sum(federated) / sum(pooled))
    assert kept.low < kept.value < kept.high
    assert kept.number == 5
    assert math.isnan(kept_over_seeds([0.1, 0.1], [0.2, -0.15]).value)
    one = kept_over_seeds([0.1], [0.2])
    assert (one.value, math.isnan(one.low)) == (pytest.approx(0.5), True)


def test_the_interval_of_the_share_covers_it_95_times_of_100() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        pooled = rng.normal(0.25, 0.03, 10)
        kept = kept_over_seeds(0.9 * pooled + rng.normal(0, 0.02, 10), pooled)
        covered += kept.low <= 0.9 <= kept.high
    assert 925 <= covered <= 970


def test_no_gain_is_kept_of_pooled_training_that_gained_nothing() -> None:
    plan, outcomes = small_grid()
    poor = summary(0.6)
    poor["columns"]["pooled"]["c-index-stratified"] = 0.5
    outcomes[plan.cells[0].name] = Outcome("completed", summary=poor)
    assert grid_rows(plan, outcomes)[0]["gain-kept"] is None


def test_means_and_t_intervals_over_the_seeds_that_are_finished() -> None:
    plan, outcomes = small_grid()
    figures = means(plan, grid_rows(plan, outcomes))
    one = figures["iid", "batch"]["federated"]
    assert (one.number, one.value) == (3, pytest.approx(0.61))
    half = (
        4.302652729749464 * 0.01 / math.sqrt(3)
    )  # t(0.975; 2); the three values have a standard deviation of 0.01
    assert (one.low, one.high) == (pytest.approx(0.61 - half), pytest.approx(0.61 + half))
    single, nothing = figures["skew", "batch"]["federated"], figures["skew", "sums"]["federated"]
    assert (single.number, single.value) == (1, 0.55)
    assert math.isnan(single.low)
    assert nothing.number == 0
    assert math.isnan(nothing.value)
    assert figures["iid", "sums"]["gain-kept"].value == pytest.approx((0.20 + 0.24) / (0.25 + 0.25))


def test_an_interval_of_two_seeds_far_apart_ends_where_a_c_index_does() -> None:
    plan, outcomes = small_grid()
    rows = grid_rows(plan, outcomes)
    for row in rows:
        row["federated.c-index-stratified"] = row["federated.c-index"] = {0: 0.55, 1: 0.75}.get(row["seed"])
    figures = means(plan, rows)["iid", "batch"]["federated"]
    assert (figures.number, figures.value) == (2, pytest.approx(0.65))
    assert (figures.low, figures.high) == (0.0, 1.0)
    assert "cut at 0 and 1" in summary_text(plan, rows)


def test_differences_are_paired_by_seed_and_equal_scipys_paired_t_test() -> None:
    plan, outcomes = small_grid()
    found = differences(plan, grid_rows(plan, outcomes))
    assert [one.combination for one in found] == [("iid", "sums"), ("skew", "sums")]
    one, unpaired = found[0].mean, found[1].mean
    assert found[0].baseline == ("iid", "batch")
    assert one.number == 2  # seed 2 has no partner yet
    assert one.value == pytest.approx((0.10 + 0.12) / 2)
    assert one.p_value == pytest.approx(stats.ttest_rel([0.70, 0.74], [0.60, 0.62]).pvalue)
    assert unpaired.number == 0
    assert math.isnan(unpaired.value)


def test_a_baseline_of_two_axes_is_one_combination_for_all() -> None:
    plan, outcomes = small_grid({"loss": "batch", "partition": "iid"})
    found = differences(plan, grid_rows(plan, outcomes))
    assert {one.baseline for one in found} == {("iid", "batch")}
    assert [one.combination for one in found] == [("iid", "sums"), ("skew", "batch"), ("skew", "sums")]
    assert differences(*_without_baseline()) == []


def _without_baseline() -> tuple[GridPlan, list[dict[str, Any]]]:
    plan, outcomes = small_grid({})
    return plan, grid_rows(plan, outcomes)


def test_the_interval_is_scipys_and_alike_values_have_one_of_no_width() -> None:
    values = np.random.default_rng(5).normal(0.02, 0.1, 10)
    mean = mean_over_seeds(values)
    reference = stats.ttest_1samp(values, 0.0)
    interval = reference.confidence_interval(0.95)
    assert (mean.low, mean.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert mean.p_value == pytest.approx(reference.pvalue)
    alike = mean_over_seeds([0.5, 0.5, 0.5])
    assert (alike.low, alike.high) == (0.5, 0.5)
    assert math.isnan(alike.p_value)


def test_the_intervals_of_many_grids_cover_the_truth_95_times_of_100() -> None:
    rng = np.random.default_rng(11)
    covered = [
        one.low <= 0.7 <= one.high
        for one in (mean_over_seeds(seeds) for seeds in rng.normal(0.7, 0.02, (2000, 5)))
    ]
    assert 0.935 <= np.mean(covered) <= 0.965


def test_the_summary_says_means_pairs_failures_code_and_that_outcomes_are_simulated() -> None:
    plan, outcomes = small_grid()
    text = summary_text(plan, grid_rows(plan, outcomes))
    assert "Outcomes are simulated. 12 cells: 6 completed, 1 failed, 5 waiting." in text
    assert "| partition | loss | seeds | pooled | federated | gain kept |" in text
    assert "| iid | batch | 3 | 0.750 (0.750–0.750) | 0.610 (0.585–0.635) | 44 % (34 % to 54 %) |" in text
    assert "| skew | batch | 1 | 0.750 | 0.550 | 20 % |" in text
    assert "| skew | sums | 0 | – | – | – |" in text
    assert "## Differences from loss = batch" in text
    assert "| iid | sums | 2 | +0.110 (95 % CI −0.017 to +0.237) | 0.058 |" in text
    assert "| skew | sums | 0 | – | – |" in text
    assert (
        "- partition = skew, loss = sums, seed = 0: FECG-512 (no training events at any site), exit stat"
        in text
    )
    assert "Code: `cccccccccccc` (7 cells)." in text
    assert "different code" not in text


def test_cells_of_different_code_are_said() -> None:
    plan, outcomes = small_grid()
    outcomes[plan.cells[0].name] = Outcome("completed", summary=summary(0.6, code="d" * 64))
    text = summary_text(plan, grid_rows(plan, outcomes))
    assert "`dddddddddddd` (1 cell)" in text
    assert "different code: compare with care" in text


def test_before_the_first_cell_there_are_tables_too(tmp_path: Path) -> None:
    plan, outcomes = small_grid()
    nothing = {name: Outcome("waiting") for name in outcomes}
    write_report(plan, nothing, tmp_path)
    table = pd.read_parquet(tmp_path / "table.parquet")
    assert (table["status"] == "waiting").all()
    assert table["federated.c-index"].dtype == np.float64
    assert outcomes_of(grid_rows(plan, nothing)) is None
    assert "simulated" not in (tmp_path / "summary.md").read_text()
    assert (tmp_path / "figure.png").stat().st_size > 0


def test_csv_and_parquet_hold_the_same_rows(tmp_path: Path) -> None:
    plan, outcomes = small_grid()
    write_report(plan, outcomes, tmp_path)
    table = pd.read_parquet(tmp_path / "table.parquet")
    assert list(table.columns[:7]) == ["partition", "loss", "seed", "status", "code", "exit", "outcomes"]
    again = pd.read_csv(io.StringIO((tmp_path / "table.csv").read_text()), dtype=table.dtypes.to_dict())
    pd.testing.assert_frame_equal(again, table)
    pd.testing.assert_frame_equal(frame(plan, grid_rows(plan, outcomes)), table)


def test_the_figure_shows_finished_combinations_and_that_outcomes_are_simulated() -> None:
    plan, outcomes = small_grid()
    figure = grid_figure(plan, grid_rows(plan, outcomes))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "skew · batch",
        "iid · sums",
        "iid · batch",
    ]
    assert "0.610" in {text.get_text() for text in axes.texts}
    assert "SIMULATED outcomes" in {text.get_text() for text in figure.texts}
    assert axes.get_xlabel() == "stratified C-index"
    assert figure.get_supxlabel().startswith("mean over seeds, 95 % CI")


def test_the_figure_shows_differences_paired_by_seed_beside_the_means() -> None:
    plan, outcomes = small_grid()
    rows = grid_rows(plan, outcomes)
    figure = grid_figure(plan, rows)
    means_of, paired = figure.axes
    assert paired.get_xlabel() == "minus batch"
    assert "differences paired by seed" in figure.get_supxlabel()
    (one,) = [found for found in differences(plan, rows) if found.mean.number]
    assert one.combination == ("iid", "sums")
    points = [line.get_xydata() for line in paired.lines if line.get_marker() == "o"]
    assert [point.tolist() for point in points] == [[[one.mean.value, 1.0]]]  # on the row of iid, sums
    ends = [line.get_xydata().tolist() for line in paired.lines if line.get_linewidth() == 1.6]
    assert [[one.mean.low, 1.0], [one.mean.high, 1.0]] in ends
    assert [text.get_text() for text in paired.texts] == ["+0.110"]
    assert means_of.get_ylim() == paired.get_ylim()


def test_a_grid_without_a_baseline_has_a_figure_of_means_alone() -> None:
    plan, outcomes = small_grid(baseline={})
    figure = grid_figure(plan, grid_rows(plan, outcomes))
    assert len(figure.axes) == 1
    legend = "mean over seeds, 95 % CI\nblue: federated; open: pooled; grey: single seeds; dashed: chance"
    assert figure.get_supxlabel() == legend


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    plan, outcomes = small_grid()
    for name in ("one", "two"):
        write_report(plan, outcomes, tmp_path / name)
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name
