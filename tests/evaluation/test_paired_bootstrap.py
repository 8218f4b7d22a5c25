"""The paired bootstrap against drawing patients one replicate at a time, and what its interval says."""

import math
from dataclasses import astuple

import numpy as np
import pytest

from fedecg.errors import CohortError
from fedecg.evaluation import bootstrap as module
from fedecg.evaluation import concordance, paired_bootstrap, stratified_concordance


def study(patients, seed, noise=1.0, decimals=1):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=patients)
    failure = rng.exponential(2000, patients) * np.exp(-truth)
    ends = rng.uniform(30, 900, patients)
    time, event = np.ceil(np.minimum(failure, ends) / 10), failure <= ends
    blurred = truth + noise * rng.normal(size=patients)
    return time, event, np.round(truth, decimals), np.round(blurred, decimals), rng.integers(3, size=patients)


def drawn_differences(time, event, a, b, rows_of_replicates):
    for rows in rows_of_replicates:
        first, second = (concordance(time[rows], event[rows], risk[rows]) for risk in (a, b))
        yield first.c_index - second.c_index


def test_every_replicate_equals_c_of_the_drawn_patients():
    time, event, a, b, _ = study(80, seed=0)
    paired = paired_bootstrap(time, event, a, b, np.random.default_rng(5), replicates=200)
    # the module sorts patients by time, events first, before it draws
    order = np.lexsort((~event, time))
    rows = order[np.random.default_rng(5).integers(80, size=(200, 80))]
    values = np.array(list(drawn_differences(time, event, a, b, rows)))
    assert (paired.ci_low, paired.ci_high) == pytest.approx(
        tuple(np.quantile(values, (0.025, 0.975))), abs=1e-12
    )
    opposite = min(np.sum(values <= 0), np.sum(values >= 0))
    assert paired.p_value == pytest.approx(min(1, 2 * (1 + opposite) / 201))
    assert paired.replicates == 200


def test_the_difference_is_that_of_the_exact_indices():
    time, event, a, b, site = study(500, seed=1)
    generator = np.random.default_rng(0)
    overall = paired_bootstrap(time, event, a, b, generator, replicates=10)
    assert overall.difference == concordance(time, event, a).c_index - concordance(time, event, b).c_index
    within = paired_bootstrap(time, event, a, b, generator, replicates=10, stratum=site)
    expected = [stratified_concordance(time, event, risk, site).c_index for risk in (a, b)]
    assert within.difference == expected[0] - expected[1]


def test_stratified_replicates_draw_and_pair_within_strata():
    time, event, a, b, _ = study(90, seed=2)
    site = np.repeat([0, 1, 2], 30)
    paired = paired_bootstrap(time, event, a, b, np.random.default_rng(3), replicates=100, stratum=site)
    generator, drawn = np.random.default_rng(3), []
    for name in range(3):
        inside = np.flatnonzero(site == name)
        order = inside[np.lexsort((~event[inside], time[inside]))]
        drawn.append(order[generator.integers(30, size=(100, 30))])
    values = []
    for rows in np.concatenate(drawn, axis=1):
        c = [
            stratified_concordance(time[rows], event[rows], risk[rows], site[rows]).c_index for risk in (a, b)
        ]
        values.append(c[0] - c[1])
    assert (paired.ci_low, paired.ci_high) == pytest.approx(
        tuple(np.quantile(values, (0.025, 0.975))), abs=1e-12
    )


def test_the_same_generator_state_gives_the_same_bits_and_small_blocks_the_same_value(monkeypatch):
    cohort = study(300, seed=3)[:4]
    first = paired_bootstrap(*cohort, np.random.default_rng(7), replicates=64)
    assert paired_bootstrap(*cohort, np.random.default_rng(7), replicates=64) == first
    monkeypatch.setattr(module, "BLOCK", 300 * 8)  # 8 replicates and 8 events at a time
    assert astuple(paired_bootstrap(*cohort, np.random.default_rng(7), replicates=64)) == pytest.approx(
        astuple(first), abs=1e-12
    )


def test_a_risk_against_itself_has_no_difference():
    time, event, a, _, _ = study(200, seed=4)
    paired = paired_bootstrap(time, event, a, a, np.random.default_rng(0), replicates=50)
    assert (paired.difference, paired.ci_low, paired.ci_high, paired.p_value) == (0, 0, 0, 1)


def test_a_clearly_better_risk_is_told_from_a_blurred_one():
    time, event, a, b, site = study(3000, seed=5, noise=2.0)
    for stratum in (None, site):
        paired = paired_bootstrap(time, event, a, b, np.random.default_rng(0), stratum=stratum)
        assert paired.ci_low > 0
        assert paired.p_value < 0.01


def test_risks_of_equal_worth_differ_by_chance_in_about_five_of_a_hundred_studies():
    found = 0
    for seed in range(200):
        rng = np.random.default_rng(10_000 + seed)
        time, event, truth, _, _ = study(250, seed, decimals=9)
        a, b = truth + rng.normal(size=250), truth + rng.normal(size=250)
        paired = paired_bootstrap(time, event, a, b, rng, replicates=300)
        found += not paired.ci_low <= 0 <= paired.ci_high
    assert 1 <= found <= 22  # 5 % of 200 and chance (binomial, 99.9 %)


def test_several_models_stand_for_the_mean_of_their_indices():
    time, event, a, b, site = study(400, seed=6)
    c = study(400, seed=6, noise=3.0)[3]
    paired = paired_bootstrap(time, event, a, np.stack([b, c]), np.random.default_rng(1), 50, stratum=site)
    c_a, c_b, c_c = (stratified_concordance(time, event, risk, site).c_index for risk in (a, b, c))
    assert paired.difference == pytest.approx(c_a - (c_b + c_c) / 2, abs=1e-12)
    twice = paired_bootstrap(time, event, a, np.stack([b, b]), np.random.default_rng(1), 50, stratum=site)
    assert twice == paired_bootstrap(time, event, a, b, np.random.default_rng(1), 50, stratum=site)


@pytest.mark.parametrize("cohort", [([], [], [], []), ([1, 2], [0, 0], [1, 2], [2, 1]), ([3], [1], [1], [1])])
def test_nothing_comparable_gives_nan_and_no_exception(cohort):
    paired = paired_bootstrap(*cohort, np.random.default_rng(0), replicates=20)
    assert all(math.isnan(x) for x in (paired.difference, paired.ci_low, paired.ci_high, paired.p_value))
    assert paired.replicates == 0


def test_no_replicates_give_the_difference_alone():
    cohort = study(100, seed=7)[:4]
    paired = paired_bootstrap(*cohort, np.random.default_rng(0), replicates=0)
    assert math.isfinite(paired.difference)
    assert math.isnan(paired.ci_low)


def test_replicates_without_a_comparable_pair_are_left_out_and_counted():
    paired = paired_bootstrap([1, 2, 3], [1, 0, 0], [3, 2, 1], [1, 2, 3], np.random.default_rng(0), 500)
    assert 300 < paired.replicates < 400  # the one event is missing, or alone, in 9 of 27 draws
    assert (paired.difference, paired.ci_low, paired.ci_high) == (1, 1, 1)


def test_a_second_risk_that_is_not_a_number_is_refused():
    with pytest.raises(CohortError, match="FECG-238 risk: found 1 of 2 values that are not finite"):
        paired_bootstrap([1, 2], [1, 0], [1, 2], [1, math.nan], np.random.default_rng(0))
