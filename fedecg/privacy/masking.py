"""Sums that nobody can take apart: each site's numbers leave it under masks that cancel in the sum of all.

In:  a site's words (`fixed_point`), its key, its peers' public keys. Out: masked words and sealed shares; later, for
     the sites that answered, the shares that open their sum; at the coordinator, that sum and nothing else.
Called by the client (`mask`, `open_shares`) and by the server (`opened_sum`); knows neither messages nor files.

Double masking (Bonawitz et al. 2017). Site u sends

    y_u = x_u + stream(b_u) + sum over v > u of stream(p_uv) - sum over v < u of stream(p_uv)      modulo 2^32 or 2^64

b_u, its own mask, is drawn anew each time. p_uv, that of a pair, both ends derive by HKDF from one key agreement a
run (X25519) and the tag of the sum (run, round, attempt), so that the p of one sum say nothing of those of any other.
With y_u go shares of b_u and of every p_uv, sealed for each peer. Once it is known who answered, each of them gives,
of one who answered, the share of b; of one who did not, the shares of its p with those who did. Never both:
`fedecg_client.masks` holds a site to its first answer.

Unlike Bonawitz et al. a lost site's private key is never opened, only its pairs of this one sum; its own shares
travel with its words, since without these nobody needs them. So keys are exchanged once a run, and a sum is two
messages.

Guarantees:
    As long as fewer than `2 threshold - sites` sites (a third of them, about) collude with the coordinator, it learns
    of one tag at most one sum, over at least `threshold` sites, whatever it says of who is lost: opening a site's own
    words takes the shares of its b from `threshold` sites, and of its p from as many others, and there are not so
    many. A reply that comes after its sum was opened without it stays closed. All this holds if a site puts one kind
    of words under a tag: p is the same in a second, and b is opened, so that the difference of the two would be bare.
    `fedecg_client.masks` holds a site to that.
    Not guaranteed: that sums of two tags cannot be compared. Who asks the same question of all sites and then of all
    but one learns the difference. Nor that a site's own numbers are true.

Edge cases: fewer than 3 sites, FECG-564; fewer than `threshold` answers, FECG-564 and nothing is opened; shares that
are not those that were made, FECG-566; a second answer for another set of sites, FECG-444.

Source: Bonawitz et al. 2017, CCS, doi 10.1145/3133956.3133982.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from fedecg.errors import FederationError, PolicyError
from fedecg.privacy.sharing import SECRET_BYTES, SHARE_BYTES, part, rejoin, unfit_shares

__all__ = [
    "FEWEST_SITES",
    "Circle",
    "Masked",
    "Opening",
    "Words",
    "added",
    "fresh_key",
    "mask",
    "open_shares",
    "opened_sum",
    "public_bytes",
    "threshold_of",
]

FEWEST_SITES = 3
NONCE_BYTES = 12
Randomness = Callable[[int], bytes]


@dataclass(frozen=True, eq=False)
class Words:
    """What is added up: (P,) uint32 modulo 2^32, an update, and (S,) uint64 modulo 2^64, counts and sums."""

    update: NDArray[np.uint32]
    sums: NDArray[np.uint64]

    def plus(self, other: Words, sign: int = 1) -> Words:
        """Added or, with sign -1, taken away; wraps around."""
        if sign < 0:
            return Words(self.update - other.update, self.sums - other.sums)
        return Words(self.update + other.update, self.sums + other.sums)


@dataclass(frozen=True)
class Circle:
    """The sites of a masked sum, by name: their public keys (X25519, 32 bytes each)."""

    publics: Mapping[str, bytes]

    def __post_init__(self) -> None:
        if len(self.publics) < FEWEST_SITES:
            raise FederationError(
                "FECG-564",
                "sites of a masked sum",
                found=f"{len(self.publics)}",
                expected=f"at least {FEWEST_SITES}: of fewer, each learns the others' numbers from the sum",
                fix='Wait for more sites, or agree on privacy.sums = "plain".',
            )

    @cached_property
    def names(self) -> list[str]:
        """In the order that decides places and signs."""
        return sorted(self.publics)

    @property
    def threshold(self) -> int:
        """Sites that must answer both messages."""
        return threshold_of(len(self.publics))

    def place(self, site: str) -> int:
        """1..sites, of its shares."""
        return self.names.index(site) + 1


@dataclass(frozen=True, eq=False)
class Masked:
    """What a site sends.

    Attributes:
        words: masked.
        bundles: peer -> shares of this site's secrets that only the peer can read; one is its own.
        commitments: sha256 of the secrets: own mask under the site's own name, that of a pair under the peer's.
    """

    words: Words
    bundles: Mapping[str, bytes]
    commitments: Mapping[str, bytes]


@dataclass(frozen=True)
class Opening:
    """What a site gives to open a sum: shares of secrets, by whose they are.

    Attributes:
        own: site that answered -> share of its own mask.
        pairs: site that answered -> lost site -> share of the mask of that pair.
    """

    own: Mapping[str, bytes]
    pairs: Mapping[str, Mapping[str, bytes]]


def threshold_of(sites: int) -> int:
    """More than two thirds of the sites, and at least 3."""
    return max(FEWEST_SITES, 2 * sites // 3 + 1)


def fresh_key() -> X25519PrivateKey:
    """A private key, from the operating system."""
    return X25519PrivateKey.generate()


def public_bytes(key: X25519PrivateKey) -> bytes:
    """Its public half, 32 bytes."""
    return key.public_key().public_bytes_raw()


def mask(
    key: X25519PrivateKey,
    circle: Circle,
    site: str,
    tag: bytes,
    words: Words,
    randomness: Randomness = os.urandom,
) -> Masked:
    """Put a site's words under its own mask and those of its pairs.

    Args:
        key: of the site, whose public half stands in the circle.
        circle: all sites of the sum.
        site: its name.
        tag: of the sum, the same at all sites, never used for another.
        words: of the site.
        randomness: of the own mask, from the operating system; tests inject their own.

    Guarantees: without the own mask's seed every word is uniform, whatever the site's numbers are.
    """
    own = randomness(SECRET_BYTES)
    shared = {name: _agreed(key, circle, site, name) for name in circle.names}
    secrets = {site: own} | {name: _pair_seed(shared[name], tag) for name in circle.names if name != site}
    masked = words
    for name, seed in secrets.items():
        masked = masked.plus(_stream(seed, words), -1 if name < site else 1)
    shares = {name: part(seed, circle.threshold, len(circle.names)) for name, seed in secrets.items()}
    bundles = {}
    for index, peer in enumerate(circle.names):
        plain = b"".join(shares[name][index] for name in circle.names)
        nonce = os.urandom(NONCE_BYTES)
        sealed = ChaCha20Poly1305(_seal_key(shared[peer], tag, site, peer)).encrypt(nonce, plain, tag)
        bundles[peer] = nonce + sealed
    return Masked(masked, bundles, {name: _commitment(seed) for name, seed in secrets.items()})


def open_shares(
    key: X25519PrivateKey,
    circle: Circle,
    site: str,
    tag: bytes,
    answered: Collection[str],
    bundles: Mapping[str, bytes],
) -> Opening:
    """The shares that open the sum of the sites that answered: one kind a peer.

    Whoever calls this must do so once a tag (`fedecg_client.masks` keeps what was answered).

    Args:
        key: of the site.
        circle: all sites of the sum.
        site: its name; it must be among those that answered.
        tag: of the sum.
        answered: whose words are in the sum; all others are lost.
        bundles: site that answered -> what it sealed for this one.

    Raises:
        PolicyError: FECG-444 too few or unknown sites, or not this one.
        FederationError: FECG-569 a bundle that cannot be opened.
    """
    known = set(answered)
    if len(known) < circle.threshold or not known <= set(circle.names) or site not in known:
        raise PolicyError(
            "FECG-444",
            "sites of a sum that is to be opened",
            found=f"{len(known)} of {len(circle.names)} sites",
            expected=f"at least {circle.threshold} sites of this sum, {site} among them",
            fix="Nothing was revealed. A sum of so few sites would tell too much of each.",
        )
    lost = [name for name in circle.names if name not in known]
    own: dict[str, bytes] = {}
    pairs: dict[str, dict[str, bytes]] = {}
    for name in sorted(known):
        shares = _unsealed(key, circle, site, name, tag, bundles.get(name, b""))
        own[name] = shares[name]
        pairs[name] = {other: shares[other] for other in lost}
    return Opening(own, pairs)


def added(words: Sequence[Words]) -> Words:
    """Masked words of several sites, added up; they need not be kept apart for that.

    Raises:
        FederationError: FECG-567 words of different lengths.
    """
    if len({(one.update.size, one.sums.size) for one in words}) > 1:
        raise FederationError(
            "FECG-567",
            "masked replies",
            found="numbers of different lengths",
            expected="the same from every site",
            fix="All sites must run the same version of fedecg.",
        )
    return reduce(Words.plus, words)


def opened_sum(
    circle: Circle,
    masked: Words,
    commitments: Mapping[str, Mapping[str, bytes]],
    openings: Mapping[str, Opening],
) -> Words:
    """The sum of the words of all sites that answered.

    Args:
        circle: all sites of the sum.
        masked: sum of the masked words of the sites that answered.
        commitments: site that answered -> those that it sent.
        openings: site -> its shares; at least `threshold` sites.

    Raises:
        FederationError: FECG-564 too few sites or shares; FECG-566 shares that do not fit.
    """
    if len(commitments) < circle.threshold:
        rejoin({}, circle.threshold)
    lost, total = [name for name in circle.names if name not in commitments], masked
    for name, made in sorted(commitments.items()):
        own = {circle.place(peer): one.own[name] for peer, one in openings.items() if name in one.own}
        total = total.plus(_stream(_recovered(circle, made.get(name, b""), own), total), -1)
        for other in lost:
            shares = {
                circle.place(peer): one.pairs[name][other]
                for peer, one in openings.items()
                if other in one.pairs.get(name, {})
            }
            seed = _recovered(circle, made.get(other, b""), shares)
            total = total.plus(_stream(seed, total), 1 if other < name else -1)
    return total


def _recovered(circle: Circle, commitment: bytes, shares: Mapping[int, bytes]) -> bytes:
    secret = rejoin(shares, circle.threshold)
    if not hmac.compare_digest(_commitment(secret), commitment):
        raise unfit_shares()
    return secret


def _stream(seed: bytes, like: Words) -> Words:
    """As many uniform words, from a seed that is used for this stream alone."""
    length = 4 * like.update.size + 8 * like.sums.size
    key = hashlib.sha256(b"fedecg mask stream" + seed).digest()
    drawn = Cipher(AES(key), CTR(bytes(16))).encryptor().update(bytes(length))
    update = np.frombuffer(drawn, dtype="<u4", count=like.update.size)
    return Words(update, np.frombuffer(drawn, dtype="<u8", count=like.sums.size, offset=4 * like.update.size))


def _agreed(key: X25519PrivateKey, circle: Circle, site: str, peer: str) -> bytes:
    """What only these two know; of a site with itself, what only it knows."""
    if peer == site:
        return hashlib.sha256(b"fedecg own" + key.private_bytes_raw()).digest()
    try:
        return key.exchange(X25519PublicKey.from_public_bytes(circle.publics[peer]))
    except ValueError:
        raise FederationError(
            "FECG-569",
            "public key of a site",
            found="bytes that are no X25519 key",
            expected="32 bytes, as that site made them",
            fix="Tell the coordinator.",
        ) from None


def _pair_seed(shared: bytes, tag: bytes) -> bytes:
    return HKDF(SHA256(), SECRET_BYTES, None, b"fedecg pairwise mask" + tag).derive(shared)


def _seal_key(shared: bytes, tag: bytes, sender: str, receiver: str) -> bytes:
    names = "\0".join(("", sender, receiver)).encode()
    return HKDF(SHA256(), 32, None, b"fedecg sealed shares" + tag + names).derive(shared)


def _unsealed(
    key: X25519PrivateKey, circle: Circle, site: str, sender: str, tag: bytes, bundle: bytes
) -> dict[str, bytes]:
    """Name -> share of the sender's secret of that name."""
    shared = _agreed(key, circle, site, sender)
    try:
        opener = ChaCha20Poly1305(_seal_key(shared, tag, sender, site))
        plain = opener.decrypt(bundle[:NONCE_BYTES], bundle[NONCE_BYTES:], tag)
    except (InvalidTag, ValueError):
        raise FederationError(
            "FECG-569",
            "sealed shares",
            found="bytes that were not sealed for this site and this sum",
            expected="what the other site sent",
            fix="Nothing was revealed. Tell the coordinator.",
        ) from None
    return {name: plain[SHARE_BYTES * at : SHARE_BYTES * (at + 1)] for at, name in enumerate(circle.names)}


def _commitment(secret: bytes) -> bytes:
    return hashlib.sha256(b"fedecg commitment" + secret).digest()
