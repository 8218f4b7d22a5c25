"""A partition as a picture: how large sites are, what they hold, and how far they are from each other.

In:  the document of `partition_report`. Out: a matplotlib figure. Called by `partition_report`, which writes it beside
partition.json. Up to `SITES_NAMED` sites have a row each; of more, four panels show how they are distributed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedecg.report.look import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LIGHT,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    look,
    new_figure,
)

__all__ = ["SITES_NAMED", "partition_figure"]

SITES_NAMED = 30
ROW_IN = 0.2
NAME_CHARACTERS = 14
TITLE_CHARACTERS = 52
LABELS_SHOWN = 6
MIX_COLOURS = (BLUE, ORANGE, SKY, VERMILION, GREEN, PURPLE)
REST = "#EEEEEE"

RATE_WORDS = "events per 100 patient-years\n(too few watched from the ECG on)"
ABSENT: Mapping[str, Any] = {"va": "center", "fontsize": 7, "color": GREY}

Document = Mapping[str, Any]
Site = Mapping[str, Any]


def partition_figure(document: Document) -> Figure:
    """Patients and events, label mix, divergence of labels, and survival, by site.

    Args:
        document: as in partition.json.
    """
    sites: Sequence[Site] = document["sites"]
    rows = len(sites) <= SITES_NAMED
    height_in = 2.4 + 2 * max(ROW_IN * len(sites), 1.0) if rows else 5.4
    with look():
        words = textwrap.wrap(str(document["partition"]), TITLE_CHARACTERS)
        title = "\n".join([f"{len(sites):,} sites", *words])
        figure = new_figure(
            title, height_in + 0.17 * len(words), simulated=document["outcomes"] == "simulated"
        )
        (sizes, mixes), (labels, survival) = figure.subplots(2, 2, sharey=rows)
        shown = _shown_labels(sites)
        if rows:
            _sizes_by_row(sizes, sites)
            _mixes_by_row(mixes, sites, shown)
            _labels_by_row(labels, sites, document)
            _survival_by_row(survival, sites, document)
            _name_rows((sizes, mixes, labels, survival), sites)
        else:
            _sizes_of_many(sizes, sites)
            _mixes_of_many(mixes, sites, shown)
            _labels_of_many(labels, sites, document)
            _survival_of_many(survival, sites, document)
        _legend(figure, (sizes, mixes))
    return figure


def _shown_labels(sites: Sequence[Site]) -> list[str]:
    totals: dict[str, float] = {}
    for site in sites:
        for label, share in site["label-mix"].items():
            totals[label] = totals.get(label, 0.0) + share * site["patients"]
    return sorted(totals, key=lambda label: (-totals[label], label))[:LABELS_SHOWN]


def _shares(sites: Sequence[Site], shown: Sequence[str]) -> np.ndarray:
    """(labels + 1, S) shares of the labels shown, the rest last."""
    table = np.array([[site["label-mix"].get(label, 0.0) for site in sites] for label in shown])
    table = table.reshape(len(shown), len(sites))
    return np.vstack([table, np.clip(1 - table.sum(axis=0), 0, 1)])


def _pieces(shown: Sequence[str], shares: np.ndarray) -> list[tuple[str, str, np.ndarray]]:
    """Label, colour and shares of each piece of the mix; the rest only where there is one."""
    names = [*shown, "other"]
    colours = [*MIX_COLOURS[: len(shown)], REST]
    pieces = list(zip(names, colours, shares, strict=True))
    return pieces if shares[-1].max(initial=0.0) > 0.001 else pieces[:-1]


def _sizes_by_row(axes: Axes, sites: Sequence[Site]) -> None:
    places = range(len(sites))
    patients = [site["patients"] for site in sites]
    axes.barh(places, patients, height=0.7, color=LIGHT, label="patients")
    axes.barh(places, [site["events"] for site in sites], height=0.7, color=INK, label="events")
    for place, site in enumerate(sites):
        axes.text(
            site["patients"], place, f" {site['patients']:,} / {site['events']:,}", va="center", fontsize=7
        )
    axes.set_xlim(0, 1.7 * max([1, *patients]))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=2, integer=True))
    axes.set_xlabel("patients / events")


def _mixes_by_row(axes: Axes, sites: Sequence[Site], shown: Sequence[str]) -> None:
    left = np.zeros(len(sites))
    for label, colour, share in _pieces(shown, _shares(sites, shown)):
        axes.barh(
            range(len(sites)),
            share,
            left=left,
            height=0.7,
            color=colour,
            edgecolor="white",
            linewidth=0.5,
            label=label,
        )
        left = left + share
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "50", "100 %"])
    axes.set_xlabel("label mix")


def _labels_by_row(axes: Axes, sites: Sequence[Site], document: Document) -> None:
    values = [site["label-divergence-bits"] for site in sites]
    axes.barh(range(len(sites)), values, height=0.7, color=BLUE)
    axes.set_xlim(0, 1.15 * max([0.05, *values]))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=3))
    axes.set_xlabel(_divergence_words(document), fontsize=8)


def _survival_by_row(axes: Axes, sites: Sequence[Site], document: Document) -> None:
    if not _has_survival(sites, document):
        axes.barh(range(len(sites)), [site["events-a-100-years"] for site in sites], height=0.7, color=BLUE)
        axes.set_xlabel(RATE_WORDS, fontsize=8)
        return
    for place, site in enumerate(sites):
        if site["survival"] is None:
            axes.text(0.02, place, "too few so far", transform=axes.get_yaxis_transform(), **ABSENT)
            continue
        axes.plot(
            [site["survival-ci-low"], site["survival-ci-high"]], [place, place], color=BLUE, linewidth=1.4
        )
        axes.plot([site["survival"]], [place], marker="o", markersize=4, color=BLUE, linestyle="none")
    axes.axvline(document["survival-of-all"], color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=3))
    axes.set_xlabel(_survival_words(document), fontsize=8)


def _name_rows(panels: Sequence[Axes], sites: Sequence[Site]) -> None:
    for axes in panels:
        axes.set_yticks(range(len(sites)), [_short(str(site["site"])) for site in sites], fontsize=7.5)
        for text in axes.get_yticklabels():
            text.set_parse_math(False)  # a dollar sign in a name is a dollar sign
        axes.set_ylim(len(sites) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)


def _sizes_of_many(axes: Axes, sites: Sequence[Site]) -> None:
    patients = np.sort([site["patients"] for site in sites])[::-1]
    events = np.sort([site["events"] for site in sites])[::-1]
    rank = np.arange(1, len(sites) + 1)
    axes.fill_between(rank, patients, step="mid", color=LIGHT, linewidth=0, label="patients")
    axes.fill_between(rank, events, step="mid", color=INK, linewidth=0, label="events")
    axes.set_xlim(0.5, len(sites) + 0.5)
    axes.set_ylim(0, 1.1 * max(1, patients.max()))
    axes.set_xlabel("sites, largest first", fontsize=8)
    axes.set_ylabel("patients, events", fontsize=8)


def _mixes_of_many(axes: Axes, sites: Sequence[Site], shown: Sequence[str]) -> None:
    shares = _shares(sites, shown)
    order = np.lexsort(tuple(shares[::-1]))[::-1]  # by the commonest label, then the next
    base = np.zeros(len(sites))
    rank = np.arange(1, len(sites) + 1)
    for label, colour, share in _pieces(shown, shares[:, order]):
        axes.fill_between(rank, base, base + share, step="mid", color=colour, linewidth=0, label=label)
        base = base + share
    axes.set_xlim(0.5, len(sites) + 0.5)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1], ["0", "50", "100 %"])
    axes.set_xlabel("sites, by the commonest label", fontsize=8)
    axes.set_ylabel("label mix", fontsize=8)


def _labels_of_many(axes: Axes, sites: Sequence[Site], document: Document) -> None:
    axes.hist([site["label-divergence-bits"] for site in sites], bins=30, color=BLUE)
    axes.set_xlim(left=0)
    axes.set_ylabel("sites", fontsize=8)
    axes.set_xlabel(_divergence_words(document), fontsize=8)


def _survival_of_many(axes: Axes, sites: Sequence[Site], document: Document) -> None:
    axes.set_ylabel("sites", fontsize=8)
    if not _has_survival(sites, document):
        axes.hist([site["events-a-100-years"] for site in sites], bins=30, color=BLUE)
        axes.set_xlabel(RATE_WORDS, fontsize=8)
        return
    axes.hist([site["survival"] for site in sites if site["survival"] is not None], bins=30, color=BLUE)
    axes.axvline(document["survival-of-all"], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xlabel(_survival_words(document).replace(", 95 % CI", ""), fontsize=8)


def _has_survival(sites: Sequence[Site], document: Document) -> bool:
    """Not where hardly any site watches patients from the ECG on: the rate of events is shown then."""
    return document["survival-of-all"] is not None and any(site["survival"] is not None for site in sites)


def _divergence_words(document: Document) -> str:
    return (
        "labels: Jensen–Shannon bits from all\n"
        f"between sites {document['label-divergence-bits']:.3f},"
        f" by chance {document['label-divergence-bits-by-chance']:.3f}"
    )


def _survival_words(document: Document) -> str:
    difference = document["largest-difference-of-survival"]
    return (
        f"Kaplan–Meier at {document['survival-horizon-years']:g} years, 95 % CI\n"
        f"dashed: all; largest difference {difference:.3f}"
    )


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    handles, labels = [], []
    for each in axes:
        own_handles, own_labels = each.get_legend_handles_labels()
        handles += own_handles
        labels += own_labels
    legend = figure.legend(
        handles, labels, loc="outside lower center", ncols=4, columnspacing=1.2, handlelength=1.0
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _short(name: str) -> str:
    if len(name) <= NAME_CHARACTERS:
        return name
    return f"{name[: NAME_CHARACTERS - 7]}…{name[-6:]}"
