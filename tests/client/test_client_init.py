"""`fedecg-client init` from the shell's side: help, the folder, what it refuses, kills and full disks."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
from client_words import PYTHON, ROOT, Captured, words

from fedecg.config import (
    PolicySettings,
    ServerSettings,
    SitePrivacySettings,
    SiteSettings,
    TextSettings,
    load_site,
)
from fedecg.errors import SettingsError
from fedecg.federation.identity import read_public_key
from fedecg_client.cli import main
from fedecg_client.folder import create_site, open_site
from fedecg_server.certificates import TlsFiles, ca_fingerprint

COMMANDS = ["init", "preflight", "doctor", "start", "status", "stop", "studies", "accept", "key", "renew-key"]


TEMPLATE = ROOT / "client" / "fedecg_client" / "templates" / "site.toml"


def test_help_of_every_command_loads_neither_torch_nor_flower_and_teaches() -> None:
    script = (
        "import sys, fedecg_client.cli as cli\n"
        f"for words in [[], *[[name] for name in {COMMANDS!r}]]:\n"
        "    try: cli.main([*words, '--help'])\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "print({m for m in ('torch', 'flwr', 'grpc', 'numpy', 'pandas') if m in sys.modules})"
    )
    begin = time.monotonic()
    done = subprocess.run([*PYTHON, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("set()\n")
    assert time.monotonic() - begin < 5
    for taught in ("node.pub", "over the phone", "--share report.json", "renew-key --use", *COMMANDS):
        assert taught in done.stdout


def test_without_a_command_it_shows_the_way(capsys: Captured) -> None:
    assert main([]) == 0
    assert "from nothing to a running site" in capsys.readouterr().out


def test_init_makes_a_key_at_the_site_and_prints_the_fingerprints_that_both_sides_compare(
    tmp_path: Path, tls: TlsFiles, capsys: Captured
) -> None:
    folder = tmp_path / "site"
    assert main(words(folder, tls, "--study", "hf")) == 0
    told = capsys.readouterr().out
    listed = subprocess.run(["ssh-keygen", "-l", "-f", folder / "node.pub"], capture_output=True, text=True)
    assert listed.stdout.split()[:2] == ["384", re.findall(r"SHA256:\S{43}", told)[0]]
    assert read_public_key(folder / "node.pub").fingerprint in told  # as the coordinator reads that file
    assert ca_fingerprint(tls.ca) in told
    assert "fedecg-client preflight" in told
    modes = {name: stat.S_IMODE((folder / name).stat().st_mode) for name in (".", "node.key", "state")}
    assert modes == {".": 0o700, "node.key": 0o600, "state": 0o700}
    assert (folder / "node.key").read_bytes().startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    own = subprocess.run(["ssh-keygen", "-y", "-f", folder / "node.key"], capture_output=True, text=True)
    assert own.stdout.split()[:2] == (folder / "node.pub").read_text().split()
    assert (folder / "ca.crt").read_bytes() == tls.ca.read_bytes()
    settings = load_site(folder / "site.toml")
    assert (settings.name, settings.policy.studies) == ("north", ["hf"])
    assert settings.server == ServerSettings(
        address="127.0.0.1:9", ca=str(folder / "ca.crt"), key=str(folder / "node.key")
    )
    assert settings.cohort == str(folder / "cohort.csv")


def test_init_says_the_same_as_one_document(tmp_path: Path, tls: TlsFiles, capsys: Captured) -> None:
    folder = tmp_path / "site"
    assert main(words(folder, tls, "--json")) == 0
    assert json.loads(capsys.readouterr().out) == {
        "folder": str(folder),
        "site": "north",
        "public-key": str(folder / "node.pub"),
        "key-fingerprint": read_public_key(folder / "node.pub").fingerprint,
        "ca-fingerprint": ca_fingerprint(tls.ca),
    }


def test_two_sites_never_have_the_same_key(tmp_path: Path, tls: TlsFiles) -> None:
    for name in ("a", "b"):
        assert main(words(tmp_path / name, tls)) == 0
    assert (tmp_path / "a/node.key").read_bytes() != (tmp_path / "b/node.key").read_bytes()


def test_the_template_teaches_every_key_with_its_default() -> None:
    text = TEMPLATE.read_text()
    stated = tomllib.loads(re.sub(r"^# (rounds-a-day)", r"\1", text, flags=re.MULTILINE))
    defaults = PolicySettings().model_dump(by_alias=True)
    assert stated["policy"] == defaults
    server = ServerSettings(address="coordinator.example.org:9092").model_dump(by_alias=True)
    assert stated["server"] == server
    privacy = SitePrivacySettings().model_dump(by_alias=True, exclude_none=True)
    assert stated == {"name": "site-name", "cohort": "cohort.csv", "store": "store",
                      "server": server, "privacy": privacy, "policy": defaults}  # fmt: skip
    shown = re.sub(r"^# ((?:\[text\]|[a-z-]+ = [^#]*#|[a-z-]+ = \S+$).*)", r"\1", text, flags=re.MULTILINE)
    taught = tomllib.loads(shown.replace("[policy.locks]", "").split("heart-failure =")[0])
    required = {"encoder": taught["text"]["encoder"]}
    assert taught["text"] == TextSettings.model_validate(required).model_dump(by_alias=True)
    assert taught["privacy"] == privacy | {"epsilon": 8.0, "delta": 1e-5}
    assert {*stated, "text"} == {field.replace("_", "-") for field in SiteSettings.model_fields}
    assert not PolicySettings.model_validate(tomllib.loads(text)["policy"]).model_fields_set & {
        "rounds_a_day"
    }


@pytest.mark.parametrize("name", ['a "b"\\c', "new\nline", "Ärzte\t", "a'''b", "x # y"])
def test_any_path_comes_back_from_site_toml(tmp_path: Path, tls: TlsFiles, name: str) -> None:
    given = tmp_path / name / "cohort.csv"
    assert main(words(tmp_path / "site", tls, "--cohort", str(given), "--store", str(given.parent))) == 0
    settings = load_site(tmp_path / "site" / "site.toml")
    assert (settings.cohort, settings.store) == (str(given), str(given.parent))


def test_a_relative_path_is_taken_from_where_one_stands(
    tmp_path: Path, tls: TlsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words(Path("deep/site"), tls, "--cohort", "mine.csv")) == 0
    assert load_site(tmp_path / "deep/site/site.toml").cohort == str(tmp_path / "mine.csv")


def test_init_uses_an_empty_folder_and_refuses_any_other(
    tmp_path: Path, tls: TlsFiles, capsys: Captured
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(words(tmp_path / "empty", tls)) == 0
    before = {file: file.read_bytes() for file in (tmp_path / "empty").iterdir() if file.is_file()}
    assert main(words(tmp_path / "empty", tls)) == 3
    assert "FECG-121 folder for the site: found 6 files or folders" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in before} == before
    (tmp_path / "file").write_text("mine")
    assert main(words(tmp_path / "file", tls)) == 3
    assert "FECG-121 folder for the site: found a path that leads through a file" in capsys.readouterr().err
    assert main(words(tmp_path / "file" / "below", tls)) == 1
    assert "FECG-601 site's folder: found " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"name": "a b"}, 3, "FECG-103 --name and --server: found 1 problem"),
        ({"name": "../x"}, 3, "FECG-103 --name and --server: found 1 problem"),
        ({"server": "https://ecg.example.org"}, 3, "server.address"),
        ({"server": "ecg.example.org"}, 3, "server.address"),
        (
            {"server": "ecg.example.org:70000"},
            3,
            "FECG-124 port of the coordinator: found a number that is no port",
        ),
        ({"server": "ecg.example.org:0"}, 3, "FECG-124 port of the coordinator"),
        ({"study": "Heart"}, 3, "FECG-124 name of the study: found a name that no study can have"),
        ({"study": "*"}, 3, "FECG-124 name of the study"),
    ],
)
def test_init_refuses_values_that_cannot_be_and_makes_nothing(
    tmp_path: Path, tls: TlsFiles, capsys: Captured, change: dict[str, str], status: int, said: str
) -> None:
    studies = ["--study", change.pop("study")] if "study" in change else []
    assert main(words(tmp_path / "site", tls, *studies, **change)) == status
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("brought", "found"),
    [
        ("ca.key", "a PRIVATE key: the coordinator's own key has left its machine"),
        ("both", "a PRIVATE key"),
        ("server.crt", "a certificate that is no authority's"),
        ("two", "2 certificates"),
        ("nonsense", "a file that is no PEM certificate"),
        ("missing", "no such file"),
        ("folder", "a folder"),
        ("zero", "a pipe or device, not a file"),
        ("pipe", "a pipe or device, not a file"),
    ],
)
def test_a_ca_that_is_none_is_refused_and_nothing_of_it_is_kept(
    tmp_path: Path, tls: TlsFiles, capsys: Captured, brought: str, found: str
) -> None:
    ca, key = tls.ca.read_bytes(), tls.ca_key.read_bytes()
    contents = {"both": ca + key, "two": ca + ca, "nonsense": b"\x00\xff nonsense"}
    file = tmp_path / "brought"
    if brought in contents:
        file.write_bytes(contents[brought])
    elif brought == "folder":
        file.mkdir()
    elif brought == "pipe":
        os.mkfifo(file)
    elif brought == "zero":
        file = Path("/dev/zero")
    elif brought != "missing":
        file = tls.folder / brought
    line = ["init", str(tmp_path / "site"), "--name", "n", "--server", "h:1", "--ca", str(file)]
    assert main(line) == 3
    assert f"FECG-122 --ca: found {found}" in capsys.readouterr().err
    assert not (tmp_path / "site").exists()


def test_of_the_ca_file_the_certificate_alone_is_copied(tmp_path: Path, tls: TlsFiles) -> None:
    file = tmp_path / "ca.crt"
    file.write_bytes(b"a note with a secret\n" + tls.ca.read_bytes() + b"another\n")
    line = ["init", str(tmp_path / "site"), "--name", "n", "--server", "h:1", "--ca", str(file)]
    assert main(line) == 0
    assert (tmp_path / "site/ca.crt").read_bytes() == tls.ca.read_bytes()


def test_an_init_that_is_killed_leaves_nothing_that_is_taken_for_a_site(
    tmp_path: Path, tls: TlsFiles
) -> None:
    # The kill comes at every file of the folder in turn, after it has been written.
    script = (
        "import os, signal, sys; from pathlib import Path; import fedecg_client.folder as f, fedecg_client.keys as k\n"
        "def dying(write):\n"
        "    def wrapped(*a):\n"
        "        global left\n"
        "        write(*a); left -= 1\n"
        "        if left == 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return wrapped\n"
        "f.write_whole = dying(f.write_whole); k.write_whole = dying(k.write_whole)\n"
        "k._write_private = dying(k._write_private)\n"
        "for left in range(1, 7):\n"
        "    target, child = Path(sys.argv[1]) / str(left), os.fork()\n"
        "    if not child: f.create_site(target, 'n', 'h:1', Path(sys.argv[2])); os._exit(0)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([*PYTHON, script, str(tmp_path), str(tls.ca)], capture_output=True, text=True)
    assert done.stdout.split() == ["-9"] * 5 + ["0"], done.stderr
    for number in range(1, 5):  # the fifth file is site.toml: then it is whole
        with pytest.raises(SettingsError, match="FECG-123 site's folder: found no site.toml"):
            open_site(tmp_path / str(number))
        with pytest.raises(SettingsError, match="FECG-121"):
            create_site(tmp_path / str(number), "n", "h:1", tls.ca)
    assert open_site(tmp_path / "5").settings.name == "n"


def test_a_full_disk_during_init_is_a_coded_error_and_leaves_no_key(tmp_path: Path, tls: TlsFiles) -> None:
    script = (
        "import resource, signal, sys; from fedecg_client.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); size = int(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)); sys.exit(main(sys.argv[2:]))"
    )
    for size in (0, 650, 1500):  # nothing fits; the key does; site.toml does not
        line = [*PYTHON, script, str(size), *words(tmp_path / "site", tls)]
        done = subprocess.run(line, capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.startswith("FECG-601 file ")
        assert list((tmp_path / "site").iterdir()) == []


@pytest.mark.parametrize(
    "command", ["preflight", "doctor", "start", "status", "stop", "studies", "key", "renew-key"]
)
def test_a_folder_that_is_none_is_told_and_left_as_it_is(
    tmp_path: Path, capsys: Captured, command: str
) -> None:
    assert main([command, str(tmp_path)]) == 3
    assert "FECG-123 site's folder: found no site.toml" in capsys.readouterr().err
    assert main([command, str(tmp_path / "nowhere")]) == 3
    assert "FECG-123 site's folder: found no such folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_current_folder_is_the_site_unless_one_is_named(
    site: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(site)
    assert main(["status"]) == 0
    assert "not-started" in capsys.readouterr().out
    monkeypatch.chdir("/")
    assert main(["key", str(site)]) == 0
    assert read_public_key(site / "node.pub").fingerprint in capsys.readouterr().out
