"""What travels as a site's update: its weights, or in 16 bits how far it has moved them.

In:  the weights that came, those after training, `federation.transfer`. Out: one flat vector for `messages`, and back.
Called by both sides. A 16-bit change halves what a site sends; the stated error is that of one rounding:

    float32     the weights themselves, exact
    float16     change rounded to 11 bits: relative error <= 2^-11, absolute error <= 2^-25 below 2^-14; a change
                beyond 65,504 becomes infinite and is rejected like any update that is not finite
    bfloat16    change rounded to 8 bits: relative error <= 2^-8, over the whole range of float32

The global weights on their way to the sites stay float32: every site starts from the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.config import Transfer
from fedecg.errors import FederationError

__all__ = ["decoded", "encoded"]

Vector = NDArray[np.float32]


def encoded(trained: Vector, received: Vector, transfer: Transfer) -> NDArray[Any]:
    """(P,) as it is sent: float32 weights, float16 change, or bfloat16 change as the bits of uint16."""
    if transfer == "float32":
        return trained
    change = trained - received
    if transfer == "float16":
        with np.errstate(over="ignore"):  # infinite then, and rejected
            return change.astype(np.float16)
    bits = change.view(np.uint32)
    # Round to nearest, ties to even: add just under half of what is cut, and the last kept bit.
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    finite = np.isfinite(change)
    return np.where(finite, rounded >> 16, 0x7FC0).astype(np.uint16)


def decoded(update: NDArray[Any] | None, sent: Vector, transfer: Transfer) -> Vector | None:
    """The site's weights, (P,) float32; None if none came.

    Raises:
        FederationError: FECG-501 another kind of number than `federation.transfer`; FECG-504 another length.
    """
    if update is None:
        return None
    if update.dtype != KINDS[transfer]:
        raise FederationError(
            "FECG-501",
            "update of a site",
            found=f"numbers of kind {update.dtype}",
            expected=f"{KINDS[transfer]} (federation.transfer = {transfer})",
        )
    if transfer == "float32":
        return update
    if update.shape != sent.shape:
        raise FederationError(
            "FECG-504",
            "update of a site",
            found=f"{update.size} numbers",
            expected=f"{sent.size} numbers",
        )
    if transfer == "float16":
        return sent + update.astype(np.float32)
    return sent + (update.astype(np.uint32) << 16).view(np.float32)


KINDS: dict[Transfer, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),
}
