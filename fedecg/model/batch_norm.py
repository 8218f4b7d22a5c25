"""BatchNorm for maps of few channels, as fast as torch's is for many.

In:  maps (N, C, 12, steps) in channels-last memory. Out: the same, normalised over all axes but C.
Called by `fedecg.model.lead_maps` for the `paper` preset only: BatchNorm couples the records of a batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ChannelsLastBatchNorm"]

MOMENTUM = 0.1  # torch's default, which the authors keep
ROWS = 16  # samples read side by side: torch's own kernel works one number at a time below 16 channels


class ChannelsLastBatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, same state and results; a training step on 8 channels takes half of its time on CPU.

    Fewer than 16 channels and a multiple of 16 values a channel take the fast way, all else is torch's own.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=MOMENTUM)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, 12, steps) -> the same; updates the running statistics while training."""
        count = features.numel() // features.shape[1]
        if not self.training or features.shape[1] >= ROWS or count % ROWS or count == 0:
            return super().forward(features)
        apply: Any = _Normalise.apply  # torch declares it without types
        normal, mean, variance = apply(features, self.weight, self.bias, self.eps)
        momentum = MOMENTUM if self.momentum is None else self.momentum
        with torch.no_grad():
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), momentum)
            self.num_batches_tracked.add_(1)
        result: Tensor = normal
        return result


class _Normalise(torch.autograd.Function):
    """Batch normalisation of (N, C, 12, steps) over all axes but C; also returns mean and biased variance."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = _rows(features)
        mean = _channel_mean(wide)
        centred = wide - mean.repeat(ROWS)
        variance = _channel_mean(centred * centred)
        inverse = torch.rsqrt(variance + eps)
        ctx.save_for_backward(centred, weight, inverse)
        ctx.mark_non_differentiable(mean, variance)
        normal = torch.empty_like(features, memory_format=torch.channels_last)
        torch.addcmul(bias.repeat(ROWS), centred, (weight * inverse).repeat(ROWS), out=_rows(normal))
        return normal, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        centred, weight, inverse = ctx.saved_tensors
        wide = _rows(gradients[0])
        mean_bias = _channel_mean(wide)
        mean_weight = _channel_mean(wide * centred) * inverse
        scale = weight * inverse
        # dx = scale * (g - mean(g) - xhat * mean(g * xhat)), Ioffe and Szegedy 2015.
        result = torch.empty_like(gradients[0], memory_format=torch.channels_last)
        rows = torch.addcmul((-scale * mean_bias).repeat(ROWS), wide, scale.repeat(ROWS), out=_rows(result))
        rows.addcmul_(centred, (-scale * inverse * mean_weight).repeat(ROWS))
        count = centred.numel() // len(weight)
        return result, mean_weight * count, mean_bias * count, None


def _rows(features: Tensor) -> Tensor:
    """(N, C, 12, steps), channels-last -> a view (rows, 16 * C): 16 samples side by side."""
    return features.permute(0, 2, 3, 1).reshape(-1, ROWS * features.shape[1])


def _channel_mean(wide: Tensor) -> Tensor:
    """(rows, 16 * C) -> (C,)."""
    return wide.mean(dim=0).view(ROWS, -1).mean(dim=0)
