"""All that is wrong with a cohort table is told at once, and what spreadsheet programs write is known by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedecg.cohort import read_cohort
from fedecg.errors import CohortError

HEADER = "record,patient,part,event,follow_up_days,age_years,female,codes\n"


def refusal(folder: Path, content: str | bytes) -> CohortError:
    file = folder / "cohort.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CohortError) as refused:
        read_cohort(file)
    return refused.value


def test_cells_of_several_columns_that_cannot_be_read_are_told_together(tmp_path: Path) -> None:
    error = refusal(tmp_path, HEADER + "x,1,train,yes,5,,,\n1,2,train,no,5,old,,\n2,3,test,0,5,,,\n")
    assert str(error) == (
        "FECG-228 cohort table: found 3 faults\n"
        "  FECG-228 column record: 1 of 3 cells unreadable; expected whole numbers\n"
        "  FECG-228 column event: 2 of 3 cells unreadable; expected 0 or 1\n"
        "  FECG-228 column age_years: 1 of 3 cells unreadable; expected numbers or blank\n"
        "; expected none of them. "
        "Correct record in row 2 of the table, whose header is row 1. "
        "Correct event in rows 2, 3 of the table, whose header is row 1. "
        "Correct age_years in row 3 of the table, whose header is row 1."
    )


def test_of_many_rows_the_first_five_are_named(tmp_path: Path) -> None:
    rows = "".join(f"{row},{row},train,yes,5,,,\n" for row in range(40))
    fix = refusal(tmp_path, HEADER + rows).fix
    assert fix == "Correct event in rows 2, 3, 4, 5, 6 and 35 more of the table, whose header is row 1."


def test_rows_with_the_record_of_another_or_a_time_that_cannot_be_are_named(tmp_path: Path) -> None:
    rows = "0,1,train,1,5,,,\n3,2,train,0,5,,,\n-1,3,train,0,5,,,\n3,4,train,0,5,,,\n"
    error = refusal(tmp_path, HEADER + rows)
    assert (error.code, error.found) == ("FECG-225", "1 duplicate row(s) and 1 negative row number(s)")
    assert (
        error.fix == "Leave out what is wrong, or correct it: rows 4, 5 of the table, whose header is row 1."
    )
    error = refusal(tmp_path, HEADER + "0,1,train,1,5,,,\n1,2,train,0,0,,,\n")
    assert (
        error.fix
        == "Drop ECGs recorded after the last contact, in row 3 of the table, whose header is row 1."
    )


def test_rules_that_are_broken_are_told_together_each_with_its_code_and_fix(tmp_path: Path) -> None:
    rows = "0,1,train,1,-5,130,,\n0,2,nowhere,0,5,,3,\n2,3,test,0,9,,,\n"
    error = refusal(tmp_path, HEADER + rows)
    assert error.code == "FECG-222"
    assert error.found.splitlines()[0] == "5 faults"
    told = [line.split()[:2] for line in error.found.splitlines()[1:]]
    assert told == [
        ["FECG-222", "follow_up_days:"],
        ["FECG-223", "part:"],
        ["FECG-225", "record:"],
        ["FECG-226", "age_years:"],
        ["FECG-226", "female:"],
    ]
    assert (
        "Drop ECGs recorded after the last contact, in row 2 of the table, whose header is row 1."
        in error.fix
    )
    assert "Correct them, or leave them blank" in error.fix


def test_a_fault_of_one_row_is_not_told_as_two(tmp_path: Path) -> None:
    header = HEADER.replace("follow_up_days", "follow_up_days,entry_days")
    error = refusal(tmp_path, header + "0,1,train,1,-5,0,,,\n")
    assert str(error).startswith("FECG-222 follow_up_days: found 1 of 1 values that are not in (0, 43,830]")


@pytest.mark.parametrize("name", ["utf-16", "utf-16-be"])
def test_a_table_in_utf_16_is_known_by_its_beginning(tmp_path: Path, name: str) -> None:
    mark = b"" if name == "utf-16" else b"\xfe\xff"
    error = refusal(tmp_path, mark + (HEADER + "0,1,train,1,5,,,\n").encode(name))
    assert str(error).startswith(
        "FECG-227 cohort table: found text in UTF-16, not UTF-8; expected a csv file"
    )
    assert error.fix == 'Save it as "CSV UTF-8".'


@pytest.mark.parametrize(("separator", "word"), [(";", "semicolons"), ("\t", "tabs")])
def test_other_separators_than_commas_are_named(tmp_path: Path, separator: str, word: str) -> None:
    table = (HEADER + "0,1,train,1,5,,,\n").replace(",", separator)
    error = refusal(tmp_path, table)
    assert str(error).startswith(f"FECG-227 cohort table: found cells separated by {word}, not by commas;")
    assert error.fix == "Save it with commas between cells, and points in numbers (1.5, not 1,5)."
