"""A secret parted among peers: any `threshold` of the shares give it back, fewer say nothing about it (Shamir).

In:  a secret of 31 bytes. Out: one share of 32 bytes a peer, and the secret again from enough of them.
Called by `masking`. The same scheme as `flwr.common.secure_aggregation.crypto.shamir`, which no room but the
federation's messages may import; there it works on blocks of 16 bytes in GF(2^128), here on a whole seed modulo a
prime, which is one polynomial a secret instead of three. The tests hold both to the same contract.

Guarantees: shares of fewer than `threshold` peers are uniform and independent of the secret, whatever it is.

Source: Shamir 1979, Communications of the ACM 22:612-613.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping

from fedecg.errors import FederationError

__all__ = ["SECRET_BYTES", "SHARE_BYTES", "part", "rejoin"]

PRIME = 2**255 - 19
SECRET_BYTES, SHARE_BYTES = 31, 32  # every secret and every share is below the prime

Below = Callable[[int], int]  # a secret whole number below another


def part(secret: bytes, threshold: int, peers: int, below: Below = secrets.randbelow) -> list[bytes]:
    """One share a peer, in the order of their places 1..peers.

    Args:
        secret: SECRET_BYTES.
        threshold: shares that give the secret back, 1..peers.
        peers: shares that are made.
        below: draws the polynomial, from the operating system; tests inject their own.
    """
    coefficients = [int.from_bytes(secret, "big"), *(below(PRIME) for _ in range(threshold - 1))]
    return [_at(coefficients, place).to_bytes(SHARE_BYTES, "big") for place in range(1, peers + 1)]


def rejoin(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret of which these are shares.

    Args:
        shares: place (1..peers) -> share; the first `threshold` by place are used.
        threshold: with which it was parted.

    Raises:
        FederationError: FECG-564 fewer shares; FECG-566 shares of no such secret.
    """
    if len(shares) < threshold:
        raise FederationError(
            "FECG-564",
            "shares of a mask",
            found=f"{len(shares)}",
            expected=f"at least {threshold}: more than two thirds of the sites, and 3",
            fix="Too few sites answered the second message of a masked sum; the sum stays closed.",
        )
    places = sorted(shares)[:threshold]
    secret = sum(int.from_bytes(shares[place], "big") * _weight(place, places) for place in places) % PRIME
    if secret.bit_length() > 8 * SECRET_BYTES:
        raise unfit_shares()
    return secret.to_bytes(SECRET_BYTES, "big")


def unfit_shares() -> FederationError:
    """Shares that are not of one secret, or not of the one that was committed to."""
    return FederationError(
        "FECG-566",
        "shares of a mask",
        found="a secret that is not the one that was parted",
        expected="shares as the site made them",
        fix="A site answered with shares of another sum, or runs another version; the sum stays closed.",
    )


def _at(coefficients: list[int], place: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * place + coefficient) % PRIME
    return value


def _weight(place: int, places: list[int]) -> int:
    """Of a place in the value at 0 (Lagrange)."""
    above, below = 1, 1
    for other in places:
        if other != place:
            above, below = above * other % PRIME, below * (other - place) % PRIME
    return above * pow(below, -1, PRIME) % PRIME
