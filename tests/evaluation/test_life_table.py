"""Life tables by hand, sums over sites, and what wide bins cost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter

from fedecg.errors import CohortError, FederationError
from fedecg.evaluation.curves import aalen_johansen, kaplan_meier, reverse_kaplan_meier
from fedecg.evaluation.life_table import LifeTable, life_table
from fedecg.evaluation.log_rank import log_rank

EDGES, CUTS = np.array([0.0, 2, 4]), np.array([-1.0, 1.0])
patient = st.tuples(st.integers(0, 8), st.integers(0, 2), st.integers(-3, 3))
cohorts = st.lists(patient, max_size=40)


def columns(rows):
    return (
        tuple(np.array(column, dtype=float) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    )


def test_five_patients_fall_into_their_cells():
    table = life_table([0, 1.9, 2, 4, 99], [0, 1, 2, 1, 1], [-1.5, -1, 0, 1, 5], EDGES, CUTS)
    expected = np.zeros((3, 3, 3), dtype=int)
    expected[0, 0, 0] = expected[1, 0, 1] = expected[1, 1, 2] = 1  # a risk at a cut belongs above it
    expected[2, 2, 1] = 2
    assert table.exits.dtype == np.int64
    assert np.array_equal(table.exits, expected)
    assert np.array_equal(table.at_risk, [[1, 0, 0], [2, 1, 0], [2, 2, 2]])


def test_without_cuts_there_is_one_group():
    table = life_table([1, 2, 3], [0, 1, 2], [5, -5, 0], EDGES, [])
    assert np.array_equal(table.exits, [[[1, 0, 0], [0, 1, 1], [0, 0, 0]]])


def test_merged_is_the_table_of_one_group():
    rows = columns([(1, 1, -3), (5, 0, 0), (8, 2, 3)])
    merged, alone = life_table(*rows, EDGES, CUTS).merged(), life_table(*rows, EDGES, [])
    assert np.array_equal(merged.exits, alone.exits)
    assert merged.group_cuts.shape == (0,)


def test_a_site_without_patients_is_a_table_of_zeros_and_changes_no_sum():
    empty = life_table([], [], [], EDGES, CUTS)
    table = life_table([1, 2], [1, 0], [0, 0], EDGES, CUTS)
    assert empty.exits.shape == (3, 3, 3)
    assert empty.exits.sum() == 0
    assert np.array_equal((empty + table).exits, table.exits)


@settings(max_examples=200, deadline=None)
@given(cohorts, st.randoms(use_true_random=False), st.integers(0, 40))
def test_order_of_patients_and_splitting_a_site_in_two_change_nothing(rows, random, cut):
    whole = life_table(*columns(rows), EDGES, CUTS)
    mixed = random.sample(rows, len(rows))
    halves = [life_table(*columns(part), EDGES, CUTS) for part in (mixed[:cut], mixed[cut:])]
    assert np.array_equal((halves[0] + halves[1]).exits, whole.exits)
    assert np.array_equal((halves[1] + halves[0]).exits, whole.exits)
    assert whole.exits.sum() == len(rows)


@settings(max_examples=100, deadline=None)
@given(cohorts, st.sampled_from([1 / 365.25, 1 / 7, 24.0]), st.sampled_from([np.exp, np.arctan]))
def test_time_units_and_monotone_risks_change_neither_counts_nor_curves(rows, unit, monotone):
    time, cause, risk = (np.asarray(column, dtype=float) for column in columns(rows))
    table = life_table(time, cause, risk, EDGES, CUTS)
    other = life_table(time * unit, cause, monotone(risk), EDGES * unit, monotone(CUTS))
    assert np.array_equal(table.exits, other.exits)
    for read, figure in (
        (kaplan_meier, "survival"),
        (reverse_kaplan_meier, "se"),
        (aalen_johansen, "incidence"),
        (aalen_johansen, "ci_high"),
    ):
        assert np.array_equal(getattr(read(table), figure), getattr(read(other), figure), equal_nan=True)
    median, median_other = (kaplan_meier(t).quantile_days([0.5]) for t in (table, other))
    assert np.allclose(median * unit, median_other, rtol=1e-12, equal_nan=True)
    assert log_rank([table]).degrees_of_freedom == log_rank([other]).degrees_of_freedom


@settings(max_examples=100, deadline=None)
@given(cohorts, st.integers(1, 5))
def test_figures_of_summed_sites_are_those_of_the_pooled_patients(rows, sites):
    tables = [life_table(*columns(rows[site::sites]), EDGES, CUTS) for site in range(sites)]
    summed = sum(tables[1:], start=tables[0])
    pooled = life_table(*columns(rows), EDGES, CUTS)
    for read in (kaplan_meier, reverse_kaplan_meier, aalen_johansen):
        for name, value in vars(read(pooled)).items():
            assert np.array_equal(value, getattr(read(summed), name), equal_nan=True), name
    assert log_rank([summed]).chi_square == pytest.approx(log_rank([pooled]).chi_square, abs=0, nan_ok=True)


def ten_years(seed):
    """10,000 patients, about 10 % with the event within ten years; half are lost before, at random, by day."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=10_000)
    failure = np.floor(rng.exponential(30_000, 10_000) * np.exp(-risk))
    lost = np.floor(np.minimum(rng.exponential(5_000, 10_000), 3652))
    return np.minimum(failure, lost), failure <= lost, risk


@pytest.mark.parametrize("seed", range(3))
def test_thirty_day_bins_are_within_0_005_of_the_exact_curve_over_ten_years(seed):
    time, event, risk = ten_years(seed)
    edges, cuts = np.arange(0.0, 3653, 30), [-1.0, 0.0, 1.0]
    binned = kaplan_meier(life_table(time, event, risk, edges, cuts)).survival
    group = np.searchsorted(cuts, risk, side="right")
    for g in range(4):
        exact = KaplanMeierFitter().fit(time[group == g], event[group == g])
        before_next_edge = exact.predict(edges[1:] - 0.5).to_numpy()
        difference = np.abs(binned[g, :-1] - before_next_edge)
        assert difference.max() < 0.005
        assert difference.max() > 0  # wide bins are not the exact curve


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cause": [0, 1, 3]}, "FECG-532 cause: found 1 of 3 values that are none of 0, 1 and 2"),
        ({"cause": [0.5, np.nan, -7]}, "FECG-532 cause: found 3 of 3 values"),
        (
            {"cause": ["x", "1", "0"]},
            "FECG-532 cause: found values that are not numbers; expected one number",
        ),
        ({"cause": [0, 1]}, r"FECG-532 cause: found shape (2,) beside times of shape (3,)"),
        ({"time": [1, -2, 3]}, "FECG-236 time: found 1 of 3 values that are negative or not finite"),
        ({"risk": [1, np.nan, 3]}, "FECG-238 risk: found 1 of 3 values that are not finite"),
        ({"risk": [1, 2]}, "FECG-235 time, event, risk: found shapes time (3,), event (3,), risk (2,)"),
    ],
)
def test_bad_columns_are_refused_by_column_and_count_without_a_value(change, message):
    good = {"time": [1, 2, 3], "cause": [0, 1, 2], "risk": [1, 2, 3]}
    with pytest.raises(CohortError) as error:
        life_table(**(good | change), edges_days=EDGES, group_cuts=CUTS)
    assert message in str(error.value)
    assert "-7" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edges_days": [1, 2]}, "FECG-533 life table: found edges_days that do not rise from 0"),
        ({"edges_days": [0, 2, 2]}, "found edges_days that do not rise from 0"),
        ({"edges_days": [0, np.nan]}, "found edges_days that do not rise from 0"),
        (
            {"edges_days": []},
            r"found shapes that do not fit: edges_days (0,), group_cuts (2,), exits (3, 0, 3)",
        ),
        ({"group_cuts": [1, 0]}, "found group_cuts that do not rise"),
        ({"group_cuts": [0, np.inf]}, "found group_cuts that do not rise"),
    ],
)
def test_bins_and_cuts_that_do_not_rise_are_refused(change, message):
    with pytest.raises(FederationError) as error:
        life_table([1], [1], [1], **({"edges_days": EDGES, "group_cuts": CUTS} | change))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("exits", "message"),
    [
        (np.zeros((3, 3, 2), dtype=int), r"FECG-533 life table: found shapes .* exits \(3, 3, 2\)"),
        (np.zeros((3, 3, 3)), "FECG-533 life table: found exits of kind float64"),
        (-np.eye(3, dtype=int)[:, :, None] * [1, 1, 0], "FECG-533 life table: found 6 negative exits"),
    ],
)
def test_counts_that_no_patients_have_are_refused(exits, message):
    with pytest.raises(FederationError, match=message):
        LifeTable(EDGES, CUTS, exits)


def test_tables_of_other_bins_or_groups_are_not_added():
    table = life_table([1], [1], [1], EDGES, CUTS)
    other_bins = life_table([1], [1], [1], [0, 2, 5], CUTS)
    other_groups = life_table([1], [1], [1], EDGES, [-1, 2])
    neither = life_table([1], [1], [1], [0, 2], [-1])
    with pytest.raises(
        FederationError, match="FECG-531 life tables: found tables that differ in edges_days;"
    ):
        table + other_bins
    with pytest.raises(
        FederationError, match="found tables that differ in group_cuts; expected the study's bins"
    ):
        table + other_groups
    with pytest.raises(FederationError, match="differ in edges_days and group_cuts"):
        table + neither
