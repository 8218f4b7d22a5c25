"""The command `fedecg-server` from the shell's side: folder, sites, lock, status, renewal, backup, exit statuses."""

from __future__ import annotations

import json
import os
import pty
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import tarfile
import threading
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric import ec

from fedecg.cli import main as fedecg
from fedecg.config import StudySettings, load_study
from fedecg.errors import RunError, SettingsError
from fedecg.federation.lock import ONLY_THE_COORDINATORS, StudyLock
from fedecg_server.certificates import check_tls, tls_state
from fedecg_server.cli import main
from fedecg_server.coordinator import CoordinatorSettings, create_coordinator, open_coordinator
from fedecg_server.sites import read_sites

COMMANDS = (
    *(
        [name]
        for name in ["init", "renew", "backup", "site", "lock", "start", "resume", "stop", "status", "report"]
    ),
    *(["site", action] for action in ("add", "remove", "list")),
)
TEMPLATES = Path(__file__).resolve().parents[2] / "server" / "fedecg_server" / "templates"
PYTHON = [sys.executable, "-c"]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command") / "study"
    assert main(["init", str(folder), "--name", "ecg.example.org", "--port", "19092"]) == 0
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "study")
    text = (tmp_path / "study/server.toml").read_text()
    (tmp_path / "study/server.toml").write_text(text.replace("control-port = 9093", "control-port = 1"))
    return tmp_path / "study"


@pytest.fixture
def public_key(tmp_path: Path) -> Callable[[str], str]:
    def write(name: str) -> str:
        key = ec.generate_private_key(ec.SECP384R1()).public_key()
        path = tmp_path / f"{name}.pub"
        path.write_bytes(key.public_bytes(forms.Encoding.OpenSSH, forms.PublicFormat.OpenSSH))
        return str(path)

    return write


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of a tree."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves


def documents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_help_of_every_command_loads_neither_torch_nor_flower_and_teaches() -> None:
    script = (
        "import sys, fedecg_server.cli as cli\n"
        f"for words in {list(COMMANDS)!r}:\n"
        "    try: cli.main([*words, '--help'])\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "print({m for m in ('torch', 'flwr', 'grpc', 'matplotlib', 'pandas') if m in sys.modules})"
    )
    begin = time.monotonic()
    done = subprocess.run([*PYTHON, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("set()\n")
    assert time.monotonic() - begin < 5
    for words in (
        "node.pub",
        "over the phone",
        "tar -xpf",
        "--name 127.0.0.1",
        "puts? an earlier run aside"[:3],
    ):
        assert words in done.stdout


def test_a_command_without_its_action_shows_help(capsys: Captured) -> None:
    assert main([]) == 0
    assert "from nothing to a report" in capsys.readouterr().out
    assert main(["site"]) == 0
    assert "remove" in capsys.readouterr().out


def test_init_makes_a_folder_that_only_its_owner_reads_and_says_what_comes_next(
    made: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fedecg_server.cli", "init", "here", "--name", "192.0.2.9"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert tls_state(open_coordinator(tmp_path / "here").tls).fingerprint in done.stdout
    assert "192.0.2.9:9092" in done.stdout
    assert "fedecg-server site add NAME --key node.pub" in done.stdout
    assert stat.S_IMODE((tmp_path / "here").stat().st_mode) == 0o700
    assert list(tmp_path.iterdir()) == [tmp_path / "here"]
    coordinator = open_coordinator(made)
    assert coordinator.settings == CoordinatorSettings(name="ecg.example.org", port=19092)
    check_tls(coordinator.tls, "ecg.example.org")
    assert coordinator.study() == StudySettings()


def test_the_study_template_states_every_default_that_concerns_a_coordinator() -> None:
    stated = flat(tomllib.loads((TEMPLATES / "study.toml").read_text()))
    simulations_only = {key for key in ONLY_THE_COORDINATORS if ONLY_THE_COORDINATORS[key] is True}
    defaults = flat(StudySettings().model_dump(by_alias=True, exclude={*simulations_only, "federation"}))
    defaults |= flat(StudySettings().federation.model_dump(by_alias=True, exclude={"backend"}), "federation.")
    assert stated == defaults
    assert load_study(TEMPLATES / "study.toml") == StudySettings()


def test_the_server_template_states_every_key() -> None:
    stated = tomllib.loads((TEMPLATES / "server.toml").read_text())
    assert stated == CoordinatorSettings(name="coordinator.example.org").model_dump(by_alias=True)


@pytest.mark.parametrize("there", ["folder with a file", "empty folder", "file", "dangling link"])
def test_init_refuses_what_exists_and_leaves_it_as_it_is(
    tmp_path: Path, capsys: Captured, there: str
) -> None:
    target = tmp_path / "study"
    if "folder" in there:
        target.mkdir()
    if there == "folder with a file":
        (target / "mine.txt").write_text("mine")
    elif there == "file":
        target.write_text("mine")
    elif there == "dangling link":
        target.symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("*"))
    assert main(["init", str(target), "--name", "ecg.example.org"]) == 1
    assert "FECG-671 coordinator's folder: found a file or folder of that name" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "name",
    ["", "a b", "https://ecg.example.org", "ecg.example.org:9092", "-a.org", "a..org", "256.1.1.1", "::1", 'a"\nport=1',
     "x" * 64, ".".join(["abcdefg"] * 32), "*.example.org", "ecg_1.example.org"],
)  # fmt: skip
def test_init_refuses_names_that_no_certificate_should_bear(
    tmp_path: Path, capsys: Captured, name: str
) -> None:
    assert main(["init", str(tmp_path / "study"), f"--name={name}"]) == 3
    assert "FECG-103 settings: found 1 problem(s)" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_server_toml_is_answered_with_all_its_problems(folder: Path, capsys: Captured) -> None:
    (folder / "server.toml").write_text('name = "a b"\naddress = "here"\nport = 0\nfleet-port = 1\n')
    assert main(["status", str(folder)]) == 3
    told = capsys.readouterr().err
    assert "found 4 problem(s)" in told
    for words in ("name: ", "address: ", "port: ", "fleet-port: unknown key"):
        assert words in told
    (folder / "server.toml").write_text('name = "a"\nport = 9093\n')
    assert main(["status", str(folder)]) == 3
    assert "expected four different ports" in capsys.readouterr().err
    (folder / "server.toml").write_text("name = ")
    assert main(["status", str(folder)]) == 3
    assert "FECG-102 server.toml" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["status", "lock", "start", "resume", "stop", "renew", "report"])
def test_a_folder_that_is_none_is_told(tmp_path: Path, capsys: Captured, command: str) -> None:
    assert main([command, str(tmp_path)]) == 3
    assert "FECG-125 coordinator's folder: found no readable server.toml" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_init_that_is_killed_leaves_nothing_that_is_taken_for_a_coordinator(tmp_path: Path) -> None:
    # The kill comes at every file of the folder in turn, after it has been written.
    script = (
        "import os, signal, sys; from pathlib import Path; import fedecg_server.certificates as c\n"
        "import fedecg_server.coordinator as k\n"
        "def dying(write):\n"
        "    def wrapped(*a):\n"
        "        global left\n"
        "        write(*a); left -= 1\n"
        "        if left == 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return wrapped\n"
        "k.write_whole = dying(k.write_whole); c.write_whole = dying(c.write_whole)\n"
        "c._write_private = dying(c._write_private)\n"
        "for left in range(1, 10):\n"
        "    target, child = Path(sys.argv[1]) / str(left) / 'study', os.fork()\n"
        "    if not child: k.create_coordinator(target, 'ecg.example.org'); os._exit(0)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([*PYTHON, script, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.split() == ["-9"] * 8 + ["0"]
    for number in range(1, 9):
        target = tmp_path / str(number) / "study"
        assert not target.exists()
        with pytest.raises(SettingsError, match="FECG-125"):
            open_coordinator(target)
        create_coordinator(target, "ecg.example.org")  # and again, in the same place
        check_tls(open_coordinator(target).tls, "ecg.example.org")


def test_a_full_disk_during_init_is_a_coded_error_and_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys; from fedecg_server.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); size = int(sys.argv[2])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))\n"
        "sys.exit(main(['init', sys.argv[1], '--name', 'ecg.example.org']))"
    )
    for size in (0, 900):  # nothing fits; the short files fit
        words = [*PYTHON, script, str(tmp_path / "study"), str(size)]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.startswith("FECG-601 file ")
        assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_a_coded_error(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "file").write_text("")
    assert main(["init", str(tmp_path / "file" / "study"), "--name", "ecg.example.org"]) == 1
    assert "FECG-601 coordinator's folder: found FileExistsError" in capsys.readouterr().err


def test_sites_are_added_listed_and_removed_with_consent(
    folder: Path, public_key: Callable[[str], str], capsys: Captured
) -> None:
    at = ["--dir", str(folder)]
    assert main(["site", "list", *at]) == 0
    assert "no site yet. Next: fedecg-server site add" in capsys.readouterr().out
    assert main(["site", "add", "city", "--key", public_key("city"), *at]) == 0
    told = capsys.readouterr().out
    assert "Compare this fingerprint" in told
    assert "as soon as the coordinator is started" in told
    assert main(["site", "add", "coast", "--key", public_key("coast"), *at, "--json"]) == 0
    coast = json.loads(capsys.readouterr().out)
    assert coast["name"] == "coast"
    assert coast["live"] is False
    assert main(["site", "list", *at, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["sites"]
    assert [(site["name"], site["node-id"]) for site in listed] == [("city", None), ("coast", None)]
    assert main(["site", "list", *at]) == 0
    assert coast["fingerprint"] in capsys.readouterr().out  # in one piece, however narrow the terminal
    assert main(["site", "remove", "coast", *at]) == 1
    assert "FECG-679 consent: found no terminal to ask at; expected y, or --yes" in capsys.readouterr().err
    assert set(read_sites(open_coordinator(folder)).sites) == {"city", "coast"}
    assert main(["site", "remove", "coast", "--yes", *at]) == 0
    assert set(read_sites(open_coordinator(folder)).sites) == {"city"}


@pytest.mark.parametrize(("typed", "status"), [("y\n", 0), ("\n", 1), ("no\n", 1)])
def test_at_a_terminal_a_removal_is_asked_for(
    folder: Path, public_key: Callable[[str], str], typed: str, status: int
) -> None:
    assert main(["site", "add", "city", "--key", public_key("city"), "--dir", str(folder)]) == 0
    near, far = pty.openpty()
    try:
        words = [sys.executable, "-m", "fedecg_server.cli", "site", "remove", "city"]
        process = subprocess.Popen(
            words, stdin=far, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder
        )
        os.write(near, typed.encode())
        _, told = process.communicate(timeout=20)
    finally:
        os.close(near)
        os.close(far)
    assert process.returncode == status
    assert b"Remove city? Its key does not come back" in told
    assert (b"FECG-679 consent: found an answer other than y" in told) == (status == 1)
    assert bool(read_sites(open_coordinator(folder)).sites) == (status == 1)


def test_the_lock_is_the_one_that_sites_compare(
    folder: Path, public_key: Callable[[str], str], capsys: Captured
) -> None:
    assert main(["lock", str(folder)]) == 0
    assert "no site in the list yet" in capsys.readouterr().err
    for name in ("valley", "city"):
        main(["site", "add", name, "--key", public_key(name), "--dir", str(folder)])
    capsys.readouterr()
    assert main(["lock", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    lock = StudyLock.model_validate(document["lock"])
    assert lock.sites == ["city", "valley"]  # in one order, whatever the order of adding
    assert lock.sha256() == document["sha256"]
    assert main(["lock", str(folder)]) == 0
    words = capsys.readouterr().out
    assert document["sha256"] in words
    assert "Leaves the site" in words
    text = (folder / "study.toml").read_text()
    (folder / "study.toml").write_text(text.replace("rounds = 10", "rounds = 11", 1))
    assert main(["lock", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sha256"] != document["sha256"]


def test_start_says_at_once_what_is_wrong(
    folder: Path, public_key: Callable[[str], str], capsys: Captured
) -> None:
    assert main(["start", str(folder)]) == 3
    assert (
        "FECG-107 sites.json: found 0 site(s); expected at least the quorum of 1" in capsys.readouterr().err
    )
    main(["site", "add", "city", "--key", public_key("city"), "--dir", str(folder)])
    (folder / "study.toml").write_text("nme = 1\n")
    assert main(["start", str(folder)]) == 3
    assert "nme: unknown key" in capsys.readouterr().err
    (folder / "tls/server.crt").unlink()
    assert main(["start", str(folder)]) == 1
    assert "FECG-673 tls/server.crt: found FileNotFoundError" in capsys.readouterr().err
    assert list((folder / "run").iterdir()) == []


def write_status(folder: Path, **changes: object) -> None:
    """A status document as the study writes it."""
    site = {"name": "city", "state": "answered", "last-round": 3, "code": None, "seconds": 41.2}
    document = {
        "study": "study", "run": "ab" * 8, "lock": "cd" * 32, "state": "waiting", "code": None, "phase": "survival",
        "round": 4, "rounds": 10, "waiting-for": ["coast"], "waited-s": 41.0, "at-most-s": 300.0,
        "sites": [site, {**site, "name": "coast", "state": "working", "last-round": 2}],
        "c-index": {"stratified": 0.71, "global": 0.7, "lower": 0.68, "upper": 0.73, "ci-low": 0.66, "ci-high": 0.76,
                    "events": 120, "few-events": False},
        "bytes": 1000, "updated": "2026-11-21T08:00:00Z", "started": "2026-11-21T07:00:00Z", "eta-s": 600.0,
    }  # fmt: skip
    (folder / "run/status.json").write_text(json.dumps(document | changes))


def test_status_of_a_new_folder(folder: Path, public_key: Callable[[str], str], capsys: Captured) -> None:
    main(["site", "add", "city", "--key", public_key("city"), "--dir", str(folder)])
    capsys.readouterr()
    assert main(["status", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["state"], document["running"], document["waiting-for"]) == ("not-started", False, [])
    assert document["round"] is document["c-index"] is None
    assert [(site["name"], site["state"], site["last-round"]) for site in document["sites"]] == [
        ("city", "not-seen", None)
    ]
    assert document["certificate"]["days-left"] in (823, 824)
    assert document["certificate"]["warnings"] == []
    assert main(["status", str(folder)]) == 0
    words = capsys.readouterr().out
    assert "not-started. Next: fedecg-server lock, then fedecg-server start" in words
    assert document["certificate"]["fingerprint"] in words


def test_status_names_whom_a_running_study_waits_for(
    folder: Path, public_key: Callable[[str], str], capsys: Captured
) -> None:
    main(["site", "add", "city", "--key", public_key("city"), "--dir", str(folder)])
    main(["site", "add", "valley", "--key", public_key("valley"), "--dir", str(folder)])
    write_status(folder)
    capsys.readouterr()
    holder = subprocess.Popen(
        [*PYTHON, "import sys; from fedecg_server.coordinator import open_coordinator\n"
         "from fedecg_server.server_lock import only_one\n"
         "with only_one(open_coordinator(sys.argv[1])): print('held', flush=True); sys.stdin.read()", str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert main(["status", str(folder), "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert main(["status", str(folder)]) == 0
        words = capsys.readouterr().out
    finally:
        holder.kill()
        holder.communicate()
    assert (document["state"], document["running"], document["round"]) == ("waiting", True, 4)
    states = {site["name"]: (site["state"], site["last-round"], site["listed"]) for site in document["sites"]}
    assert states == {
        "city": ("answered", 3, True),
        "valley": ("not-seen", None, True),
        "coast": ("working", 2, False),
    }
    assert "waiting, phase survival, round 4 of 10, about 10 min left" in words
    assert "coast: 41 s of at most 300 s" in words
    assert (
        "0.710 within sites; over all 0.700 (95 % CI 0.660-0.760), guaranteed 0.680-0.730; 120 events"
        in words
    )
    assert main(["status", str(folder), "--json"]) == 0
    assert (
        json.loads(capsys.readouterr().out)["state"] == "stopped"
    )  # it was killed: the file still says waiting


@pytest.mark.parametrize(
    ("file", "content", "state", "words"),
    [
        ("result.json", "{}", "completed-partial", "without some sites. Next: fedecg-server report"),
        (
            "failed.json",
            '{"code": "FECG-507", "message": "FECG-507 round: found 1."}',
            "failed",
            "failed, phase survival, round 4 of 10: FECG-507 round: found 1. Once its cause is mended",
        ),
    ],
)
def test_status_after_the_end(
    folder: Path, capsys: Captured, file: str, content: str, state: str, words: str
) -> None:
    write_status(folder, state="completed-partial" if file == "result.json" else "running")
    (folder / "run" / file).write_text(content)
    assert main(["status", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["state"] == state
    assert document["code"] == ("FECG-507" if state == "failed" else None)
    assert main(["status", str(folder)]) == 0
    assert words in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[1]", "{", "[" * 100_000])
def test_a_damaged_status_file_is_told(folder: Path, capsys: Captured, content: str) -> None:
    (folder / "run/status.json").write_text(content)
    assert main(["status", str(folder)]) == 1
    assert "FECG-602 run/status.json: found " in capsys.readouterr().err


def test_renewing_takes_the_name_of_server_toml_and_tells_of_open_keys(
    folder: Path, capsys: Captured
) -> None:
    ca = (folder / "tls/ca.crt").read_bytes()
    text = (folder / "server.toml").read_text()
    (folder / "server.toml").write_text(text.replace("ecg.example.org", "new.example.org"))
    (folder / "tls/ca.key").chmod(0o644)
    with pytest.raises(RunError, match="another name than that in server.toml"):
        check_tls(open_coordinator(folder).tls, "new.example.org")
    assert main(["renew", str(folder)]) == 0
    told = capsys.readouterr()
    assert "new certificate for new.example.org, 127.0.0.1, localhost, until " in told.out
    assert "sites change nothing" in told.out
    assert "warning: tls/ca.key can be read by others: chmod 600 tls/ca.key" in told.err
    check_tls(open_coordinator(folder).tls, "new.example.org")
    assert (folder / "tls/ca.crt").read_bytes() == ca


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
    assert "FECG-601 backup b.tar: found OSError" in done.stderr
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


def test_report_is_that_of_the_run_folder(folder: Path, capsys: Captured) -> None:
    status, told = main(["report", str(folder)]), capsys.readouterr().err
    assert "FECG-602" in told  # no finished run yet
    assert (fedecg(["report", str(folder / "run")]), capsys.readouterr().err) == (status, told)


def test_stop_of_what_does_not_run_is_done(folder: Path) -> None:
    assert main(["stop", str(folder)]) == 0


@pytest.mark.parametrize(
    "words", [["stop", "--timeout", "-1"], ["stop", "--timeout", "nan"], ["nothing"], ["init"]]
)
def test_wrong_use_is_status_2(words: list[str], capsys: Captured) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert "usage: fedecg-server" in capsys.readouterr().err


@pytest.mark.slow
def test_a_coordinator_is_started_asked_changed_and_stopped_by_these_commands(
    tmp_path: Path, public_key: Callable[[str], str], capsys: Captured
) -> None:
    folder = tmp_path / "study"
    assert main(["init", str(folder), "--name", "127.0.0.1", "--port", str(free_port())]) == 0
    text = (folder / "server.toml").read_text()
    (folder / "server.toml").write_text(text.replace("control-port = 9093", f"control-port = {free_port()}"))
    assert main(["site", "add", "city", "--key", public_key("city"), "--dir", str(folder)]) == 0
    process = serve(folder, "start")
    try:
        waiting = status_when(folder, capsys, lambda document: document["state"] == "waiting")
        assert waiting["running"]
        assert waiting["waiting-for"] == ["city"]
        assert [site["registered"] for site in waiting["sites"]] == [True]
        assert main(["site", "add", "coast", "--key", public_key("coast"), "--dir", str(folder)]) == 0
        assert "It may connect now." in capsys.readouterr().out
        assert main(["backup", str(folder), "--out", str(tmp_path / "live.tar")]) == 0
        assert main(["renew", str(folder)]) == 0
        assert "The running coordinator still shows the old one" in capsys.readouterr().out
        assert main(["start", str(folder)]) == 1  # one at a time
        assert "FECG-685" in capsys.readouterr().err
        begin = time.monotonic()
        assert main(["stop", str(folder)]) == 0
        assert time.monotonic() - begin < 30
        assert process.wait(10) == 0
    finally:
        end(process)
    status_when(folder, capsys, lambda document: document["state"] == "stopped")
    with tarfile.open(tmp_path / "live.tar") as tar:
        assert {"superlink/database", "superlink/secret", "run/study.toml"} <= set(tar.getnames())
    process = serve(folder, "resume")  # with the renewed certificate
    try:
        again = status_when(folder, capsys, lambda document: document["state"] == "waiting")
        assert len(again["sites"]) == 2
    finally:
        end(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(folder: Path, command: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "fedecg_server.cli", command, str(folder)]
    with (folder / "log" / "command.log").open("ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left, and see that no child outlives it."""
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
    )
    if process.poll() is None:
        process.kill()
    process.wait()
    until = time.monotonic() + 10
    for child in map(int, children.stdout.split()):
        while Path(f"/proc/{child}").exists():
            assert time.monotonic() < until, "an orphan"
            time.sleep(0.05)


def status_when(folder: Path, capsys: Captured, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What `status --json` says as soon as it says that."""
    until = time.monotonic() + 90
    while True:
        capsys.readouterr()
        assert main(["status", str(folder), "--json"]) == 0
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        if done(document):
            return document
        assert time.monotonic() < until, (document, (folder / "log" / "command.log").read_text())
        time.sleep(0.5)
