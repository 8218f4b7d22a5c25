"""docs/deploy.md as tests use it: its blocks of commands, and terminals in which they are done as they are written.

In:  titles of the guide's sections; commands. Out: commands, and what they have said. Used by every test that does what
the guide says.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
PORTS = {"port": "9092", "control-port": "9093", "dashboard-port": "9094", "metrics-port": "9095"}


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
        self.shells: list[subprocess.Popen[bytes]] = []
        scripts = str(Path(sys.executable).parent)
        self.environment = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}"}

    def run(self, commands: str, timeout_s: float = 300.0) -> str:
        """Run commands as bash does, and stop at the first that fails; what they have said.

        Into a file: what stays in the background would hold a pipe, and die of it once nobody reads.
        """
        with tempfile.TemporaryFile() as said:
            shell = subprocess.Popen(
                ["bash", "-euc", commands],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.shells.append(shell)
            shell.wait(timeout=timeout_s)
            text = os.pread(said.fileno(), os.fstat(said.fileno()).st_size, 0).decode()
        assert shell.returncode == 0, text
        return text

    def close(self) -> None:
        """End what was left running."""
        for shell in self.shells:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGTERM)
            shell.wait()


def with_free_ports(commands: str, ports: dict[str, str]) -> str:
    """The guide's commands, at ports that nothing else on this machine uses."""
    edits = "; ".join(f"s/^{key} = {PORTS[key]}/{key} = {port}/" for key, port in ports.items())
    made = "fedecg-server init coordinator --name 127.0.0.1\n"
    assert made in commands or "init" not in commands
    text = commands.replace(made, f"{made}sed -i '{edits}' coordinator/server.toml\n")
    return text.replace("127.0.0.1:9092", f"127.0.0.1:{ports['port']}")
