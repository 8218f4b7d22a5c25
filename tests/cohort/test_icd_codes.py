"""ICD codes: written in any way, matched by prefix and range exactly, each list with its published source."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedecg.cohort.icd import code_list, code_list_names, is_entry, matches, normalised, version_of

ICD_10 = st.from_regex(r"[A-TV-Z][0-9]{2}(\.[0-9A-Z]{1,4})?", fullmatch=True)


@pytest.mark.parametrize("written", ["I50.9", " i50.9 ", "I509", "i509", "I50.9+", "I50.9†", "I50.9!"])
def test_a_code_is_the_same_however_it_is_written(written: str) -> None:
    assert normalised(written) == "I509"


@given(ICD_10)
def test_dots_case_and_blanks_never_change_what_matches(code: str) -> None:
    for name in code_list_names():
        entries = code_list(name).icd_10
        told = matches(normalised(code), entries)
        assert told == matches(normalised(f" {code.lower()}  "), entries)
        assert told == matches(normalised(code.replace(".", "")), entries)


@given(ICD_10)
def test_hypertension_is_exactly_the_categories_i10_to_i15(code: str) -> None:
    inside = code[:3] in {"I10", "I11", "I12", "I13", "I14", "I15"}
    assert matches(normalised(code), code_list("hypertension").icd_10) == inside


@pytest.mark.parametrize(
    ("name", "inside_9", "outside_9", "inside_10", "outside_10"),
    [
        (
            "hypertension",
            "401 4019 402.91 405.99",
            "400 406 7962 642.0",
            "I10 I11.0 I159",
            "I1 I16.0 O10 I20",
        ),
        (
            "myocardial-infarction",
            "410 410.71 412",
            "411 413 4110",
            "I21 I21.4 I22.0 I25.2 I21.A1",
            "I20 I23 I25.1",
        ),
        (
            "heart-failure",
            "428 428.0 42833 398.91 402.01 40211 404.13 404.93",
            "402.00 402.9 404.12 404.92 425.4 398.9 427",
            "I50 I50.22 I11.0 I13.0 I13.2 I09.81",
            "I11.9 I13.1 I13.9 I42.0 I25.5 I09.9 I51 J81",
        ),
        (
            "heart-failure-quan",
            "425.4 425.9 428 404.03",
            "425.3 426",
            "I09.9 I25.5 I42.0 I42.7 I43.8 P29.0",
            "I42.1 I42.4 I09.8 I44",
        ),
    ],
)
def test_each_list_holds_what_its_source_says(
    name: str, inside_9: str, outside_9: str, inside_10: str, outside_10: str
) -> None:
    one = code_list(name)
    for codes, entries, expected in (
        (inside_9, one.icd_9, True),
        (outside_9, one.icd_9, False),
        (inside_10, one.icd_10, True),
        (outside_10, one.icd_10, False),
    ):
        for code in codes.split():
            assert matches(normalised(code), entries) is expected, (name, code)


def test_every_list_has_a_source_and_entries_that_can_be_read() -> None:
    assert code_list_names() == (
        "heart-failure",
        "heart-failure-quan",
        "hypertension",
        "myocardial-infarction",
    )
    for name in code_list_names():
        one = code_list(name)
        assert "Med Care 2005;43:1130-9" in one.source
        assert one.title
        assert one.note
        assert all(is_entry(entry) for entry in (*one.icd_9, *one.icd_10))


def test_the_narrow_list_is_within_the_wide_one_but_for_rheumatic_failure() -> None:
    wide = code_list("heart-failure-quan")
    narrow = code_list("heart-failure")
    assert [entry for entry in narrow.icd_10 if not matches(normalised(entry), wide.icd_10)] == ["I09.81"]
    assert all(matches(normalised(entry), wide.icd_9) for entry in narrow.icd_9)


@pytest.mark.parametrize(
    ("entry", "good"),
    [
        ("I50", True),
        ("402.01", True),
        ("I10-I15", True),
        ("425.4-425.9", True),
        ("I15-I10", False),
        ("I10-I1", False),
        ("", False),
        ("I10-I11-I12", False),
        ("I5*", False),
        ("heart", False),
        ("i50", False),
        ("V45.0", True),
        ("I09.81", True),
    ],
)
def test_entries_are_prefixes_or_ranges_of_one_length(entry: str, good: bool) -> None:
    assert is_entry(entry) is good


@pytest.mark.parametrize(
    ("cell", "version"),
    [
        ("9", 9),
        ("10", 10),
        ("9.0", 9),
        ("ICD-10-CM", 10),
        ("icd9", 9),
        ("ICD 10 GM", 10),
        ("09", 9),
        ("11", 0),
        ("", 0),
        ("109", 0),
    ],
)
def test_the_version_is_read_in_numbers_and_words(cell: str, version: int) -> None:
    assert version_of(cell) == version
