"""COHORT.toml: strict, all problems at once, rule sets of the package below one's own keys."""

import os
from pathlib import Path

import pytest

from fedecg.cohort.build_rules import rules_in_words
from fedecg.cohort.build_settings import RULE_SETS, RULES, CohortSettings, load_cohort_settings
from fedecg.errors import SettingsError

LEAST = """
[ecgs]
table = "ecgs.csv"
[diagnoses]
table = "/data/diagnoses.csv"
[follow-up]
end-date = "2024-06-30"
"""
EVENT = '[event]\nlists = ["heart-failure"]\n'


def load(folder: Path, text: str) -> CohortSettings:
    file = folder / "cohort.toml"
    file.write_text(text)
    return load_cohort_settings(file)


def test_the_rule_sets_are_the_files_of_the_package() -> None:
    assert {file.stem for file in RULES.glob("*.toml")} == set(RULE_SETS)


@pytest.mark.parametrize(
    ("base", "lists"), [("paper-hyp", ["hypertension"]), ("paper-mi", ["myocardial-infarction"])]
)
def test_a_rule_set_needs_tables_only_and_says_its_rules(base: str, lists: list[str], tmp_path: Path) -> None:
    settings = load(tmp_path, f'[rules]\nbase = "{base}"\n' + LEAST)
    assert settings.include.lists == lists
    assert settings.exclude.lists == settings.event.lists == ["heart-failure"]
    assert (settings.split.folds, settings.split.validation, settings.ecgs.choose) == (2, 0.1, "first")
    words = "\n".join(rules_in_words(settings))
    assert f"rule set: {base}" in words
    assert "event: the first after the day of the ECG, heart failure (ICD-10 I50 I11.0" in words
    assert "test each of 2 folds in turn, validation 10% of all" in words


def test_ones_own_keys_win_over_the_rule_set(tmp_path: Path) -> None:
    text = (
        '[rules]\nbase = "paper-hyp"\n'
        + LEAST
        + '[include]\nicd-10 = ["I10"]\n[split]\ntest = 0.3\nseed = 5\n'
    )
    settings = load(tmp_path, text)
    assert settings.include.lists == ["hypertension"]
    assert settings.include.icd_10 == ["I10"]
    assert (settings.split.folds, settings.split.test, settings.split.seed) == (0, 0.3, 5)


def test_paths_start_from_the_folder_of_the_file(tmp_path: Path) -> None:
    settings = load(tmp_path, LEAST + EVENT)
    assert settings.ecgs.table == str(tmp_path / "ecgs.csv")
    assert settings.diagnoses.table == "/data/diagnoses.csv"
    assert settings.ecgs.people == settings.follow_up.death_table == ""


def test_every_problem_is_listed_at_once(tmp_path: Path) -> None:
    text = """
[rules]
base = "paper"
[ecgs]
tabel = "x"
[diagnoses]
table = "d.csv"
version = 10
[follow-up]
death-table = "x.csv"
[include]
lists = ["high-blood-pressure"]
icd-10 = ["I10-I5", "I15-I10"]
[event]
wash-out-days = -1
[columns]
time-zone = "Mars/Olympus"
people = { age = "age" }
[split]
validation = 0.5
test = 0.5
"""
    with pytest.raises(SettingsError, match=r"FECG-103 cohort\.toml: found 12 problem\(s\)") as caught:
        load(tmp_path, text)
    assert caught.value.expected == "keys and ranges as fedecg cohort build --help shows them"
    for words in (
        "rules.base:",
        "ecgs.table: key is missing",
        "ecgs.tabel: unknown key",
        "diagnoses.version:",
        "expected end-table, end-date or both: deaths alone do not say how long the living were seen",
        "include.lists.0: expected one of heart-failure, heart-failure-quan, hypertension",
        'include.icd-10.0: expected a code ("I50", "402.01") or a range of codes of one length',
        "include.icd-10.1:",
        "event.wash-out-days:",
        'columns.time-zone: expected the name of a time zone, such as "Europe/Berlin"',
        "expected age with age-year (an age at the ECG belongs into columns.ecgs)",
        "expected validation and test to leave some to train",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("[event]\nlists = []\n", "expected lists, icd-9 or icd-10"),
        (EVENT + "[split]\nfolds = 1\n", "expected folds = 0, or at least 2"),
        (EVENT + "[split]\nfolds = 3\ntest = 0.2\n", "expected test or folds, not both"),
        (
            EVENT + '[columns.people]\nbirth-date = "a"\nbirth-year = "b"\n',
            "expected one of birth-date, birth-year and age",
        ),
        (EVENT + "[rules]\nbase = 3\n", "rules.base"),
        (EVENT.replace("]\n", "]\nwash-out = 'ignore'\n", 1), "event.wash-out"),
    ],
)
def test_rules_that_contradict_each_other_are_refused(more: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="FECG-103") as caught:
        load(tmp_path, LEAST + more)
    assert words in str(caught.value)


def test_an_end_date_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"FECG-103 .*\s+follow-up\.end-date"):
        load(tmp_path, LEAST.replace("2024-06-30", "30.06.2024") + EVENT)


def test_a_date_without_quotes_is_taken_as_it_stands_and_one_with_a_time_is_not(tmp_path: Path) -> None:
    unquoted = (
        LEAST.replace('"2024-06-30"', "2024-06-30") + EVENT + "[columns]\nno-date = [1900-01-01, '0']\n"
    )
    settings = load(tmp_path, unquoted)
    assert settings.follow_up.end_date == "2024-06-30"
    assert settings.columns.no_date == ["1900-01-01", "0"]
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, LEAST.replace('"2024-06-30"', "2024-06-30T00:00:00") + EVENT)
    assert 'follow-up.end-date: expected a date without a time, such as "2024-06-30"' in str(caught.value)


def test_a_file_of_windows_is_read_and_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "w.toml").write_bytes(("\ufeff" + (LEAST + EVENT).replace("\n", "\r\n")).encode())
    assert load_cohort_settings(tmp_path / "w.toml").follow_up.end_date == "2024-06-30"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SettingsError, match=r"FECG-285 COHORT\.toml: found a pipe or device, not a file"):
        load_cohort_settings(tmp_path / "pipe")


def test_the_key_of_the_patients_numbers_starts_from_the_folder_of_the_file(tmp_path: Path) -> None:
    settings = load(tmp_path, LEAST + EVENT + '[patients]\nkey = "../safe/numbers.key"\n')
    assert settings.patients.key == str(tmp_path / "../safe/numbers.key")
    assert load(tmp_path, LEAST + EVENT).patients.key == ""


def test_a_missing_file_and_one_that_is_no_toml_have_a_code(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"FECG-285 COHORT\.toml: found no such file; expected a TOML"
    ) as caught:
        load_cohort_settings(tmp_path / "smith.toml")
    assert "smith" not in str(caught.value)
    with pytest.raises(
        SettingsError, match=r"FECG-285 COHORT\.toml: found text that is not TOML \(at line 2, column 5\)"
    ):
        load(tmp_path, "[ecgs]\na = = 1\n")
