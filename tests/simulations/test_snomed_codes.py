"""SNOMED CT codes of headers as SCP statements: the whole table, and what a record's codes come to."""

import csv
import re
from pathlib import Path

import pytest

from fedecg.text import scp_statements, snomed_statements
from fedecg_simulations.cinc2021 import read_header
from fedecg_simulations.snomed_codes import scp_codes, snomed_meanings


def test_every_code_of_the_challenge_is_in_the_table_and_every_statement_is_one_of_the_banks() -> None:
    meanings = snomed_meanings()
    assert meanings.keys() == snomed_statements().keys()
    assert {meaning.relation for meaning in meanings.values()} == {"same", "narrower", "one-of", "none"}
    stated = [code for meaning in meanings.values() for code in meaning.codes]
    assert scp_statements().keys() >= set(stated)
    for code, meaning in meanings.items():
        assert bool(meaning.codes) == (meaning.relation != "none"), code
        if meaning.relation == "one-of":
            assert len(meaning.codes) > 1, code
            assert sum(meaning.codes.values()) == pytest.approx(100, abs=0.2), code
        else:
            assert set(meaning.codes.values()) <= {100.0}, code


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("713427006", "59118001"),
        ("284470004", "63593006"),
        ("427172004", "17338001"),
        ("733534002", "164909002"),
    ],
)
def test_what_the_challenge_scores_as_one_is_one(one: str, other: str) -> None:
    assert snomed_meanings()[one].codes == snomed_meanings()[other].codes


def test_words_of_both_lists_agree_where_a_code_says_the_same() -> None:
    """No pair of opposites: incomplete and complete, left and right, elevation and depression."""
    opposites = (
        ("incomplete", "(complete)"),
        ("left", "right"),
        ("elevation", "depression"),
        ("anterior", "posterior"),
    )
    for code, meaning in snomed_meanings().items():
        said = snomed_statements()[code].description.lower()
        for scp in meaning.codes if meaning.relation == "same" else ():
            stated = scp_statements()[scp].description.lower()
            for one, other in opposites:
                for mine, its in ((one, other), (other, one)):
                    mine_said = re.search(rf"(?<![a-z(]){re.escape(mine)}", said)
                    assert not (mine_said and its in stated and mine not in stated), (said, stated)


def test_a_code_that_names_the_place_settles_one_that_does_not() -> None:
    assert scp_codes(["164865005"]) == (dict.fromkeys(("AMI", "IMI", "LMI", "PMI"), 25.0), 0)
    assert scp_codes(["164865005", "54329005"]) == ({"AMI": 100.0}, 0)
    assert scp_codes(["6374002", "713427006"]) == ({"CRBBB": 100.0}, 0)


def test_codes_that_nothing_says_and_codes_that_nobody_knows_are_counted() -> None:
    assert scp_codes(["39732003", "1", "426177001", "426177001"]) == ({"SBRAD": 100.0}, 2)
    assert scp_codes([]) == ({}, 0)


def test_a_record_of_ptbxl_says_in_both_codings_what_it_says_in_one(data_root: Path) -> None:
    """HR20715 of the Challenge is ecg_id 20715 of PTB-XL: its SCP codes there, and what its header comes to here."""
    with (data_root / "ptbxl_text" / "ptbxl_database_rhythm_subset.csv").open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["ecg_id"] == "20715")
    header = read_header(data_root / "cinc2020" / "HR20715.hea")
    published = set(re.findall(r"'([^']+)'", row["scp_codes"]))
    assert (header.age_years, header.female) == (float(row["age"]), 0.0)
    assert scp_codes(header.snomed) == ({"ISC_": 100.0, "LVH": 100.0}, 0)
    assert published == {"ISC_", "LVH"}
