"""The list of sites and a running SuperLink: who may join, at once, and who may no more."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as forms
from site_keys import Key, new_key, public

from fedecg.errors import RunError, SettingsError
from fedecg.federation.identity import read_public_key
from fedecg_server.control import NodeRegistry
from fedecg_server.coordinator import Coordinator
from fedecg_server.sites import add_site, read_sites, register_all, remove_site


@contextmanager
def superlink(coordinator: Coordinator) -> Iterator[int]:
    """A real SuperLink on the coordinator's folder; its process id."""
    tls, settings = coordinator.tls, coordinator.settings
    command = [
        str(Path(sys.executable).parent / "flower-superlink"),
        *("--ssl-ca-certfile", tls.ca, "--ssl-certfile", tls.certificate, "--ssl-keyfile", tls.key),
        *("--enable-supernode-auth", "--isolation", "process", "--disable-runtime-dependency-installation"),
        *("--database", coordinator.database, "--fleet-api-address", settings.fleet_address),
        *("--host", "127.0.0.1", "--port", str(settings.control_port)),
    ]
    environment = os.environ | {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_HOME": str(coordinator.flower_home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    with coordinator.superlink_log.open("wb") as log:
        process = subprocess.Popen(
            list(map(str, command)), env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        until = time.monotonic() + 60
        while b"Uvicorn running on" not in coordinator.superlink_log.read_bytes():
            assert process.poll() is None, coordinator.superlink_log.read_text()
            assert time.monotonic() < until, "the SuperLink does not come up"
            time.sleep(0.1)
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)


def knock(coordinator: Coordinator, key: Key) -> tuple[str, int]:
    """Activate a node over the fleet port, signed with the key, as a site does: "OK" or gRPC's code, and its id."""
    import grpc
    from flwr.client.grpc_rere_client.node_auth_client_interceptor import NodeAuthClientInterceptor
    from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest
    from flwr.proto.fleet_pb2_grpc import FleetStub
    from flwr.supercore.grpc import create_channel
    from flwr.supercore.interceptors import RuntimeVersionClientInterceptor

    pem = key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    channel = create_channel(
        server_address=f"127.0.0.1:{coordinator.settings.port}",
        insecure=False,
        root_certificates=coordinator.tls.ca.read_bytes(),
        interceptors=[
            RuntimeVersionClientInterceptor(component_name="SuperNode"),
            NodeAuthClientInterceptor(key, key.public_key()),
        ],
    )
    try:
        stub = FleetStub(channel)
        request = ActivateNodeRequest(public_key=pem, heartbeat_interval=30)
        node = stub.ActivateNode(request, timeout=10).node_id
        stub.DeactivateNode(DeactivateNodeRequest(node_id=node), timeout=10)
        return "OK", int(node)
    except grpc.RpcError as error:
        return error.code().name, 0
    finally:
        channel.close()


def test_a_site_added_to_a_running_superlink_may_join_at_once_and_not_after_its_removal(
    coordinator: Coordinator, key_file: Callable[..., Path]
) -> None:
    city, coast, valley = new_key(), new_key(), new_key()
    add_site(coordinator, "city", key_file(public(city)))
    with superlink(coordinator):
        assert knock(coordinator, city)[0] != "OK"  # in the list, and not registered yet
        ids = register_all(coordinator)
        assert register_all(coordinator) == ids
        assert knock(coordinator, city) == ("OK", ids["city"])
        assert knock(coordinator, coast)[0] != "OK"

        change = add_site(coordinator, "coast", key_file(public(coast)))
        assert change.live
        assert knock(coordinator, coast) == ("OK", int(change.entry.node_id or 0))
        stored = json.loads(coordinator.sites_file.read_text())["sites"]
        assert stored["city"]["node-id"] == str(ids["city"])
        assert stored["coast"] == {
            "key": "keys/coast.pub",
            "fingerprint": read_public_key(coordinator.keys / "coast.pub").fingerprint,
            "node-id": change.entry.node_id,
        }

        assert remove_site(coordinator, "coast").live
        assert knock(coordinator, coast)[0] != "OK"
        assert knock(coordinator, city)[0] == "OK"
        with pytest.raises(SettingsError, match="FECG-129 key file: found a key that was removed"):
            add_site(coordinator, "coast", key_file(public(coast)))

        # Killed between registering and writing down: the id is found again by the key.
        lost = stored | {"city": stored["city"] | {"node-id": None}}
        lost.pop("coast")
        coordinator.sites_file.write_text(json.dumps({"sites": lost, "removed": []}))
        assert register_all(coordinator) == ids
        assert read_sites(coordinator).sites["city"].node_id == str(ids["city"])

        # An older list brought back: the SuperLink remembers the removal, and says so; the others are registered.
        coordinator.keys.joinpath("coast.pub").write_bytes(public(coast))
        add_site(coordinator, "valley", key_file(public(valley)))
        older = json.loads(coordinator.sites_file.read_text())
        older["sites"]["coast"] = stored["coast"]
        coordinator.sites_file.write_text(json.dumps(older))
        with pytest.raises(
            RunError, match=r"FECG-675 SuperLink: found 1 key\(s\) unregistered for good: coast"
        ):
            register_all(coordinator)
        assert knock(coordinator, valley)[0] == "OK"
        assert read_sites(coordinator).sites["coast"].node_id is None
        del older["sites"]["coast"]
        coordinator.sites_file.write_text(json.dumps(older))
        with pytest.raises(RunError, match="FECG-675 SuperLink: found a key that it unregistered for good"):
            add_site(coordinator, "coast", key_file(public(coast)))
        assert "coast" not in read_sites(coordinator).sites
        assert not (coordinator.keys / "coast.pub").exists()


@pytest.mark.slow
def test_sites_changed_while_the_superlink_stood_still_and_a_new_database_end_in_the_same_list(
    coordinator: Coordinator, key_file: Callable[..., Path]
) -> None:
    keys = {name: new_key() for name in ("city", "coast", "valley")}
    for name in ("city", "coast"):
        assert not add_site(coordinator, name, key_file(public(keys[name]))).live
    with superlink(coordinator):
        first = register_all(coordinator)
    assert not remove_site(coordinator, "coast").live
    add_site(coordinator, "valley", key_file(public(keys["valley"])))
    with superlink(coordinator):
        assert knock(coordinator, keys["coast"])[0] == "OK"  # until the list is compared
        second = register_all(coordinator)
        assert second["city"] == first["city"]
        assert knock(coordinator, keys["coast"])[0] != "OK"
        assert knock(coordinator, keys["valley"]) == ("OK", second["valley"])
    for file in coordinator.superlink.glob("database*"):
        file.unlink()
    with superlink(coordinator):
        third = register_all(coordinator)
        assert set(third) == {"city", "valley"}
        assert not set(third.values()) & set(second.values())
        assert {n: e.node_id for n, e in read_sites(coordinator).sites.items()} == {
            n: str(i) for n, i in third.items()
        }
        assert knock(coordinator, keys["city"]) == ("OK", third["city"])


@pytest.mark.slow
def test_a_superlink_that_stands_still_is_waited_for_no_longer_than_ten_seconds(
    coordinator: Coordinator, key_file: Callable[..., Path]
) -> None:
    with superlink(coordinator) as pid:
        os.kill(pid, signal.SIGSTOP)
        begin = time.monotonic()
        with pytest.raises(RunError, match="FECG-675 SuperLink's list of nodes: found TimeoutError"):
            add_site(coordinator, "city", key_file())
        assert 9 < time.monotonic() - begin < 25
        os.kill(pid, signal.SIGCONT)
        assert set(register_all(coordinator)) == {"city"}  # it had been written down


def test_a_proxy_in_the_environment_is_not_asked_for_the_way_to_this_machine(
    coordinator: Coordinator, key_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as proxy:
        proxy.bind(("127.0.0.1", 0))
        proxy.listen()
        proxy.setblocking(False)
        for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        assert not add_site(coordinator, "city", key_file()).live
        with pytest.raises(BlockingIOError):
            proxy.accept()


def test_another_program_on_the_control_port_gets_no_key(
    coordinator: Coordinator, key_file: Callable[..., Path]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", coordinator.settings.control_port))
        other.listen()
        registry = NodeRegistry(coordinator.settings.control_port, coordinator.tls.ca)
        heard: list[bytes] = []

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                heard.append(connection.recv(4096))
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(RunError, match="FECG-675 SuperLink's list of nodes: found SSLError"), registry:
            pass
        thread.join(5)
    assert heard[0][:1] == b"\x16"  # a TLS greeting and nothing more


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (500, b"", "HTTP status 500, Flower's code 0"),
        (403, b'{"code": 7}', "HTTP status 403, Flower's code 7"),
        (200, b"\xff\xff", "an answer that is no message of Flower's"),
        (200, b"", "an answer without node id"),
    ],
)
def test_answers_that_flower_would_not_give_are_told_and_the_site_stays_in_the_list(
    coordinator: Coordinator, key_file: Callable[..., Path], status: int, body: bytes, words: str
) -> None:
    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(coordinator.tls.certificate, coordinator.tls.key)
    with HTTPServer(("127.0.0.1", coordinator.settings.control_port), Answer) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with pytest.raises(RunError, match=f"FECG-675 SuperLink's list of nodes: found {words}"):
            add_site(coordinator, "city", key_file())
        server.shutdown()
        thread.join()
    assert read_sites(coordinator).sites["city"].node_id is None  # registered at the next start


def test_registering_needs_a_superlink(coordinator: Coordinator) -> None:
    with pytest.raises(RunError, match="FECG-675 SuperLink: found nobody who listens on control-port"):
        register_all(coordinator)
