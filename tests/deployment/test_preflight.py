"""Preflight and doctor: each fault is made for real and met by name; what may leave tells nothing of anybody."""

from __future__ import annotations

import datetime
import json
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback import AgentProcess, Authority, Processes, SuperLink, free_port, until

from fedecg.cohort import Cohort, write_cohort
from fedecg.config import SignalSettings, StudySettings, parse_settings
from fedecg.errors import CODES
from fedecg.federation.identity import certificate_fingerprint, public_key_of, read_public_key
from fedecg.federation.lock import StudyLock, settings_document
from fedecg.fingerprint import code_fingerprint
from fedecg.signals import Recording, build_store
from fedecg_client import probe as probe_module
from fedecg_client.cli import main
from fedecg_client.keys import load_key, make_key
from fedecg_client.pinned import pin, propose
from fedecg_client.preflight import LINE, line_checks, run_preflight
from fedecg_client.preflight import line as line_module
from fedecg_client.preflight.check import Check, exit_status_of, failed, passed
from fedecg_client.preflight.line import proxy_for
from fedecg_client.preflight.share import LEAST_EVENTS, LEAST_PATIENTS, shared_report

Captured = pytest.CaptureFixture[str]
MakeFolder = Callable[..., Path]
SECRET = "4711-SECRET"  # stands in a path, in a cell and in a name; must be found nowhere
RECORDS = {"train": 60, "validation": 24, "test": 30}
PROXIES = ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def recording(seed: int, size_mv: float = 1.0) -> Recording:
    """5 s of noise in the limb leads that obeys Einthoven's law."""
    rng = np.random.default_rng(seed)
    one, two = 0.3 * size_mv * rng.normal(size=(2, 500))
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    chest = 0.3 * size_mv * rng.normal(size=(6, 500))
    return Recording(np.vstack([*limb, chest]).astype(np.float32), 100.0)


def cohort(**columns: Any) -> Cohort:
    number = sum(RECORDS.values())
    rows = np.arange(number)
    whole: dict[str, Any] = {
        "record": rows,
        "patient": 770_077_000 + rows,
        "part": np.repeat(list(RECORDS), list(RECORDS.values())),
        "event": rows % 3 == 0,
        "follow_up_days": 300.0 + 31.0 * rows,
        "entry_days": np.zeros(number),
        "died": np.zeros(number, dtype=bool),
        "age_years": 40.0 + rows % 50,
        "female": (rows % 2).astype(float),
        "codes": ({"NORM": 100.0},) * number,
    }
    return Cohort(**{**whole, **columns})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table and a store that belong together, in a folder whose name must not leave."""
    folder = tmp_path_factory.mktemp(SECRET)
    records = [recording(seed) for seed in range(sum(RECORDS.values()))]
    store = build_store(folder, "k" * 64, SignalSettings(samples=256), records, powerline="none")
    store.folder.rename(folder / "store")
    write_cohort(cohort(), folder / "cohort.csv")
    return folder


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory, superlink: SuperLink) -> tuple[int, Path]:
    """A key on the list: its node id, and where it lies."""
    key = tmp_path_factory.mktemp("member") / "node.key"
    make_key(key)
    return superlink.register(key.with_suffix(".pub")), key


@pytest.fixture
def make_folder(tmp_path: Path, data: Path, authority: Authority) -> MakeFolder:
    """A site's folder, made by the command, with data of its own; with a key that is on the list, if one is given."""

    def make(address: str, name: str = "north", key: Path | None = None) -> Path:
        given = tmp_path / "given.crt"
        given.write_bytes(authority.pem)
        shutil.copytree(data, tmp_path / SECRET)
        line = ["init", str(tmp_path / name), "--name", name, "--server", address, "--ca", str(given)]
        line += [
            "--cohort",
            str(tmp_path / SECRET / "cohort.csv"),
            "--store",
            str(tmp_path / SECRET / "store"),
        ]
        assert main([*line, "--study", "hf"]) == 0
        if key:
            shutil.copy(key, tmp_path / name / "node.key")
            shutil.copy(key.with_suffix(".pub"), tmp_path / name / "node.pub")
        return tmp_path / name

    return make


@pytest.fixture
def serve() -> Iterator[Callable[..., int]]:
    """A gRPC server whose every method does the same; with a certificate or without; its port."""
    servers = []

    class Fleet(grpc.GenericRpcHandler):
        def __init__(self, call: Any) -> None:
            self.call = call

        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
            del details  # whatever is called
            return grpc.unary_unary_rpc_method_handler(self.call) if self.call else None

    def start(certificate: tuple[bytes, bytes] | None, call: Any = None) -> int:
        server = grpc.server(ThreadPoolExecutor(2), handlers=[Fleet(call)])
        if certificate:
            chain, key = certificate
            port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(((key, chain),)))
        else:
            port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return int(port)

    yield start
    for server in servers:
        server.stop(0).wait()


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def line_of(folder: Path) -> dict[str, Check]:
    """The checks of the connection alone."""
    from fedecg_client.folder import open_site

    return by_name(line_checks(open_site(folder)))


def codes(checks: dict[str, Check]) -> dict[str, str | None]:
    return {name: check.code for name, check in checks.items() if check.ok is False}


# Against a SuperLink


def test_where_all_is_well_every_check_holds_and_nothing_changes_at_the_coordinator(
    make_folder: MakeFolder, superlink: SuperLink, member: tuple[int, Path], capsys: Captured
) -> None:
    node, key = member
    folder = make_folder(superlink.address, key=key)
    capsys.readouterr()
    assert main(["preflight", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"]
    assert [check["ok"] for check in document["checks"]] == [True] * 23
    assert {"name", "ok", "code", "fix"} <= set(document["checks"][0])
    assert superlink.status_of(node) == "registered"  # never online: no message could have been lost
    kept = json.loads((folder / "state/preflight.json").read_text())
    assert kept == document
    parts = {check["name"]: check for check in kept["checks"]}["cohort"]["details"]["parts"]
    assert {part: (counts["patients"], counts["events"]) for part, counts in parts.items()} == {
        "train": (60, 20), "validation": (24, 8), "test": (30, 10),
    }  # fmt: skip
    assert parts["train"]["follow-up-days"]["0.5"] == float(np.median(300.0 + 31.0 * np.arange(60)))


@pytest.mark.slow
def test_an_agent_that_runs_is_not_disturbed(
    make_folder: MakeFolder, superlink: SuperLink, tmp_path: Path
) -> None:
    folder = make_folder(superlink.address)
    node = superlink.register(folder / "node.pub")
    processes = Processes(tmp_path)
    try:
        agent = AgentProcess(folder, processes).start()
        assert agent.online() == node
        checks = by_name(run_preflight(folder))
        assert checks["key-registered"].ok
        assert f"process {agent.process and agent.process.pid}" in checks["key-registered"].found
        assert main(["doctor", str(folder)]) == 0
        assert superlink.status_of(node) == "online"
        assert main(["stop", str(folder)]) == 0
        assert agent.wait() == 0
        assert [event["event"] for event in agent.events].count("online") == 1
    finally:
        processes.end()


def test_a_key_that_is_not_on_the_list_is_told_and_renewed_only_once_it_is(
    make_folder: MakeFolder, superlink: SuperLink, capsys: Captured
) -> None:
    folder = make_folder(superlink.address)
    capsys.readouterr()
    assert main(["preflight", str(folder)]) == 1
    told = capsys.readouterr().out
    assert "FECG-648 a key that is not on the coordinator's list" in told
    assert "fedecg-server site add NAME --key node.pub" in told
    assert "22 hold, 1 to mend, 0 not tried" in told
    assert main(["renew-key", str(folder)]) == 0
    old = (folder / "node.key").read_bytes()
    assert main(["renew-key", str(folder), "--use"]) == 1
    assert "FECG-648 new key" in capsys.readouterr().err
    assert (folder / "node.key").read_bytes() == old
    superlink.register(folder / "node.new.pub")
    new = read_public_key(folder / "node.new.pub")
    assert main(["renew-key", str(folder), "--use"]) == 0
    assert public_key_of(load_key(folder / "node.key")).text == new.text
    assert read_public_key(folder / "node.pub").text == new.text
    assert sorted(file.name for file in folder.glob("node*")) == ["node.key", "node.pub"]
    assert line_of(folder)["key-registered"].ok


@pytest.mark.parametrize(
    ("ahead_s", "found"),
    [
        (-400, "a clock 5 to 10 min behind"),
        (200, "a clock 0 to 5 min ahead of"),
        (1400, "a clock 20 to 25 min ahead of"),
        (90_000, "a clock more than 60 min from"),
        (4, None),
        (-60, None),
    ],
)
def test_this_machines_clock_is_compared_with_the_coordinators(
    make_folder: MakeFolder,
    superlink: SuperLink,
    member: tuple[int, Path],
    monkeypatch: pytest.MonkeyPatch,
    ahead_s: int,
    found: str | None,
) -> None:
    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return datetime.datetime.now(tz) + datetime.timedelta(seconds=ahead_s)

    folder = make_folder(superlink.address, key=member[1])
    monkeypatch.setattr(probe_module, "datetime", Clock)
    checks = line_of(folder)
    assert checks["clock"].ok is (found is None)
    assert found is None or checks["clock"].found.startswith(found)
    assert checks["clock"].code == (None if found is None else "FECG-652")
    assert checks["key-registered"].ok is (True if found is None else None)
    assert ("being refused as ahead" in checks["clock"].found) == (ahead_s == 4)


def test_the_control_port_is_told_from_the_fleet_port(make_folder: MakeFolder, superlink: SuperLink) -> None:
    checks = line_of(make_folder(f"127.0.0.1:{superlink.control_port}"))
    assert codes(checks) == {"tls": "FECG-647"}
    assert checks["tls"].found == "a web server: the coordinator's control port?"


# Faults of the line


def test_a_closed_port_is_told_and_the_rest_is_skipped(make_folder: MakeFolder) -> None:
    checks = line_of(make_folder(f"127.0.0.1:{free_port()}"))
    assert codes(checks) == {"tcp": "FECG-649"}
    assert "nobody who listens at the coordinator" in checks["tcp"].found
    assert [name for name in LINE if checks[name].ok is None] == list(LINE[3:])


def test_a_certificate_of_another_authority_is_told_with_who_signed_it(
    make_folder: MakeFolder, serve: Callable[..., int]
) -> None:
    other = Authority.new("a firewall that opens TLS")
    checks = line_of(make_folder(f"127.0.0.1:{serve(other.sign('127.0.0.1'))}"))
    assert codes(checks) == {"tls-chain": "FECG-644"}
    assert "a firewall that opens TLS" in checks["tls-chain"].details["issuer"]
    assert checks["certificate"].ok  # its dates are right all the same
    assert checks["fleet-port"].ok is None


def test_a_certificate_of_another_name_is_told_with_its_names(
    make_folder: MakeFolder, serve: Callable[..., int], authority: Authority
) -> None:
    checks = line_of(make_folder(f"127.0.0.1:{serve(authority.sign('ecg.example.org', '192.0.2.1'))}"))
    assert codes(checks) == {"tls-name": "FECG-645"}
    assert checks["tls-name"].found == "one made out to ecg.example.org, 192.0.2.1, not to 127.0.0.1"


@pytest.mark.parametrize(("days", "found"), [((-9, -1), "has expired"), ((1, 9), "is not valid yet")])
def test_a_certificate_that_is_not_in_force_is_told_from_a_wrong_one(
    make_folder: MakeFolder,
    serve: Callable[..., int],
    authority: Authority,
    days: tuple[int, int],
    found: str,
) -> None:
    certificate = authority.sign("127.0.0.1", from_day=days[0], to_day=days[1])
    checks = line_of(make_folder(f"127.0.0.1:{serve(certificate)}"))
    assert codes(checks) == {"certificate": "FECG-646"}
    assert checks["certificate"].found == f"a certificate that {found}"
    assert checks["tls-chain"].ok
    assert checks["tls-name"].ok


def test_several_faults_are_told_at_once(
    make_folder: MakeFolder, serve: Callable[..., int], authority: Authority
) -> None:
    certificate = authority.sign("ecg.example.org", from_day=-9, to_day=-1)
    checks = line_of(make_folder(f"127.0.0.1:{serve(certificate)}"))
    assert codes(checks) == {"tls-name": "FECG-645", "certificate": "FECG-646"}


def test_a_plain_text_server_is_told(make_folder: MakeFolder, serve: Callable[..., int]) -> None:
    checks = line_of(make_folder(f"127.0.0.1:{serve(None)}"))
    assert codes(checks) == {"tls": "FECG-647"}
    assert checks["tls"].found == "a server that speaks plain text"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "a server that speaks plain text"),
        (b"", "no TLS (UNEXPECTED_EOF_WHILE_READING)"),
        (None, "a server that ends the greeting (no answer in time)"),
    ],
)
def test_what_is_no_tls_is_told(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch, answer: bytes | None, found: str
) -> None:
    monkeypatch.setattr(line_module, "TCP_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_answer, args=(listener, answer), daemon=True)
        thread.start()
        checks = line_of(make_folder(f"127.0.0.1:{listener.getsockname()[1]}"))
    assert codes(checks) == {"tls": "FECG-647"}
    assert checks["tls"].found == found
    thread.join(5)


def _answer(listener: socket.socket, answer: bytes | None) -> None:
    """Twice: for the check of TCP, and for that of TLS."""
    for _ in range(2):
        line, _ = listener.accept()
        with line, suppress(OSError):
            line.settimeout(3)
            while line.recv(4096) and answer is None:  # silent until the other side gives up
                pass
            line.sendall(answer or b"")


def test_a_grpc_server_of_another_kind_is_told(
    make_folder: MakeFolder, serve: Callable[..., int], authority: Authority
) -> None:
    checks = line_of(make_folder(f"127.0.0.1:{serve(authority.sign('127.0.0.1'))}"))
    assert codes(checks) == {"fleet-port": "FECG-647"}
    assert "does not know the fleet's calls" in checks["fleet-port"].found


def test_a_superlink_that_lets_anybody_in_is_told(
    make_folder: MakeFolder, serve: Callable[..., int], authority: Authority
) -> None:
    port = serve(authority.sign("127.0.0.1"), lambda *_: b"")
    checks = line_of(make_folder(f"127.0.0.1:{port}"))
    assert codes(checks) == {"fleet-port": "FECG-647"}
    assert checks["fleet-port"].found == "a SuperLink that asks no site for a key"


def test_a_name_that_cannot_be_looked_up_is_told(make_folder: MakeFolder) -> None:
    checks = line_of(make_folder("no-such-host.invalid:9092"))
    assert codes(checks) == {"dns": "FECG-653"}
    assert checks["tcp"].ok is None


def test_a_look_up_without_end_is_given_up(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Event()
    monkeypatch.setattr(line_module, "DNS_S", 0.1)
    monkeypatch.setattr(line_module.socket, "getaddrinfo", lambda *_, **__: [held.wait(5)][1:])
    checks = line_of(make_folder("ecg.example.org:9092"))
    held.set()
    assert "no answer within 0 s" in checks["dns"].found


# Proxies

PASSWORD = "pa55-SECRET"


@pytest.fixture
def proxy() -> Iterator[tuple[int, list[bytes]]]:
    """A proxy that does what CONNECT asks for, if it says who asks; its port, and the requests."""
    seen: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def pipe(source: socket.socket, target: socket.socket) -> None:
        try:
            while block := source.recv(65536):
                target.sendall(block)
        except OSError:
            pass
        for end in (source, target):
            end.close()

    def serve_one(near: socket.socket) -> None:
        request = near.recv(65536)
        seen.append(request)
        host, port = request.split()[1].split(b":")
        if b"Proxy-Authorization" not in request:
            near.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            near.close()
            return
        far = socket.create_connection((host.decode(), int(port)))
        near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        threading.Thread(target=pipe, args=(near, far), daemon=True).start()
        pipe(far, near)

    def serve_all() -> None:
        try:
            while True:
                near, _ = listener.accept()
                threading.Thread(target=serve_one, args=(near,), daemon=True).start()
        except OSError:
            return

    threading.Thread(target=serve_all, daemon=True).start()
    yield listener.getsockname()[1], seen
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_a_proxy_is_gone_through_and_named_without_its_password(
    make_folder: MakeFolder, superlink: SuperLink, member: tuple[int, Path], proxy: tuple[int, list[bytes]],
    monkeypatch: pytest.MonkeyPatch, capsys: Captured, tmp_path: Path,
) -> None:  # fmt: skip
    port, seen = proxy
    folder = make_folder(superlink.address, key=member[1])
    monkeypatch.setenv("https_proxy", f"http://clerk:{PASSWORD}@127.0.0.1:{port}")
    assert main(["preflight", str(folder), "--share", str(tmp_path / "out.json")]) == 0
    told = "".join(capsys.readouterr())
    assert "https_proxy: the only connection goes to that proxy" in told
    assert len(seen) >= 5  # TCP, three greetings, and gRPC's own
    assert {request.split()[1].decode() for request in seen} == {superlink.address}
    for text in (told, (folder / "state/preflight.json").read_text(), (tmp_path / "out.json").read_text()):
        assert PASSWORD not in text
        assert "clerk" not in text


def test_a_proxy_that_refuses_or_is_not_there_is_told(
    make_folder: MakeFolder,
    superlink: SuperLink,
    proxy: tuple[int, list[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = make_folder(superlink.address)
    monkeypatch.setenv("grpc_proxy", f"http://127.0.0.1:{proxy[0]}")
    checks = line_of(folder)
    assert codes(checks) == {"tcp": "FECG-649"}
    assert "a proxy that does not connect to the coordinator (407)" in checks["tcp"].found
    monkeypatch.setenv("grpc_proxy", f"http://127.0.0.1:{free_port()}")
    assert "nobody who listens at the proxy" in line_of(folder)["tcp"].found
    monkeypatch.setenv("grpc_proxy", "http://no-such-proxy.invalid:3128")
    checks = line_of(folder)
    assert (checks["dns"].code, checks["tcp"].ok) == ("FECG-653", None)
    assert "the proxy's name" in checks["dns"].found


@pytest.mark.parametrize(
    ("exempt", "taken"),
    [
        ("127.0.0.1", False),
        ("example.org,127.0.0.0/8", False),
        (" .0.0.1 ", False),
        ("10.0.0.0/8,example.org", True),
    ],
)
def test_the_exemptions_are_those_of_grpc(
    make_folder: MakeFolder, superlink: SuperLink, monkeypatch: pytest.MonkeyPatch, exempt: str, taken: bool
) -> None:
    """gRPC itself is asked: with a dead proxy it reaches the port only where the host is exempt."""
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("no_proxy", exempt)
    assert (proxy_for("127.0.0.1") is not None) == taken
    probe = probe_module.Probe(superlink.address, superlink.authority.pem)
    try:
        if taken:
            with pytest.raises(probe_module.sorted_fault.__globals__["LinkError"], match="FECG-649"):
                probe.ask(None)
        else:
            assert probe.ask(None) == "unsigned"
    finally:
        probe.close()
    assert line_of(make_folder(superlink.address))["tcp"].ok is not taken


# This machine


def test_a_disk_that_is_full_is_told_and_everything_else_all_the_same(make_folder: MakeFolder) -> None:
    folder = make_folder("127.0.0.1:1")
    done = subprocess.run(
        [sys.executable, "-m", "fedecg_client.cli", "preflight", str(folder), "--json"],
        capture_output=True, text=True, preexec_fn=_full_disk,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["folder"]["code"] == "FECG-601"
    assert checks["folder"]["found"] == "state/ that cannot be written (file too large)"
    assert checks["cohort"]["ok"]
    assert "the report cannot be kept" in done.stderr
    assert list((folder / "state").iterdir()) == []


def _full_disk() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@pytest.mark.parametrize(
    "content", ["name = ", "name = 3", 'name = "a"\nstore = "s"\ncohort = "c"\nsecret = 1\n']
)
def test_settings_that_cannot_be_used_leave_the_rest_untried(make_folder: MakeFolder, content: str) -> None:
    folder = make_folder("127.0.0.1:1")
    (folder / "site.toml").write_text(content)
    checks = run_preflight(folder)
    assert codes(by_name(checks)) in ({"settings": "FECG-102"}, {"settings": "FECG-103"})
    assert exit_status_of(checks) == 3
    assert by_name(checks)["versions"].ok
    assert {check.name for check in checks if check.ok is None} >= {"key", "tcp", "cohort", "data"}


def test_a_port_that_cannot_be_is_told(make_folder: MakeFolder) -> None:
    folder = make_folder("127.0.0.1:1")
    text = (folder / "site.toml").read_text()
    (folder / "site.toml").write_text(text.replace("127.0.0.1:1", "127.0.0.1:99999"))
    checks = by_name(run_preflight(folder))
    assert checks["proxy"].code == "FECG-124"
    assert checks["tcp"].ok is None
    (folder / "site.toml").write_text(re.sub(r"\[server\].*?(?=\[policy\])", "", text, flags=re.DOTALL))
    assert all(check.ok is None for name, check in by_name(run_preflight(folder)).items() if name in LINE)


def test_files_from_the_future_betray_a_clock_that_went_back(make_folder: MakeFolder) -> None:
    folder = make_folder("127.0.0.1:1")
    os.utime(folder / "site.toml", (2e9, 2e9))
    assert codes(by_name(run_preflight(folder)))["clock-here"] == "FECG-652"


def test_too_little_room_is_told(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedecg_client.preflight import local

    monkeypatch.setattr(local, "LEAST_DISK_BYTES", 1 << 60)
    monkeypatch.setattr(local, "LEAST_MEMORY_BYTES", 1 << 60)
    checks = by_name(run_preflight(make_folder("127.0.0.1:1")))
    assert (checks["disk"].code, checks["memory"].code) == ("FECG-654", "FECG-655")
    assert "GiB free; expected at least" in checks["disk"].found


def test_the_status_is_that_of_the_worst_kind() -> None:
    data, policy = failed("a", "data", "FECG-227", "", ""), failed("b", "policy", "FECG-656", "", "")
    line, good = failed("c", "connection", "FECG-649", "", ""), passed("d", "data", "")
    assert [exit_status_of(checks) for checks in ([good], [line, policy, data], [line, policy], [line, good])] == [
        0, 3, 4, 1,
    ]  # fmt: skip


# The site's data


def outcome(folder: Path) -> dict[str, Check]:
    from fedecg_client.folder import open_site
    from fedecg_client.preflight import data_checks

    return by_name(data_checks(open_site(folder)))


def test_a_cell_that_cannot_be_read_is_counted_and_never_shown(
    make_folder: MakeFolder, capsys: Captured, tmp_path: Path
) -> None:
    folder = make_folder("127.0.0.1:1")
    table = tmp_path / SECRET / "cohort.csv"
    lines = table.read_text().splitlines()
    for row in (3, 9):
        cells = lines[row].split(",")
        cells[4] = f"{SECRET} days"
        lines[row] = ",".join(cells)
    table.write_text("\n".join(lines) + "\n")
    assert main(["preflight", str(folder), "--share", str(tmp_path / "out.json")]) == 3
    told = "".join(capsys.readouterr())
    assert "FECG-228 column follow_up_days: found 2 of 114 cells unreadable" in told
    for text in (told.replace(str(tmp_path), ""), (folder / "state/preflight.json").read_text(),
                 (tmp_path / "out.json").read_text()):  # fmt: skip
        assert SECRET not in text


@pytest.mark.parametrize(
    "break_it",
    [
        lambda table: table.unlink(),
        lambda table: (table.unlink(), os.mkfifo(table)),
        lambda table: (table.unlink(), table.mkdir()),
        lambda table: table.write_text(f"{SECRET},x\n1,2\n"),
        lambda table: table.write_bytes(b"\xff\xfe\x00" + SECRET.encode()),
        lambda table: table.write_text(""),
        lambda table: table.write_text(table.read_text().replace('"{""NORM"": 100.0}"', "[" * 90_000, 1)),
        lambda table: table.write_text(table.read_text().replace('"{""NORM"": 100.0}"', f'"{SECRET}"', 1)),
        lambda table: table.write_text(table.read_text() + '"unended' + SECRET * 100_000),
    ],
)
def test_a_hostile_table_is_a_failed_check_without_its_content(
    make_folder: MakeFolder, tmp_path: Path, break_it: Callable[[Path], object]
) -> None:
    folder = make_folder("127.0.0.1:1")
    break_it(tmp_path / SECRET / "cohort.csv")
    checks = outcome(folder)
    assert checks["cohort"].ok is False
    assert checks["cohort"].code in CODES
    assert checks["data"].ok is None
    assert SECRET not in json.dumps([check.__dict__ for check in checks.values()])


@pytest.mark.parametrize(
    ("columns", "code", "found"),
    [
        ({"part": np.repeat(["train"], 114)}, "FECG-665", "no patient in test"),
        ({"part": np.repeat(["test"], 114)}, "FECG-665", "no patient in train"),
        ({"patient": np.repeat(np.arange(57), 2)}, "FECG-231", "30 patients of train with several ECGs"),
    ],
)
def test_a_table_that_would_end_the_first_round_is_told(
    make_folder: MakeFolder, tmp_path: Path, columns: dict[str, Any], code: str, found: str
) -> None:
    folder = make_folder("127.0.0.1:1")
    write_cohort(cohort(**columns), tmp_path / SECRET / "cohort.csv")
    check = outcome(folder)["cohort"]
    assert (check.ok, check.code) == (False, code)
    assert check.found.startswith(found)


def test_a_site_that_only_aligns_may_have_several_ecgs_of_a_patient(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = make_folder("127.0.0.1:1")
    write_cohort(cohort(patient=np.repeat(np.arange(57), 2)), tmp_path / SECRET / "cohort.csv")
    text = (folder / "site.toml").read_text()
    (folder / "site.toml").write_text(re.sub(r"phases = \[.*\]", 'phases = ["align"]', text))
    assert outcome(folder)["cohort"].ok


def test_units_that_look_wrong_are_asked_about(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder("127.0.0.1:1")
    years = cohort(follow_up_days=np.full(114, 6.0), event=np.zeros(114, dtype=bool))
    write_cohort(years, tmp_path / SECRET / "cohort.csv")
    records = [recording(seed, size_mv=1e-3) for seed in range(114)]  # volts, say
    store = build_store(tmp_path / SECRET, "v" * 64, SignalSettings(samples=256), records, powerline="none")
    shutil.rmtree(tmp_path / SECRET / "store")
    store.folder.rename(tmp_path / SECRET / "store")
    checks = outcome(folder)
    assert "is the unit of follow_up_days days?" in checks["cohort"].found
    assert "no event at all" in checks["cohort"].found
    assert checks["store"].ok is False or "is the unit millivolt?" in checks["store"].found


def test_a_table_and_a_store_of_different_builds_are_told(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder("127.0.0.1:1")
    assert outcome(folder)["data"].ok
    write_cohort(cohort(record=np.arange(114) + 1), tmp_path / SECRET / "cohort.csv")
    check = outcome(folder)["data"]
    assert (check.code, check.ok) == ("FECG-232", False)
    assert "1 of 114 records that are not in the signal store" in check.found
    signals = tmp_path / SECRET / "store" / "signals.npy"
    signals.write_bytes(signals.read_bytes()[:-1])
    checks = outcome(folder)
    assert (checks["store"].code, checks["data"].ok) == ("FECG-216", None)


def test_a_store_that_a_joined_study_cannot_use_is_told(make_folder: MakeFolder) -> None:
    folder = make_folder("127.0.0.1:1")
    pin(folder, agreed(signals={"samples": 1024}))
    check = outcome(folder)["data"]
    assert (check.code, check.ok) == ("FECG-327", False)
    pin(folder, agreed(signals={"samples": 256}))
    assert outcome(folder)["data"].found.endswith("and the 1 studies joined")


def agreed(**sections: Any) -> StudyLock:
    study = parse_settings(StudySettings, {"name": "hf", **sections})
    code_fingerprint.cache_clear()
    return StudyLock(
        study="hf",
        settings=settings_document(study),
        bank_sha256="0" * 64,
        code_fingerprint=code_fingerprint(),
    )


# What may leave


def numbers(tree: Any) -> Iterator[float]:
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else []:
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield value
        else:
            yield from numbers(value)


def part(patients: int, events: int) -> dict[str, Any]:
    days = {"0.05": 11.25, "0.5": 1234.5, "0.9": 2345.6} if patients else {}
    return {"patients": patients, "events": events, "follow-up-days": days}


@given(
    st.lists(
        st.integers(0, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), min_size=3, max_size=3
    )
)
def test_no_small_number_of_patients_is_stated_or_can_be_worked_out(counts: list[tuple[int, int]]) -> None:
    parts = {name: part(*count) for name, count in zip(RECORDS, counts, strict=True)}
    told = shared_report("north", "now", [passed("cohort", "data", "", parts=parts)])["cohort"]
    if told == "too few to tell":
        return
    stated = list(told.values())
    assert len(stated) in (1, 3)  # all parts or their sum: never some, whose rest could be worked out
    for counted in stated:
        assert counted["patients"] >= LEAST_PATIENTS
        assert LEAST_EVENTS <= counted["events"] <= counted["patients"] - LEAST_EVENTS
        assert all(value == round(value, 1) for value in counted["follow-up-years"].values())
        for quantile in counted["follow-up-years"]:
            assert counted["patients"] * min(float(quantile), 1 - float(quantile)) >= LEAST_PATIENTS


def test_the_shared_report_is_shown_before_it_is_written_and_holds_no_secret(
    make_folder: MakeFolder, capsys: Captured, tmp_path: Path
) -> None:
    folder = make_folder("ecg-SECRET.invalid:9092", name="north")
    text = (folder / "site.toml").read_text()
    (folder / "site.toml").write_text(text.replace('"hf"', '"study-secret"'))
    part_of = np.array(["train"] * 100 + ["validation"] * 7 + ["test"] * 7)
    write_cohort(cohort(part=part_of, event=np.arange(114) < 3), tmp_path / SECRET / "cohort.csv")
    out = tmp_path / "out.json"
    capsys.readouterr()
    assert main(["preflight", str(folder), "--share", str(out)]) == 1
    told = capsys.readouterr().out
    shown = json.loads(told[told.index("{") :])
    assert "Nothing is sent" in told
    assert shown == json.loads(out.read_text())
    assert shown["site"] == "north"
    assert shown["cohort"] == "too few to tell"
    assert shown["checks"]["dns"] == "FECG-653"
    assert shown["store"]["refused"] == "too few to tell"
    text = out.read_text()
    fingerprint = read_public_key(folder / "node.pub").fingerprint
    secrets = [
        SECRET,
        "SECRET",
        "secret",
        str(tmp_path),
        "/",
        "77007",
        "9092",
        fingerprint,
        fingerprint[7:20],
        "NORM",
    ]
    assert [secret for secret in secrets if secret in text] == []
    small = set(numbers({key: shown[key] for key in ("cohort", "store", "checks")}))
    assert all(number >= LEAST_PATIENTS for number in small)


def test_a_shared_report_never_replaces_a_file(make_folder: MakeFolder, capsys: Captured) -> None:
    folder = make_folder("127.0.0.1:1")
    before = (folder / "node.key").read_bytes()
    assert main(["preflight", str(folder), "--share", str(folder / "node.key")]) == 3
    assert "FECG-121 --share: found a file of that name" in capsys.readouterr().err
    assert (folder / "node.key").read_bytes() == before


def test_with_json_the_shared_report_is_part_of_the_one_document(
    make_folder: MakeFolder, capsys: Captured, tmp_path: Path
) -> None:
    folder = make_folder("127.0.0.1:1")
    capsys.readouterr()
    main(["preflight", str(folder), "--json", "--share", str(tmp_path / "out.json")])
    assert json.loads(capsys.readouterr().out)["shared"] == json.loads((tmp_path / "out.json").read_text())


def test_a_fault_that_nobody_foresaw_shows_its_kind_alone() -> None:
    from fedecg_client.preflight.check import tried

    def look() -> Check:
        raise KeyError(SECRET)

    check = tried("cohort", "data", look)
    assert (check.code, check.found) == ("FECG-599", "KeyError")


# Doctor


def test_doctor_compares_the_fingerprints_that_were_read_over_the_phone(
    make_folder: MakeFolder,
    superlink: SuperLink,
    member: tuple[int, Path],
    capsys: Captured,
    authority: Authority,
) -> None:
    folder = make_folder(superlink.address, key=member[1])
    right, key = (
        certificate_fingerprint(authority.certificate),
        read_public_key(folder / "node.pub").fingerprint,
    )
    for spoken in (right, right.replace(" ", ":").lower(), f"SHA256 Fingerprint={right}"):
        line = ["doctor", str(folder), "--ca-fingerprint", spoken, "--key-fingerprint", key]
        assert main(line) == 0
    wrong = right.replace(right[0], "0" if right[0] != "0" else "1")
    capsys.readouterr()
    assert main(["doctor", str(folder), "--ca-fingerprint", wrong, "--key-fingerprint", key[:-1] + "x"]) == 3
    told = capsys.readouterr().out
    assert f"FECG-658 {right}, not what was told" in told
    assert "FECG-657 SHA256:" in told


def test_doctor_explains_what_the_agent_was_told(make_folder: MakeFolder, capsys: Captured) -> None:
    folder = make_folder("127.0.0.1:1")
    events = [
        {"time": "T1", "event": "wait", "code": "FECG-648"},
        {"time": "T2", "event": "wait", "code": "FECG-648"},
        {"time": "T3", "event": "task-refused", "code": "FECG-418"},
        {"time": "T4", "event": "online", "code": None},
        {"time": "T5", "event": "wait", "code": "FECG-\x1b[2J"},
        {"time": "T6", "event": "wait", "code": ["FECG-649"]},
        {"time": "T7", "event": "wait", "code": "FECG-999"},
    ]
    (folder / "state/events.jsonl").write_text(
        "".join(json.dumps(event) + "\n" for event in events) + '{"time"'
    )
    capsys.readouterr()
    main(["doctor", str(folder), "--json"])
    said = json.loads(capsys.readouterr().out)["refusals"]
    assert [(entry["code"], entry["times"], entry["last"]) for entry in said] == [
        ("FECG-999", 1, "T7"), ("FECG-418", 1, "T3"), ("FECG-648", 2, "T2"),
    ]  # fmt: skip
    assert said[1]["meaning"] == CODES["FECG-418"]
    assert "policy.hours" in said[1]["fix"]
    assert main(["doctor", str(folder)]) == 1
    assert "FECG-648 the coordinator does not let this node in" in capsys.readouterr().out


def test_doctor_says_what_does_not_fit_in_the_agreed_studies(make_folder: MakeFolder) -> None:
    from fedecg_client.doctor import diagnose
    from fedecg_client.folder import open_site

    folder = make_folder("127.0.0.1:1")

    def locks() -> Check:
        return by_name(diagnose(open_site(folder)))["locks"]

    assert locks().found == "no study has been joined yet"
    pin(folder, agreed())
    assert locks().details["locks"] == {"hf": agreed().sha256()}
    propose(folder, agreed(seed=3))
    assert (locks().code, agreed(seed=3).sha256() in locks().found) == ("FECG-413", True)
    pin(folder, agreed().model_copy(update={"code_fingerprint": "0" * 64}))
    assert locks().code == "FECG-541"
    text = (folder / "site.toml").read_text()
    (folder / "site.toml").write_text(f'{text}hf = "{"1" * 64}"\n')
    assert locks().code == "FECG-412"
    (folder / "state/locks/hf.json").write_text("{")
    assert locks().code == "FECG-413"


@pytest.mark.slow
def test_start_status_and_stop_run_a_site_from_the_shell(
    make_folder: MakeFolder, superlink: SuperLink, tmp_path: Path
) -> None:
    folder = make_folder(superlink.address)
    node = superlink.register(folder / "node.pub")
    processes = Processes(tmp_path)
    command = [sys.executable, "-m", "fedecg_client.cli"]

    def status() -> dict[str, Any]:
        done = subprocess.run([*command, "status", "--json"], cwd=folder, capture_output=True, text=True)
        return dict(json.loads(done.stdout)) if done.returncode == 0 else {}

    try:
        agent = processes.start([*command, "start"], log=tmp_path / "agent.log", cwd=folder)
        until(lambda: status().get("state") == "idle", 40, "a site that waits")
        document = status()
        assert (document["pid"], document["connected"], document["code"]) == (agent.pid, True, None)
        assert superlink.status_of(node) == "online"
        again = subprocess.run([*command, "start"], cwd=folder, capture_output=True, text=True)
        assert (again.returncode, again.stderr[:8]) == (1, "FECG-641")
        assert subprocess.run([*command, "stop"], cwd=folder, capture_output=True).stdout == b"stopped\n"
        assert agent.wait(10) == 0
        assert status()["state"] == "stopped"
        agent = processes.start([*command, "start"], log=tmp_path / "agent.log", cwd=folder)
        until(lambda: status().get("pid") == agent.pid and status()["state"] == "idle", 40, "the site again")
        agent.kill()
        agent.wait()
        assert status()["state"] == "killed"
        until(lambda: not processes.left(), 10, "the worker ends with its agent")
    finally:
        processes.end()


@pytest.mark.slow
def test_doctor_knows_a_key_that_is_used_elsewhere(
    make_folder: MakeFolder, superlink: SuperLink, tmp_path: Path
) -> None:
    from fedecg_client.doctor import diagnose
    from fedecg_client.folder import open_site

    folder = make_folder(superlink.address)
    superlink.register(folder / "node.pub")
    twin = Path(shutil.copytree(folder, tmp_path / "twin"))
    processes = Processes(tmp_path)
    try:
        first = AgentProcess(folder, processes).start()
        first.online()
        second = AgentProcess(twin, processes).start()
        until(lambda: second.status.get("code") == "FECG-648", 20, "the twin is not let in")
        check = by_name(diagnose(open_site(twin)))["agent"]
        assert check.code == "FECG-648"
        assert "Another machine runs an agent with this key" in check.fix
        assert [agent.stop() for agent in (first, second)] == [0, 0]
    finally:
        processes.end()


def test_tls_checks_trust_the_sites_authority_alone(
    make_folder: MakeFolder, serve: Callable[..., int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An authority that the whole machine trusts is not believed."""
    other = Authority.new("trusted by the machine")
    (tmp_path / "machine.crt").write_bytes(other.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "machine.crt"))
    assert ssl.create_default_context().cert_store_stats()["x509_ca"] >= 1
    checks = line_of(make_folder(f"127.0.0.1:{serve(other.sign('127.0.0.1'))}"))
    assert codes(checks) == {"tls-chain": "FECG-644"}
