"""Encoders to compare ours with, of as many parameters: a deep residual CNN, and a transformer over patches of time.

In:  signals (N, 12, samples) as `DualAttentionEncoder` takes them, float32.
Out: embeddings (N, embedding_size). Called by `fedecg.model.network` for `model.encoder` other than "dual-attention".

They stand where ours stands: same stages, heads, losses, messages, model files. What they lack is attention across
leads and within each lead, so there are no maps to be tested or drawn. Their widths are chosen so that the number of
parameters is that of the dual attention encoder of the same preset, size and length, within 5 % (`same_size`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedecg.errors import ModelError
from fedecg.model.encoder import DualAttentionEncoder, Preset, Size
from fedecg.model.layers import BatchwiseDropout, initialise_linear, sinusoidal_positions
from fedecg.model.lead_maps import LEADS, STEP_SAMPLES

__all__ = ["BaselineEncoder", "Baselines", "PatchTransformer", "XResNet1d", "baseline_encoder"]

Baselines = Literal["xresnet1d", "transformer"]

BLOCKS = (3, 4, 23, 3)  # of xresnet1d101
EXPANSION, KERNEL = 4, 5
STEMS = range(4, 97, 2)
DEPTH, HEADS = 4, 4
LARGEST_WIDTH = 512


class BaselineEncoder(nn.Module):
    """What both have in common.

    Attributes:
        embedding_size: length of an embedding, that of ours.
        samples: T.
    """

    embedding_size: int
    samples: int

    def attention(self, signal: Tensor, lead_mask: Tensor | None = None) -> NoReturn:
        """Refuse: there are no maps over leads.

        Raises:
            ModelError: FECG-394.
        """
        del signal, lead_mask
        raise ModelError(
            "FECG-394",
            "attention maps",
            found=f"a model with the encoder {type(self).__name__}",
            expected='one with model.encoder = "dual-attention"',
            fix="Explain a dual attention model; a baseline encoder is there to be compared with.",
        )


class XResNet1d(BaselineEncoder):
    """The CNN that led the PTB-XL benchmark, at another width: 33 bottleneck blocks (3, 4, 23, 3) of kernel 5.

    A stem of three convolutions and max pooling; in each block 1x1, kernel 5, 1x1 convolutions with BatchNorm (the
    last one begins at 0), shortcut by mean pooling and a 1x1 convolution; mean and maximum over time at the end. The
    twelve leads are channels. BatchNorm couples the records of a batch: no differential privacy of patients.

    Args:
        width: of a block inside; it gives 4 times as many channels.
        stem: channels after the stem.
        samples, embedding_size, dropout: as in `DualAttentionEncoder`; dropout before the embedding.

    Source: He et al. 2019, arXiv 1812.01187 (xresnet); Strodthoff et al. 2020, arXiv 2004.13701 (xresnet1d101).
    """

    def __init__(self, width: int, stem: int, samples: int, embedding_size: int, dropout: float) -> None:
        super().__init__()
        self.samples, self.embedding_size = samples, embedding_size
        half = stem // 2
        self.stem = nn.Sequential(
            _conv(LEADS, half, KERNEL, stride=2),
            nn.ReLU(),
            _conv(half, half, KERNEL),
            nn.ReLU(),
            _conv(half, stem, KERNEL),
            nn.ReLU(),
            nn.MaxPool1d(3, stride=2, padding=1),
        )
        blocks: list[nn.Module] = []
        before = stem
        for stage, number in enumerate(BLOCKS):
            for position in range(number):
                stride = 2 if stage and position == 0 else 1
                blocks.append(Bottleneck(before, width, stride))
                before = EXPANSION * width
        self.blocks = nn.Sequential(*blocks)
        self.dropout = BatchwiseDropout(dropout)
        self.out = initialise_linear(nn.Linear(2 * before, embedding_size))

    def forward(self, signal: Tensor, lead_mask: Tensor | None = None) -> Tensor:
        """(N, 12, samples), kept leads (12,) or None -> (N, embedding_size)."""
        features = self.blocks(self.stem(_shown(signal, lead_mask)))
        pooled = torch.cat([features.mean(dim=2), features.amax(dim=2)], dim=1)
        embedding: Tensor = self.out(self.dropout(pooled))
        return embedding


class Bottleneck(nn.Module):
    """1x1, kernel 5 (with the stride), 1x1 to 4 times the width, added to the shortcut."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = EXPANSION * width
        self.inner = nn.Sequential(
            _conv(before, width, 1),
            nn.ReLU(),
            _conv(width, width, KERNEL, stride),
            nn.ReLU(),
            _conv(width, after, 1, scale=0.0),
        )
        pool = nn.AvgPool1d(2, stride=2, ceil_mode=True) if stride > 1 else nn.Identity()
        change = _conv(before, after, 1) if before != after else nn.Identity()
        self.shortcut = nn.Sequential(pool, change)

    def forward(self, features: Tensor) -> Tensor:
        """(N, before, steps) -> (N, 4 * width, steps / stride)."""
        return F.relu(self.inner(features) + self.shortcut(features))


class PatchTransformer(BaselineEncoder):
    """A plain transformer: a token is 32 samples of all leads, four pre-norm blocks, mean and maximum over time.

    Args:
        width: of a token, a multiple of 4. hidden: units of a block's MLP.
        samples, embedding_size, dropout: as in `DualAttentionEncoder`.

    Source: Vaswani et al. 2017; patches as in Dosovitskiy et al. 2021, arXiv 2010.11929.
    """

    positions: Tensor

    def __init__(self, width: int, hidden: int, samples: int, embedding_size: int, dropout: float) -> None:
        super().__init__()
        self.samples, self.embedding_size = samples, embedding_size
        self.patches = initialise_linear(nn.Linear(LEADS * STEP_SAMPLES, width))
        positions = sinusoidal_positions(samples // STEP_SAMPLES, width)
        self.register_buffer("positions", positions, persistent=False)
        self.dropout = BatchwiseDropout(dropout)
        self.blocks = nn.Sequential(*(TransformerBlock(width, hidden, dropout) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(width)
        self.out = initialise_linear(nn.Linear(2 * width, embedding_size))

    def forward(self, signal: Tensor, lead_mask: Tensor | None = None) -> Tensor:
        """(N, 12, samples), kept leads (12,) or None -> (N, embedding_size)."""
        shown = _shown(signal, lead_mask)
        patches = shown.reshape(len(shown), LEADS, -1, STEP_SAMPLES).transpose(1, 2).flatten(2)
        tokens = self.dropout(self.patches(patches) + self.positions)
        features = self.norm(self.blocks(tokens))
        pooled = torch.cat([features.mean(dim=1), features.amax(dim=1)], dim=1)
        embedding: Tensor = self.out(pooled)
        return embedding


class TransformerBlock(nn.Module):
    """Pre-norm self-attention over the tokens, then an MLP."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = initialise_linear(nn.Linear(width, 3 * width))
        self.attended = initialise_linear(nn.Linear(width, width))
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            initialise_linear(nn.Linear(width, hidden)),
            nn.GELU(),
            BatchwiseDropout(dropout),
            initialise_linear(nn.Linear(hidden, width)),
            BatchwiseDropout(dropout),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, steps, width) -> the same."""
        projected = self.query_key_value(self.attention_norm(tokens))
        by_head = projected.view(*tokens.shape[:2], 3, HEADS, tokens.shape[2] // HEADS)
        query, key, value = by_head.permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5, dim=-1)
        after = tokens + self.attended((weights @ value).transpose(1, 2).flatten(2))
        result: Tensor = after + self.mlp(after)
        return result


def baseline_encoder(
    kind: Baselines, preset: Preset, samples: int, size: Size, dropout: float
) -> BaselineEncoder:
    """A baseline of as many parameters as the dual attention encoder of the same preset, size and length has.

    Raises:
        ModelError: FECG-301, samples are not a positive multiple of 32.
    """
    first, second, embedding_size = _same_size(kind, preset, samples, size)
    return KINDS[kind](first, second, samples, embedding_size, dropout)


@lru_cache(maxsize=32)
def _same_size(kind: Baselines, preset: Preset, samples: int, size: Size) -> tuple[int, int, int]:
    """Widths that come closest to ours in number of parameters, and the size of the embedding.

    The largest first width that is not too much with a middling second one; then the second that fits best beside it.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):  # nothing is allocated or drawn
        ours = DualAttentionEncoder(preset, samples, size)
    target, embedding = parameters(ours), ours.embedding_size
    count = COUNTS[kind]

    def missed(widths: tuple[int, int]) -> int:
        return count(*widths, embedding) - target

    if kind == "xresnet1d":
        fitting = [width for width in range(1, LARGEST_WIDTH) if missed((width, STEMS[12])) <= 0]
        choices = [(max(fitting, default=1), stem) for stem in STEMS]
    else:
        fitting = [
            width for width in range(HEADS * 2, LARGEST_WIDTH, HEADS * 2) if missed((width, 2 * width)) <= 0
        ]
        width = max(fitting, default=HEADS * 2)
        choices = [(width, hidden) for hidden in range(1, 8 * width)]
    first, second = min(choices, key=lambda widths: abs(missed(widths)))
    return first, second, embedding


def _xresnet_parameters(width: int, stem: int, embedding: int) -> int:
    """Of `XResNet1d`, without making one."""
    half, wide = stem // 2, EXPANSION * width
    count = _of_conv(LEADS, half, KERNEL) + _of_conv(half, half, KERNEL) + _of_conv(half, stem, KERNEL)
    inner = _of_conv(width, width, KERNEL) + _of_conv(width, wide, 1)
    count += sum(BLOCKS) * inner + (sum(BLOCKS) - 1) * _of_conv(wide, width, 1)
    count += _of_conv(stem, width, 1) + (_of_conv(stem, wide, 1) if stem != wide else 0)
    return count + (2 * wide + 1) * embedding


def _transformer_parameters(width: int, hidden: int, embedding: int) -> int:
    """Of `PatchTransformer`, without making one."""
    block = 4 * width + 4 * width * (width + 1) + hidden * (width + 1) + width * (hidden + 1)
    patches = (LEADS * STEP_SAMPLES + 1) * width
    return patches + DEPTH * block + 2 * width + (2 * width + 1) * embedding


def _of_conv(before: int, after: int, kernel: int) -> int:
    """Convolution without bias, and BatchNorm."""
    return before * after * kernel + 2 * after


def parameters(network: nn.Module) -> int:
    """How many numbers gradients move."""
    return sum(weight.numel() for weight in network.parameters())


def _shown(signal: Tensor, lead_mask: Tensor | None) -> Tensor:
    """What a hidden lead holds has no effect."""
    return signal if lead_mask is None else signal * lead_mask.to(signal.dtype).unsqueeze(1)


def _conv(before: int, after: int, kernel: int, stride: int = 1, scale: float = 1.0) -> nn.Sequential:
    """Convolution along time and BatchNorm, whose scale begins at `scale`."""
    conv = nn.Conv1d(before, after, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    norm = nn.BatchNorm1d(after)
    nn.init.constant_(norm.weight, scale)
    return nn.Sequential(conv, norm)


KINDS: dict[Baselines, Callable[[int, int, int, int, float], BaselineEncoder]] = {
    "xresnet1d": XResNet1d,
    "transformer": PatchTransformer,
}
COUNTS: dict[Baselines, Callable[[int, int, int], int]] = {
    "xresnet1d": _xresnet_parameters,
    "transformer": _transformer_parameters,
}
