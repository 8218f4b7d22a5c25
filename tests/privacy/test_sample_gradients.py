"""Gradients of each patient's own term: against a loop of patients one by one, in float64, for every parameter."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModule
from torch import Tensor, nn

from fedecg.config import ModelSettings
from fedecg.errors import ModelError
from fedecg.model import Network, build_network, stage_tensors
from fedecg.model.heads import Temperature
from fedecg.model.layers import LeadLinear, LeadNorm
from fedecg.objectives import (
    bank_loss,
    grouped_loss,
    interval_times,
    paper_loss,
    pooled_cox_loss,
    reconstruction_loss,
)
from fedecg.privacy.sample_gradients import SampleGradients

RECORDS, SAMPLES, BANK_DIM, BINS = 4, 128, 6, 5
Loss = Callable[[Network, slice], Tensor]


def signals() -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return 0.3 * torch.randn(RECORDS, 12, SAMPLES, generator=draw, dtype=torch.float64)


def network_of(size: str, intercepts: int = 0, dropout: float = 0.0) -> Network:
    """A network in float64 whose every weight was moved off its first value, zeros included."""
    settings = ModelSettings(size=size, dropout=dropout)
    network = build_network(settings, SAMPLES, BANK_DIM, seed=3, intercepts=intercepts).double()
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=draw, dtype=torch.float64))
    return network.train()


def alignment(network: Network, at: slice, loss: str, decoded: bool, mask: Tensor | None) -> Tensor:
    signal_mv = signals()[at]
    rng = np.random.default_rng(5)
    bank = torch.from_numpy(rng.normal(size=(3, BANK_DIM)))
    targets = torch.from_numpy(rng.dirichlet(np.ones(3), RECORDS))[at]
    embedding = network.embed(signal_mv, mask)
    projected = network.project(embedding)
    if loss == "bank":
        main = bank_loss(projected, bank, targets, network.temperature, torch.tensor([1.0, 2.0, 0.5]))
    else:
        main = paper_loss(projected, targets @ bank)
    if decoded:
        target = network.reconstruction_target(signal_mv)
        main = 0.7 * main + 0.3 * reconstruction_loss(network.reconstruct(embedding), target)
    return main


def survival(network: Network, at: slice, loss: str, decoded: bool) -> Tensor:
    signal_mv = signals()[at]
    event = torch.tensor([True, False, True, False])[at]
    days, entry = np.array([30.0, 90.0, 250.0, 400.0])[at], np.array([0.0, 10.0, 0.0, 120.0])[at]
    embedding = network.embed(signal_mv)
    log_hazard = network.log_hazard(embedding)
    if loss == "cox-pooled":
        exposure = torch.tensor([0.02, 0.4, 1.0, 3.0], dtype=torch.float64)[at]
        main = pooled_cox_loss(log_hazard, event, exposure, exp_bound=0.1, exposure_bound=10.0)
    else:
        times = interval_times(days, entry, np.array([0.0, 60.0, 120.0, 200.0, 300.0]), 500.0)
        main = grouped_loss(log_hazard, event, times, network.intercepts[..., :BINS] - 1.0, exp_bound=0.1)
    if decoded:
        target = network.reconstruction_target(signal_mv)
        main = 0.7 * main + 0.3 * reconstruction_loss(network.reconstruct(embedding), target)
    return main


def of_the_engine(network: Network, names: tuple[str, ...], loss: Loss) -> dict[str, Tensor]:
    gradients = SampleGradients(network, names)
    with gradients.attached():
        rows = gradients.of(lambda: loss(network, slice(None)) * RECORDS, RECORDS)
    return dict(zip(gradients.names, rows, strict=True))


def one_by_one(network: Network, names: tuple[str, ...], loss: Loss) -> dict[str, Tensor]:
    weights = {name: weight for name, weight in network.named_parameters() if name in names}
    rows: dict[str, list[Tensor]] = {name: [] for name in weights}
    for record in range(RECORDS):
        term = loss(network, slice(record, record + 1))
        for name, part in zip(
            weights, torch.autograd.grad(term, list(weights.values()), allow_unused=True), strict=True
        ):
            rows[name].append(torch.zeros_like(weights[name]) if part is None else part)
    return {name: torch.stack(row) for name, row in rows.items()}


def assert_exact(network: Network, names: tuple[str, ...], loss: Loss) -> None:
    found, expected = of_the_engine(network, names, loss), one_by_one(network, names, loss)
    assert list(found) == list(expected)
    for name, row in expected.items():
        assert row.any(), f"{name}: a test in which a parameter has no gradient cannot fail"
        torch.testing.assert_close(
            found[name], row, rtol=1e-9, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.parametrize("size", ["small", "base"])
@pytest.mark.parametrize("decoded", [False, True])
def test_alignment_gradients_are_those_of_each_patient_alone(size, decoded):
    network = network_of(size)
    mask = torch.ones(12, dtype=torch.bool)
    mask[[1, 4, 9]] = False
    assert_exact(
        network,
        stage_tensors(network, "align", decoded),
        lambda n, at: alignment(n, at, "bank", decoded, mask),
    )


@pytest.mark.parametrize("size", ["small", "base"])
@pytest.mark.parametrize("loss", ["cox-pooled", "grouped"])
@pytest.mark.parametrize("decoded", [False, True])
def test_survival_gradients_are_those_of_each_patient_alone(size, loss, decoded):
    network = network_of(size, intercepts=BINS if loss == "grouped" else 0)
    names = stage_tensors(network, "survival", decoded)
    assert ("intercepts" in names) == (loss == "grouped")
    assert_exact(network, names, lambda n, at: survival(n, at, loss, decoded))


def test_gradients_of_both_losses_at_once_are_those_of_each_patient_alone():
    network = network_of("small", intercepts=BINS)
    names = stage_tensors(network, "survival", True, alignment=True)
    assert_exact(
        network,
        names,
        lambda n, at: survival(n, at, "grouped", True) + 0.5 * alignment(n, at, "bank", False, None),
    )


def test_the_cosine_loss_leaves_the_temperature_without_a_gradient_and_all_else_exact():
    network = network_of("small")
    names = stage_tensors(network, "align", False)

    def loss(n: Network, at: slice) -> Tensor:
        return alignment(n, at, "paper", False, None)

    assert not of_the_engine(network, names, loss)["temperature_scale.position"].any()
    assert_exact(network, tuple(name for name in names if "temperature" not in name), loss)


def test_gradients_under_dropout_are_those_of_each_patient_under_the_same_mask():
    network = network_of("small", dropout=0.4)

    def loss(n: Network, at: slice) -> Tensor:
        torch.manual_seed(11)  # a mask has no record axis: the same for one patient and for all
        return alignment(n, at, "bank", True, None)

    with torch.random.fork_rng():
        assert_exact(network, stage_tensors(network, "align", True), loss)


def test_an_encoder_that_is_fixed_gets_no_gradients_and_the_risk_head_exact_ones():
    network = network_of("small")
    names = tuple(n for n in stage_tensors(network, "survival", False) if n.startswith("risk."))
    with torch.no_grad():
        embedding = network.embed(signals())

    def loss(n: Network, at: slice) -> Tensor:
        exposure = torch.full((RECORDS,), 0.5, dtype=torch.float64)[at]
        event = torch.tensor([True, False, True, False])[at]
        return pooled_cox_loss(n.log_hazard(embedding[at]), event, exposure, 2.0)

    assert_exact(network, names, loss)


class Twice(nn.Module):
    """One layer, used twice in a pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.tanh(self.layer(x)))


def test_a_layer_that_is_used_twice_adds_up():
    module = Twice().double()
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gradients = SampleGradients(module, [name for name, _ in module.named_parameters()])
    with gradients.attached():
        rows = gradients.of(lambda: module(x).square().sum(), 5)
    for number in range(5):
        expected = torch.autograd.grad(module(x[number : number + 1]).square().sum(), gradients.parameters)
        for row, alone in zip(rows, expected, strict=True):
            torch.testing.assert_close(row[number], alone)


def test_rows_are_those_of_opacus_for_layers_that_it_knows():
    network, embedding = network_of("base"), torch.randn(RECORDS, 512, dtype=torch.float64)
    plain = nn.Sequential(network.decoder, nn.Identity())
    names = [name for name, _ in plain.named_parameters()]
    gradients = SampleGradients(plain, names)
    with gradients.attached():
        rows = gradients.of(lambda: plain(embedding).square().sum(), RECORDS)
    watched = GradSampleModule(plain, loss_reduction="sum")
    watched(embedding.requires_grad_()).square().sum().backward()
    for row, weight in zip(rows, gradients.parameters, strict=True):
        torch.testing.assert_close(row, weight.grad_sample)


def test_rows_in_channels_last_memory_are_those_in_contiguous_memory():
    """Opacus 1.6.0 reads the former as the latter in `unfold2d`."""
    draw = torch.Generator().manual_seed(4)
    layer = nn.Conv2d(4, 6, (1, 5), padding=(0, 2)).double()
    x = torch.randn(3, 4, 12, 8, generator=draw, dtype=torch.float64)
    gradients = SampleGradients(layer, ["weight", "bias"])
    rows = []
    for memory in (torch.contiguous_format, torch.channels_last):
        with gradients.attached():
            rows.append(
                gradients.of(
                    lambda memory=memory: layer(x.contiguous(memory_format=memory)).square().sum(), 3
                )
            )
    for contiguous, last in zip(*rows, strict=True):
        torch.testing.assert_close(contiguous, last)


@pytest.mark.parametrize(
    "layer",
    [nn.BatchNorm1d(4), nn.Conv1d(4, 4, 3), nn.Conv2d(4, 4, (1, 3), stride=(1, 2), padding=(0, 1))],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_without_an_exact_sampler_is_refused_by_name(layer):
    network = nn.Sequential(nn.Linear(4, 4), layer)
    with pytest.raises(
        ModelError, match=f"(?s)FECG-385.*without an exact gradient.*{type(layer).__name__}.*fedecg"
    ):
        SampleGradients(network, [name for name, _ in network.named_parameters()])


def test_the_authors_preset_is_refused_and_its_batch_norms_are_named():
    network = build_network(ModelSettings(preset="paper"), 128, BANK_DIM, seed=0)
    with pytest.raises(ModelError, match=r"(?s)FECG-385.*BatchNorm1d.*ChannelsLastBatchNorm"):
        SampleGradients(network, stage_tensors(network, "survival", False))


def test_a_layer_that_does_not_learn_needs_no_sampler():
    network = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))
    assert SampleGradients(network, ["1.weight", "1.bias"]).names == ("1.weight", "1.bias")


def test_the_network_is_afterwards_as_it_was_also_after_an_error():
    network = network_of("small", intercepts=BINS)
    network.decoder.requires_grad_(False)
    before = {name: (weight, weight.requires_grad) for name, weight in network.named_parameters()}
    gradients = SampleGradients(network, stage_tensors(network, "survival", False))

    def fails() -> Tensor:
        assert network.intercepts.shape == (2, BINS)  # inside, a copy for each patient
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), gradients.attached():
        gradients.of(fails, 2)
    after = dict(network.named_parameters())
    assert all(after[name] is weight for name, (weight, _) in before.items())
    assert all(after[name].requires_grad == needed for name, (_, needed) in before.items())
    assert not any(module._forward_hooks for module in network.modules())


def test_every_kind_of_layer_of_the_network_with_parameters_has_a_sampler_or_is_expanded():
    network = network_of("base", intercepts=BINS)
    kinds = {type(m) for m in network.modules() if any(True for _ in m.parameters(recurse=False))}
    assert kinds == {nn.Linear, nn.Conv2d, nn.LayerNorm, LeadLinear, LeadNorm, Temperature, Network}
