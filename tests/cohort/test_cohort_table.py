"""The cohort table: its rules, its csv file, and the message of every refusal."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from fedecg.cohort import COLUMNS, Cohort, read_cohort, write_cohort
from fedecg.cohort.cohort import OPTIONAL
from fedecg.errors import CohortError

HEADER = ",".join(name for name in COLUMNS if name not in OPTIONAL) + "\n"  # as a table may be
SECRET = 918273645  # stands for a patient: no message may contain it


def four_records() -> Cohort:
    return Cohort(
        record=np.array([3, 1, 0, 2]),
        patient=np.array([SECRET, SECRET, 8, 9]),
        part=np.array(["train", "train", "validation", "test"]),
        event=np.array([True, False, False, True]),
        follow_up_days=np.array([10.5, 1 / 3, 3652.0, 1.0]),
        entry_days=np.array([0.0, 0.25, 0.0, 0.5]),
        died=np.array([False, True, False, False]),
        age_years=np.array([61.0, np.nan, 17.25, 90.0]),
        female=np.array([1.0, 0.0, np.nan, 0.0]),
        codes=({"LVH": 100.0, "SR": 0.0}, {}, {"RAO/RAE": 33.3}, {"NORM": 80.0}),
    )


def assert_same(one: Cohort, other: Cohort) -> None:
    for name in COLUMNS[:-1]:
        assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype.kind == getattr(other, name).dtype.kind
    assert one.codes == other.codes


def refusal(cohort: Cohort) -> str:
    with pytest.raises(CohortError) as caught:
        cohort.validate()
    assert str(SECRET) not in str(caught.value)
    return str(caught.value)


def test_a_good_cohort_is_accepted_and_has_a_length() -> None:
    cohort = four_records()
    cohort.validate()
    assert len(cohort) == 4


def test_an_empty_cohort_is_accepted_and_survives_the_file(tmp_path: Path) -> None:
    empty = four_records().select(np.zeros(4, dtype=bool))
    write_cohort(empty, tmp_path / "cohort.csv")
    assert len(read_cohort(tmp_path / "cohort.csv")) == 0


def test_select_takes_a_mask_or_rows_in_their_order() -> None:
    cohort = four_records()
    assert_same(
        cohort.select(np.array([False, True, False, True])),
        cohort.select(np.array([1, 3])),
    )
    assert cohort.select(np.array([2, 0])).codes == ({"RAO/RAE": 33.3}, {"LVH": 100.0, "SR": 0.0})
    assert_array_equal(cohort.select(np.array([2, 0])).record, [0, 3])


def test_a_cohort_comes_back_bit_for_bit_from_its_file(tmp_path: Path) -> None:
    write_cohort(four_records(), tmp_path / "cohort.csv")
    assert_same(read_cohort(tmp_path / "cohort.csv"), four_records())
    assert [file.name for file in tmp_path.iterdir()] == ["cohort.csv"]


@given(st.lists(st.floats(min_value=1e-300, max_value=43830.0), min_size=1, max_size=5))
def test_follow_up_survives_the_file_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, days: list[float]
) -> None:
    path = tmp_path_factory.mktemp("cohort") / "cohort.csv"
    rows = np.zeros(len(days), dtype=int)
    cohort = replace(
        four_records().select(rows), record=np.arange(len(days)), follow_up_days=np.array(days, dtype=float)
    )
    write_cohort(cohort, path)
    assert_array_equal(read_cohort(path).follow_up_days, cohort.follow_up_days)


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "cohort.csv"
    write_cohort(four_records(), path)
    before = path.read_bytes()
    with pytest.raises(CohortError):
        write_cohort(replace(four_records(), follow_up_days=np.zeros(4)), path)
    assert path.read_bytes() == before


def test_columns_of_unequal_length_are_named() -> None:
    text = refusal(replace(four_records(), age_years=np.array([1.0]), female=np.array(["f"] * 4)))
    assert "FECG-221 cohort columns: found 2 of another kind or length" in text
    assert "age_years, female" in text


@pytest.mark.parametrize("bad", [0.0, -3.0, math.nan, math.inf, 43831.0, 1e300])
def test_follow_up_that_is_not_positive_or_beyond_120_years_is_counted(bad: float) -> None:
    text = refusal(replace(four_records(), follow_up_days=np.array([1.0, bad, bad, 2.0])))
    assert "FECG-222 follow_up_days: found 2 of 4 values that are not in (0, 43,830]; expected days" in text


@pytest.mark.parametrize("bad", [-1.0, 2.0, 5.0, math.nan])
def test_an_entry_that_is_not_before_the_end_of_follow_up_is_counted(bad: float) -> None:
    cohort = replace(
        four_records(), follow_up_days=np.full(4, 2.0), entry_days=np.array([0.0, bad, 1.0, bad])
    )
    text = refusal(cohort)
    assert "FECG-230 entry_days: found 2 of 4 values that are negative or not before the end" in text
    assert "leave the column out" in text


def test_a_table_without_entry_days_lets_all_enter_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "cohort.csv"
    path.write_text(HEADER + "0,1,train,0,5,,,\n")
    assert read_cohort(path).entry_days.tolist() == [0.0]
    assert read_cohort(path).died.tolist() == [False]


def test_a_death_beside_an_event_is_refused() -> None:
    text = refusal(replace(four_records(), died=np.array([True, True, False, False])))
    assert "FECG-226 died: found 1 of 4 rows out of range; expected 1 only where event = 0" in text


def test_an_unknown_part_is_counted() -> None:
    text = refusal(replace(four_records(), part=np.array(["train", "train", "holdout", "test"])))
    assert (
        "FECG-223 part: found 1 of 4 rows in an unknown part; expected train or validation or test or align."
        in text
    )


def test_a_patient_in_two_parts_is_refused_with_a_count_only() -> None:
    text = refusal(replace(four_records(), part=np.array(["train", "test", "test", "test"])))
    assert "FECG-224 part: found 1 patient(s) in more than one part" in text


def test_a_record_that_stands_twice_or_before_the_start_is_refused() -> None:
    text = refusal(replace(four_records(), record=np.array([5, 5, -1, 2])))
    assert "FECG-225 record: found 1 duplicate row(s) and 1 negative row number(s)" in text


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("age_years", np.array([61.0, 300.0, -1.0, np.nan])),
        ("female", np.array([2.0, 0.5, 1.0, np.nan])),
        ("codes", ({"SR": 101.0}, {"SR": -1.0}, {}, {"SR": 100.0})),
    ],
)
def test_values_out_of_range_are_counted(column: str, values: object) -> None:
    text = refusal(replace(four_records(), **{column: values}))  # type: ignore[arg-type]
    assert f"FECG-226 {column}: found 2 of 4 rows out of range" in text


def file_refusal(tmp_path: Path, text: str) -> str:
    (tmp_path / "cohort.csv").write_text(text, encoding="utf-8")
    with pytest.raises(CohortError) as caught:
        read_cohort(tmp_path / "cohort.csv")
    assert str(SECRET) not in str(caught.value)
    return str(caught.value)


def test_a_missing_file_is_refused_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(
        CohortError, match=r"FECG-227 cohort table.*cannot be read \(no such file\)"
    ) as caught:
        read_cohort(tmp_path / f"{SECRET}.csv")
    assert str(SECRET) not in str(caught.value)


def test_missing_columns_are_named(tmp_path: Path) -> None:
    text = file_refusal(tmp_path, "record,patient,part,event,follow_up_days,age_years\n")
    assert "FECG-227 cohort table: found 2 column(s) missing: female, codes" in text
    assert "8 column(s) missing" in file_refusal(tmp_path, "")


def test_rows_of_uneven_length_are_counted(tmp_path: Path) -> None:
    text = file_refusal(tmp_path, HEADER + "0,1,train\n" + "1,1,train,0,5,,,\n")
    assert "FECG-227 cohort table: found 1 of 2 rows with more or fewer cells" in text


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ("x,1,train,0,5,,,", "record"),
        ("0, ,train,0,5,,,", "patient"),
        ("0,1,train,yes,5,,,", "event"),
        ("0,1,train,2,5,,,", "event"),
        ("0,1,train,,5,,,", "event"),
        ("0,1,train,0,soon,,,", "follow_up_days"),
        ("0,1,train,0,5,old,,", "age_years"),
        ("0,1,train,0,5,,f,", "female"),
        ("0,1,train,0,5,,,LVH", "codes"),
        ("0,1,train,0,5,,,[1]", "codes"),
        ('0,1,train,0,5,,,"{""LVH"": null}"', "codes"),
    ],
)
def test_cells_that_cannot_be_read_are_counted_and_not_shown(tmp_path: Path, row: str, column: str) -> None:
    text = file_refusal(tmp_path, f"{HEADER}{row}\n7,{SECRET},train,1,5,,,\n")
    assert f"FECG-228 column {column}: found 1 of 2 cells unreadable; expected" in text


def test_a_byte_order_mark_more_columns_and_blank_lines_are_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "cohort.csv"
    path.write_text("\ufeffward," + HEADER + "a,0,1,train,1,5,,,\n\n", encoding="utf-8")
    cohort = read_cohort(path)
    assert len(cohort) == 1
    assert cohort.codes == ({},)
    assert np.isnan(cohort.age_years[0])


def test_patients_may_have_any_text_as_their_name_and_are_numbered_as_they_appear(tmp_path: Path) -> None:
    path = tmp_path / "cohort.csv"
    names = ["KH-0042/b", " 7 ", "Å 3", "KH-0042/b", "007", "kh-0042/B"]
    rows = [f"{record},{name},train,0,5,,," for record, name in enumerate(names)]
    path.write_text(HEADER + "\n".join(rows) + "\n", encoding="utf-8")
    assert read_cohort(path).patient.tolist() == [0, 1, 2, 0, 3, 4]


def test_numbers_of_patients_stay_and_leading_zeros_make_two_patients(tmp_path: Path) -> None:
    path = tmp_path / "cohort.csv"
    path.write_text(HEADER + "0,-5,train,0,5,,,\n1,900,train,0,5,,,\n")
    assert read_cohort(path).patient.tolist() == [-5, 900]
    for other in ("007", "1_0", "+7", "99999999999999999999", "7.0"):
        path.write_text(HEADER + f"0,7,train,0,5,,,\n1,{other},train,0,5,,,\n")
        assert read_cohort(path).patient.tolist() == [0, 1]


def test_a_patient_without_a_name_is_refused_and_no_name_is_shown(tmp_path: Path) -> None:
    text = file_refusal(tmp_path, f"{HEADER}0,,train,0,5,,,\n1,x{SECRET},train,0,5,,,\n")
    assert (
        "FECG-228 column patient: found 1 of 2 cells unreadable; expected a number or name a patient" in text
    )


def test_a_patient_by_name_in_two_parts_is_refused(tmp_path: Path) -> None:
    text = file_refusal(tmp_path, f"{HEADER}0,x{SECRET},train,0,5,,,\n1,x{SECRET},test,0,5,,,\n")
    assert "FECG-224 part: found 1 patient(s)" in text
