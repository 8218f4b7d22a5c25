"""Long checks: bounds that hold in 10,000 random federations, and intervals that cover in 2,000 simulated cohorts.

The true C of a simulated design is that of 8 cohorts of 200,000 patients (1.6 million), drawn from another stream: its
error is below a fiftieth of that of one cohort. Run by `make test-slow`, about four minutes on an idle core.
"""

import math
from functools import cache

import numpy as np
import pytest

from fedecg.evaluation import (
    RiskTimeGrid,
    concordance,
    concordance_interval,
    global_concordance,
    risk_grid,
    site_counts,
    stratified_concordance,
    stratified_interval,
    time_grid,
    validate_site_counts,
)
from fedecg.evaluation.intervals import logit_interval

pytestmark = pytest.mark.slow

TINY = 1e-12
CASES = 10_000
COHORTS, PATIENTS, SITES = 2000, 600, 5
SITE_LOG_HAZARD = np.array([-0.6, -0.3, 0.0, 0.3, 0.6])


def federated(time, event, risk, site, grid, sites):
    counts = [site_counts(time[site == k], event[site == k], risk[site == k], grid) for k in range(sites)]
    for each in counts:
        validate_site_counts(each, grid)
    return global_concordance(counts)


def random_federation(rng):
    """Any mixture of ties, tiny or empty sites, wildly different sites, and kinds of censoring."""
    sites = int(rng.integers(1, 9))
    size = rng.integers(0, 6, sites)
    if rng.random() < 0.3:
        size[rng.integers(sites)] = rng.integers(20, 120)
    site = np.repeat(np.arange(sites), size)
    patients = site.size
    levels = rng.choice([2, 4, 10, 1000], size=2)
    time = rng.integers(0, levels[0], patients).astype(float)
    risk = rng.integers(0, levels[1], patients) / levels[1] * 4 - 2
    if rng.random() < 0.3:  # sites that share neither follow-up nor range of risk
        time += levels[0] * rng.integers(0, 3, sites)[site]
        risk += 4 * rng.integers(-2, 3, sites)[site]
    share = rng.choice([0.02, 0.3, 0.8])
    event = rng.random(patients) < share
    kind = rng.random()
    if kind < 0.15:
        event = np.arange(patients) == rng.integers(max(patients, 1))
    elif kind < 0.3:
        event = np.ones(patients, dtype=bool)
    return time, event, risk, site, sites


def random_cuts(values, rng, most):
    """Up to `most` cuts on, between and outside the values; often none (one bin)."""
    if rng.random() < 0.15:
        return np.empty(0)
    wanted = int(rng.integers(1, most + 1))
    low, high = (values.min(), values.max()) if values.size else (0.0, 1.0)
    between = rng.uniform(low - 1, high + 1, wanted)
    on = rng.choice(values, wanted) if values.size else between
    return np.unique(np.where(rng.random(wanted) < 0.5, on, between))


def test_bounds_hold_and_shrink_for_nested_bins_in_10_000_random_federations():
    rng = np.random.default_rng(20)
    compared = tight = 0
    for _ in range(CASES):
        time, event, risk, site, sites = random_federation(rng)
        most = int(rng.choice([3, 60]))
        time_cuts, risk_cuts = random_cuts(time, rng, most), random_cuts(risk, rng, most)
        finer = [np.union1d(c, random_cuts(v, rng, most)) for c, v in ((time_cuts, time), (risk_cuts, risk))]
        coarse = federated(time, event, risk, site, RiskTimeGrid(time_cuts, risk_cuts), sites)
        fine = federated(time, event, risk, site, RiskTimeGrid(*finer), sites)
        pooled = concordance(time, event, risk)
        assert coarse.comparable_low <= fine.comparable_low <= pooled.comparable
        assert pooled.comparable <= fine.comparable_high <= coarse.comparable_high
        if pooled.comparable:
            compared += 1
            tight += fine.upper - fine.lower < 0.05
            assert coarse.lower - TINY <= fine.lower <= pooled.c_index + TINY
            assert pooled.c_index - TINY <= fine.upper <= coarse.upper + TINY
            assert not math.isnan(fine.c_index)  # where there are bounds there is an estimate
        if not math.isnan(fine.c_index):
            assert fine.lower <= fine.c_index <= fine.upper
            assert fine.ci_low <= fine.lower + TINY
            assert fine.ci_high >= fine.upper - TINY
        if not math.isnan(fine.lower):
            assert coarse.lower - TINY <= fine.lower <= fine.upper <= coarse.upper + TINY
    assert compared > 0.7 * CASES  # the cases are not empty of meaning
    assert 0.05 * CASES < tight < 0.9 * CASES


@pytest.mark.parametrize("seed", range(20))
def test_50_by_50_bins_of_10_sites_come_within_0_002_of_the_pooled_value(seed):
    rng = np.random.default_rng(seed)
    patients, sites, days = 10_000, 10, 3650.0
    site = rng.choice(sites, patients, p=rng.dirichlet(np.full(sites, 2.0)))
    truth = rng.normal(size=patients) + 0.4 * rng.normal(size=sites)[site]
    level = np.exp(0.5 * rng.normal(size=sites))[site]
    unit = rng.exponential(size=patients) / (level * np.exp(truth))
    ends = np.where(rng.random(patients) < 0.5, days, rng.uniform(30, days, patients))
    failure = unit / np.quantile(unit / ends, 0.05)  # 5 % of the patients fail before their end
    time, event = np.ceil(np.minimum(failure, ends)), failure <= ends
    risk = truth + 0.5 * rng.normal(size=patients)
    edges = np.arange(30.0, days + 60, 30)
    events = np.bincount(np.searchsorted(edges, time[event], side="right"), minlength=edges.size + 1)[:-1]
    grid = RiskTimeGrid(time_grid(edges, events, 50), risk_grid(risk.mean(), risk.std(), 50))
    result = federated(time, event, risk, site, grid, sites)
    pooled = concordance(time, event, risk).c_index
    assert result.events == pytest.approx(500, abs=1)
    assert abs(result.c_index - pooled) <= 0.002
    assert result.lower <= pooled <= result.upper


def cohort(patients, end, rng):
    """Five fixed sites of equal size and other baselines; normal log hazard; censored between end / 2 and end."""
    site = np.repeat(np.arange(SITES), patients // SITES)
    risk = rng.normal(size=patients)
    failure = rng.exponential(size=patients) * np.exp(-risk - SITE_LOG_HAZARD[site])
    censored = rng.uniform(0.5 * end, end, patients)
    return np.minimum(failure, censored), failure <= censored, risk, site


def end_with(events):
    """End of follow-up with which a cohort of `PATIENTS` has that many events on average."""
    low, high = 1e-3, 10.0
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        seen = cohort(200_000, middle, np.random.default_rng(0))[1].mean() * PATIENTS
        low, high = (middle, high) if seen < events else (low, middle)
    return high


@cache
def coverage(events):
    """Share of cohorts whose intervals hold the true C: of all pairs, within sites, and both from sums."""
    end = end_with(events)
    huge = [cohort(200_000, end, np.random.default_rng([1, k])) for k in range(8)]
    overall = np.mean([concordance(*columns[:3]).c_index for columns in huge])
    within = np.mean([stratified_concordance(*columns).c_index for columns in huge])
    edges = np.linspace(0, end, 121)
    rng, risk_cuts = np.random.default_rng(events), risk_grid(0, 1, 50)
    covered, marked, bounds = np.zeros(5), np.zeros(3), 0.0
    for _ in range(COHORTS):
        time, event, risk, site = cohort(PATIENTS, end, rng)
        seen = np.histogram(time[event], edges)[0]
        grid = RiskTimeGrid(time_grid(edges[1:], seen, 24), risk_cuts)
        raw = concordance_interval(time, event, risk)
        own = stratified_interval(time, event, risk, site)
        sums = federated(time, event, risk, site, grid, SITES)
        centred = logit_interval(sums.c_index, sums.c_index, sums.c_index, sums.se, sums.events)
        covered += [
            raw.ci_low <= overall <= raw.ci_high,
            own.ci_low <= within <= own.ci_high,
            sums.stratified_ci_low <= within <= sums.stratified_ci_high,
            centred[0] <= overall <= centred[1],
            sums.ci_low <= overall <= sums.ci_high,
        ]
        marked += [raw.few_events, own.few_events, sums.few_events]
        bounds += sums.upper - sums.lower
    names = ("raw", "stratified", "stratified from sums", "estimate from sums", "bounds from sums")
    shares = dict(zip(names, covered / COHORTS, strict=True))
    print(f"{events} events, bounds {bounds / COHORTS:.3f} apart, marked {marked / COHORTS}: {shares}")
    return shares, marked / COHORTS


@pytest.mark.parametrize("interval", ["raw", "stratified", "stratified from sums", "estimate from sums"])
@pytest.mark.parametrize("events", [30, 60, 150])
def test_intervals_cover_the_true_index_in_93_to_97_of_100_cohorts(events, interval):
    shares, _ = coverage(events)
    assert 0.93 <= shares[interval] <= 0.97


@pytest.mark.parametrize("events", [30, 60, 150])
def test_the_interval_around_the_bounds_errs_on_the_wide_side(events):
    """It adds the width of the bounds, which are certain, to the margin of sampling."""
    shares, _ = coverage(events)
    assert shares["bounds from sums"] >= 0.93


def test_intervals_of_ten_events_are_marked():
    shares, marked = coverage(10)
    assert (marked == 1).all()
    assert all(share >= 0.85 for share in shares.values()), shares
