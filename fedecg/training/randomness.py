"""Reproducible randomness of a local round: shuffles, lead masks and dropout follow from names and numbers alone.

In:  study seed, site name, stage, round. Out: a numpy generator, or a scope in which torch draws from a seed.
Called by `fedecg.training.local`; `repeated_seed` by both sides of a study that trains again. Secret randomness
(noise, masks, keys) never comes from here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["repeated_seed", "seeded_torch", "site_generator"]


def repeated_seed(seed: int, repeat: int) -> int:
    """The seed with which a study trains again: the study's own for 0, else the first 31 bits of a hash of both.

    Settings stay those of the study, to which a site is bound; only what is drawn becomes another. The rule: the first
    four bytes of sha256 of the JSON text ["repeat", seed, repeat], big-endian, without the highest bit.

    Args:
        seed: of the study, >= 0.
        repeat: 0 = the study itself.
    """
    if not repeat:
        return seed
    digest = hashlib.sha256(json.dumps(["repeat", seed, repeat]).encode()).digest()
    return int.from_bytes(digest[:4], "big") % 2**31


def site_generator(seed: int, site_name: str, stage: str, round_index: int) -> np.random.Generator:
    """A generator of its own for each (seed, site, stage, round), whatever ran before and at whichever site.

    Args:
        seed: of the study, >= 0.
        site_name: as in site.toml.
        stage: "align" or "survival".
        round_index: number of the round.
    """
    return np.random.default_rng(
        np.random.SeedSequence(_entropy("numpy", seed, site_name, stage, round_index))
    )


@contextmanager
def seeded_torch(seed: int, site_name: str, stage: str, round_index: int) -> Iterator[None]:
    """Inside, torch's CPU generator (dropout) starts from a seed of its own; outside, it goes on as if untouched."""
    before = torch.get_rng_state()
    # Only the CPU's generator: `torch.manual_seed` would also change that of every GPU.
    torch.default_generator.manual_seed(_entropy("torch", seed, site_name, stage, round_index) % 2**63)
    try:
        yield
    finally:
        torch.set_rng_state(before)


def _entropy(purpose: str, seed: int, site_name: str, stage: str, round_index: int) -> int:
    # JSON keeps the fields apart: site "a1" in round 2 is not site "a" in round 12.
    text = json.dumps([purpose, seed, site_name, stage, round_index])
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
