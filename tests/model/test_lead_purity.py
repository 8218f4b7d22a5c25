"""The default preset: a lead's map holds that lead alone, its voltage counts, a hidden lead is really hidden."""

import math

import pytest
import torch
from torch import Tensor

from fedecg.config import ModelSettings
from fedecg.model import DualAttentionEncoder, build_network
from fedecg.model.lead_maps import normalise_leads

V3 = 8
OTHERS = [lead for lead in range(12) if lead != V3]


@pytest.fixture(params=["small", "base"])
def encoder(request: pytest.FixtureRequest) -> DualAttentionEncoder:
    return DualAttentionEncoder("fedecg", 320, request.param).eval()


def test_changing_v3_changes_no_other_leads_features_nor_temporal_attention(
    encoder: DualAttentionEncoder, signal_mv: Tensor
) -> None:
    changed = signal_mv.clone()
    changed[:, V3] = 2 * torch.randn_like(changed[:, V3])
    for layer in (lambda maps: maps, encoder.temporal, encoder.temporal.weights):
        before, after = layer(encoder.maps(signal_mv, None)), layer(encoder.maps(changed, None))
        assert torch.equal(before[:, OTHERS], after[:, OTHERS])
        assert not torch.allclose(before[:, V3], after[:, V3])


def test_across_leads_v3_reaches_the_others(encoder: DualAttentionEncoder, signal_mv: Tensor) -> None:
    changed = signal_mv.clone()
    changed[:, V3] = 2 * torch.randn_like(changed[:, V3])
    before = encoder.cross_lead(encoder.maps(signal_mv, None))
    after = encoder.cross_lead(encoder.maps(changed, None))
    assert not torch.allclose(before[:, OTHERS], after[:, OTHERS], atol=1e-4)


def test_the_last_two_channels_are_the_voltage_of_the_lead(encoder: DualAttentionEncoder) -> None:
    signal = torch.zeros(1, 12, 320)
    signal[0, 2] = 0.5 * torch.sin(torch.arange(320) * 2 * math.pi / 32)
    maps = encoder.maps(signal, None)
    doubled = encoder.maps(2 * signal, None)
    rms, peak_to_peak = maps[0, 2, 0, -2:].tolist()
    assert rms == pytest.approx((math.log(0.5 / math.sqrt(2)) + 1.6) / 0.5, abs=1e-2)
    assert peak_to_peak == pytest.approx((math.log(1.05) - 0.4) / 0.5, abs=1e-2)
    assert torch.equal(maps[..., -2:], maps[:, :, :1, -2:].expand(-1, -1, 10, -1))
    torch.testing.assert_close(doubled[0, 2, 0, -2] - maps[0, 2, 0, -2], torch.tensor(math.log(2) / 0.5),
                               rtol=0, atol=1e-2)  # fmt: skip


def test_doubling_v1_to_v6_changes_the_log_hazard(signal_mv: Tensor) -> None:
    network = build_network(ModelSettings(), 320, 8, seed=0).eval()
    doubled = signal_mv.clone()
    doubled[:, 6:] *= 2
    difference = network.log_hazard(network.embed(doubled)) - network.log_hazard(network.embed(signal_mv))
    assert difference.abs().min() > 1e-3


def test_a_constant_offset_of_a_lead_changes_nothing(
    encoder: DualAttentionEncoder, signal_mv: Tensor
) -> None:
    torch.testing.assert_close(encoder(signal_mv + 0.4), encoder(signal_mv), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("preset", ["fedecg", "paper"])
def test_what_a_hidden_lead_holds_has_no_effect(preset: str, signal_mv: Tensor) -> None:
    network = build_network(ModelSettings.model_validate({"preset": preset}), 320, 8, seed=0).eval()
    mask = torch.ones(12, dtype=torch.bool)
    mask[[V3, 0]] = False
    changed = signal_mv.clone()
    changed[:, V3], changed[:, 0] = 5 * torch.randn(6, 320), 0.0
    assert torch.equal(network.embed(signal_mv, mask), network.embed(changed, mask))
    assert not torch.allclose(network.embed(signal_mv, mask), network.embed(signal_mv))
    maps, others = (network.encoder.attention(signal, mask) for signal in (signal_mv, changed))
    assert torch.equal(maps.time, others.time) or preset == "paper"  # the paper's encoder gets z-scores


def test_a_mask_that_keeps_all_leads_is_no_mask(encoder: DualAttentionEncoder, signal_mv: Tensor) -> None:
    assert torch.equal(encoder(signal_mv, torch.ones(12, dtype=torch.bool)), encoder(signal_mv))


def test_normalised_leads_have_mean_0_and_rms_1_and_a_flat_lead_stays_zero(signal_mv: Tensor) -> None:
    signal_mv[:, 5] = -1.0
    normal = normalise_leads(signal_mv)
    torch.testing.assert_close(normal.mean(dim=2), torch.zeros(6, 12), rtol=0, atol=1e-5)
    torch.testing.assert_close(normal[:, :5].square().mean(dim=2), torch.ones(6, 5), rtol=0, atol=1e-2)
    assert normal[:, 5].abs().max() < 1e-4
