"""The page of the survival losses: reads the tables of two grids, writes docs/losses.md.

.venv/bin/fedecg-simulate grid configs/grids/kept.toml
.venv/bin/fedecg-simulate grid configs/grids/losses.toml --jobs 2
.venv/bin/python docs/losses.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

RUNS = Path("runs")
STRATIFIED = "c-index-stratified"
REFERENCE = "cox-pooled-shared"
PARTITIONS = {
    "iid": "IID, 6 sites",
    "events": "events skewed (Dirichlet 0.5), 6 sites",
    "site": "the consortium's own 6 hospitals (baseline hazard, prevalence, device, size)",
    "many": "20 small sites of unequal size",
    "staggered": "follow-up that ends one site after the other, 6 sites",
    "disjoint": "disjoint follow-up, 4 sites (left truncation)",
}


def interval(values: pd.Series) -> str:
    """Mean with its 95 % t-interval over seeds."""
    mean = values.mean()
    if len(values) < 2:
        return f"{mean:.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{mean:.3f} ({mean - half:.3f} to {mean + half:.3f})"


def kept_table(table: pd.DataFrame) -> str:
    """Share of pooled training's gain that the federated model keeps, by partition."""
    lines = [
        "| split | seeds | pooled C | federated C | gain kept, mean | least | most |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in table.groupby("partition", sort=False):
        kept = rows["gain-kept"]
        pooled, federated = (rows[f"{column}.{STRATIFIED}"].mean() for column in ("pooled", "federated"))
        shares = f"{kept.mean():.1%} | {kept.min():.0%} | {kept.max():.0%}"
        lines.append(f"| {PARTITIONS[str(name)]} | {len(rows)} | {pooled:.3f} | {federated:.3f} | {shares} |")
    return "\n".join(lines)


def losses_table(table: pd.DataFrame) -> str:
    """Stratified C by loss and partition, and the paired difference to `cox-pooled` shared."""
    column = f"federated.{STRATIFIED}"
    lines = [
        "| split | loss | seeds | stratified C | minus cox-pooled shared, paired |",
        "|---|---|---|---|---|",
    ]
    for (split, loss), rows in table.groupby(["partition", "loss"], sort=False):
        reference = table[(table["partition"] == split) & (table["loss"] == REFERENCE)].set_index("seed")[
            column
        ]
        ended = rows.dropna(subset=[column]).set_index("seed")[column]
        if ended.empty:
            continue
        difference = (ended - reference).dropna()
        apart = "" if loss == REFERENCE else interval(difference)
        lines.append(f"| {PARTITIONS[str(split)]} | {loss} | {len(ended)} | {ended.mean():.3f} | {apart} |")
    return "\n".join(lines)


def main() -> None:
    """Write the page."""
    kept, losses = (pd.read_csv(RUNS / name / "table.csv") for name in ("kept", "losses"))
    finished = kept[kept["status"].str.startswith("completed")]
    page = f"""# Survival losses over seeds

Made by `docs/losses.py` from two grids; all outcomes are **simulated**. `small` network, aligned once on a consortium
of its own (seed 200), ECGs of 5 s, 6 survival rounds of 8 steps (20 small sites: 4), test part of 6,000 patients;
C-indices are stratified. What the losses are: [survival.md](survival.md).

## How much of pooled training's gain the pooled Cox model from sums keeps

Gain kept: (C - 0.5) / (pooled C - 0.5); pooled: all patients at one site, as many optimiser steps a round as all sites
make together.

{kept_table(finished)}

## The losses beside each other

`cox-pooled-shared-by-events` is `cox-pooled` with updates weighted by events instead of patients. The figures are of
the seeds that have been run (column "seeds"; the grid goes to five). Read the intervals: with so few seeds no loss can
be told from another, and all lie within 0.012 of each other. Two patterns to check with more seeds: where events are
skewed between sites, `cox-pooled` with weights by patients is the weakest (weights by events mend it); under disjoint
follow-up and between unlike hospitals it is the strongest.

{losses_table(losses)}
"""
    Path("docs/losses.md").write_text(page)


if __name__ == "__main__":
    main()
