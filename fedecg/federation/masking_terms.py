"""What a task says of the masked sum that its reply goes into, and the keys of the sites that take part in it.

In:  the keys that sites have signed. Out: documents within tasks (`tasks.Task.masking`). Known to both sides.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from pydantic import Field

from fedecg.config import SITE_NAME, Section
from fedecg.errors import FederationError, SettingsError
from fedecg.federation.identity import SiteKey, key_of_text
from fedecg.privacy.masking import Circle

__all__ = ["KeyEntry", "Masking", "signed_by"]

Name = Annotated[str, Field(pattern=SITE_NAME)]


class KeyEntry(Section):
    """A site's key for the masked sums of one run, signed with the key under which the coordinator knows the site."""

    key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # X25519, public
    enrolment: Annotated[str, Field(max_length=400)]  # EC P-384, public, as in keys/NAME.pub
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{16,300}$")]


class Masking(Section):
    """One masked sum: which sites' masks cancel in it, and what makes it unlike any other."""

    number: Annotated[
        str, Field(pattern=r"^[0-9a-f]{32}$")
    ]  # random, new for every sum and every attempt at it
    keys: dict[Name, KeyEntry]
    scale: Annotated[float, Field(ge=0, le=2**40)] = (
        0.0  # of the weights of updates; a site's share is its own part
    )

    def tag(self, run: str) -> bytes:
        """Of the sum: the same at every site."""
        return hashlib.sha256(f"{run} {self.model_dump_json()}".encode()).digest()

    def circle(self) -> Circle:
        """The sites and their keys.

        Raises:
            FederationError: FECG-564 fewer than 3 sites.
        """
        return Circle({name: bytes.fromhex(entry.key) for name, entry in self.keys.items()})


def signed_words(lock_sha256: str, run: str, site: str, key: str) -> bytes:
    """What a site signs: its key is for this site, this run and this lock alone."""
    return "\n".join(("fedecg masked sums", lock_sha256, run, site, key)).encode()


def signed_by(entry: KeyEntry, lock_sha256: str, run: str, site: str) -> SiteKey:
    """The enrolment key that has signed a key.

    Raises:
        FederationError: FECG-568 if none has.
    """
    try:
        enrolment = key_of_text(entry.enrolment)
        words = signed_words(lock_sha256, run, site, entry.key)
        enrolment.key.verify(bytes.fromhex(entry.signature), words, ec.ECDSA(SHA384()))
    except (InvalidSignature, SettingsError, ValueError):
        raise FederationError(
            "FECG-568",
            f"key of {site} for masked sums",
            found="one without a signature for this site, run and lock",
            expected="a key signed with the key under which the site was added",
            fix="Tell the coordinator: a key on its way was changed, or that site runs another version.",
        ) from None
    return enrolment
