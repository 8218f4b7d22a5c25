"""Is the attention true? What a study's report says of it: one row a test, two figures, captions that own up.

In:  explanation.json of a study. Out: `FaithfulnessSection`, from which the page is made. Called by `html`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fedecg.explanation import ORDERS
from fedecg.explanation.deletion import AreaDifference, Deletion
from fedecg.report.attention_figures import deletion_figure, lead_change_figure
from fedecg.report.figure_data import csv_text
from fedecg.report.grid import Grid
from fedecg.report.wording import DASH, c_index, count, decimal, difference, p_value
from fedecg.signals import LEADS

__all__ = ["FaithfulnessFigure", "FaithfulnessSection", "faithfulness_section"]

Explanation = Mapping[str, Any]

TITLE = "Is the attention true?"
WORDS = {True: "passed", False: "failed", None: "too few ECGs"}
KEYS = {"time attention": "time", "lead attention": "leads"}
NOTES = (
    "Weight randomisation: maps of attention must differ from those of copies of the network whose weights are "
    "shuffled, more than the copies differ among themselves. A network that has learnt nothing fails it.",
    "Deletion and insertion: hiding (keeping) time in the order of attention must move the log hazard further "
    "(leave less to go) than a random order. The order by gradient x input is a comparison and no test.",
    "Lead occlusion: leads that receive more attention must be those whose hiding moves the log hazard more. Limb "
    "leads are combinations of two, so hiding one can change little although the model uses what it shows.",
)
NO_SEEDS = "Stability over seeds: not tested, since it takes several runs of the study."
FEDERATED = "Sites sent sums over their ECGs; no ECG and no map left a site."


@dataclass(frozen=True, eq=False)
class FaithfulnessFigure:
    """A figure with what stands beside it.

    Attributes:
        figure: as drawn. alternative: the numbers in words. caption: what the tests found.
        name: of the file of its data. data: CSV.
    """

    figure: Figure
    alternative: str
    caption: str
    name: str
    data: str


@dataclass(frozen=True, eq=False)
class FaithfulnessSection:
    """What the page shows.

    Attributes:
        title: of the section.
        sentences: the verdicts in words, first of all.
        grid: one row a test: figure, threshold, passed or not.
        figures: deletion and insertion; lead occlusion.
        notes: what the tests are.
    """

    title: str
    sentences: tuple[str, ...]
    grid: Grid
    figures: tuple[FaithfulnessFigure, ...]
    notes: tuple[str, ...]


def faithfulness_section(explanation: Explanation, *, simulated: bool) -> FaithfulnessSection:
    """The whole section.

    Args:
        explanation: as in explanation.json.
        simulated: the outcomes are; said in the figure that shows a C.
    """
    return FaithfulnessSection(
        TITLE,
        (_tested(explanation), *(_summary(explanation, about) for about in KEYS)),
        _grid(explanation),
        (_deletion(explanation), _occlusion(explanation, simulated)),
        (*NOTES, *(() if explanation["stability"] else (NO_SEEDS,))),
    )


def _tested(explanation: Explanation) -> str:
    sites = len(explanation["sites"])
    return (
        f"Tested on {count(explanation['ecgs'])} ECGs of the {explanation['part']} part at {sites} "
        f"site{'' if sites == 1 else 's'}. {FEDERATED}"
    )


def _summary(explanation: Explanation, about: str) -> str:
    passed = [verdict["passed"] for verdict in explanation["verdicts"] if verdict["about"] == about]
    if None in passed:
        return f"{about.capitalize()}: too few ECGs to say whether it explains anything."
    if False in passed:
        return (
            f"{about.capitalize()} is not an explanation of this model: it fails {passed.count(False)} of "
            f"{len(passed)} tests."
        )
    return f"{about.capitalize()} passed all {len(passed)} tests: it shows where the network looked, not why."


def _grid(explanation: Explanation) -> Grid:
    rows = []
    for verdict in explanation["verdicts"]:
        figure, threshold = _measured(explanation, verdict["test"], verdict["about"])
        of = KEYS[verdict["about"]]
        rows.append((verdict["test"], of, figure, threshold, WORDS[verdict["passed"]]))
        if verdict["test"] in ("deletion", "insertion"):
            compared = explanation["deletion"][f"{verdict['test']}-gradient"]
            test = f"{verdict['test']}, against gradient x input"
            rows.append((test, of, _area(compared), DASH, "comparison"))
    return Grid(
        header=("test", "attention", "figure", "threshold", "result"),
        rows=tuple(rows),
        numeric=(False, False, False, False, False),
    )


def _measured(explanation: Explanation, test: str, about: str) -> tuple[str, str]:
    """What a test measured, and from where on it counts as passed."""
    limits, key = explanation["thresholds"], KEYS[about]
    if test == "weight randomisation":
        result = explanation[key]
        return (
            f"{p_value(result['p-value'])}; rank correlation {decimal(result['similarity'], 2)}",
            f"p ≤ {limits['p-value']:g}; below {decimal(limits['similarity'], 2)}",
        )
    if test in ("deletion", "insertion"):
        return _area(explanation["deletion"][f"{test}-random"]), "interval above 0"
    if test == "lead occlusion":
        value, limit = explanation["occlusion"]["agreement"], limits["agreement"]
    else:
        value, limit = explanation["stability"][key], limits["stability"]
    return f"rank correlation {decimal(value, 2)}", f"at least {decimal(limit, 2)}"


def _area(entry: Mapping[str, float | None]) -> str:
    return difference(entry["value"], entry["low"], entry["high"])


def _deletion(explanation: Explanation) -> FaithfulnessFigure:
    curves = _deletion_of(explanation["deletion"])
    rows = [
        (order, float(share), float(curves.deletion[which, at]), float(curves.insertion[which, at]))
        for which, order in enumerate(ORDERS)
        for at, share in enumerate(curves.shares)
    ]
    told = "; ".join(
        f"{test} {_area(explanation['deletion'][f'{test}-random'])} against a random order, "
        f"{_area(explanation['deletion'][f'{test}-gradient'])} against gradient x input"
        for test in ("deletion", "insertion")
    )
    caption = explanation["captions"]["time attention"]
    return FaithfulnessFigure(
        deletion_figure(curves),
        f"Area by which attention's order is better, log hazard: {told}.",
        f"How far the log hazard moves, either way, when time is hidden or kept. {caption}",
        "deletion-insertion",
        csv_text(("order", "share-of-time", "change-when-hidden", "change-when-kept"), rows),
    )


def _occlusion(explanation: Explanation, simulated: bool) -> FaithfulnessFigure:
    hidden = explanation["occlusion"]
    moved, c_loss = _array(hidden["moved"]), _array(hidden["c-loss"])
    told = ", ".join(f"{lead} {decimal(loss, 3)}" for lead, loss in zip(LEADS, hidden["c-loss"], strict=True))
    columns = (hidden[name] for name in ("bars", "moved", "shift", "c-loss"))
    caption = explanation["captions"]["lead attention"]
    return FaithfulnessFigure(
        lead_change_figure(moved, c_loss, simulated=simulated),
        f"Loss of the stratified C, {c_index(hidden['c-index'])} on these ECGs, when a lead is hidden: {told}.",
        f"What hiding a lead does to the log hazard, either way, and to C. {caption}",
        "lead-occlusion",
        csv_text(
            ("lead", "attention-received", "mean-absolute-change", "mean-change", "loss-of-c"),
            list(zip(LEADS, *columns, strict=True)),
        ),
    )


def _deletion_of(entry: Mapping[str, Any]) -> Deletion:
    """The record that was written as JSON."""
    areas = (
        AreaDifference(*(_number(entry[name][end]) for end in ("value", "low", "high")))
        for name in ("deletion-random", "deletion-gradient", "insertion-random", "insertion-gradient")
    )
    return Deletion(
        entry["ecgs"],
        _array(entry["shares"]),
        _array(entry["deletion"]),
        _array(entry["insertion"]),
        *areas,
    )


def _array(values: list[Any]) -> np.ndarray:
    """Numbers with NaN for null."""
    return np.array(values, dtype=np.float64)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
