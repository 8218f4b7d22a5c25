"""From a language model's embeddings to a bank's vectors: centred, perhaps whitened, each of length 1.

In:  (K, D) embeddings of the K prompts. Out: (K, D) float32 unit vectors, and the `TextSpace` in which they lie.
Called by `fedecg.text.build`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import TextError
from fedecg.text.space import TextSpace

__all__ = ["WHITENINGS", "whiten", "whitened"]

# Kind -> what a bank's provenance says of it.
WHITENINGS = {
    "none": "centred over the statements, length 1",
    "half": "centred over the statements, half-whitened (singular values -> square roots), length 1",
    "full": "centred over the statements, whitened (singular values -> 1), length 1",
}
POWERS = {"none": 1.0, "half": 0.5, "full": 0.0}
RANK_TOLERANCE = 1e-6
SAME_TOLERANCE = 1e-5  # float32 embeddings nearer to their mean than this share of their length are all one


def whiten(embeddings: NDArray[np.float32], kind: str = "half") -> NDArray[np.float32]:
    """The vectors of `whitened` alone."""
    return whitened(embeddings, kind)[0]


def whitened(embeddings: NDArray[np.float32], kind: str = "half") -> tuple[NDArray[np.float32], TextSpace]:
    """Centre the K embeddings, even out their spread by `kind`, set each to length 1.

    Centring takes away what all prompts share (language, subject). It is not enough: with all-MiniLM-L6-v2 the
    cosine of left and right bundle branch block is then still 0.986, since the directions in which whole groups
    of statements differ drown the one word. So "half" makes of the centred matrix U diag(s) V' the matrix
    U diag(sqrt(s)) V' (0.86). "full", U V', makes all statements equally unlike each other where D >= K - 1: what is
    alike is then no nearer than what is not. Computed in float64.

    Args:
        embeddings: (K, D), K >= 2, finite, as the language model gives them, not normalised.
        kind: a key of `WHITENINGS`.

    Returns:
        (K, D) float32 with rows of length 1, whose own mean is near, but not at, zero; and the space that puts other
        texts beside them.

    Raises:
        TextError: FECG-249 no such kind; FECG-252 embeddings that do not differ from their mean.

    Source: whitening of sentence embeddings, Su et al. 2021, arXiv 2103.15316; the half power is ours.
    """
    if kind not in POWERS:
        raise TextError(
            "FECG-249",
            "whitening",
            found="a kind that there is none of",
            expected=f"one of {', '.join(WHITENINGS)}",
        )
    centred = embeddings.astype(np.float64) - embeddings.mean(axis=0, dtype=np.float64)
    _refuse_sameness(embeddings, centred)
    left, spread, right = np.linalg.svd(centred, full_matrices=False)
    # Centring leaves at most K - 1 directions; what is left in the last one is rounding.
    kept = spread >= RANK_TOLERANCE * spread[0]
    evened = np.where(kept, np.sqrt(spread) if kind == "half" else spread ** POWERS[kind], 0)
    spread_evenly = left * evened @ right
    unit: NDArray[np.float64] = spread_evenly / np.linalg.norm(spread_evenly, axis=1, keepdims=True)
    stretched = kept if kind != "none" else np.zeros_like(kept)
    space = TextSpace(
        centre=embeddings.mean(axis=0, dtype=np.float64).astype(np.float32),
        directions=right[stretched].astype(np.float32),
        gains=(evened[stretched] / spread[stretched]).astype(np.float32),
    )
    return unit.astype(np.float32), space


def _refuse_sameness(embeddings: NDArray[np.float32], centred: NDArray[np.float64]) -> None:
    longest = np.linalg.norm(embeddings.astype(np.float64), axis=1).max()
    same = int(np.sum(np.linalg.norm(centred, axis=1) <= SAME_TOLERANCE * longest))
    if same:
        raise TextError(
            "FECG-252",
            "embeddings of the language model",
            found=f"{same} of {len(embeddings)} that do not differ from their mean",
            expected="embeddings that differ from prompt to prompt",
            fix="Of a decoder (Llama, Qwen) the first token has seen nothing yet: take --pooling last-token or mean.",
        )
