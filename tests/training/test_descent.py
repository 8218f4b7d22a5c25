"""Optimiser steps: by hand, bound on the gradient, the pull of FedProx, refusals, what stays untouched."""

import numpy as np
import pytest
import torch
from torch import nn

from fedecg.config import SurvivalSettings
from fedecg.errors import ModelError
from fedecg.training.descent import descend

ONE_BATCH = [np.arange(4)]


class Point(nn.Module):
    """Two weights; `moved` is the stage's, `kept` is not."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = nn.Parameter(torch.tensor([3.0, 4.0]))
        self.kept = nn.Parameter(torch.tensor([1.0]))


def stage(**changes):
    values = {"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 0.0, "clip_norm": 1e9, **changes}
    return SurvivalSettings(**values)


def length(point):
    """Squared length of both weights, so both have gradients: 2 w."""
    return lambda _: point.moved.square().sum() + point.kept.square().sum()


def test_one_sgd_step_by_hand_moves_the_stages_weights_only():
    point = Point()
    loss = descend(point, ["moved"], stage(), 0.0, ONE_BATCH, length(point))
    assert loss == 26.0
    torch.testing.assert_close(point.moved.detach(), torch.tensor([2.4, 3.2]))
    assert point.kept.item() == 1.0


def test_the_gradient_is_cut_to_the_norm_that_is_set():
    point = Point()
    descend(point, ["moved"], stage(clip_norm=0.5), 0.0, ONE_BATCH, length(point))
    step = torch.tensor([3.0, 4.0]) - point.moved.detach()
    assert step.norm().item() == pytest.approx(0.1 * 0.5, rel=1e-4)


def test_fedprox_pulls_back_to_the_start_and_is_not_clipped():
    point = Point()
    descend(point, ["moved"], stage(clip_norm=1.0), 4.0, ONE_BATCH * 2, lambda _: point.moved.sum() * 1e3)
    # Clipped gradient (1, 1) / sqrt(2). First step: -0.1 g. Second: -0.1 (g + 4 (-0.1 g)) = -0.06 g.
    expected = torch.tensor([3.0, 4.0]) - 0.16 / 2**0.5
    torch.testing.assert_close(point.moved.detach(), expected)


def test_weights_without_a_gradient_stay_where_they_are():
    point = Point()
    descend(point, ["moved", "kept"], stage(weight_decay=0.5), 0.1, ONE_BATCH, lambda _: point.moved.sum())
    assert point.kept.item() == 1.0


def test_adamw_starts_anew_every_round():
    weights = []
    for _ in range(2):
        point = Point()
        settings = stage(optimizer="adamw")
        descend(point, ["moved"], settings, 0.0, ONE_BATCH, length(point))
        weights.append(point.moved.detach().clone())
    assert torch.equal(*weights)
    torch.testing.assert_close(weights[0], torch.tensor([2.9, 3.9]))  # the first step of Adam is lr * sign


@pytest.mark.parametrize("training", [True, False])
def test_steps_run_in_training_mode_and_the_mode_comes_back(training):
    point, seen = Point().train(training), []

    def loss_of(_):
        seen.append(point.training)
        return point.moved.sum()

    descend(point, ["moved"], stage(), 0.0, ONE_BATCH, loss_of)
    assert seen == [True]
    assert point.training is training
    assert point.moved.grad is None


def test_no_batches_change_nothing():
    point = Point()
    assert descend(point, ["moved"], stage(weight_decay=1.0), 1.0, [], length(point)) == 0.0
    assert point.moved.tolist() == [3.0, 4.0]


@pytest.mark.parametrize(
    ("found", "loss_of"),
    [
        ("a loss that is not finite at step 1 of 2", lambda point: point.moved.sum() * float("nan")),
        (
            "a gradient that is not finite at step 1 of 2",
            lambda point: (point.moved - point.moved).sqrt().sum(),
        ),
    ],
)
def test_losses_and_gradients_that_are_not_finite_are_refused_before_the_step(found, loss_of):
    point = Point()
    with pytest.raises(ModelError) as refusal:
        descend(point, ["moved"], stage(), 0.0, ONE_BATCH * 2, lambda _: loss_of(point))
    assert refusal.value.code == "FECG-323"
    assert found in str(refusal.value)
    assert "learning-rate" in refusal.value.fix
    assert point.moved.tolist() == [3.0, 4.0]


def test_batch_norm_refuses_a_batch_of_one_record_before_any_step():
    network = nn.Sequential(nn.BatchNorm1d(2))
    batches = [np.arange(2), np.array([5])]
    with pytest.raises(ModelError) as refusal:
        descend(
            network,
            ["0.weight"],
            stage(),
            0.0,
            batches,
            lambda batch: network(torch.ones(len(batch), 2)).sum(),
        )
    assert refusal.value.code == "FECG-324"
    assert "found 1 of 2 with a single record, in a network with BatchNorm" in str(refusal.value)
    assert 'model.preset = "fedecg"' in refusal.value.fix
    assert network[0].num_batches_tracked.item() == 0
