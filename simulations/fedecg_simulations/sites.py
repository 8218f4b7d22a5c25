"""Virtual sites on disk: each gets the two files that a hospital's site folder has.

In:  a data set, its signal store, rows by site. Out: `FOLDER/NAME/site.toml` and `cohort.csv`, and `reports.csv` where
     the site has reports and is to use them.
Called by the runner; from there on a simulation reads what a deployment reads.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import NDArray

from fedecg.cohort import Cohort, write_cohort
from fedecg.config import SiteDefaults
from fedecg.errors import SettingsError
from fedecg.files import write_whole
from fedecg_simulations.dataset import Dataset

__all__ = ["POOLED", "with_reports", "write_sites"]

POOLED = "pooled"
REPORTS = "reports.csv"
NAMED = 10  # sites in the message of an error


def with_reports(dataset: Dataset, parts: Mapping[str, NDArray[np.int64]], defaults: SiteDefaults) -> Dataset:
    """The data set with the reports that its virtual sites are to use: of those named, or of all; else with none.

    What is decided here by site holds in every column: in the pooled one, too, a record of a site that takes part by
    codes has no report.

    Raises:
        SettingsError: FECG-117 sites that there are not, or that have no reports; or a data set without any.
    """
    if defaults.text is None:
        return replace(dataset, cohort=replace(dataset.cohort, reports=None))
    reports = dataset.cohort.reports or ("",) * len(dataset.cohort)
    asked = defaults.text.sites or list(parts)
    kept = [row for name in asked for row in parts.get(name, ()) if reports[row]]
    without = [name for name in asked if not any(reports[row] for row in parts.get(name, ()))]
    if not kept or (defaults.text.sites and without):
        raise SettingsError(
            "FECG-117",
            "site-defaults.text",
            found=f"{len(without)} of {len(asked)} virtual sites that have no reports, or that there are not",
            expected=f"reports, as ptbxl and synthetic have them, at some of {', '.join(list(parts)[:NAMED])}",
            fix="Leave [site-defaults.text] out: the sites then take part by codes.",
        )
    used = set(kept)
    own = tuple(text if row in used else "" for row, text in enumerate(reports))
    return replace(dataset, cohort=replace(dataset.cohort, reports=own))


def write_sites(
    cohort: Cohort,
    store: Path,
    parts: Mapping[str, NDArray[np.int64]],
    folder: Path,
    defaults: SiteDefaults | None = None,
) -> None:
    """Write a folder a site, replacing what an earlier run left.

    Args:
        cohort: all patients, with the reports that their sites use, if any (`with_reports`).
        store: folder of the signal store that all virtual sites share.
        parts: site name -> rows of the cohort.
        folder: parent of the site folders; ledgers of an earlier run go with them.
        defaults: `[privacy]` of every site.toml; `[text]` of those that have reports.
    """
    defaults = defaults or SiteDefaults()
    privacy = defaults.model_dump(by_alias=True, exclude_none=True, exclude={"text"})
    for earlier in folder.glob("*/site.toml"):
        shutil.rmtree(earlier.parent)
    for name, rows in parts.items():
        site = folder / name
        own = cohort.select(rows)
        write_cohort(own, site / "cohort.csv")
        document = {
            "name": name,
            "store": os.path.relpath(store, site),
            "cohort": "cohort.csv",
            "policy": {"studies": ["*"], "keep-replies": False},
            "privacy": privacy,
            **_text_section(own, site, defaults),
        }
        write_whole(site / "site.toml", tomli_w.dumps(document))


def _text_section(own: Cohort, site: Path, defaults: SiteDefaults) -> dict[str, Any]:
    """`[text]` of a site whose records have reports, which are written beside its cohort; nothing of another."""
    if defaults.text is None or own.reports is None or not any(own.reports):
        return {}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("record", "report"))
    writer.writerows(zip(own.record.tolist(), own.reports, strict=True))
    write_whole(site / REPORTS, text.getvalue(), private=True)
    section = defaults.text.model_dump(by_alias=True, exclude={"sites"})
    return {"text": section | {"encoder": str(Path(section["encoder"]).resolve()), "reports": REPORTS}}
