"""The page of the researcher's bench: algorithms on splits, and Fed-TCGA-BRCA beside FLamby; writes docs/bench.md.

make bench                                                               (the grid first, then this)
.venv/bin/python docs/bench.py [RUNS/bench] [--survival FOLDER]

Of whatever the grid has finished; FOLDER holds fed_tcga_brca as FLamby publishes it (brca.csv, train_test_split.csv).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from fedecg.config import FederationSettings, SurvivalSettings
from fedecg.evaluation import concordance
from fedecg.objectives.linear_cox import CoxSettings, fit_linear_cox
from fedecg.objectives.linear_cox_sums import CoxPatients
from fedecg_simulations.grid_report import code_line
from fedecg_simulations.linear_federation import train_linear

STRATIFIED = "c-index-stratified"
EMPTY = ["partition", "algorithm", "seed", "status", "code-fingerprint"]
REFERENCE = "fedavg"  # its cells train the pooled and the local models, too
PARTITIONS = {
    "iid": "IID, 6 sites",
    "site": "the consortium's own 6 hospitals",
    "dirichlet": "Dirichlet 0.1, 6 sites",
    "disjoint": "disjoint follow-up, 4 sites",
    "drift": "recorders drift, 6 sites",
}
OTHERS = {
    "true-hazard": "true hazard (nobody can do better)",
    "pooled": "pooled",
    "finetuned": "fedavg, then 2 rounds alone at each site",
    "local-best": "local, best by validation",
    "local-own": "local, each on its own patients",
    "local-mean": "local, mean of all on all patients",
    "random-encoder": "federated, random frozen encoder",
    "age-sex-hr-qrs": "Cox: age, sex, heart rate, QRS",
    "age-sex": "Cox: age, sex",
}

# FLamby's own results, mean and SD of C on the pooled test part over its seeds 42-46:
# github.com/owkin/FLamby at edacf54d5211520583b0133d55ac39b6fda8324b,
# flamby/results/results_benchmark_fed_tcga_brca/tcga_seed42.csv ... tcga_seed46.csv, rows "Pooled Test".
FLAMBY = {
    "pooled": (0.704, 0.114),
    "fedavg": (0.735, 0.175),
    "fedprox": (0.717, 0.162),
    "scaffold": (0.699, 0.035),
    "fedadam": (0.842, 0.017),
    "fedyogi": (0.842, 0.017),
}
LINEAR = {
    "fedavg": {},
    "fedprox": {"algorithm": "fedprox", "proximal-mu": 0.01},
    "scaffold": {"algorithm": "scaffold"},
    "fedadam": {"algorithm": "fedadam", "server-rate": 0.03},
    "fedyogi": {"algorithm": "fedyogi", "server-rate": 0.03},
}
# Rounds and rate, ten full-batch steps a round: stopped early; a rate at which local steps pull little; one that pulls.
RUNS = (100, 0.1), (300, 0.03), (300, 0.3)


def interval(values: pd.Series, *, sign: bool = False) -> str:
    """Mean with its 95 % t-interval over seeds."""
    values = values.dropna()
    if values.empty:
        return ""
    form = "+.3f" if sign else ".3f"
    low, mean, high = bounds(values)
    return f"{mean:{form}}" if np.isnan(low) else f"{mean:{form}} ({low:{form}} to {high:{form}})"


def bounds(values: pd.Series) -> tuple[float, float, float]:
    """Lower end, mean, upper end; NaN ends of a single seed."""
    mean = float(values.mean())
    if len(values) < 2:
        return float("nan"), mean, float("nan")
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean - half, mean, mean + half


def by_seed(table: pd.DataFrame, partition: str, algorithm: str, column: str = "federated") -> pd.Series:
    """Stratified C of one column, indexed by seed."""
    rows = table[(table["partition"] == partition) & (table["algorithm"] == algorithm)]
    name = f"{column}.{STRATIFIED}"
    return rows.set_index("seed")[name].dropna() if name in rows else pd.Series(dtype=float)


def told_by_cells(runs: Path, partition: str, algorithm: str) -> list[str]:
    """Mean of the round that validation chose, and MB that a site exchanges in a round, both ways."""
    files = sorted(runs.glob(f"cells/partition={partition},algorithm={algorithm},seed=*/summary.json"))
    cells = [json.loads(file.read_text()) for file in files]
    if not cells:
        return ["", ""]
    chosen, sent = (np.mean([cell[key] for cell in cells]) for key in ("best-round", "bytes-per-round"))
    return [f"{chosen:.1f}", f"{sent / 1e6:.2f}"]


def algorithms_table(table: pd.DataFrame, runs: Path) -> str:
    """Every partition and algorithm, and paired differences to pooled, local and fedavg."""
    lines = [
        "| split | algorithm | seeds | stratified C | minus pooled | minus local, own patients | minus fedavg "
        "| chosen round, mean | MB a site and round |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for partition in PARTITIONS:
        beside = {
            name: by_seed(table, partition, REFERENCE, name) for name in ("pooled", "local-own", "federated")
        }
        for algorithm in table["algorithm"].unique():
            own = by_seed(table, partition, algorithm)
            if own.empty:
                continue
            apart = [interval(own - values, sign=True) for values in beside.values()]
            if algorithm == REFERENCE:
                apart[2] = ""
            cells = [PARTITIONS[partition], algorithm, str(len(own)), interval(own), *apart]
            lines.append("| " + " | ".join([*cells, *told_by_cells(runs, partition, algorithm)]) + " |")
    return "\n".join(lines)


def others_table(table: pd.DataFrame) -> str:
    """What stands beside the federation, by partition."""
    lines = ["| | " + " | ".join(PARTITIONS.values()) + " |", "|---|" + "---:|" * len(PARTITIONS)]
    for column, label in OTHERS.items():
        cells = [interval(by_seed(table, partition, REFERENCE, column)) for partition in PARTITIONS]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def sentences(table: pd.DataFrame) -> str:
    """Three sentences that the table supports, made from it."""
    algorithms = [name for name in table["algorithm"].unique() if name != REFERENCE]
    to_pooled, to_local, changed, most = [], [], [], 0.0
    for partition, label in PARTITIONS.items():
        own = by_seed(table, partition, REFERENCE)
        for found, column in ((to_pooled, "pooled"), (to_local, "local-own")):
            difference = (own - by_seed(table, partition, REFERENCE, column)).dropna()
            if not difference.empty:
                found.append((label, *bounds(difference)))
        for algorithm in algorithms:
            difference = (by_seed(table, partition, algorithm) - own).dropna()
            if len(difference) > 1:
                low, mean, high = bounds(difference)
                if low > 0 or high < 0:
                    changed.append(f"{algorithm} on {label} ({mean:+.3f})")
                    most = max(most, abs(mean))
    if not to_pooled or not to_local:
        return "Nothing is finished yet that could be compared."
    near, far = max(to_pooled, key=lambda item: item[2]), min(to_pooled, key=lambda item: item[2])
    above = [label for label, low, *_ in to_local if low > 0]
    pairs = len(algorithms) * len(to_pooled)
    listed = f"by at most {most:.3f}: {'; '.join(changed)}" if changed else "none"
    return (
        f"Fedavg lies between {far[2]:+.3f} ({far[0]}) and {near[2]:+.3f} ({near[0]}) of pooled training. "
        f"It is above each site's own model on its own patients, with an interval that excludes 0, on {len(above)} of "
        f"{len(to_local)} splits. "
        f"Of {pairs} pairs of another algorithm and a split, {len(changed)} differ from fedavg with an interval that "
        f"excludes 0 (uncorrected: of {pairs} true noughts about {0.05 * pairs:.0f} would): {listed}."
    )


def patients(frame: pd.DataFrame, names: list[str]) -> CoxPatients:
    """Rows as the linear model takes them."""
    return CoxPatients(frame["T"].to_numpy(float), frame["E"].to_numpy(bool), frame[names].to_numpy(float))


def brca_table(folder: Path) -> str:
    """Fed-TCGA-BRCA with FLamby's split and metric: exact, federated, and FLamby's own."""
    split = pd.read_csv(folder / "train_test_split.csv")
    frame = pd.read_csv(folder / "brca.csv").merge(split, on="pid", validate="one_to_one")
    names = [name for name in frame if name not in ("pid", "E", "T", "fold", "fold2")]
    training = frame[frame["fold"] == "train"]
    sites = {str(site): patients(rows, names) for site, rows in training.groupby(training["fold2"].str[-1])}
    test = patients(frame[frame["fold"] == "test"], names)

    def c_index(risk: np.ndarray) -> float:
        return concordance(test.follow_up_days, test.event, risk).c_index

    exact = fit_linear_cox(list(sites.values()), names, CoxSettings(penalty=1e-3))
    ours = " | ".join(f"ours, {rounds} rounds at {rate}" for rounds, rate in RUNS)
    lines = [
        f"| | {ours} | FLamby, mean (SD) of 5 seeds |",
        f"|---|{'---:|' * (len(RUNS) + 1)}",
        f"| pooled | {c_index(exact.log_hazard(test.covariates)):.4f} (exact) | | | {published('pooled')} |",
    ]
    for algorithm, tree in LINEAR.items():
        settings = FederationSettings.model_validate(tree)
        reached = [
            c_index(test.covariates @ train_linear(sites, schedule(rounds, rate), settings))
            for rounds, rate in RUNS
        ]
        figures = " | ".join(f"{one:.4f}" for one in reached)
        lines.append(f"| {algorithm} | {figures} | {published(algorithm)} |")
    return "\n".join(lines)


def schedule(rounds: int, rate: float) -> SurvivalSettings:
    """Ten full-batch steps a round of plain SGD."""
    return SurvivalSettings(
        rounds=rounds, local_steps=10, learning_rate=rate, optimizer="sgd", weight_decay=0.0
    )


def published(algorithm: str) -> str:
    """FLamby's own figure."""
    mean, spread = FLAMBY[algorithm]
    return f"{mean:.3f} ({spread:.3f})"


def page(table: pd.DataFrame, runs: Path, survival: Path) -> str:
    """The whole document."""
    brca = survival / "fed_tcga_brca"
    linear = brca_table(brca) if brca.is_dir() else "(no Fed-TCGA-BRCA in the folder of real data)"
    asked = int(table["seed"].nunique()) if len(table) else 0
    adamw = "`fedavg-adamw`: AdamW at the sites, fedecg's default. "
    adamw = adamw if "fedavg-adamw" in set(table["algorithm"]) else ""
    not_whole = int((table["status"] != "completed").sum())
    partial = (
        f" In {not_whole} of {len(table)} studies some site was left out of some round." if not_whole else ""
    )
    return f"""# The bench: algorithms on splits

Made by `docs/bench.py` from `configs/grids/bench.toml`; all outcomes of this part are **simulated**. `small` network,
aligned once on a consortium of its own (seed 200), ECGs of 5 s, 2,400 patients at six sites (80 % train), 8 survival
rounds of 8 local steps for every algorithm, plain SGD at a rate of 0.2 without decay, gradients clipped at norm 5, the
round chosen by validation; test part of 3,000 patients. C-indices are stratified; intervals are t-intervals over seeds
({asked} so far; each seed is a consortium of its own), differences are paired by seed.{partial}

What the comparison rests on: all seeds begin with one and the same aligned network, so intervals are those of
consortia, not of alignments. Pooled training makes as many steps a round as all sites together (48; 32 with four
sites). Algorithms differ in which round validation chose, too, and a difference may come from that. Rates were looked
for on seeds 101 and 102, which are not in the table, on two of the splits (`configs/grids/bench.toml` lists what was
tried).

{sentences(table)}

{algorithms_table(table, runs)}

Splits: IID; as the generator's six unlike hospitals have them; Dirichlet 0.1 over diagnoses to sites of equal size;
IID with a window of follow-up for each site; IID with recorders that differ in gain, mains hum and rate, some with
exchanged arms or missing leads.

{adamw}`fedbn`: each site is judged with its own norms; in the `fedecg`
preset these are but the scales and shifts of its LayerNorms, so that little can come of it (BatchNorms, for which it
was made, are in the `paper` preset and in `xresnet1d`). `scaffold` sends the control variate of all sites with the
weights, which is half as much again both ways together; a site's own change of it follows from its update and is not
sent. All others exchange what fedavg does.

## What stands beside them

`local, each on its own patients` is what a site has without the others; `mean of all on all patients` sends each
site's model everywhere, which is harder where sites differ.

{others_table(table)}

{code_line(table["code-fingerprint"])}

# Fed-TCGA-BRCA

FLamby's linear Cox model (39 clinical covariates, 6 real regions, 866 training and 222 test patients), its split, its
metric (C of all pairs of the pooled test part). Ours: ten full-batch SGD steps a round on standardised covariates, loss
= the pooled Cox model from sums, weights by patients, no penalty; "exact" is the optimum of the same model with a ridge
of 0.001 (0.838-0.842 for any from 0.0001 to 0.1). At a small rate (second column) all come within 0.004 of it. Run on
at a large one (third column), all but scaffold settle where their local steps pull them, below it; scaffold settles at
it.

{linear}

FLamby's figures: [owkin/FLamby](https://github.com/owkin/FLamby) at edacf54,
`flamby/results/results_benchmark_fed_tcga_brca/tcga_seed42..46.csv`, rows "Pooled Test" (100 local steps of batch 8
a round, 5 rounds by its `common.py`); its pooled training has not converged.
"""


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description="Write docs/bench.md of what the grid has finished.")
    parser.add_argument("runs", nargs="?", type=Path, default=Path("runs/bench"))
    parser.add_argument("--survival", type=Path, default=Path("../shared/data/survival"))
    parser.add_argument("--out", type=Path, default=Path("docs/bench.md"))
    options = parser.parse_args()
    file = options.runs / "table.csv"
    table = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=EMPTY)
    finished = table[table["status"].astype(str).str.startswith("completed")]
    options.out.write_text(page(finished, options.runs, options.survival), encoding="utf-8")


if __name__ == "__main__":
    main()
