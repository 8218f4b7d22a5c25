"""Virtual sites on disk: each gets the two files that a hospital's site folder has.

In:  a data set, its signal store, rows by site. Out: `FOLDER/NAME/site.toml` and `cohort.csv`.
Called by the runner; from there on a simulation reads what a deployment reads.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tomli_w
from numpy.typing import NDArray

from fedecg.cohort import Cohort, write_cohort
from fedecg.config import SiteDefaults
from fedecg.files import write_whole

__all__ = ["POOLED", "write_sites"]

POOLED = "pooled"


def write_sites(
    cohort: Cohort,
    store: Path,
    parts: Mapping[str, NDArray[np.int64]],
    folder: Path,
    defaults: SiteDefaults | None = None,
) -> None:
    """Write a folder a site, replacing what an earlier run left.

    Args:
        cohort: all patients.
        store: folder of the signal store that all virtual sites share.
        parts: site name -> rows of the cohort.
        folder: parent of the site folders; ledgers of an earlier run go with them.
        defaults: `[privacy]` of every site.toml.
    """
    privacy = (defaults or SiteDefaults()).model_dump(by_alias=True, exclude_none=True)
    for earlier in folder.glob("*/site.toml"):
        shutil.rmtree(earlier.parent)
    for name, rows in parts.items():
        site = folder / name
        write_cohort(cohort.select(rows), site / "cohort.csv")
        document = {
            "name": name,
            "store": os.path.relpath(store, site),
            "cohort": "cohort.csv",
            "policy": {"studies": ["*"], "keep-replies": False},
            "privacy": privacy,
        }
        write_whole(site / "site.toml", tomli_w.dumps(document))
