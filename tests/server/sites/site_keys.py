"""Keys of sites in their forms; plain functions."""

from __future__ import annotations

import socket

from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric import ec

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
