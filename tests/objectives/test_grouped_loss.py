"""The discrete-time likelihood: by hand, against a plain loop, at the edges of floats, against the Cox model."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lifelines import CoxPHFitter

from fedecg.objectives import grouped_loss, interval_times

BOUND = 60.0


def cohort(seed, patients=60, days=100):
    rng = np.random.default_rng(seed)
    return (
        torch.from_numpy(rng.normal(size=patients)),
        torch.from_numpy(rng.random(patients) < 0.4),
        rng.uniform(0.5, days, patients),
    )


def test_an_event_and_a_censored_patient_by_hand():
    edges, log_baseline = (
        np.array([0.0, 10.0, 20.0]),
        torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64).log(),
    )
    times = interval_times(np.array([15.0, 25.0]), np.zeros(2), edges, horizon_days=30.0)
    assert times.bin.tolist() == [1, 2]
    assert times.share.tolist() == [0.5, 0.5]
    eta = torch.tensor([math.log(2.0), 0.0], dtype=torch.float64)
    loss = grouped_loss(eta, torch.tensor([True, False]), times, log_baseline, BOUND)
    event = 2 * 0.1 - math.log(1 - math.exp(-2 * 0.2))
    censored = 0.1 + 0.2 + 0.5 * 0.4
    assert math.isclose(loss.item(), (event + censored) / 2, rel_tol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_sum_of_every_patients_own_likelihood(seed):
    eta, event, days = cohort(seed)
    edges, log_baseline = (
        np.array([0.0, 30.0, 45.0, 90.0]),
        torch.tensor([-2.0, -1.0, -3.0, -2.5], dtype=torch.float64),
    )
    times = interval_times(days, np.zeros(len(days)), edges, horizon_days=120.0)
    total, ends = 0.0, [30.0, 45.0, 90.0, 120.0]
    for value, seen, day in zip(eta.tolist(), event.tolist(), days, strict=True):
        lived = 0.0
        for start, end, log_step in zip(edges, ends, log_baseline.tolist(), strict=True):
            step = math.exp(value + log_step)
            if day >= end:
                lived += step
            elif day >= start:
                total += (
                    lived - math.log(1 - math.exp(-step))
                    if seen
                    else lived + step * (day - start) / (end - start)
                )
    loss = grouped_loss(eta, event, times, log_baseline, BOUND)
    assert math.isclose(loss.item() * len(days), total, rel_tol=1e-10)


def test_its_gradient_is_that_of_finite_differences():
    eta, event, days = cohort(7, patients=12)
    times = interval_times(days, np.zeros(len(days)), np.array([0.0, 30.0, 60.0]), horizon_days=120.0)
    log_baseline = torch.tensor([-2.0, -1.0, -1.5], dtype=torch.float64, requires_grad=True)
    leaf = eta.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda log_hazard, baseline: grouped_loss(log_hazard, event, times, baseline, BOUND),
        (leaf, log_baseline),
    )


@pytest.mark.parametrize("extreme", [-50.0, 50.0])
def test_log_hazards_of_fifty_give_finite_losses_and_gradients_in_float32(extreme):
    eta = torch.full((4,), extreme, requires_grad=True)
    event, times = (
        torch.tensor([True, True, False, False]),
        interval_times(np.array([1.0, 50.0, 1.0, 50.0]), np.zeros(4), np.array([0.0, 30.0]), 60.0),
    )
    log_baseline = torch.tensor([-8.0, -8.0], requires_grad=True)
    loss = grouped_loss(eta, event, times, log_baseline, exp_bound=10.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(eta.grad).all()
    assert torch.isfinite(log_baseline.grad).all()


@given(st.floats(-3, 3))
def test_a_shift_of_all_log_hazards_is_taken_up_by_the_baseline(shift):
    eta, event, days = cohort(3)
    times = interval_times(days, np.zeros(len(days)), np.array([0.0, 30.0, 60.0]), horizon_days=120.0)
    log_baseline = torch.tensor([-2.0, -1.0, -1.5], dtype=torch.float64)
    before = grouped_loss(eta, event, times, log_baseline, BOUND)
    after = grouped_loss(eta + shift, event, times, log_baseline - shift, BOUND)
    assert math.isclose(before.item(), after.item(), rel_tol=1e-10)


def test_with_fine_bins_it_finds_the_coefficients_of_the_cox_model():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(3000, 2))
    days = rng.exponential(1000 * np.exp(-x @ [0.8, -0.4]))
    event, days = days < 500, np.minimum(days, 500)
    edges = np.arange(0, 500, 5.0)
    times = interval_times(days, np.zeros(len(days)), edges, horizon_days=500.0)
    beta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    log_baseline = torch.full((len(edges),), -5.0, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([beta, log_baseline], max_iter=200, line_search_fn="strong_wolfe")
    covariates, seen = torch.from_numpy(x), torch.from_numpy(event)

    def closure():
        optimiser.zero_grad()
        loss = grouped_loss(covariates @ beta, seen, times, log_baseline, BOUND)
        loss.backward()
        return loss

    optimiser.step(closure)
    frame = pd.DataFrame(x, columns=["a", "b"]).assign(days=days, event=event)
    cox = CoxPHFitter().fit(frame, "days", "event").params_.to_numpy()
    np.testing.assert_allclose(beta.detach().numpy(), cox, atol=0.01)


def test_nobody_is_no_loss():
    times = interval_times(np.zeros(0), np.zeros(0), np.array([0.0, 30.0]), 60.0)
    none = torch.zeros(0)
    assert grouped_loss(none, none.bool(), times, torch.zeros(2), BOUND).item() == 0.0


def test_follow_up_beyond_the_horizon_counts_the_last_bin_whole():
    times = interval_times(np.array([90.0, 400.0]), np.zeros(2), np.array([0.0, 30.0]), horizon_days=60.0)
    assert times.bin.tolist() == [1, 1]
    assert times.share.tolist() == [1.0, 1.0]
