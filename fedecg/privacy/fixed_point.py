"""Numbers as whole numbers modulo 2^32 or 2^64, so that masks hide them perfectly and sums of them are exact.

In:  an update (float32), counts, sums. Out: words, and the sums again. Called by `fedecg.federation.masked`.

    update      one word of 32 bits a coordinate: share x change / step, rounded; step = bound / 2^30
                error of a weighted sum: at most sites x step / 2; no word overflows while the shares' sum is at most 2
    counts      one word of 64 bits, exact up to 2^63
    sums        two words of 64 bits, steps of 2^-40: error at most sites x 2^-41; range +-2^70, up to 32,768 sites

As Flower's `quantize`, but rounded to nearest instead of by chance: sums of counts stay exact, and the same update
gives the same words. What does not fit is refused, never clipped: a clipped update would be another one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import FederationError

__all__ = [
    "MOST_SHARES",
    "counts_of_words",
    "sums_of_words",
    "update_error",
    "update_of_words",
    "words_of_counts",
    "words_of_sums",
    "words_of_update",
]

Words32 = NDArray[np.uint32]
Words64 = NDArray[np.uint64]
Float64 = NDArray[np.float64]

STEPS = 2**30  # of one bound
MOST_SHARES = 2.0  # sum of the shares of an update, beyond which a word may overflow
FINE, LOW = 40, 48  # bits behind the point; bits of the low word
FARTHEST = 2.0**70  # of a sum
HIGH_STEP = 2.0 ** (LOW - FINE)


def words_of_update(change: NDArray[np.float32], share: float, bound: float) -> Words32:
    """(P,) share x change in steps of bound / 2^30.

    Args:
        change: (P,) of the weights in a round.
        share: of the site in the average, 0..1.
        bound: largest change of one weight.

    Raises:
        FederationError: FECG-445 a change that is not finite or beyond the bound; a share outside 0..1.
    """
    # A change that is not finite compares false.
    wrong = int(np.count_nonzero(~(np.abs(change) <= bound)))
    if wrong or not 0 <= share <= 1:
        raise FederationError(
            "FECG-445",
            "update of a site, before it is masked",
            found=f"{wrong} of {change.size} changes beyond the bound or not finite, share {share:.3g}",
            expected=f"finite changes within +-{bound:g} (privacy.masked-bound), a share within 0..1",
            fix="Lower the learning rate or check this site's signals; a masked update cannot be judged elsewhere.",
        )
    steps = np.rint(change.astype(np.float64) * (share * STEPS / bound))
    return steps.astype(np.int32).view(np.uint32)


def update_of_words(words: Words32, bound: float) -> Float64:
    """(P,) weighted sum of the changes."""
    return words.view(np.int32).astype(np.float64) * (bound / STEPS)


def update_error(sites: int, bound: float) -> float:
    """How far a coordinate of the weighted sum may be from the exact one."""
    return sites * bound / STEPS / 2


def words_of_counts(counts: NDArray[np.int64]) -> Words64:
    """(n,) as they are, modulo 2^64."""
    return counts.astype(np.int64).view(np.uint64)


def counts_of_words(words: Words64) -> NDArray[np.int64]:
    """(n,) sums of counts."""
    return words.view(np.int64)


def words_of_sums(sums: Float64) -> Words64:
    """(2 n,) high words, then low words.

    Raises:
        FederationError: FECG-445 sums that are not finite or beyond 2^70.
    """
    wrong = int(np.count_nonzero(~(np.abs(sums) <= FARTHEST)))
    if wrong:
        raise FederationError(
            "FECG-445",
            "sums of a site, before they are masked",
            found=f"{wrong} of {sums.size} numbers that are not finite or too large",
            expected="finite sums within +-2^70",
            fix="Lower the learning rate or check this site's signals.",
        )
    high = np.floor(sums / HIGH_STEP)
    low = np.rint((sums - high * HIGH_STEP) * 2.0**FINE)
    return np.concatenate([high.astype(np.int64).view(np.uint64), low.astype(np.uint64)])


def sums_of_words(words: Words64) -> Float64:
    """(n,) from the added (2 n,) words."""
    high, low = np.split(words, 2)
    return high.view(np.int64).astype(np.float64) * HIGH_STEP + low.astype(np.float64) * 2.0**-FINE
