"""From a hospital's files to its signal store: in several processes, resumable after a kill, whatever a file holds.

In:  `Item`s from `ingest_sources`, `SignalSettings`, the site's powerline frequency. Out: a finished store.
Called by `fedecg data ingest`.

    OUT/signals.npy, manifest.csv, store.json   as `store`; the manifest also says `source` and `index` (the file as it
                                                was named, and which of its ECGs), and what the recording was like
        refused.csv                             row, source, index, code, why, of what cannot be used

It is written in `.OUT.ingest` beside OUT and moved when it is whole. Every few hundred records what is written is
brought to the disk and its length noted; after a kill the rest is cut off and read again, so that no record is lost or
stands there twice. Rows are in the order of the files, so any number of processes writes the same bytes.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedecg.codes import CODES
from fedecg.config import SignalSettings
from fedecg.errors import ClinicalInputError, RunError, SignalError
from fedecg.files import write_whole
from fedecg.locks import LockHeldError, held
from fedecg.progress import Advance, Progress
from fedecg.signals.ingest_sources import Item, has_header, items_sha256
from fedecg.signals.ingest_workers import Events, in_processes, in_turn
from fedecg.signals.preprocessing import Powerline
from fedecg.signals.reading import read_recording, read_recordings
from fedecg.signals.recording import Recording
from fedecg.signals.store import SignalStore, store_key
from fedecg.signals.store_writer import (
    Position,
    Row,
    StoreWriter,
    effective,
    judged,
    not_written,
    prepared,
    refused,
)

__all__ = ["FACTS", "Ingested", "ingest", "rows_of"]

# What the manifest of an ingested store says beyond that of any store.
FACTS = ("source", "index", "rate_hz", "seconds", "peak_mv", "missing", "extra_leads")
REFUSED_COLUMNS = ("row", "source", "index", "code", "why")
# A folder holds other files, too: what no reader knows is named in refused.csv and is no row of the store.
NOT_AN_ECG = ("FECG-273",)
# Between two moments at which everything is on the disk: what a kill costs.
SAVE_ROWS, SAVE_S = 256, 2.0
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Ingested(NamedTuple):
    """What became of the files."""

    store: SignalStore
    files: int
    refused: dict[str, int]  # code -> records
    others: int  # files of folders that are no ECGs


class _State(NamedTuple):
    """How far an unfinished store is."""

    files: int
    position: Position
    refused_bytes: int


def ingest(
    items: Sequence[Item],
    out: str | Path,
    settings: SignalSettings,
    *,
    powerline: Powerline,
    jobs: int,
    progress: Progress | None = None,
) -> Ingested:
    """Read, judge, preprocess and store all files; goes on where an earlier call with the same files was stopped.

    Args:
        items: at least one.
        out: folder of the store, absent or empty; or a store of the same files and settings, which is kept.
        powerline: the site's notch.
        jobs: processes; 1 = in this one, where a file that ends the process ends everything.
        progress: where to say how far it is and what is left.

    Raises:
        SignalError: FECG-296 the folder holds something else; FECG-218 it cannot be written.
        RunError: FECG-608 another process writes this store; FECG-612 processes do not start.
    """
    out = Path(out)
    key = store_key(settings, f"ingest {items_sha256(items)}", powerline)
    if not _is_there(out, key):
        building = out.parent / f".{out.name}.ingest"
        work = partial(rows_of, settings=settings, powerline=powerline)
        try:
            with held(building / "lock"):
                _build(items, building, key, settings, powerline, work, jobs, progress or Progress())
                (building / "store").replace(out)
            shutil.rmtree(building, ignore_errors=True)
        except LockHeldError:
            raise _in_use() from None
        except OSError as error:
            raise not_written(error) from None
    store = SignalStore.open(out)
    with (out / "refused.csv").open(encoding="utf-8", newline="") as file:
        others = sum(not row["row"] for row in csv.DictReader(file))
    codes = Counter(code for code in store.codes if code)
    return Ingested(store, len(items), dict(sorted(codes.items())), others)


def rows_of(item: Item, settings: SignalSettings | None, powerline: Powerline) -> Iterator[Row]:
    """One row for each ECG of a file; a refused one where it cannot be read, whatever the reason.

    Args:
        settings: None = judged only, without counts.
    """
    if item.closed:
        yield _refused(item, "FECG-201")
        return
    try:
        for index, recording in _recordings(item.path):
            if isinstance(recording, SignalError):
                yield _refused(item, recording.code, index)
                continue
            row = judged(recording) if settings is None else prepared(recording, settings, powerline)
            row.entry.update(source=item.source, index=index, **_facts(recording))
            yield row
    except ClinicalInputError as error:
        yield _refused(item, error.code)
    except OSError:
        yield _refused(item, "FECG-201")
    except Exception:  # a bug of a reader, here or in a library, must not cost the other records
        yield _refused(item, "FECG-298")


def _recordings(path: Path) -> Iterator[tuple[int | str, Recording | SignalError]]:
    """All ECGs of a file with their places; of a file that holds one the place is blank."""
    if has_header(path):
        yield "", read_recording(path)
        return
    numbered = read_recordings(path)
    first, second = next(numbered, None), next(numbered, None)
    if second is None:
        yield from [] if first is None else [("", first[1])]
        return
    yield from chain([first] if first else [], [second], numbered)


def _refused(item: Item, code: str, index: int | str = "") -> Row:
    row = refused(code)
    row.entry.update(source=item.source, index=index)
    return row


def _facts(recording: Recording) -> dict[str, Any]:
    """What the recording was like before preprocessing."""
    signal = recording.signal_mv
    peak_mv, missing = float(max(signal.max(), -signal.min())), 0.0
    if not np.isfinite(peak_mv):
        finite = np.isfinite(signal)
        missing = 1.0 - float(finite.mean())
        peak_mv = float(np.abs(signal[finite]).max(initial=0.0))
    return {
        "rate_hz": f"{recording.rate_hz:g}",
        "seconds": f"{signal.shape[1] / recording.rate_hz:.2f}",
        "peak_mv": f"{peak_mv:.3f}",
        "missing": f"{missing:.4f}",
        "extra_leads": " ".join(recording.extra_leads),
    }


def _is_there(out: Path, key: str) -> bool:
    """Whether the finished store is there already."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    found = "a file" if not out.is_dir() else "files that are no store"
    if (out / "store.json").exists():
        if SignalStore.open(out).key == key:
            return True
        found = "a store of other files, of files that were changed since, or of other settings"
    raise SignalError(
        "FECG-296",
        "folder for the store",
        found=found,
        expected="none, an empty one, or the store of these very files",
        fix="Choose another --out, or remove that folder.",
    )


def _build(
    items: Sequence[Item],
    building: Path,
    key: str,
    settings: SignalSettings,
    powerline: Powerline,
    work: Any,
    jobs: int,
    progress: Progress,
) -> None:
    """Write the store in `building/store`, from where an earlier call stopped."""
    state = _stopped_at(building, key)
    if state is None:
        shutil.rmtree(building / "store", ignore_errors=True)
        (building / "state.json").unlink(missing_ok=True)
        (building / "store").mkdir(parents=True)
    else:
        progress.say(f"going on after {state.files} of {len(items)} files")
    first = state.files if state else 0
    events = in_turn(items, work, first) if jobs == 1 else in_processes(items, work, jobs, first)
    writer = StoreWriter(building / "store", settings.samples, FACTS, state.position if state else None)
    try:
        with (
            _Refusals(building / "store" / "refused.csv", state.refused_bytes if state else 0) as refusals,
            progress.task("ECG files", len(items) - first) as advance,
        ):
            _write(events, items, writer, refusals, _Saver(building, key, writer, refusals), first, advance)
        writer.finish(key, effective(settings, powerline))
    finally:
        writer.close()
        events.close()  # type: ignore[attr-defined]


def _write(
    events: Events,
    items: Sequence[Item],
    writer: StoreWriter,
    refusals: _Refusals,
    saver: _Saver,
    first: int,
    advance: Advance,
) -> None:
    for number, row in events:
        if row is None:
            saver.after(number + 1)
            advance(number + 1 - first, f"{writer.rows} ECGs, {refusals.count} refused")
            continue
        code = row.entry["code"]
        if items[number].searched and code in NOT_AN_ECG:
            refusals.add("", row)
            continue
        if code:
            refusals.add(writer.rows, row)
        writer.append(row)


class _Refusals:
    """refused.csv while it grows."""

    def __init__(self, path: Path, start: int) -> None:
        self.file = path.open("r+b" if start else "wb")
        self.count = 0
        if start:
            self.file.truncate(start)
            self.file.seek(start)
        else:
            self._write(REFUSED_COLUMNS)

    def __enter__(self) -> _Refusals:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def add(self, number: int | str, row: Row) -> None:
        """One more; a name that a spreadsheet would take for a formula gets a quotation mark in front."""
        self.count += number != ""  # of the store's rows; what is no ECG is none of them
        code, source = row.entry["code"], str(row.entry["source"])
        shown = f"'{source}" if source.startswith(_FORMULA) else source
        self._write((number, shown, row.entry.get("index", ""), code, CODES[code]))

    def saved(self) -> int:
        """Bring it to the disk; its length."""
        self.file.flush()
        os.fsync(self.file.fileno())
        return self.file.tell()

    def _write(self, cells: Sequence[object]) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        self.file.write(line.getvalue().encode())


class _Saver:
    """Notes now and then how far everything is on the disk."""

    def __init__(self, building: Path, key: str, writer: StoreWriter, refusals: _Refusals) -> None:
        self.building, self.key, self.writer, self.refusals = building, key, writer, refusals
        self.rows, self.at_s = writer.rows, time.monotonic()

    def after(self, files: int) -> None:
        """Called when a file is done."""
        if self.writer.rows - self.rows < SAVE_ROWS and time.monotonic() - self.at_s < SAVE_S:
            return
        position, refused_bytes = self.writer.position(), self.refusals.saved()
        state = {"key": self.key, "files": files, "refused-bytes": refused_bytes, **position._asdict()}
        write_whole(self.building / "state.json", json.dumps(state))
        self.rows, self.at_s = self.writer.rows, time.monotonic()


def _stopped_at(building: Path, key: str) -> _State | None:
    """None where nothing was begun, or it was begun with other files or settings."""
    try:
        state = json.loads((building / "state.json").read_text(encoding="utf-8"))
        if state["key"] != key:
            return None
        position = Position(state["rows"], state["manifest_bytes"])
        return _State(state["files"], position, state["refused-bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _in_use() -> RunError:
    return RunError(
        "FECG-608",
        "signal store",
        found="another process that writes it",
        expected="one ingest at a time for a store",
        fix="Wait until it ends, or choose another --out.",
    )
