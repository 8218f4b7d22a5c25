"""PTB-XL's families of labels."""

import numpy as np

from fedecg.representation.families import FAMILIES, classes_of, family_labels, stated_codes


def test_families_have_as_many_classes_as_in_ptbxls_benchmark() -> None:
    # Strodthoff et al. 2021, table 2: 5 superclasses, 23 subclasses, 12 rhythm and 19 form statements.
    assert {family: len(classes_of(family)) for family in FAMILIES} == {
        "superclass": 5,
        "subclass": 23,
        "rhythm": 12,
        "form": 19,
    }


def test_labels_are_those_of_the_codes_whatever_their_likelihood() -> None:
    stated = [{"IMI": 15.0, "AFIB": 0.0}, {"LVH": 100.0, "CLBBB": 50.0}, {"SR": 0.0}, {}]
    superclass = family_labels(stated, "superclass")
    named = [
        [name for name, has in zip(classes_of("superclass"), row, strict=True) if has] for row in superclass
    ]
    assert named == [["MI"], ["CD", "HYP"], [], []]
    rhythm = classes_of("rhythm")
    assert family_labels(stated, "rhythm")[:, rhythm.index("AFIB")].tolist() == [True, False, False, False]
    assert family_labels(stated, "rhythm")[:, rhythm.index("SR")].tolist() == [False, False, True, False]


def test_a_code_of_two_kinds_counts_in_both_families() -> None:
    for family in ("form", "superclass"):
        assert family_labels([{"NDT": 100.0}], family).any()


def test_codes_outside_the_table_are_passed_over() -> None:
    assert not family_labels([{"164889003": 100.0}], "rhythm").any()
    assert stated_codes([], ["AFIB"]).shape == (0, 1)
    np.testing.assert_array_equal(
        stated_codes([{"AFIB": 0.0}, {}], ["LVH", "AFIB"]), [[False, True], [False, False]]
    )
