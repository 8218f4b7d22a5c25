"""From a signal to one feature map a lead: convolutions along time, weights shared by the leads.

In:  signals (N, 12, samples).
Out: maps (N, 12, samples / 32, width). Called by `fedecg.model.encoder`.

All convolutions are two-dimensional with kernel (1, k) on channels-last memory: per training step on two CPU cores that
took half the time of the same convolutions on contiguous memory, and the result is already a row of tokens a lead.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedecg.model.batch_norm import ChannelsLastBatchNorm

__all__ = ["LEADS", "STEP_SAMPLES", "LeadPureMaps", "PaperMaps", "normalise_leads", "zscore_leads"]

LEADS = 12
STEP_SAMPLES = 32  # samples behind one step of a map

# Voltage of a lead, natural logarithm of mV: centre and spread bring ordinary leads to about [-2, 2]
# (RMS 0.2 mV and peak-to-peak 1.5 mV are typical of a band-passed lead), floors keep a flat lead finite.
RMS_FLOOR_MV = 0.01
PEAK_TO_PEAK_FLOOR_MV = 0.05
LOG_RMS_CENTRE, LOG_PEAK_TO_PEAK_CENTRE, LOG_SPREAD = -1.6, 0.4, 0.5
VOLTAGE_CHANNELS = 2


class LeadPureMaps(nn.Module):
    """Maps of the `fedecg` preset: a lead's channels hold that lead alone, its voltage among them.

    Each lead is brought to unit RMS, passes three convolutions with strides of 4, 2 and 4 and one residual one;
    log RMS and log peak-to-peak of the lead in mV, taken before, are the last two channels of its map.

    Args:
        stem, middle, width: channels after the first, after the second convolution, and of the map.
    """

    def __init__(self, stem: int, middle: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, stem, (1, 3), padding=(0, 1))
        self.middle = nn.Conv2d(2 * stem, middle, (1, 3), padding=(0, 1))
        self.context = nn.Conv2d(middle, middle, (1, 5), padding=(0, 2))
        self.last = nn.Conv2d(4 * middle, width - VOLTAGE_CHANNELS, (1, 3), padding=(0, 1))
        for layer in (self.stem, self.middle, self.context, self.last):
            nn.init.kaiming_normal_(layer.weight)
            layer.bias = nn.Parameter(torch.zeros(layer.out_channels))

    def forward(self, signal_mv: Tensor, lead_mask: Tensor | None) -> Tensor:
        """(N, 12, samples) mV, kept leads (12,) or None -> (N, 12, samples / 32, width)."""
        normal, voltage = normalise_leads(signal_mv), _log_voltage(signal_mv)
        if lead_mask is not None:
            kept = lead_mask.to(signal_mv.dtype).unsqueeze(1)
            normal, voltage = normal * kept, voltage * kept
        features = F.gelu(self.stem(_fold(normal.unsqueeze(1), 4)))
        features = F.gelu(_normalise_maps(self.middle(_fold(features, 2))))
        features = features + F.gelu(_normalise_maps(self.context(features)))
        tokens = _normalise_maps(self.last(_fold(features, 4))).permute(0, 2, 3, 1)
        return torch.cat([tokens, voltage.unsqueeze(2).expand(-1, -1, tokens.shape[2], -1)], dim=3)


class PaperMaps(nn.Module):
    """Maps of the `paper` preset: stem over all leads, then five residual stages along time with BatchNorm.

    The stem's second convolution is dense, and its 48 channels are read as 4 features x 12 leads although its
    GroupNorm groups them as 12 x 4: both as the authors do, so that their weights give their outputs.

    Source: Chen et al. 2025, doi 10.1109/TBDATA.2025.3536922, and their public code.
    """

    FEATURES = 4
    CHANNELS = (4, 8, 16, 16, 16, 16)

    def __init__(self) -> None:
        super().__init__()
        channels = LEADS * self.FEATURES
        self.lead_conv = nn.Conv2d(LEADS, channels, (1, 5), padding=(0, 2), groups=LEADS)
        self.lead_norm = nn.GroupNorm(LEADS, channels)
        self.dense_conv = nn.Conv2d(channels, channels, (1, 5), padding=(0, 2))
        self.dense_norm = nn.GroupNorm(LEADS, channels)
        for layer in (self.lead_conv, self.dense_conv):
            nn.init.kaiming_normal_(layer.weight)
        self.stages = nn.Sequential(
            *(
                DownStage(before, after)
                for before, after in zip(self.CHANNELS, self.CHANNELS[1:], strict=False)
            )
        )

    def forward(self, signal: Tensor, lead_mask: Tensor | None) -> Tensor:
        """(N, 12, samples) as given, kept leads (12,) or None -> (N, 12, samples / 32, 16)."""
        if lead_mask is not None:
            signal = signal * lead_mask.to(signal.dtype).unsqueeze(1)
        row = _channels_last(signal.unsqueeze(2))
        features = F.gelu(self.lead_norm(self.lead_conv(row)))
        features = F.gelu(self.dense_norm(self.dense_conv(features)))
        tokens = features.permute(0, 2, 3, 1).reshape(*signal.shape[::2], self.FEATURES, LEADS)
        maps: Tensor = self.stages(tokens.permute(0, 3, 1, 2).contiguous().permute(0, 3, 1, 2))
        return maps.permute(0, 2, 3, 1)


class DownStage(nn.Module):
    """Residual stage of the authors: half the samples, two convolutions (1, 5), BatchNorm, leaky ReLU."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(before, after, (1, 5), stride=(1, 2), padding=(0, 2), bias=False)
        self.norm_1 = ChannelsLastBatchNorm(after)
        self.conv_2 = nn.Conv2d(after, after, (1, 5), padding=(0, 2), bias=False)
        self.norm_2 = ChannelsLastBatchNorm(after)
        self.shortcut = nn.Conv2d(before, after, 1)
        for layer in (self.conv_1, self.conv_2, self.shortcut):
            nn.init.kaiming_normal_(layer.weight)

    def forward(self, features: Tensor) -> Tensor:
        """(N, before, 12, steps) -> (N, after, 12, steps / 2)."""
        inner = F.leaky_relu(self.norm_1(self.conv_1(features)), inplace=True)
        inner = F.leaky_relu(self.norm_2(self.conv_2(inner)), inplace=True)
        shortcut: Tensor = self.shortcut(_halve(features))
        return F.gelu(shortcut.add_(inner))


def normalise_leads(signal_mv: Tensor) -> Tensor:
    """Each lead minus its mean, divided by its RMS; a flat lead stays zero; (N, 12, T) mV -> (N, 12, T)."""
    centred = signal_mv - signal_mv.mean(dim=2, keepdim=True)
    return centred / _rms_mv(centred)


def zscore_leads(signal: Tensor) -> Tensor:
    """z-score of each lead (population variance) as the authors feed their network; a flat lead gives zeros."""
    centred = signal - signal.mean(dim=2, keepdim=True)
    deviation = centred.square().mean(dim=2, keepdim=True).sqrt()
    # Rounding leaves a constant lead with a deviation of about 1e-7 of its value: that is flat too.
    flat = deviation <= 1e-6 * signal.abs().amax(dim=2, keepdim=True).clamp_min(1e-6)
    return torch.where(flat, torch.zeros_like(centred), centred / torch.where(flat, 1.0, deviation))


def _log_voltage(signal_mv: Tensor) -> Tensor:
    """(N, 12, T) mV -> (N, 12, 2): log RMS and log peak-to-peak of each lead, centred and scaled."""
    rms_mv = _rms_mv(signal_mv - signal_mv.mean(dim=2, keepdim=True)).squeeze(2)
    peak_to_peak_mv = signal_mv.amax(dim=2) - signal_mv.amin(dim=2) + PEAK_TO_PEAK_FLOOR_MV
    centred = [rms_mv.log() - LOG_RMS_CENTRE, peak_to_peak_mv.log() - LOG_PEAK_TO_PEAK_CENTRE]
    return torch.stack(centred, dim=2) / LOG_SPREAD


def _rms_mv(centred_mv: Tensor) -> Tensor:
    return (centred_mv.square().mean(dim=2, keepdim=True) + RMS_FLOOR_MV**2).sqrt()


def _normalise_maps(features: Tensor) -> Tensor:
    """Zero mean and unit variance over each lead's whole map, so that steps keep their relative size.

    (N, C, 12, steps) -> the same. A scale and shift of its own would add nothing to the convolution's.
    """
    tokens = features.permute(0, 2, 3, 1)
    return F.layer_norm(tokens, tokens.shape[2:]).permute(0, 3, 1, 2)


def _fold(features: Tensor, steps: int) -> Tensor:
    """Neighbouring steps become channels: (N, C, 12, T) -> (N, steps * C, 12, T / steps), channels-last, no copy.

    A convolution of k folded steps is one of stride `steps` and kernel k * steps; its gradient is computed in half the
    time of the strided one.
    """
    tokens = features.permute(0, 2, 3, 1)
    records, leads, length, channels = tokens.shape
    return tokens.reshape(records, leads, length // steps, steps * channels).permute(0, 3, 1, 2)


def _channels_last(features: Tensor) -> Tensor:
    return features.contiguous(memory_format=torch.channels_last)


def _halve(features: Tensor) -> Tensor:
    """Maximum of each two neighbouring samples; torch's own pooling is up to 20 times slower on 4 channels."""
    tokens = features.permute(0, 2, 3, 1)
    records, leads, steps, width = tokens.shape
    pairs = tokens.reshape(records, leads, steps // 2, 2 * width)
    first, second = pairs.tensor_split(2, dim=3)
    return (second + F.relu(first - second)).permute(0, 3, 1, 2)
