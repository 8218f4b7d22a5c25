"""Cuts of the public grid: open at both ends, nested, of similar counts; wrong cuts are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedecg.errors import FederationError
from fedecg.evaluation import RiskTimeGrid, risk_grid, site_counts, time_grid


def test_shape_counts_the_open_bins_at_both_ends():
    assert RiskTimeGrid(np.array([365.0, 730.0]), np.array([0.0])).shape == (3, 2, 2)
    assert RiskTimeGrid(np.empty(0), np.empty(0)).shape == (1, 1, 2)


def test_a_value_on_a_cut_belongs_to_the_bin_above():
    grid = RiskTimeGrid(np.array([10.0]), np.array([0.0]))
    cells = site_counts([9.999, 10.0], [0, 1], [-1e-9, 0.0], grid).cells
    assert cells[0, 0, 0] == 1
    assert cells[1, 1, 1] == 1


@pytest.mark.parametrize("bins", [1, 2, 3, 8, 25, 50])
def test_twice_as_many_risk_bins_keep_every_cut(bins):
    assert set(risk_grid(0.3, 1.7, bins)) <= set(risk_grid(0.3, 1.7, 2 * bins))


def test_risk_bins_of_a_normal_risk_hold_similar_numbers():
    risk = np.random.default_rng(0).normal(2.0, 3.0, size=100_000)
    held = np.bincount(np.searchsorted(risk_grid(2.0, 3.0, 50), risk, side="right"), minlength=50)
    assert held.min() > 1800
    assert held.max() < 2200


@given(st.floats(-1e6, 1e6), st.floats(0, 1e3), st.integers(2, 4096))
def test_risk_cuts_increase_even_where_all_risks_are_equal(mean, sd, bins):
    grid = RiskTimeGrid(np.empty(0), risk_grid(mean, sd, bins))
    assert grid.shape == (1, bins, 2)


def test_time_bins_hold_similar_numbers_of_events_and_end_behind_the_last_event():
    edges = np.arange(30.0, 3661, 30)
    events = np.where(edges <= 1830, 10, 0)
    cuts = time_grid(edges, events, 13)
    per_bin = np.add.reduceat(events, [0, *(np.searchsorted(edges, cuts[:-1]) + 1)])
    assert len(cuts) == 12
    assert cuts[-1] == 1830
    assert per_bin.min() >= 40
    assert per_bin.max() <= 60


@pytest.mark.parametrize(
    ("events", "bins", "cuts"), [([0, 0], 4, []), ([3, 0], 1, []), ([0, 5], 4, [60.0]), ([], 4, [])]
)
def test_few_events_give_fewer_time_bins(events, bins, cuts):
    assert time_grid([30.0, 60.0][: len(events)], events, bins).tolist() == cuts


@pytest.mark.parametrize("cuts", [[1.0, 1.0], [2.0, 1.0], [0.0, np.nan], [np.inf], [[1.0, 2.0]]])
def test_cuts_that_do_not_increase_are_refused(cuts):
    with pytest.raises(
        FederationError, match=r"FECG-526 risk_cuts: found .* expected one row of finite, strictly"
    ):
        RiskTimeGrid(np.array([1.0]), np.array(cuts))


def test_cuts_cannot_be_changed_afterwards():
    given_cuts = np.array([1.0, 2.0])
    grid = RiskTimeGrid(given_cuts, np.empty(0))
    given_cuts[0] = 99
    assert grid.time_cuts_days[0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        grid.time_cuts_days[0] = 5
