"""The rules of a cohort, a patient for each: who is in, from which ECG, with which outcome."""

import random
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from cohort_hospital import END, HOSPITAL, HTN, SETTINGS, Patient, plain, tables, write_hospital

from fedecg.cohort.build import BuiltCohort, build_cohort
from fedecg.cohort.build_settings import load_cohort_settings
from fedecg.errors import CohortError


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltCohort:
    return build_cohort(load_cohort_settings(write_hospital(tmp_path_factory.mktemp("hospital"))))


def build(
    folder: Path, settings: str = SETTINGS, made: dict[str, list[tuple[str, ...]]] | None = None
) -> BuiltCohort:
    return build_cohort(load_cohort_settings(write_hospital(folder, settings, made)))


def row_of(built: BuiltCohort, name: str) -> tuple[str, int, int, float]:
    row = built.order[name]
    return str(built.file[row]), int(built.event[row]), int(built.died[row]), float(built.follow_up_days[row])


def test_the_hospital_has_thirty_patients() -> None:
    assert len({one.name for one in HOSPITAL}) == len(HOSPITAL) == 30


def test_a_death_after_the_last_contact_is_censored_there_and_counted(
    built: BuiltCohort, tmp_path: Path
) -> None:
    late = HOSPITAL[0]._replace(name="p31", ecgs=[("2020-03-10", "p31")], deaths=["2022-03-11"])
    event = HOSPITAL[1]._replace(name="p32", ecgs=[("2020-03-10", "p32")], deaths=["2023-01-01"])
    more = build(tmp_path, made=tables([*HOSPITAL, late, event]))
    assert row_of(more, "p31") == ("p31", 0, 0, 730.0)
    assert row_of(more, "p32") == ("p32", 1, 0, 365.0)
    note = "1 deaths after the last contact are not counted: censored at that contact"
    assert note in more.flow.notes
    assert not any("after the last contact" in one for one in built.flow.notes)


@pytest.mark.parametrize("patient", HOSPITAL, ids=lambda one: f"{one.name} {one.case}")
def test_each_patient_of_the_hospital_has_the_written_fate(built: BuiltCohort, patient: Patient) -> None:
    if isinstance(patient.expected, str):
        assert built.fates[patient.name] == patient.expected
        assert patient.name not in built.order
    else:
        assert built.fates[patient.name] == "cohort"
        assert row_of(built, patient.name) == patient.expected


def test_the_flow_counts_them(built: BuiltCohort) -> None:
    flow = built.flow
    assert {step.key: step.left for step in flow.steps} == {
        "faults": 5,
        "no-ecg": 0,
        "no-inclusion": 2,
        "inclusion-late": 1,
        "heart-failure-before": 2,
        "heart-failure-on-day": 2,
        "no-follow-up": 3,
    }
    assert (flow.patients, flow.ecgs, flow.cohort) == (30, 33, 15)
    assert (flow.events, flow.died, flow.censored) == (8, 1, 6)
    assert flow.median_follow_up_days == 448.0
    assert "1 rows of the table of ECGs repeat another and were counted once" in flow.notes
    assert "1 patients of the table of diagnoses have no ECG" in flow.notes
    assert "3 patients with an ECG have no row in the table of last contacts" in flow.notes
    assert {(one["code"], one["count"]) for one in flow.faults} == {
        ("FECG-287", 1),  # p23
        ("FECG-290", 1),  # p28
        ("FECG-289", 1),  # p21, p22 and p29: one kind each
    }


def test_age_is_the_difference_of_the_years_and_sex_is_read_in_words(built: BuiltCohort) -> None:
    first, last = built.order["p01"], built.order["p30"]
    assert (built.age_years[first], built.female[first]) == (60.0, 1.0)
    assert np.isnan(built.age_years[last])
    assert built.female[last] == 0.0


def test_the_order_of_rows_changes_nothing(tmp_path: Path, built: BuiltCohort) -> None:
    made = tables(HOSPITAL)
    for number, rows in enumerate(made.values()):
        head, *body = rows
        random.Random(number).shuffle(body)
        rows[:] = [head, *body]
    other = build(tmp_path, made=made)
    for field in fields(built):
        one, two = getattr(built, field.name), getattr(other, field.name)
        if isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, two, err_msg=field.name)
        else:
            assert str(one) == str(two), field.name


def test_the_last_ecg_is_another_choice(tmp_path: Path) -> None:
    other = build(
        tmp_path, SETTINGS.replace('people = "people.csv"', 'people = "people.csv"\nchoose = "last"')
    )
    assert row_of(other, "p06") == ("p06b", 0, 0, 546.0)


def test_wash_out_drops_early_events_and_no_one_else(tmp_path: Path, built: BuiltCohort) -> None:
    washed = build(tmp_path, SETTINGS + "[event]\nwash-out-days = 20\n")
    gone = set(built.order) - set(washed.order)
    assert gone == {"p05", "p26", "p30"}
    assert {washed.fates[name] for name in gone} == {"wash-out"}
    assert all(row_of(washed, name) == row_of(built, name) for name in washed.order)
    assert not washed.entry_days.any()


def test_late_entry_begins_after_the_wash_out(tmp_path: Path) -> None:
    made = tables(HOSPITAL)
    made["deaths.csv"].append(("p01", "2020-03-30"))
    late = build(tmp_path, SETTINGS + '[event]\nwash-out-days = 20\nwash-out = "late-entry"\n', made)
    assert {name for name, fate in late.fates.items() if fate == "wash-out"} == {"p01", "p05", "p26", "p30"}
    assert np.all(late.entry_days == 20)
    assert np.all(late.follow_up_days > 20)


def test_an_inclusion_may_be_limited_to_the_time_just_before(tmp_path: Path) -> None:
    for days, fate in ((101, "cohort"), (100, "inclusion-late")):  # p07b is 101 days after the diagnosis
        recent = build(tmp_path, SETTINGS + f"[include]\nwithin-days = {days}\n")
        assert recent.fates["p01"] == "inclusion-late"
        assert recent.fates["p07"] == fate


def test_the_administrative_end_cuts_follow_up_and_events(tmp_path: Path) -> None:
    ended = build(tmp_path, SETTINGS.replace("[exclude]", 'end-date = "2020-12-31"\n[exclude]'))
    assert row_of(ended, "p02") == ("p02.hea", 0, 0, 296.0)
    assert row_of(ended, "p11") == ("p11", 0, 1, 297.0)  # no last contact: followed until death
    assert row_of(ended, "p05") == ("p05.hea", 1, 0, 1.0)


def test_an_administrative_end_alone_follows_everybody(tmp_path: Path) -> None:
    everybody = SETTINGS.replace('end-table = "contacts.csv"', 'end-date = "2022-03-10"')
    ended = build(tmp_path, everybody)
    assert row_of(ended, "p18") == ("p18", 0, 0, 730.0)
    assert row_of(ended, "p20") == ("p20", 1, 0, 448.0)
    assert row_of(ended, "p11") == ("p11", 0, 1, 297.0)


def test_without_an_inclusion_everybody_with_an_ecg_counts(tmp_path: Path) -> None:
    open_to_all = build(tmp_path, SETTINGS + "[include]\nlists = []\n")
    assert row_of(open_to_all, "p10") == ("p10", 0, 0, 730.0)
    assert row_of(open_to_all, "p07") == ("p07a", 0, 0, 730.0)


def test_codes_of_ones_own_are_a_list_as_well(tmp_path: Path) -> None:
    own = build(tmp_path, SETTINGS + '[include]\nlists = []\nicd-10 = ["E11"]\n')
    assert list(own.order) == ["p10"]
    assert "no diagnosis of own codes" in own.flow.steps[2].text


def test_faults_stop_the_build_all_at_once_and_name_nobody(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"FECG-293 tables of the cohort: found 6 kinds of fault") as caught:
        build(tmp_path, SETTINGS.replace("leave-out", "stop"))
    text = str(caught.value)
    assert (
        "FECG-287 dates of ECGs: found 1 of 33 cells unreadable; expected dates as [columns] dates says"
        in text
    )
    assert "FECG-290 table of deaths: found 1 patients with two days of death; expected one" in text
    for found in (
        "1 ECGs after the patient's death",
        "1 diagnoses on the rules' lists after the patient's death",
        "1 ECGs before the patient's birth",
        "1 diagnoses on the rules' lists before the patient's birth",
    ):
        assert (
            f"FECG-289 dates in the wrong order: found {found}; expected birth, then ECGs and diagnoses"
            in text
        )
    assert 'faults = "leave-out"' in text
    assert not any(word in text for word in ("p2", "2020-13", "2021", "I50", str(tmp_path)))


def test_times_with_an_offset_need_the_hospitals_time_zone(tmp_path: Path) -> None:
    made = tables([one for one in HOSPITAL if one.expected != "faults"])
    settings = SETTINGS.replace('time-zone = "Europe/Berlin"', "").replace("leave-out", "stop")
    with pytest.raises(
        CohortError,
        match=r'FECG-288 dates of ECGs: found 1 of 28 times with an offset .*expected the hospital.*"Europe',
    ):
        build(tmp_path, settings, made)


def test_rows_that_contradict_each_other_are_named_by_kind(tmp_path: Path) -> None:
    made = tables([one for one in HOSPITAL if one.expected != "faults"])
    made["ecgs.csv"] += [("p01", "2020-03-11", "p02.hea"), ("", "2020-03-10", "x"), ("p02", "2020-03-10", "")]
    made["ecgs.csv"] += [("p03", "", "y")]
    made["people.csv"] += [("p01", "1970", "F"), ("p02", "1960", "M"), ("p04", "about 60", "F")]
    made["diagnoses.csv"] += [("p05", "2019-01-01", "I10", "eleven"), ("p06", "", "I10", "10")]
    with pytest.raises(CohortError) as caught:
        build(tmp_path, SETTINGS.replace("leave-out", "stop"), made)
    text = str(caught.value)
    for line in (
        "FECG-290 table of ECGs: found 2 patients with a file that stands there for another patient or another date",
        "FECG-290 table of ECGs: found 1 of 32 rows without a patient",
        "FECG-290 table of ECGs: found 1 ECGs without the name of a file",
        "FECG-287 table of ECGs: found 1 ECGs without a date",
        "FECG-290 table of people: found 1 patients with two dates or years of birth",
        "FECG-290 table of people: found 1 patients with two sexes",
        "FECG-287 birth or age of people: found 1 of 28 cells that are no whole number of years",
        "FECG-287 versions of diagnoses: found 1 codes on the rules' lists whose version is neither 9 nor 10",
        "FECG-287 dates of diagnoses: found 1 diagnoses on the rules' lists without a date",
    ):
        assert line in text


def test_codes_of_the_other_version_are_counted_in_a_note(tmp_path: Path) -> None:
    made = tables(HOSPITAL)
    made["diagnoses.csv"] += [("p10", "2019-01-01", "401.9", "10")]
    other = build(tmp_path, made=made)
    assert other.fates["p10"] == "no-inclusion"
    assert "1 diagnoses look like a code of the other ICD version and were not counted" in other.flow.notes


def month_first(of_40: int) -> dict[str, list[tuple[str, ...]]]:
    """40 patients whose ECGs are dated day first on the 1st to the 28th; of some only the day is above the 12th."""
    days = [13 + at % 16 if at < of_40 else 1 + at % 12 for at in range(40)]
    return tables(
        [
            Patient(f"m{at}", "", [(f"{day:02}.03.2020", f"f{at}")], [HTN], [END], [], "")
            for at, day in enumerate(days)
        ]
    )


def test_dates_read_in_a_wrong_order_are_refused_and_nobody_is_left_out_for_them(tmp_path: Path) -> None:
    """Whose day is below 13 would stay, with another day for the ECG."""
    settings = SETTINGS.replace("[columns]", '[columns]\ndates = "month-first"')
    with pytest.raises(CohortError) as refused:
        build(tmp_path, settings, month_first(21))
    assert str(refused.value) == (
        "FECG-287 dates of ECGs: found 21 of 40 cells unreadable; expected dates as [columns] dates says: iso "
        "2020-03-04, day-first 04.03.2020, month-first 03/04/2020. Say how the dates of the tables are written: dates "
        "in [columns]. Of so many nobody is left out: those that can be read are likely to be read wrongly."
    )
    few = build(tmp_path, settings, month_first(20))
    assert list(few.fates.values()).count("faults") == 20
    right = build(tmp_path, settings.replace("month-first", "day-first"), month_first(21))
    assert list(right.fates.values()).count("cohort") == 40


def test_a_last_contact_or_death_that_nobody_lives_to_is_a_fault_and_may_be_named_as_no_date(
    tmp_path: Path,
) -> None:
    """Taken as a date, 9999-12-31 would make a patient who is followed for 8,000 years without the event."""
    made = tables(
        [
            plain("a", "", expected="")._replace(contacts=["9999-12-31"]),
            plain("b", "", expected="")._replace(deaths=["9999-12-31"]),
            plain("c", "", expected="")._replace(contacts=["2139-03-10"]),
        ]
    )
    with pytest.raises(CohortError) as refused:
        build(tmp_path, SETTINGS.replace("leave-out", "stop"), made)
    far = (
        "found 1 patients with one more than 120 years after their first ECG; expected days that were lived to; name "
        "cells that mean no date: no-date in [columns]"
    )
    assert (f"FECG-289 dates of last contacts: {far}\n  FECG-289 dates of deaths: {far}\n") in str(
        refused.value
    )
    assert build(tmp_path, made=made).fates == {"a": "faults", "b": "faults", "c": "cohort"}
    named = SETTINGS.replace("[columns]", '[columns]\nno-date = ["9999-12-31"]')
    assert build(tmp_path, named, made).fates == {"a": "no-follow-up", "b": "cohort", "c": "cohort"}


def test_a_cohort_of_which_all_rows_are_at_fault_says_which_faults(tmp_path: Path) -> None:
    made = tables([plain(f"n{at}", "", expected="") for at in range(3)])
    made["people.csv"] = [
        made["people.csv"][0],
        *((name, "2030", sex) for name, _, sex in made["people.csv"][1:]),
    ]
    with pytest.raises(CohortError) as refused:
        build(tmp_path, made=made)
    assert (
        "left: rows that cannot be used 3 (rows that cannot be used are FECG-289 dates in the wrong order: 3 ECGs "
        "before the patient's birth" in str(refused.value)
    )


def test_a_cohort_of_nobody_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CohortError,
        match=r"FECG-291 cohort: found 0 patients who meet all rules; left: .*no diagnosis of own codes 25",
    ):
        build(tmp_path, SETTINGS + '[include]\nlists = []\nicd-10 = ["Z99"]\n')
    made = tables(HOSPITAL)
    made["ecgs.csv"] = made["ecgs.csv"][:1]
    with pytest.raises(CohortError, match=r"FECG-291 .*left: nobody, there was no patient"):
        build(tmp_path, made=made)
