"""The site's key and its coordinator's authority: made, read, compared, renewed. Private keys stay in their folder.

In:  files of a site's folder; a CA that somebody brought. Out: keys and certificates, fingerprints for the telephone,
files that only their owner can read. Called by `fedecg-client`'s commands and checks.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
)

from fedecg.errors import RunError, SettingsError
from fedecg.federation.identity import SiteKey, public_key_of, read_public_key
from fedecg.files import in_words, read_regular, write_whole

__all__ = [
    "authority_of",
    "load_key",
    "make_key",
    "new_key",
    "others_can_read",
    "public_file",
    "read_authority",
    "use_new_key",
]


def make_key(file: Path) -> SiteKey:
    """Make a key, and its public half beside it (.pub).

    Args:
        file: must not exist; 0600 from its first byte on.

    Raises:
        RunError: FECG-660 if there is one; FECG-601 if it cannot be written.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    _write_private(file, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = public_key_of(key)
    write_whole(public_file(file), f"{public.text}\n")
    return public


def load_key(file: Path) -> ec.EllipticCurvePrivateKey:
    """Read a site's private key.

    Raises:
        RunError: FECG-643 if it is missing or is not what `make_key` makes.
    """
    try:
        content = read_regular(file)
        key = load_ssh_private_key(content, None)
    except OSError as error:
        raise _no_key(file.name, in_words(error)) from None
    except TypeError:
        raise _no_key(file.name, "a private key under a password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _no_key(file.name, _kind_of(content)) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _no_key(file.name, f"a key of kind {type(key).__name__.strip('_').removesuffix('PrivateKey')}")
    if not isinstance(key.curve, ec.SECP384R1):
        raise _no_key(file.name, f"an EC key on {key.curve.name}")
    return key


def public_file(private: Path) -> Path:
    """Where its public half stands: node.key -> node.pub."""
    return private.with_suffix(".pub")


def others_can_read(file: Path) -> bool:
    """Whether others than the owner may read or write it."""
    return bool(stat.S_IMODE(file.stat().st_mode) & 0o077)


def authority_of(file: Path) -> x509.Certificate:
    """Read the coordinator's authority as the site keeps it.

    Raises:
        RunError: FECG-643 if it is missing or damaged.
    """
    try:
        return x509.load_pem_x509_certificates(read_regular(file))[0]
    except OSError as error:
        raise _no_ca(file.name, in_words(error)) from None
    except ValueError:
        raise _no_ca(file.name, "a file that is no PEM certificate") from None


def read_authority(file: Path) -> bytes:
    """Read a CA that somebody brought: one certificate of an authority, PEM.

    Returns:
        The certificate alone, written anew: nothing else of the file comes with it.

    Raises:
        SettingsError: FECG-122 for anything else; said apart if it holds a private key.
    """
    try:
        content = read_regular(file)
        certificates = [] if b"PRIVATE KEY" in content else x509.load_pem_x509_certificates(content)
    except OSError as error:
        raise _no_authority(in_words(error)) from None
    except ValueError:
        raise _no_authority("a file that is no PEM certificate") from None
    if not certificates:
        raise _no_authority(
            "a PRIVATE key: the coordinator's own key has left its machine, so it protects nothing any more; tell the "
            "coordinator"
        )
    if len(certificates) != 1:
        raise _no_authority(f"{len(certificates)} certificates")
    if not _is_authority(certificates[0]):
        raise _no_authority("a certificate that is no authority's (server.crt?)")
    return certificates[0].public_bytes(Encoding.PEM)


def new_key(key: Path) -> SiteKey:
    """Make a key beside the present one, which goes on until `use_new_key`.

    Raises:
        RunError: FECG-660 if one waits already; FECG-601.
    """
    return make_key(_new(key))


def use_new_key(key: Path) -> SiteKey:
    """Put the new key in the place of the old one, which is gone then.

    A kill between the steps leaves the key whole: this again, or `ssh-keygen -y`, mends its public half.

    Raises:
        RunError: FECG-660 if there is no new key; FECG-643, FECG-601.
    """
    waiting = _new(key)
    if not waiting.exists():
        raise RunError(
            "FECG-660",
            "new key",
            found="none",
            expected=f"{waiting.name}, made by `fedecg-client renew-key`",
            fix="Run fedecg-client renew-key first, and send the public key that it makes.",
        )
    public = public_key_of(load_key(waiting))
    try:
        waiting.replace(key)
        write_whole(public_file(key), f"{public.text}\n")
        public_file(waiting).unlink(missing_ok=True)
    except OSError as error:
        raise _not_written(key.name, in_words(error)) from None
    return public


def waiting_key(key: Path) -> Path | None:
    """The new key, if one waits to be used."""
    return _new(key) if _new(key).exists() else None


def pair_fits(key: Path) -> bool:
    """Whether node.pub is the public half of node.key.

    Raises:
        RunError: FECG-643.
    """
    try:
        return read_public_key(public_file(key)).text == public_key_of(load_key(key)).text
    except SettingsError:
        return False


def _new(key: Path) -> Path:
    return key.with_name(f"{key.stem}.new{key.suffix}")


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except (x509.ExtensionNotFound, ValueError):
        return False


def _write_private(file: Path, content: bytes) -> None:
    """Whole or not at all, for its owner alone from the first byte on, and never over another."""
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        file.hardlink_to(part)  # fails where a key stands
    except FileExistsError:
        raise RunError(
            "FECG-660",
            f"file {file.name}",
            found="a key",
            expected="none: a key is never written over",
            fix="Use that key, or put it away first if nobody has it on a list.",
        ) from None
    except OSError as error:
        raise _not_written(file.name, in_words(error)) from None
    finally:
        with suppress(OSError):
            part.unlink()


def _kind_of(content: bytes) -> str:
    """What stands where a private key should."""
    if not content.strip():
        return "an empty file"
    if b"PUBLIC KEY" in content or content.startswith((b"ecdsa-", b"ssh-")):
        return "the public half of a key (node.pub?)"
    if b"RSA PRIVATE KEY" in content:
        return "a key of kind RSA"
    if b"PRIVATE KEY" in content and b"OPENSSH" not in content:
        return "a private key in another form than OpenSSH's"
    return "a file that is no private key, or a damaged one"


def _no_key(what: str, found: str) -> RunError:
    return RunError(
        "FECG-643",
        what,
        found=found,
        expected="the site's private key: EC P-384, OpenSSH's form, as `fedecg-client init` made it",
        fix="Bring it back from this site's own backup. If it is lost: fedecg-client renew-key makes another, which "
        "the coordinator adds.",
    )


def _no_ca(what: str, found: str) -> RunError:
    return RunError(
        "FECG-643",
        what,
        found=found,
        expected="the coordinator's certificate authority (PEM), as `fedecg-client init` put it there",
        fix="Ask the coordinator for tls/ca.crt, and compare its fingerprint over the phone. The key stays as it is.",
    )


def _no_authority(found: str) -> SettingsError:
    return SettingsError(
        "FECG-122",
        "--ca",
        found=found,
        expected="the coordinator's ca.crt: one certificate of an authority, PEM",
        fix="Ask the coordinator for tls/ca.crt, and compare its fingerprint over the phone.",
    )


def _not_written(what: str, found: str) -> RunError:
    return RunError(
        "FECG-601",
        f"file {what}",
        found=found,
        expected="a folder that can be written, with space left",
        fix="Free space on that disk, or look at the folder's permissions.",
    )
