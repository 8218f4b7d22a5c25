"""What goes outside: nothing of few people, nothing from which it could be worked out; as promised in the module."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedecg.errors import RunInputError
from fedecg.report.data_disclosure import RARER, disclosed, disclosed_horizons, rounded, thresholds
from fedecg.report.data_tables import Count, Horizon, Table
from fedecg.report.disclosure import Thresholds

LIMITS = Thresholds(10, 5)


def made(rows: list[tuple[int, int, int]], **changes) -> Table:
    """A table of (ecgs, patients, events) rows; its total is their sum."""
    counts = tuple(Count(f"row {at}", *row) for at, row in enumerate(rows))
    total = Count("all", *(sum(row[at] for row in rows) for at in range(3))) if rows else Count("all", 0, 0)
    return Table("t", "T", counts, total, **changes)


def row_lists(most: int = 60):
    row = st.integers(0, most).flatmap(
        lambda patients: st.tuples(
            st.integers(patients, patients + 20) if patients else st.just(0),
            st.just(patients),
            st.integers(0, patients),
        )
    )
    return st.lists(row, min_size=1, max_size=8)


@given(row_lists())
def test_no_small_number_is_shown_and_the_hidden_together_are_not_small(rows):
    table = made(rows, events=True)
    shown = disclosed(table, LIMITS)
    hidden = [
        row for row, source in zip(shown.rows, table.rows, strict=True) if isinstance(row.patients, str)
    ]
    for row, source in zip(shown.rows, table.rows, strict=True):
        if isinstance(row.patients, int):
            assert source.patients == 0 or source.patients >= 10
            assert (row.patients, row.ecgs) == (rounded(source.patients), rounded(source.ecgs))
        if isinstance(row.events, int):
            assert source.events == 0 or (source.events >= 5 and source.patients - source.events >= 5)
    if hidden and isinstance(shown.total.patients, int):
        assert len(hidden) >= 2
        behind = sum(row.patients for row in table.rows if any(row.label == each.label for each in hidden))
        assert behind >= 10
    no_events = [
        source for row, source in zip(shown.rows, table.rows, strict=True) if isinstance(row.events, str)
    ]
    if no_events and isinstance(shown.total.events, int):
        assert len(no_events) >= 2 or len(table.rows) == 1
        assert sum(row.events for row in no_events) >= 5 or len(no_events) == len(table.rows)


@given(row_lists(), st.integers(0, 100))
def test_of_rows_that_do_not_add_up_neither_they_nor_the_rest_are_few(rows, more):
    total = Count("all", 10_000, max(row[1] for row in rows) + more)
    table = Table(
        "t", "T", tuple(Count(f"row {at}", *row) for at, row in enumerate(rows)), total, exclusive=False
    )
    for row, source in zip(disclosed(table, LIMITS).rows, table.rows, strict=True):
        if isinstance(row.patients, int) and source.patients:
            rest = total.patients - source.patients
            assert source.patients >= 10
            assert rest == 0 or rest >= 10


def test_rare_devices_are_not_even_named():
    table = made([(40, 40, 0), (30, 30, 0), (8, 8, 0), (1, 1, 0)], free=True)
    shown = disclosed(table, LIMITS)
    assert [row.label for row in shown.rows] == ["row 0", RARER]
    assert shown.rows[1].patients == rounded(39)


def test_rare_codes_are_left_out_and_nothing_counts_them():
    total = Count("all", 100, 100)
    rows = (Count("NORM", 60, 60), Count("RARE", 3, 3), Count("SR", 95, 95), Count("ALL", 100, 100))
    shown = disclosed(Table("codes", "Codes", rows, total, exclusive=False, free=True), LIMITS)
    assert [(row.label, row.patients) for row in shown.rows] == [("NORM", 60), ("ALL", 100)]


def test_a_small_site_shows_no_number_at_all():
    shown = disclosed(made([(5, 5, 2), (4, 4, 1)], events=True), LIMITS)
    assert all(
        isinstance(cell, str)
        for row in (*shown.rows, shown.total)
        for cell in (row.ecgs, row.patients, row.events)
    )


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), min_size=1, max_size=8),
)
def test_survival_is_shown_only_after_enough_new_events_among_enough_people(steps):
    events, found, at_risk = 0, [], 500
    for year, (lost, new) in enumerate(steps, start=1):
        events, at_risk = events + new, at_risk - 60 - lost
        found.append(Horizon(float(year), max(at_risk, 0), events, 1 - events / 500))
    shown = [
        (horizon, row)
        for horizon, row in zip(found, disclosed_horizons(found, LIMITS), strict=True)
        if not isinstance(row[3], str)
    ]
    assert all(horizon.at_risk >= 10 for horizon, _ in shown)
    numbers = [0, *(horizon.events for horizon, _ in shown)]
    assert all(later - earlier >= 5 for earlier, later in pairwise(numbers))
    assert all(
        row[3] == round(horizon.survival, 2) and row[2] % 5 == 0 and row[1] % 5 == 0 for horizon, row in shown
    )


@pytest.mark.parametrize(("number", "shown"), [(0, 0), (10, 10), (12, 10), (13, 15), (17, 15), (18, 20)])
def test_numbers_are_rounded_to_the_nearest_five(number, shown):
    assert rounded(number) == shown


@pytest.mark.parametrize(("patients", "events"), [(2, 5), (10, 2), (0, 0)])
def test_no_site_goes_below_the_least_thresholds(patients, events):
    with pytest.raises(
        RunInputError, match=r"FECG-610 --patients, --events: .* expected at least 3 patients and 3"
    ):
        thresholds(patients, events)
