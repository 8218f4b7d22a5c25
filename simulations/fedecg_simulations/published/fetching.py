"""`fedecg-simulate data fetch`: a data set from its publisher into a folder, file by file, several at a time.

In:  a set of the catalogue, a folder, which files. Out: the folder as published, with its publisher's checksums;
     `Fetched`: what came, what was there, what could not be had. Called by `commands`.

What is there already is compared with its checksum and kept if it is right. A run that was killed, or that some files
failed in, is continued by running it again. Archives (CODE-15 %) are unpacked beside themselves.
"""

from __future__ import annotations

import math
import shutil
import urllib.parse
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event, Lock
from time import monotonic
from typing import NoReturn

from fedecg.errors import RunError
from fedecg.files import whole_file, write_whole
from fedecg.progress import Advance, Progress
from fedecg_simulations.lock import only_one
from fedecg_simulations.published.catalogue import PublishedSet, refuse_closed
from fedecg_simulations.published.checksums import (
    PublishedFile,
    by_folder,
    chosen,
    digest_of,
    parse_sums,
    parse_zenodo,
    sums_text,
)
from fedecg_simulations.published.transfer import Patience, StoppedError, TransferError, download

__all__ = ["Fetched", "failure_of", "fetch_set", "unpacked_name"]

LOOK_EVERY_S = 0.2
HOPELESS = 8  # files in a row that no answer came for: the server, or the line, is down
MEGA = 1_000_000
FAULTS = {
    "missing": "the server does not have",
    "wrong": "differ from their checksums at every try",
    "broken": "did not come whole at any try",
}
AGAIN = "Run it again: it goes on where it ended. Another server with the same paths: --base-url URL."


@dataclass
class Fetched:
    """What became of a fetch.

    Attributes:
        files: of the set that were asked for. fetched, there: of them. bytes: that came.
        failed: kind of fault -> paths. unpacked: archives.
    """

    files: int
    there: int = 0
    fetched: int = 0
    bytes: int = 0
    unpacked: int = 0
    failed: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in FAULTS})
    in_a_row: int = 0
    last: str = ""

    @property
    def missed(self) -> int:
        """Files that could not be had."""
        return sum(map(len, self.failed.values()))


def fetch_set(
    one: PublishedSet,
    folder: Path,
    only: Sequence[str],
    base: str,
    connections: int,
    progress: Progress,
    patience: Patience = Patience(),  # noqa: B008  (frozen)
) -> Fetched:
    """Fetch what is not there, or not right.

    Args:
        one: of the catalogue.
        folder: where to; made if it is not there.
        only: patterns of paths; none: all files.
        base: another place with the same paths; "": the publisher's.
        connections: files at a time.
        progress: told of what is compared and of what comes.
        patience: how long each file is waited for.

    Raises:
        PolicyError: FECG-627 the set is not for everybody, or the server does not give it.
        SettingsError: FECG-630 `only` names what the set does not have.
        CohortError: FECG-620 its list of checksums cannot be used.
        RunError: FECG-601 no room; FECG-605 another fetch into this folder; FECG-628 the list of checksums, or the
            server itself, cannot be reached, or nothing at all came.
    """
    if one.access == "credentialed":
        refuse_closed(one, "for credentialed users of PhysioNet alone")
    base = (base or one.base).rstrip("/")
    with only_one(folder):
        files = _asked_for(one, _listed(one, base, folder, patience), only)
        there = _right_ones(one, folder, files, progress)
        wanted = [file for file in files if file.path not in there]
        _require_room(folder, wanted)
        result = Fetched(len(files), there=len(there))
        if wanted:
            with progress.task(f"fetching {one.name}", _steps(wanted)) as advance:
                _fetch(one, base, folder, wanted, connections, patience, result, advance)
        _unpack(folder, files, result, progress)
    if result.missed and not result.fetched and not result.there:
        raise _failure(result)
    return result


def _asked_for(one: PublishedSet, files: list[PublishedFile], only: Sequence[str]) -> list[PublishedFile]:
    """What `only` names; the list of checksums, which has come already, may be named too."""
    others = [pattern for pattern in only if pattern != one.sums]
    return chosen(files, others) if others or not only else []


def failure_of(result: Fetched) -> RunError | None:
    """What is to be said of files that could not be had; None where all are there."""
    return _failure(result) if result.missed else None


def _failure(result: Fetched) -> RunError:
    parts = [
        f"{len(paths)} that {FAULTS[kind]} ({by_folder(paths)})"
        for kind, paths in result.failed.items()
        if paths
    ]
    untried = result.files - result.there - result.fetched - sum(map(len, result.failed.values()))
    if untried:
        parts.append(f"{untried} that were not asked for any more: {HOPELESS} in a row had no answer")
    return RunError(
        "FECG-628",
        "files of the data set",
        found=f"of {result.files} files {'; '.join(parts)}{f' [{result.last}]' if result.last else ''}",
        expected="all of them, whole",
        fix=AGAIN,
    )


def _listed(one: PublishedSet, base: str, folder: Path, patience: Patience) -> list[PublishedFile]:
    """The publisher's list of checksums, kept in the folder, where `data check` finds it."""
    new = folder / f".{one.sums}.new"
    new.with_name(f"{new.name}.part").unlink(missing_ok=True)  # no digest would tell two halves apart
    try:
        download(
            f"{base}/{one.sums}" if one.host == "physionet" else base,
            PublishedFile(one.sums, ""),
            new,
            patience,
            Event(),
            lambda _: None,
        )
        files = _parsed(one, new)
    except TransferError as error:
        _refuse_list(one, error)
    finally:
        new.unlink(missing_ok=True)
    write_whole(folder / one.sums, sums_text(files))
    return files


def _parsed(one: PublishedSet, file: Path) -> list[PublishedFile]:
    if one.host == "zenodo":
        return parse_zenodo(file.read_text(encoding="utf-8", errors="replace"), "record of Zenodo")
    with file.open(encoding="utf-8", errors="replace") as lines:
        return parse_sums(lines, one.sums)


def _refuse_list(one: PublishedSet, error: TransferError) -> NoReturn:
    if error.kind == "denied":
        refuse_closed(one, f"a server that refuses its list of checksums ({error.found})")
    raise RunError(
        "FECG-628",
        f"list of checksums of {one.name}",
        found=error.found,
        expected="an answer with the list",
        fix=f"Check the line (a proxy: HTTPS_PROXY) and {one.page}. {AGAIN}",
    ) from None


def _right_ones(
    one: PublishedSet, folder: Path, files: Sequence[PublishedFile], progress: Progress
) -> set[str]:
    """Paths of files that are there with the right checksum; of archives also those that were unpacked and removed."""
    here = [file for file in files if (folder / file.path).is_file()]
    unpacked = {
        file.path for file in files if (inner := unpacked_name(file.path)) and (folder / inner).is_file()
    }
    right = unpacked.difference(file.path for file in here)
    if here:
        with progress.task(f"comparing what is there of {one.name}", len(here)) as advance:
            for done, file in enumerate(here, start=1):
                if digest_of(folder / file.path, file.algorithm) == file.digest:
                    right.add(file.path)
                advance(done)
    return right


def _require_room(folder: Path, wanted: Sequence[PublishedFile]) -> None:
    """Where sizes are known; elsewhere a full disk ends the fetch, which is continued when there is room."""
    needed = sum((file.size or 0) - _size(folder, file) for file in wanted)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise RunError(
            "FECG-601",
            "disk of the data set",
            found=f"{free / 1e9:.1f} GB free",
            expected=f"{needed / 1e9:.1f} GB for what is still to come",
            fix="Free space, name another folder, or fetch a part: --only.",
        )


def _size(folder: Path, file: PublishedFile) -> int:
    part = folder / f"{file.path}.part"
    return part.stat().st_size if file.size and part.is_file() else 0


class _Work:
    """Files that several threads take from, and what became of them."""

    def __init__(self, wanted: Sequence[PublishedFile], result: Fetched) -> None:
        self.left, self.result = iter(wanted), result
        self.lock, self.stop = Lock(), Event()
        self.denied = False

    def next(self) -> PublishedFile | None:
        with self.lock:
            return next(self.left, None)

    def came(self, size: int) -> None:
        with self.lock:
            self.result.bytes += size

    def fetched(self) -> None:
        with self.lock:
            self.result.fetched += 1
            self.result.in_a_row = 0

    def failed(self, file: PublishedFile, error: TransferError) -> None:
        """Count it; when the server answers nobody any more, or gives nobody anything, end the others."""
        with self.lock:
            result = self.result
            self.denied |= error.kind == "denied"
            result.failed.setdefault(error.kind, []).append(file.path)
            result.last = error.found
            result.in_a_row = result.in_a_row + 1 if error.kind == "broken" else 0
            if self.denied or result.in_a_row >= HOPELESS:
                self.stop.set()


def _fetch(
    one: PublishedSet,
    base: str,
    folder: Path,
    wanted: Sequence[PublishedFile],
    connections: int,
    patience: Patience,
    result: Fetched,
    advance: Advance,
) -> None:
    work = _Work(wanted, result)
    address = partial(_address, one, base)
    start = monotonic()
    with ThreadPoolExecutor(connections) as pool:
        threads = [pool.submit(_take, work, address, folder, patience) for _ in range(connections)]
        try:
            while wait(threads, timeout=LOOK_EVERY_S, return_when=FIRST_EXCEPTION).not_done:
                if any(thread.done() and thread.exception() for thread in threads):
                    work.stop.set()
                advance(_done(result, wanted), _note(result, start))
        finally:
            work.stop.set()  # after Ctrl-C, too
    for thread in threads:
        thread.result()
    advance(_done(result, wanted), _note(result, start))
    if work.denied:
        refuse_closed(one, "a server that refuses its files (status 401 or 403)")


def _take(work: _Work, address: Callable[[str], str], folder: Path, patience: Patience) -> None:
    """What each thread does: file after file, until there is none or all are to end."""
    while not work.stop.is_set() and (file := work.next()) is not None:
        target = folder / file.path
        try:
            download(address(file.path), file, target, patience, work.stop, work.came)
            work.fetched()
        except StoppedError:
            return
        except TransferError as error:
            work.failed(file, error)


def _address(one: PublishedSet, base: str, path: str) -> str:
    quoted = urllib.parse.quote(path)
    return f"{base}/{quoted}" if one.host == "physionet" else f"{base}/files/{quoted}/content"


def _steps(wanted: Sequence[PublishedFile]) -> int:
    """Megabytes where all sizes are known, else files."""
    return math.ceil(sum(file.size or 0 for file in wanted) / MEGA) if _are_sized(wanted) else len(wanted)


def _are_sized(wanted: Sequence[PublishedFile]) -> bool:
    return bool(wanted) and all(file.size is not None for file in wanted)


def _done(result: Fetched, wanted: Sequence[PublishedFile]) -> int:
    if not _are_sized(wanted):
        return result.fetched + result.missed
    ended = result.fetched + result.missed == len(wanted)
    return _steps(wanted) if ended else min(result.bytes // MEGA, _steps(wanted) - 1)


def _note(result: Fetched, start: float) -> str:
    rate = result.bytes / MEGA / max(monotonic() - start, 1e-3)
    missed = f", {result.missed} not to be had" if result.missed else ""
    return f"{result.bytes / MEGA:.0f} MB, {rate:.1f} MB/s{missed}"


def _unpack(folder: Path, files: Sequence[PublishedFile], result: Fetched, progress: Progress) -> None:
    """The recordings of archives, beside them; what is there in its full size is left alone."""
    for file in files:
        inner, archive = unpacked_name(file.path), folder / file.path
        if not inner or not archive.is_file():
            continue
        try:
            with zipfile.ZipFile(archive) as packed:
                result.unpacked += _unpack_one(packed, inner, folder / inner, progress)
        except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError):
            result.failed["wrong"].append(file.path)
            result.last = f"no archive that holds {inner}"


def _unpack_one(packed: zipfile.ZipFile, inner: str, target: Path, progress: Progress) -> int:
    size = packed.getinfo(inner).file_size
    if target.is_file() and target.stat().st_size == size:
        return 0
    with (
        progress.task(f"unpacking {inner}", max(size // MEGA, 1)) as advance,
        whole_file(target) as part,
        packed.open(inner) as source,
        part.open("wb") as sink,
    ):
        done = 0
        while piece := source.read(MEGA):  # the archive's own checksum is compared at its end
            sink.write(piece)
            done += len(piece)
            advance(done // MEGA)
    return 1


def unpacked_name(path: str) -> str:
    """What an archive of CODE-15 % holds: exams_part3.zip -> exams_part3.hdf5; "" for other files."""
    return f"{path[:-4]}.hdf5" if path.startswith("exams_part") and path.endswith(".zip") else ""
