"""Rows of a store whose signals are taken out for good: zeros, with a code, in a store that stays whole.

In:  the folder of a store, rows. Out: the same store without what these rows held. Called when patients withdraw.
The store's key stays: built anew from the same recordings it would hold them again, so these must go, too.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Collection
from pathlib import Path

import numpy as np

from fedecg.files import write_whole
from fedecg.signals.store import SignalStore
from fedecg.signals.store_writer import not_written

__all__ = ["PURGED", "purge_rows"]

PURGED = "FECG-454"


def purge_rows(folder: str | Path, rows: Collection[int]) -> int:
    """Overwrite rows with zeros, and their line of the manifest with blanks and the code PURGED.

    Signals go first, on the disk, then the manifest and its hash. After a kill the same call goes on; fell it between
    these two, the store says that it is damaged (FECG-216) and must be built again.

    Returns:
        How many rows were not purged before.

    Raises:
        SignalError: FECG-215, FECG-216 no whole store; FECG-218 it cannot be written.
    """
    folder = Path(folder)
    store = SignalStore.open(folder)
    wanted = sorted({row for row in rows if 0 <= row < len(store)})
    new = [row for row in wanted if store.codes[row] != PURGED]
    if not new:
        return 0
    try:
        signals = np.load(folder / "signals.npy", mmap_mode="r+", allow_pickle=False)
        for row in new:
            signals[row] = 0
        signals.flush()
        with (folder / "signals.npy").open("rb") as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise not_written(error) from None
    manifest = _purged((folder / "manifest.csv").read_text(encoding="utf-8"), set(new))
    about = json.loads((folder / "store.json").read_text(encoding="utf-8"))
    about["manifest-sha256"] = hashlib.sha256(manifest.encode()).hexdigest()
    write_whole(folder / "manifest.csv", manifest)
    write_whole(folder / "store.json", json.dumps(about, indent=2) + "\n")
    return len(new)


def _purged(manifest: str, rows: set[int]) -> str:
    names, *lines = csv.reader(io.StringIO(manifest, newline=""))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for place, line in enumerate(lines):
        if place in rows:
            entry = dict(zip(names, line, strict=True))
            # Counts of what was wrong with it become 0, facts of the recording blank.
            line = [
                entry["row"] if name == "row" else PURGED if name == "code" else _nothing(entry[name])
                for name in names
            ]
        writer.writerow(line)
    return text.getvalue()


def _nothing(cell: str) -> str:
    return "0" if cell.isdigit() else ""
