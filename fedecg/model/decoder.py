"""From an embedding back to a signal, for the auxiliary reconstruction task.

In:  embeddings (N, embedding_size). Out: signals (N, 12, samples), each lead normalised (`reconstruction_target`).
Called by `fedecg.model.network`.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fedecg.model.layers import initialise_linear
from fedecg.model.lead_maps import LEADS, STEP_SAMPLES

__all__ = ["LeadDecoder", "PaperDecoder"]

HIDDEN = 32  # LeadDecoder: features of a lead


class LeadDecoder(nn.Module):
    """Decoder of the `fedecg` preset: a code a lead, then two layers that all leads share; no norm.

    Args:
        embedding_size: length of an embedding. samples: T.
    """

    def __init__(self, embedding_size: int, samples: int) -> None:
        super().__init__()
        self.codes = initialise_linear(nn.Linear(embedding_size, LEADS * HIDDEN))
        self.wave = nn.Sequential(
            nn.GELU(),
            initialise_linear(nn.Linear(HIDDEN, 4 * HIDDEN)),
            nn.GELU(),
            initialise_linear(nn.Linear(4 * HIDDEN, samples)),
        )

    def forward(self, embedding: Tensor) -> Tensor:
        """(N, embedding_size) -> (N, 12, samples)."""
        signal: Tensor = self.wave(self.codes(embedding).view(-1, LEADS, HIDDEN))
        return signal


class PaperDecoder(nn.Module):
    """The authors' decoder: two linear layers, five stages that double the samples, one that joins the features.

    Args:
        embedding_size: length of an embedding. samples: T.

    Source: Chen et al. 2025, doi 10.1109/TBDATA.2025.3536922, and their public code.
    """

    FEATURES = 4
    STAGES = 5

    def __init__(self, embedding_size: int, samples: int) -> None:
        super().__init__()
        self.steps = samples // STEP_SAMPLES
        self.spread = nn.Sequential(
            nn.Linear(embedding_size, self.FEATURES * self.steps),
            nn.Linear(self.FEATURES * self.steps, self.FEATURES * LEADS * self.steps),
        )
        doubling = [UpStage(self.FEATURES) for _ in range(self.STAGES)]
        self.stages = nn.Sequential(*doubling, JoinStage(self.FEATURES))
        self.last = nn.Conv1d(LEADS, LEADS, 1, groups=LEADS)

    def forward(self, embedding: Tensor) -> Tensor:
        """(N, embedding_size) -> (N, 12, samples), each lead with mean 0 and variance 1."""
        maps = self.spread(embedding).view(-1, self.FEATURES, LEADS, self.steps)
        return F.instance_norm(self.last(self.stages(maps).squeeze(1)))


class UpStage(nn.Module):
    """Residual stage: twice the samples, two convolutions (1, 5), BatchNorm, leaky ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.grow = nn.ConvTranspose2d(width, width, (1, 4), stride=(1, 2), padding=(0, 1))
        self.shortcut = nn.Conv2d(width, width, 1, bias=False)
        self.conv_1 = nn.Conv2d(width, width, (1, 5), padding=(0, 2), bias=False)
        self.norm_1 = nn.BatchNorm2d(width)
        self.conv_2 = nn.Conv2d(width, width, (1, 5), padding=(0, 2), bias=False)
        self.norm_2 = nn.BatchNorm2d(width)

    def forward(self, features: Tensor) -> Tensor:
        """(N, width, 12, steps) -> (N, width, 12, 2 * steps)."""
        grown = self.shortcut(self.grow(features))
        inner = F.leaky_relu(self.norm_1(self.conv_1(grown)))
        inner = F.leaky_relu(self.norm_2(self.conv_2(inner)))
        return F.gelu(inner + grown)


class JoinStage(nn.Module):
    """Residual stage from several features to one, samples kept."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(width, 1, (1, 5), padding=(0, 2), bias=False)
        self.norm_1 = nn.BatchNorm2d(1)
        self.conv_2 = nn.Conv2d(1, 1, (1, 5), padding=(0, 2), bias=False)
        self.norm_2 = nn.BatchNorm2d(1)
        self.shortcut = nn.Conv2d(width, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(N, width, 12, samples) -> (N, 1, 12, samples)."""
        inner = F.leaky_relu(self.norm_1(self.conv_1(features)))
        inner = F.leaky_relu(self.norm_2(self.conv_2(inner)))
        return F.gelu(inner + self.shortcut(features))
