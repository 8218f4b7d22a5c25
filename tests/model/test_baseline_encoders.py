"""Baseline encoders: as many parameters as ours, usable where ours is, and honest about having no attention maps."""

import numpy as np
import pytest
import torch

from fedecg.config import ModelSettings, SignalSettings, StudySettings, parse_settings
from fedecg.errors import ModelError, SettingsError
from fedecg.model import build_network, load_vector, stage_tensors, to_vector
from fedecg.model.baseline_encoders import COUNTS, KINDS, baseline_encoder, parameters
from fedecg.model.encoder import DualAttentionEncoder

ENCODERS = ["xresnet1d", "transformer"]
SHAPES = [
    ("fedecg", 1024, "small"),
    ("fedecg", 1024, "base"),
    ("fedecg", 256, "small"),
    ("paper", 608, "base"),
]


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize(("preset", "samples", "size"), SHAPES)
def test_it_has_as_many_parameters_as_ours_within_five_per_cent(kind, preset, samples, size) -> None:
    ours = parameters(DualAttentionEncoder(preset, samples, size))
    assert parameters(baseline_encoder(kind, preset, samples, size, 0.1)) == pytest.approx(ours, rel=0.05)


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize(("first", "second"), [(8, 12), (16, 64), (24, 33)])
def test_parameters_are_counted_without_making_the_network(kind, first, second) -> None:
    made = KINDS[kind](first, second, 64, 10, 0.0)
    if kind == "xresnet1d":
        second -= second % 2
        made = KINDS[kind](first, second, 64, 10, 0.0)
    assert COUNTS[kind](first, second, 10) == parameters(made)


def network_with(kind: str, seed: int = 3):
    settings = ModelSettings.model_validate({"encoder": kind, "size": "small", "dropout": 0.0})
    return build_network(settings, 128, 16, seed)


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_network_with_it_embeds_learns_and_travels_as_a_vector(kind: str) -> None:
    network, signal = network_with(kind), torch.randn(4, 12, 128, generator=torch.Generator().manual_seed(0))
    embedding = network.embed(signal)
    assert embedding.shape == (4, 256)
    network.log_hazard(embedding).sum().backward()
    assert all(weight.grad is not None for weight in network.encoder.parameters())
    names = stage_tensors(network, "survival", reconstruction=False)
    other = network_with(kind, seed=4).eval()
    assert not torch.equal(network.eval().embed(signal), other.embed(signal))
    load_vector(other, names, to_vector(network, names))
    assert torch.equal(network.embed(signal), other.embed(signal))


@pytest.mark.parametrize("kind", ENCODERS)
def test_what_a_hidden_lead_holds_has_no_effect(kind: str) -> None:
    network = network_with(kind).eval()
    signal = torch.randn(2, 12, 128, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(12, dtype=torch.bool)
    mask[5] = False
    changed = signal.clone()
    changed[:, 5] *= -7
    assert torch.equal(network.embed(signal, mask), network.embed(changed, mask))
    assert not torch.equal(network.embed(signal), network.embed(changed))


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_first_weights_depend_on_the_seed_alone(kind: str) -> None:
    torch.manual_seed(99)
    before = torch.get_rng_state()
    first, second = network_with(kind), network_with(kind)
    assert torch.equal(before, torch.get_rng_state())
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_a_trained_cnn_uses_its_blocks_although_their_last_scale_begins_at_nought() -> None:
    network = network_with("xresnet1d")
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    signal = torch.randn(8, 12, 128, generator=torch.Generator().manual_seed(2))
    for _ in range(2):
        optimiser.zero_grad()
        network.embed(signal).square().mean().backward()
        optimiser.step()
    last = network.encoder.blocks[0].inner[-1][1]
    assert float(last.weight.detach().abs().max()) > 0


def test_attention_maps_are_refused_with_the_remedy() -> None:
    with pytest.raises(ModelError, match=r"FECG-394 attention maps.*XResNet1d.*dual-attention"):
        network_with("xresnet1d").encoder.attention(torch.zeros(1, 12, 128))


def test_a_length_that_is_no_multiple_of_32_is_refused_as_ours_refuses_it() -> None:
    with pytest.raises(ModelError, match="FECG-301"):
        baseline_encoder("transformer", "fedecg", 100, "small", 0.0)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({}, "expected evaluation.explain = false with model.encoder"),
        (
            {"evaluation": {"explain": False}, "survival": {"layer-decay": 0.5}},
            'expected survival.layer-decay = 1 with model.encoder = "xresnet1d"',
        ),
        (
            {
                "evaluation": {"explain": False},
                "privacy": {"mode": "sample", "sums": "noised"},
            },
            'expected another model.encoder than "xresnet1d" with privacy.mode',
        ),
    ],
)
def test_what_a_baseline_encoder_cannot_do_is_refused_when_the_settings_are_read(extra, said) -> None:
    with pytest.raises(SettingsError, match=said):
        parse_settings(StudySettings, {"model": {"encoder": "xresnet1d"}, **extra})
    fine = {"model": {"encoder": "xresnet1d"}, "evaluation": {"explain": False}}
    assert parse_settings(StudySettings, fine).signals == SignalSettings()
    assert np.isfinite(parse_settings(StudySettings, fine).model.dropout)
