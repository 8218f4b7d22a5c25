"""The page of what alignment pretraining is worth: reads the tables of two grids, writes docs/pretraining.md and .png.

.venv/bin/fedecg-simulate grid configs/pretraining.toml
.venv/bin/fedecg-simulate grid configs/grids/schedules.toml
.venv/bin/python docs/pretraining.py [RUNS/PRETRAINING [RUNS/SCHEDULES]]

A grid that has not ended gives a page of what there is, which says of how many seeds each figure is.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from fedecg.report.look import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILION, look, rendered
from fedecg_simulations.grid_report import code_line

PAGE, PICTURE = Path("docs/pretraining.md"), Path("docs/pretraining.png")
KINDS = {
    "none": "none",
    "reconstruction": "reconstruction alone",
    "shuffled": "shuffled text",
    "paper": "`paper` (cosine)",
    "bank": "`bank`",
}
COLOURS = dict(zip(KINDS, (GREY, GREEN, ORANGE, PURPLE, BLUE), strict=True))
STRATIFIED, ALL_PAIRS = "federated.c-index-stratified", "federated.c-index"
LEVEL, FEW, MANY, LEAST_GAIN = 0.95, 50, 200, 0.02
Floats = NDArray[np.float64]


def values(table: pd.DataFrame, kind: str, events: int, measure: str) -> pd.Series:
    """By seed, of the studies that ended."""
    rows = table[(table["pretraining"] == kind) & (table["events"] == events)]
    return rows.set_index("seed")[measure].dropna()


def paired(table: pd.DataFrame, kind: str, other: str, events: int, measure: str = STRATIFIED) -> Floats:
    """Differences, one a seed that both have."""
    apart = values(table, kind, events, measure) - values(table, other, events, measure)
    return apart.dropna().to_numpy(dtype=np.float64)


def interval(apart: Floats) -> tuple[float, float, float]:
    """Mean and 95 % t-interval over seeds; NaN without two."""
    if len(apart) < 2:
        return (float(apart.mean()) if len(apart) else np.nan), np.nan, np.nan
    half = stats.t.ppf((1 + LEVEL) / 2, len(apart) - 1) * apart.std(ddof=1) / np.sqrt(len(apart))
    mean = float(apart.mean())
    return mean, mean - half, mean + half


def told(apart: Floats) -> str:
    """Mean (interval), and of how many seeds where not of ten."""
    if not len(apart):
        return "-"
    mean, low, high = interval(apart)
    seeds = "" if len(apart) == 10 else f", {len(apart)} seed{'s' if len(apart) > 1 else ''}"
    span = "one seed" if len(apart) == 1 else f"{low:+.3f} to {high:+.3f}{seeds}"
    return f"{mean:+.3f} ({span})"


def c_table(table: pd.DataFrame, measure: str) -> str:
    """Mean C by kind and events."""
    numbers = sorted(table["events"].unique())
    lines = [
        "| pretraining | " + " | ".join(f"{n} events" for n in numbers) + " |",
        "|---" * (len(numbers) + 1) + "|",
    ]
    for kind, name in KINDS.items():
        cells = []
        for number in numbers:
            ended = values(table, kind, number, measure)
            cells.append(f"{ended.mean():.3f} ({len(ended)})" if len(ended) else "-")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def gain_table(table: pd.DataFrame, measure: str = STRATIFIED) -> str:
    """Paired gains by events."""
    pairs = [
        *(("bank", other) for other in ("none", "shuffled", "reconstruction", "paper")),
        ("shuffled", "none"),
    ]
    lines = [
        "| events | " + " | ".join(f"{KINDS[one]} minus {KINDS[other]}" for one, other in pairs) + " |",
        "|---" * (len(pairs) + 1) + "|",
    ]
    for number in sorted(table["events"].unique()):
        cells = [told(paired(table, *pair, number, measure)) for pair in pairs]
        lines.append(f"| {number} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdicts(table: pd.DataFrame) -> str:
    """What was to be shown, and whether it was, a line each."""
    lines = []
    for number in sorted(table["events"].unique()):
        for other in ("none", "shuffled"):
            apart = paired(table, "bank", other, number)
            mean, low, high = interval(apart)
            against = {"none": "no pretraining", "shuffled": "shuffled text"}[other]
            if not len(apart) or np.isnan(low):
                lines.append(
                    f"- {number} events, `bank` against {against}: too few seeds have been run to say."
                )
            elif number <= FEW:
                met = "Met" if mean >= LEAST_GAIN and low > 0 else "Not met"
                verdict = (
                    met
                    if len(apart) == len(set(table["seed"]))
                    else "No verdict before all seeds have been run"
                )
                lines.append(
                    f"- {number} events, `bank` against {against}: gain {told(apart)}; to be shown: at least "
                    f"{LEAST_GAIN} with a lower bound above 0. **{verdict}**, better in "
                    f"{int((apart > 0).sum())} of {len(apart)} seeds."
                )
            elif number >= MANY and other == "none":
                words = "no harm is seen" if mean >= 0 else "harm cannot be told from chance"
                words = "it hurts" if high < 0 else words
                lines.append(f"- {number} events, `bank` against {against}: {told(apart)}: {words}.")
    return "\n".join(lines)


def picture(table: pd.DataFrame) -> Figure:
    """C by events and kind, and the paired gains of `bank`."""
    numbers = sorted(table["events"].unique())
    with look():
        figure = Figure(figsize=(9.0, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        for at, (kind, name) in enumerate(KINDS.items()):
            means = [values(table, kind, number, STRATIFIED).mean() for number in numbers]
            left.plot(numbers, means, "o-", color=COLOURS[kind], label=name.replace("`", ""), lw=1.5, ms=4)
            for number in numbers:
                ended = values(table, kind, number, STRATIFIED)
                place = np.full(len(ended), number * 1.04 ** (at - 2))
                left.plot(place, ended, ".", color=COLOURS[kind], alpha=0.3, ms=3)
        for other, colour, shift in (("none", BLUE, 0.97), ("shuffled", VERMILION, 1.03)):
            spans = [interval(paired(table, "bank", other, number)) for number in numbers]
            mean, low, high = np.array(spans).T
            right.errorbar(
                np.array(numbers) * shift, mean, yerr=[mean - low, high - mean], fmt="o", color=colour,
                label=f"bank minus {KINDS[other]}", capsize=3,
            )  # fmt: skip
        right.axhline(0, color=GREY, lw=0.8)
        for axes in (left, right):
            axes.set_xscale("log")
            axes.set_xticks(numbers, [str(number) for number in numbers])
            axes.minorticks_off()
            axes.set_xlim(0.85 * numbers[0], 1.18 * numbers[-1])
            axes.set_xlabel("training events whose outcome is known, all sites")
            axes.legend(frameon=False, fontsize=8)
        left.set_ylabel("C within sites, test part")
        right.set_ylabel("paired gain, mean and 95 % interval")
        figure.suptitle("Outcomes are SIMULATED", fontsize=9)
    return figure


def schedules_table(table: pd.DataFrame) -> str:
    """C of every way of tuning by events, and its difference to the plain one, paired by seed."""
    lines = ["| events | schedule | seeds | C | minus plain, by seed |", "|---" * 5 + "|"]
    for (events, schedule), rows in table.groupby(["events", "schedule"], sort=False):
        ended = rows.dropna(subset=[STRATIFIED]).set_index("seed")[STRATIFIED]
        plain = table[(table["events"] == events) & (table["schedule"] == "plain")].set_index("seed")[
            STRATIFIED
        ]
        if ended.empty:
            continue
        apart = ", ".join(f"{value:+.3f}" for value in (ended - plain).dropna())
        lines.append(
            f"| {events} | {schedule} | {len(ended)} | {ended.mean():.3f} | {'' if schedule == 'plain' else apart} |"
        )
    return "\n".join(lines)


def schedules(folder: Path) -> str:
    """The chapter of the schedules; their figures where there are any."""
    measured = ""
    if (folder / "table.csv").exists():
        measured = f"""
`configs/grids/schedules.toml`, on seeds 101 and 102 alone (the seeds to build with), pretraining `bank`. Two seeds
choose nothing: the defaults stay what they are.

{schedules_table(pd.read_csv(folder / "table.csv"))}
"""
    return f"""
## Tuning the aligned encoder otherwise

Four keys of `[survival]`, which may be combined; all are off by default.

- `freeze-rounds = k`: in the first k rounds the encoder is a fixed map (no dropout, no step), only the risk head learns
- `encoder-rate = f`: the encoder's learning rate is f x `learning-rate`; 0: it never moves
- `layer-decay = d`: a level of the encoder learns at d x the rate of the level above it, pooling first, the lead maps'
  stem last
- `alignment = a`: the loss is (1 - a) x survival + a x alignment, of the same records; projection and temperature go on
  learning, and travel with the weights
{measured}"""


def page(table: pd.DataFrame, others: Path) -> str:
    """The page."""
    ended = table[table["status"].str.startswith("completed")]
    share = f"{len(ended)} of {len(table)} studies have been run" + (
        "" if len(ended) == len(table) else "; the rest stands as -"
    )
    return f"""# Does alignment pretraining help survival?

Made by `docs/pretraining.py` from the grid `configs/pretraining.toml`; all outcomes are **simulated**. {share}.
{code_line(ended["code-fingerprint"])}

The demo's synthetic consortium (six unlike hospitals, half as large again as in the demo, which has too few events),
`small` network, ECGs of 10 s, 12 alignment and 12 survival rounds, loss `cox-pooled`: the demo's settings, none of
which was chosen with this comparison or with seeds 0-9 in view. Every kind of pretraining sees all training ECGs of all
sites. Survival training sees the outcomes of so many patients, drawn at random in proportion to the sites, that all
sites together have 20, 50, 100 or 200 events (`data.events`); everybody else has an ECG and its statements, and no
known outcome. Validation (900 patients, all outcomes known) chooses the round, for every kind alike; the test part has
6,000 patients. Federated models only.

- none: the survival stage begins with an untrained network
- reconstruction alone: the same encoder learned to fill in hidden leads, no statement was read
- shuffled text: as `bank`, but every ECG has another one's statements: what steps, losses and negatives are worth
  without their meaning
- `paper`: the authors' cosine loss, positives only
- `bank`: the default, with the demonstration bank `minilm-demo` (no claim about language models rests on it)

![C by events, and paired gains](pretraining.png)

## What came out

{verdicts(table)}

Paired differences of the stratified C (pairs within a site) over seeds, mean and 95 % t-interval:

{gain_table(table)}

Stratified C, mean over seeds (in brackets: how many):

{c_table(table, STRATIFIED)}

The same over all pairs, which also rewards knowing the site:

{gain_table(table, ALL_PAIRS)}

{c_table(table, ALL_PAIRS)}

## How far this carries

Statements and outcomes come from one generator: what a statement names (bundle branch block, voltage, scars, rhythm,
repolarisation) is among what raises the simulated hazard, and readers err little. So this shows that the machinery
carries knowledge from statements into risk where outcomes are few, federated; how much real reports know of real heart
failure it cannot show.
{schedules(others)}"""


def main() -> None:
    """Write page and picture."""
    given = [Path(argument) for argument in sys.argv[1:]]
    runs, others = (given + [Path("runs/pretraining"), Path("runs/schedules")][len(given) :])[:2]
    table = pd.read_csv(runs / "table.csv")
    PAGE.write_text(page(table, others), encoding="utf-8")
    PICTURE.write_bytes(rendered(picture(table), "png", {"Software": None}))
    print(f"written: {PAGE}, {PICTURE}")


if __name__ == "__main__":
    main()
