"""`fedecg-server backup`: everything that must not be lost, as of one moment, or nothing."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from server_words import PYTHON, Captured

from fedecg_server.certificates import check_tls
from fedecg_server.cli import main
from fedecg_server.coordinator import open_coordinator
from fedecg_server.sites import read_sites


def documents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def grow_database(path: Path) -> sqlite3.Connection:
    """A database in Flower's mode with rows that stand only in its -wal; keep it open."""
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA wal_autocheckpoint = 0")
    database.execute("CREATE TABLE node (node_id INTEGER)")
    database.executemany("INSERT INTO node VALUES (?)", [(number,) for number in range(1000)])
    database.commit()
    return database


def test_a_backup_restores_to_the_same_coordinator(
    folder: Path, public_key: Callable[[str], str], tmp_path: Path, capsys: Captured
) -> None:
    main(["site", "add", "city", "--key", public_key("city"), "--dir", str(folder)])
    (folder / "run/model").mkdir()
    (folder / "run/model/weights.safetensors").write_bytes(b"w" * 100_000)
    (folder / "notes.txt").write_text("mine")
    (folder / "log/app.log").write_text("long")
    (folder / "run/.rounds.json.77.part").write_text("half")
    database = grow_database(folder / "superlink/database")
    assert (folder / "superlink/database-wal").stat().st_size > 0
    out, target = tmp_path / "elsewhere/monday.tar", tmp_path / "restored"
    out.parent.mkdir()
    capsys.readouterr()
    assert main(["backup", str(folder), "--out", str(out), "--json"]) == 0
    saved = json.loads(capsys.readouterr().out)
    database.close()
    assert saved["not-saved"] == ["log", "state"]
    assert saved["database"] is True
    assert saved["bytes"] == out.stat().st_size
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert list(out.parent.iterdir()) == [out]

    target.mkdir(mode=0o700)
    subprocess.run(["tar", "-xpf", out, "-C", target], check=True)
    wanted = {
        name: content
        for name, content in documents(folder).items()
        if not name.startswith(("log/", "state/", "superlink/database")) and not name.endswith(".part")
    }
    found = documents(target)
    with sqlite3.connect(target / "superlink/database") as restored:
        assert restored.execute("SELECT count(*), max(node_id) FROM node").fetchone() == (1000, 999)
    restored.close()
    found.pop("superlink/database")
    assert b'{"made": "20' in found.pop("restored.json")
    assert found == wanted
    assert set(saved["files"]) == {*wanted, "superlink/database"}
    for key in ("ca.key", "server.key"):
        assert stat.S_IMODE((target / "tls" / key).stat().st_mode) == 0o600
    coordinator = open_coordinator(target)
    check_tls(coordinator.tls, "ecg.example.org")
    assert read_sites(coordinator) == read_sites(open_coordinator(folder))
    assert main(["status", str(target)]) == 0
    assert main(["lock", str(target)]) == 0


def test_a_backup_says_in_words_what_it_holds(folder: Path, tmp_path: Path, capsys: Captured) -> None:
    assert main(["backup", str(folder), "--out", str(tmp_path / "b.tar")]) == 0
    told = capsys.readouterr().out
    for words in ("  tls/ca.key", "it holds private keys", "not needed: log, state", "no database yet"):
        assert words in told


def test_a_backup_is_refused_rather_than_made_without_something(
    folder: Path, public_key: Callable[[str], str], tmp_path: Path, capsys: Captured
) -> None:
    main(["site", "add", "city", "--key", public_key("city"), "--dir", str(folder)])
    out = tmp_path / "b.tar"

    def refused(words: str, target: Path = out) -> None:
        capsys.readouterr()
        assert main(["backup", str(folder), "--out", str(target)]) == 1
        assert words in capsys.readouterr().err
        assert not out.exists()
        assert not list(tmp_path.glob(".*"))

    (folder / "superlink/database").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    refused("FECG-677 backup: found a damaged superlink/database")
    grow_database_and_truncate(folder / "superlink/database")
    refused("FECG-677 backup: found a damaged superlink/database")
    (folder / "superlink/database").unlink()
    refused("FECG-677 backup: found --out in the folder that is saved", folder / "run/b.tar")
    (folder / "run/model").symlink_to(tmp_path)
    refused("FECG-677 backup: found run: a symbolic link")
    (folder / "run/model").unlink()
    os.mkfifo(folder / "run/pipe")
    refused("FECG-677 backup: found run: neither file nor folder")
    (folder / "run/pipe").unlink()
    (folder / "keys/city.pub").unlink()
    (folder / "tls/ca.key").unlink()
    refused("FECG-677 backup: found 2 missing file(s): ca.key, city.pub")


def grow_database_and_truncate(path: Path) -> None:
    path.unlink()
    grow_database(path).close()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def test_a_backup_never_writes_over_another(folder: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "b.tar").write_text("monday")
    assert main(["backup", str(folder), "--out", str(tmp_path / "b.tar")]) == 1
    assert "FECG-671 backup: found a file of that name" in capsys.readouterr().err
    assert (tmp_path / "b.tar").read_text() == "monday"


def test_a_backup_into_a_folder_that_is_not_there_is_refused_since_its_disk_may_be_away(
    folder: Path, tmp_path: Path, capsys: Captured
) -> None:
    assert main(["backup", str(folder), "--out", str(tmp_path / "disk/b.tar")]) == 3
    told = capsys.readouterr().err
    assert "FECG-601 backup: found no such folder; expected --out in a folder that is there" in told
    assert "Mount that disk, or make the folder" in told
    assert not (tmp_path / "disk").exists()


def test_a_backup_on_a_full_disk_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    (folder / "run/weights").write_bytes(b"w" * 300_000)
    script = (
        "import resource, signal, sys; from fedecg_server.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (200_000,) * 2)\n"
        "sys.exit(main(['backup', sys.argv[1], '--out', sys.argv[2]]))"
    )
    words = [*PYTHON, script, str(folder), str(tmp_path / "b.tar")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1
    assert "FECG-601 backup b.tar: found file too large" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study"]


def rewrite(folder: Path, until: threading.Event, pause_s: float) -> None:
    """Replace two files, one after the other, as a study does after each round."""
    number = 0
    while not until.is_set():
        number += 1
        for name in ("a", "b"):
            part = folder / f".{name}.1.part"
            part.write_text(f"{number:9d}" * 2000)
            part.replace(folder / name)
        until.wait(pause_s)


def numbers(tar: tarfile.TarFile, name: str) -> set[int]:
    member = tar.extractfile(name)
    assert member is not None
    return {int(word) for word in member.read().split()}


def test_a_backup_beside_a_study_that_writes_holds_one_moment(folder: Path, tmp_path: Path) -> None:
    done = threading.Event()
    writer = threading.Thread(target=rewrite, args=(folder / "run", done, 0.4))
    writer.start()
    time.sleep(0.1)
    try:
        for number in range(3):
            out = tmp_path / f"{number}.tar"
            assert main(["backup", str(folder), "--out", str(out)]) == 0
            with tarfile.open(out) as tar:
                first, second = (numbers(tar, f"run/{name}") for name in ("a", "b"))
            assert len(first) == len(second) == 1  # no file is torn
            assert first.pop() - second.pop() in (
                0,
                1,
            )  # a is written first: never an older a beside a newer b
    finally:
        done.set()
        writer.join()


def test_a_backup_of_files_that_never_rest_is_refused(
    folder: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedecg_server.backup.BETWEEN_S", 0.01)
    done = threading.Event()
    writer = threading.Thread(target=rewrite, args=(folder / "run", done, 0.0))
    writer.start()
    try:
        assert main(["backup", str(folder), "--out", str(tmp_path / "b.tar")]) == 1
    finally:
        done.set()
        writer.join()
    assert "FECG-677 backup: found files that change while they are read" in capsys.readouterr().err
