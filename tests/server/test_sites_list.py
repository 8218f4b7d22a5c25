"""Who may take part: key files that somebody sent, the list on disk, and a real SuperLink that is told of it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from fedecg.errors import FedecgError, RunError, SettingsError
from fedecg.federation.identity import read_public_key
from fedecg_server.control import NodeRegistry
from fedecg_server.coordinator import Coordinator, create_coordinator, open_coordinator
from fedecg_server.sites import add_site, read_sites, register_all, remove_site

LINE = (forms.Encoding.OpenSSH, forms.PublicFormat.OpenSSH)
Key = ec.EllipticCurvePrivateKey


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP384R1())


def public(key: Key) -> bytes:
    return key.public_key().public_bytes(*LINE)


def private(key: Key) -> bytes:
    return key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.OpenSSH, forms.NoEncryption())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sites") / "coordinator"
    create_coordinator(folder, "127.0.0.1", free_port())
    return folder


@pytest.fixture
def coordinator(made: Path, tmp_path: Path) -> Coordinator:
    """A folder of its own, with free ports."""
    shutil.copytree(made, tmp_path / "coordinator")
    file = tmp_path / "coordinator" / "server.toml"
    text = file.read_text().replace("control-port = 9093", f"control-port = {free_port()}")
    file.write_text(text)
    return open_coordinator(file.parent)


@pytest.fixture
def key_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a site's node.pub; without content, of a new key."""

    def write(content: bytes | None = None, name: str = "node.pub") -> Path:
        path = tmp_path / name
        path.write_bytes(public(new_key()) + b" somebody@somewhere\n" if content is None else content)
        return path

    return write


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


def test_a_site_is_written_down_with_its_key_and_the_fingerprint_that_ssh_keygen_prints(
    coordinator: Coordinator, key_file: Callable[..., Path]
) -> None:
    key = new_key()
    change = add_site(coordinator, "city", key_file(public(key) + b" doctor@pc-17.hospital\n"))
    kept = (coordinator.keys / "city.pub").read_text()
    assert kept == f"{public(key).decode()} city\n"  # the comment stayed behind
    assert read_sites(coordinator).sites == {"city": change.entry}
    if shutil.which("ssh-keygen"):
        words = ["ssh-keygen", "-l", "-f", str(coordinator.keys / "city.pub")]
        assert change.entry.fingerprint in subprocess.run(words, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a/b",
        "../b",
        "..",
        ".hidden",
        "-x",
        "a b",
        "a\n",
        "a\0b",
        "x" * 65,
        "ö",
        "a\\b",
        "~",
        "$(id)",
        "a;b",
    ],
)
def test_names_that_could_lead_elsewhere_are_refused(
    coordinator: Coordinator, key_file: Callable[..., Path], name: str
) -> None:
    with pytest.raises(SettingsError, match="FECG-126 name of the site: found a name that cannot be used"):
        add_site(coordinator, name, key_file())
    assert list(coordinator.keys.iterdir()) == []
    assert read_sites(coordinator).sites == {}


def test_a_name_or_key_that_is_taken_is_refused(
    coordinator: Coordinator, key_file: Callable[..., Path]
) -> None:
    city = key_file()
    add_site(coordinator, "city", city)
    for name in ("city", "City"):
        with pytest.raises(SettingsError, match="FECG-126 name of the site: found a name that is taken"):
            add_site(coordinator, name, key_file(name="other.pub"))
    with pytest.raises(SettingsError, match="FECG-129 key file: found the key of city"):
        add_site(coordinator, "coast", city)
    assert [file.name for file in coordinator.keys.iterdir()] == ["city.pub"]


def test_a_private_key_is_refused_with_the_advice_to_make_a_new_one_and_never_copied(
    coordinator: Coordinator, key_file: Callable[..., Path]
) -> None:
    key = new_key()
    pkcs8 = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    legacy = key.private_bytes(
        forms.Encoding.PEM, forms.PrivateFormat.TraditionalOpenSSL, forms.NoEncryption()
    )
    for content in (private(key), pkcs8, legacy, public(key) + b"\n" + private(key)):
        with pytest.raises(
            SettingsError, match="FECG-128 key file: found a PRIVATE key.*makes a new one"
        ) as refusal:
            add_site(coordinator, "city", key_file(content))
        assert content.splitlines()[1].decode() not in str(refusal.value)
    everything = b"".join(file.read_bytes() for file in coordinator.folder.rglob("*") if file.is_file())
    for content in (private(key), pkcs8, legacy):
        assert content.splitlines()[1] not in everything
    assert list(coordinator.keys.iterdir()) == []


def hostile_keys() -> dict[str, tuple[bytes, str]]:
    line = public(new_key())
    kind, encoded = line.split()
    p256 = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(*LINE)
    other = [ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)]
    pem = new_key().public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    return {
        "empty": (b"", "0 lines"),
        "a word": (b"hello\n", "a line of another kind"),
        "no key": (kind + b"\n", "a line of another kind"),
        "trailing junk": (line + b"AAAA", "a damaged key|not written as OpenSSH"),
        "cut short": (line[:-20], "a damaged key"),
        "second key": (line + b"\n" + public(new_key()), "2 lines"),
        "options": (b'command="rm -rf /" ' + line, "a line of another kind"),
        "other base64": (kind + b" " + encoded.replace(b"A", b"*", 1), "a damaged key"),
        "padded junk": (kind + b" " + encoded + b"====", "a damaged key|not written as OpenSSH"),
        "another curve": (p256, "a line of another kind"),
        "curve under the wrong name": (kind + b" " + p256.split()[1], "a damaged key|a key of another kind"),
        "ed25519": (other[0].public_key().public_bytes(*LINE), "a line of another kind"),
        "rsa": (other[1].public_key().public_bytes(*LINE), "a line of another kind"),
        "pem": (pem, "lines"),
        "zeros": (b"\0" * 1000, "a line of another kind"),
        "not text": (bytes(range(256)), "lines|another kind"),
        "10 MB": (line + b" " * 10_000_000, "a file of more than 4096 bytes"),
    }


@pytest.mark.parametrize("case", list(hostile_keys()))
def test_key_files_that_are_none_are_refused_and_nothing_is_kept(
    coordinator: Coordinator, key_file: Callable[..., Path], case: str
) -> None:
    content, words = hostile_keys()[case]
    with pytest.raises(SettingsError, match=rf"FECG-127 key file: found .*({words}).*expected one line"):
        add_site(coordinator, "city", key_file(content))
    assert list(coordinator.keys.iterdir()) == []
    assert read_sites(coordinator).sites == {}


def test_links_pipes_folders_and_absent_files_are_no_keys(
    coordinator: Coordinator, key_file: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "link.pub").symlink_to(key_file())
    os.mkfifo(tmp_path / "pipe.pub")
    (tmp_path / "folder.pub").mkdir()
    for name, words in {
        "link.pub": "a symbolic link",
        "pipe.pub": "no plain file",
        "folder.pub": "no plain file|IsADirectoryError",
        "absent.pub": "FileNotFoundError",
    }.items():
        with pytest.raises(SettingsError, match=f"FECG-127 key file: found .*({words})"):
            add_site(coordinator, "city", tmp_path / name)


def test_a_site_that_is_not_in_the_list_cannot_be_removed(coordinator: Coordinator) -> None:
    with pytest.raises(RunError, match="FECG-676 site: found none of that name among 0"):
        remove_site(coordinator, "city")


def test_a_removed_site_leaves_only_the_fingerprint_of_its_key(
    coordinator: Coordinator, key_file: Callable[..., Path]
) -> None:
    entry = add_site(coordinator, "city", key_file()).entry
    remove_site(coordinator, "city")
    assert json.loads(coordinator.sites_file.read_text()) == {"sites": {}, "removed": [entry.fingerprint]}
    assert list(coordinator.keys.iterdir()) == []
    add_site(coordinator, "city", key_file())  # a new key under the old name


def test_a_key_changed_by_hand_is_noticed(coordinator: Coordinator, key_file: Callable[..., Path]) -> None:
    add_site(coordinator, "city", key_file())
    (coordinator.keys / "city.pub").write_bytes(public(new_key()))
    with pytest.raises(
        SettingsError, match="FECG-129 key of city: found another fingerprint than in sites.json"
    ):
        register_all(coordinator)
    remove_site(coordinator, "city")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"sites": []}',
        '{"sites": {"a/b": {"key": "keys/a.pub", "fingerprint": "SHA256:' + "A" * 43 + '"}}}',
        '{"sites": {"a": {"key": "keys/a.pub", "fingerprint": "none"}}}',
        '{"sites": {"a": {"key": "../../etc/passwd", "fingerprint": "SHA256:' + "A" * 43 + '"}}}',
        "[" * 100_000,
    ],
)
def test_a_damaged_list_is_refused_and_not_written_over(
    coordinator: Coordinator, key_file: Callable[..., Path], text: str
) -> None:
    coordinator.sites_file.write_text(text)
    for step in (lambda: read_sites(coordinator), lambda: add_site(coordinator, "city", key_file())):
        with pytest.raises(RunError, match="FECG-672 sites.json: found .*Restore it from a backup"):
            step()
    assert coordinator.sites_file.read_text() == text


def test_a_list_that_another_command_is_changing_is_waited_for_and_not_for_ever(
    coordinator: Coordinator, key_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedecg_server.sites.LOCK_S", 0.2)
    with (coordinator.state / "sites.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="FECG-678 list of sites: found another command"):
            add_site(coordinator, "city", key_file())
    add_site(coordinator, "city", key_file())


def test_a_full_disk_is_a_coded_error_and_leaves_the_list_as_it_was(
    coordinator: Coordinator, key_file: Callable[..., Path]
) -> None:
    add_site(coordinator, "city", key_file())
    before, key = coordinator.sites_file.read_text(), key_file(name="coast.pub")
    resource_limited = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from fedecg_server.coordinator import open_coordinator; from fedecg_server.sites import add_site\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "add_site(open_coordinator(sys.argv[1]), 'coast', Path(sys.argv[2]))"
    )
    words = [sys.executable, "-c", resource_limited, str(coordinator.folder), str(key)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1
    assert "FECG-601 file coast.pub: found file too large" in done.stderr
    assert coordinator.sites_file.read_text() == before
    assert [file.name for file in coordinator.keys.iterdir()] == ["city.pub"]


def test_adding_many_sites_at_once_loses_none(
    coordinator: Coordinator, key_file: Callable[..., Path]
) -> None:
    files = {f"site-{number}": key_file(name=f"{number}.pub") for number in range(8)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda item: add_site(coordinator, *item), files.items()))
    assert set(read_sites(coordinator).sites) == set(files)


def test_every_refusal_leaves_a_list_that_can_be_read(coordinator: Coordinator, tmp_path: Path) -> None:
    with pytest.raises(FedecgError):
        add_site(coordinator, "city", tmp_path / "absent.pub")
    assert read_sites(coordinator).sites == {}
