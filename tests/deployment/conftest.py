"""A consortium on loopback, shared by the deployment tests; nothing that a test starts outlives it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fleet_server import FleetServers
from guide import ROOT, Terminal
from loopback import AgentProcess, Authority, Driver, Processes, SuperLink, until, write_site

from fedecg.federation.bundle import bundle_files

MakeSite = Callable[..., AgentProcess]


@pytest.fixture(scope="session")
def authority() -> Authority:
    """The coordinator's CA."""
    return Authority.new()


@pytest.fixture(scope="module")
def superlink(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[SuperLink]:
    """A running SuperLink."""
    folder = tmp_path_factory.mktemp("coordinator")
    processes = Processes(folder)
    link = SuperLink(folder / "superlink", processes, authority, ("127.0.0.1", "localhost"))
    try:
        link.start()
        yield link
    finally:
        processes.end()
    until(lambda: not processes.left(), 5, f"left running: {processes.left()}")


@pytest.fixture(scope="module")
def driver(superlink: SuperLink) -> Driver:
    """A run of the installed app."""
    return Driver(superlink, bundle_files())


@pytest.fixture
def make_site(tmp_path: Path, superlink: SuperLink) -> Iterator[MakeSite]:
    """Sites with registered keys; their agents are ended with the test, and leave nothing behind."""
    processes = Processes(tmp_path)

    def make(name: str = "north", register: bool = True, policy: str = "", address: str = "") -> AgentProcess:
        folder = write_site(tmp_path / name, address or superlink.address, superlink.authority.pem, policy)
        if register:
            superlink.register(folder / "node.pub")
        return AgentProcess(folder, processes)

    try:
        yield make
    finally:
        processes.end()
    until(lambda: not processes.left(), 5, f"left running: {processes.left()}")


@pytest.fixture
def serve() -> Iterator[Callable[..., int]]:
    """Starts gRPC servers that are no SuperLinks; see `FleetServers.start`."""
    servers = FleetServers()
    yield servers.start
    servers.end()


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """A folder with the repository's configs, as docs/deploy.md begins; whatever is left running ends with the test."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shell = Terminal(tmp_path)
    yield shell
    shell.close()
