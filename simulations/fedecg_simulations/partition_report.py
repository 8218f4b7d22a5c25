"""What a partition is, written down before anything is trained on it: partition.json and its picture.

In:  study settings, the data set as its sites know it, site name -> rows. Out: partition.json, figures/partition.png
and .svg in the run's folder. Called by the runner and by `fedecg-simulate partition`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.config import DriftSettings, PartitionSettings, StudySettings
from fedecg.files import write_whole
from fedecg.report.look import rendered
from fedecg.signals import LEADS
from fedecg_server.run_folder import write_json
from fedecg_simulations.dataset import Dataset
from fedecg_simulations.divergence import divergence
from fedecg_simulations.drift import Recorder, recorders
from fedecg_simulations.partition_figure import partition_figure
from fedecg_simulations.partitions import partition_table

__all__ = [
    "partition_document",
    "partition_lines",
    "partition_rows",
    "partition_words",
    "write_partition",
]

PARTITION, FIGURE = "partition.json", "partition"
FIGURES_OF_A_SITE = frozenset(
    {"events-a-100-years", "label-divergence-bits", "survival", "survival-ci-low", "survival-ci-high"}
)


def partition_document(
    settings: StudySettings, dataset: Dataset, parts: Mapping[str, NDArray[np.int64]]
) -> dict[str, Any]:
    """What each site holds, how it records, and how far it is from the others.

    Args:
        settings: of the study that the sites were made for.
        dataset, parts: as `virtual_sites` gives them.
    """
    found = divergence(dataset, parts, settings.evaluation.horizons_years, settings.seed)
    figures = found.entries()
    own = {
        name: _recorder_entry(recorder)
        for name, recorder in recorders(parts, settings.drift, settings.seed).items()
    }
    sites = [
        {**row, **figures[row["site"]], **({"recorder": own[row["site"]]} if own[row["site"]] else {})}
        for row in partition_table(dataset, parts)
    ]
    return {
        "outcomes": dataset.outcomes,
        "seed": settings.seed,
        "partition": partition_words(settings),
        **found.entry(),
        "sites": sites,
    }


def write_partition(document: Mapping[str, Any], folder: Path, with_figure: bool = True) -> list[Path]:
    """Write partition.json and the figure, as PNG and SVG, into a folder and its `figures`; returns the paths.

    Raises:
        RunError: FECG-601.
    """
    write_json(folder / PARTITION, document)
    if not with_figure:
        return [folder / PARTITION]
    figure = partition_figure(document)
    png, svg = (folder / "figures" / f"{FIGURE}.{kind}" for kind in ("png", "svg"))
    write_whole(png, rendered(figure, "png", {"Software": None}))
    write_whole(svg, rendered(figure, "svg", {"Date": None, "Creator": None}))
    return [folder / PARTITION, png, svg]


def partition_rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sites of a document as rows of a table on the screen: sizes and label mix; the rest is in the file."""
    beyond = {"recorder", *FIGURES_OF_A_SITE}
    return [{key: value for key, value in site.items() if key not in beyond} for site in document["sites"]]


def partition_lines(document: Mapping[str, Any]) -> list[str]:
    """How far the sites are from each other, in words."""
    lines = [
        f"{document['partition']}: the site of a patient tells {document['label-divergence-bits']:.3f} bits of the"
        f" superclass ({document['label-divergence-bits-by-chance']:.3f} by chance),"
        f" {document['event-divergence-bits']:.3f} of the event"
        f" ({document['event-divergence-bits-by-chance']:.3f} by chance)"
    ]
    if document["outcomes"] != "observed":
        lines.append("Outcomes are SIMULATED: events and survival are those of a generator.")
    if document["survival-horizon-years"] is not None:
        difference = document["largest-difference-of-survival"]
        apart = (
            "no two sites can be compared"
            if difference is None
            else f"sites differ by up to {difference:.3f}"
        )
        lines.append(
            f"survival at {document['survival-horizon-years']:g} years {document['survival-of-all']:.3f}; {apart}"
        )
    return lines


def partition_words(settings: StudySettings) -> str:
    """A partition in a line: "dirichlet 0.1 by superclass, equal sizes, disjoint follow-up, drift"."""
    partition = settings.partition
    words = [_dealt_words(partition)]
    if partition.sizes != "drawn":
        exponent = f" {partition.exponent:g}" if partition.sizes == "power-law" else ""
        words.append(f"{partition.sizes}{exponent} sizes")
    if partition.follow_up != "full":
        words.append(f"{partition.follow_up} follow-up")
    if settings.drift != DriftSettings():
        words.append("recorders drift")
    return ", ".join(words)


def _dealt_words(partition: PartitionSettings) -> str:
    if partition.by == "column":
        return f"by {partition.column}"
    if partition.by == "dirichlet":
        return f"Dirichlet {partition.alpha:g} over {partition.label}"
    if partition.by == "quantity" and partition.sizes == "drawn":
        return f"quantity {partition.alpha:g}"
    return partition.by.replace("iid", "IID")


def _recorder_entry(recorder: Recorder) -> dict[str, Any]:
    """What differs from a recorder that changes nothing; leads by name."""
    plain = asdict(Recorder())
    entry = {key: value for key, value in asdict(recorder).items() if value != plain[key]}
    if recorder.missing:
        entry["missing"] = [LEADS[lead] for lead in recorder.missing]
    if not recorder.hum_mv:
        entry.pop("mains_hz", None)
    return {
        key.replace("_", "-"): round(value, 4) if isinstance(value, float) else value
        for key, value in entry.items()
    }
