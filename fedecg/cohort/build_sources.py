"""The tables that COHORT.toml names, read all before anything is said of them; and the file names of a signal store.

In:  `CohortSettings`. Out: tables by role, columns by their names in the code. Called by `build_records`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fedecg.cohort.build_faults import Faults
from fedecg.cohort.build_progress import TableWork
from fedecg.cohort.build_settings import CohortSettings
from fedecg.cohort.build_tables import CHECK, Table, read_table
from fedecg.errors import CohortError
from fedecg.signals import SignalStore

__all__ = ["file_key", "read_sources", "source_sizes", "store_rows"]

_ENDING = re.compile(
    r"(\.(hea|mat|dat|xml|dcm|scp|edf|h5|hdf5|npz|npy|csv|parquet|gz))+(?=$|#)", re.IGNORECASE
)
_Wanted = tuple[str, str, dict[str, str]]  # role, path, name in the code -> in the file


def source_sizes(settings: CohortSettings) -> dict[str, int]:
    """Bytes of every table, by role; 0 of one that is not there, which `read_sources` refuses."""
    sizes = {}
    for role, path, _ in _wanted(settings):
        try:
            sizes[role] = os.stat(path).st_size  # noqa: PTH116
        except (OSError, ValueError):
            sizes[role] = 0
    return sizes


def read_sources(settings: CohortSettings, work: TableWork) -> dict[str, Table]:
    """Every table of the settings, by role.

    Args:
        work: is told of each that has been read.

    Raises:
        CohortError: FECG-286 a table, or FECG-293 several of them.
    """
    faults, tables = Faults(), {}
    for role, path, names in _wanted(settings):
        try:
            tables[role] = read_table(path, role, names)
            work.read(role)
        except CohortError as error:
            faults.add_table(error)
    faults.refuse(CHECK)
    return tables


def store_rows(folder: str | Path) -> dict[str, tuple[int, str]]:
    """Name of an ECG as the store has it -> row, and "" or the code of its refusal.

    After the manifest's `source` and `index` it is called FILE#INDEX where a file holds several, else FILE.

    Raises:
        SignalError: FECG-215, FECG-216 the store. CohortError: FECG-292 its manifest names no files.
    """
    store = SignalStore.open(folder)
    if "source" not in store.facts:
        raise CohortError(
            "FECG-292",
            "signal store",
            found="a manifest.csv without the names of the files",
            expected="a store that fedecg data ingest made",
            fix="Make it so, or leave [ecgs] store out.",
        )
    sources = store.facts["source"]
    index = store.facts.get("index", ("",) * len(sources))
    names = [
        f"{source}#{number}" if number else source for source, number in zip(sources, index, strict=True)
    ]
    return {name: (row, store.codes[row]) for row, name in enumerate(names)}


def file_key(name: str) -> str:
    """The last part of a file's name without endings; what follows a # (one ECG of a container) stays."""
    return _ENDING.sub("", PurePosixPath(name.replace("\\", "/")).name)


def _wanted(settings: CohortSettings) -> Iterator[_Wanted]:
    columns = settings.columns
    ecgs = {
        name: getattr(columns.ecgs, name) for name in ("patient", "date", "file", "index", "age", "codes")
    }
    yield "ECGs", settings.ecgs.table, {name: column for name, column in ecgs.items() if column}
    yield "diagnoses", settings.diagnoses.table, _diagnosis_names(settings)
    if settings.diagnoses.admissions:
        of = columns.admissions
        date = of.admitted if settings.diagnoses.dated_by == "admission" else of.discharged
        names = {"patient": of.patient, "admission": of.admission, "date": date}
        yield "admissions", settings.diagnoses.admissions, names
    for role, path, end in (
        ("last contacts", settings.follow_up.end_table, columns.follow_up),
        ("deaths", settings.follow_up.death_table, columns.deaths),
    ):
        if path:
            yield role, path, {"patient": end.patient, "date": end.date}
    if settings.ecgs.people:
        people = columns.people
        names = {
            name: getattr(people, name)
            for name in ("patient", "birth_date", "birth_year", "age", "age_year", "sex")
        }
        yield "people", settings.ecgs.people, {name: column for name, column in names.items() if column}


def _diagnosis_names(settings: CohortSettings) -> dict[str, str]:
    of = settings.columns.diagnoses
    names = {"patient": of.patient}
    names |= {"admission": of.admission} if settings.diagnoses.admissions else {"date": of.date}
    if of.code_9 or of.code_10:
        return names | {name: getattr(of, name) for name in ("code_9", "code_10") if getattr(of, name)}
    names["code"] = of.code
    return names | ({"version": of.version} if settings.diagnoses.version == "column" else {})
