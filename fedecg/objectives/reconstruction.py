"""Reconstruction objective: how well the decoder gives the ECG back.

In:  decoded and original signals (N, 12, T), in the units that the decoder predicts.
Out: one scalar that `fedecg.training` adds to the main loss of a stage.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["reconstruction_loss"]


def reconstruction_loss(reconstructed: Tensor, original: Tensor) -> Tensor:
    """Mean over records of the record's mean squared error, over all leads, hidden ones included.

    Args:
        reconstructed: (N, 12, T), the decoder's output.
        original: (N, 12, T), the signal before any lead was hidden, in the same units.

    Returns:
        Scalar, squared units of the signals: the sum over records divided by N; of no records at all it is 0.

    Source: the auxiliary task of Chen et al. 2025, doi 10.1109/TBDATA.2025.3536922.
    """
    per_record = (reconstructed - original).square().mean(dim=(1, 2))
    return per_record.sum() / max(len(original), 1)
