"""The authors' encoder written as they write it: the slow reference of `benchmarks/network.py` and of the tests.

In:  signals (N, 12, T). Out: embeddings (N, 512); `convert` turns its state into that of our `paper` preset.

A loop over twelve `nn.MultiheadAttention`, sequence first, contiguous 2-D convolutions, max pooling by torch. The names
of the state are those of Chen et al.'s public code (cherise215/LLM-ECG-Dual-Attention), so `convert` takes their
checkpoints too. Every line is our own.

Compared once with the authors' code (November 2026, AMD EPYC, 2 threads, torch 2.13 CPU, batch 64, T = 608, forward +
backward + AdamW, fastest of interleaved steps, three runs): theirs 169.9, 165.3, 165.3 ms, this
reference 171.6, 165.0, 166.6 ms. `load_state_dict` takes their state as it is, and outputs are equal bit by bit.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedecg.model.authors_layout import Part, converted

__all__ = ["AuthorsDecoder", "AuthorsEncoder", "convert", "convert_decoder"]

LEADS = 12
FEATURES = 4
CHANNELS = (4, 8, 16, 16, 16, 16)
HEADS = 8


class OneMaskDropout(nn.Module):
    """Dropout with one mask for all records; `batch_axis` is where they lie."""

    def __init__(self, rate: float, batch_axis: int) -> None:
        super().__init__()
        self.rate, self.batch_axis = rate, batch_axis

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        shape = list(x.shape)
        shape[self.batch_axis] = 1
        mask = (torch.rand(shape) > self.rate).expand_as(x)
        return x * mask / (1 - self.rate)


class Positions(nn.Module):
    """Sinusoidal positions of a sequence (length, N, width), then dropout."""

    pe: Tensor

    def __init__(self, width: int, dropout: nn.Module) -> None:
        super().__init__()
        self.dropout = dropout
        step = torch.arange(5000).unsqueeze(1)
        rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        pe = torch.zeros(5000, 1, width)
        pe[:, 0, 0::2] = torch.sin(step * rate)
        pe[:, 0, 1::2] = torch.cos(step * rate)
        self.register_buffer("pe", pe, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x + self.pe[: x.shape[0]])


class Mlp(nn.Module):
    """Two linear layers, GELU between them, dropout after each."""

    def __init__(self, width: int, dropout: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.drop = dropout

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))


class ResidualBlock(nn.Module):
    """Residual block along time: half (`down`), double (`up`) or as many samples."""

    def __init__(self, before: int, after: int, change: str) -> None:
        super().__init__()
        self.change = change
        if change == "up":
            self.idfunc_0 = nn.ConvTranspose2d(before, after, (1, 4), stride=(1, 2), padding=(0, 1))
            self.idfunc_1 = nn.Conv2d(after, after, 1, bias=False)
        else:
            self.idfunc_0 = nn.MaxPool2d((1, 2), stride=(1, 2)) if change == "down" else nn.Identity()
            self.idfunc_1 = nn.Conv2d(before, after, 1)
        inputs, stride = (after if change == "up" else before), (2 if change == "down" else 1)
        self.conv1 = nn.Conv2d(inputs, after, (1, 5), stride=(1, stride), padding=(0, 2), bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, (1, 5), padding=(0, 2), bias=False)
        self.bn2 = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        if self.change == "up":
            x = identity = self.idfunc_1(self.idfunc_0(x))
        x = F.leaky_relu(self.bn1(self.conv1(x)))
        x = F.leaky_relu(self.bn2(self.conv2(x)))
        if self.change != "up":
            identity = self.idfunc_1(self.idfunc_0(identity))
        return F.gelu(x + identity)


class DualAttention(nn.Module):
    """Temporal attention in a loop over the leads, cross-lead attention, their sum, two poolings."""

    def __init__(self, width: int, steps: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.width, self.steps = width, steps
        self.time_encoder = Positions(width, nn.Dropout(dropout))
        self.time_norm_1 = nn.ModuleList(nn.LayerNorm(width) for _ in range(LEADS))
        self.time_mha = nn.ModuleList(nn.MultiheadAttention(width, HEADS) for _ in range(LEADS))
        self.mlp_norm_1 = nn.ModuleList(nn.LayerNorm(width) for _ in range(LEADS))
        self.time_mlp = nn.ModuleList(Mlp(width, OneMaskDropout(dropout, 0)) for _ in range(LEADS))
        token = width * steps
        self.lead_encoder = Positions(token, OneMaskDropout(dropout, 1))
        self.norm2 = nn.LayerNorm(token)
        self.lead_mha = nn.MultiheadAttention(token, HEADS)
        self.lead_norm_1 = nn.LayerNorm(token)
        self.lead_mlp = Mlp(token, nn.Dropout(dropout))
        channels = width * LEADS
        self.attention_pool_1 = nn.Sequential(
            nn.Identity(), nn.Conv1d(channels, outputs // 2, 1), nn.AdaptiveAvgPool1d(1), nn.Flatten()
        )
        self.attention_pool_2 = nn.Sequential(
            nn.Identity(), nn.Conv1d(channels, outputs // 2, 1), nn.AdaptiveMaxPool1d(1), nn.Flatten()
        )

    def forward(self, maps: Tensor) -> Tensor:
        total = self._over_time(maps) + self._over_leads(maps)
        return torch.cat([self.attention_pool_1(total), self.attention_pool_2(total)], dim=1)

    def _over_time(self, maps: Tensor) -> Tensor:
        records, leads = maps.shape[0], []
        for lead in range(LEADS):
            x = self.time_encoder(maps[:, :, lead].permute(2, 0, 1))
            normal = self.time_norm_1[lead](x)
            x = x + self.time_mha[lead](normal, normal, normal)[0]
            leads.append(x + self.time_mlp[lead](self.mlp_norm_1[lead](x)))
        return torch.stack(leads, dim=2).permute(1, 3, 2, 0).reshape(records, -1, self.steps)

    def _over_leads(self, maps: Tensor) -> Tensor:
        records = maps.shape[0]
        x = self.lead_encoder(maps.permute(2, 0, 1, 3).reshape(LEADS, records, -1))
        normal = self.norm2(x)
        x = x + self.lead_mha(normal, normal, normal)[0]
        x = x + self.lead_mlp(self.lead_norm_1(x))
        by_step = x.permute(1, 2, 0).reshape(records, self.width, self.steps, LEADS)
        return by_step.permute(0, 1, 3, 2).reshape(records, -1, self.steps)


class AuthorsEncoder(nn.Module):
    """The authors' encoder (base_feature_dim 4, latent 512, no final linear layer).

    Args:
        samples: T, a multiple of 32. dropout: rate everywhere.
    """

    def __init__(self, samples: int = 608, dropout: float = 0.2) -> None:
        super().__init__()
        channels = LEADS * FEATURES
        self.input_conv = nn.Sequential(
            nn.Conv1d(LEADS, channels, 5, padding=2, groups=LEADS),
            nn.GroupNorm(LEADS, channels),
            nn.GELU(),
            nn.Conv1d(channels, channels, 5, padding=2),
            nn.GroupNorm(LEADS, channels),
            nn.GELU(),
        )
        pairs = itertools.pairwise(CHANNELS)
        self.encoder = nn.Sequential(*(ResidualBlock(before, after, "down") for before, after in pairs))
        self.attention = DualAttention(CHANNELS[-1], samples // 32, 512, dropout)

    def forward(self, signal: Tensor) -> Tensor:
        """(N, 12, T) -> (N, 512)."""
        stem = self.input_conv(signal)
        return self.attention(self.encoder(stem.view(len(signal), FEATURES, LEADS, -1)))


class AuthorsDecoder(nn.Module):
    """The authors' decoder (two linear layers, 4 features).

    Args:
        samples: T, a multiple of 32.
    """

    def __init__(self, samples: int = 608) -> None:
        super().__init__()
        self.steps = samples // 32
        self.linear = nn.Sequential(
            nn.Linear(512, FEATURES * self.steps),
            nn.Linear(FEATURES * self.steps, FEATURES * LEADS * self.steps),
        )
        blocks = [ResidualBlock(FEATURES, FEATURES, "up") for _ in range(5)]
        self.decoder = nn.Sequential(*blocks, ResidualBlock(FEATURES, 1, "same"))
        self.final_conv = nn.Sequential(nn.Conv1d(LEADS, LEADS, 1, groups=LEADS), nn.InstanceNorm1d(LEADS))

    def forward(self, embedding: Tensor) -> Tensor:
        """(N, 512) -> (N, 12, T)."""
        maps = self.linear(embedding).view(len(embedding), -1, LEADS, self.steps)
        return self.final_conv(self.decoder(maps).squeeze(1))


def convert(state: dict[str, Tensor], shapes: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' encoder state as the state of `DualAttentionEncoder(preset="paper")`.

    Args:
        state: state dict of their encoder (or of `AuthorsEncoder`).
        shapes: state dict of our encoder: its names and shapes, values unused.

    Returns:
        A state dict for `load_state_dict`.
    """
    return _moved("encoder", state, shapes)


def convert_decoder(state: dict[str, Tensor], shapes: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' decoder state as the state of our `paper` decoder; arguments as for `convert`."""
    return _moved("decoder", state, shapes)


def _moved(part: Part, state: dict[str, Tensor], shapes: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every number where `converted` puts it; asked with places, because it makes float32 of numbers."""
    sizes = [tensor.numel() for tensor in state.values()]
    places = torch.arange(sum(sizes)).split(sizes)
    named = {name: place.view(state[name].shape) for name, place in zip(state, places, strict=True)}
    numbers = torch.cat([tensor.flatten().double() for tensor in state.values()])
    ours = converted(part, named, {name: tuple(tensor.shape) for name, tensor in shapes.items()})
    return {name: numbers[place].to(shapes[name].dtype) for name, place in ours.items()}
