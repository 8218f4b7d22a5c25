"""What releases cost: against Opacus, against Google's accountant, over restarts; and noise that fits a budget."""

from dataclasses import replace

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from opacus.accountants import PRVAccountant, RDPAccountant

from fedecg.config import PrivacySettings, StudySettings
from fedecg.errors import PolicyError
from fedecg.privacy.accountant import Noise, Plan, Spend, epsilon_of, planned_noise

DELTA = 1e-5
EPSILON_RDP, EPSILON_ONE = 4.893363, 1.012551
STUDY = StudySettings(privacy=PrivacySettings(mode="sample", sums="noised"))
PLANNED = Plan.of(STUDY)
# Alignment, survival and sums of one plan.
PLAN = [
    Spend("training", "train", 1.1, 0.05, 144),
    Spend("training", "train", 1.1, 0.05, 96),
    Spend("events", "train", 12.0),
    Spend("hazard", "train", 12.0, steps=3),
]


def history(spends):
    return [(spend.noise_multiplier, spend.sampling_rate, spend.steps) for spend in spends]


def google(accountant, spends):
    for spend in spends:
        noised = dp_accounting.GaussianDpEvent(spend.noise_multiplier)
        step = (
            noised
            if spend.sampling_rate == 1
            else dp_accounting.PoissonSampledDpEvent(spend.sampling_rate, noised)
        )
        accountant.compose(dp_accounting.SelfComposedDpEvent(step, spend.steps))
    return accountant.get_epsilon(DELTA)


def test_rdp_is_that_of_opacus():
    opacus = RDPAccountant()
    opacus.history = history(PLAN)
    assert epsilon_of(PLAN, DELTA) == pytest.approx(opacus.get_epsilon(DELTA), abs=1e-9)


@pytest.mark.filterwarnings("ignore:Optimal order")  # Opacus' own, from within
def test_prv_is_that_of_opacus_and_not_above_rdp():
    opacus = PRVAccountant()
    opacus.history = history(PLAN)
    prv = epsilon_of(PLAN, DELTA, "prv")
    with np.errstate(divide="ignore"):
        assert prv == pytest.approx(opacus.get_epsilon(DELTA), abs=1e-9)
    assert prv <= epsilon_of(PLAN, DELTA)


def test_both_are_within_1_percent_of_googles():
    assert epsilon_of(PLAN, DELTA) == pytest.approx(google(RdpAccountant(), PLAN), rel=0.01)
    assert epsilon_of(PLAN, DELTA, "prv") == pytest.approx(google(PLDAccountant(), PLAN), rel=0.01)


def test_pinned_epsilons():
    """From Opacus 1.6.0: a change of the package that changes what patients were promised must be seen."""
    assert epsilon_of(PLAN, DELTA) == pytest.approx(EPSILON_RDP, abs=1e-6)
    assert epsilon_of([Spend("histogram", "test", 4.0)], DELTA) == pytest.approx(EPSILON_ONE, abs=1e-6)


def test_three_restarts_cost_what_one_run_costs():
    parts = [Spend("training", "train", 1.1, 0.05, 80) for _ in range(3)]
    assert epsilon_of(parts, DELTA) == pytest.approx(
        epsilon_of([Spend("training", "train", 1.1, 0.05, 240)], DELTA), abs=1e-9
    )


def test_nothing_released_costs_nothing_and_no_noise_costs_everything():
    assert epsilon_of([], DELTA) == 0
    assert epsilon_of([Spend("events", "train", 3.0, steps=0)], DELTA) == 0
    assert epsilon_of([Spend("events", "train", 0.0)], DELTA) == float("inf")


@pytest.mark.parametrize("reserve", [0, 1, 3])
@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_planned_noise_spends_the_budget_of_each_part_with_its_reserve_and_no_more(epsilon, reserve):
    plan = replace(PLANNED, reserve=reserve)
    noise = planned_noise(plan, epsilon, DELTA)
    spends = [*plan.spends(noise), *plan.reserved(noise)]
    for part in ("train", "validation", "test"):
        spent = epsilon_of([spend for spend in spends if spend.part == part], DELTA)
        assert 0.999 * epsilon < spent <= epsilon


def test_a_reserve_covers_the_survey_a_round_and_an_exchange_about_validation_once_each():
    plan = replace(PLANNED, reserve=1)
    noise = planned_noise(plan, 8.0, DELTA)
    repeated = {
        "train": [
            Spend("events", "train", noise.train_sums),  # the survey
            Spend("hazard", "train", noise.train_sums),
            Spend("training", "train", noise.training, plan.sampling_rate, STUDY.survival.local_steps),
            Spend("hazard", "train", noise.train_sums),  # of a round in which they are due
        ],
        "validation": [
            Spend(kind, "validation", noise.validation) for kind in ("events", "hazard", "histogram")
        ],
    }
    for part, again in repeated.items():
        planned = [spend for spend in plan.spends(noise) if spend.part == part]
        assert epsilon_of([*planned, *again], DELTA) <= 8.0
        assert epsilon_of([*planned, *again, again[0]], DELTA) > 8.0
    test = [spend for spend in plan.spends(noise) if spend.part == "test"]
    assert 7.99 < epsilon_of(test, DELTA) <= 8.0  # no study ends for want of test figures


def test_a_reserve_costs_noise():
    with_it, without = (planned_noise(replace(PLANNED, reserve=number), 3.0, DELTA) for number in (1, 0))
    assert 1.0 < with_it.training / without.training < 1.2
    assert with_it.train_sums > without.train_sums
    assert with_it.test == without.test


def test_more_hazard_sums_need_more_noise():
    often = Plan.of(
        STUDY.model_copy(update={"privacy": STUDY.privacy.model_copy(update={"hazard_every": 1})})
    )
    assert planned_noise(often, 3.0, DELTA).train_sums > planned_noise(PLANNED, 3.0, DELTA).train_sums
    hazards = [
        spend.steps
        for spend in often.spends(Noise(1, 1, 1, 1))
        if (spend.mechanism, spend.part) == ("hazard", "train")
    ]
    assert hazards == [STUDY.survival.rounds]


def test_a_budget_that_no_noise_can_meet_is_refused():
    with pytest.raises(PolicyError, match="FECG-430 privacy budget of the site: found an epsilon of 1e-06"):
        planned_noise(PLANNED, 1e-6, DELTA)
