"""What a fleet port does wrong is told apart by gRPC's own words: each of them is heard here from a real server."""

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from loopback import Authority, free_port, write_key

from fedecg.config import ServerSettings
from fedecg.errors import RunError
from fedecg_client import link as link_module
from fedecg_client.faults import LinkError, RunOverError, StoppedError
from fedecg_client.link import Link, load_credentials

Call = Callable[[bytes, grpc.ServicerContext], bytes]
AUTHORITY = Authority.new()


@pytest.fixture
def activate(tmp_path: Path) -> Callable[..., None]:
    """Try to go online there."""
    write_key(tmp_path)
    (tmp_path / "ca.crt").write_bytes(AUTHORITY.pem)

    def call(port: int, host: str = "127.0.0.1", stop: threading.Event | None = None) -> None:
        settings = ServerSettings(
            address=f"{host}:{port}", ca=str(tmp_path / "ca.crt"), key=str(tmp_path / "node.key")
        )
        link = Link(settings.address, load_credentials(settings), stop or threading.Event())
        try:
            link.activate()
        finally:
            link.close()

    return call


def good() -> tuple[bytes, bytes]:
    return AUTHORITY.sign("127.0.0.1")


def refusing(code: grpc.StatusCode, details: str) -> Call:
    def call(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(code, details)
        raise AssertionError

    return call


@pytest.mark.parametrize(
    ("certificate", "code", "found"),
    [
        (
            Authority.new("loopback CA").sign("127.0.0.1"),
            "FECG-644",
            "one that the CA in ca.crt did not sign",
        ),
        (Authority.new("another CA").sign("127.0.0.1"), "FECG-644", "one that the CA in ca.crt did not sign"),
        (AUTHORITY.sign("fedecg.example"), "FECG-645", "one made out to another name"),
        (AUTHORITY.sign("127.0.0.9"), "FECG-645", "one made out to another name"),
        (AUTHORITY.sign("127.0.0.1", from_day=-9, to_day=-2), "FECG-646", "one that has expired"),
        (AUTHORITY.sign("127.0.0.1", from_day=2, to_day=9), "FECG-646", "one that is not valid yet"),
        (None, "FECG-647", "a server that speaks no gRPC over TLS"),
        (good(), "FECG-647", "a gRPC server that does not know the fleet's calls"),
    ],
    ids=[
        "same-name-CA",
        "other-CA",
        "other-name",
        "other-address",
        "expired",
        "future",
        "plain-text",
        "no-fleet",
    ],
)
def test_a_certificate_or_port_that_someone_must_mend(
    serve: Callable[..., int],
    activate: Callable[..., None],
    certificate: tuple[bytes, bytes] | None,
    code: str,
    found: str,
) -> None:
    with pytest.raises(LinkError) as caught:
        activate(serve(certificate))
    assert (caught.value.error.code, caught.value.error.found) == (code, found)
    assert caught.value.lasting
    assert caught.value.error.fix


@pytest.mark.parametrize(
    ("status", "details", "code", "found"),
    [
        (
            grpc.StatusCode.FAILED_PRECONDITION,
            json.dumps({"code": 2004, "public_message": "Failed to activate SuperNode."}),
            "FECG-648",
            "a key that is not registered, or a node that counts as online already",
        ),
        (
            grpc.StatusCode.UNAUTHENTICATED,
            "Invalid node ID",
            "FECG-648",
            "a key that is not this node's (removed, or the coordinator's database is new)",
        ),
        (
            grpc.StatusCode.UNAUTHENTICATED,
            "Invalid timestamp",
            "FECG-648",
            "a signature whose time is off (more than 5 s ahead, or 5 minutes behind)",
        ),
        (grpc.StatusCode.UNKNOWN, "Exception calling application", "FECG-649", "unknown"),
    ],
)
def test_a_refusal_that_may_pass(
    serve: Callable[..., int],
    activate: Callable[..., None],
    status: grpc.StatusCode,
    details: str,
    code: str,
    found: str,
) -> None:
    with pytest.raises(LinkError) as caught:
        activate(serve(good(), refusing(status, details)))
    assert (caught.value.error.code, caught.value.error.found) == (code, found)
    assert not caught.value.lasting


def test_another_version_of_flower_must_be_mended(
    serve: Callable[..., int], activate: Callable[..., None]
) -> None:
    details = json.dumps({"code": 1001, "public_message": "Runtime version compatibility check failed."})
    with pytest.raises(
        LinkError, match="FECG-642 installed programs: found another minor version of Flower"
    ) as caught:
        activate(serve(good(), refusing(grpc.StatusCode.FAILED_PRECONDITION, details)))
    assert caught.value.lasting


def test_a_run_that_is_over_is_no_fault(serve: Callable[..., int], activate: Callable[..., None]) -> None:
    with pytest.raises(RunOverError):
        activate(serve(good(), refusing(grpc.StatusCode.PERMISSION_DENIED, "finished")))


def test_nobody_listening_passes(activate: Callable[..., None]) -> None:
    with pytest.raises(LinkError, match="FECG-649 coordinator: found connection refused") as caught:
        activate(free_port())
    assert not caught.value.lasting
    assert not caught.value.sent


def test_a_name_that_cannot_be_resolved_passes(activate: Callable[..., None]) -> None:
    with pytest.raises(
        LinkError, match="FECG-649 coordinator: found a name that cannot be resolved"
    ) as caught:
        activate(9092, host="no-such-host.invalid")
    assert not caught.value.sent


def test_a_line_cut_in_the_handshake_passes(activate: Callable[..., None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True).start()
        with pytest.raises(LinkError, match="FECG-649 coordinator: found no connection") as caught:
            activate(listener.getsockname()[1])
        assert not caught.value.lasting


def test_a_web_server_is_no_fleet_port(activate: Callable[..., None], tmp_path: Path) -> None:
    for name, content in zip(("chain", "key"), good(), strict=True):
        (tmp_path / name).write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "chain", tmp_path / "key")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with suppress(OSError), context.wrap_socket(listener.accept()[0], server_side=True) as line:
                line.recv(1)

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(
            LinkError, match="FECG-647 fleet port: found a server that speaks no gRPC over TLS"
        ):
            activate(listener.getsockname()[1])


def test_a_silent_server_is_given_up_after_the_time_of_a_call(
    activate: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "CALL_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(LinkError, match="FECG-649 coordinator: found deadline exceeded") as caught:
            activate(listener.getsockname()[1])
        assert caught.value.sent


def test_a_stop_ends_a_call_at_once(activate: Callable[..., None]) -> None:
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Timer(0.3, stop.set).start()
        began = time.monotonic()
        with pytest.raises(StoppedError):
            activate(listener.getsockname()[1], stop=stop)
        assert time.monotonic() - began < 1.0


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("ca.crt", None, "ca.crt: found no such file"),
        ("ca.crt", b"nonsense", "ca.crt: found a file that is no PEM certificate"),
        ("node.key", b"nonsense", "node.key: found a file that is no private key, or a damaged one"),
    ],
)
def test_a_ca_or_key_that_cannot_be_used(
    tmp_path: Path, name: str, content: bytes | None, found: str
) -> None:
    write_key(tmp_path)
    (tmp_path / "ca.crt").write_bytes(AUTHORITY.pem)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    settings = ServerSettings(
        address="127.0.0.1:1", ca=str(tmp_path / "ca.crt"), key=str(tmp_path / "node.key")
    )
    with pytest.raises(RunError, match=f"FECG-643 {found}"):
        load_credentials(settings)


def test_a_key_of_another_kind_is_told(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    (tmp_path / "node.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    )
    (tmp_path / "ca.crt").write_bytes(AUTHORITY.pem)
    settings = ServerSettings(
        address="127.0.0.1:1", ca=str(tmp_path / "ca.crt"), key=str(tmp_path / "node.key")
    )
    with pytest.raises(RunError, match="FECG-643 node.key: found a key of kind Ed25519"):
        load_credentials(settings)
