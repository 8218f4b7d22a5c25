"""What a folder of each data set must hold, what version it is of, and which files its own tables say are missing.

In:  a folder. Out: `Layout`: counts for whoever asks, files that must be there, what is wrong. Called by `checking`.
Only tables and headers are read here, no signals. No message names a record.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from fedecg.errors import CohortError
from fedecg_simulations.cinc2021 import SOURCES, read_header, record_headers, source_folders
from fedecg_simulations.mimic_iv_ecg import MEASUREMENT_COLUMNS, RECORD_COLUMNS
from fedecg_simulations.mimic_outcomes import CLINICAL_TABLES, clinical_table
from fedecg_simulations.ptbxl import OTHER_VERSIONS
from fedecg_simulations.published.catalogue import SETS

__all__ = ["LAYOUTS", "Layout"]

HEADERS_LOOKED_AT = 50  # of a source of cinc2021: one release wrote them all


@dataclass
class Layout:
    """What a folder is.

    Attributes:
        counts: what is there, in words and numbers.
        files: gives the paths that there must be, by the set's own tables; asked for where there is no list of them.
        faults: FECG-616, FECG-617. notes: what is worth telling besides.
    """

    counts: dict[str, int | str] = field(default_factory=dict)
    files: Callable[[], list[str]] = list
    faults: list[CohortError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def not_there(self, name: str, what: str, expected: str) -> None:
        """Note that the folder is not laid out as published."""
        self.faults.append(
            CohortError(
                "FECG-616",
                f"folder of {name}",
                found=what,
                expected=expected,
                fix=f"Give the folder that holds them, or fetch it: fedecg-simulate data fetch {name} PATH.",
            )
        )

    def other_version(self, name: str, found: str, expected: str) -> None:
        """Note that it is another version."""
        self.faults.append(
            CohortError(
                "FECG-617",
                f"version of {name}",
                found=found,
                expected=f"{expected}, as version {SETS[name].version} has",
                fix=f"Fetch that version ({SETS[name].page}), or check a part of it alone: --only.",
            )
        )


def _ptbxl(folder: Path) -> Layout:
    layout = Layout()
    columns = ("filename_lr", "filename_hr")
    rows = _rows(layout, "ptbxl", folder / "ptbxl_database.csv", ("ecg_id", *columns), columns)
    if not (folder / "scp_statements.csv").is_file():
        layout.not_there("ptbxl", "no scp_statements.csv", "the tables of PTB-XL")
    names = [low for low, _ in rows] if (folder / "records100").is_dir() else []
    names += [high for _, high in rows] if (folder / "records500").is_dir() else []
    if rows and not names:
        layout.not_there("ptbxl", "neither records100 nor records500", "records100/, records500/ or both")
    layout.counts["records"] = len(rows)
    tables = ["ptbxl_database.csv", "scp_statements.csv"] if rows else []
    layout.files = lambda: tables + [f"{name}{ending}" for name in names for ending in (".hea", ".dat")]
    _judge_records(layout, "ptbxl", len(rows), OTHER_VERSIONS)
    return layout


def _code15(folder: Path) -> Layout:
    layout = Layout()
    rows = _rows(layout, "code15", folder / "exams.csv", ("exam_id", "trace_file"), ("trace_file",))
    parts = sorted({part for (part,) in rows if part})
    layout.counts |= {"records": len(rows), "parts": sum((folder / part).is_file() for part in parts)}
    tables = ["exams.csv"] if rows else []
    layout.files = lambda: tables + [part for part in parts if Path(part).name == part]
    _judge_records(layout, "code15", len(rows), {})
    return layout


def _cinc2021(folder: Path) -> Layout:
    layout = Layout()
    folders = source_folders(folder)
    if not folders:
        layout.not_there("cinc2021", "no folder of a source", f"training/ with {', '.join(SOURCES)}")
    absent = [name for name in SOURCES if name not in folders]
    if folders and absent:
        layout.notes.append(f"sources that are not there, and that a study goes without: {', '.join(absent)}")
    named = {name: record_headers(place) for name, place in folders.items()}
    layout.files = lambda: [
        str(header.with_suffix(ending).relative_to(folder))
        for headers in named.values()
        for header in headers
        for ending in (".hea", ".mat")
    ]
    other = looked = 0
    for name, headers in named.items():
        layout.counts[name] = len(headers)
        if len(headers) != SOURCES[name]:
            layout.other_version(
                "cinc2021", f"{len(headers)} records of {name}", f"{SOURCES[name]:,} records"
            )
        seen = [read_header(header) for header in headers[:HEADERS_LOOKED_AT] if header.is_file()]
        looked += len(seen)
        other += sum(header.other_release or not header.readable for header in seen)
    if other:
        found = (
            f"{other} of {looked} headers that were looked at written as in the Challenge's first releases"
        )
        layout.other_version("cinc2021", found, "headers with # Dx")
    return layout


def _mimic_iv_ecg(folder: Path) -> Layout:
    layout = Layout()
    rows = _rows(layout, "mimic-iv-ecg", folder / "record_list.csv", RECORD_COLUMNS, ("path",))
    _rows(layout, "mimic-iv-ecg", folder / "machine_measurements.csv", MEASUREMENT_COLUMNS)
    groups = {path.split("/")[1] for (path,) in rows if path.count("/") > 1}
    there = {name for name in groups if (folder / "files" / name).is_dir()}
    layout.counts |= {"records": len(rows), "folders": len(there)}
    if groups and not there:
        layout.not_there("mimic-iv-ecg", "no folder of recordings", "files/pNNNN/")
    tables = ["record_list.csv", "machine_measurements.csv"] if rows else []
    layout.files = lambda: tables + [f"{path}{ending}" for (path,) in rows for ending in (".hea", ".dat")]
    _judge_records(layout, "mimic-iv-ecg", len(rows), {})
    return layout


def _mimic_iv(folder: Path) -> Layout:
    layout = Layout()
    for name in CLINICAL_TABLES:
        try:
            clinical_table(folder, name)
        except CohortError as error:
            layout.faults.append(error)
    layout.counts["tables"] = len(CLINICAL_TABLES) - len(layout.faults)
    return layout


def _judge_records(layout: Layout, name: str, rows: int, others: Mapping[int, str]) -> None:
    if rows and rows != SETS[name].records:
        said = f" (those of version {others[rows]})" if rows in others else ""
        layout.other_version(name, f"{rows:,} records{said}", f"{SETS[name].records:,} records")


def _rows(
    layout: Layout, name: str, path: Path, columns: Sequence[str], picked: Sequence[str] = ()
) -> list[list[str]]:
    """The picked cells of each row of a table that must have these columns.

    None, and a fault, where it cannot be read; where nothing is picked, only the head is read.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            head = next(reader, [])
            missing = [column for column in columns if column not in head]
            if missing:
                found = f"{len(missing)} column(s) missing in {path.name}: {', '.join(missing[:5])}"
                layout.other_version(name, found, "the columns")
                return []
            at = [head.index(column) for column in picked]
            return [[row[place] for place in at] for row in reader if len(row) == len(head)] if picked else []
    except (OSError, ValueError, csv.Error):
        layout.not_there(name, f"no {path.name} that can be read", "the tables as published")
        return []


# Data set -> what a folder of it is.
LAYOUTS: Mapping[str, Callable[[Path], Layout]] = MappingProxyType(
    {
        "ptbxl": _ptbxl,
        "code15": _code15,
        "cinc2021": _cinc2021,
        "mimic-iv-ecg": _mimic_iv_ecg,
        "mimic-iv": _mimic_iv,
    }
)
