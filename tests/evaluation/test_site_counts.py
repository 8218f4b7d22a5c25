"""What a site counts, and which counts the coordinator refuses."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedecg.errors import CohortError, FederationError
from fedecg.evaluation import (
    Concordance,
    PairSquares,
    RiskTimeGrid,
    SiteCounts,
    concordance,
    site_counts,
    validate_site_counts,
)

GRID = RiskTimeGrid(np.array([2.0, 4.0]), np.array([-1.0, 0.0, 1.0]))
patient = st.tuples(st.integers(0, 6), st.booleans(), st.integers(-3, 3))


def columns(rows):
    time, event, risk = zip(*rows, strict=True) if rows else ((), (), ())
    return np.array(time, dtype=float), np.array(event, dtype=bool), np.array(risk, dtype=float)


def example():
    rng = np.random.default_rng(0)
    return site_counts(rng.integers(0, 7, 60), rng.random(60) < 0.4, rng.normal(size=60), GRID)


def test_three_patients_fall_into_their_cells():
    counts = site_counts([1, 2, 9], [1, 0, 1], [0.5, -2.0, 5.0], GRID)
    assert counts.cells.dtype == np.int64
    assert counts.cells.sum() == 3
    assert counts.cells[0, 2, 1] == counts.cells[1, 0, 0] == counts.cells[2, 3, 1] == 1


def test_pairs_are_the_exact_counts_of_the_site():
    time, event, risk = [1, 2, 9, 9], [1, 0, 1, 0], [0.5, -2.0, 5.0, 5.0]
    assert site_counts(time, event, risk, GRID).pairs == concordance(time, event, risk)


def test_a_site_without_patients_is_a_site_of_zeros():
    counts = site_counts([], [], [], GRID)
    validate_site_counts(counts, GRID)
    assert counts.cells.shape == GRID.shape
    assert counts.cells.sum() == counts.pairs.comparable == 0


@settings(max_examples=300, deadline=None)
@given(st.lists(patient, max_size=30))
def test_counts_of_any_patients_pass_the_check(rows):
    counts = site_counts(*columns(rows), GRID)
    validate_site_counts(counts, GRID)
    assert counts.cells.sum() == len(rows)


def refused(counts, code):
    with pytest.raises(FederationError) as error:
        validate_site_counts(counts, GRID, "north")
    assert str(error.value).startswith(f"{code} site north: ")
    return str(error.value)


def test_cells_of_another_grid_are_refused():
    message = refused(replace(example(), cells=np.zeros((3, 5, 2), dtype=np.int64)), "FECG-521")
    assert "cells: found shape (3, 5, 2) of int64; expected whole numbers of shape (3, 4, 2)" in message


def test_cells_that_are_not_whole_numbers_are_refused():
    message = refused(replace(example(), cells=example().cells.astype(float)), "FECG-521")
    assert "of float64" in message


def test_negative_cells_are_refused():
    cells = example().cells.copy()
    cells[0, 0, :] = -4
    assert "cells: found 2 negative counts" in refused(replace(example(), cells=cells), "FECG-522")


def test_negative_pairs_are_refused():
    pairs = Concordance.from_counts(-3, 5, 0)
    assert "pairs: found 1 negative counts" in refused(replace(example(), pairs=pairs), "FECG-523")


def test_pairs_that_do_not_add_up_are_refused():
    pairs = replace(example().pairs, comparable=1)
    assert "a total that its parts do not add up to" in refused(replace(example(), pairs=pairs), "FECG-523")


@pytest.mark.parametrize("column", ["concordant", "discordant", "tied_risk"])
def test_more_pairs_than_the_cells_allow_are_refused_by_column(column):
    parts = {"concordant": 0, "discordant": 0, "tied_risk": 0} | {column: 10_000}
    pairs = Concordance.from_counts(**parts)
    message = refused(replace(example(), pairs=pairs), "FECG-524")
    assert "as the site's own cells allow" in message


def test_pairs_of_other_patients_are_refused():
    honest = example()
    swapped = Concordance.from_counts(
        honest.pairs.concordant + honest.pairs.tied_risk + honest.pairs.discordant, 0, 0
    )
    assert "pairs.concordant" in refused(replace(honest, pairs=swapped), "FECG-524")


@pytest.mark.parametrize("squares", [(-1.0, 1.0, 2.0), (3.0, 2.0, 4.0), (1.0, 5.0, 4.0), (1.0, 2.0, np.inf)])
def test_squares_that_no_patients_have_are_refused(squares):
    message = refused(replace(example(), squares=PairSquares(*squares)), "FECG-523")
    assert "credit <= mixed <= comparable" in message


def test_too_few_comparable_pairs_are_refused():
    cells = np.zeros(GRID.shape, dtype=np.int64)
    cells[0, 1, 1], cells[2, 1, 0] = 5, 10  # 50 comparable pairs of open order
    message = refused(SiteCounts(cells, Concordance.from_counts(20, 20, 0), PairSquares(1, 1, 1)), "FECG-524")
    assert "pairs.comparable: found 40 pairs; expected 50 to 60" in message


def test_a_site_without_a_name_is_still_told_what_is_wrong():
    with pytest.raises(FederationError, match=r"^FECG-522 cells: found"):
        validate_site_counts(replace(example(), cells=-example().cells), GRID)


def test_bad_outcomes_are_refused_at_the_site():
    with pytest.raises(CohortError, match="FECG-236 time: found 1 of 1 values"):
        site_counts([-1], [1], [0], GRID)
