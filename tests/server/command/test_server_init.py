"""`fedecg-server init` from the shell's side: help, the folder, what it refuses, kills and full disks."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from server_words import PYTHON, Captured

from fedecg.config import StudySettings, load_study
from fedecg.errors import SettingsError
from fedecg.federation.lock import ONLY_THE_COORDINATORS
from fedecg_server.certificates import ca_fingerprint, check_tls, tls_state
from fedecg_server.cli import main
from fedecg_server.coordinator import CoordinatorSettings, create_coordinator, open_coordinator

COMMANDS = (
    *(
        [name]
        for name in ["init", "renew", "backup", "site", "lock", "start", "resume", "stop", "status", "report"]
    ),
    *(["site", action] for action in ("add", "remove", "list")),
)


TEMPLATES = Path(__file__).resolve().parents[3] / "server" / "fedecg_server" / "templates"


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of a tree."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves


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


def test_init_and_renew_say_the_same_as_documents(tmp_path: Path, capsys: Captured) -> None:
    folder = tmp_path / "here"
    assert main(["init", str(folder), "--name", "192.0.2.9", "--port", "9999", "--json"]) == 0
    tls = open_coordinator(folder).tls
    made = {"folder": str(folder), "name": "192.0.2.9", "port": 9999}
    assert json.loads(capsys.readouterr().out) == made | {"ca-fingerprint": ca_fingerprint(tls.ca)}
    assert main(["renew", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["names"] == tls_state(tls).names
    assert (document["days-left"], document["warnings"]) == (tls_state(tls).days_left, [])


def test_the_study_template_states_every_default_that_concerns_a_coordinator() -> None:
    stated = flat(tomllib.loads((TEMPLATES / "study.toml").read_text()))
    simulations_only = {key for key in ONLY_THE_COORDINATORS if ONLY_THE_COORDINATORS[key] is True}
    defaults = flat(StudySettings().model_dump(by_alias=True, exclude={*simulations_only, "federation"}))
    federation = StudySettings().federation
    told = federation.model_dump(by_alias=True, exclude=ONLY_THE_COORDINATORS["federation"])
    defaults |= flat(told, "federation.")
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
    told = capsys.readouterr().err
    assert "FECG-103 --name: found 1 problem(s)" in told
    assert "expected keys and ranges as fedecg-server init --help shows them. Mend each" in told
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_server_toml_is_answered_with_all_its_problems(folder: Path, capsys: Captured) -> None:
    (folder / "server.toml").write_text('name = "a b"\naddress = "here"\nport = 0\nfleet-port = 1\n')
    assert main(["status", str(folder)]) == 3
    told = capsys.readouterr().err
    assert "FECG-103 server.toml: found 4 problem(s)" in told
    assert (
        "as in the server.toml that fedecg-server init writes. Mend each of these lines in server.toml."
        in told
    )
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
        "    def wrapped(*a, **k):\n"
        "        global left\n"
        "        write(*a, **k); left -= 1\n"
        "        if left == 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return wrapped\n"
        "k.write_whole = dying(k.write_whole); c.write_whole = dying(c.write_whole)\n"
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
    assert "FECG-601 coordinator's folder: found a file that is there already" in capsys.readouterr().err
