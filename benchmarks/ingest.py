"""From files to batches: reading, preparing and serving ECGs, against what people write for it today.

    .venv/bin/python benchmarks/ingest.py

PTB-XL records of 10 s at 500 Hz (`FEDECG_TEST_DATA`, default ../shared/data; the 40 there are, again and again), files
in the page cache. One line of JSON with the best of several takes, ours and the peer's in turns; seconds are processor
time, but for `ratio-processes`, which is by the clock (nothing else may run then):

    ratio-reading      records a second of `read_recording` / of wfdb.rdsamp                             wanted: >= 15
    ratio-preparing    of read + quality + filter + resample to 100 Hz + store, one process / of the loop of
                       wfdb.rdsamp + scipy sosfiltfilt + resample_poly + one numpy.save, one process     wanted: >= 5
    ratio-processes    2,000 files with a process a core, start included / the same peer
    ratio-batches      random batches of 64 (float32, mV) of a store of 21,800 / of one .npy file (int16) a record, each
                       batch let go before the next, as in training                                      wanted: >= 10
    ratio-batches-kept the same with all 50 batches kept: both then wait for the system to clear 157 MB of memory
    open-ms            opening that store for the first time, its manifest checked
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import wfdb
from rich.console import Console
from scipy.signal import butter, resample_poly, sosfiltfilt

from fedecg.config import SignalSettings
from fedecg.progress import Progress
from fedecg.signals import SignalStore, read_recording
from fedecg.signals.ingest import ingest
from fedecg.signals.ingest_sources import Item, find_items
from fedecg.signals.store_writer import MANIFEST_COLUMNS, Row, StoreWriter, effective

DATA = Path(os.environ.get("FEDECG_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SETTINGS = SignalSettings()
BAND = butter(2, [SETTINGS.highpass_hz, SETTINGS.lowpass_hz], "bandpass", fs=500, output="sos")
RECORDS, TAKES = 400, 8  # many short takes: the best of them had the machine for itself
MANY = 2_000  # files for several processes: starting them takes seconds
STORED, BATCH, BATCHES = 21_800, 64, 50


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """How long it takes, by the clock on the wall unless told otherwise."""
    start = clock()
    work()
    return clock() - start


def in_turns(
    ours: Callable[[], object], peer: Callable[[], object], takes: int = TAKES
) -> tuple[float, float]:
    """Best processor time of both in seconds (each keeps to one thread), in turns: what runs beside counts less."""
    clock = time.process_time
    measured = [(seconds(ours, clock), seconds(peer, clock)) for _ in range(takes)]
    return min(own for own, _ in measured), min(other for _, other in measured)


def reading(names: list[str]) -> tuple[float, float]:
    """Seconds a record of reading alone, a few hundred records at a time."""
    many = (names * RECORDS)[:RECORDS]
    ours, peer = in_turns(
        lambda: [read_recording(name) for name in many], lambda: [wfdb.rdsamp(name) for name in many]
    )
    return ours / RECORDS, peer / RECORDS


def usual_loop(names: list[str], out: Path) -> None:
    """What a script does: no check of quality, no notch, the whole set in memory and saved once."""
    signals = []
    for name in names:
        signal_mv, _ = wfdb.rdsamp(name)
        signals.append(resample_poly(sosfiltfilt(BAND, signal_mv.T, axis=1), 1, 5, axis=1).astype(np.float32))
    np.save(out, np.stack(signals))


def linked(names: list[str], folder: Path, number_of: int) -> list[Item]:
    """As many files as there are to be records: a file is ingested once."""
    (folder / "originals").mkdir()
    for name in names:
        for ending in (".hea", ".dat"):
            source = Path(name).with_suffix(ending)
            (folder / "originals" / source.name).write_bytes(source.read_bytes())
    for number in range(number_of):
        place = folder / "files" / f"{number:04d}"
        place.mkdir(parents=True)
        for ending in (".hea", ".dat"):
            name = Path(names[number % len(names)]).with_suffix(ending).name
            os.link(folder / "originals" / name, place / name)
    return find_items([str(folder / "files")])


def preparing(names: list[str], folder: Path) -> tuple[float, float, float]:
    """Seconds a record: ours in one process, the usual loop, ours in several processes."""
    items = linked(names, folder, MANY)
    progress = Progress(console=Console(quiet=True))
    stores = (folder / f"store-{number}" for number in range(100))
    run = partial(ingest, settings=SETTINGS, powerline="none", progress=progress)
    ours, peer = in_turns(
        lambda: run(items[:RECORDS], next(stores), jobs=1),
        lambda: usual_loop([str(item.path.with_suffix("")) for item in items[:RECORDS]], folder / "peer.npy"),
    )
    several = min(seconds(lambda: run(items, next(stores), jobs=os.cpu_count() or 1)) for _ in range(3))
    return ours / RECORDS, peer / RECORDS, several / MANY


class Serving(NamedTuple):
    """Seconds of opening, and of all random batches: ours and the peer's, let go and kept."""

    opening: float
    ours: float
    peer: float
    ours_kept: float
    peer_kept: float


def each(take: Callable[[np.ndarray], np.ndarray], batches: list[np.ndarray]) -> None:
    """One batch after the other, none of them kept."""
    for rows in batches:
        take(rows)


def serving(folder: Path) -> Serving:
    """Opening, and random batches, of a store of 21,800 and of as many files."""
    some = np.load(folder / "store-0" / "signals.npy")
    (folder / "large").mkdir()
    (folder / "one-by-one").mkdir()
    writer = StoreWriter(folder / "large", SETTINGS.samples)
    for number in range(STORED):
        counts = some[number % len(some)]
        writer.append(Row(counts, {"code": ""} | dict.fromkeys(COUNTED, 0)))
        np.save(folder / "one-by-one" / f"{number}.npy", counts)
    writer.finish("benchmark", effective(SETTINGS, "none"))
    opening = seconds(
        lambda: SignalStore.open(folder / "large")
    )  # once: what is read is kept for the next time
    store = SignalStore.open(folder / "large")
    rng = np.random.default_rng(0)
    batches = [rng.choice(STORED, BATCH, replace=False) for _ in range(BATCHES)]

    def from_files(rows: np.ndarray) -> np.ndarray:
        stacked = np.stack([np.load(folder / "one-by-one" / f"{row}.npy") for row in rows])
        return stacked.astype(np.float32) * np.float32(1e-3)

    np.testing.assert_array_equal(store.batch(batches[0]), from_files(batches[0]))
    let_go = in_turns(lambda: each(store.batch, batches), lambda: each(from_files, batches), 20)
    kept = in_turns(
        lambda: [store.batch(rows) for rows in batches], lambda: [from_files(rows) for rows in batches], 20
    )
    return Serving(opening, *let_go, *kept)


COUNTED = MANIFEST_COLUMNS[2:]


def main() -> None:
    """Measure and print."""
    names = [str(path.with_suffix("")) for path in sorted((DATA / "ptbxl" / "records500").rglob("*.hea"))]
    if not names:
        sys.exit(f"no PTB-XL records of 500 Hz below {DATA}: set FEDECG_TEST_DATA")
    read, read_peer = reading(names)
    with tempfile.TemporaryDirectory() as temporary:
        prepared, prepared_peer, several = preparing(names, Path(temporary))
        served = serving(Path(temporary))
    print(
        json.dumps(
            {
                "benchmark": "ingest",
                "ratio-reading": round(read_peer / read, 1),
                "peer-reading": f"wfdb {wfdb.__version__} rdsamp",
                "ratio-preparing": round(prepared_peer / prepared, 1),
                "ratio-processes": round(prepared_peer / several, 1),
                "processes": os.cpu_count(),
                "peer-preparing": "wfdb.rdsamp + scipy sosfiltfilt + resample_poly, one process",
                "ratio-batches": round(served.peer / served.ours, 1),
                "ratio-batches-kept": round(served.peer_kept / served.ours_kept, 1),
                "peer-batches": "one .npy file a record",
                "open-ms": round(1e3 * served.opening, 1),
                "records-a-second-reading": round(1 / read),
                "records-a-second-preparing": round(1 / prepared),
                "batch-ms": round(1e3 * served.ours / BATCHES, 3),
                "batch-ms-peer": round(1e3 * served.peer / BATCHES, 3),
                "load-average": round(os.getloadavg()[0], 1),
            }
        )
    )


if __name__ == "__main__":
    main()
