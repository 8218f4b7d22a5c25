"""Absolute risks with their interval, and percentiles."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lifelines import NelsonAalenFitter
from scipy.stats import chi2

from fedecg.errors import ModelError
from fedecg.model import BaselineFile, PopulationFile
from fedecg.objectives import (
    breslow,
    breslow_variance,
    event_counts,
    event_time_grid,
    exit_bin,
    hazard_sums,
)
from fedecg.prediction.risk import RiskScale, checked_horizons_years

YEAR = 365.25
BASELINE = BaselineFile(
    edges_days=[0.0, 100.0, 1000.0, 2000.0],
    cumulative_hazard=[0.0, 0.1, 0.3, 0.3],
    variance=[0.0, 0.0025, 0.01, 0.01],
)
POPULATION = PopulationFile(risk_cuts=[-1.0, 0.0, 2.0], patients=[10, 20, 60, 10])
SCALE = RiskScale(BASELINE, POPULATION)


def test_risk_and_interval_worked_by_hand() -> None:
    ((first,),) = SCALE.risks(np.array([0.5]), [1.0])
    share = (YEAR - 100) / 900  # of the bin from day 100 to 1000, over which its step is spread
    hazard = 0.1 * share * math.exp(0.5)
    assert first.risk == pytest.approx(1 - math.exp(-hazard), abs=1e-12)
    factor = math.exp(1.959963984540054 * math.sqrt(0.0025 * share) / (0.1 * share))  # log H0 -+ 1.96 se / H0
    assert first.low == pytest.approx(1 - math.exp(-hazard / factor), abs=1e-12)
    assert first.high == pytest.approx(1 - math.exp(-hazard * factor), abs=1e-12)


def test_interval_is_that_of_nelson_and_aalen_where_all_hazards_are_equal() -> None:
    rng = np.random.default_rng(0)
    days, event = rng.exponential(900, 200), rng.random(200) < 0.6  # no ties
    edges = event_time_grid(event, days)
    last = exit_bin(days, edges)
    events, sums = event_counts(event, last, len(edges)), hazard_sums(np.zeros(200), last, len(edges), 10.0)
    scale = RiskScale(
        BaselineFile(
            edges_days=edges.tolist(),
            cumulative_hazard=breslow(events, sums).tolist(),
            variance=breslow_variance(events, sums).tolist(),
        ),
        None,
    )
    fitted = NelsonAalenFitter().fit(days, event)
    at_events = edges[[30, 60, 90]]
    (found,) = scale.risks(np.zeros(1), at_events / YEAR)
    for at, until in zip(found, at_events, strict=True):
        before = fitted.confidence_interval_.index < until  # a bin's step is reached at its end
        low, high = fitted.confidence_interval_[before].iloc[-1]
        hazard = fitted.cumulative_hazard_[before].iloc[-1, 0]
        assert at.risk == pytest.approx(-math.expm1(-hazard), abs=1e-10)
        assert at.low == pytest.approx(-math.expm1(-low), abs=1e-10)
        assert at.high == pytest.approx(-math.expm1(-high), abs=1e-10)


def test_a_horizon_beyond_the_last_bin_with_an_event_has_no_risk() -> None:
    (found,) = SCALE.risks(np.zeros(1), [1.0, 1000 / YEAR, 3.0, 10.0])
    assert [one.risk is None for one in found] == [False, False, True, True]
    assert found[3].low is found[3].high is None
    assert SCALE.known([1, 3, 5]) == (1,)


def test_before_the_first_event_there_is_no_risk_but_an_exact_upper_limit() -> None:
    ((found,),) = SCALE.risks(np.array([0.7]), [0.1])
    at_risk = 0.1 / 0.0025  # W at the first event: d/W over d/W^2
    limit = 1 - math.exp(-chi2.ppf(0.975, 2) / 2 / at_risk * math.exp(0.7))  # Garwood's limit of 0 events
    assert (found.risk, found.low) == (None, 0.0)
    assert found.high == pytest.approx(limit, abs=1e-12)
    assert found.no_event
    assert SCALE.before_events([0.1, 1.0, 20.0]) == (0.1,)


def test_the_limit_before_the_first_event_grows_with_the_log_hazard_and_stays_a_probability() -> None:
    limits = [one.high for (one,) in SCALE.risks(np.array([-3.0, 0.0, 6.0, 800.0]), [0.1])]
    assert limits == sorted(limits)
    assert 0 < limits[0] < limits[2] <= limits[3] <= 1
    assert limits[2] > 0.99


@pytest.mark.parametrize("expected_events", [0.5, 3.0, 3.6, 3.8, 6.0])
def test_the_limit_misses_the_truth_in_no_more_than_25_of_1000_studies(expected_events: float) -> None:
    """Studies of 40 equal patients: the limit is used where the first event comes after the horizon."""
    patients, studies = 40, 4000
    truth = 1 - math.exp(-expected_events / patients)
    first_years = np.random.default_rng(3).exponential(1 / expected_events, studies)
    none_seen = first_years[first_years > 1.0]
    missed = 0
    for first in none_seen * YEAR:
        hazard, variance = [0.0, 1 / patients, 1 / patients], [0.0, 1 / patients**2, 1 / patients**2]
        edges = [0.0, first, 2 * first]
        baseline = BaselineFile(edges_days=edges, cumulative_hazard=hazard, variance=variance)
        ((found,),) = RiskScale(baseline, None).risks(np.zeros(1), [1.0])
        missed += found.high < truth
    assert missed == (len(none_seen) if expected_events > 3.689 else 0)  # the exact limit: -log 0.025
    assert missed / studies < 0.025 + 3 * math.sqrt(0.025 * 0.975 / studies)


def test_a_recalibrated_baseline_scales_the_limit_to_the_wide_side() -> None:
    ratio, observed = 1.7, 12
    hazard, variance = np.array(BASELINE.cumulative_hazard), np.array(BASELINE.variance)
    scaled = BaselineFile(
        edges_days=BASELINE.edges_days,
        cumulative_hazard=(ratio * hazard).tolist(),
        variance=(ratio**2 * (variance + hazard**2 / observed)).tolist(),
    )
    ((plain,),), ((own,),) = (RiskScale(one, None).risks(np.zeros(1), [0.1]) for one in (BASELINE, scaled))
    assert -math.log1p(-own.high) > -ratio * math.log1p(-plain.high)


def test_a_baseline_of_no_events_knows_no_risk() -> None:
    nothing = RiskScale(BaselineFile(edges_days=[0.0], cumulative_hazard=[0.0], variance=[0.0]), None)
    ((found,),) = nothing.risks(np.zeros(1), [1.0])
    assert found.risk is None


def test_a_log_hazard_beyond_all_bounds_is_a_certain_event() -> None:
    ((found,),) = SCALE.risks(np.array([800.0]), [1.0])
    assert (found.risk, found.low, found.high) == (1.0, 1.0, 1.0)


def test_percentiles_worked_by_hand() -> None:
    found = SCALE.percentiles(np.array([-1.0, -0.5, 0.0, 1.0, 2.0]))
    assert found == pytest.approx([10, 20, 30, 60, 90])


def test_open_end_bins_give_the_percentile_of_their_cut_and_say_at_least_or_at_most() -> None:
    assert SCALE.percentiles(np.array([-50.0, 50.0])) == [10, 90]
    assert SCALE.percentile_bounds(np.array([-50.0, -1.0, 0.0, 2.0, 2.1])) == [
        "at most",
        "",
        "",
        "",
        "at least",
    ]
    assert RiskScale(BASELINE, None).percentile_bounds(np.zeros(1)) == [""]


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=20))
def test_who_has_the_larger_log_hazard_has_no_smaller_percentile_and_risk(values: list[float]) -> None:
    eta = np.sort(values)
    assert np.all(np.diff(SCALE.percentiles(eta)) >= 0)
    risks = [one.risk for (one,) in SCALE.risks(eta, [2.0])]
    limits = [one.high for (one,) in SCALE.risks(eta, [0.1])]
    assert np.all(np.diff(limits) >= 0)
    assert np.all(np.diff(risks) >= 0)


@pytest.mark.parametrize(
    "population",
    [
        None,
        PopulationFile(risk_cuts=[], patients=[5]),
        PopulationFile(risk_cuts=[0.0], patients=[0, 0]),
    ],
    ids=["none", "one bin", "nobody"],
)
def test_without_a_population_there_is_no_percentile(population: PopulationFile | None) -> None:
    assert RiskScale(BASELINE, population).percentiles(np.zeros(2)) == [None, None]


def test_a_variance_that_does_not_fit_is_refused() -> None:
    wrong = BASELINE.model_copy(update={"variance": [0.0, 1.0]})
    with pytest.raises(ModelError, match="FECG-345 baseline variance in model.json: found another length"):
        RiskScale(wrong, None)


def test_a_population_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ModelError, match="FECG-345 population in model.json: found cuts that do not rise"):
        RiskScale(BASELINE, PopulationFile(risk_cuts=[1.0, 0.0], patients=[1, 1, 1]))


@pytest.mark.parametrize("years", [[], [0.0], [3.0, 1.0], [1.0, 1.0], [float("nan")]])
def test_horizons_that_are_not_positive_and_rising_are_refused(years: list[float]) -> None:
    with pytest.raises(ModelError, match="FECG-346 horizons of a prediction: found"):
        checked_horizons_years(years)
