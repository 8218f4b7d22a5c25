"""The part "align": ECGs that are said to show something, of patients whose outcome is not known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedecg.cohort import COLUMNS, Cohort, read_cohort, write_cohort
from fedecg.errors import CohortError

SECRET = 918273645  # stands for a patient: no message may contain it
TABLE = f"""{",".join(COLUMNS)}
0,{SECRET},train,1,100.5,0,0,60,1,
1,{SECRET},align,,,,,60,1,"{{""LVH"": 100}}"
2,7,align,0,,0,0,,,"{{""SR"": 0}}"
3,8,validation,0,200,0,0,50,0,
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "cohort.csv"
    file.write_text(TABLE)
    return file


def refusal(cohort: Cohort) -> str:
    with pytest.raises(CohortError) as caught:
        cohort.validate()
    assert str(SECRET) not in str(caught.value)
    return str(caught.value)


def test_rows_of_align_have_statements_and_no_outcome(table: Path) -> None:
    cohort = read_cohort(table)
    assert cohort.part.tolist() == ["train", "align", "align", "validation"]
    assert np.isnan(cohort.follow_up_days).tolist() == [False, True, True, False]
    assert cohort.event.tolist() == [True, False, False, False]
    assert not cohort.died.any()
    assert cohort.entry_days.tolist() == [0.0] * 4
    assert cohort.codes[1:3] == ({"LVH": 100.0}, {"SR": 0.0})


def test_they_come_back_from_a_file_that_was_written(table: Path, tmp_path: Path) -> None:
    cohort = read_cohort(table)
    write_cohort(cohort, tmp_path / "again.csv")
    again = read_cohort(tmp_path / "again.csv")
    for name in COLUMNS[:-1]:
        np.testing.assert_array_equal(getattr(again, name), getattr(cohort, name))
    assert again.codes == cohort.codes


@pytest.mark.parametrize(
    ("column", "value"), [("follow_up_days", 30.0), ("event", True), ("died", True), ("entry_days", 2.0)]
)
def test_an_outcome_there_is_refused(table: Path, column: str, value: float) -> None:
    cohort = read_cohort(table)
    changed = getattr(cohort, column).copy()
    changed[1] = value
    told = refusal(replace(cohort, **{column: changed}))
    assert told.startswith("FECG-380 outcome of the part align: found 1 of 2 rows with a follow-up, an entry")
    assert "into train, or leave their outcome blank" in told


def test_a_blank_follow_up_is_a_gap_in_every_other_part(table: Path) -> None:
    table.write_text(TABLE.replace("validation,0,200,", "validation,0,,"))
    with pytest.raises(CohortError, match=r"FECG-228 column follow_up_days: found 1 of 4 cells unreadable"):
        read_cohort(table)


def test_further_ecgs_of_a_training_patient_may_align_but_none_of_a_patient_who_is_judged_on(
    table: Path,
) -> None:
    cohort = read_cohort(table)  # the patient of rows 0 and 1 trains and aligns
    patient = cohort.patient.copy()
    patient[2] = 8
    told = refusal(replace(cohort, patient=patient))
    assert told.startswith("FECG-224")
    assert "1 patient(s) in more than one part" in told
    assert "train and align count as one" in told


def test_an_unknown_part_is_told_all_four(table: Path) -> None:
    cohort = read_cohort(table)
    told = refusal(replace(cohort, part=np.array(["train", "align", "align", "judged"])))
    assert told.startswith("FECG-223")
    assert "train or validation or test or align" in told
