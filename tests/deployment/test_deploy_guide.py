"""docs/deploy.md, done as it is written: every block of commands that the guide asks the reader to copy."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedecg_server.run_folder import read_json

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
PORTS = {"port": "9092", "control-port": "9093", "dashboard-port": "9094", "metrics-port": "9095"}

pytestmark = pytest.mark.slow


def section(title: str) -> str:
    """The text under a heading."""
    return GUIDE.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def blocks(title: str) -> list[str]:
    """What the section asks to copy."""
    fenced: list[str] = re.findall(r"```bash\n(.*?)```", section(title), re.DOTALL)
    return fenced


def indented(title: str) -> str:
    """Commands of a section that stand indented."""
    return "\n".join(line.strip() for line in section(title).splitlines() if line.startswith("    "))


def free_ports(number: int) -> list[str]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    found = [str(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return found


class Terminal:
    """One shell after the other in one folder; whatever they leave running ends with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.groups: list[int] = []
        scripts = str(Path(sys.executable).parent)
        self.environment = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}"}

    def run(self, commands: str, timeout_s: float = 300.0) -> str:
        """Run commands as bash does, and stop at the first that fails."""
        shell = subprocess.Popen(
            ["bash", "-euc", commands],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.groups.append(shell.pid)
        with shell:
            if re.search(
                r"&(?!&)", commands.replace("&&", "")
            ):  # what stays in the background holds the pipe
                shell.wait(timeout=timeout_s)
                assert shell.stdout is not None
                os.set_blocking(shell.stdout.fileno(), False)
                text = shell.stdout.read() or ""
            else:
                text, _ = shell.communicate(timeout=timeout_s)
        assert shell.returncode == 0, text
        return text

    def close(self) -> None:
        for group in self.groups:
            try:
                os.killpg(group, signal.SIGTERM)
            except ProcessLookupError:
                continue


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shell = Terminal(tmp_path)
    yield shell
    shell.close()


def with_free_ports(commands: str, ports: dict[str, str]) -> str:
    """The guide's commands, at ports that nothing else on this machine uses."""
    edits = "; ".join(f"s/^{key} = {PORTS[key]}/{key} = {port}/" for key, port in ports.items())
    made = "fedecg-server init coordinator --name 127.0.0.1\n"
    assert made in commands or "init" not in commands
    text = commands.replace(made, f"{made}sed -i '{edits}' coordinator/server.toml\n")
    return text.replace("127.0.0.1:9092", f"127.0.0.1:{ports['port']}")


def test_ten_minutes_on_one_machine_and_the_rest_of_the_guide(terminal: Terminal) -> None:
    """One study: the trial run, then backup, restore, renewals on its folders."""
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    prepare, run, end = (with_free_ports(block, ports) for block in blocks("Ten minutes on one machine"))
    said = terminal.run(prepare)
    assert "Lock (sha256)" in said
    assert said.count("agreed to study two-hospitals with the lock ") == 2
    said = terminal.run(run)
    assert "two-hospitals" in said
    said = terminal.run(end)
    assert "result.json" in said
    result = read_json(terminal.folder / "coordinator" / "run" / "result.json")
    assert result["status"] == "completed"
    assert [site["name"] for site in result["sites"]] == ["city", "coast"]
    assert (terminal.folder / "coordinator" / "run" / "report.html").exists()

    backup, restore, start = indented("Backup and restore").splitlines()
    terminal.run(f"ln -s coordinator study; {backup.replace('/elsewhere/', '')}")
    said = terminal.run(f"rm study; {restore}; fedecg-server start study || test $? = 1")
    assert "city" in said
    assert re.search(
        r"FECG-693 list of sites: found that of a backup of 20.*: city, coast; expected your word", said
    )
    assert "nothing to do; another run" in terminal.run(start)  # the study is finished
    assert terminal.run("fedecg-server status study").startswith("state    completed")
    terminal.run(
        "fedecg-server renew study; fedecg-client renew-key sites/city; fedecg-client key sites/city"
    )


def test_a_site_without_internet_installs_from_the_wheelhouse(terminal: Terminal, tmp_path: Path) -> None:
    make, *_ = indented("A site without internet").split("#")
    clone = tmp_path / "clone"
    shutil.copytree(
        ROOT,
        clone,
        ignore=shutil.ignore_patterns(".venv", "runs", ".git", "wheelhouse", "*_cache", "hospitals"),
    )
    terminal.folder = clone
    terminal.run(f"mkdir -p .venv/bin; ln -s {sys.executable} .venv/bin/python; {make}", timeout_s=900)
    install = "\n".join(indented("A site without internet").splitlines()[1:])
    nowhere = "export PIP_INDEX_URL=http://127.0.0.1:9/ PIP_CONFIG_FILE=/dev/null\n"
    assert "preflight" in terminal.run(nowhere + install.replace("python3.11", sys.executable), timeout_s=900)
