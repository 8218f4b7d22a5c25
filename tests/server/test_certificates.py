"""The coordinator's certificates, tried with the TLS that sites use: Python's ssl in its strict mode, OpenSSL, gRPC."""

from __future__ import annotations

import shutil
import socket
import ssl
import stat
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from fedecg.errors import RunError
from fedecg_server.certificates import (
    TlsFiles,
    ca_fingerprint,
    check_tls,
    create_tls,
    renew_server_certificate,
    tls_state,
    too_open,
)

NAME = "ecg.example.org"
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    tls = TlsFiles(tmp_path_factory.mktemp("certificates") / "tls")
    create_tls(tls, NAME, now=NOW)
    return tls


@pytest.fixture
def tls(made: TlsFiles, tmp_path: Path) -> TlsFiles:
    """A copy that a test may damage."""
    shutil.copytree(made.folder, tmp_path / "tls")
    return TlsFiles(tmp_path / "tls")


def shake_hands(server: TlsFiles, ca: Path, name: str) -> str:
    """One TLS handshake between two ends of a socket; how it ended for the client, strictest checks on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    client = ssl.create_default_context(cafile=str(ca))
    client.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN  # Python 3.13's default
    near, far = socket.socketpair()

    def serve() -> None:
        with suppress(ssl.SSLError, OSError), context.wrap_socket(far, server_side=True) as connection:
            connection.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(near, server_hostname=name) as connection:
            connection.send(b"x")
            return str(connection.version())
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    finally:
        near.close()
        thread.join(5)
        far.close()


@contextmanager
def grpc_server(tls: TlsFiles) -> Iterator[int]:
    """A real gRPC server with these files; its port."""
    server = grpc.server(ThreadPoolExecutor(1))
    credentials = grpc.ssl_server_credentials([(tls.key.read_bytes(), tls.certificate.read_bytes())])
    try:
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        yield port
    finally:
        server.stop(0).wait()


def call(port: int, ca: Path, name: str) -> tuple[str, str]:
    """Status and words of a call to a method that the server does not have: UNIMPLEMENTED = it was reached."""
    options = [("grpc.ssl_target_name_override", name)] if name else []
    credentials = grpc.ssl_channel_credentials(ca.read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        method = channel.unary_unary("/no/method", request_serializer=bytes, response_deserializer=bytes)
        with pytest.raises(grpc.RpcError) as failure:
            method(b"", timeout=5)
    return failure.value.code().name, failure.value.details()


@pytest.mark.parametrize("name", [NAME, NAME.upper(), "127.0.0.1", "localhost"])
def test_strict_clients_accept_the_public_name_and_this_machine(made: TlsFiles, name: str) -> None:
    assert shake_hands(made, made.ca, name) == "TLSv1.3"


@pytest.mark.parametrize("name", ["other.example.org", "example.org", "a.ecg.example.org", "127.0.0.2"])
def test_clients_refuse_every_other_name(made: TlsFiles, name: str) -> None:
    assert "mismatch" in shake_hands(made, made.ca, name)


def test_an_ip_address_as_public_name_is_certified_as_one(tmp_path: Path) -> None:
    tls = TlsFiles(tmp_path / "tls")
    create_tls(tls, "192.0.2.7")
    assert shake_hands(tls, tls.ca, "192.0.2.7") == "TLSv1.3"
    assert "mismatch" in shake_hands(tls, tls.ca, "192.0.2.8")


def test_clients_of_another_authority_refuse(made: TlsFiles, tmp_path: Path) -> None:
    other = TlsFiles(tmp_path / "tls")
    create_tls(other, NAME)
    assert "unable to get local issuer" in shake_hands(made, other.ca, NAME)


def test_an_expired_certificate_is_refused_until_it_is_renewed(tmp_path: Path) -> None:
    tls, past = TlsFiles(tmp_path / "tls"), NOW - timedelta(days=900)
    create_tls(tls, NAME, now=past)
    assert "expired" in shake_hands(tls, tls.ca, NAME)
    with pytest.raises(
        RunError, match="FECG-674 server.crt: found a last day that is over.*fedecg-server renew"
    ):
        check_tls(tls, NAME)
    renew_server_certificate(tls, NAME)
    check_tls(tls, NAME)
    assert shake_hands(tls, tls.ca, NAME) == "TLSv1.3"


def test_grpc_accepts_the_good_name_and_nothing_else(made: TlsFiles, tmp_path: Path) -> None:
    other, old = TlsFiles(tmp_path / "other"), TlsFiles(tmp_path / "old")
    create_tls(other, NAME)
    create_tls(old, NAME, now=NOW - timedelta(days=900))
    with grpc_server(made) as port:
        assert call(port, made.ca, "")[0] == "UNIMPLEMENTED"  # by its IP address
        assert call(port, made.ca, NAME)[0] == "UNIMPLEMENTED"
        assert call(port, made.ca, "other.example.org")[0] == "UNAVAILABLE"
        assert call(port, other.ca, NAME)[0] == "UNAVAILABLE"
    with grpc_server(old) as port:
        assert call(port, old.ca, NAME)[0] == "UNAVAILABLE"


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl program")
def test_openssl_accepts_the_chain_in_its_strict_mode_and_prints_the_same_fingerprint(made: TlsFiles) -> None:
    words = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", NAME]
    done = subprocess.run([*words, "-CAfile", made.ca, made.certificate], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    words = ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", str(made.ca)]
    printed = subprocess.run(words, capture_output=True, text=True).stdout.partition("=")[2].strip()
    assert printed.replace(":", "") == ca_fingerprint(made.ca).replace(" ", "")


def test_the_authority_can_sign_servers_only_and_lasts_twenty_years(made: TlsFiles) -> None:
    authority = x509.load_pem_x509_certificate(made.ca.read_bytes())
    basic = authority.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = authority.extensions.get_extension_for_class(x509.KeyUsage)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.digital_signature) == (True, True, False)
    assert (authority.not_valid_after_utc - authority.not_valid_before_utc).days == 20 * 365
    assert isinstance(authority.public_key(), ec.EllipticCurvePublicKey)
    server = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    assert (server.not_valid_after_utc - server.not_valid_before_utc).days <= 825
    assert server.not_valid_before_utc < NOW - timedelta(hours=12)  # a site's clock may be behind


def test_two_authorities_bear_different_names(made: TlsFiles, tmp_path: Path) -> None:
    other = TlsFiles(tmp_path / "tls")
    create_tls(other, NAME)
    subjects = {x509.load_pem_x509_certificate(tls.ca.read_bytes()).subject for tls in (made, other)}
    assert len(subjects) == 2


def test_renewing_keeps_authority_and_key_and_gives_a_later_end(tls: TlsFiles) -> None:
    ca, key, end = tls.ca.read_bytes(), tls.key.read_bytes(), tls_state(tls).expires
    renew_server_certificate(tls, NAME, now=NOW + timedelta(days=100))
    assert (tls.ca.read_bytes(), tls.key.read_bytes()) == (ca, key)
    assert (tls_state(tls).expires - end).days == 100
    renew_server_certificate(tls, "new.example.org", new_key=True)
    assert tls.ca.read_bytes() == ca
    assert tls.key.read_bytes() != key
    assert shake_hands(tls, tls.ca, "new.example.org") == "TLSv1.3"
    assert not list(tls.folder.glob(".*"))


def test_a_certificate_never_outlives_its_authority(tls: TlsFiles) -> None:
    late = NOW + timedelta(days=20 * 365 - 100)
    renew_server_certificate(tls, NAME, now=late)
    state = tls_state(tls, late)
    assert state.expires == state.authority_expires
    assert any("the authority ends" in warning for warning in state.warnings)
    with pytest.raises(RunError, match="FECG-674 the authority, ca.crt"):
        renew_server_certificate(tls, NAME, now=late + timedelta(days=100))
    with pytest.raises(RunError, match="FECG-674 the authority, ca.crt"):
        check_tls(tls, NAME, now=late + timedelta(days=100))


def test_an_authority_is_never_written_over(tls: TlsFiles) -> None:
    before = tls.ca_key.read_bytes()
    with pytest.raises(RunError, match="FECG-671 certificate authority: found a tls folder"):
        create_tls(tls, NAME)
    assert tls.ca_key.read_bytes() == before


def test_private_keys_are_0600_and_wider_permissions_are_told(tls: TlsFiles) -> None:
    assert stat.S_IMODE(tls.folder.parent.joinpath("tls").stat().st_mode) == 0o700
    assert [stat.S_IMODE(key.stat().st_mode) for key in (tls.ca_key, tls.key)] == [0o600, 0o600]
    assert too_open(tls) == []
    tls.key.chmod(0o640)
    assert too_open(tls) == ["tls/server.key"]
    assert "tls/server.key can be read by others: chmod 600 tls/server.key" in tls_state(tls).warnings


def test_an_end_that_is_near_is_told(tls: TlsFiles) -> None:
    assert tls_state(tls).warnings == []
    near = tls_state(tls, NOW + timedelta(days=790))
    assert near.days_left == 33
    assert "ends in 33 days. Run: fedecg-server renew DIR" in near.warnings[0]
    assert "has expired" in tls_state(tls, NOW + timedelta(days=830)).warnings[0]


def test_fingerprints_are_sixteen_groups_of_four(made: TlsFiles) -> None:
    groups = ca_fingerprint(made.ca).split(" ")
    assert len(groups) == 16
    assert all(len(group) == 4 and group == group.upper() for group in groups)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("missing key", "FECG-673 tls/server.key: found no such file"),
        ("junk certificate", "FECG-673 tls/server.crt: found content that cannot be read"),
        (
            "empty authority",
            "FECG-673 tls/ca.crt: found content that cannot be read.*Restore tls/ from a backup",
        ),
        ("other key", "FECG-673 tls/server.key: found a key that does not belong to server.crt"),
        ("other authority", "FECG-673 tls/server.crt: found a certificate of another authority"),
        ("encrypted key", "FECG-673 tls/server.key: found content that cannot be read"),
        ("other name", "FECG-673 tls/server.crt: found another name than that in server.toml"),
        ("rsa key", "FECG-673 tls/server.key: found a key of another kind"),
    ],
)
def test_files_that_do_not_fit_are_told_apart(tls: TlsFiles, tmp_path: Path, damage: str, words: str) -> None:
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric import rsa

    other = TlsFiles(tmp_path / "other")
    create_tls(other, NAME)
    pem, pkcs8 = forms.Encoding.PEM, forms.PrivateFormat.PKCS8
    if damage == "missing key":
        tls.key.unlink()
    elif damage == "junk certificate":
        tls.certificate.write_bytes(b"\0junk" * 1000)
    elif damage == "empty authority":
        tls.ca.write_bytes(b"")
    elif damage == "other key":
        shutil.copyfile(other.key, tls.key)
    elif damage == "other authority":
        shutil.copyfile(other.ca, tls.ca)
    elif damage == "encrypted key":
        key = ec.generate_private_key(ec.SECP256R1())
        tls.key.write_bytes(key.private_bytes(pem, pkcs8, forms.BestAvailableEncryption(b"word")))
    elif damage == "rsa key":
        rsa_key = rsa.generate_private_key(65537, 2048)
        tls.key.write_bytes(rsa_key.private_bytes(pem, pkcs8, forms.NoEncryption()))
    with pytest.raises(RunError, match=words):
        check_tls(tls, "other.example.org" if damage == "other name" else NAME)


def test_renewing_mends_what_a_kill_between_key_and_certificate_leaves(tls: TlsFiles, tmp_path: Path) -> None:
    other = TlsFiles(tmp_path / "other")
    create_tls(other, NAME)
    shutil.copyfile(other.key, tls.key)  # the new key is there, its certificate is not
    renew_server_certificate(tls, NAME)
    check_tls(tls, NAME)


def test_renewing_refuses_without_its_own_authority(tls: TlsFiles, tmp_path: Path) -> None:
    before, other = tls.certificate.read_bytes(), TlsFiles(tmp_path / "other")
    create_tls(other, NAME)
    shutil.copyfile(other.ca_key, tls.ca_key)
    with pytest.raises(RunError, match="FECG-673 tls/ca.key: found a key of another authority than ca.crt"):
        renew_server_certificate(tls, NAME)
    tls.ca_key.unlink()
    with pytest.raises(RunError, match="FECG-673 tls/ca.key: found no such file.*Restore"):
        renew_server_certificate(tls, NAME)
    assert tls.certificate.read_bytes() == before
