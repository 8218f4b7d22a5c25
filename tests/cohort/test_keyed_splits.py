"""Parts by keyed hash: no patient in two, shares to within one patient, the same for every order of rows."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedecg.cohort.build_settings import SplitSection
from fedecg.cohort.build_splits import keyed_order, parts_by_patient

people = st.dictionaries(st.text(min_size=1, max_size=6), st.booleans(), max_size=60)
seeds = st.integers(0, 2**31 - 1)
two_shares = st.tuples(st.floats(0, 0.49), st.floats(0, 0.5))


def split_of(cohort: dict[str, bool], split: SplitSection) -> list[dict[str, str]]:
    names, event = list(cohort), np.array(list(cohort.values()), dtype=bool)
    parts = parts_by_patient(names, event, split)
    return [dict(zip(names, map(str, part), strict=True)) for part in parts]


@settings(deadline=None)
@given(people, seeds, two_shares)
def test_each_part_has_its_share_of_both_kinds_to_within_one_patient(
    cohort: dict[str, bool], seed: int, shares: tuple[float, float]
) -> None:
    validation, test = shares
    (part,) = split_of(cohort, SplitSection(validation=validation, test=test, seed=seed))
    assert part.keys() == cohort.keys()
    wanted = {"validation": validation, "test": test, "train": 1 - validation - test}
    for kind in (True, False):
        members = [name for name, event in cohort.items() if event is kind]
        for name, share in wanted.items():
            assert abs(sum(part[one] == name for one in members) - share * len(members)) <= 1


@settings(deadline=None)
@given(people, seeds, st.integers(2, 6))
def test_each_patient_is_tested_in_exactly_one_fold(cohort: dict[str, bool], seed: int, folds: int) -> None:
    found = split_of(cohort, SplitSection(folds=folds, validation=0.1, seed=seed))
    assert len(found) == folds
    for name in cohort:
        assert [fold[name] for fold in found].count("test") == 1
    for kind in (True, False):
        members = [name for name, event in cohort.items() if event is kind]
        for fold in found:
            assert abs(sum(fold[one] == "test" for one in members) - len(members) / folds) <= 1
            assert abs(sum(fold[one] == "validation" for one in members) - 0.1 * len(members)) <= 1


@settings(deadline=None)
@given(people, seeds, st.randoms())
def test_the_order_of_rows_does_not_move_a_patient(
    cohort: dict[str, bool], seed: int, chance: object
) -> None:
    shuffled = list(cohort.items())
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    for split in (SplitSection(seed=seed), SplitSection(folds=2, seed=seed)):
        assert split_of(cohort, split) == split_of(dict(shuffled), split)


def test_the_order_is_that_of_a_published_hash() -> None:
    # printf p1 | openssl dgst -sha256 -hmac "fedecg cohort split 0": 868c..., p2 0ba1..., p3 46fe..., p4 4138...
    assert [int(one) for one in keyed_order(["p1", "p2", "p3", "p4"], 0)] == [1, 3, 2, 0]


def test_another_seed_is_another_split() -> None:
    cohort = {f"p{number}": number % 7 == 0 for number in range(100)}
    assert split_of(cohort, SplitSection(seed=1)) != split_of(cohort, SplitSection(seed=2))
