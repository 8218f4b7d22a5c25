"""Is the attention true? What a study's report says of it: a row a test and map, figures, captions that own up.

In:  explanation.json of a study. Out: `FaithfulnessSection`, from which the page is made. Called by `html`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedecg.explanation import MEASURED, ORDERS, planted_sentence
from fedecg.explanation.deletion import AreaDifference, Deletion
from fedecg.report.attention_figures import FaithfulnessFigure, deletion_figure, lead_change_figure
from fedecg.report.figure_data import csv_text
from fedecg.report.grid import Grid
from fedecg.report.group_attention import group_figures
from fedecg.report.wording import DASH, c_index, count, decimal, difference, p_value, printable
from fedecg.signals import LEADS

__all__ = ["FaithfulnessFigure", "FaithfulnessSection", "faithfulness_section"]

Explanation = Mapping[str, Any]

TITLE = "Is the attention true?"
WORDS = {True: "passed", False: "failed", None: "too few ECGs"}
NOT_TESTED = "not tested"
KEYS = {"time attention": "time", "lead attention": "leads"}
NOTES = (
    "Weight randomisation: maps of attention must differ from those of copies of the network whose weights are "
    "shuffled, more than the copies differ among themselves. A network that has learnt nothing fails it.",
    "Deletion and insertion: hiding (keeping) time in the order of attention must move the log hazard further "
    "(leave less to go) than a random order. The order by gradient x input is a comparison and no test.",
    "Lead occlusion: leads that receive more attention must be those whose hiding moves the log hazard more. Limb "
    "leads are combinations of two, so hiding one can change little although the model uses what it shows.",
)
STABILITY = (
    "Stability over seeds: the study trains again with other seeds, and the models must attend alike. Where the "
    "alignment is shared, so is most of what attention has learnt; trained from scratch, a short study of the demo "
    "agreed far less (docs/attention.md)."
)
LOSS_OF_C = (
    "Loss of C: stratified C as it is less C with the lead hidden, on the same pairs; the interval is that of the "
    "paired difference."
)
PLANTED = (
    "On made ECGs with preset fedecg, size small, three seeds, not on this model: {} So attention may miss what alone "
    "decides the hazard (docs/attention.md)."
)
GROUPS = (
    "Groups: patients of the outer groups of risk, and those with a statement; a site adds a group of at least {} "
    "patients that differs by as many from its other groups. Attention that differs between groups is not yet a reason."
)
FEDERATED = "Sites sent sums over their ECGs; no ECG and no map left a site."


@dataclass(frozen=True, eq=False)
class FaithfulnessSection:
    """What the page shows.

    Attributes:
        title: of the section.
        sentences: the verdicts in words, first of all.
        grid: one row a test: figure, threshold, passed or not.
        figures: deletion and insertion; lead occlusion; then those of groups of patients.
        tests: how many of the figures belong to the tests.
        notes: what the tests are.
    """

    title: str
    sentences: tuple[str, ...]
    grid: Grid
    figures: tuple[FaithfulnessFigure, ...]
    tests: int
    notes: tuple[str, ...]


def faithfulness_section(explanation: Explanation, *, simulated: bool) -> FaithfulnessSection:
    """The whole section.

    Args:
        explanation: as in explanation.json.
        simulated: the outcomes are; said in the figure that shows a C.
    """
    tests = (_deletion(explanation), _occlusion(explanation, simulated))
    groups = group_figures(explanation)
    return FaithfulnessSection(
        TITLE,
        (_tested(explanation), *(_summary(explanation, about) for about in KEYS)),
        _grid(explanation),
        (*tests, *groups),
        len(tests),
        (
            *NOTES,
            LOSS_OF_C,
            STABILITY,
            *((GROUPS.format(explanation["fewest-patients"]),) if groups else ()),
            PLANTED.format(planted_sentence(MEASURED)),
        ),
    )


def _tested(explanation: Explanation) -> str:
    too_few = [printable(name) for name, ecgs in explanation["sites"].items() if not ecgs]
    sites = len(explanation["sites"]) - len(too_few)
    left_out = (
        f" Not tested, too few patients (below {explanation['fewest-patients']}): {', '.join(too_few)}."
    )
    return (
        f"Tested on {count(explanation['ecgs'])} ECGs of the {explanation['part']} part at {sites} "
        f"site{'' if sites == 1 else 's'}. {FEDERATED}" + (left_out if too_few else "")
    )


def _summary(explanation: Explanation, about: str) -> str:
    verdicts = [verdict for verdict in explanation["verdicts"] if verdict["about"] == about]
    passed = [verdict["passed"] for verdict in verdicts if verdict["tested"]]
    not_made = [verdict["test"] for verdict in verdicts if not verdict["tested"]]
    open_ = f" Not tested: {', '.join(not_made)}." if not_made else ""
    name = about.capitalize()
    if None in passed:
        return f"{name}: too few ECGs to say whether it explains anything.{open_}"
    if False in passed:
        failed = f"{passed.count(False)} of {len(passed)} tests"
        return f"{name} is not an explanation of this model: it fails {failed}.{open_}"
    every = f"failed none of the {len(passed)} tests made" if not_made else f"passed all {len(passed)} tests"
    return f"{name} {every}: it shows where the network looked, not why.{open_}"


def _grid(explanation: Explanation) -> Grid:
    rows = []
    for verdict in explanation["verdicts"]:
        figure, threshold = _measured(explanation, verdict["test"], verdict["about"])
        of = KEYS[verdict["about"]]
        result = WORDS[verdict["passed"]] if verdict["tested"] else NOT_TESTED
        rows.append((verdict["test"], of, figure, threshold, result))
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
        stability = explanation["stability"] or {}
        value, limit = stability.get(key), limits["stability"]
    shared = test == "stability over seeds" and explanation["seeds-of"] == "survival"
    figure = f"rank correlation {decimal(value, 2)}" + (" (alignment shared)" if shared else "")
    return DASH if value is None else figure, f"at least {decimal(limit, 2)}"


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
    losses = list(zip(LEADS, hidden["c-loss"], hidden["c-loss-low"], hidden["c-loss-high"], strict=True))
    told = "; ".join(f"{lead} {difference(*loss)}" for lead, *loss in losses)
    names = ("bars", "moved", "shift", "c-loss", "c-loss-se", "c-loss-low", "c-loss-high")
    caption = explanation["captions"]["lead attention"]
    events, few = count(hidden["events"]), hidden["few-events"]
    basis = f"{events} events, {count(hidden['comparable'])} comparable pairs"
    return FaithfulnessFigure(
        lead_change_figure(
            moved,
            c_loss,
            (_array(hidden["c-loss-low"]), _array(hidden["c-loss-high"])),
            f"{events} events" + (": too few events" if few else ""),
            simulated=simulated,
        ),
        f"Loss of the stratified C, {c_index(hidden['c-index'])} on these ECGs ({basis}), "
        f"when a lead is hidden: {told}.",
        f"What hiding a lead does to the log hazard, either way, and to C ({basis}"
        f"{'; too few events, the intervals are narrower than they should be' if few else ''}). {caption}",
        "lead-occlusion",
        csv_text(
            (
                *("lead", "attention-received", "mean-absolute-change", "mean-change", "loss-of-c"),
                *("loss-of-c-se", "loss-of-c-low", "loss-of-c-high"),
            ),
            list(zip(LEADS, *(hidden[name] for name in names), strict=True)),
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
