"""Alignment objectives: how far ECG embeddings are from what their reports say.

In:  projected ECG embeddings (N, D) from `fedecg.model`, the code bank and targets from `fedecg.text`.
Out: one scalar that `fedecg.training` minimises. Both losses are sums over records divided by N: no record's
     term depends on another record, so mini-batches are unbiased and per-record clipping is sound.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, log_softmax, normalize

__all__ = ["bank_loss", "paper_loss"]


def bank_loss(projected: Tensor, bank: Tensor, targets: Tensor, temperature: Tensor | float) -> Tensor:
    """Soft-target cross-entropy of cosine similarities against every statement of the bank.

    Every site compares with the same statements, so the negatives are the same everywhere.

    Args:
        projected: (N, D), ECG embeddings in the space of the bank; any length, only the direction counts.
        bank: (K, D), one embedded statement a row.
        targets: (N, K), weights of the stated codes; a row sums to 1, or is all zero where nothing is stated.
        temperature: scalar > 0 that divides the similarities.

    Returns:
        Scalar, nats per record: the sum over records divided by N. A record without statements adds 0 to the
        sum and still counts in N; of no records at all it is 0.

    Source: soft-target form of the softmax loss over a fixed bank; design.md section 4.
    """
    similarity = normalize(projected, dim=1) @ normalize(bank, dim=1).T / temperature
    per_record = -(targets * log_softmax(similarity, dim=1)).sum(dim=1)
    return per_record.sum() / max(len(projected), 1)


def paper_loss(projected: Tensor, target_vectors: Tensor) -> Tensor:
    """Cosine embedding loss with positives only, as the authors train: 1 - cos(ECG, report).

    Args:
        projected: (N, D), ECG embeddings in the space of the bank.
        target_vectors: (N, D), weighted mean of the stated codes' embeddings; all zero: nothing is stated.

    Returns:
        Scalar in [0, 2]: the sum over records divided by N. A record without statements adds 0 to the sum;
        of no records at all it is 0.

    Source: Chen et al. 2025, doi 10.1109/TBDATA.2025.3536922. Without negatives it can collapse (all ECGs on
    one point); `bank_loss` is the default for that reason.
    """
    stated = torch.any(target_vectors != 0, dim=1)
    per_record = (1 - cosine_similarity(projected, target_vectors, dim=1)) * stated
    return per_record.sum() / max(len(projected), 1)
