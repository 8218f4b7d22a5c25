"""Splits by patient: never one patient in two parts, shares kept among patients with and without an event."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from fedecg.cohort import PARTS, split_by_patient
from fedecg.errors import CohortError

records = st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=80)


@settings(deadline=None)
@given(records, st.integers(0, 2**31))
def test_no_patient_is_ever_in_two_parts(rows: list[tuple[int, bool]], seed: int) -> None:
    patient = np.array([row[0] for row in rows], dtype=np.int64)
    event = np.array([row[1] for row in rows], dtype=bool)
    part = split_by_patient(patient, event, (0.6, 0.2, 0.2), np.random.default_rng(seed))
    assert set(part) <= set(PARTS)
    assert part.shape == patient.shape
    for number in np.unique(patient):
        assert len(set(part[patient == number])) == 1


@settings(deadline=None)
@given(records, st.integers(0, 2**31))
def test_each_part_has_its_share_of_patients_with_and_without_an_event(
    rows: list[tuple[int, bool]], seed: int
) -> None:
    patients, index = np.unique([row[0] for row in rows], return_inverse=True)
    event = np.array([any(e for p, e in rows if p == number) for number in patients], dtype=bool)
    part = split_by_patient(patients, event, (0.5, 0.3, 0.2), np.random.default_rng(seed))
    for stratum in (event, ~event):
        for name, share in zip(PARTS, (0.5, 0.3, 0.2), strict=True):
            assert abs(np.sum(part[stratum] == name) - share * stratum.sum()) <= 1
    assert len(index) == len(rows)


def test_the_order_of_the_rows_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    patient = rng.integers(0, 40, size=100)
    event = rng.random(100) < 0.2
    order = rng.permutation(100)
    straight = split_by_patient(patient, event, (0.7, 0.1, 0.2), np.random.default_rng(5))
    shuffled = split_by_patient(patient[order], event[order], (0.7, 0.1, 0.2), np.random.default_rng(5))
    assert_array_equal(straight[order], shuffled)


def test_another_seed_gives_another_split() -> None:
    patient, event = np.arange(50), np.zeros(50, dtype=bool)
    one, other = (
        split_by_patient(patient, event, (0.5, 0.25, 0.25), np.random.default_rng(seed)) for seed in (1, 2)
    )
    assert np.any(one != other)


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.5), (1.2, -0.2, 0.0), (0.5, 0.5), (float("nan"), 0.5, 0.5)])
def test_shares_that_are_no_shares_are_refused(shares: tuple[float, float, float]) -> None:
    with pytest.raises(
        CohortError, match=r"FECG-229 shares of the parts: found .*; expected three, >= 0, sum 1"
    ):
        split_by_patient(np.arange(3), np.zeros(3, dtype=bool), shares, np.random.default_rng(0))
