"""What ships with a model beside its weights: no bin of the population tells of a few patients."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedecg.model import BaselineFile
from fedecg.prediction.risk import RiskScale
from fedecg_server.shipped import LEAST_PATIENTS, merged_population

BASELINE = BaselineFile(edges_days=[0.0, 100.0], cumulative_hazard=[0.0, 0.1], variance=[0.0, 0.01])


def test_bins_are_merged_from_the_highest_risk_down_until_each_holds_ten() -> None:
    population = merged_population([0.0, 1.0, 2.0, 3.0], [3, 20, 9, 4, 7])
    assert population is not None
    assert population.risk_cuts == [2.0]
    assert population.patients == [32, 11]


@given(st.lists(st.integers(0, 30), min_size=2, max_size=50))
def test_no_bin_holds_fewer_than_ten_and_nobody_is_lost(patients: list[int]) -> None:
    cuts = [float(at) for at in range(len(patients) - 1)]
    population = merged_population(cuts, patients)
    if sum(patients) < LEAST_PATIENTS:
        assert population is None
        return
    assert population is not None
    assert min(population.patients) >= LEAST_PATIENTS
    assert sum(population.patients) == sum(patients)
    for cut, below in zip(population.risk_cuts, np.cumsum(population.patients), strict=False):
        assert below == sum(patients[: cuts.index(cut) + 1])


def test_bins_that_hold_enough_stay_as_they_are() -> None:
    population = merged_population([0.0, 1.0], [10, 40, 12])
    assert population is not None
    assert (population.risk_cuts, population.patients) == ([0.0, 1.0], [10, 40, 12])


def test_percentiles_of_the_merged_population_are_those_of_the_patients() -> None:
    draws = np.random.default_rng(4).gamma(2.0, 0.6, 700)  # skewed, as log hazards are
    cuts = np.quantile(draws, np.arange(1, 50) / 50)
    counts, _ = np.histogram(draws, np.concatenate([[-np.inf], cuts, [np.inf]]))
    population = merged_population(cuts.tolist(), counts.tolist())
    scale = RiskScale(BASELINE, population)
    tested = np.quantile(draws, [0.05, 0.3, 0.5, 0.9, 0.97])
    assert scale.percentiles(tested) == pytest.approx([5, 30, 50, 90, 97], abs=1.0)
    assert scale.percentile_bounds(np.array([99.0])) == ["at least"]
    assert scale.percentiles(np.array([99.0]))[0] == pytest.approx(98, abs=0.2)
