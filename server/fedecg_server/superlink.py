"""The SuperLink: Flower's meeting point of the sites, started so that a hospital can live with it.

In:  the coordinator's folder. Out: a running `flower-superlink` that is ready, or a coded error before anything runs.
Called by the supervisor. Sites reach the fleet port alone (TLS, registered keys); control and runtime, which Flower
leaves without any authentication, listen on 127.0.0.1. Nothing is installed at run time and nothing is reported to
anybody. Flower's command line and its paths `/health` are used here, and none of its modules.
"""

from __future__ import annotations

import http.client
import os
import secrets
import socket
import sqlite3
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import tomli_w

from fedecg.errors import RunError, RunInputError
from fedecg.files import write_whole
from fedecg_server.certificates import check_tls
from fedecg_server.child import Child, keep_bounded
from fedecg_server.coordinator import LOOPBACK, Coordinator

__all__ = [
    "CONNECTION",
    "SuperLink",
    "check_database",
    "check_flower_version",
    "check_ports",
    "flower_environment",
    "prepare_folder",
]

FLOWER = "1.39"
CONNECTION = "coordinator"  # name of the SuperLink in Flower's own settings file
READY_S, LOOK_EVERY_S, ANSWER_S = 60.0, 0.1, 2.0
PORTS_FREE_S = 2.0
STOP_S = 4.0
SECRET_BYTES = 48
MADE = "database.made"  # beside the database once it has been complete: what is missing later has been lost
DATABASE_TABLES = {"alembic_version", "node", "run"}
NO_PROXY = f"{LOOPBACK},localhost"


def check_flower_version() -> None:
    """Flower's protocol and the inner parts that fedecg uses are those of one minor version.

    Raises:
        RunError: FECG-681.
    """
    found = version("flwr")
    if found.split(".")[:2] != FLOWER.split("."):
        raise RunInputError(
            "FECG-681",
            "package flwr",
            found=f"version {found}",
            expected=f"version {FLOWER}, the same at the coordinator and at every site",
            fix=f"pip install 'flwr=={FLOWER}.*'",
        )


def flower_environment(coordinator: Coordinator) -> dict[str, str]:
    """The environment of every process that runs Flower: this one's, without settings that would change Flower."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FLWR_")}
    return kept | {
        "FLWR_HOME": str(coordinator.flower_home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        # Flower finds its own programs by name.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        # A hospital's web proxy is not asked for the way to this very machine.
        "NO_PROXY": NO_PROXY,
        "no_proxy": NO_PROXY,
        "PYTHONUNBUFFERED": "1",
    }


def prepare_folder(coordinator: Coordinator) -> None:
    """Write the secret of the app host, once, and Flower's settings file, anew.

    A secret of another length is one that a kill left half-written: Flower would refuse it at every start.

    Raises:
        RunError: FECG-601.
    """
    coordinator.superlink.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not coordinator.secret.exists() or coordinator.secret.stat().st_size != SECRET_BYTES:
        write_whole(coordinator.secret, secrets.token_bytes(SECRET_BYTES), private=True)
    link = {"address": coordinator.settings.control_address, "root-certificates": str(coordinator.tls.ca)}
    tree = {"superlink": {"default": CONNECTION, CONNECTION: link}}
    write_whole(coordinator.flower_home / "config.toml", tomli_w.dumps(tree))


def check_ports(coordinator: Coordinator) -> None:
    """Both ports must be free: Flower would share the fleet port with whoever has it, and give no sign of it.

    Raises:
        RunError: FECG-683, with the key of server.toml and the port.
    """
    settings, until = coordinator.settings, time.monotonic() + PORTS_FREE_S
    for key, host, port in (
        ("port", settings.address, settings.port),
        ("control-port", LOOPBACK, settings.control_port),
    ):
        while (reason := _taken(host, port)) and time.monotonic() < until:
            time.sleep(LOOK_EVERY_S)  # a SuperLink that was just killed lets go of it in a moment
        if reason:
            raise RunError(
                "FECG-683",
                f"{key} {port} on {host}",
                found=f"a port that cannot be had ({reason})",
                expected="a free port and an address of this machine",
                fix=f"End the program that has it (ss -ltnp | grep {port}), or change server.toml.",
            )


def _taken(host: str, port: int) -> str:
    """Why nobody can listen there now, or nothing."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or type(error).__name__
    return ""


def check_database(coordinator: Coordinator) -> None:
    """The SuperLink's database must be whole, or there must never have been one.

    SQLite takes an empty file for a new database. Keys would then be registered anew with other node ids, and
    nobody would know why; so that is for a person to decide.

    Raises:
        RunError: FECG-684.
    """
    database, made = coordinator.database, (coordinator.superlink / MADE).exists()
    log = database.with_name(f"{database.name}-wal")
    if not database.exists():
        if made or log.exists():
            raise _damaged("no file")
        return
    found = _fault(database)
    if found and not made:  # a first start that was killed: nothing was ever registered in it
        for part in coordinator.superlink.glob(f"{database.name}*"):
            part.unlink()
    elif found:
        raise _damaged(found)


def _fault(database: Path) -> str:
    """What is wrong with a database file, or nothing."""
    try:
        connection = sqlite3.connect(f"file:{database}?mode=rw", uri=True, timeout=ANSWER_S)
        try:
            lines = [str(row[0]) for row in connection.execute("PRAGMA quick_check(1)")]
            tables = {str(row[0]) for row in connection.execute("SELECT name FROM sqlite_master")}
        finally:
            connection.close()
    except sqlite3.Error as error:
        return str(error)
    if lines != ["ok"]:
        return "pages that contradict each other"
    return "" if tables >= DATABASE_TABLES else "a file without the SuperLink's tables"


def _damaged(found: str) -> RunError:
    return RunError(
        "FECG-684",
        "superlink/database",
        found=found,
        expected="the SuperLink's database, whole",
        fix="Put superlink/ back from a backup. Or move superlink/database* away: the next start makes a new one, "
        "registers every site of sites.json again, and the study goes on from run/state.",
    )


class SuperLink:
    """One `flower-superlink`.

    Args:
        coordinator: whose folder it works in.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self._child: Child | None = None

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._child is not None and self._child.alive

    @property
    def pid(self) -> int | None:
        """Process id, if it was started."""
        return self._child.pid if self._child else None

    def start(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Check, start it and wait until it answers; see `check` and `launch`."""
        self.check()
        self.launch(stopped)

    def check(self) -> None:
        """Everything that can be known before a process is started.

        Raises:
            RunError: FECG-673, FECG-674 certificates; FECG-681, FECG-683, FECG-684; FECG-601.
        """
        check_flower_version()
        check_tls(self.coordinator.tls, self.coordinator.settings.name)
        check_ports(self.coordinator)
        check_database(self.coordinator)
        prepare_folder(self.coordinator)

    def launch(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Start it and wait until it answers.

        Args:
            stopped: looked at while waiting; True ends the wait.

        Raises:
            RunError: FECG-682 if it does not come up.
        """
        self._child = Child(
            self._command(), flower_environment(self.coordinator), self.coordinator.superlink_log
        )
        self._wait(self._child, stopped)
        if self.answers():
            (self.coordinator.superlink / MADE).touch()

    def _command(self) -> list[str]:
        tls, settings = self.coordinator.tls, self.coordinator.settings
        return [
            "flower-superlink",
            *("--ssl-ca-certfile", str(tls.ca)),
            *("--ssl-certfile", str(tls.certificate)),
            *("--ssl-keyfile", str(tls.key)),
            "--enable-supernode-auth",
            *("--database", str(self.coordinator.database)),
            *("--fleet-api-type", "grpc-rere"),
            *("--fleet-api-address", settings.fleet_address),
            *("--host", LOOPBACK),
            *("--port", str(settings.control_port)),
            *("--isolation", "process"),
            *("--superexec-auth-secret-file", str(self.coordinator.secret)),
            "--disable-runtime-dependency-installation",
        ]

    def _wait(self, child: Child, stopped: Callable[[], bool]) -> None:
        until = time.monotonic() + READY_S
        while not self.answers() and not stopped():
            if not child.alive or time.monotonic() > until:
                found = f"no answer within {READY_S:.0f} s" if child.alive else "that it ended at once"
                self.stop()
                raise RunError(
                    "FECG-682",
                    "SuperLink",
                    found=found,
                    expected="one that answers on control-port",
                    fix="Its reason is at the end of log/superlink.log.",
                )
            time.sleep(LOOK_EVERY_S)

    def answers(self) -> bool:
        """Whether it serves: fleet port first, then control port, then this."""
        settings = self.coordinator.settings
        try:
            context = ssl.create_default_context(cafile=str(self.coordinator.tls.ca))
            connection = http.client.HTTPSConnection(
                LOOPBACK, settings.control_port, timeout=ANSWER_S, context=context
            )
            try:
                connection.request("GET", "/health")
                return connection.getresponse().status == http.client.OK
            finally:
                connection.close()
        except (OSError, http.client.HTTPException):
            return False

    def tend(self) -> None:
        """Keep its log bounded."""
        with suppress(OSError):
            keep_bounded(self.coordinator.superlink_log)

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        if self._child:
            self._child.ask_to_stop()

    def stop(self, within_s: float = STOP_S) -> None:
        """Stop it for certain.

        Args:
            within_s: time for a clean end, in seconds.
        """
        if self._child:
            self._child.ask_to_stop()
            self._child.stop(within_s)
