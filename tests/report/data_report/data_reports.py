"""`fedecg data report`, its documents and pages, as the tests read them, and the people that it reports on.

In:  arguments of the command, folders that it wrote. Out: status, documents, rows, words. Used by the tests beside it.
"""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np

from fedecg.cli import main
from fedecg.cohort import Cohort

PATIENTS = 240


def report(*arguments: object) -> int:
    return main(["data", "report", *map(str, arguments)])


def document(folder: Path, version: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / f"{version}.json").read_text())
    return read


def rows(doc: dict[str, Any], name: str, number: str = "patients") -> dict[str, Any]:
    (table,) = [table for table in doc["tables"] if table["name"] == name]
    return {row["label"]: row[number] for row in table["rows"]}


def text_of(page: Path) -> str:
    bare = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page.read_text(), flags=re.S)
    return " ".join(unescape(bare).split())


def people() -> Cohort:
    """240 patients, 80 with an event; three ages missing, three patients of an unusual sort each."""
    rng = np.random.default_rng(1)
    event = np.arange(PATIENTS) % 3 == 0
    age = rng.uniform(45, 85, PATIENTS)
    age[:3], age[3:6] = np.nan, 101.0
    codes = tuple(
        {"NORM": 100.0} if at % 2 else {"LVH": 100.0, "XRARE" if at == 4 else "SR": 0.0}
        for at in range(PATIENTS)
    )
    return Cohort(
        record=np.arange(PATIENTS),
        patient=np.arange(PATIENTS) + 7000,
        part=np.where(np.arange(PATIENTS) % 5 == 0, "test", "train"),
        event=event,
        follow_up_days=rng.uniform(30, 3650, PATIENTS),
        entry_days=np.zeros(PATIENTS),
        died=(np.arange(PATIENTS) % 7 == 1) & ~event,
        age_years=age,
        female=(np.arange(PATIENTS) % 2).astype(np.float64),
        codes=codes,
    )
