"""Preflight behind a proxy."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import SuperLink, free_port
from site_checks import Captured, MakeFolder, codes, line_of

from fedecg_client import probe as probe_module
from fedecg_client.cli import main
from fedecg_client.preflight.line import proxy_for

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
