"""Whom a ledger knows again, and that it names nobody."""

import dataclasses

import numpy as np
import pytest
from ledgers import ALIGN, DELTA, HAZARD, ROWS, SECRET, spend, table

from fedecg.cohort import read_cohort, write_cohort
from fedecg.privacy.ledger import open_ledger, patients_by_part


def test_no_name_is_in_the_folder_and_another_site_has_other_pseudonyms(tmp_path):
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        spend(folder, HAZARD, of={"train": [SECRET]})
        for file in folder.iterdir():
            assert SECRET.encode() not in file.read_bytes()
    sets = []
    for folder in folders:
        with open_ledger(folder) as ledger:
            assert ledger.patients == ledger.patients_of("train")
            assert ledger.patients_of("test") == frozenset()
            sets.append(ledger.patients)
    assert len(sets[0]) == len(sets[1]) == 1
    assert sets[0] != sets[1]


def test_patients_are_known_again_when_rows_of_their_table_are_moved_or_added(tmp_path):
    cohort = read_cohort(table(tmp_path, ROWS))
    with open_ledger(tmp_path) as ledger:
        before = patients_by_part(ledger, cohort)
        ledger.spend(ALIGN, [HAZARD], before, 50.0, DELTA)
    new = "{},city-1,train,0,20.0,61.0,0.0,{{}}\n"
    moved = read_cohort(table(tmp_path, [new, *reversed(ROWS)]))
    assert (
        moved.patient[np.array(moved.names) == "city-7"] != cohort.patient[np.array(cohort.names) == "city-7"]
    )
    with open_ledger(tmp_path) as ledger:
        after = patients_by_part(ledger, moved)
        assert after["train"] > before["train"]
        assert after["test"] == before["test"]
        assert ledger.epsilon({"train": after["train"] - before["train"]}, DELTA) == 0
        assert ledger.epsilon({"train": before["train"]}, DELTA) > 0


@pytest.mark.parametrize("written", ["7", "007", " 7", "+7", "7.0", "7.", "0000000007.00", "\uff17"])
def test_a_number_is_the_same_patient_however_a_table_writes_it(used, written):
    """Spreadsheets make 7 of 007, and 7.0 of 7 beside a blank: a ledger that took them for others would forget."""
    with open_ledger(used) as ledger:
        assert ledger.pseudonyms([written]) == ledger.pseudonyms(["7"])


@pytest.mark.parametrize("other", ["70", "7.1", "7a", "-7", "7.0.0", "1e7", "0", "7 7"])
def test_other_numbers_and_words_are_other_patients(used, other):
    with open_ledger(used) as ledger:
        assert ledger.pseudonyms([other]) != ledger.pseudonyms(["7"])
        assert ledger.pseudonyms(["0"]) == ledger.pseudonyms(["000"]) != ledger.pseudonyms(["."])


def test_names_go_with_their_rows_and_are_shown_and_written_nowhere(tmp_path):
    cohort = read_cohort(table(tmp_path, ROWS))
    assert cohort.names == ("city-7", "city-8", "city-9")
    some = cohort.select(np.array([2, 0]))
    assert some.names == ("city-9", "city-7")
    assert cohort.patient_names(np.array([True, False, True])) == {"city-7", "city-9"}
    assert "city-7" not in repr(cohort)
    write_cohort(cohort, tmp_path / "again.csv")
    assert "city-7" not in (tmp_path / "again.csv").read_text()
    unnamed = dataclasses.replace(cohort, names=None)
    assert unnamed.patient_names(np.array([0, 0, 2])) == {"0", "2"}
    assert unnamed.select(np.array([1])).names is None


def test_whoever_stands_in_align_is_of_the_training_part(tmp_path):
    align = "{},city-7,align,,,60.0,1.0,{{}}\n{},city-6,align,,,60.0,1.0,{{}}\n".replace(
        "{},city-6", "9,city-6"
    )
    cohort = read_cohort(table(tmp_path, [*ROWS, align]))
    with open_ledger(tmp_path) as ledger:
        patients = patients_by_part(ledger, cohort)
        assert patients["train"] == ledger.pseudonyms(["city-6", "city-7", "city-8"])
        assert patients["validation"] == frozenset()
