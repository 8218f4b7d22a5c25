"""What is read off an embedding: a log hazard, a vector in the space of the code bank, and a temperature.

In:  embeddings (N, embedding_size). Out: (N,), (N, bank_dim), a scalar. Called by `fedecg.model.network`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fedecg.model.layers import BatchwiseDropout, initialise_linear

__all__ = ["PaperRiskHead", "ProjectionHead", "RiskHead", "Temperature"]

TEMPERATURE_BOUNDS = (0.01, 1.0)


class RiskHead(nn.Module):
    """Log hazard of the `fedecg` preset: LayerNorm, dropout, 32 units, one output without bias.

    A Cox model has no intercept, hence no bias; LayerNorm couples no two records.

    Args:
        embedding_size: length of an embedding. dropout: rate, in [0, 1).
    """

    def __init__(self, embedding_size: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(embedding_size),
            BatchwiseDropout(dropout),
            nn.Linear(embedding_size, 32),
            nn.GELU(),
            nn.Linear(32, 1, bias=False),
        )

    def forward(self, embedding: Tensor) -> Tensor:
        """(N, embedding_size) -> (N,)."""
        hazard: Tensor = self.layers(embedding).squeeze(1)
        return hazard


class PaperRiskHead(nn.Module):
    """Log hazard as the authors have it: BatchNorm, dropout, 3 units, ReLU, BatchNorm, one output.

    Args:
        embedding_size: length of an embedding. dropout: rate, in [0, 1); the authors have 0.25 here.

    Source: Chen et al. 2025, doi 10.1109/TBDATA.2025.3536922, and their public code.
    """

    def __init__(self, embedding_size: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(embedding_size),
            BatchwiseDropout(dropout),
            initialise_linear(nn.Linear(embedding_size, 3)),
            nn.ReLU(),
            nn.BatchNorm1d(3),
            initialise_linear(nn.Linear(3, 1)),
        )

    def forward(self, embedding: Tensor) -> Tensor:
        """(N, embedding_size) -> (N,); training needs at least 2 records, BatchNorm takes their variance."""
        hazard: Tensor = self.layers(embedding).squeeze(1)
        return hazard


class ProjectionHead(nn.Module):
    """Into the space of the code bank: LayerNorm, 256 units, GELU, one linear layer.

    Args:
        embedding_size: length of an embedding. bank_dim: length of a bank vector.
    """

    def __init__(self, embedding_size: int, bank_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(embedding_size),
            initialise_linear(nn.Linear(embedding_size, 256)),
            nn.GELU(),
            initialise_linear(nn.Linear(256, bank_dim)),
        )

    def forward(self, embedding: Tensor) -> Tensor:
        """(N, embedding_size) -> (N, bank_dim), any length; only the direction counts."""
        projected: Tensor = self.layers(embedding)
        return projected


class Temperature(nn.Module):
    """A learnable temperature that cannot leave [0.01, 1]: a logistic curve between the bounds, on the log scale.

    Args:
        start: first value, in [0.01, 1].
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        low, high = (math.log(bound) for bound in TEMPERATURE_BOUNDS)
        # At a bound itself the curve is flat for ever: start just inside.
        share = min(max((math.log(start) - low) / (high - low), 1e-3), 1 - 1e-3)
        self.position = nn.Parameter(torch.tensor(math.log(share / (1 - share))))

    def forward(self) -> Tensor:
        """The temperature, a scalar."""
        low, high = (math.log(bound) for bound in TEMPERATURE_BOUNDS)
        return torch.exp(low + (high - low) * torch.sigmoid(self.position))
