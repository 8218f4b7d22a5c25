"""What a site and its coordinator know each other by: the site's public key, the coordinator's authority.

In:  a file that somebody sent, a key, a certificate. Out: the key in OpenSSH's form, and fingerprints to read over the
phone, written the same way on both sides. Called by `fedecg_server.sites`, `fedecg_server.certificates` and
`fedecg_client.keys`. Of a key file only the key itself is kept: what else it says (comments, options) stays behind.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedecg.errors import SettingsError
from fedecg.files import in_words

__all__ = ["SiteKey", "certificate_fingerprint", "key_of_text", "public_key_of", "read_public_key"]

MOST_BYTES = 4096  # a P-384 key with a comment has about 230
KIND = "ecdsa-sha2-nistp384"


@dataclass(frozen=True)
class SiteKey:
    """A site's public key.

    Attributes:
        key: EC P-384.
        text: `ecdsa-sha2-nistp384 BASE64`, without comment.
        fingerprint: `SHA256:...`, as `ssh-keygen -l -f FILE` prints it.
    """

    key: ec.EllipticCurvePublicKey
    text: str
    fingerprint: str


def read_public_key(path: Path) -> SiteKey:
    """Read one public key: EC P-384 in OpenSSH's form, one line.

    Raises:
        SettingsError: FECG-128 for a private key, which is not kept; FECG-127 for anything else that is no such key.
    """
    content = _read_small_file(path)
    if b"PRIVATE KEY" in content:
        raise SettingsError(
            "FECG-128",
            "key file",
            found="a PRIVATE key",
            expected="the public key, node.pub",
            fix="That key has left its site, so it protects nothing any more: the site makes a new one "
            "and sends node.pub. Delete this file and the mail that it came in. Nothing was copied.",
        )
    lines = [line for line in content.splitlines() if line.strip()]
    if len(lines) != 1:
        raise _no_key(f"{len(lines)} lines")
    words = lines[0].split(maxsplit=2)
    if len(words) < 2 or words[0] != KIND.encode():
        raise _no_key("a line of another kind")
    return _parsed(words[1])


def public_key_of(private: ec.EllipticCurvePrivateKey) -> SiteKey:
    """The public half of a site's key (EC P-384), as the coordinator will be given it."""
    key = private.public_key()
    text = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    return _site_key(key, text, base64.b64decode(text.split()[1]))


def key_of_text(text: str) -> SiteKey:
    """A public key as `SiteKey.text` writes it.

    Raises:
        SettingsError: FECG-127.
    """
    kind, _, encoded = text.partition(" ")
    if kind != KIND:
        raise _no_key("a key of another kind")
    return _parsed(encoded.encode())


def certificate_fingerprint(certificate: x509.Certificate) -> str:
    """sha256 of a certificate: 16 groups of four hexadecimal digits, to be read over the phone.

    `openssl x509 -noout -fingerprint -sha256 -in FILE` prints the same digits in pairs.
    """
    text = certificate.fingerprint(hashes.SHA256()).hex().upper()
    return " ".join(text[start : start + 4] for start in range(0, len(text), 4))


def _parsed(encoded: bytes) -> SiteKey:
    text = f"{KIND} ".encode() + encoded
    try:
        blob = base64.b64decode(encoded, validate=True)
        key = serialization.load_ssh_public_key(text)
    except (ValueError, binascii.Error, UnsupportedAlgorithm) as error:
        raise _no_key(f"a damaged key ({type(error).__name__})") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise _no_key("a key of another kind")
    if key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH) != text:
        raise _no_key("a key that is not written as OpenSSH writes it")
    return _site_key(key, text.decode(), blob)


def _site_key(key: ec.EllipticCurvePublicKey, text: str, blob: bytes) -> SiteKey:
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return SiteKey(key, text, f"SHA256:{digest}")


def _read_small_file(path: Path) -> bytes:
    try:
        # A link may lead anywhere, a pipe would wait for ever: a key comes as a plain file.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        found = "a symbolic link" if path.is_symlink() else in_words(error)
        raise _no_key(found) from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _no_key("no plain file")
        content = os.read(descriptor, MOST_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > MOST_BYTES:
        raise _no_key(f"a file of more than {MOST_BYTES} bytes")
    return content


def _no_key(found: str) -> SettingsError:
    return SettingsError(
        "FECG-127",
        "key file",
        found=found,
        expected=f"one line `{KIND} BASE64 COMMENT` in a plain file",
        fix="Ask the site for the file node.pub that `fedecg-client init` made there.",
    )
