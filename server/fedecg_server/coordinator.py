"""The coordinator's folder: every path in it, its settings, and how it is made.

In:  a folder, the public name of the machine. Out: the folder, whole or not at all, and a `Coordinator` that knows
where everything stands. Called by `fedecg-server` and by everything that it starts.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from fedecg.config import Section, StudySettings, load_study, parse_settings
from fedecg.errors import RunError, SettingsError
from fedecg.files import in_words, write_whole
from fedecg_server.certificates import TlsFiles, create_tls

__all__ = ["Coordinator", "CoordinatorSettings", "create_coordinator", "open_coordinator"]

Port = Annotated[int, Field(ge=1, le=65535)]
PortOrOff = Annotated[int, Field(ge=0, le=65535)]
LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
LOOPBACK = "127.0.0.1"
SHOWN = "in the server.toml that fedecg-server init writes"
TEMPLATE_NAME, TEMPLATE_PORT = 'name = "coordinator.example.org"', "port = 9092"


class CoordinatorSettings(Section):
    """`server.toml`: what sites know the coordinator by, and the ports of its machine."""

    name: str  # public DNS name or IPv4 address; stands in the certificate and in every site.toml
    address: str = "0.0.0.0"  # of the network card that sites come in by; 0.0.0.0 = all
    port: Port = 9092  # the only port that sites reach
    control_port: Port = 9093  # on 127.0.0.1 only
    dashboard_port: PortOrOff = 9094  # on 127.0.0.1 only; 0 = off
    metrics_port: PortOrOff = 9095  # on 127.0.0.1 only; 0 = off

    @field_validator("name")
    @classmethod
    def _name_can_be_certified(cls, name: str) -> str:
        if not _is_public_name(name):
            raise ValueError("expected a DNS name or an IPv4 address, without port and without https://")
        return name

    @field_validator("address")
    @classmethod
    def _address_is_numeric(cls, address: str) -> str:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise ValueError("expected an IP address of this machine, or 0.0.0.0 for all") from None
        return address

    @model_validator(mode="after")
    def _ports_differ(self) -> CoordinatorSettings:
        ports = [p for p in (self.port, self.control_port, self.dashboard_port, self.metrics_port) if p]
        if len(set(ports)) < len(ports):
            raise ValueError("expected four different ports (dashboard-port, metrics-port: 0 = off)")
        return self

    @property
    def fleet_address(self) -> str:
        """Where the SuperLink listens for sites, as host:port."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"

    @property
    def control_address(self) -> str:
        """Where this machine, and no other, reaches the SuperLink."""
        return f"{LOOPBACK}:{self.control_port}"


class Coordinator:
    """One coordinator's folder.

    Args:
        folder: as `create_coordinator` made it; kept absolute.
        settings: its server.toml.
    """

    def __init__(self, folder: Path, settings: CoordinatorSettings) -> None:
        self.folder, self.settings = folder.absolute(), settings
        self.study_file = self.folder / "study.toml"
        self.server_file = self.folder / "server.toml"
        self.sites_file = self.folder / "sites.json"
        self.keys = self.folder / "keys"
        self.tls = TlsFiles(self.folder / "tls")
        self.superlink = self.folder / "superlink"
        self.database = self.superlink / "database"
        self.flower_home = self.superlink / "flwr-home"
        self.secret = self.superlink / "secret"
        self.bundle = self.superlink / "bundle"
        self.log = self.folder / "log"
        self.superlink_log = self.log / "superlink.log"
        self.app_log = self.log / "app.log"
        self.run = self.folder / "run"
        self.state = self.folder / "state"
        self.lock_file = self.state / "server.lock"
        self.pid_file = self.state / "server.pid"

    def study(self) -> StudySettings:
        """The study as study.toml states it now.

        Raises:
            SettingsError: FECG-101..103.
        """
        return load_study(self.study_file)


def open_coordinator(folder: str | Path) -> Coordinator:
    """Read a coordinator's folder.

    Raises:
        SettingsError: FECG-125 if it is none; FECG-102, FECG-103 if its server.toml is wrong.
    """
    path = Path(folder) / "server.toml"
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            "FECG-125",
            "coordinator's folder",
            found=f"no readable server.toml ({in_words(error)})",
            expected="a folder that `fedecg-server init` made",
            fix="Go into that folder, or name it: fedecg-server COMMAND DIR.",
        ) from None
    except (ValueError, RecursionError) as error:
        raise SettingsError("FECG-102", path.name, found=f"{error!s:.200}", expected="TOML 1.0") from None
    return Coordinator(Path(folder).resolve(), parse_settings(CoordinatorSettings, tree, SHOWN, path.name))


def create_coordinator(folder: Path, name: str, port: int | None = None) -> Coordinator:
    """Make a coordinator's folder with a certificate authority of its own; whole or not at all.

    Everything is made in a folder beside the target, which is renamed last: a kill leaves no half-made coordinator.

    Args:
        folder: must not exist.
        name: public DNS name or IPv4 address.
        port: that sites reach; by default that of `CoordinatorSettings`.

    Raises:
        SettingsError: FECG-103 if name or port cannot be used.
        RunError: FECG-671 if the folder exists; FECG-601 if it cannot be written.
    """
    target = folder.absolute()
    given = {"name": name} | ({} if port is None else {"port": port})
    shown = "fedecg-server init --help shows them"
    settings = parse_settings(CoordinatorSettings, given, shown, "--name and --port" if port else "--name")
    if os.path.lexists(target):
        raise _exists()
    with _whole_folder(target) as part:
        server = _template("server.toml").replace(TEMPLATE_NAME, f'name = "{name}"')
        write_whole(part / "server.toml", server.replace(TEMPLATE_PORT, f"port = {settings.port}"))
        write_whole(part / "study.toml", _template("study.toml"))
        write_whole(part / "README.md", _template("README.md"))
        write_whole(part / "sites.json", '{"sites": {}, "removed": []}\n')
        for private in ("superlink", "state", "run"):
            (part / private).mkdir(mode=0o700)
        for shown in ("keys", "log"):
            (part / shown).mkdir()
        create_tls(TlsFiles(part / "tls"), name)
    return open_coordinator(target)


@contextmanager
def _whole_folder(target: Path) -> Iterator[Path]:
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir(mode=0o700)
        yield part
        part.rename(target)
    except OSError as error:
        if os.path.lexists(target):  # somebody else was faster
            raise _exists() from None
        raise RunError(
            "FECG-601",
            "coordinator's folder",
            found=in_words(error),
            expected="a place that can be written, with space left",
            fix="Choose another DIR, or free space on that disk.",
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)  # when all went well it has been renamed


def _template(name: str) -> str:
    return (files("fedecg_server") / "templates" / name).read_text(encoding="utf-8")


def _is_public_name(name: str) -> bool:
    try:
        return isinstance(ipaddress.ip_address(name), ipaddress.IPv4Address)
    except ValueError:
        labels = name.split(".")
    return len(name) <= 253 and all(map(LABEL.fullmatch, labels)) and not labels[-1].isdigit()


def _exists() -> RunError:
    return RunError(
        "FECG-671",
        "coordinator's folder",
        found="a file or folder of that name",
        expected="a name that is not taken",
        fix="Choose another DIR. A coordinator's keys are never written over.",
    )
