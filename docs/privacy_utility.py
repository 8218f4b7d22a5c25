"""What differential privacy costs: writes docs/privacy-utility.md of what is finished of configs/grids/privacy.toml.

    .venv/bin/fedecg-simulate grid configs/grids/privacy.toml      (what the grid needs first stands in its head)
    .venv/bin/python docs/privacy_utility.py

Studies that are not finished are left out; the page says how many seeds stand behind each line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from fedecg_simulations.grid_plan import load_grid
from fedecg_simulations.grid_run import read_outcomes

GRID, RUNS = Path("configs/grids/privacy.toml"), Path("runs/privacy")
PAGE = Path("docs/privacy-utility.md")

HEADER = """\
| epsilon | seeds | C (least-most) | minus infinity, paired | C in noised interval | its width | most epsilon spent |
|---|---|---|---|---|---|---|"""

Found = dict[str, dict[int, dict[str, Any]]]  # epsilon -> seed -> summary


def finished() -> Found:
    """Summaries of the studies that are done."""
    plan, found = load_grid(GRID), {}
    outcomes = read_outcomes(plan, RUNS)
    for cell in plan.cells:
        epsilon = cell.variants["epsilon"]
        of_epsilon = found.setdefault(epsilon, {})
        if outcomes[cell.name].finished:
            of_epsilon[cell.seed] = json.loads((RUNS / cell.name / "summary.json").read_text())
    return found


def row(epsilon: str, some: dict[int, dict[str, Any]], without: dict[int, dict[str, Any]]) -> str:
    """One line: C of raw predictions, what it costs, what the noised histogram says, what was spent."""
    if not some:
        return f"| {epsilon} | 0 | | | | | |"
    exact = {seed: summary["columns"]["federated"]["c-index-stratified"] for seed, summary in some.items()}
    pairs = [
        exact[seed] - without[seed]["columns"]["federated"]["c-index-stratified"]
        for seed in sorted(exact)
        if seed in without
    ]
    told = [summary["federated-c-index"] for summary in some.values()]
    inside = [
        one["stratified-ci-low"] <= exact[seed] <= one["stratified-ci-high"]
        for seed, one in zip(some, told, strict=True)
        if "noised" in one
    ]
    width = [one["stratified-ci-high"] - one["stratified-ci-low"] for one in told if "noised" in one]
    spent = [site["epsilon"] for summary in some.values() for site in summary["privacy"]["sites"]]
    values = list(exact.values())
    return (
        f"| {epsilon} | {len(some)} | {np.mean(values):.3f} ({min(values):.3f}-{max(values):.3f}) "
        f"| {difference(pairs) if epsilon != 'infinity' else ''} "
        f"| {f'{sum(inside)} of {len(inside)}' if inside else ''} | {f'{np.median(width):.3f}' if width else ''} "
        f"| {f'{max(spent):.3f}' if spent else ''} |"
    )


def difference(pairs: list[float]) -> str:
    """Mean of paired differences, and its 95 % interval where there are two."""
    if not pairs:
        return ""
    if len(pairs) < 2:
        return f"{pairs[0]:+.3f}"
    half = stats.t.ppf(0.975, len(pairs) - 1) * np.std(pairs, ddof=1) / np.sqrt(len(pairs))
    return f"{np.mean(pairs):+.3f} ({np.mean(pairs) - half:+.3f} to {np.mean(pairs) + half:+.3f})"


def main() -> None:
    """Write the page."""
    found = finished()
    rows = [row(epsilon, some, found["infinity"]) for epsilon, some in found.items()]
    controls = [
        summary["columns"][name]["c-index-stratified"]
        for name in ("age-sex", "true-hazard")
        for summary in list(found["infinity"].values())[:1]
        if summary["columns"].get(name)
    ]
    beside = (
        f" Beside them, seed 0: age + sex {controls[0]:.3f}, the true hazard {controls[-1]:.3f}."
        if controls
        else ""
    )
    PAGE.write_text(
        f"""# What differential privacy costs

Made by `docs/privacy_utility.py` from `configs/grids/privacy.toml`; all outcomes are **simulated**. Six virtual
hospitals of 200 to 1,000 patients; `small` network, aligned once on a consortium of its own (seed 200) that stands for
public data; the encoder stays fixed, the risk head is trained with DP-SGD at delta 1e-5; "infinity": the same training
without clipping, noise or sampling of patients. Test part of 6,000 patients; C-indices are stratified, of raw
predictions, which only a simulation has.{beside}

{HEADER}
"""
        + "\n".join(rows)
        + """

The noised interval is what a coordinator sees: from one 8 x 8 histogram with noise (width: the median). Read the
columns together with their number of seeds; the grid goes to ten.
"""
    )


if __name__ == "__main__":
    main()
