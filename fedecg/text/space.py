"""Where a bank's vectors lie: what turns an embedding of the bank's own language model into a vector beside them.

In:  embeddings of the bank's prompts, when it is built; later those of reports. Out: a `TextSpace`, which stands in the
     bank's file, and unit vectors. Called by `fedecg.text.whitening`, `bank` and `report_targets`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ENCODER", "TENSORS", "TextSpace"]

TENSORS = ("centre", "directions", "gains")
# What a bank's provenance says of its language model: with another one of these the vectors would be others.
ENCODER = ("weights-sha256", "settings-sha256", "pooling", "max-tokens")


@dataclass(frozen=True, eq=False)
class TextSpace:
    """Centre and whitening of a bank, kept so that other texts can be put beside its statements.

    Attributes:
        centre: (D,) float32, mean of the prompts' embeddings.
        directions: (R, D) float32, orthonormal: in which the prompts differ; R = 0 where the bank is centred only.
        gains: (R,) float32 > 0, by which each is stretched.
    """

    centre: NDArray[np.float32]
    directions: NDArray[np.float32]
    gains: NDArray[np.float32]

    def place(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings (N, D) as unit vectors (N, D) beside the bank's; all zero where one is the centre itself.

        Of a whitened bank only the directions of its statements count: what lies across them no statement speaks of.
        """
        centred = embeddings.astype(np.float64) - self.centre
        if len(self.gains):
            directions = self.directions.astype(np.float64)
            centred = (centred @ directions.T * self.gains) @ directions
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        unit: NDArray[np.float64] = np.divide(centred, length, out=np.zeros_like(centred), where=length > 0)
        return unit.astype(np.float32)

    def fits(self, dim: int) -> bool:
        """Whether its parts belong together, and to vectors of this length."""
        rank = len(self.gains)
        shapes = (self.centre.shape, self.directions.shape, self.gains.shape)
        parts = (self.centre, self.directions, self.gains)
        return shapes == ((dim,), (rank, dim), (rank,)) and all(
            part.dtype == np.float32 and bool(np.isfinite(part).all()) for part in parts
        )

    def sha256(self, provenance: Mapping[str, Any]) -> str:
        """Of the numbers, and of what the provenance says of the language model that they belong to."""
        digest = hashlib.sha256(
            json.dumps(
                [provenance.get(key) for key in ENCODER], sort_keys=True, separators=(",", ":")
            ).encode()
        )
        for name in TENSORS:
            values = getattr(self, name)
            digest.update(f"\0{name}{list(values.shape)}\0".encode() + values.astype("<f4").tobytes())
        return digest.hexdigest()
