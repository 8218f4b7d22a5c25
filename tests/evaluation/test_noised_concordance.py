"""Concordance from histograms with noise: right without noise, unbiased with it, intervals that cover; no bounds."""

import numpy as np
import pytest

from fedecg.evaluation import (
    NoisedCounts,
    RiskTimeGrid,
    concordance,
    noised_concordance,
    noised_risk_cuts,
    stratified_concordance,
)
from fedecg.evaluation.noised import pair_forms
from fedecg.privacy.releases import histogram

GRID = RiskTimeGrid(
    np.array([200, 450, 700, 1000, 1400, 1900, 2600.0]), np.array([-1.15, -0.67, -0.32, 0, 0.32, 0.67, 1.15])
)
RATES = (2e-5, 4e-5, 6e-5)  # of events a day, by site


def cohort(patients: int, rate: float, rng: np.random.Generator):
    """Days, event, log hazard of patients whose hazard is the model's."""
    risk = rng.normal(0, 1, patients)
    days = rng.exponential(1 / (rate * np.exp(risk)))
    end = np.minimum(rng.uniform(0, 3650, patients), 3000)
    return np.minimum(days, end), days <= end, risk


def tables(cohorts, noise: float, rng: np.random.Generator) -> list[NoisedCounts]:
    return [
        NoisedCounts(histogram(*one, GRID) + noise * rng.standard_normal(GRID.shape), noise)
        for one in cohorts
    ]


def test_without_noise_pairs_of_different_time_bins_are_counted_as_by_hand() -> None:
    cells = np.zeros((2, 2, 2))
    cells[0, 1, 1], cells[0, 0, 1] = 2, 1  # early events: two of high risk, one of low
    cells[1, 0, 0], cells[1, 1, 0] = 3, 1  # later: three of low risk, one of high
    found = noised_concordance([NoisedCounts(cells, 0.0)])
    # high events: 3 lower each (concordant) and 1 level; the low one: 3 level, 1 higher
    assert found.c_index == pytest.approx((2 * (3 + 0.5) + 1 * (3 * 0.5)) / (3 * 4))
    assert (found.patients, found.events, found.few_events) == (7.0, 3.0, True)


def test_the_forms_are_symmetric_and_no_cell_meets_its_own_time_bin() -> None:
    concordant, comparable = pair_forms((3, 4))
    assert np.array_equal(concordant, concordant.T)
    assert np.array_equal(comparable, comparable.T)
    time = np.indices((3, 4, 2))[0].ravel()
    assert not comparable[time[:, None] == time[None]].any()


def test_both_indices_are_within_a_hundredth_of_the_exact_ones_on_an_eight_by_eight_grid() -> None:
    rng = np.random.default_rng(1)
    cohorts = [cohort(4000, rate, rng) for rate in RATES]
    found = noised_concordance(tables(cohorts, 0.0, rng))
    time, event, risk = (np.concatenate(column) for column in zip(*cohorts, strict=True))
    site = np.repeat(np.arange(3), 4000)
    assert abs(found.c_index - concordance(time, event, risk).c_index) < 0.015
    assert abs(found.stratified - stratified_concordance(time, event, risk, site).c_index) < 0.01


@pytest.mark.parametrize("noise", [0.0, 1.5, 4.0])
def test_intervals_cover_as_often_as_they_say(noise: float) -> None:
    rng = np.random.default_rng(int(10 * noise))
    truth = noised_concordance(tables([cohort(100_000, rate, rng) for rate in RATES], 0.0, rng))
    found = [
        noised_concordance(tables([cohort(1500, rate, rng) for rate in RATES], noise, rng))
        for _ in range(250)
    ]
    within = np.mean([one.stratified_low <= truth.stratified <= one.stratified_high for one in found])
    overall = np.mean([one.ci_low <= truth.c_index <= one.ci_high for one in found])
    assert 0.91 <= within <= 0.99
    assert 0.91 <= overall <= 0.99
    assert np.mean([one.c_index for one in found]) == pytest.approx(truth.c_index, abs=0.01)


def test_an_interval_that_forgets_the_noise_does_not_cover() -> None:
    rng = np.random.default_rng(5)
    truth = noised_concordance(tables([cohort(100_000, rate, rng) for rate in RATES], 0.0, rng))
    covered = 0
    for _ in range(100):
        noised = tables([cohort(1500, rate, rng) for rate in RATES], 6.0, rng)
        forgotten = noised_concordance([NoisedCounts(table.cells, 0.0) for table in noised])
        covered += forgotten.ci_low <= truth.c_index <= forgotten.ci_high
    assert covered < 80


def test_noise_beyond_all_patients_leaves_the_whole_of_zero_to_one() -> None:
    rng = np.random.default_rng(2)
    wide = [noised_concordance(tables([cohort(30, 2e-5, rng)], 50.0, rng)) for _ in range(20)]
    assert np.mean([one.ci_high - one.ci_low for one in wide]) > 0.9
    nobody = noised_concordance([NoisedCounts(np.zeros(GRID.shape), 0.0)])
    assert (nobody.c_index, nobody.ci_low, nobody.ci_high) == (None, 0.0, 1.0)


def test_cuts_beside_all_patients_say_nothing_of_c_and_not_a_half() -> None:
    rng = np.random.default_rng(6)
    time, event, risk = cohort(3000, 4e-5, rng)
    found = noised_concordance(tables([(time, event, 0.05 * risk - 3.0)], 1.0, rng))
    assert (found.stratified, found.c_index, found.ci_low, found.ci_high) == (None, None, 0.0, 1.0)


def test_the_order_of_the_sites_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    some = tables([cohort(300, rate, rng) for rate in RATES], 1.0, rng)
    one, other = noised_concordance(some), noised_concordance(some[::-1])
    assert one.stratified == pytest.approx(other.stratified, rel=1e-12)
    assert one.ci_low == pytest.approx(other.ci_low, abs=1e-3)


LOOK = np.linspace(-8, 8, 63)


def shown(risk, noise: float, rng: np.random.Generator, cuts=LOOK, times: int = 1):
    """A table of log hazards in risk bins, with noise, and its cuts."""
    cells = np.zeros((times, len(cuts) + 1, 2))
    at = np.searchsorted(cuts, risk, side="right")
    np.add.at(cells, (rng.integers(times, size=len(risk)), at, rng.integers(2, size=len(risk))), 1.0)
    return cuts, NoisedCounts(cells + noise * rng.standard_normal(cells.shape), noise)


def shares(risk, cuts):
    return np.diff(np.searchsorted(np.sort(risk), cuts), prepend=0, append=len(risk)) / len(risk)


@pytest.mark.parametrize("noise", [0.0, 3.0, 12.0])
@pytest.mark.parametrize(
    ("mode", "left", "right"), [(0.0, 1.0, 1.0), (-3.2, 0.4, 0.4), (-2.5, 0.2, 1.2), (4.0, 0.5, 0.2)]
)
def test_cuts_fall_where_the_risks_are_whatever_their_level(mode, left, right, noise: float) -> None:
    rng = np.random.default_rng(4)
    sides = rng.random(600) < left / (left + right)
    risk = mode + np.where(sides, -left, right) * np.abs(rng.standard_normal(600))
    cuts = noised_risk_cuts([shown(risk, noise, rng)], 8)
    assert cuts.shape == (7,)
    assert np.all(np.diff(cuts) > 0)
    np.testing.assert_allclose(shares(risk, cuts), 1 / 8, atol=0.05 if noise < 5 else 0.17)


def test_risks_within_one_bin_of_the_look_are_told_apart_once_they_have_been_seen_closer() -> None:
    rng = np.random.default_rng(5)
    risk = rng.normal(-1.5, 0.1, 2000)
    look = shown(risk, 3.0, rng)
    first = noised_risk_cuts([look], 8)
    assert shares(risk, first).max() < 0.45
    second = noised_risk_cuts([look, shown(risk, 3.0, rng, first, times=6)], 8)
    assert shares(risk, second).max() < 0.25


@pytest.mark.parametrize("seed", range(5))
def test_where_noise_leaves_nobody_cuts_are_finite_and_rise(seed: int) -> None:
    cuts = noised_risk_cuts([shown(np.zeros(5), 50.0, np.random.default_rng(seed))], 8)
    assert np.isfinite(cuts).all()
    assert np.all(np.diff(cuts) > 0)
