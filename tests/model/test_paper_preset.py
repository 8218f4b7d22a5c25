"""The paper preset is the authors' network: same size, same outputs, same gradients after copying the weights."""

from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from fedecg.config import ModelSettings
from fedecg.model import DualAttentionEncoder, build_network
from fedecg.model.batch_norm import ChannelsLastBatchNorm
from fedecg.model.decoder import PaperDecoder
from fedecg.model.lead_maps import zscore_leads

PAPER = ModelSettings(preset="paper", dropout=0.0)


def shaken(module: nn.Module) -> nn.Module:
    """Move norms, biases and running statistics off their first values, so that a wrong copy shows."""
    state = {
        name: tensor + 0.2 * torch.rand_like(tensor) if tensor.is_floating_point() else tensor
        for name, tensor in module.state_dict().items()
    }
    module.load_state_dict(state)
    return module


def pair(authors: ModuleType, samples: int) -> tuple[nn.Module, DualAttentionEncoder]:
    reference = shaken(authors.AuthorsEncoder(samples, dropout=0.0))
    ours = DualAttentionEncoder("paper", samples, dropout=0.0)
    ours.load_state_dict(authors.convert(reference.state_dict(), ours.state_dict()))
    return reference, ours


@pytest.mark.parametrize(("samples", "count"), [(608, 1_274_536), (1024, 3_313_976)])
def test_the_encoder_has_the_published_number_of_parameters(samples: int, count: int) -> None:
    encoder = DualAttentionEncoder("paper", samples)
    assert sum(weight.numel() for weight in encoder.parameters()) == count
    assert encoder.embedding_size == 512


def test_the_slow_reference_has_that_number_too(authors: ModuleType) -> None:
    assert sum(weight.numel() for weight in authors.AuthorsEncoder(608).parameters()) == 1_274_536


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("samples", [64, 608])
def test_embeddings_equal_those_of_the_slow_reference(
    authors: ModuleType, samples: int, training: bool
) -> None:
    reference, ours = pair(authors, samples)
    signal = torch.randn(5, 12, samples)
    torch.testing.assert_close(
        ours.train(training)(signal), reference.train(training)(signal), rtol=1e-4, atol=1e-4
    )


def test_gradients_and_running_statistics_equal_those_of_the_slow_reference(authors: ModuleType) -> None:
    reference, ours = (module.double().train() for module in pair(authors, 96))
    signal, direction = torch.randn(4, 12, 96).double(), torch.randn(4, 512).double()
    for module in (reference, ours):
        (module(signal) * direction).sum().backward()
    gradients = {name: weight.grad for name, weight in reference.named_parameters()}
    expected = authors.convert({**reference.state_dict(), **gradients}, ours.state_dict())
    found = {name: weight.grad for name, weight in ours.named_parameters()}
    torch.testing.assert_close(found, {name: expected[name] for name in found}, rtol=1e-9, atol=1e-9)
    state = authors.convert(reference.state_dict(), ours.state_dict())
    torch.testing.assert_close(dict(ours.state_dict()), state, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("training", [False, True])
def test_reconstructions_equal_those_of_the_slow_reference(authors: ModuleType, training: bool) -> None:
    reference = shaken(authors.AuthorsDecoder(96)).double().train(training)
    ours = PaperDecoder(512, 96).double().train(training)
    ours.load_state_dict(authors.convert_decoder(reference.state_dict(), ours.state_dict()))
    embedding = torch.randn(3, 512).double()
    torch.testing.assert_close(ours(embedding), reference(embedding), rtol=1e-9, atol=1e-9)


def test_attention_maps_average_to_what_torch_returns(authors: ModuleType) -> None:
    reference, ours = (module.eval() for module in pair(authors, 96))
    signal = torch.randn(3, 12, 96)
    stem = reference.input_conv(signal).view(3, 4, 12, 96)
    tokens = reference.encoder(stem).permute(2, 0, 1, 3).reshape(12, 3, -1)
    normal = reference.attention.norm2(reference.attention.lead_encoder(tokens))
    expected = reference.attention.lead_mha(normal, normal, normal)[1]
    torch.testing.assert_close(ours.attention(signal).lead.mean(dim=1), expected, rtol=1e-4, atol=1e-5)


def test_the_network_embeds_z_scores_so_gain_and_offset_of_a_lead_do_not_matter(signal_mv: Tensor) -> None:
    network = build_network(PAPER, 320, 8, seed=0).eval()
    changed = signal_mv * torch.linspace(0.5, 3, 12)[:, None] + 0.2
    torch.testing.assert_close(network.embed(changed), network.embed(signal_mv), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(network.reconstruction_target(signal_mv), zscore_leads(signal_mv))


def test_z_scores_have_mean_0_and_deviation_1_and_a_flat_lead_is_zero(signal_mv: Tensor) -> None:
    signal_mv[:, 4] = 0.7
    scores = zscore_leads(signal_mv)
    kept = [lead for lead in range(12) if lead != 4]
    torch.testing.assert_close(scores[:, kept].mean(dim=2), torch.zeros(6, 11), rtol=0, atol=1e-5)
    torch.testing.assert_close(scores[:, kept].std(dim=2, correction=0), torch.ones(6, 11))
    assert torch.equal(scores[:, 4], torch.zeros(6, 320))


@pytest.mark.parametrize(("channels", "leads"), [(8, 12), (4, 12), (8, 3), (16, 12)])
def test_the_fast_batch_norm_equals_torchs(channels: int, leads: int) -> None:
    ours, torchs = ChannelsLastBatchNorm(channels).double(), nn.BatchNorm2d(channels).double()
    shaken(torchs)
    ours.load_state_dict(torchs.state_dict())
    maps = (2 * torch.randn(3, channels, leads, 20).double() + 1).requires_grad_()
    direction = torch.randn_like(maps)
    results = []
    for norm in (ours, torchs):
        value = norm(maps)
        results.append((value, *torch.autograd.grad(value, (maps, norm.weight, norm.bias), direction)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(dict(ours.state_dict()), dict(torchs.state_dict()), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.eval()(maps), torchs.eval()(maps))
