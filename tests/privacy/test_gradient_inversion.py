"""One real ECG out of one update: plain, in the sum of three sites, and with differential privacy."""

import numpy as np
import pytest
import torch
from gradient_inversion import (
    gradient,
    inverted,
    learned,
    likeness,
    network_of,
    real_store,
    settings_of,
    twelve_leads,
    victim,
)

from fedecg.signals import SignalStore

STEPS = 400


@pytest.fixture(scope="module")
def store(tmp_path_factory, data_root) -> SignalStore:
    return real_store(tmp_path_factory.mktemp("store"), data_root)


def test_the_attacker_knows_the_gradient_of_the_step_that_the_site_made(store):
    """Else what it cannot find would prove nothing."""
    one = victim(store, 0)
    found = gradient(network_of(settings_of()), [one.site], one.signal_mv[None])
    assert len(found) == len(learned(network_of(settings_of())))
    for mine, theirs in zip(found, one.update, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_the_attackers_leads_obey_einthovens_law_as_the_records_do(store):
    signal = victim(store, 1).signal_mv
    assert torch.allclose(twelve_leads(signal[None, [0, 1, 6, 7, 8, 9, 10, 11]])[0], signal, atol=0.02)


def test_likeness_is_the_correlation_of_leads():
    rng = np.random.default_rng(0)
    one, other = torch.from_numpy(rng.normal(size=(2, 12, 50)))
    by_hand = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(one.numpy(), other.numpy(), strict=True)])
    assert likeness(one, other) == pytest.approx(by_hand)
    assert likeness(one, 3 * one + 7) == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_update_of_one_record_in_the_open_gives_the_ecg_away(store):
    one = victim(store, 0)
    assert likeness(inverted([one.site], one.update, STEPS)[0], one.signal_mv) > 0.6


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_of_the_sum_of_three_sites_no_record_is_recovered(store):
    """The attacker looks for all three at once."""
    three = [victim(store, record) for record in (0, 1, 2)]
    total = [sum(parts) for parts in zip(*(one.update for one in three), strict=True)]
    found = inverted([one.site for one in three], total, STEPS)
    likest = max(likeness(signal, one.signal_mv) for signal in found for one in three)
    assert likest < 0.6


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_with_differential_privacy_nothing_of_the_ecg_is_recovered(store):
    one = victim(store, 0, protected=True)
    assert abs(likeness(inverted([one.site], one.update, STEPS)[0], one.signal_mv)) < 0.25
