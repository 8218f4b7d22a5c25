"""A real coordinator for tests: its folder, and its supervisor as a process of its own, with everything it starts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import tomli_w
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedecg_server.coordinator import Coordinator, create_coordinator, open_coordinator
from fedecg_server.sites import add_site

START_S = 60.0  # bound of a test's own waits; what is promised is asserted apart
DRIVER = """
import sys
from fedecg.exits import exit_status
from fedecg_server.coordinator import open_coordinator
from fedecg_server.supervisor import start
words = sys.argv[2:]
sys.exit(exit_status(lambda: start(open_coordinator(sys.argv[1]), resume="resume" in words, new="new" in words)))
"""
WAITING_STUDY = """
name = "waiting"
seed = 1
[federation]
quorum = 2
patience-s = {patience}
deadline-s = 600.0
"""


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def two_free_ports() -> tuple[int, int]:
    """Two different ones: both are held until both are known."""
    with socket.socket() as first, socket.socket() as second:
        for probe in (first, second):
            probe.bind(("127.0.0.1", 0))
        return int(first.getsockname()[1]), int(second.getsockname()[1])


def make_coordinator(folder: Path, patience_s: float = 600.0) -> Coordinator:
    """A folder as `fedecg-server init` makes it, with free ports and a study whose quorum is never met."""
    fleet, control = two_free_ports()
    made = create_coordinator(folder, "127.0.0.1", fleet)
    lines = [
        line for line in made.server_file.read_text().splitlines() if not line.startswith("control-port")
    ]
    made.server_file.write_text("\n".join([*lines, f"control-port = {control}", ""]))
    made.study_file.write_text(WAITING_STUDY.format(patience=patience_s))
    return open_coordinator(folder)


class Running:
    """`fedecg-server start` on a folder; in a `with` statement, so that nothing of it stays behind."""

    def __init__(self, coordinator: Coordinator, *words: str) -> None:
        self.coordinator = coordinator
        command = [sys.executable, "-c", DRIVER, str(coordinator.folder), *words]
        self.began_s = time.time()
        self.output = coordinator.folder.with_name("output.txt")
        with self.output.open("w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        self.seen: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.children()
        self.process.kill()
        self.process.wait()
        for pid in self.seen:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)

    def children(self) -> dict[str, int]:
        """Its processes: superlink, host, flwr -> pid."""
        found: dict[str, int] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and parent_of(int(entry.name)) == self.process.pid:
                words = words_of(int(entry.name))
                kind = next((k for k in ("flower-superlink", "app_host", "flwr") if k in words), "")
                if kind:
                    found[kind.removeprefix("flower-").removeprefix("app_")] = int(entry.name)
        self.seen |= set(found.values())
        return found

    def status(self) -> dict[str, Any]:
        """run/status.json, or nothing."""
        try:
            return dict(json.loads((self.coordinator.run / "status.json").read_text()))
        except (OSError, ValueError):
            return {}

    def waits_for_sites(self) -> bool:
        """Whether the study itself says that it waits, and not one before it."""
        file = self.coordinator.run / "status.json"
        fresh = file.is_file() and file.stat().st_mtime > self.began_s
        return fresh and self.process.poll() is None and self.status().get("state") == "waiting"

    def text(self) -> str:
        """What it has said."""
        return self.output.read_text()

    def ask_to_stop(self, within_s: float = 10.0) -> int:
        """SIGTERM; its exit status."""
        self.children()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def kill(self, kind: str) -> int:
        """kill -9 of one of its processes; its pid."""
        pid = self.children()[kind]
        os.kill(pid, signal.SIGKILL)
        return pid


def until(condition: Callable[[], Any], within_s: float, what: str = "") -> Any:
    """What the condition gives as soon as it is true."""
    end = time.monotonic() + within_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"not within {within_s} s: {what or condition}"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Whether a process runs (one that has ended and waits to be reaped does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def parent_of(pid: int) -> int:
    """Process id of its parent, 0 if it has gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


def words_of(pid: int) -> str:
    """Its command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def taken_runs(coordinator: Coordinator) -> list[str]:
    """Ids of the runs that app hosts took, in order."""
    try:
        lines = coordinator.app_log.read_text().splitlines()
    except OSError:
        return []
    return [line.split()[1] for line in lines if line.startswith("taken ")]


AGENT = """
import sys
from pathlib import Path
from fedecg.exits import exit_status
from fedecg_client.agent import run_agent
sys.exit(exit_status(lambda: run_agent(Path(sys.argv[1]))))
"""


class Site:
    """A site's folder with a key of its own, and its agent as a process."""

    def __init__(self, coordinator: Coordinator, folder: Path) -> None:
        self.name, self.folder = folder.name, folder
        key = ec.generate_private_key(ec.SECP384R1())
        private, public = serialization.PrivateFormat.OpenSSH, serialization.PublicFormat.OpenSSH
        plain, openssh = serialization.NoEncryption(), serialization.Encoding.OpenSSH
        (folder / "node.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, private, plain))
        (folder / "node.key").chmod(0o600)
        (folder / "node.pub").write_bytes(key.public_key().public_bytes(openssh, public))
        shutil.copy(coordinator.tls.ca, folder / "ca.crt")
        document = tomllib.loads((folder / "site.toml").read_text())
        document["server"] = {"address": f"127.0.0.1:{coordinator.settings.port}"}
        document["policy"] = {"studies": [coordinator.study().name], "consent": "first"}
        (folder / "site.toml").write_text(tomli_w.dumps(document))
        add_site(coordinator, self.name, folder / "node.pub")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start its agent."""
        with (self.folder / "agent.log").open("ab") as log:
            command = [sys.executable, "-c", AGENT, str(self.folder)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def stop(self) -> None:
        """Stop its agent and whatever belongs to it."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(15.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def answers(coordinator: Coordinator) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", coordinator.settings.port)) == 0


def run_on(coordinator: Coordinator, *words: str, within_s: float = 30.0) -> tuple[int, str]:
    """Start it where it must end by itself; exit status and what it said."""
    with Running(coordinator, *words) as running:
        return running.process.wait(within_s), running.text()
