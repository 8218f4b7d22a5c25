"""The coordinator's certificates: an authority of its own, and the certificate that its server shows.

In:  the public name. Out: `tls/` with ca.crt, ca.key, server.crt, server.key; fingerprints for the telephone; when they
end. Sites hold ca.crt and nothing else, so the authority is made once: renewing the server's certificate changes
nothing at a site. Called by `fedecg-server init, renew, start, status`.
Source: RFC 5280 (profile), CA/Browser Forum baseline requirements 6.3.2 (825 days until 2020; what clients accept).
"""

from __future__ import annotations

import ipaddress
import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedecg.errors import RunError
from fedecg.federation.identity import certificate_fingerprint
from fedecg.files import in_words, write_whole

__all__ = [
    "CertificateState",
    "TlsFiles",
    "ca_fingerprint",
    "check_tls",
    "create_tls",
    "renew_server_certificate",
    "tls_state",
    "too_open",
]

AUTHORITY_DAYS = 20 * 365
SERVER_DAYS = 825
BACKDATED = timedelta(days=1)  # a site's clock may be behind
SOON_DAYS = 60  # when `status` and `start` begin to ask for a renewal
PRIVATE = 0o600
RENEW = "Run: fedecg-server renew DIR, then stop and resume; sites change nothing."
RESTORE = "Restore tls/ from a backup."


class TlsFiles:
    """The four files of `tls/`.

    Args:
        folder: made by `create_tls`, 0700.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca, self.ca_key = folder / "ca.crt", folder / "ca.key"
        self.certificate, self.key = folder / "server.crt", folder / "server.key"


@dataclass(frozen=True)
class CertificateState:
    """What `status` says of the certificates."""

    names: list[str]  # that the server's certificate is good for
    expires: datetime  # UTC, the server's certificate
    days_left: int
    authority_expires: datetime
    fingerprint: str  # of ca.crt, as sites read it over the phone
    warnings: list[str]  # in words: near the end, or key files that others can read


def create_tls(tls: TlsFiles, name: str, now: datetime | None = None) -> None:
    """Make the authority, which lasts, and the first server certificate.

    Args:
        tls: its folder must not exist: an authority is never written over.
        name: public DNS name or IP address of the server.
        now: UTC; by default the clock's.

    Raises:
        RunError: FECG-671 if the folder exists; FECG-601 if it cannot be written.
    """
    try:
        tls.folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        raise RunError(
            "FECG-671",
            "certificate authority",
            found="a tls folder",
            expected="none: an authority is made once",
            fix=RENEW,
        ) from None
    moment = now or datetime.now(UTC)
    ca_key, key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _authority(ca_key, moment)
    _write_private(tls.ca_key, ca_key)
    _write_private(tls.key, key)
    write_whole(tls.ca, _pem(authority))
    write_whole(tls.certificate, _pem(_server_certificate(authority, ca_key, key, name, moment)))


def renew_server_certificate(
    tls: TlsFiles, name: str, *, new_key: bool = False, now: datetime | None = None
) -> None:
    """Sign a new server certificate with the same authority.

    The server's key stays unless it is asked for or absent, so that one file changes, whole or not at all; with a new
    key a kill between the two files is found by `check_tls`, and mended by renewing again.

    Raises:
        RunError: FECG-673 if the authority cannot be used; FECG-674 if it has expired; FECG-601.
    """
    moment = now or datetime.now(UTC)
    authority, ca_key = _certificate(tls.ca), _private_key(tls.ca_key)
    if authority.public_key() != ca_key.public_key():
        raise _unusable("ca.key", "a key of another authority than ca.crt", RESTORE)
    if authority.not_valid_after_utc <= moment:
        raise _expired("the authority, ca.crt", "Make a new coordinator; every site needs its ca.crt.")
    if new_key or not tls.key.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        _write_private(tls.key, key)
    else:
        key = _private_key(tls.key)
    write_whole(tls.certificate, _pem(_server_certificate(authority, ca_key, key, name, moment)))


def check_tls(tls: TlsFiles, name: str, now: datetime | None = None) -> None:
    """What must hold before a server starts with these files.

    Raises:
        RunError: FECG-673 a file is missing, damaged, of another authority or not for this name; FECG-674 expired.
    """
    moment = now or datetime.now(UTC)
    authority, certificate, key = _certificate(tls.ca), _certificate(tls.certificate), _private_key(tls.key)
    if certificate.public_key() != key.public_key():
        raise _unusable("server.key", "a key that does not belong to server.crt", RENEW)
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception as error:  # InvalidSignature, ValueError, TypeError: all say the same to the reader
        raise _unusable(
            "server.crt", f"a certificate of another authority ({type(error).__name__})", RENEW
        ) from None
    if name.lower() not in map(str.lower, _names(certificate)):
        raise _unusable("server.crt", "another name than that in server.toml", RENEW)
    if authority.not_valid_after_utc <= moment:
        raise _expired("the authority, ca.crt", "Make a new coordinator; every site needs its ca.crt.")
    if certificate.not_valid_after_utc <= moment:
        raise _expired("server.crt", RENEW)


def tls_state(tls: TlsFiles, now: datetime | None = None) -> CertificateState:
    """Names, ends, fingerprint and what should be mended soon.

    Raises:
        RunError: FECG-673 if a certificate is missing or damaged.
    """
    moment = now or datetime.now(UTC)
    authority, certificate = _certificate(tls.ca), _certificate(tls.certificate)
    days = (certificate.not_valid_after_utc - moment) // timedelta(days=1)
    warnings = [f"{name} can be read by others: chmod 600 {name}" for name in too_open(tls)]
    if days < SOON_DAYS:
        when = f"ends in {days} days" if days >= 0 else "has expired"
        warnings.append(f"the server's certificate {when}. {RENEW}")
    if authority.not_valid_after_utc - moment < timedelta(days=SERVER_DAYS):
        warnings.append("the authority ends within 825 days: plan a new coordinator and tell the sites")
    return CertificateState(
        names=_names(certificate),
        expires=certificate.not_valid_after_utc,
        days_left=days,
        authority_expires=authority.not_valid_after_utc,
        fingerprint=certificate_fingerprint(authority),
        warnings=warnings,
    )


def too_open(tls: TlsFiles) -> list[str]:
    """Names of the private keys that others than their owner can read or write."""
    keys = (tls.ca_key, tls.key)
    return [f"tls/{key.name}" for key in keys if key.exists() and stat.S_IMODE(key.stat().st_mode) & 0o077]


def ca_fingerprint(path: Path) -> str:
    """sha256 of the authority's certificate, to be read over the phone.

    Raises:
        RunError: FECG-673 if it is no certificate.
    """
    return certificate_fingerprint(_certificate(path))


def _authority(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    serial = x509.random_serial_number()
    # Two coordinators' authorities must not bear one name: software looks authorities up by it.
    name = _common_name(f"fedecg authority {serial:040x}"[:32])
    builder = _builder(name, name, key.public_key(), serial, now, AUTHORITY_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(key_cert_sign=True), critical=True)
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = builder.add_extension(own, critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
    return builder.add_extension(issuer, critical=False).sign(key, hashes.SHA384())


def _server_certificate(
    authority: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
    name: str,
    now: datetime,
) -> x509.Certificate:
    subject, public = _common_name("fedecg coordinator"), key.public_key()
    serial = x509.random_serial_number()
    builder = _builder(
        subject, authority.subject, public, serial, now, SERVER_DAYS, authority.not_valid_after_utc
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(digital_signature=True), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    # The control port is reached as 127.0.0.1, by the same certificate.
    names = list(dict.fromkeys([name, "127.0.0.1", "localhost"]))
    builder = builder.add_extension(
        x509.SubjectAlternativeName(list(map(_general_name, names))), critical=False
    )
    own = x509.SubjectKeyIdentifier.from_public_key(public)
    builder = builder.add_extension(own, critical=False)
    ca_identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_identifier)
    return builder.add_extension(issuer, critical=False).sign(ca_key, hashes.SHA384())


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    serial: int,
    now: datetime,
    days: int,
    not_beyond: datetime | None = None,
) -> x509.CertificateBuilder:
    begin = now - BACKDATED
    end = begin + timedelta(days=days)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(serial).not_valid_before(begin)
    return builder.not_valid_after(min(end, not_beyond) if not_beyond else end)


def _usage(*, key_cert_sign: bool = False, digital_signature: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [str(name.value) for name in extension.value]


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        fix = RESTORE if path.name == "ca.crt" else RENEW
        raise _unusable(path.name, in_words(error), fix) from None


def _private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    fix = RESTORE if path.name == "ca.key" else f"Remove it. {RENEW}"
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise _unusable(path.name, in_words(error), fix) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _unusable(path.name, "a key of another kind", fix)
    return key


def _write_private(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    form, encryption = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    write_whole(path, key.private_bytes(serialization.Encoding.PEM, form, encryption), private=True)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _unusable(what: str, found: str, fix: str) -> RunError:
    return RunError(
        "FECG-673", f"tls/{what}", found=found, expected="the coordinator's own file, whole", fix=fix
    )


def _expired(what: str, fix: str) -> RunError:
    return RunError(
        "FECG-674", what, found="a last day that is over", expected="a certificate in force", fix=fix
    )
