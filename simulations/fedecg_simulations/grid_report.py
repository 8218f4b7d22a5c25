"""What a grid writes for its readers: `table.csv`, `table.parquet`, `summary.md`, `figure.png`.

In:  a plan and the outcomes of its cells. Out: the four files in the grid's folder, each whole or not at all.
Called by `grid_run` before the first cell and after every one, so that an interrupted grid has its tables.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedecg.codes import CODES
from fedecg.files import write_whole
from fedecg.report.look import BLUE, GREY, INK, VERMILION, WIDTH_IN, look, rendered
from fedecg.report.published import published_note
from fedecg.report.wording import DASH, c_index, difference, percent
from fedecg_simulations.grid_cells import Outcome
from fedecg_simulations.grid_plan import GridPlan
from fedecg_simulations.grid_table import (
    CHANCE,
    COLUMNS,
    FEDERATED,
    GAIN_KEPT,
    POOLED,
    Combination,
    Difference,
    Mean,
    Row,
    differences,
    figures_of,
    frame,
    grid_rows,
    means,
)

__all__ = ["REPORT_FILES", "grid_figure", "outcomes_of", "summary_text", "write_report"]

REPORT_FILES = ("table.csv", "table.parquet", "summary.md", "figure.png")
SIMULATED = "Outcomes are simulated."
SEEDS_BELOW = 0.27  # of a row: single seeds would hide behind the interval
Means = Mapping[Combination, Mapping[str, Mean]]


def write_report(plan: GridPlan, outcomes: Mapping[str, Outcome], out: Path) -> None:
    """Write all four files.

    Raises:
        RunError: FECG-601.
    """
    rows = grid_rows(plan, outcomes)
    table = frame(plan, rows)
    contents: tuple[str | bytes, ...] = (
        table.to_csv(index=False),
        _parquet(table),
        summary_text(plan, rows),
        rendered(grid_figure(plan, rows), "png", {"Software": None}),
    )
    for name, content in zip(REPORT_FILES, contents, strict=True):
        write_whole(out / name, content)


def outcomes_of(rows: Sequence[Row]) -> str | None:
    """`simulated` if any cell's outcomes are; None before the first cell is finished."""
    known = {row["outcomes"] for row in rows} - {None}
    return "simulated" if "simulated" in known else next(iter(known), None)


def summary_text(plan: GridPlan, rows: Sequence[Row]) -> str:
    """summary.md: how many cells, means over seeds, paired differences, what failed, which code."""
    states = Counter(row["status"] for row in rows)
    parts = [
        f"# Grid {plan.name}",
        f"{SIMULATED} " * (outcomes_of(rows) == "simulated")
        + f"{len(rows)} cells: {', '.join(f'{number} {status}' for status, number in sorted(states.items()))}.",
        f"## Mean over seeds: {_title(plan)}",
        "With 95 % t-intervals over seeds, cut at 0 and 1: they say how much seeds differ, not how much patients do. "
        "Two or three seeds say little of that.",
        _means_table(plan, means(plan, rows)),
        _beside_the_published(plan, rows),
    ]
    if plan.baseline:
        parts += [
            f"## Differences from {_variants(plan.baseline)}",
            "Federated, paired by seed (paired t); differences of fewer than 2 pairs have no interval.",
            _differences_table(plan, differences(plan, rows)),
        ]
    failed = [row for row in rows if row["status"] == "failed"]
    if failed:
        parts += ["## Failed", _failed_list(plan, failed)]
    parts.append(code_line(row["code-fingerprint"] for row in rows if row["code-fingerprint"]))
    return "\n\n".join(part for part in parts if part) + "\n"


def grid_figure(plan: GridPlan, rows: Sequence[Row]) -> Figure:
    """Mean federated figure of every combination with its interval; single seeds small, pooled training open.

    Beside it, where the plan has a baseline, each one's difference from it, paired by seed.
    """
    averages = means(plan, rows)
    shown = [combination for combination, figures in averages.items() if figures[FEDERATED].number]
    with look():
        figure = Figure(figsize=(WIDTH_IN, 1.35 + 0.3 * max(len(shown), 3)), layout="constrained")
        figure.suptitle(f"Grid {plan.name}", x=0.012, ha="left", fontsize=10, fontweight="bold")
        if outcomes_of(rows) == "simulated":
            figure.text(
                0.988, 0.98, "SIMULATED outcomes", ha="right", va="top", fontsize=8.5, color=VERMILION
            )
        paired = {one.combination: one.mean for one in differences(plan, rows) if one.mean.number}
        panels = figure.subplots(1, 2 if paired else 1, sharey=True, squeeze=False)[0]
        axes = panels[0]
        if not shown:
            axes.set_axis_off()
            axes.text(0.5, 0.5, "no cell is finished", ha="center", color=GREY, transform=axes.transAxes)
            return figure
        axes.axvline(CHANCE, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        for y, combination in enumerate(reversed(shown)):
            seeds = [row for row in rows if tuple(row[axis] for axis in plan.axes) == combination]
            _draw_combination(axes, y, averages[combination], [row[_key(plan)] for row in seeds])
        axes.set_yticks(range(len(shown)), [_label(combination) for combination in reversed(shown)])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(-0.6, len(shown) - 0.4)
        axes.set_xlabel(_title(plan))
        figure.supxlabel(_legend(averages, shown, bool(paired)), fontsize=8.5)
        if paired:
            _draw_differences(panels[1], plan, [paired.get(combination) for combination in reversed(shown)])
    return figure


def _draw_differences(axes: Axes, plan: GridPlan, found: Sequence[Mean | None]) -> None:
    """One a row, from below; None = the baseline itself, or no pair."""
    axes.axvline(0, color=INK, linewidth=1, zorder=1)
    for y, mean in enumerate(found):
        if mean is None:
            continue
        if not math.isnan(mean.low):
            ends = [mean.low, mean.high]
            axes.plot(ends, [y, y], color=BLUE, linewidth=1.6, solid_capstyle="butt", zorder=3)
        axes.plot([mean.value], [y], "o", markersize=6, color=BLUE, zorder=4)
        axes.text(
            1.02, y, difference(mean.value, None, None), va="center", color=BLUE,
            transform=axes.get_yaxis_transform(),
        )  # fmt: skip
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(3, symmetric=True))
    axes.set_xlabel(f"minus {', '.join(plan.baseline.values())}")


def _draw_combination(axes: Axes, y: int, figures: Mapping[str, Mean], seeds: Sequence[float | None]) -> None:
    federated, pooled = figures[FEDERATED], figures[POOLED]
    single = [value for value in seeds if value is not None]
    axes.plot(single, [y - SEEDS_BELOW] * len(single), "o", markersize=2.5, color=GREY, alpha=0.6, zorder=2)
    if not math.isnan(federated.low):
        axes.plot(
            [federated.low, federated.high],
            [y, y],
            color=BLUE,
            linewidth=1.6,
            solid_capstyle="butt",
            zorder=3,
        )
    if pooled.number:
        axes.plot([pooled.value], [y], "o", markersize=6, color=INK, markerfacecolor="white", zorder=3)
    axes.plot([federated.value], [y], "o", markersize=6, color=BLUE, zorder=4)
    axes.text(
        1.02, y, f"{federated.value:.3f}", va="center", color=BLUE, transform=axes.get_yaxis_transform()
    )


def _legend(averages: Means, shown: Sequence[Combination], paired: bool) -> str:
    pooled = any(averages[combination][POOLED].number for combination in shown)
    seeds = f"mean over seeds, 95 % CI{'; differences paired by seed' if paired else ''}"
    return f"{seeds}\nblue: federated{'; open: pooled' if pooled else ''}; grey: single seeds; dashed: chance"


def _means_table(plan: GridPlan, averages: Means) -> str:
    names = [
        name for name in (*COLUMNS, GAIN_KEPT) if any(figures[name].number for figures in averages.values())
    ]
    body = []
    for combination, figures in averages.items():
        texts = [
            _percent(figures[name])
            if name == GAIN_KEPT
            else c_index(figures[name].value, figures[name].low, figures[name].high)
            for name in names
        ]
        body.append([*combination, str(figures[FEDERATED].number), *texts])
    return _table([*plan.axes, "seeds", *(name.replace("-", " ") for name in names)], body)


def _beside_the_published(plan: GridPlan, rows: Sequence[Row]) -> str:
    """Of a paper's recipe: one mean over folds and seeds, as the paper has it, and the paper's own, on other data."""
    published = published_note(plan.name)
    if published is None:
        return ""
    values = [row[_key(plan)] for row in rows if row[_key(plan)] is not None]
    if not values:
        return published
    spread = f", standard deviation {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    cells = f"{len(values)} finished cell{'s' * (len(values) > 1)}"
    return f"Mean of the {cells}, folds and seeds alike: C-index {np.mean(values):.3f}{spread}. {published}"


def _differences_table(plan: GridPlan, found: Sequence[Difference]) -> str:
    body = [
        [
            *one.combination,
            str(one.mean.number),
            difference(one.mean.value, one.mean.low, one.mean.high),
            DASH if math.isnan(one.mean.p_value) else f"{one.mean.p_value:.2g}",
        ]
        for one in found
    ]
    return _table([*plan.axes, "pairs", "difference", "p"], body)


def _failed_list(plan: GridPlan, failed: Sequence[Row]) -> str:
    return "\n".join(
        f"- {_variants({**{axis: row[axis] for axis in plan.axes}, 'seed': row['seed']})}: {row['code']} "
        f"({CODES.get(row['code'], 'unknown code')}), exit status {row['exit']}"
        for row in failed
    )


def code_line(fingerprints: Iterable[str]) -> str:
    """By which code cells were made, one fingerprint a cell; with a warning where it was not one and the same."""
    made_by = Counter(fingerprints)
    if not made_by:
        return ""
    codes = ", ".join(
        f"`{code[:12]}` ({number} cell{'s' if number > 1 else ''})" for code, number in made_by.most_common()
    )
    warning = " **Cells were made by different code: compare with care.**" if len(made_by) > 1 else ""
    return f"Code: {codes}.{warning}"


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percent(share: Mean) -> str:
    if math.isnan(share.low):
        return percent(share.value)
    return f"{percent(share.value)} ({percent(share.low)} to {percent(share.high)})"


def _variants(variants: Mapping[str, object]) -> str:
    return ", ".join(f"{axis} = {variant}" for axis, variant in variants.items())


def _title(plan: GridPlan) -> str:
    return "stratified C-index" if plan.measure == "c-index-stratified" else "C-index"


def _key(plan: GridPlan) -> str:
    return figures_of(plan)[FEDERATED]


def _label(combination: Combination) -> str:
    return " · ".join(combination) or "all cells"


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, engine="pyarrow", index=False)
    return buffer.getvalue()
