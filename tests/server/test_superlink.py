"""The SuperLink: what is checked before it starts, and what of it can be reached from where."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from coordinator_process import free_port, make_coordinator

from fedecg.errors import RunError
from fedecg_server import superlink
from fedecg_server.certificates import renew_server_certificate
from fedecg_server.child import EARLIER_LOGS, LOG_BYTES, keep_bounded
from fedecg_server.coordinator import Coordinator
from fedecg_server.superlink import SuperLink, check_database, check_ports, flower_environment, prepare_folder


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return make_coordinator(tmp_path / "coordinator")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SuperLink]:
    """One that runs for all tests that only look at it."""
    link = SuperLink(make_coordinator(tmp_path_factory.mktemp("link") / "coordinator"))
    link.start()
    yield link
    link.stop()
    assert not link.alive


@pytest.fixture(scope="module")
def database(running: SuperLink, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole database in one file, as the SuperLink made it."""
    copy = tmp_path_factory.mktemp("database") / "database"
    with sqlite3.connect(running.coordinator.database) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    return copy


def call(link: SuperLink, method: str) -> grpc.StatusCode:
    """Status of a gRPC call on the fleet port, without any key."""
    credentials = grpc.ssl_channel_credentials(link.coordinator.tls.ca.read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{link.coordinator.settings.port}", credentials) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(method)(b"", timeout=10)
        status = refused.value.code()
        assert isinstance(status, grpc.StatusCode)
        return status


def test_it_is_ready_and_its_secret_is_its_own(running: SuperLink) -> None:
    assert running.alive
    assert running.answers()
    assert running.coordinator.secret.stat().st_mode & 0o777 == 0o600
    assert len(running.coordinator.secret.read_bytes()) == 48


def test_the_control_port_listens_on_loopback_alone(running: SuperLink) -> None:
    settings = running.coordinator.settings
    listening = Path("/proc/net/tcp").read_text().splitlines()[1:]
    listening += Path("/proc/net/tcp6").read_text().splitlines()[1:]
    where: dict[int, set[str]] = {}
    for line in listening:
        _, local, _, state, *_ = line.split()
        if state == "0A":  # LISTEN
            host, _, port = local.rpartition(":")
            where.setdefault(int(port, 16), set()).add(host)
    assert where[settings.control_port] == {"0100007F"}  # 127.0.0.1
    assert where[settings.port] & {"00000000", "0" * 32}


@pytest.mark.parametrize(
    "method",
    [
        "/flwr.proto.Control/ListRuns",
        "/flwr.proto.Control/StartRun",
        "/flwr.proto.Control/RegisterNode",
        "/flwr.proto.Runtime/AcquireTask",
        "/flwr.proto.Runtime/PushMessages",
        "/grpc.health.v1.Health/Check",
        "/v1/control/list-runs",
    ],
)
def test_control_and_runtime_are_not_on_the_fleet_port(running: SuperLink, method: str) -> None:
    assert call(running, method) == grpc.StatusCode.UNIMPLEMENTED


def test_an_unsigned_node_is_not_let_in(running: SuperLink) -> None:
    assert call(running, "/flwr.proto.Fleet/ActivateNode") == grpc.StatusCode.UNAUTHENTICATED


def test_a_taken_port_is_named(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superlink, "PORTS_FREE_S", 0.1)
    for key, port in (
        ("port", coordinator.settings.port),
        ("control-port", coordinator.settings.control_port),
    ):
        with socket.socket() as other:
            other.bind(("127.0.0.1", port))
            other.listen()
            with pytest.raises(RunError, match=f"FECG-683 {key} {port} .*Address already in use.*ss -ltnp"):
                check_ports(coordinator)
    check_ports(coordinator)


def test_an_address_of_another_machine_is_refused(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(superlink, "PORTS_FREE_S", 0.1)
    elsewhere = coordinator.settings.model_copy(update={"address": "192.0.2.1", "port": free_port()})
    with pytest.raises(RunError, match=r"FECG-683 .*192\.0\.2\.1.*address of this machine"):
        check_ports(Coordinator(coordinator.folder, elsewhere))


def test_an_expired_certificate_is_refused_before_anything_starts(coordinator: Coordinator) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=5000)
    renew_server_certificate(coordinator.tls, coordinator.settings.name, now=long_ago)
    with pytest.raises(RunError, match="FECG-674 .*fedecg-server renew"):
        SuperLink(coordinator).start()
    assert not coordinator.database.exists()


def half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def overwrite(file: Path) -> None:
    content = bytearray(file.read_bytes())
    for place in range(4096, len(content) - 200, 4096):
        content[place : place + 200] = b"\xff" * 200
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (half, "malformed|contradict"),
        (lambda file: os.truncate(file, 0), "without the SuperLink's tables"),
        (overwrite, "malformed|contradict"),
        (lambda file: file.write_bytes(b"x" * 8192), "not a database"),
        (lambda file: file.unlink(), "no file"),
    ],
    ids=["half", "empty", "overwritten", "other", "gone"],
)
def test_a_damaged_database_is_refused_and_stays(
    coordinator: Coordinator, database: Path, damage: Callable[[Path], object], found: str
) -> None:
    prepare_folder(coordinator)
    shutil.copy(database, coordinator.database)
    (coordinator.superlink / "database.made").touch()
    check_database(coordinator)  # whole
    damage(coordinator.database)
    before = coordinator.database.read_bytes() if coordinator.database.exists() else None
    with pytest.raises(
        RunError, match=f"FECG-684 superlink/database: found .*({found}).*from a backup.*away"
    ):
        SuperLink(coordinator).start()
    assert before == (coordinator.database.read_bytes() if coordinator.database.exists() else None)


def test_a_database_that_was_never_complete_is_made_again(coordinator: Coordinator) -> None:
    prepare_folder(coordinator)
    coordinator.database.write_bytes(b"")
    check_database(coordinator)
    assert not coordinator.database.exists()


def test_another_flower_is_refused(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superlink, "FLOWER", "1.38")
    with pytest.raises(
        RunError, match=r"FECG-681 package flwr: found version 1\.39.*pip install 'flwr==1\.38"
    ) as end:
        SuperLink(coordinator).start()
    assert end.value.exit_status == 3


def test_a_superlink_that_ends_at_once_is_told(coordinator: Coordinator) -> None:
    link = SuperLink(coordinator)
    link.check()
    coordinator.secret.write_bytes(b"")  # Flower refuses an empty one
    with pytest.raises(RunError, match=r"FECG-682 SuperLink: found that it ended at once.*superlink\.log"):
        link.launch()
    assert not link.alive
    assert "secret" in coordinator.superlink_log.read_text()


@pytest.mark.parametrize("left", [b"", b"half"])
def test_a_secret_that_a_kill_left_half_written_is_made_anew_and_a_whole_one_stays(
    coordinator: Coordinator, left: bytes
) -> None:
    coordinator.superlink.mkdir(exist_ok=True)
    coordinator.secret.write_bytes(left)
    coordinator.secret.with_name(f".secret.{os.getpid()}.part").write_bytes(
        left
    )  # of a process of this number
    prepare_folder(coordinator)
    made = coordinator.secret.read_bytes()
    assert len(made) == 48
    assert coordinator.secret.stat().st_mode & 0o777 == 0o600
    prepare_folder(coordinator)
    assert coordinator.secret.read_bytes() == made


def test_settings_of_the_shell_do_not_reach_flower(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLWR_DATABASE", "/elsewhere")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.org:3128")
    environment = flower_environment(coordinator)
    flower = {key: value for key, value in environment.items() if key.startswith("FLWR_")}
    assert flower == {
        "FLWR_HOME": str(coordinator.flower_home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    assert "127.0.0.1" in environment["NO_PROXY"]
    assert environment["PATH"].startswith(str(Path(sys.executable).parent))


def test_a_log_never_takes_more_than_three_times_its_bound(tmp_path: Path) -> None:
    log = tmp_path / "superlink.log"
    with log.open("ab", buffering=0) as writer:  # as the SuperLink does: it keeps the file open
        for turn in range(5):
            writer.write(b"%d" % turn + b"x" * LOG_BYTES)
            keep_bounded(log)
            writer.write(b"new\n")
    assert log.read_bytes() == b"new\n"
    kept = sorted(tmp_path.iterdir())
    assert len(kept) == 1 + EARLIER_LOGS
    assert sum(file.stat().st_size for file in kept) < 3 * LOG_BYTES
    assert (tmp_path / "superlink.log.1").read_bytes().startswith(b"new\n4x")
