"""The whole network: encoder, projection to the code bank, risk head, decoder; and which tensors a stage trains.

In:  signals in mV (N, 12, samples). Out: embeddings, log hazards, projections, reconstructed signals.
Called by `fedecg.training`, `fedecg.evaluation` and the simulations.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from fedecg.config import ModelSettings, StudySettings
from fedecg.model.baseline_encoders import BaselineEncoder, baseline_encoder
from fedecg.model.decoder import LeadDecoder, PaperDecoder
from fedecg.model.encoder import DualAttentionEncoder
from fedecg.model.heads import PaperRiskHead, ProjectionHead, RiskHead, Temperature
from fedecg.model.lead_maps import normalise_leads, zscore_leads

__all__ = ["Network", "Stage", "build_network", "stage_tensors", "tensors_of_stage"]

Stage = Literal["align", "survival"]

STAGE_PARTS: dict[Stage, tuple[str, ...]] = {
    "align": ("encoder", "projection", "temperature_scale"),
    "survival": ("encoder", "risk", "intercepts"),
}


class Network(nn.Module):
    """Dual attention encoder, or one to compare it with, and all that is read off its embedding.

    Args:
        settings: preset, encoder, size, dropout.
        samples: T, a positive multiple of 32.
        bank_dim: length of a vector of the code bank.
        temperature: start of the learnable temperature, in [0.01, 1].
        intercepts: time bins of a discrete-time loss, 0 for all others.

    Attributes:
        intercepts: (bins,) log of the learned baseline hazard over the one that a study's survey found; used in
            training only and not kept in a model file.

    Raises:
        ModelError: FECG-301, samples are not a positive multiple of 32.

    Source: Chen et al. 2025, doi 10.1109/TBDATA.2025.3536922; decisions in design.md section 3.
    """

    encoder: DualAttentionEncoder | BaselineEncoder
    risk: RiskHead | PaperRiskHead
    intercepts: nn.Parameter
    decoder: LeadDecoder | PaperDecoder

    def __init__(
        self,
        settings: ModelSettings,
        samples: int,
        bank_dim: int,
        temperature: float = 0.1,
        intercepts: int = 0,
    ) -> None:
        super().__init__()
        self.settings, self.samples, self.bank_dim = settings, samples, bank_dim
        shape = settings.preset, samples, settings.size, settings.dropout
        if settings.encoder == "dual-attention":
            self.encoder = DualAttentionEncoder(*shape)
        else:
            self.encoder = baseline_encoder(settings.encoder, *shape)
        size = self.encoder.embedding_size
        self.projection = ProjectionHead(size, bank_dim)
        self.temperature_scale = Temperature(temperature)
        if settings.preset == "paper":
            self.risk = PaperRiskHead(size, settings.dropout)
            self.decoder = PaperDecoder(size, samples)
        else:
            self.risk = RiskHead(size, settings.dropout)
            self.decoder = LeadDecoder(size, samples)
        if intercepts:
            self.intercepts = nn.Parameter(torch.zeros(intercepts))

    @property
    def temperature(self) -> Tensor:
        """Scalar in [0.01, 1] that divides similarities; gradients reach its parameter."""
        scale: Tensor = self.temperature_scale()
        return scale

    def embed(self, signal_mv: Tensor, lead_mask: Tensor | None = None) -> Tensor:
        """Embed signals; the `paper` preset z-scores each lead first.

        Args:
            signal_mv: (N, 12, samples), mV, leads in standard order.
            lead_mask: (12,), bool, True = kept; what a hidden lead holds has no effect.

        Returns:
            (N, encoder.embedding_size).
        """
        signal = zscore_leads(signal_mv) if self.settings.preset == "paper" else signal_mv
        embedding: Tensor = self.encoder(signal, lead_mask)
        return embedding

    def log_hazard(self, embedding: Tensor) -> Tensor:
        """(N, embedding_size) -> (N,), no unit; larger means earlier event.

        The `paper` preset trains on at least 2 records: BatchNorm takes their variance.
        """
        hazard: Tensor = self.risk(embedding)
        return hazard

    def observe(self, embedding: Tensor) -> None:
        """Show embeddings to the risk head while it does not learn.

        BatchNorm's running statistics (`paper`) then fit them when survival training begins; where they do not, the
        log hazards of evaluation, of which the baseline hazard is made, are not those of training.

        Args:
            embedding: (N, embedding_size), N >= 2 in training mode.
        """
        if self.settings.preset == "paper":
            with torch.no_grad():
                self.risk(embedding)

    def project(self, embedding: Tensor) -> Tensor:
        """(N, embedding_size) -> (N, bank_dim)."""
        projected: Tensor = self.projection(embedding)
        return projected

    def reconstruct(self, embedding: Tensor) -> Tensor:
        """(N, embedding_size) -> (N, 12, samples), in the units of `reconstruction_target`."""
        signal: Tensor = self.decoder(embedding)
        return signal

    def reconstruction_target(self, signal_mv: Tensor) -> Tensor:
        """What `reconstruct` is compared with: each lead z-scored (`paper`) or at unit RMS (`fedecg`)."""
        return zscore_leads(signal_mv) if self.settings.preset == "paper" else normalise_leads(signal_mv)


def build_network(
    settings: ModelSettings,
    samples: int,
    bank_dim: int,
    seed: int,
    temperature: float = 0.1,
    intercepts: int = 0,
) -> Network:
    """A network whose first weights depend on the seed alone; torch's own generator is left as it was.

    Args:
        settings, samples, bank_dim, temperature, intercepts: as for `Network`.
        seed: any integer that torch takes.

    Raises:
        ModelError: FECG-301, samples are not a positive multiple of 32.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(settings, samples, bank_dim, temperature, intercepts)


def tensors_of_stage(network: Network, settings: StudySettings, stage: Stage) -> tuple[str, ...]:
    """`stage_tensors` of a study: what a site trains, and what every message of the stage carries."""
    kept = settings.survival.alignment > 0
    return stage_tensors(network, stage, getattr(settings, stage).reconstruction > 0, alignment=kept)


def stage_tensors(
    network: Network, stage: Stage, reconstruction: bool, *, alignment: bool = False
) -> tuple[str, ...]:
    """Names of the float state tensors that a stage trains and ships, in the order of the state dict.

    BatchNorm's running statistics (`paper`) are among them, in alignment those of the risk head, too (`observe`); its
    counters of batches are not.

    Args:
        stage: `align` (encoder, projection, temperature) or `survival` (encoder, risk head, intercepts if any).
        reconstruction: the stage trains the decoder, too.
        alignment: survival training keeps the alignment loss, and with it trains projection and temperature.
    """
    parts = (*STAGE_PARTS[stage], "decoder") if reconstruction else STAGE_PARTS[stage]
    if stage == "survival" and alignment:
        parts = (*parts, "projection", "temperature_scale")
    return tuple(
        name
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()
        and (
            name.split(".")[0] in parts
            or (stage == "align" and name.startswith("risk.") and ".running_" in name)
        )
    )
