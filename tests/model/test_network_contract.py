"""What every network keeps: shapes, one mask a batch, records apart, finite on flat leads, equal for a seed."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fedecg.config import ModelSettings
from fedecg.errors import ModelError
from fedecg.model import BatchwiseDropout, DualAttentionEncoder, Network, build_network, stage_tensors
from fedecg.model.layers import sinusoidal_positions

KINDS: list[dict[str, Any]] = [
    {"preset": "fedecg", "size": "base"},
    {"preset": "fedecg", "size": "small"},
    {"preset": "paper"},
]


def network_of(kind: dict[str, Any], seed: int = 0, **settings: Any) -> Network:
    return build_network(ModelSettings.model_validate({**kind, **settings}), 320, 8, seed)


@pytest.fixture(params=KINDS, ids=lambda kind: "-".join(kind.values()))
def kind(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(request.param)


def test_shapes_are_those_of_the_contract(kind: dict[str, Any], signal_mv: Tensor) -> None:
    network = network_of(kind)
    embedding = network.embed(signal_mv)
    assert embedding.shape == (6, network.encoder.embedding_size)
    assert network.encoder.embedding_size == (256 if kind.get("size") == "small" else 512)
    assert network.log_hazard(embedding).shape == (6,)
    assert network.project(embedding).shape == (6, 8)
    assert (
        network.reconstruct(embedding).shape == network.reconstruction_target(signal_mv).shape == (6, 12, 320)
    )


def test_attention_maps_are_weights_over_steps_and_leads(kind: dict[str, Any], signal_mv: Tensor) -> None:
    encoder = network_of(kind).encoder
    maps = encoder.attention(signal_mv)
    assert maps.time.shape[:2] == (6, 12)
    assert maps.time.shape[3:] == (10, 10)
    assert maps.lead.shape == (6, maps.time.shape[2], 12, 12)
    for weights in (maps.time, maps.lead):
        assert weights.min() >= 0
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))


def test_dropout_hides_the_same_features_in_every_record() -> None:
    dropout = BatchwiseDropout(0.4).train()
    result = dropout(torch.ones(50, 7, 100))
    assert torch.equal(result, result[:1].expand_as(result))
    assert result.unique().tolist() == pytest.approx([0, 1 / 0.6])
    assert (result[0] == 0).float().mean().item() == pytest.approx(0.4, abs=0.06)
    assert not torch.equal(dropout(torch.ones(1, 7, 100)), result[:1])


def test_dropout_is_off_in_evaluation_and_at_rate_0() -> None:
    features = torch.randn(3, 5)
    assert torch.equal(BatchwiseDropout(0.5).eval()(features), features)
    assert torch.equal(BatchwiseDropout(0.0).train()(features), features)


def test_equal_records_stay_equal_under_dropout(signal_mv: Tensor) -> None:
    network = network_of(KINDS[0], dropout=0.5).train()
    twice = torch.cat([signal_mv[:1], signal_mv[:1]])
    hazard = network.log_hazard(network.embed(twice))
    torch.testing.assert_close(hazard[0], hazard[1])


@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(6)))
def test_the_order_of_the_batch_does_not_matter(order: list[int]) -> None:
    network = network_of(KINDS[1]).eval()
    signal_mv = torch.randn(6, 12, 320, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        straight, permuted = (network.embed(signal) for signal in (signal_mv, signal_mv[order]))
    torch.testing.assert_close(permuted, straight[order], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("part", ["whole", "flat leads", "one lead off"])
def test_flat_signals_give_finite_outputs_and_gradients(
    kind: dict[str, Any], part: str, signal_mv: Tensor
) -> None:
    if part == "whole":
        signal_mv = torch.zeros_like(signal_mv)
    elif part == "flat leads":
        signal_mv[:, 3:] = 1.5
    else:
        signal_mv[0, 7] = 0.0
    network = network_of(kind).train()
    embedding = network.embed(signal_mv.requires_grad_())
    outputs = [network.log_hazard(embedding), network.project(embedding), network.reconstruct(embedding)]
    sum(output.sum() for output in outputs).backward()  # type: ignore[union-attr]
    assert all(torch.isfinite(output).all() for output in outputs)
    assert all(
        torch.isfinite(weight.grad).all() for weight in network.parameters() if weight.grad is not None
    )
    if kind["preset"] == "fedecg":
        assert torch.isfinite(signal_mv.grad).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("size", ["small", "base"])
def test_the_default_preset_couples_no_two_records(size: str) -> None:
    """The gradient of a sum over records is the sum of each record's own gradient (needed for DP-SGD)."""
    network = network_of({"size": size}, dropout=0.0).double().train()
    signal_mv = 0.3 * torch.randn(3, 12, 320).double()
    weights = {name: weight.detach() for name, weight in network.named_parameters()}

    def total(weights: dict[str, Tensor], signal: Tensor) -> Tensor:
        return functional_call(_Hazard(network), {f"network.{k}": v for k, v in weights.items()}, (signal,))

    together = grad(total)(weights, signal_mv)
    apart = [grad(total)(weights, signal_mv[row : row + 1]) for row in range(3)]
    summed = {name: sum(gradient[name] for gradient in apart) for name in weights}
    torch.testing.assert_close(summed, together, rtol=1e-8, atol=1e-10)


class _Hazard(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, signal_mv: Tensor) -> Tensor:
        return self.network.log_hazard(self.network.embed(signal_mv)).sum()


def test_every_layer_that_owns_weights_gives_per_record_gradients() -> None:
    """Opacus takes gradients module by module over the first axis of its input: that must be the record."""
    network = network_of({"size": "small"}, dropout=0.0).double()
    seen: dict[str, tuple[nn.Module, Tensor]] = {}
    owners = {
        name: module
        for name, module in network.named_modules()
        if any(True for _ in module.parameters(recurse=False)) and name != "temperature_scale"
    }
    for name, module in owners.items():
        module.register_forward_hook(
            lambda module, inputs, _output, name=name: seen.update({name: (module, inputs[0].detach())})
        )
    embedding = network.embed(0.3 * torch.randn(3, 12, 320).double())
    network.log_hazard(embedding), network.project(embedding), network.reconstruct(embedding)
    assert seen.keys() == owners.keys()
    for name, (module, inputs) in seen.items():
        assert inputs.shape[0] == 3, name
        weights = dict(module.named_parameters())

        def total(weights: dict[str, Tensor], record: Tensor, module: nn.Module = module) -> Tensor:
            output: Tensor = functional_call(module, weights, (record.unsqueeze(0),))
            return output.square().sum()

        each = vmap(grad(total), in_dims=(None, 0))(weights, inputs)
        together = torch.autograd.grad(module(inputs).square().sum(), list(module.parameters()))
        for of_records, of_batch in zip(each.values(), together, strict=True):
            torch.testing.assert_close(of_records.sum(dim=0), of_batch)


def test_the_default_preset_has_none_of_the_layers_that_opacus_refuses() -> None:
    refused = (nn.MultiheadAttention, nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
    assert not any(isinstance(module, refused) for module in network_of(KINDS[0]).modules())


def test_an_empty_batch_passes_through_the_default_preset() -> None:
    network = network_of(KINDS[0])
    embedding = network.embed(torch.zeros(0, 12, 320))
    assert network.log_hazard(embedding).shape == (0,)
    assert network.reconstruct(embedding).shape == (0, 12, 320)


def test_equal_seeds_give_equal_bits_and_leave_torchs_generator_alone(kind: dict[str, Any]) -> None:
    before = torch.get_rng_state()
    first, second, other = network_of(kind, 3), network_of(kind, 3), network_of(kind, 4)
    assert torch.equal(torch.get_rng_state(), before)
    pairs = list(zip(first.state_dict().values(), second.state_dict().values(), strict=True))
    assert all(torch.equal(one, two) for one, two in pairs)
    assert not torch.equal(first.encoder.pooling.mean.weight, other.encoder.pooling.mean.weight)


def test_a_step_is_equal_bit_by_bit_when_repeated(kind: dict[str, Any], signal_mv: Tensor) -> None:
    results = []
    for _ in range(2):
        network = network_of(kind).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
        torch.manual_seed(5)
        network.log_hazard(network.embed(signal_mv)).exp().sum().backward()
        optimizer.step()
        results.append(torch.cat([weight.detach().ravel() for weight in network.encoder.parameters()]))
    assert torch.equal(results[0], results[1])


@pytest.mark.parametrize("samples", [0, 100, 1000])
def test_samples_that_do_not_fit_are_refused(samples: int) -> None:
    with pytest.raises(
        ModelError, match=rf"FECG-301 samples: found {samples}; expected a positive multiple of 32"
    ):
        DualAttentionEncoder(samples=samples)


@pytest.mark.parametrize("start", [0.01, 0.1, 0.5, 1.0])
def test_the_temperature_starts_where_it_is_told(start: float) -> None:
    network = build_network(ModelSettings(size="small"), 320, 8, seed=0, temperature=start)
    assert network.temperature.item() == pytest.approx(start, rel=0.01)


@pytest.mark.parametrize("push", [-1e4, 1e4])
def test_the_temperature_cannot_leave_its_bounds(push: float) -> None:
    network = network_of(KINDS[1])
    network.temperature.backward()
    assert network.temperature_scale.position.grad.abs() > 0
    with torch.no_grad():
        network.temperature_scale.position.add_(push)
    assert network.temperature.item() == pytest.approx(0.01 if push < 0 else 1.0)


@pytest.mark.parametrize("reconstruction", [False, True])
@pytest.mark.parametrize("stage", ["align", "survival"])
def test_a_stage_ships_the_encoder_and_its_own_parts(
    kind: dict[str, Any], stage: str, reconstruction: bool
) -> None:
    network = network_of(kind)
    names = stage_tensors(network, stage, reconstruction)  # type: ignore[arg-type]
    own = {"align": {"projection", "temperature_scale"}, "survival": {"risk"}}[stage]
    if stage == "align" and kind["preset"] == "paper":  # running statistics that `observe` keeps up to date
        own = own | {"risk"}
        assert all(".running_" in name for name in names if name.startswith("risk."))
    assert {name.split(".")[0] for name in names} == {"encoder"} | own | (
        {"decoder"} if reconstruction else set()
    )
    assert list(names) == [name for name in network.state_dict() if name in set(names)]
    assert any("running_var" in name for name in names) == (kind["preset"] == "paper")
    assert not any("num_batches_tracked" in name for name in names)


def test_positions_are_sines_and_cosines_of_falling_rates() -> None:
    positions = sinusoidal_positions(5, 4)
    step = torch.arange(5.0)
    expected = torch.stack([step.sin(), step.cos(), (step / 100).sin(), (step / 100).cos()], dim=1)
    torch.testing.assert_close(positions, expected)
