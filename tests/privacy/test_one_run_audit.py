"""Audits with canaries in one run: what an attacker who knows everything but the patients can prove of epsilon.

The claim is epsilon 1 at delta 1e-5 for 16 protected steps. A bound above 1 would prove the claim wrong; the broken
variants are there to show that it would be found."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from canaries import (
    CANARIES,
    DELTA,
    EPSILON,
    RATE,
    STEPS,
    Attacked,
    attacked,
    claimed_noise,
    plain_round,
    protected_round,
)
from dp_sites import noise_store
from one_run_audit import Guesses, guesses_of, least_epsilon, p_value
from scipy import stats

from fedecg.privacy import dp_steps
from fedecg.privacy.dp_steps import Patients
from fedecg.signals import SignalStore

FEW, MANY = 4, 128  # sites: 8,192 and 262,144 canaries
SHARE = 0.005  # of the canaries that the attacker calls in, and out, where noise hides most of them


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> SignalStore:
    return noise_store(tmp_path_factory.mktemp("store"))


def proven(found: Attacked, share: float = SHARE) -> float:
    most = int(share * len(found.scores))
    return least_epsilon(guesses_of(found.scores, found.inside, most), DELTA)


# The estimator, against what its authors print.
def test_the_p_value_is_the_one_that_the_authors_print():
    assert p_value(Guesses(100, 100, 75), np.log(3), 0.0) == pytest.approx(0.553, abs=5e-4)


@pytest.mark.parametrize(
    ("found", "delta", "printed"),
    [
        (Guesses(100, 100, 75), 0.0, 0.702),
        (Guesses(100, 100, 75), 1e-4, 0.699),
        (Guesses(1000, 100, 75), 1e-4, 0.673),
        (Guesses(100_000, 1510, 1439), 1e-5, 2.675),
    ],
)
def test_bounds_are_those_that_the_authors_print(found, delta, printed):
    assert least_epsilon(found, delta) == pytest.approx(printed, abs=1e-3)


def test_the_delta_term_is_the_formula_of_the_corollary_by_hand():
    """m = 3, r = 2, v = 1, epsilon 0: P[W >= 1] = 3/4; below 1 there is P[W = 0] = 1/4, over one step."""
    assert p_value(Guesses(3, 2, 1), 0.0, 0.01) == pytest.approx(3 / 4 + 2 * 3 * 0.01 * 1 / 4)
    # v = 2: max(P[W = 1] / 1, P[W <= 1] / 2) = max(1/2, 3/8)
    assert p_value(Guesses(3, 2, 2), 0.0, 0.01) == pytest.approx(1 / 4 + 2 * 3 * 0.01 * 1 / 2)
    assert p_value(Guesses(3, 2, 0), 0.0, 0.01) == 1


def test_guesses_no_better_than_coins_prove_nothing_and_all_right_proves_much():
    assert least_epsilon(Guesses(1000, 100, 50), 1e-5) == 0
    assert least_epsilon(Guesses(1000, 0, 0), 1e-5) == 0
    # All of 1000 right: (e^eps / (1 + e^eps))^1000 = 0.05.
    chance = 0.05 ** (1 / 1000)
    assert least_epsilon(Guesses(1000, 1000, 1000), 0.0) == pytest.approx(np.log(chance / (1 - chance)))


def test_the_bound_holds_for_randomised_response_as_often_as_it_says():
    """The worst mechanism for the audit: each canary's bit, told truthfully with chance e / (1 + e)."""
    right = np.random.default_rng(0).binomial(500, np.e / (1 + np.e), size=4000)
    bounds = {count: least_epsilon(Guesses(500, 500, count), 0.0) for count in set(right.tolist())}
    wrong = sum(bounds[count] > 1.0 for count in right.tolist())
    assert wrong > 0.02 * 4000  # the bound is not far from what can be shown
    assert stats.binom.sf(wrong - 1, 4000, 0.05) > 1e-3


def test_the_highest_scores_are_called_in_and_the_lowest_out():
    scores, inside = np.array([0.1, 5.0, -3.0, 2.0, -1.0]), np.array([True, True, False, False, True])
    assert guesses_of(scores, inside, 2) == Guesses(5, 4, 2)  # in: 5 right, 2 wrong; out: -3 right, -1 wrong
    assert guesses_of(scores, inside, 1, 0) == Guesses(5, 1, 1)


# The mechanism.
def test_the_claim_is_within_1_percent_of_what_another_accountant_counts():
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    step = dp_accounting.PoissonSampledDpEvent(RATE, dp_accounting.GaussianDpEvent(claimed_noise()))
    theirs = RdpAccountant().compose(dp_accounting.SelfComposedDpEvent(step, STEPS)).get_epsilon(DELTA)
    assert theirs == pytest.approx(EPSILON, rel=0.01)


def test_8192_canaries_prove_nothing_against_the_claim(store):
    assert proven(attacked(store, FEW, protected_round)) <= EPSILON


def test_without_differential_privacy_they_prove_more_than_3(store):
    assert proven(attacked(store, FEW, plain_round), share=0.4) > 3


def test_without_a_clip_they_disprove_the_claim(store, monkeypatch):
    monkeypatch.setattr(dp_steps, "clip_factors", lambda rows, _clip: torch.ones(len(rows[0])))
    assert proven(attacked(store, FEW, protected_round), share=0.1) > EPSILON


def test_unsampled_patients_counted_as_sampled_disprove_the_claim(store, monkeypatch):
    monkeypatch.setattr(Patients, "drawn", lambda self, *_: self._rows[self._first])
    assert proven(attacked(store, FEW, protected_round)) > EPSILON


def test_without_noise_they_disprove_the_claim(store, monkeypatch):
    monkeypatch.setattr(dp_steps, "add_noise", lambda *_: None)
    assert proven(attacked(store, FEW, protected_round), share=0.4) > 3


@pytest.mark.slow
def test_262144_canaries_prove_nothing_against_the_claim_and_much_of_it(store):
    bound = proven(attacked(store, MANY, protected_round))
    assert 0.3 < bound <= EPSILON


@pytest.mark.slow
def test_half_of_the_noise_disproves_the_claim(store, monkeypatch):
    right = dp_steps.add_noise
    monkeypatch.setattr(
        dp_steps,
        "add_noise",
        lambda sums, dp, rng: right(sums, replace(dp, noise_multiplier=dp.noise_multiplier / 2), rng),
    )
    assert proven(attacked(store, MANY, protected_round)) > EPSILON


def test_an_audit_has_at_least_a_thousand_canaries():
    assert CANARIES >= 1000
