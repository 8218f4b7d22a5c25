"""Mini-batches: sizes, coverage, events in each, no single records, bit-equal repetition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedecg.training import event_stratified_batches, shuffled_batches


def rows_of(count):
    return np.arange(count) * 3 + 5


@settings(deadline=None)
@given(n=st.integers(1, 90), size=st.integers(1, 100), steps=st.integers(1, 25), seed=st.integers(0, 99))
def test_shuffled_batches_fit_and_never_repeat_a_row(n, size, steps, seed):
    rows = rows_of(n)
    batches = shuffled_batches(rows, size, steps, np.random.default_rng(seed))
    assert len(batches) == steps
    for batch in batches:
        assert min(size, n, 2) <= len(batch) <= size
        assert len(np.unique(batch)) == len(batch)
        assert np.isin(batch, rows).all()


@settings(deadline=None)
@given(n=st.integers(1, 90), size=st.integers(3, 100), seed=st.integers(0, 99))
def test_an_epoch_visits_every_row_once_in_batches_of_nearly_equal_size(n, size, seed):
    parts = -(-n // size)
    batches = shuffled_batches(rows_of(n), size, 2 * parts, np.random.default_rng(seed))
    for epoch in (batches[:parts], batches[parts:]):
        assert sorted(np.concatenate(epoch)) == rows_of(n).tolist()
        sizes = [len(batch) for batch in epoch]
        assert max(sizes) - min(sizes) <= 1


def test_a_batch_size_above_the_site_means_the_whole_site_every_step():
    batches = shuffled_batches(rows_of(5), 64, 3, np.random.default_rng(0))
    assert [sorted(batch) for batch in batches] == [rows_of(5).tolist()] * 3


def test_a_left_over_record_waits_for_the_next_shuffle_and_all_come_equally_often():
    batches = shuffled_batches(np.arange(7), 2, 6000, np.random.default_rng(0))
    assert {len(batch) for batch in batches} == {2}
    counts = np.bincount(np.concatenate(batches))
    # 12000 places over 7 rows; a row is left out of an epoch with probability 1/7: sd about 16.
    assert np.abs(counts - 12000 / 7).max() < 5 * 16


def test_a_site_with_one_record_gets_batches_of_that_record():
    for batches in (
        shuffled_batches(np.array([9]), 64, 2, np.random.default_rng(0)),
        event_stratified_batches(np.array([9]), np.array([True]), 64, 2, np.random.default_rng(0)),
        event_stratified_batches(np.array([9]), np.array([False]), 1, 2, np.random.default_rng(0)),
    ):
        assert [batch.tolist() for batch in batches] == [[9], [9]]


def test_no_rows_give_no_batches():
    nobody = np.zeros(0, dtype=np.int64)
    assert shuffled_batches(nobody, 8, 5, np.random.default_rng(0)) == []
    assert event_stratified_batches(nobody, nobody.astype(bool), 8, 5, np.random.default_rng(0)) == []


@settings(deadline=None, max_examples=300)
@given(
    n=st.integers(1, 90),
    share=st.sampled_from([0.01, 0.1, 0.5, 0.95, 1.0]),
    size=st.integers(1, 100),
    seed=st.integers(0, 999),
)
def test_stratified_batches_hold_events_in_proportion_and_at_least_one(n, share, size, seed):
    rng = np.random.default_rng(seed)
    event, rows = rng.random(n) < share, rows_of(n)
    batches = event_stratified_batches(rows, event, size, 12, rng)
    parts = -(-n // max(size, 2))
    assert len(batches) == 12
    for batch in batches:
        assert min(n, 2) <= len(batch) <= max(size, 2)
        assert len(np.unique(batch)) == len(batch)
        held = int(np.isin(batch, rows[event]).sum())
        assert held >= min(1, event.sum())
        if event.sum() >= parts:
            assert held in (event.sum() // parts, -(-event.sum() // parts))


def test_every_event_comes_back_where_there_are_fewer_events_than_batches():
    event = np.arange(100) < 3
    batches = event_stratified_batches(np.arange(100), event, 10, 40, np.random.default_rng(0))
    held = np.concatenate([batch[event[batch]] for batch in batches])
    assert len(held) == 40
    assert np.bincount(held, minlength=3).min() >= 12
    assert np.unique(np.concatenate(batches)).tolist() == list(range(100))


@pytest.mark.parametrize("batches", [shuffled_batches, event_stratified_batches])
def test_the_same_generator_gives_the_same_batches(batches):
    def draw(seed):
        arguments = (rows_of(30),) if batches is shuffled_batches else (rows_of(30), np.arange(30) % 4 == 0)
        return [batch.tolist() for batch in batches(*arguments, 7, 9, np.random.default_rng(seed))]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
