"""Which signal store a cohort table's rows point into: COHORT.json beside COHORT.csv.

In:  the path of a table, the key of a store (`SignalStore.key`). Out: the file; a refusal where it names another store.
Written by `build_output`; read wherever a table is opened with its store. A table that came without the file, since it
was made otherwise, is taken as it is. The key outlives the purge of patients who have withdrawn; a store that is made
again from other files or with other settings has another, and its rows are other ECGs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

from fedecg.errors import CohortError
from fedecg.files import in_words, read_regular, write_whole

__all__ = ["require_same_store", "store_note", "write_store_note"]

ENTRY = "store-key"


def store_note(table: str | Path) -> Path:
    """Where the note of a table lies: cohort.json of cohort.csv."""
    return Path(table).with_suffix(".json")


def write_store_note(table: Path, store_key: str) -> None:
    """Say that the rows of this table are those of this store.

    Raises:
        RunError: FECG-601.
    """
    write_whole(store_note(table), json.dumps({ENTRY: store_key}, indent=2) + "\n")


def require_same_store(table: str | Path, store_key: str) -> None:
    """Refuse a table that was built on another store; nothing is asked of a table without a note.

    Raises:
        CohortError: FECG-292 another store, or a note that cannot be read.
    """
    try:
        note = json.loads(read_regular(store_note(table)))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        _refuse(f"{in_words(error)} beside it")
    if not isinstance(note, dict) or not isinstance(note.get(ENTRY), str):
        _refuse(f"a note beside it that names no store ({ENTRY})")
    if note[ENTRY] != store_key:
        _refuse("a table that was built on another store: its rows are other ECGs here")


def _refuse(found: str) -> NoReturn:
    raise CohortError(
        "FECG-292",
        "cohort table and signal store",
        found=found,
        expected="the store that the .json file beside the table names",
        fix="Build the cohort again with this store (fedecg cohort build).",
    )
