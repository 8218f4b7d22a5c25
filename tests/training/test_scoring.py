"""Log hazards and their sums: mode and randomness left alone, sums add up, refusals."""

import numpy as np
import pytest
import torch

from fedecg.errors import ModelError
from fedecg.objectives import public_grid
from fedecg.training import log_hazards, site_baseline, survival_sums


def test_scores_are_float64_in_the_order_of_the_rows(make_site, linear_network):
    site, network = make_site(range(20)), linear_network()
    scores = log_hazards(network, site, np.arange(20))
    assert scores.dtype == np.float64
    assert scores.shape == (20,)
    np.testing.assert_allclose(log_hazards(network, site, np.array([7, 2])), scores[[7, 2]], rtol=1e-12)
    with torch.no_grad():
        direct = network.log_hazard(network.embed(site.signals(np.arange(20))))
    np.testing.assert_allclose(scores, direct.numpy(), rtol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 7, 20, 999])
def test_the_batch_size_changes_no_score(make_site, linear_network, batch_size):
    site, network = make_site(range(20)), linear_network()
    expected = log_hazards(network, site, np.arange(20))
    scores = log_hazards(network, site, np.arange(20), batch_size)
    np.testing.assert_allclose(scores, expected, rtol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_mode_and_torchs_generator_are_left_alone(make_site, linear_network, training):
    site, network = make_site(range(9)), linear_network(dropout=0.5).train(training)
    state = torch.get_rng_state()
    first = log_hazards(network, site, np.arange(9))
    assert np.array_equal(first, log_hazards(network, site, np.arange(9)))
    assert network.training is training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(weight.grad is None for weight in network.parameters())


def test_nobody_has_no_scores(make_site, linear_network):
    nobody = np.zeros(0, dtype=np.int64)
    site = make_site(range(3))
    assert log_hazards(linear_network(), site, nobody).shape == (0,)
    sums = survival_sums(linear_network(), site, nobody, public_grid(30.0, 90.0), 10.0)
    assert sums.events.tolist() == [0, 0, 0, 0]
    assert sums.exp_sums.tolist() == [0, 0, 0, 0]


def test_sums_of_two_sites_are_those_of_both(make_site, linear_network):
    network, edges = linear_network(), public_grid(30.0, 600.0)
    first, second, both = (make_site(rows) for rows in (range(50), range(50, 120), range(120)))
    parts = [survival_sums(network, site, site.rows("train"), edges, 10.0) for site in (first, second)]
    whole = survival_sums(network, both, both.rows("train"), edges, 10.0)
    assert np.array_equal(parts[0].events + parts[1].events, whole.events)
    np.testing.assert_allclose(parts[0].exp_sums + parts[1].exp_sums, whole.exp_sums, rtol=1e-10)
    assert whole.events.sum() == both.events(np.arange(120)).sum()


def test_the_sites_own_baseline_balances_expected_and_observed_events(make_site, linear_network):
    site, network = make_site(range(120)), linear_network()
    rows = site.rows("train")
    baseline = site_baseline(network, site, rows, 10.0)
    expected = np.exp(log_hazards(network, site, rows)) @ baseline.at(site.follow_up_days(rows))
    assert expected == pytest.approx(site.events(rows).sum())


def test_without_events_the_sites_baseline_is_zero(make_site, linear_network):
    site = make_site(range(5), event=np.zeros(5, dtype=bool))
    baseline = site_baseline(linear_network(), site, site.rows("train"), 10.0)
    assert baseline.cumulative_hazard.tolist() == [0]


def test_scores_that_are_not_finite_are_refused_and_the_mode_comes_back(make_site, linear_network):
    network = linear_network().train()
    with torch.no_grad():
        network.risk.weight[0, 0] = torch.inf
    with pytest.raises(ModelError) as refusal:
        log_hazards(network, make_site(range(6)), np.arange(6))
    assert refusal.value.code == "FECG-326"
    assert "6 of 6 that are not finite" in str(refusal.value)
    assert "learning-rate" in refusal.value.fix
    assert network.training
