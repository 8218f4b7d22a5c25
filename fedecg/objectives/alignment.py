"""Alignment objectives: how far ECG embeddings are from what their reports say.

In:  projected ECG embeddings (N, D) from `fedecg.model`, the code bank and targets from `fedecg.text`.
Out: one scalar that `fedecg.training` minimises. `bank_loss` and `paper_loss` are sums over records divided by N: no
     record's term depends on another record, so mini-batches are unbiased and per-record clipping is sound.
     `infonce_loss` couples the records of a batch: neither holds, and differential privacy of a record rules it out.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, log_softmax, normalize

__all__ = ["COLLAPSED_BELOW", "COLLAPSE_REMEDY", "bank_loss", "infonce_loss", "paper_loss"]

COLLAPSED_BELOW = 0.5  # effective rank of embeddings over that of their targets
COLLAPSE_REMEDY = (
    'more align.rounds while the rank still rises; else align.loss = "bank", a lower align.temperature, or more '
    "align.reconstruction"
)
NOT_SHOWN = -1e9  # similarity to a statement that is left out: its share is 0, and 0 times it is no NaN


def bank_loss(
    projected: Tensor,
    bank: Tensor,
    targets: Tensor,
    temperature: Tensor | float,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Soft-target cross-entropy of cosine similarities against every statement of the bank.

    Every site compares with the same statements, so the negatives are the same everywhere.

    Args:
        projected: (N, D), ECG embeddings in the space of the bank; any length, only the direction counts.
        bank: (K, D), one embedded statement a row; a row of zeros is left out: nobody's negative.
        targets: (N, K), weights of the stated codes; a row sums to 1, or is all zero where nothing is stated.
        temperature: scalar > 0 that divides the similarities; or (N, 1), each record's own.
        class_weights: (K,) > 0, what each statement's term counts; None: 1 each.

    Returns:
        Scalar, nats per record: the sum over records divided by N. A record without statements adds 0 to the
        sum and still counts in N; of no records at all it is 0.

    Source: soft-target form of the softmax loss over a fixed bank; design.md section 4.
    """
    similarity = normalize(projected, dim=1) @ normalize(bank, dim=1).T / temperature
    similarity = similarity.masked_fill(~bank.any(dim=1), NOT_SHOWN)
    weighted = targets if class_weights is None else targets * class_weights
    per_record = -(weighted * log_softmax(similarity, dim=1)).sum(dim=1)
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


def infonce_loss(
    projected: Tensor, target_vectors: Tensor, same: Tensor, temperature: Tensor | float
) -> Tensor:
    """Contrast inside a batch, both ways: each ECG against all targets, each target against all ECGs.

    Records that state the same are each other's positives, never negatives: with 44 % of normal ECGs the plain loss
    would push equal ones apart. Which records are negatives depends on the batch, so sites of other mixes, and batches
    of other sizes, have other losses; `bank_loss` has not.

    Args:
        projected: (N, D), ECG embeddings in the space of the bank; only the direction counts.
        target_vectors: (N, D), weighted mean of the stated codes' embeddings; all zero: nothing is stated.
        same: (N, N) bool, symmetric; True where two records state the same, and on the diagonal.
        temperature: scalar > 0 that divides the similarities.

    Returns:
        Scalar >= 0, nats per record: mean of the two directions, each the cross-entropy against equal shares of the
        positives. Records without statements are neither anchors nor negatives and still count in N. 0 of a batch of
        one record, of none, or where nothing is stated.

    Source: Khosla et al. 2020, arXiv 2004.11362 (mean over positives outside the logarithm); Yang et al. 2022, arXiv
    2204.03610 (the same between images and texts, both ways).
    """
    stated = torch.any(target_vectors != 0, dim=1)
    similarity = normalize(projected, dim=1) @ normalize(target_vectors, dim=1).T / temperature
    similarity = similarity[stated][:, stated]
    positive = same[stated][:, stated].to(similarity.dtype)
    share = positive / positive.sum(dim=1, keepdim=True)
    to_targets = -(share * log_softmax(similarity, dim=1)).sum()
    to_ecgs = -(share * log_softmax(similarity.T, dim=1)).sum()
    return (to_targets + to_ecgs) / (2 * max(len(projected), 1))
