"""Randomness that nobody can guess: noise and the sampling of patients.

In:  a key of the operating system. Out: a numpy generator. Called by whatever protects patients, and by nothing else:
what must be reproducible (initialisation, shuffles, dropout) comes from the study's seed, which the coordinator knows.

The stream is Philox 4x64 with a key and a counter of the operating system, 384 bits together; Opacus' own generator has
a seed of 64 bits. No attack on Philox is known, but it is no cipher either. ChaCha20 with a Box-Muller transform was
measured at ten times its price, more than the rest of a training step.
"""

from __future__ import annotations

import secrets

import numpy as np

__all__ = ["secret_generator"]

KEY_BITS, COUNTER_BITS = 128, 256


def secret_generator() -> np.random.Generator:
    """A generator of its own for one use; whoever keeps it could be made to repeat noise.

    Source: Salmon et al. 2011, doi 10.1145/2063384.2063405 (Philox).
    """
    key, counter = secrets.randbits(KEY_BITS), secrets.randbits(COUNTER_BITS)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
