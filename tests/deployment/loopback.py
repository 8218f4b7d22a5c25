"""A consortium on loopback for tests: certificates, a real SuperLink over TLS, a driven ServerApp, agents.

Real processes and no mocks. Everything that is started carries a mark in its environment, so that a test can demand
that nothing of it is left.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
MARK = "FEDECG_TEST_MARK"
COHORT = (
    "record,patient,part,event,follow_up_days,age_years,female,codes\n"
    "0,1,train,1,10.0,60.0,1.0,{}\n1,2,train,0,20.0,61.0,0.0,{}\n2,3,test,0,5.0,70.0,1.0,{}\n"
)
PYPROJECT = """[project]
name = "{name}"
version = "1.0.0"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "fedecg"
[tool.flwr.app.components]
serverapp = "fedecg_server.app:app"
clientapp = "{clientapp}"
"""
Value = TypeVar("Value")


def until(what: Callable[[], Value], within_s: float, why: str) -> Value:
    """Wait for something that is true."""
    end = time.monotonic() + within_s
    while not (value := what()):
        assert time.monotonic() < end, f"not within {within_s} s: {why}"
        time.sleep(0.05)
    return value


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Authority:
    """A CA that signs server certificates."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @staticmethod
    def new(name: str = "loopback CA") -> Authority:
        """A CA of its own."""
        key, subject = ec.generate_private_key(ec.SECP384R1()), _name(name)
        builder = _builder(subject, subject, key, -1, 30)
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        return Authority(key, builder.add_extension(constraints, critical=True).sign(key, hashes.SHA256()))

    def sign(self, *names: str, from_day: int = -1, to_day: int = 30) -> tuple[bytes, bytes]:
        """Certificate and key, PEM, for names or addresses."""
        key = ec.generate_private_key(ec.SECP384R1())
        builder = _builder(_name("server"), self.certificate.subject, key, from_day, to_day)
        alternative = x509.SubjectAlternativeName([_general_name(name) for name in names])
        certificate = builder.add_extension(alternative, critical=False).sign(self.key, hashes.SHA256())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return certificate.public_bytes(Encoding.PEM), private

    @property
    def pem(self) -> bytes:
        """What sites are given."""
        return self.certificate.public_bytes(Encoding.PEM)


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, from_day: int, to_day: int
) -> x509.CertificateBuilder:
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + from_day * day)
        .not_valid_after(now + to_day * day)
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def write_key(folder: Path) -> Path:
    """node.key and node.pub in a site's folder, as `fedecg-client init` makes them."""
    key = ec.generate_private_key(ec.SECP384R1())
    private = folder / "node.key"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    private.chmod(0o600)
    public = folder / "node.pub"
    public.write_bytes(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b"\n")
    return public


def write_site(folder: Path, address: str, ca: bytes, policy: str = "") -> Path:
    """A site's folder with three patients, its CA and its key."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "site.toml").write_text(
        f'name = "{folder.name}"\nstore = "store"\ncohort = "cohort.csv"\n[server]\naddress = "{address}"\n'
        "[privacy]\nthreshold-patients = 0\nthreshold-events = 0\n"  # three patients who never were
        f'[policy]\nstudies = ["*"]\n{policy}\n'
    )
    (folder / "cohort.csv").write_text(COHORT)
    (folder / "ca.crt").write_bytes(ca)
    write_key(folder)
    return folder


class Processes:
    """Starts processes with a mark, and ends them all."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.mark, self.started = folder, secrets.token_hex(8), list[subprocess.Popen[bytes]]()

    def environment(self, **more: str) -> dict[str, str]:
        """Flower's, as every process of a consortium has it."""
        return {
            **{key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")},
            "FLWR_HOME": str(self.folder / "flwr-home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "PATH": f"{BIN}:{os.environ['PATH']}",
            MARK: self.mark,
            **more,
        }

    def start(
        self, command: list[str], log: Path | None = None, cwd: Path | None = None, **more: Any
    ) -> subprocess.Popen[bytes]:
        """In a group of its own."""
        environment = self.environment(**more.pop("environment", {}))
        if log is not None:
            with log.open("ab") as stream:
                process = subprocess.Popen(
                    command, stdout=stream, stderr=subprocess.STDOUT, cwd=cwd or self.folder, env=environment,
                    start_new_session=True, stdin=subprocess.DEVNULL,
                )  # fmt: skip
        else:
            with (self.folder / "driver.log").open("ab") as errors:
                process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=cwd or self.folder, env=environment,
                    start_new_session=True, stderr=errors,
                )  # fmt: skip
        self.started.append(process)
        return process

    def left(self) -> list[int]:
        """Everything with our mark that is alive."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and self.mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return found

    def end(self) -> None:
        """Kill every group that was started."""
        for process in self.started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream:
                    with suppress(OSError):
                        stream.close()


class SuperLink:
    """`flower-superlink` over TLS with node authentication and a database on disk."""

    def __init__(
        self, folder: Path, processes: Processes, authority: Authority, names: tuple[str, ...]
    ) -> None:
        self.folder, self.processes, self.authority = folder, processes, authority
        self.port, self.control_port = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.certify(*names)
        (folder / "ca.crt").write_bytes(authority.pem)
        (folder / "secret").write_bytes(secrets.token_bytes(48))
        home = processes.folder / "flwr-home"
        home.mkdir(exist_ok=True)
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "loopback"\n[superlink.loopback]\naddress = "127.0.0.1:{self.control_port}"\n'
            f'root-certificates = "{folder / "ca.crt"}"\n'
        )

    def certify(self, *names: str, from_day: int = -1, to_day: int = 30) -> None:
        """Another certificate, used from the next start on."""
        certificate, key = self.authority.sign(*names, from_day=from_day, to_day=to_day)
        (self.folder / "server.crt").write_bytes(certificate)
        (self.folder / "server.key").write_bytes(key)

    def start(self) -> None:
        """Start it and wait for both ports."""
        folder = self.folder
        command = [
            "flower-superlink", "--ssl-ca-certfile", str(folder / "ca.crt"),
            "--ssl-certfile", str(folder / "server.crt"), "--ssl-keyfile", str(folder / "server.key"),
            "--enable-supernode-auth", "--database", str(folder / "database"),
            "--fleet-api-address", self.address, "--host", "127.0.0.1", "--port", str(self.control_port),
            "--isolation", "process", "--superexec-auth-secret-file", str(folder / "secret"),
            "--disable-runtime-dependency-installation",
        ]  # fmt: skip
        self.process = self.processes.start(command, folder / "superlink.log")
        for port in (self.port, self.control_port):
            until(lambda port=port: _listens(port), 30, "SuperLink's port")  # type: ignore[misc]

    def kill(self) -> None:
        """As a crash would."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def flwr(self, *words: str, cwd: Path | None = None) -> dict[str, Any]:
        """Flower's command line."""
        done = subprocess.run(
            ["flwr", *words, "--format", "json"],
            env=self.processes.environment(NO_PROXY="127.0.0.1"), capture_output=True, text=True,
            cwd=cwd or self.folder, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        answer = dict(json.loads(done.stdout))
        assert answer["success"], answer
        return answer

    def register(self, public_key: Path) -> int:
        """Put a node's key on the list; its node id."""
        return int(self.flwr("supernode", "register", str(public_key), "loopback")["node-id"])

    def status_of(self, node_id: int) -> str:
        """online, offline, registered."""
        nodes = self.flwr("supernode", "list", "loopback")["nodes"]
        return next(str(node["status"]) for node in nodes if int(node["node-id"]) == node_id)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Driver:
    """A run of the installed app, whose ServerApp sends what the test says."""

    def __init__(self, superlink: SuperLink, bundle: dict[str, str]) -> None:
        folder = superlink.folder / f"bundle-{secrets.token_hex(4)}"
        folder.mkdir()
        for name, text in bundle.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        self.process = superlink.processes.start(
            [sys.executable, str(HERE / "app_driver.py"), f"127.0.0.1:{superlink.control_port}",
             str(superlink.folder / "ca.crt"), str(superlink.folder / "secret")],
            environment={"NO_PROXY": "127.0.0.1"},
        )  # fmt: skip
        superlink.flwr("run", str(folder), "loopback")
        self.orders = 0
        self.run_id = self._line(time.monotonic() + 60)["ready"]

    def say(self, *nodes: int, kind: str = "query.join", within_s: float = 20.0) -> None:
        """Send one message to each node; `read` gives the replies."""
        assert self.process.stdin
        self.orders += 1
        order = {"number": self.orders, "kind": kind, "nodes": nodes, "within_s": within_s}
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()

    def read(self, within_s: float = 60.0) -> Any:
        """The replies to the last message that was sent; those that an earlier test left are passed over."""
        end = time.monotonic() + within_s
        while (answer := self._line(end))["number"] != self.orders:
            pass
        return answer["replies"]

    def _line(self, end: float) -> Any:
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
        assert ready, "the driver says nothing"
        return json.loads(self.process.stdout.readline())

    def ask(self, *nodes: int, kind: str = "query.join", within_s: float = 20.0) -> Any:
        """Send, and wait for the replies."""
        self.say(*nodes, kind=kind, within_s=within_s)
        return self.read(within_s + 20)

    def finish(self) -> None:
        """The run ends."""
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(20)


class AgentProcess:
    """A site's agent as `fedecg-client start` runs it."""

    COMMAND = "import sys, pathlib; from fedecg.exits import exit_status; from fedecg_client.agent import run_agent; "
    RUN = "sys.exit(exit_status(lambda: run_agent(pathlib.Path(sys.argv[1]))))"

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.folder, self.processes = folder, processes
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, before: tuple[str, ...] = (), **environment: str) -> AgentProcess:
        """Start it, behind another command if wanted."""
        command = [*before, sys.executable, "-P", "-c", self.COMMAND + self.RUN, str(self.folder)]
        self.process = self.processes.start(command, self.log, environment=environment)
        return self

    @property
    def log(self) -> Path:
        """Its stderr."""
        return self.folder.parent / f"{self.folder.name}.log"

    @property
    def status(self) -> dict[str, Any]:
        """state/status.json of now."""
        try:
            return dict(json.loads((self.folder / "state" / "status.json").read_text()))
        except FileNotFoundError:
            return {}

    @property
    def events(self) -> list[dict[str, Any]]:
        """state/events.jsonl."""
        return [
            json.loads(line) for line in (self.folder / "state" / "events.jsonl").read_text().splitlines()
        ]

    def online(self, within_s: float = 30.0) -> int:
        """Wait until it is connected; its node id."""
        assert self.process
        pid = self.process.pid
        until(
            lambda: self.status.get("pid") == pid and self.status["connected"],
            within_s,
            f"online: {self.status}",
        )
        return self.node_id

    @property
    def node_id(self) -> int:
        """As it stands on disk."""
        return int((self.folder / "state" / "node-id").read_text().split()[0])

    def wait(self, within_s: float = 10.0) -> int:
        """Its exit status."""
        assert self.process
        return self.process.wait(within_s)

    def stop(self) -> int:
        """SIGTERM."""
        assert self.process
        self.process.terminate()
        return self.wait()

    def kill(self) -> None:
        """kill -9 of the agent alone."""
        assert self.process
        self.process.kill()
        self.process.wait()


class Proxy:
    """A TCP line between an agent and a SuperLink that a test cuts or makes deaf."""

    def __init__(self, port: int) -> None:
        self.port, self.cut, self.deaf = port, False, False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._serve, daemon=True).start()

    def hang_up(self) -> None:
        """Cut every connection that stands."""
        for line in list(self._open):
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """No more connections."""
        self._listener.close()
        self.hang_up()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self.cut:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self.port))
                self._open |= {near, far}
                threading.Thread(target=self._pass, args=(near, far, False), daemon=True).start()
                threading.Thread(target=self._pass, args=(far, near, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not (answers and self.deaf):
                    target.sendall(data)
        for line in (source, target):
            self._open.discard(line)
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()
