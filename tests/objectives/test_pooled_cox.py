"""The claim of the project: a fixed pooled baseline hazard turns local gradients into the pooled Cox gradient.

In float64, with a bin for every event time: gradients of `pooled_cox_loss` summed over sites against autograd and
central finite differences of the pooled partial likelihood, written here once more as the textbook has it.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedecg.objectives import (
    Baseline,
    breslow,
    cox_loss,
    event_counts,
    event_time_grid,
    exit_bin,
    hazard_sums,
    merge_bins,
    pooled_cox_loss,
    public_grid,
)

BOUND = 10.0


def consortium(seed, sizes=(30, 80, 11), features=4, silent_site=None):
    """Sites of unequal size: covariates (n, features), events, follow-up in whole days (many ties)."""
    rng = np.random.default_rng(seed)
    sites = []
    for number, size in enumerate(sizes):
        event = rng.random(size) < (0.0 if number == silent_site else 0.4)
        days = rng.integers(1, 40, size).astype(np.float64)
        sites.append((torch.from_numpy(rng.normal(size=(size, features))), event, days))
    return sites


def pooled(sites):
    covariates, events, days = zip(*sites, strict=True)
    return torch.cat(covariates), np.concatenate(events), np.concatenate(days)


def shared_baseline(sites, coefficients, edges=None):
    """As the federation makes it: edges, then sums of events and hazards over sites, then Breslow."""
    _, event, days = pooled(sites)
    edges = event_time_grid(event, days) if edges is None else edges
    events, sums = np.zeros(len(edges), dtype=np.int64), np.zeros(len(edges))
    for covariates, site_event, site_days in sites:
        bins = exit_bin(site_days, edges)
        events += event_counts(site_event, bins, len(edges))
        sums += hazard_sums((covariates @ coefficients.detach()).numpy(), bins, len(edges), BOUND)
    return Baseline(edges, breslow(events, sums))


def federated_gradient(sites, coefficients, baseline):
    total = torch.zeros_like(coefficients)
    for covariates, event, days in sites:
        leaf = coefficients.detach().clone().requires_grad_()
        loss = pooled_cox_loss(
            covariates @ leaf, torch.from_numpy(event), torch.from_numpy(baseline.at(days)), BOUND
        )
        (loss * len(event)).backward()
        total += leaf.grad
    return total


def partial_likelihood(covariates, event, days, coefficients):
    """Negative log partial likelihood with Breslow ties as a plain double loop in numpy."""
    eta = covariates.numpy() @ coefficients
    return -sum(eta[i] - np.log(np.exp(eta[days >= days[i]]).sum()) for i in np.flatnonzero(event))


def test_a_baseline_gone_astray_gives_a_large_and_finite_gradient():
    eta = torch.tensor([0.0, 3.0], requires_grad=True)
    loss = pooled_cox_loss(eta, torch.tensor([True, False]), torch.tensor([1e30, 1e38]), BOUND)
    loss.backward()
    assert torch.isfinite(eta.grad).all()
    assert (eta.grad > 1e3).all()


@pytest.mark.parametrize("seed", range(4))
def test_local_gradients_add_up_to_the_pooled_partial_likelihoods(seed):
    sites = consortium(seed)
    coefficients = torch.randn(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    total = federated_gradient(sites, coefficients, shared_baseline(sites, coefficients))

    covariates, event, days = pooled(sites)
    leaf = coefficients.clone().requires_grad_()
    (
        cox_loss(covariates @ leaf, torch.from_numpy(event), torch.from_numpy(days), "breslow") * event.sum()
    ).backward()
    assert (total - leaf.grad).abs().max() < 1e-6 * leaf.grad.abs().max()

    step = 1e-5 * np.eye(4)
    at = coefficients.numpy()
    differences = [
        (
            partial_likelihood(covariates, event, days, at + h)
            - partial_likelihood(covariates, event, days, at - h)
        )
        / 2e-5
        for h in step
    ]
    np.testing.assert_allclose(total.numpy(), differences, rtol=1e-6, atol=1e-6)


def test_sixty_four_bins_of_a_public_grid_come_within_one_percent():
    rng = np.random.default_rng(11)
    sites = consortium(11, sizes=(800, 1800, 500))  # about 1200 events at as many different times
    sites = [(x, event, rng.uniform(1, 7000, len(days))) for x, event, days in sites]
    coefficients = torch.full((4,), 0.3, dtype=torch.float64)
    _, event, days = pooled(sites)
    grid = public_grid(30.0, 7305.0)
    edges = grid[merge_bins(event_counts(event, exit_bin(days, grid), len(grid)), 64)]
    binned = federated_gradient(sites, coefficients, shared_baseline(sites, coefficients, edges))
    exact = federated_gradient(sites, coefficients, shared_baseline(sites, coefficients))
    assert (binned - exact).norm() < 0.01 * exact.norm()


def test_a_site_without_events_changes_the_result():
    sites = consortium(3, silent_site=2)
    coefficients = torch.full((4,), 0.2, dtype=torch.float64)
    everyone = federated_gradient(sites, coefficients, shared_baseline(sites, coefficients))
    without = federated_gradient(sites[:2], coefficients, shared_baseline(sites[:2], coefficients))
    assert (everyone - without).norm() > 0.01 * without.norm()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), shift=st.floats(-3, 3), cut=st.integers(1, 79))
def test_order_shift_and_splitting_a_site_leave_the_gradient_alone(seed, shift, cut):
    sites = consortium(seed)
    coefficients = torch.full((4,), 0.3, dtype=torch.float64)
    expected = federated_gradient(sites, coefficients, shared_baseline(sites, coefficients))

    (first, (x, event, days), last) = sites
    order = np.random.default_rng(seed).permutation(len(event))
    shuffled = (x[torch.from_numpy(order)], event[order], days[order])
    split = [last, tuple(part[:cut] for part in shuffled), first, tuple(part[cut:] for part in shuffled)]
    result = federated_gradient(split, coefficients, shared_baseline(split, coefficients))
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)

    # A constant covariate shifts every log hazard; a fresh baseline takes the shift up.
    shifted = [(torch.cat([x, torch.ones(len(x), 1)], dim=1), e, t) for x, e, t in sites]
    longer = torch.cat([coefficients, torch.tensor([shift], dtype=torch.float64)])
    result = federated_gradient(shifted, longer, shared_baseline(shifted, longer))
    torch.testing.assert_close(result[:4], expected, rtol=1e-9, atol=1e-9)
    assert abs(result[4].item()) < 1e-8  # and balances: expected events = observed events
