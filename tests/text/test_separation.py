"""What a bank tells apart: opposites, listed and by their words; neighbours; effective rank by hand."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fedecg.text import Bank, load_bank, make_bank, scp_statements, snomed_statements
from fedecg.text.separation import _listed as listed
from fedecg.text.separation import categories, effective_rank, neighbours, opposites

DEMO = load_bank("minilm-demo")


def bank_of(prompt_of: dict[str, str], vectors: list[list[float]] | None = None) -> Bank:
    """A bank with the given prompts; its vectors are 30 degrees apart unless given."""
    angle = np.arange(len(prompt_of)) * np.pi / 6
    drawn = np.stack([np.cos(angle), np.sin(angle)], axis=1) if vectors is None else np.array(vectors)
    return make_bank("b", list(prompt_of), drawn.astype(np.float32), {"prompts": prompt_of})


def named(bank: Bank) -> set[frozenset[str]]:
    return {frozenset((pair.one, pair.other)) for pair in opposites(bank)}


def test_the_shipped_bank_tells_all_opposites_apart() -> None:
    pairs = opposites(DEMO)
    assert all(pair.cosine < 0.9 for pair in pairs)
    assert all(pair.apart for pair in pairs)
    assert (pairs[0].one, pairs[0].other) == ("CLBBB", "CRBBB")
    for pair in pairs:
        cosine = DEMO.vectors[DEMO.codes.index(pair.one)] @ DEMO.vectors[DEMO.codes.index(pair.other)]
        assert_allclose(pair.cosine, cosine, atol=1e-6)


def test_what_must_be_separate_for_heart_failure_is_among_the_opposites() -> None:
    pairs = named(DEMO)
    for one, other in [("CLBBB", "CRBBB"), ("ILBBB", "IRBBB"), ("CLBBB", "ILBBB"), ("CRBBB", "IRBBB")]:
        assert {one, other} in pairs
    assert {frozenset(("NORM", code)) for code in DEMO.codes if code != "NORM"} <= pairs


def test_listed_codes_stand_in_the_tables_of_the_package() -> None:
    known = {"scp-ecg": {*scp_statements(), "*"}, "snomed-ct": set(snomed_statements())}
    kinds = {kind for kind, _, _ in listed()}
    assert kinds == {*known, "words"}
    for kind, one, other in listed():
        assert kind == "words" or {one, other} <= known[kind]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("left bundle branch block", "right bundle branch block"),
        ("Incomplete right bundle branch block", "complete right bundle branch block"),
        ("Overall: normal electrocardiogram", "Overall: abnormal electrocardiogram"),
        ("normal electrocardiogram", "not normal electrocardiogram"),
        ("sinus tachycardia", "sinus bradycardia"),
    ],
)
def test_in_a_sites_own_table_opposites_are_found_by_their_words(one: str, other: str) -> None:
    bank = bank_of({"k1": one, "k2": "atrial fibrillation", "k3": other})
    assert named(bank) == {frozenset(("k1", "k3"))}


def test_statements_that_differ_in_more_than_one_word_are_no_opposites() -> None:
    assert not opposites(
        bank_of({"a": "left bundle branch block", "b": "right atrial enlargement", "c": "right"})
    )


def test_opposites_at_an_angle_below_26_degrees_are_not_apart_and_come_first() -> None:
    near, far = np.deg2rad(25), np.deg2rad(80)
    bank = bank_of(
        {"l": "left block", "r": "right block", "h": "high", "w": "low"},
        [[1, 0], [np.cos(near), np.sin(near)], [0, 1], [np.cos(far + np.pi / 2), np.sin(far + np.pi / 2)]],
    )
    pairs = opposites(bank)
    assert [(pair.one, pair.other, pair.apart) for pair in pairs] == [("l", "r", False), ("h", "w", True)]
    assert_allclose([pair.cosine for pair in pairs], [np.cos(near), np.cos(far)], atol=1e-6)


def test_a_bank_without_prompts_is_checked_by_its_codes() -> None:
    bank = make_bank("b", ["CLBBB", "CRBBB"], np.array([[1, 0], [0.96, 0.28]], dtype=np.float32), {})
    [pair] = opposites(bank)
    assert not pair.apart


def test_neighbours_come_nearest_first_without_the_statement_itself() -> None:
    found = neighbours(bank_of({"a": "one", "b": "two", "c": "three"}), "c", 5)
    assert [code for code, _ in found] == ["b", "a"]
    assert_allclose([cosine for _, cosine in found], [np.cos(np.pi / 6), 0.5], atol=1e-6)
    assert neighbours(DEMO, "CLBBB", 1)[0][0] == "CRBBB"


def test_effective_rank_by_hand() -> None:
    # Two axes with squared singular values 2 a^2 and 2 b^2: shares 0.8 and 0.2.
    points = np.array([[2, 0, 0], [-2, 0, 0], [0, 1, 0], [0, -1, 0]], dtype=np.float32)
    expected = np.exp(-(0.8 * np.log(0.8) + 0.2 * np.log(0.2)))
    assert_allclose(effective_rank(points + np.float32(3)), expected, rtol=1e-6)
    assert_allclose(effective_rank(np.eye(6, dtype=np.float32)), 5)
    assert effective_rank(np.ones((4, 3), dtype=np.float32)) == 0


def test_a_category_is_what_stands_before_the_colon() -> None:
    assert categories(bank_of({"a": "Atria: left atrial enlargement", "b": "left block"})) == ["Atria", ""]
