"""The command `fedecg-client` from the shell's side: folder, keys, agent, agreed studies, service, exit statuses."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from asking import lock_of, study
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric import ec

from fedecg import locks
from fedecg.config import PolicySettings, ServerSettings, SiteSettings, load_site
from fedecg.errors import RunError, SettingsError
from fedecg.federation.identity import read_public_key
from fedecg_client import keys as keys_module
from fedecg_client.cli import main
from fedecg_client.folder import create_site, open_site
from fedecg_client.pinned import pin, pinned_lock, propose
from fedecg_client.running import running_agent, stop_agent
from fedecg_server.certificates import TlsFiles, ca_fingerprint, create_tls

COMMANDS = ["init", "preflight", "doctor", "start", "status", "stop", "studies", "accept", "key", "renew-key"]
ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "client" / "fedecg_client" / "templates" / "site.toml"
PYTHON = [sys.executable, "-c"]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """The certificates of a coordinator, made by its own code."""
    files = TlsFiles(tmp_path_factory.mktemp("coordinator") / "tls")
    create_tls(files, "127.0.0.1")
    return files


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tls: TlsFiles) -> Path:
    folder = tmp_path_factory.mktemp("command") / "site"
    assert main(words(folder, tls, "--study", "hf", "other")) == 0
    return folder


@pytest.fixture
def site(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "site"))


def words(
    folder: Path, tls: TlsFiles, *more: str, name: str = "north", server: str = "127.0.0.1:9"
) -> list[str]:
    return ["init", str(folder), "--name", name, "--server", server, "--ca", str(tls.ca), *more]


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
    assert stated == {"name": "site-name", "cohort": "cohort.csv", "store": "store",
                      "server": server, "policy": defaults}  # fmt: skip
    assert set(stated) == {field.replace("_", "-") for field in SiteSettings.model_fields}
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
        ({"name": "a b"}, 3, "FECG-103 settings: found 1 problem"),
        ({"name": "../x"}, 3, "FECG-103 settings: found 1 problem"),
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


# The key


def test_a_new_key_waits_beside_the_old_one_and_is_never_written_over(site: Path, capsys: Captured) -> None:
    old, other = (site / "node.key").read_bytes(), open_site(site)
    assert main(["renew-key", str(site)]) == 0
    told = capsys.readouterr().out
    new = read_public_key(site / "node.new.pub")
    assert new.fingerprint in told
    assert "site remove NAME" in told
    assert (site / "node.key").read_bytes() == old
    assert stat.S_IMODE((site / "node.new.key").stat().st_mode) == 0o600
    assert main(["key", str(site), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {"key": read_public_key(site / "node.pub").fingerprint, "new-key": new.fingerprint}
    waiting = (site / "node.new.key").read_bytes()
    assert main(["renew-key", str(site)]) == 1
    assert "FECG-660 file node.new.key: found a key" in capsys.readouterr().err
    assert (site / "node.new.key").read_bytes() == waiting
    assert other.key == site / "node.key"


def test_the_old_key_stays_until_the_coordinator_can_be_asked(site: Path, capsys: Captured) -> None:
    assert main(["renew-key", str(site), "--use"]) == 1
    assert "FECG-660 new key: found none; expected node.new.key" in capsys.readouterr().err
    old = (site / "node.key").read_bytes()
    assert main(["renew-key", str(site)]) == 0
    assert main(["renew-key", str(site), "--use"]) == 1
    told = capsys.readouterr().err
    assert "FECG-649 new key: found coordinator: connection refused" in told
    assert "The old key stays" in told
    assert (site / "node.key").read_bytes() == old
    text = (site / "site.toml").read_text()
    (site / "site.toml").write_text(re.sub(r"\[server\].*?(?=\[policy\])", "", text, flags=re.DOTALL))
    assert main(["renew-key", str(site), "--use"]) == 1
    assert "FECG-643 site.toml: found no [server]" in capsys.readouterr().err


def test_a_key_that_is_no_key_is_told(site: Path, capsys: Captured) -> None:
    (site / "node.key").write_text("secret nonsense")
    assert main(["key", str(site)]) == 1
    told = capsys.readouterr().err
    assert "FECG-643 node.key: found a file that is no OpenSSH private key without a password" in told
    assert "secret" not in told
    key = ec.generate_private_key(ec.SECP256R1())
    (site / "node.key").write_bytes(
        key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.OpenSSH, forms.NoEncryption())
    )
    with pytest.raises(RunError, match=r"FECG-643 node.key: found a key of another kind"):
        keys_module.load_key(site / "node.key")
    (site / "node.key").unlink()
    with pytest.raises(RunError, match=r"FECG-643 node.key: found no such file.*renew-key"):
        keys_module.load_key(site / "node.key")


# The agent, from outside

HOLD = (
    "import signal, sys, time; from pathlib import Path; from fedecg_client.running import only_one\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN if sys.argv[2] == 'deaf' else lambda *_: sys.exit(0))\n"
    "with only_one(Path(sys.argv[1])):\n"
    "    print('held', flush=True); time.sleep(60)\n"
)


@pytest.fixture
def holder(site: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that hold the site's lock as an agent does; ended with the test."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


def hold(site: Path, started: list[subprocess.Popen[str]], how: str = "obeys") -> int:
    process = subprocess.Popen([*PYTHON, HOLD, str(site / "state"), how], stdout=subprocess.PIPE, text=True)
    started.append(process)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process.pid


def said(site: Path, **document: object) -> None:
    (site / "state/status.json").write_text(json.dumps({"site": "north", **document}))


def state_of(site: Path, capsys: Captured) -> dict[str, object]:
    capsys.readouterr()
    assert main(["status", str(site), "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_status_says_what_is_true_and_not_what_a_dead_agent_left_behind(
    site: Path, holder: list[subprocess.Popen[str]], capsys: Captured
) -> None:
    assert state_of(site, capsys)["state"] == "not-started"
    now = datetime.datetime.now(datetime.UTC)
    said(site, state="working", pid=4242, connected=True, updated=now.isoformat(), code=None)
    document = state_of(site, capsys)
    assert (document["state"], document["said"], document["running"]) == ("killed", "working", False)
    assert document["connected"] is False
    assert main(["status", str(site)]) == 0
    assert "ended without a word" in capsys.readouterr().out
    pid = hold(site, holder)
    assert state_of(site, capsys)["state"] == "starting"  # the file is still that of the dead one
    said(site, state="working", pid=pid, connected=True, updated=now.isoformat(), phase="survival", round=3,
         step=5, steps=20, study="hf", **{"eta-s": 12.0, "tasks-done": 7, "sent-bytes": 2e6})  # fmt: skip
    document = state_of(site, capsys)
    assert (document["state"], document["pid"], document["connected"]) == ("working", pid, True)
    assert main(["status", str(site)]) == 0
    told = capsys.readouterr().out
    assert "hf: survival, round 3, step 5 of 20, about 12 s left" in told
    assert "7 tasks, 2.0 MB sent" in told
    old = now - datetime.timedelta(minutes=3)
    said(site, state="idle", pid=pid, connected=True, updated=old.isoformat())
    assert state_of(site, capsys)["state"] == "silent"


@pytest.mark.parametrize("content", ["", "{", "[1]", "\xff\x00", '{"state": null}', "[" * 10_000])
def test_a_damaged_status_is_as_if_there_were_none(site: Path, capsys: Captured, content: str) -> None:
    (site / "state/status.json").write_text(content, encoding="latin-1")
    (site / "state/events.jsonl").write_text(
        content + '\n{"time": "t", "event": "start"}\n"text"\n', encoding="latin-1"
    )
    document = state_of(site, capsys)
    assert document["state"] == "not-started"
    assert document["events"] == [{"time": "t", "event": "start"}]


def test_nothing_in_a_file_reaches_the_terminal_as_a_command(site: Path, capsys: Captured) -> None:
    said(site, state="stopped", pid=1, code="\x1b]0;owned\x07", **{"waiting-for": "\x1b[2J"})
    (site / "state/events.jsonl").write_text(json.dumps({"time": "\x1b[1m", "event": "\u202egnirts"}) + "\n")
    assert main(["status", str(site)]) == 0
    told = capsys.readouterr().out
    assert all(letter == "\n" or letter.isprintable() for letter in told)


def test_stop_ends_the_agent_and_nobody_else(
    site: Path, holder: list[subprocess.Popen[str]], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "TRY_S", 0.2)
    assert main(["stop", str(site)]) == 0
    assert capsys.readouterr().out == "not running\n"
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        (site / "state/agent.pid").write_text(str(innocent.pid))
        assert main(["stop", str(site)]) == 0
        assert capsys.readouterr().out == "not running\n"
        with (site / "state/agent.lock").open("w") as lock:  # held, and the number is a stranger's
            fcntl.flock(lock, fcntl.LOCK_EX)
            (site / "state/agent.pid").write_text(str(innocent.pid))
            assert main(["stop", str(site)]) == 1
            assert "FECG-659 agent: found a folder that is locked by a process" in capsys.readouterr().err
            for number in ("-1", "0", "nonsense"):
                (site / "state/agent.pid").write_text(number)
                with pytest.raises(RunError, match="FECG-659"):
                    running_agent(site / "state")
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()
    hold(site, holder)
    assert main(["stop", str(site)]) == 0
    assert capsys.readouterr().out == "stopped\n"
    assert holder[0].wait(5) == 0


def test_an_agent_that_does_not_stop_is_told_with_its_number(
    site: Path, holder: list[subprocess.Popen[str]]
) -> None:
    pid = hold(site, holder, "deaf")
    with pytest.raises(
        RunError, match=rf"FECG-659 agent: found a process that still runs 0 s.*kill -9 {pid}"
    ):
        stop_agent(site / "state", 0.2)


def test_looking_at_an_agent_does_not_keep_it_from_its_lock(
    site: Path, holder: list[subprocess.Popen[str]], capsys: Captured
) -> None:
    hold(site, holder)
    for _ in range(20):
        state_of(site, capsys)
    assert holder[0].poll() is None


@pytest.mark.parametrize(
    ("mend", "status", "said"),
    [
        (lambda site: (site / "node.key").chmod(0o640), 3, "FECG-651 a private key that others"),
        (lambda site: (site / "state").chmod(0o755), 3, "FECG-651 state/ that others can read"),
        (lambda site: (site / "ca.crt").unlink(), 3, "FECG-643 ca.crt: found no such file"),
        (
            lambda site: (site / "ca.crt").write_text("x"),
            3,
            "FECG-643 ca.crt: found a file that is no PEM certificate",
        ),
        (
            lambda site: (site / "node.pub").write_text("x"),
            3,
            "FECG-657 no node.pub that belongs to node.key",
        ),
        (lambda site: edit(site, r'studies = \["hf", "other"\]', "studies = []"), 4, "FECG-656 no study"),
        (lambda site: edit(site, r"phases = \[.*\]", "phases = []"), 4, "FECG-656 no phase"),
        (lambda site: (shutil.rmtree(site / "state"), (site / "state").write_text("")), 1, "FECG-601 state/"),
        (lambda site: edit(site, 'name = "north"', "name = 3"), 3, "FECG-103 settings"),
    ],
)
def test_start_says_at_once_what_someone_must_mend(
    site: Path, capsys: Captured, mend: Callable[[Path], object], status: int, said: str
) -> None:
    mend(site)
    assert main(["start", str(site)]) == status
    assert said in capsys.readouterr().err


def edit(site: Path, pattern: str, text: str) -> None:
    before = (site / "site.toml").read_text()
    after = re.sub(pattern, text, before)
    assert after != before
    (site / "site.toml").write_text(after)


# Agreed studies


def test_studies_and_accept_show_and_change_what_was_agreed_to(
    site: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["studies", str(site)]) == 0
    assert "no study has been joined yet" in capsys.readouterr().out
    first, second = lock_of(study()), lock_of(study(seed=7))
    pin(site, first)
    propose(site, second)
    assert main(["studies", str(site), "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["studies"]
    assert (entry["study"], entry["sha256"], entry["proposed"]) == ("hf", first.sha256(), second.sha256())
    assert entry["summary"] == first.summary()
    assert main(["studies", str(site)]) == 0
    told = capsys.readouterr().out
    assert "Leaves the site: weights" in told
    assert f"fedecg-client accept hf {second.sha256()}" in told
    assert main(["accept", str(site), "hf", "0" * 64]) == 4
    assert "FECG-413" in capsys.readouterr().err
    monkeypatch.chdir(site)
    assert (
        main(["accept", "hf", second.sha256().upper()]) == 0
    )  # as the refusal's own words say, in the folder
    assert second.sha256() in capsys.readouterr().out
    assert pinned_lock(site, "hf") == second
    (site / "state/locks/hf.json").write_text("{")
    assert main(["studies", str(site)]) == 0
    assert "hf: a damaged lock" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["../../../etc/passwd", "hf/../hf", "", ".", "HF", "a" * 65, "hf\n"])
def test_the_name_of_a_study_never_becomes_a_path(site: Path, capsys: Captured, name: str) -> None:
    assert main(["accept", str(site), name, "0" * 64]) == 3
    assert "FECG-124 name of the study" in capsys.readouterr().err


# As a service


@pytest.mark.parametrize("role", ["client", "server"])
def test_the_service_files_are_right_and_hardened(role: str, tmp_path: Path) -> None:
    text = (ROOT / f"docs/systemd/fedecg-{role}.service").read_text()
    (command,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert command.split()[0] == f"/opt/fedecg/bin/fedecg-{role}"
    assert command.split()[1] == "start"
    for line in ("ProtectSystem=strict", "NoNewPrivileges=true", "PrivateTmp=true", "Restart=on-failure",
                 "ProtectHome=true", "KillMode=mixed", "CapabilityBoundingSet=",
                 f"ReadWritePaths={command.split()[2]}"):  # fmt: skip
        assert f"\n{line}\n" in text
    (kept,) = re.findall(r"^RestartPreventExitStatus=(.*)$", text, re.MULTILINE)
    assert {"2", "3", "4"} <= set(kept.split())
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    unit = tmp_path / f"fedecg-{role}.service"
    unit.write_text(text.replace("/opt/fedecg/bin/fedecg-", "/bin/true fedecg-"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    graded = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", unit], capture_output=True, text=True
    )
    assert float(re.findall(r"Overall exposure level for \S+: ([0-9.]+)", graded.stdout)[0]) < 2.5


def test_a_certificate_authority_that_has_expired_is_told(site: Path, capsys: Captured) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "old")])
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.UTC)
    for begins, ends, found in ((-9, -1, "has expired"), (1, 9, "is not valid yet")):
        builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now + begins * day).not_valid_after(now + ends * day)
        old = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        (site / "ca.crt").write_bytes(old.sign(key, hashes.SHA256()).public_bytes(forms.Encoding.PEM))
        assert main(["start", str(site)]) == 3
        assert f"FECG-643 ca.crt that {found}" in capsys.readouterr().err
    assert os.listdir(site / "state") == []  # noqa: PTH208
