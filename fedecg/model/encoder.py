"""The dual attention encoder: lead maps, temporal attention a lead, attention across leads, one embedding.

In:  signals (N, 12, samples), leads in standard order, float32.
Out: embeddings (N, embedding_size); attention maps on request. Called by `fedecg.model.network`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from fedecg.errors import ModelError
from fedecg.model.layers import CrossLeadAttention, MeanMaxPooling, TemporalAttention, initialise_linear
from fedecg.model.lead_maps import LEADS, STEP_SAMPLES, LeadPureMaps, PaperMaps

__all__ = ["AttentionMaps", "DualAttentionEncoder", "Preset", "Size"]

Preset = Literal["fedecg", "paper"]
Size = Literal["base", "small"]


@dataclass(frozen=True)
class AttentionMaps:
    """Who attends to what, without dropout; the last axis of both sums to 1.

    Attributes:
        time: (N, 12, heads, steps, steps), within each lead; a step is 32 samples.
        lead: (N, heads, 12, 12), across the leads.
    """

    time: Tensor
    lead: Tensor


@dataclass(frozen=True)
class Widths:
    """Widths of the `fedecg` preset; `small` differs from `base` in these alone."""

    stem: int
    middle: int
    width: int
    heads: int
    token: int
    embedding: int


WIDTHS: dict[Size, Widths] = {
    "base": Widths(stem=24, middle=32, width=32, heads=4, token=64, embedding=512),
    "small": Widths(stem=16, middle=16, width=16, heads=2, token=32, embedding=256),
}
PAPER_EMBEDDING = 512
PAPER_HEADS = 8
PAPER_MLP = 4  # hidden units of an MLP per unit of its width
MLP = 2


class DualAttentionEncoder(nn.Module):
    """Twelve temporal attentions and one across leads, added up and pooled to one embedding.

    Args:
        preset: `fedecg` (lead-pure, LayerNorm; takes mV) or `paper` (the authors' layers; takes what it is given,
            `Network` gives it z-scores).
        samples: T, a positive multiple of 32.
        size: `base` or `small`; the `paper` preset has one size and ignores it.
        dropout: rate of all batch-wise dropout in the encoder, in [0, 1).

    Attributes:
        embedding_size: length of an embedding: 512, or 256 for `small`.

    Raises:
        ModelError: FECG-301, samples are not a positive multiple of 32.

    Source: Chen et al. 2025, doi 10.1109/TBDATA.2025.3536922.
    """

    maps: LeadPureMaps | PaperMaps
    cross_lead: PooledCrossLead | WholeMapCrossLead

    def __init__(
        self, preset: Preset = "fedecg", samples: int = 1024, size: Size = "base", dropout: float = 0.2
    ) -> None:
        super().__init__()
        if samples < STEP_SAMPLES or samples % STEP_SAMPLES:
            raise ModelError(
                "FECG-301",
                "samples",
                found=str(samples),
                expected=f"a positive multiple of {STEP_SAMPLES}",
                fix="Set [signals] samples accordingly.",
            )
        self.samples = samples
        steps = samples // STEP_SAMPLES
        if preset == "paper":
            width, heads, mlp = PaperMaps.CHANNELS[-1], PAPER_HEADS, PAPER_MLP
            self.embedding_size = PAPER_EMBEDDING
            self.maps = PaperMaps()
            self.cross_lead = WholeMapCrossLead(steps, width, dropout)
        else:
            widths = WIDTHS[size]
            width, heads, mlp = widths.width, widths.heads, MLP
            self.embedding_size = widths.embedding
            self.maps = LeadPureMaps(widths.stem, widths.middle, width)
            self.cross_lead = PooledCrossLead(width, widths.token, heads, dropout)
        self.temporal = TemporalAttention(LEADS, steps, width, heads, mlp, dropout)
        self.pooling = MeanMaxPooling(LEADS, width, self.embedding_size)

    def forward(self, signal: Tensor, lead_mask: Tensor | None = None) -> Tensor:
        """Embed signals.

        Args:
            signal: (N, 12, samples), float32; mV for `fedecg`.
            lead_mask: (12,), bool, True = kept; a hidden lead's content cannot reach the embedding.

        Returns:
            (N, embedding_size).
        """
        maps = self.maps(signal, lead_mask)
        embedding: Tensor = self.pooling(self.temporal(maps) + self.cross_lead(maps))
        return embedding

    def attention(self, signal: Tensor, lead_mask: Tensor | None = None) -> AttentionMaps:
        """Attention weights of the same signals, without dropout; the inputs are those of `forward`."""
        maps = self.maps(signal, lead_mask)
        return AttentionMaps(self.temporal.weights(maps), self.cross_lead.weights(maps))


class PooledCrossLead(nn.Module):
    """Cross-lead branch of `fedecg`: a lead's token is the mean and the maximum of its map over time.

    What the leads tell each other is added to every step of a lead's map.

    Args:
        width: of the maps. token: of the tokens. heads, dropout: as in `CrossLeadAttention`.
    """

    def __init__(self, width: int, token: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.summary = initialise_linear(nn.Linear(2 * width, token))
        self.attention = CrossLeadAttention(LEADS, token, heads, MLP, dropout)
        self.back = initialise_linear(nn.Linear(token, width))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, 12, steps, width) -> (N, 12, 1, width)."""
        across: Tensor = self.back(self.attention(self._tokens(maps)))
        return across.unsqueeze(2)

    def weights(self, maps: Tensor) -> Tensor:
        """(N, heads, 12, 12)."""
        return self.attention.weights(self._tokens(maps))

    def _tokens(self, maps: Tensor) -> Tensor:
        tokens: Tensor = self.summary(torch.cat([maps.mean(dim=2), maps.amax(dim=2)], dim=2))
        return tokens


class WholeMapCrossLead(nn.Module):
    """Cross-lead branch of `paper`: a lead's token is its whole map, width by width.

    Args:
        steps, width: of the maps. dropout: as in `CrossLeadAttention`.
    """

    def __init__(self, steps: int, width: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.attention = CrossLeadAttention(LEADS, steps * width, PAPER_HEADS, PAPER_MLP, dropout)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, 12, steps, width) -> the same."""
        across: Tensor = self.attention(self._tokens(maps))
        return across.view(*across.shape[:2], self.width, maps.shape[2]).transpose(2, 3)

    def weights(self, maps: Tensor) -> Tensor:
        """(N, heads, 12, 12)."""
        return self.attention.weights(self._tokens(maps))

    def _tokens(self, maps: Tensor) -> Tensor:
        return maps.transpose(2, 3).flatten(2)
