"""Preprocessed ECGs on disk: a folder that is made once, checked before use, and read in batches.

In:  recordings (or functions that read one), `SignalSettings`, the name of the source.
Out: `SignalStore`. Called by site folders, simulations and training.

    ROOT/KEY[:16]/signals.npy    (records, 12, samples) int16, 1 µV a count
                  manifest.csv   row, code ("" or why it was refused), leads that break each quality rule, clipped
                  store.json     format, key, settings, sizes, sha256 of the manifest

A store is built in a temporary folder beside its place and moved there when it is whole, so a folder with its
final name is finished. A record that cannot be used is refused: its row is zeros, its code is in the manifest.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.config import SignalSettings
from fedecg.errors import ClinicalInputError, SignalError
from fedecg.files import in_words
from fedecg.signals.preprocessing import Powerline
from fedecg.signals.recording import LEADS, Recording
from fedecg.signals.store_writer import (
    FORMAT,
    MANIFEST_COLUMNS,
    MV_PER_COUNT,
    Row,
    StoreWriter,
    effective,
    not_written,
    prepared,
    quantised,
    refused,
)

__all__ = ["SignalStore", "build_store", "counts_in_mv", "quantised", "store_key"]

# What is opened, for a site that has no time to rebuild: a store of format 1 lacks those rules in `quality`.
FORMATS_READ = (1, 2, 3, 4)
_PUBLISH_ATTEMPTS = 5

Source = Recording | Callable[[], Recording]
Manifest = tuple[dict[str, tuple[str, ...]], dict[str, NDArray[np.int64]]]


@dataclass(frozen=True, eq=False)
class SignalStore:
    """An open store.

    Attributes:
        folder: where it lies.
        key: what it was built from (`store_key`).
        samples: length of a row at the settings' rate.
        settings: signal settings that it was built with, in kebab-case; `powerline` is the site's own.
        codes: for each row "" or the FECG code of its refusal (such a row is zeros).
        quality: for each quality rule, and for `clipped`, (records,) int64: leads that break it; clipped samples. A
            store of format 1 has no counts of the rules that came with 2.
        facts: what else the manifest says of each row, as text; of a store that `ingest` wrote `source` and `index`
            (the file as it was named, and which of its ECGs), `rate_hz`, `seconds`, `peak_mv`, `missing`,
            `extra_leads` of the recording; blank where it could not be read. Empty of other stores.
    """

    folder: Path = field(repr=False)
    key: str
    samples: int
    settings: dict[str, Any] = field(repr=False)
    codes: tuple[str, ...] = field(repr=False)
    quality: dict[str, NDArray[np.int64]] = field(repr=False)
    facts: dict[str, tuple[str, ...]] = field(repr=False)
    _counts: NDArray[np.int16] = field(repr=False)

    @classmethod
    def open(cls, folder: str | Path) -> SignalStore:
        """Open a store and check that it is whole.

        Raises:
            SignalError: FECG-215 no finished store there, FECG-216 damaged or of another format.
        """
        folder = Path(folder)
        about = _read_about(folder)
        manifest, quality = _read_manifest(folder, about["manifest-sha256"])
        shape = (about["records"], len(LEADS), about["samples"])
        signals = folder / "signals.npy"
        try:
            counts = np.load(signals, mmap_mode="r", allow_pickle=False)
            size = signals.stat().st_size
        except (OSError, ValueError, EOFError) as error:
            raise _damaged(f"signals.npy that cannot be mapped ({in_words(error)})") from None
        as_written = counts.dtype == np.dtype("<i2") and size == counts.offset + counts.nbytes
        if not as_written or counts.shape != shape or len(manifest["code"]) != shape[0]:
            raise _damaged("signals.npy, manifest.csv and store.json of different sizes")
        return cls(
            folder=folder,
            key=about["key"],
            samples=shape[2],
            settings=about["settings"],
            codes=manifest["code"],
            quality=dict(quality),
            facts={name: cells for name, cells in manifest.items() if name not in MANIFEST_COLUMNS},
            _counts=np.asarray(counts),
        )

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def input(self) -> str:
        """What a row is, "rhythm" or "median"; a store of before there was a choice does not say."""
        return str(self.settings.get("input", "rhythm"))

    def batch(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Signals of some rows, in their order.

        Args:
            rows: (n,) integers in 0..len(self) - 1, repeats allowed.

        Returns:
            (n, 12, samples) float32, mV.

        Raises:
            SignalError: FECG-217, a row outside the store.
        """
        rows = np.asarray(rows)
        outside = int(np.sum((rows < 0) | (rows >= len(self))))
        if outside:
            raise SignalError(
                "FECG-217",
                "store rows",
                found=f"{outside} of {rows.size} outside the store",
                expected=f"0 to {len(self) - 1}",
                fix="The cohort table and the store belong to different builds: make both again.",
            )
        return counts_in_mv(self._counts[rows])


def counts_in_mv(counts: NDArray[np.int16]) -> NDArray[np.float32]:
    """Counts of `quantised`, of any shape, as the network's input: float32, mV."""
    signal_mv: NDArray[np.float32] = counts.astype(np.float32)
    signal_mv *= np.float32(MV_PER_COUNT)
    return signal_mv


def store_key(settings: SignalSettings, source: str, powerline: Powerline) -> str:
    """sha256 (hex) of everything that a store's content depends on.

    Args:
        source: names the data and their state: a path and its checksum, or a generator, its version and seed.
    """
    text = json.dumps([FORMAT, effective(settings, powerline), source], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def build_store(
    root: str | Path,
    key: str,
    settings: SignalSettings,
    records: Sequence[Source],
    *,
    powerline: Powerline,
    progress: Callable[[int, int], None] | None = None,
) -> SignalStore:
    """Open the store of this key under `root`; build it first where it is absent, stale or damaged.

    Interrupted (Ctrl-C, an error), it leaves nothing; two builders at once end with one whole store.

    Args:
        key: from `store_key`.
        records: recordings, or functions without arguments that return one; row = place in this sequence.
        powerline: the site's notch; wins over `settings.powerline`.
        progress: called with (records done, all records) after each record.

    Raises:
        SignalError: FECG-218, the folder cannot be written; FECG-219, no records. Records that cannot be used
            raise nothing.
    """
    if not len(records):
        raise SignalError("FECG-219", "signal store", found="0 records", expected="at least 1")
    root = Path(root)
    final = root / key[:16]
    current = _current(final, key, len(records))
    if current is not None:
        return current
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=root))
    except OSError as error:
        raise not_written(error) from None
    try:
        _write_store(temporary, key, settings, records, powerline, progress)
        _publish(temporary, final, key, len(records))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return SignalStore.open(final)


def _write_store(
    folder: Path,
    key: str,
    settings: SignalSettings,
    records: Sequence[Source],
    powerline: Powerline,
    progress: Callable[[int, int], None] | None,
) -> None:
    writer = StoreWriter(folder, settings.samples)
    try:
        for row in range(len(records)):
            writer.append(_ingest(records[row], settings, powerline))
            if progress is not None:
                progress(row + 1, len(records))
        writer.finish(key, effective(settings, powerline))
    finally:
        writer.close()


def _ingest(source: Source, settings: SignalSettings, powerline: Powerline) -> Row:
    """One record as it is stored; a code where it is refused."""
    try:
        recording = source if isinstance(source, Recording) else source()
    except (ClinicalInputError, OSError) as error:
        return refused(error.code if isinstance(error, ClinicalInputError) else "FECG-201")
    return prepared(recording, settings, powerline)


def _current(folder: Path, key: str, records: int) -> SignalStore | None:
    """The store in this folder, if it is whole and neither its key nor its number of records is stale."""
    with suppress(SignalError):
        store = SignalStore.open(folder)
        if store.key == key and len(store) == records:
            return store
    return None


def _publish(temporary: Path, final: Path, key: str, records: int) -> None:
    """Give a finished folder its name; whoever finds a current store there keeps that one."""
    for _ in range(_PUBLISH_ATTEMPTS):
        # Only an absent or empty folder can be replaced, so the move itself decides between two builders.
        with suppress(OSError):
            temporary.replace(final)
            return
        if _current(final, key, records) is not None:
            return
        aside = temporary.with_name(temporary.name + "-old")
        with suppress(OSError):
            final.replace(aside)
        shutil.rmtree(aside, ignore_errors=True)
    raise not_written(FileExistsError())


def _read_about(folder: Path) -> dict[str, Any]:
    try:
        about = json.loads((folder / "store.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise SignalError(
            "FECG-215",
            "signal store",
            found=f"{in_words(error)} at store.json",
            expected="a folder that `fedecg data ingest` finished",
            fix="Name the store's own folder, or run the ingest again: it goes on where it ended.",
        ) from None
    except ValueError:
        raise _damaged("a store.json that is not JSON") from None
    kinds = {
        "format": int,
        "key": str,
        "records": int,
        "samples": int,
        "settings": dict,
        "manifest-sha256": str,
    }
    if not isinstance(about, dict) or any(type(about.get(name)) is not kind for name, kind in kinds.items()):
        raise _damaged("a store.json without the entries of a store")
    if about["format"] not in FORMATS_READ:
        raise _damaged(f"format {about['format']}")
    return about


def _read_manifest(folder: Path, sha256: str) -> Manifest:
    """Cells by column, and the counts of the quality rules as numbers."""
    try:
        content = (folder / "manifest.csv").read_bytes()
    except OSError as error:
        raise _damaged(f"{in_words(error)} at manifest.csv") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise _damaged("a manifest.csv that was changed")
    return _parsed(content)


@lru_cache(maxsize=2)  # a thousand virtual sites share one store, and open it in every round
def _parsed(content: bytes) -> Manifest:
    names, *rows = csv.reader(io.StringIO(content.decode(), newline=""))
    cells = dict(zip(names, zip(*rows, strict=True) if rows else [()] * len(names), strict=True))
    quality = {
        name: np.array(cells[name], dtype=np.str_).astype(np.int64)
        for name in MANIFEST_COLUMNS[2:]
        if name in cells
    }
    for counts in quality.values():
        counts.flags.writeable = False  # they are shared
    return cells, quality


def _damaged(found: str) -> SignalError:
    return SignalError(
        "FECG-216",
        "signal store",
        found=found,
        expected=f"a whole store of format {FORMAT}",
        fix="Build the store again.",
    )
