"""A backup of the coordinator's folder: everything that must not be lost, in one file, as it stood at one moment.

In:  the folder. Out: a tar file, 0600, whole or not at all, and a list of what is in it. Called by `fedecg-server
backup`. Everything in the folder is saved but logs, the state of running processes and half-written files; what cannot
be saved as it is (a link, a pipe, a damaged database) is refused, not left out.
A backup does not know who was removed since it was made. In the tar file, and nowhere else, stands RESTORED: a folder
that has it lets nobody in before somebody has said that its list of sites is still right (`check_not_restored`).
"""

from __future__ import annotations

import errno
import io
import json
import os
import sqlite3
import stat
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedecg.errors import RunError, RunInputError
from fedecg.files import whole_file
from fedecg_server.coordinator import Coordinator
from fedecg_server.sites import read_sites

__all__ = ["Backup", "back_up", "check_not_restored"]

RESTORED = "restored.json"
NOT_SAVED = ("log", "state")  # logs; locks and ids of running processes
ATTEMPTS, BETWEEN_S = 5, 0.5  # while a study writes
DATABASE_S = 30.0  # longest wait for the SuperLink to end a write


@dataclass(frozen=True)
class Backup:
    """What was saved.

    Attributes:
        files: names, relative to the folder.
        size: of the tar file, in bytes.
        not_saved: what stands in the folder and is not in it.
        has_database: whether there was a SuperLink's database (none before the first start).
    """

    files: list[str]
    size: int
    not_saved: list[str]
    has_database: bool


def back_up(coordinator: Coordinator, out: Path) -> Backup:
    """Save everything of the folder that must not be lost.

    Args:
        coordinator: may be running.
        out: a .tar file that does not exist, outside the folder.

    Raises:
        RunError: FECG-671 if `out` exists; FECG-677 if something is missing, damaged or cannot be saved, or
            files change faster than they can be read; FECG-601 if the folder of `out` is not there, or it cannot be
            written.
    """
    target = out.absolute()
    _check_target(coordinator, target)
    _check_complete(coordinator)
    with (
        whole_file(target, f"backup {target.name}", private=True) as part,  # it holds private keys
        tempfile.TemporaryDirectory(dir=target.parent, prefix=".backup-") as room,
    ):
        for attempt in range(ATTEMPTS):
            files = list(_files(coordinator.folder))
            before = _marks(files)
            database = _copied_database(coordinator, Path(room) / str(attempt))
            try:
                _write_tar(part, coordinator, files, database)
                unchanged = _marks(list(_files(coordinator.folder))) == before
            except FileNotFoundError:  # replaced while we read
                unchanged = False
            if unchanged:
                break
            time.sleep(BETWEEN_S)
        else:
            raise _incomplete(
                "files that change while they are read", "fedecg-server stop; then back up; then resume."
            )
    names = [str(file.relative_to(coordinator.folder)) for file in files]
    names += ["superlink/database"] if database else []
    left = [name for name in NOT_SAVED if (coordinator.folder / name).exists()]
    return Backup(sorted(names), target.stat().st_size, left, database is not None)


def check_not_restored(coordinator: Coordinator, list_is_right: bool) -> None:
    """Before anybody is let in: is the list of sites that of today, or that of a backup?

    Args:
        coordinator: the folder.
        list_is_right: somebody says that no site of the list has been removed since the backup was made.

    Raises:
        RunError: FECG-693 if it comes from a backup and nobody has said so.
    """
    mark = coordinator.folder / RESTORED
    if list_is_right:
        with suppress(FileNotFoundError):
            mark.unlink()
    if not mark.exists():
        return
    try:
        made = str(json.loads(mark.read_text(encoding="utf-8"))["made"])
    except (OSError, ValueError, KeyError, TypeError):
        made = "a day that is not known"
    names = ", ".join(read_sites(coordinator).sites) or "none"
    raise RunError(
        "FECG-693",
        "list of sites",
        found=f"that of a backup of {made[:80]}: {names}",
        expected="your word that none of them was removed since: a key that was removed must not come back",
        fix="Remove who has left: fedecg-server site remove NAME. Then: fedecg-server start --restored.",
    )


def _files(folder: Path) -> Iterator[Path]:
    """Every file to be saved, the database aside, which is copied by SQLite."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if inside.parts[0] in (*NOT_SAVED, RESTORED) or _is_part(path) or _is_database(inside):
            continue
        mode = path.lstat().st_mode if os.path.lexists(path) else 0  # 0: replaced since it was listed
        if stat.S_ISREG(mode):
            yield path
        elif mode and not stat.S_ISDIR(mode):
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "neither file nor folder"
            raise _incomplete(f"{inside.parts[0]}: {kind}", "Put the files themselves there.")


def _is_part(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".part")


def _is_database(inside: Path) -> bool:
    return str(inside) in ("superlink/database", "superlink/database-wal", "superlink/database-shm")


def _marks(files: list[Path]) -> list[tuple[str, int, int, int]]:
    marks = []
    for file in files:
        with suppress(FileNotFoundError):
            status = file.stat()
            marks.append((str(file), status.st_ino, status.st_mtime_ns, status.st_size))
    return marks


def _copied_database(coordinator: Coordinator, copy: Path) -> Path | None:
    """A copy of the database as of one moment, with what still stands in its -wal."""
    if not coordinator.database.exists():
        return None
    source = f"{coordinator.database.as_uri()}?mode=rw"
    try:
        with (
            closing(sqlite3.connect(source, uri=True, timeout=DATABASE_S)) as database,
            closing(sqlite3.connect(copy)) as saved,
        ):
            database.backup(saved)
            (verdict,) = saved.execute("PRAGMA quick_check").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:  # of the copy: the database itself is whole
            raise OSError(errno.ENOSPC, "no space") from None
        verdict = type(error).__name__
    if verdict != "ok":
        raise _incomplete(
            "a damaged superlink/database",
            "Move superlink/database* and superlink/database.made away: at the next start every site of sites.json "
            "is registered anew, and the study goes on from run/.",
        )
    return copy


def _write_tar(part: Path, coordinator: Coordinator, files: list[Path], database: Path | None) -> None:
    with part.open("wb") as stream:
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for folder in (".", "keys", "log", "run", "state", "superlink", "tls"):
                place = coordinator.folder / folder
                if place.exists():
                    tar.add(place, folder, recursive=False)
            for file in files:
                tar.add(file, str(file.relative_to(coordinator.folder)), recursive=False)
            if database:
                tar.add(database, "superlink/database")
            mark = tarfile.TarInfo(RESTORED)
            content = json.dumps({"made": datetime.now(UTC).isoformat(timespec="seconds")}).encode()
            mark.size, mark.mode, mark.mtime = len(content), 0o600, int(time.time())
            tar.addfile(mark, io.BytesIO(content))
        stream.flush()
        os.fsync(stream.fileno())


def _check_target(coordinator: Coordinator, target: Path) -> None:
    if os.path.lexists(target):
        raise RunError(
            "FECG-671",
            "backup",
            found="a file of that name",
            expected="a name that is not taken",
            fix="Choose another --out: an earlier backup is not written over.",
        )
    if not target.parent.is_dir():
        raise RunInputError(
            "FECG-601",
            "backup",
            found="no such folder",
            expected="--out in a folder that is there: one that is missing may be a disk that is not mounted",
            fix="Mount that disk, or make the folder (mkdir).",
        )
    if target.resolve().is_relative_to(coordinator.folder.resolve()):
        raise _incomplete("--out in the folder that is saved", "Choose a place outside, on another disk.")


def _check_complete(coordinator: Coordinator) -> None:
    """Refuse a folder that lacks what it cannot be restored without."""
    tls = coordinator.tls
    needed = [coordinator.study_file, tls.ca, tls.ca_key, tls.certificate, tls.key]
    needed += [coordinator.folder / entry.key for entry in read_sites(coordinator).sites.values()]
    missing = [file.name for file in needed if not file.is_file()]
    if missing:
        raise _incomplete(f"{len(missing)} missing file(s): {', '.join(missing)}", "Restore them first.")


def _incomplete(found: str, fix: str) -> RunError:
    return RunError("FECG-677", "backup", found=found, expected="everything that must not be lost", fix=fix)
