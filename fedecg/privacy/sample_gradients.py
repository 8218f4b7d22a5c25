"""The gradient of each patient's own loss term, for every parameter, out of one backward pass.

In:  a network and the names of the tensors that a stage trains; then the sum of a batch's per-patient losses.
Out: for each parameter a tensor (N, ...): row n is the gradient of patient n's term. Called by
     `fedecg.privacy.dp_steps` and `fedecg.privacy.independence`.

Each layer's inputs and output gradients are caught by hooks on it, and its grad sampler makes the rows of them, as in
Opacus' `hooks` mode. Samplers and hooks are ours: Opacus 1.6.0 knows no layer of one map a lead, reads convolutions in
channels-last memory wrongly, without a word (its `unfold2d` takes them as contiguous), takes a module with parameters
of its own (the network with `intercepts`) as one layer, copies every row once more and has autograd compute the summed
gradients, too. A parameter that no layer owns (those intercepts, the temperature) is expanded: while a batch is
computed, each patient has its own copy of it.

Guarantees: every layer must have an exact sampler, else FECG-385; a parameter that the loss reaches by another way
than its layer is found by `fedecg.privacy.independence` (FECG-389) before training starts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedecg.errors import ModelError
from fedecg.model.heads import Temperature
from fedecg.model.layers import LeadLinear, LeadNorm

__all__ = ["SampleGradients"]

Rows = dict[Tensor, Tensor]
Sampler = Callable[[Any, Tensor, Tensor], Rows]


class SampleGradients:
    """Per-patient gradients of a network's parameters.

    Args:
        network: whose layers couple no two patients; BatchNorm does.
        names: state tensors that the stage trains (`fedecg.model.stage_tensors`).

    Attributes:
        names, parameters: those of them that are parameters, in the network's order.

    Raises:
        ModelError: FECG-385, layers among them that have no exact per-patient gradient.
    """

    def __init__(self, network: nn.Module, names: Collection[str]) -> None:
        named = {name: weight for name, weight in network.named_parameters() if name in names}
        self.names, self.parameters = tuple(named), list(named.values())
        self._network = network
        self._layers: list[tuple[nn.Module, Sampler]] = []
        self._expanded: list[tuple[nn.Module, str, nn.Parameter]] = []
        self._rows: Rows = {}
        wanted, refused = set(self.parameters), set()
        for module in network.modules():
            own = {
                name: weight for name, weight in module.named_parameters(recurse=False) if weight in wanted
            }
            if own and _has_sampler(module):
                self._layers.append((module, SAMPLERS[type(module)]))
            elif module is network or isinstance(module, Temperature):
                self._expanded += [(module, name, weight) for name, weight in own.items()]
            elif own:
                refused.add(type(module).__name__)
        _refuse_layers(refused)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Inside, the layers are watched and autograd computes no summed gradients; afterwards all is as before."""
        needed = {weight: weight.requires_grad for weight in self._network.parameters()}
        handles = [layer.register_forward_hook(self._watch(sampler)) for layer, sampler in self._layers]
        try:
            for weight in needed:
                weight.requires_grad_(False)
            yield
        finally:
            for handle in handles:
                handle.remove()
            for weight, before in needed.items():
                weight.requires_grad_(before)
            self._rows = {}

    def of(self, loss_sum: Callable[[], Tensor], records: int) -> list[Tensor]:
        """Rows of every parameter, of a loss that is a sum over the batch's patients.

        Args:
            loss_sum: computes it, with its graph; inside `attached`.
            records: N, patients in the batch, >= 1.

        Returns:
            One tensor (N, *shape) a parameter, in the order of `names`; zeros where the loss does not reach it.
        """
        self._rows = {}
        copies: Rows = {}
        try:
            for module, name, weight in self._expanded:
                copies[weight] = _copies(weight, records)
                module._parameters[name] = copies[weight]  # type: ignore[assignment]  # a leaf a patient
            loss = loss_sum()
        finally:
            for module, name, weight in self._expanded:
                module._parameters[name] = weight
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        found = self._rows | {weight: copy.grad for weight, copy in copies.items() if copy.grad is not None}
        self._rows = {}
        return [
            found[weight].reshape(records, *weight.shape)
            if weight in found
            else torch.zeros(records, *weight.shape, dtype=weight.dtype)
            for weight in self.parameters
        ]

    def _watch(self, sampler: Sampler) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def watch(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if not torch.is_grad_enabled():
                return
            features = inputs[0].detach()
            if not output.requires_grad:
                output.requires_grad_()  # the first layer: nothing before it is learned
            output.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: self._add(sampler(layer, features, gradient))
            )

        return watch

    def _add(self, rows: Rows) -> None:
        for weight, row in rows.items():
            # A layer that is used twice in a pass adds up, as its gradient does.
            self._rows[weight] = self._rows[weight] + row if weight in self._rows else row


def _copies(weight: nn.Parameter, records: int) -> Tensor:
    """A leaf (N, *shape), of a scalar (N, 1): a copy of the parameter for each patient."""
    shape = weight.shape if weight.dim() else (1,)
    return weight.detach().expand(records, *shape).clone().requires_grad_()


def _linear(layer: nn.Linear, features: Tensor, gradient: Tensor) -> Rows:
    """(N, ..., inputs), (N, ..., outputs)."""
    records = len(features)
    inputs = features.reshape(records, -1, features.shape[-1])
    outputs = gradient.reshape(records, -1, gradient.shape[-1])
    if inputs.shape[1] == 1:  # no sum to take: a product of two vectors
        rows: Rows = {layer.weight: outputs.squeeze(1).unsqueeze(2) * inputs}
    else:
        rows = {layer.weight: torch.bmm(outputs.transpose(1, 2), inputs)}
    if layer.bias is not None:
        rows[layer.bias] = outputs.sum(dim=1)
    return rows


def _lead_linear(layer: LeadLinear, features: Tensor, gradient: Tensor) -> Rows:
    """(N, leads, steps, inputs), (N, leads, steps, outputs); one product for each lead of each patient."""
    weight = torch.matmul(gradient.transpose(2, 3), features)
    return {layer.weight: weight, layer.bias: gradient.sum(dim=2)}


def _lead_norm(layer: LeadNorm, features: Tensor, gradient: Tensor) -> Rows:
    """(N, leads, steps, width) twice."""
    normal = F.layer_norm(features, (features.shape[-1],))
    return {layer.weight: (normal * gradient).sum(dim=2), layer.bias: gradient.sum(dim=2)}


def _convolution(layer: nn.Conv2d, features: Tensor, gradient: Tensor) -> Rows:
    """(N, inputs, leads, steps), (N, outputs, leads, steps) of a convolution along time that keeps the steps.

    Opacus' own sampler reads channels-last memory, in which these maps lie, as if it were contiguous, and is then wrong
    without a word (opacus 1.6.0, `unfold2d`).
    """
    taps, width, records = layer.kernel_size[1], layer.in_channels, len(features)
    reach = taps // 2
    tokens = (
        F.pad(features.permute(0, 2, 3, 1), (0, 0, reach, reach)).reshape(records, -1, width).contiguous()
    )
    # Zeros behind each lead: a window that reaches into the next one counts for nothing.
    outputs = F.pad(gradient.permute(0, 2, 3, 1), (0, 0, 0, 2 * reach)).reshape(
        records, -1, layer.out_channels
    )
    length = outputs.shape[1] - 2 * reach
    # A window of tokens lies in one piece in memory.
    windows = tokens.as_strided((records, length, taps * width), (tokens.stride(0), width, 1)).contiguous()
    product = torch.bmm(outputs[:, :length].transpose(1, 2), windows)
    weight = product.view(records, -1, 1, taps, width).movedim(-1, 2)
    rows: Rows = {layer.weight: weight}
    if layer.bias is not None:
        rows[layer.bias] = gradient.sum(dim=(2, 3))
    return rows


def _keeps_steps(layer: nn.Conv2d) -> bool:
    """Whether it is one of ours: along time, an odd kernel, padded by half of it."""
    height, taps = layer.kernel_size
    plain = layer.groups == 1 and layer.stride == (1, 1) and layer.dilation == (1, 1) and height == 1
    return plain and taps % 2 == 1 and layer.padding == (0, taps // 2)


def _layer_norm(layer: nn.LayerNorm, features: Tensor, gradient: Tensor) -> Rows:
    """(N, ..., width) twice."""
    width = features.shape[-1]
    scaled = F.layer_norm(features, (width,), eps=layer.eps) * gradient
    rows: Rows = {layer.weight: scaled.reshape(len(features), -1, width).sum(dim=1)}
    rows[layer.bias] = gradient.reshape(len(features), -1, width).sum(dim=1)
    return rows


SAMPLERS: dict[type[nn.Module], Sampler] = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.LayerNorm: _layer_norm,
    LeadLinear: _lead_linear,
    LeadNorm: _lead_norm,
}


def _has_sampler(module: nn.Module) -> bool:
    """Whether its kind has one, in the form that the sampler is for."""
    if type(module) not in SAMPLERS:
        return False
    if isinstance(module, nn.Conv2d):
        return _keeps_steps(module)
    return not isinstance(module, nn.LayerNorm) or len(module.normalized_shape) == 1


def _refuse_layers(refused: set[str]) -> None:
    if refused:
        raise ModelError(
            "FECG-385",
            "differential privacy of every patient",
            found=f"layers without an exact gradient a patient: {', '.join(sorted(refused))}",
            expected='those of model.preset = "fedecg" (BatchNorm couples the patients of a batch)',
            fix='Set model.preset = "fedecg", or privacy.mode = "none".',
        )
