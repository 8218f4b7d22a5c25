"""Absolute risks with their interval, and percentiles."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lifelines import NelsonAalenFitter

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


def test_before_the_first_event_the_risk_is_0_and_has_no_interval() -> None:
    ((found,),) = SCALE.risks(np.zeros(1), [0.1])
    assert (found.risk, found.low, found.high) == (0.0, None, None)


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


def test_open_end_bins_give_the_percentile_of_their_cut() -> None:
    assert SCALE.percentiles(np.array([-50.0, 50.0])) == [10, 90]


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=20))
def test_who_has_the_larger_log_hazard_has_no_smaller_percentile_and_risk(values: list[float]) -> None:
    eta = np.sort(values)
    assert np.all(np.diff(SCALE.percentiles(eta)) >= 0)
    risks = [one.risk for (one,) in SCALE.risks(eta, [2.0])]
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
