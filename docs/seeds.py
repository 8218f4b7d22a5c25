"""Figures over seeds: runs what is not there yet, then writes docs/seeds.md.

    .venv/bin/python docs/seeds.py demo            # configs/demo.toml, seeds 0-4, all columns
    .venv/bin/python docs/seeds.py presets         # pooled training, presets fedecg and paper, seeds 0-9
    .venv/bin/python docs/seeds.py table           # from what is finished

Each cell is one run in runs/seeds/; a finished one is never run again, so it can be stopped at any time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

CELLS = Path("runs/seeds")
DEMO_SEEDS, PRESET_SEEDS = range(5), range(10)
# All patients as one site. A sixth of the steps of the demo's pooled column: `paper` takes several times as long a
# step, and this is what ten seeds of it allow in an hour on two cores.
POOLED = [
    "partition.by=iid", "partition.sites=1", "federation.quorum=1", "evaluation.comparison=false",
    "align.local-steps=48", "survival.local-steps=16", "align.rounds=3", "survival.rounds=6",
]  # fmt: skip


def run(name: str, seed: int, overrides: list[str]) -> None:
    """One cell, unless it is there."""
    folder = CELLS / f"{name}-{seed}"
    if not (folder / "summary.json").exists():
        command = [
            sys.executable,
            "-m",
            "fedecg_simulations.cli",
            "run",
            "configs/demo.toml",
            "--out",
            str(folder),
        ]
        subprocess.run([*command, "--set", f"seed={seed}", *overrides], check=True, stdout=subprocess.DEVNULL)


def summaries(name: str, seeds: range) -> dict[int, dict[str, Any]]:
    """Finished cells by seed."""
    files = {seed: CELLS / f"{name}-{seed}" / "summary.json" for seed in seeds}
    return {seed: json.loads(file.read_text()) for seed, file in files.items() if file.exists()}


def demo_table() -> str:
    """Stratified C by seed, and what the federated figures say beside raw predictions."""
    lines = [
        "| seed | true hazard | pooled | federated | gain kept | local, mean | local, best | age + sex "
        "| global C from sums | from raw predictions | bounds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    kept = []
    for seed, summary in summaries("demo", DEMO_SEEDS).items():
        c = {name: column["c-index-stratified"] for name, column in summary["columns"].items()}
        kept.append((c["federated"] - 0.5) / (c["pooled"] - 0.5))
        f = summary["federated-c-index"]
        lines.append(
            f"| {seed} | {c['true-hazard']:.3f} | {c['pooled']:.3f} | {c['federated']:.3f} | {kept[-1]:.0%} "
            f"| {c['local-mean']:.3f} | {c['local-best']:.3f} | {c['age-sex']:.3f} | {f['global']:.4f} "
            f"| {f['pooled-reference']:.4f} | {f['lower']:.3f}-{f['upper']:.3f} |"
        )
    return "\n".join(lines) + f"\n\nGain kept: mean {np.mean(kept):.1%}, least {min(kept):.1%}."


def presets_table() -> str:
    """Pooled C of both presets by seed, and the paired difference."""
    ours, theirs = (summaries(f"pooled-{preset}", PRESET_SEEDS) for preset in ("fedecg", "paper"))
    seeds = sorted(set(ours) & set(theirs))
    if len(seeds) < 2:
        return "Not run yet."
    c = np.array([[a[s]["columns"]["federated"]["c-index"] for a in (ours, theirs)] for s in seeds])
    difference = c[:, 0] - c[:, 1]
    half = stats.t.ppf(0.975, len(seeds) - 1) * difference.std(ddof=1) / np.sqrt(len(seeds))
    rows = [f"| {seed} | {a:.3f} | {b:.3f} | {a - b:+.3f} |" for seed, (a, b) in zip(seeds, c, strict=True)]
    head = "| seed | fedecg, small | paper | difference |\n|---|---|---|---|\n"
    return (
        head
        + "\n".join(rows)
        + (
            f"\n\nMean difference {difference.mean():+.4f}, 95 % interval {difference.mean() - half:+.4f} to "
            f"{difference.mean() + half:+.4f} ({len(seeds)} seeds, paired t)."
        )
    )


def main(what: str) -> None:
    """Run the cells that were asked for; write the page."""
    if what == "demo":
        for seed in DEMO_SEEDS:
            run("demo", seed, [])
    if what == "presets":
        for seed in PRESET_SEEDS:
            run("pooled-fedecg", seed, POOLED)
            run("pooled-paper", seed, [*POOLED, "model.preset=paper"])
    page = f"""# Figures over seeds

Made by `docs/seeds.py`; outcomes are **simulated**. All C-indices are of the test part (6,000 patients).

## The demo: stratified C-index

{demo_table()}

## Presets: pooled C-index

All patients as one site, 3 alignment rounds of 48 steps and 6 survival rounds of 16, everything else as in the demo.

{presets_table()}
"""
    Path("docs/seeds.md").write_text(page)


if __name__ == "__main__":
    main(sys.argv[1])
