"""A cohort of one's own as a `Dataset`: what `fedecg cohort build` wrote without a store, and the ECG files it names.

In:  cohort-files.csv. Out: one ECG a patient, observed outcomes, the parts of the table. Called by `sources`.
For research on data that lie in one place, such as UK Biobank; hospitals use a store and `fedecg-client`.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort import Cohort
from fedecg.cohort.cells import stated_codes
from fedecg.errors import CohortError
from fedecg.files import in_words, read_regular
from fedecg.signals import Recording
from fedecg.signals.reading import read_recording
from fedecg_simulations.dataset import Dataset

__all__ = ["load_own_cohort"]

CODES = "codes"  # a table that was built before there were any lacks it

COLUMNS = (
    "file", "patient", "part", "event", "follow_up_days", "entry_days", "died", "age_years", "female",
)  # fmt: skip


def load_own_cohort(path: str | Path) -> Dataset:
    """Read the table; the ECGs are read later.

    Args:
        path: cohort-files.csv. Its `file` cells are absolute, or start from the table's folder.

    Raises:
        CohortError: FECG-621 no such table; FECG-622 a column is missing or a cell is no number; FECG-222..230 as
            `Cohort.validate`.
    """
    path = Path(path)
    content, cells = _read(path)
    size = len(cells["file"])
    cohort = Cohort(
        record=np.arange(size),
        patient=np.unique(np.array(cells["patient"], dtype=np.str_), return_inverse=True)[1].astype(np.int64),
        part=np.array(cells["part"], dtype=np.str_),
        event=_numbers(cells, "event") == 1,
        follow_up_days=_numbers(cells, "follow_up_days"),
        entry_days=_numbers(cells, "entry_days"),
        died=_numbers(cells, "died") == 1,
        age_years=_numbers(cells, "age_years", blank=True),
        female=_numbers(cells, "female", blank=True),
        codes=_codes(cells),
    )
    cohort.validate()
    files = [path.parent / cell for cell in cells["file"]]
    recordings: list[Callable[[], Recording]] = [partial(read_recording, file) for file in files]
    parts = {name: int(np.sum(cohort.part == name)) for name in ("train", "validation", "test")}
    return Dataset(
        cohort=cohort,
        columns={"site": np.full(size, "cohort"), "device": np.full(size, "unknown")},
        recordings=recordings,
        source=f"cohort, {size} ECGs, sha256 {_sha256(content, files)}",
        outcomes="observed",
        true_log_hazard=None,
        folds={name: f"{number} patients, as the table says" for name, number in parts.items()},
    )


def _read(path: Path) -> tuple[bytes, dict[str, list[str]]]:
    try:
        content = read_regular(path)
        head, *rows = [
            row for row in csv.reader(io.StringIO(content.decode("utf-8-sig")), strict=True) if row
        ] or [[]]
    except (OSError, ValueError, csv.Error) as error:
        raise CohortError(
            "FECG-621",
            "cohort-files.csv",
            found=in_words(error),
            expected="the table that fedecg cohort build writes without a store",
            fix="Name the table itself: --data cohort/fold-1/cohort-files.csv",
        ) from None
    missing = [name for name in COLUMNS if name not in head]
    if missing or any(len(row) != len(head) for row in rows):
        _refuse(f"no column {', '.join(missing)}" if missing else "rows of different lengths")
    there = [*COLUMNS, *([CODES] if CODES in head else [])]
    return content, {name: [row[head.index(name)].strip() for row in rows] for name in there}


def _codes(cells: dict[str, list[str]]) -> tuple[dict[str, float], ...]:
    """What each ECG is said to show; nothing in a table without that column."""
    try:
        return tuple(map(stated_codes, cells.get(CODES, [""] * len(cells["file"]))))
    except (ValueError, TypeError):
        _refuse("cells of codes that are no JSON object")


def _numbers(cells: dict[str, list[str]], name: str, *, blank: bool = False) -> NDArray[np.float64]:
    try:
        return np.array([float("nan") if blank and not cell else float(cell) for cell in cells[name]])
    except ValueError:
        _refuse(f"cells of {name} that are no numbers")


def _refuse(found: str) -> NoReturn:
    raise CohortError(
        "FECG-622",
        "cohort-files.csv",
        found=found,
        expected=f"the columns {', '.join(COLUMNS)}, as it was written",
    )


def _sha256(content: bytes, files: list[Path]) -> str:
    """Of the table and the files' sizes: another table or other files need another store."""
    digest = hashlib.sha256(content)
    for file in files:
        size = file.stat().st_size if file.is_file() else -1
        digest.update(f"{size},".encode())
    return digest.hexdigest()
