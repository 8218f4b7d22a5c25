"""Codes that alignment is not shown, so that zero-shot can be asked about statements that no ECG was pulled to.

In:  a bank, targets (N, K), the codes of `align.leave-out`. Out: targets and vectors without them.
Called by `fedecg.training` (targets) and by the client (vectors).

Rows and columns stay where they are, so that everything that goes by a code's place in the bank still fits; a statement
of zeros is nobody's positive and, in the losses, nobody's negative.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from fedecg.errors import TextError
from fedecg.text.bank import Bank

__all__ = ["shown_vectors", "targets_without"]

Float32 = NDArray[np.float32]


def targets_without(targets: Float32, bank: Bank, leave_out: Collection[str]) -> Float32:
    """Targets (N, K) whose other codes share what the codes left out had; zeros where nothing else is stated.

    Raises:
        TextError: FECG-378, codes that the bank does not have, or hardly any that remain.
    """
    kept = targets * _shown(bank, leave_out)
    total = kept.sum(axis=1, keepdims=True)
    shares: Float32 = np.divide(kept, total, out=np.zeros_like(kept), where=total > 0)
    return shares


def shown_vectors(bank: Bank, leave_out: Collection[str]) -> Float32:
    """The bank's vectors (K, D), with zeros for the codes left out.

    Raises:
        TextError: FECG-378, as `targets_without`.
    """
    return bank.vectors * _shown(bank, leave_out)[:, None]


def _shown(bank: Bank, leave_out: Collection[str]) -> Float32:
    unknown = sum(code not in bank.codes for code in leave_out)
    shown = np.array([code not in leave_out for code in bank.codes], dtype=np.float32)
    if unknown or shown.sum() < 2:
        raise TextError(
            "FECG-378",
            "align.leave-out",
            found=f"{unknown} of {len(leave_out)} codes that the bank does not have"
            if unknown
            else f"{len(leave_out)} of the bank's {len(bank.codes)} codes",
            expected="codes of the bank, at least 2 of which remain",
            fix="fedecg bank show BANK prints its codes.",
        )
    return shown
