"""Layers of the dual attention encoder: batch-wise dropout, temporal and cross-lead attention, pooling.

In:  feature maps (N, leads, steps, width): N records, one row of tokens a lead.
Out: maps of the same shape, attention weights on request, one embedding a record. Called by `fedecg.model.encoder`.

Every module that owns parameters takes the batch as its first axis and couples no two records, so per-sample gradients
can be taken module by module (Opacus). The exception is BatchNorm, which only the `paper` preset has.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "BatchwiseDropout",
    "CrossLeadAttention",
    "LeadLinear",
    "LeadNorm",
    "MeanMaxPooling",
    "TemporalAttention",
    "initialise_linear",
    "sinusoidal_positions",
]


class BatchwiseDropout(nn.Module):
    """Dropout with one mask for the whole batch, so that the scores of a risk set stay comparable.

    The mask is drawn from torch's default generator, as all dropout is: training seeds it in its own scope.

    Args:
        rate: share of the features that a step hides, in [0, 1).

    Source: Chen et al. 2025 (doi 10.1109/TBDATA.2025.3536922).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, features: Tensor) -> Tensor:
        """Hide the same features in every record; (N, ...) -> (N, ...), expectation kept."""
        if not self.training or self.rate == 0:
            return features
        kept = torch.rand(features.shape[1:], device=features.device, dtype=features.dtype) >= self.rate
        return features * (kept.to(features.dtype) / (1 - self.rate))


class LeadLinear(nn.Module):
    """One linear layer a lead, computed as one batched product: (N, leads, steps, inputs) -> (..., outputs).

    Args:
        leads: number of layers.
        inputs, outputs: features before and after.
    """

    def __init__(self, leads: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(leads, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(leads, outputs))
        for weight in self.weight:
            nn.init.xavier_uniform_(weight)

    def forward(self, features: Tensor) -> Tensor:
        """Apply each lead's own layer; the result lies lead by lead in memory, the next layer needs no copy."""
        records, leads, steps, inputs = features.shape
        by_lead = features.transpose(0, 1).reshape(leads, records * steps, inputs)
        product = torch.baddbmm(self.bias.unsqueeze(1), by_lead, self.weight.transpose(1, 2))
        return product.view(leads, records, steps, product.shape[2]).transpose(0, 1)


class LeadNorm(nn.Module):
    """LayerNorm over the width with its own scale and shift for each lead; (N, leads, steps, width)."""

    def __init__(self, leads: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(leads, width))
        self.bias = nn.Parameter(torch.zeros(leads, width))

    def forward(self, features: Tensor) -> Tensor:
        """Normalise each token, then scale and shift it with its lead's own parameters."""
        by_lead = features.transpose(0, 1)
        normal = F.layer_norm(by_lead, (features.shape[-1],))
        return torch.addcmul(self.bias[:, None, None], normal, self.weight[:, None, None]).transpose(0, 1)


class TemporalAttention(nn.Module):
    """For each lead its own pre-norm self-attention over time and its own MLP, all leads in one batched module.

    Args:
        leads, steps, width: shape of the map (N, leads, steps, width).
        heads: attention heads of each lead; divides the width.
        mlp: hidden units of the MLP per unit of width.
        dropout: rate of the batch-wise dropout after the positions and inside the MLP.
    """

    positions: Tensor

    def __init__(self, leads: int, steps: int, width: int, heads: int, mlp: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.register_buffer("positions", sinusoidal_positions(steps, width), persistent=False)
        self.dropout = BatchwiseDropout(dropout)
        self.attention_norm = LeadNorm(leads, width)
        self.query_key_value = LeadLinear(leads, width, 3 * width)
        self.out = LeadLinear(leads, width, width)
        self.mlp_norm = LeadNorm(leads, width)
        self.mlp = nn.Sequential(
            LeadLinear(leads, width, mlp * width),
            nn.GELU(),
            BatchwiseDropout(dropout),
            LeadLinear(leads, mlp * width, width),
            BatchwiseDropout(dropout),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Attend over time within each lead; (N, leads, steps, width) -> the same."""
        placed = self.dropout(features + self.positions)
        # Lead by lead in memory from here on: the batched products below then need no copies.
        placed = placed.transpose(0, 1).contiguous().transpose(0, 1)
        query, key, value = _split_heads(self.query_key_value(self.attention_norm(placed)), self.heads)
        attended: Tensor = placed + self.out(_attend(query, key, value))
        result: Tensor = attended + self.mlp(self.mlp_norm(attended))
        return result

    def weights(self, features: Tensor) -> Tensor:
        """Attention weights (N, leads, heads, steps, steps); the last axis sums to 1. No dropout."""
        projected = self.query_key_value(self.attention_norm(features + self.positions))
        query, key, _ = _split_heads(projected, self.heads)
        return _weights_by_key(query, key).transpose(-2, -1)


class CrossLeadAttention(nn.Module):
    """Pre-norm self-attention over the leads, one token a lead, and an MLP.

    Args:
        leads, width: shape of the tokens (N, leads, width).
        heads: attention heads; divides the width.
        mlp: hidden units of the MLP per unit of width.
        dropout: rate of the batch-wise dropout after the positions and inside the MLP.
    """

    positions: Tensor

    def __init__(self, leads: int, width: int, heads: int, mlp: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.register_buffer("positions", sinusoidal_positions(leads, width), persistent=False)
        self.dropout = BatchwiseDropout(dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = initialise_linear(nn.Linear(width, 3 * width))
        self.out = initialise_linear(nn.Linear(width, width))
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            initialise_linear(nn.Linear(width, mlp * width)),
            nn.GELU(),
            BatchwiseDropout(dropout),
            initialise_linear(nn.Linear(mlp * width, width)),
            BatchwiseDropout(dropout),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend over the leads; (N, leads, width) -> the same."""
        placed = self.dropout(tokens + self.positions)
        query, key, value = _split_heads(self.query_key_value(self.attention_norm(placed)), self.heads)
        attended: Tensor = placed + self.out(_attend(query, key, value))
        result: Tensor = attended + self.mlp(self.mlp_norm(attended))
        return result

    def weights(self, tokens: Tensor) -> Tensor:
        """Attention weights (N, heads, leads, leads); the last axis sums to 1. No dropout."""
        projected = self.query_key_value(self.attention_norm(tokens + self.positions))
        query, key, _ = _split_heads(projected, self.heads)
        return _weights_by_key(query, key).transpose(-2, -1)


class MeanMaxPooling(nn.Module):
    """Embedding of a record: mean over time of one linear map of all leads, maximum over time of another.

    Args:
        leads, width: of the map (N, leads, steps, width).
        outputs: size of the embedding, even; the first half is the mean.
    """

    def __init__(self, leads: int, width: int, outputs: int) -> None:
        super().__init__()
        self.mean = nn.Linear(leads * width, outputs // 2)
        self.maximum = nn.Linear(leads * width, outputs // 2)
        for layer in (self.mean, self.maximum):
            nn.init.kaiming_normal_(layer.weight)

    def forward(self, features: Tensor) -> Tensor:
        """(N, leads, steps, width) -> (N, outputs)."""
        by_step = features.transpose(1, 2).flatten(2)
        # A linear map and a mean commute: averaging first saves the product for every step.
        return torch.cat([self.mean(by_step.mean(dim=1)), self.maximum(by_step).amax(dim=1)], dim=1)


def sinusoidal_positions(steps: int, width: int) -> Tensor:
    """Fixed positions (steps, width): sines in even columns, cosines in odd ones; the width is even.

    Source: Vaswani et al. 2017, section 3.5.
    """
    step = torch.arange(steps).unsqueeze(1)
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    return torch.stack([torch.sin(step * rate), torch.cos(step * rate)], dim=2).flatten(1)


def initialise_linear(layer: nn.Linear) -> nn.Linear:
    """Xavier-uniform weights and no bias at the start, as in the vision transformer; returns the layer."""
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _split_heads(projected: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(N, ..., tokens, 3 * width) -> query, key, value, each (N, ..., heads, tokens, width / heads)."""
    size = projected.shape[-1] // (3 * heads)
    by_head = projected.reshape(*projected.shape[:-1], 3, heads, size).movedim((-3, -2), (0, -3))
    query, key, value = by_head.contiguous().unbind(0)
    return query, key, value


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attended values with their heads joined, (N, ..., tokens, heads * size)."""
    attended = value.transpose(-2, -1) @ _weights_by_key(query, key)
    return attended.flatten(-3, -2).transpose(-2, -1)


def _weights_by_key(query: Tensor, key: Tensor) -> Tensor:
    """Softmax of scaled products, (N, ..., heads, keys, queries): each query's weights stand in a column."""
    # Keys before queries, because torch's softmax is faster along rows of columns than along short rows; and not
    # torch's fused attention, which took 2 to 3 times as long on CPU for heads this small (2 to 38 features).
    scaled = query * query.shape[-1] ** -0.5
    return torch.softmax(key @ scaled.transpose(-2, -1), dim=-2)
