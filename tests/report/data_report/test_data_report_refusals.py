"""What the data report refuses, told with a code before anything is written; options of ingest, too."""

import re
from pathlib import Path
from typing import Any

import pytest
from data_reports import people, report

from fedecg.cli import main
from fedecg.cohort import Cohort, write_cohort
from fedecg.cohort.cohort_store import write_store_note
from fedecg.config import SignalSettings
from fedecg.signals import SignalStore

WRONG = {
    "an empty folder": ([], "FECG-609 data to report on: found neither site.toml nor store.json nor files"),
    "a cohort of a folder": (
        ["--cohort", "x.csv"],
        "FECG-609 .* found --cohort with a folder that is no store",
    ),
    "a table that is not there": (["--table", "x.csv"], r"FECG-609 .* found --table: no such file"),
    "a low threshold": (["--patients", "1"], "FECG-610 --patients, --events: found 1 and 5"),
    "no threshold": (
        ["--events", "few"],
        "FECG-610 --patients, --events: found no whole number; expected whole",
    ),
    "no processes": (["--jobs", "0"], "FECG-103 --jobs: found 0; expected 1 to 64 processes"),
    "processes that are no number": (
        ["--jobs", "x"],
        "FECG-103 --jobs: found no whole number; expected 1 to 64",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_told(tmp_path: Path, capsys: Any, name: str) -> None:
    options, message = WRONG[name]
    assert report(tmp_path, "--out", tmp_path / "out", *options) == 3
    assert re.search(message, capsys.readouterr().err)


def test_a_table_without_the_columns_and_a_cohort_of_another_store_are_told(
    site: Path, tmp_path: Path, capsys: Any
) -> None:
    table = site / "devices.csv"
    assert report(site, "--out", tmp_path, "--table", table, "--columns", "patient=mrn") == 3
    assert (
        "FECG-609 data to report on: found --table without the columns mrn; expected"
        in capsys.readouterr().err
    )
    cohort = people()
    moved = Cohort(**{**vars(cohort), "record": cohort.record + 1})
    write_cohort(moved, tmp_path / "moved.csv")
    assert report(site / "store", "--cohort", tmp_path / "moved.csv", "--out", tmp_path) == 3
    assert "found 1 rows of the cohort table that the store does not have" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        report(site, "--out", tmp_path, "--table", table, "--columns", "colour=red")
    assert "--columns: expected NAME=COLUMN with a NAME of patient, device" in capsys.readouterr().err


def test_a_cohort_that_was_built_on_another_store_is_refused_though_its_rows_would_fit(
    site: Path, tmp_path: Path, capsys: Any
) -> None:
    write_cohort(people(), tmp_path / "cohort.csv")
    words = ["--cohort", tmp_path / "cohort.csv", "--out", tmp_path / "look"]
    write_store_note(tmp_path / "cohort.csv", "0" * 64)
    assert report(site / "store", *words) == 3
    told = "FECG-292 cohort table and signal store: found a table that was built on another store"
    assert told in capsys.readouterr().err
    assert not (tmp_path / "look").exists()
    write_store_note(tmp_path / "cohort.csv", SignalStore.open(site / "store").key)
    assert report(site / "store", *words) == 0


def test_data_that_are_not_there_are_refused_and_nothing_is_written(tmp_path: Path, capsys: Any) -> None:
    assert report(tmp_path / "nope", "--out", tmp_path / "out") == 3
    found = "neither site.toml nor store.json nor files (1 of 1 names of nothing that is there)"
    assert f"FECG-609 data to report on: found {found}" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        report("", "--out", tmp_path / "out")
    assert "argument DATA: expected a name" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_too_long_to_look_there_is_bad_input(tmp_path: Path, capsys: Any) -> None:
    assert report(tmp_path / ("x" * 300), "--out", tmp_path / "out") == 3
    assert (
        "FECG-609 data to report on: found file name too long; expected a site folder"
        in capsys.readouterr().err
    )
    assert not list(tmp_path.iterdir())


def test_help_of_ingest_states_the_ranges_and_defaults_that_are_asked_for(capsys: Any) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["data", "ingest", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    rate, samples = (
        SignalSettings.model_json_schema()["properties"][name] for name in ("rate-hz", "samples")
    )
    low, high, default = rate["minimum"], rate["maximum"], rate["default"]
    assert f"samples a second, {low} to {high} (default: {default})" in told
    low, high, step, default = (samples[name] for name in ("minimum", "maximum", "multipleOf", "default"))
    assert (
        f"{low} to {high}, a multiple of {step} (default: {default}, at 100 Hz {default / 100:g} s)" in told
    )
    usual = SignalSettings()
    assert f"below --lowpass-hz (default: {usual.highpass_hz:g})" in told
    assert f"below half the rate (default: {usual.lowpass_hz:g})" in told


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--jobs", "65"], ["FECG-103 --jobs: found 65; expected 1 to 64 processes"]),
        (["--jobs", "1.5"], ["FECG-103 --jobs: found no whole number"]),
        (
            ["--rate-hz", "fast", "--samples", "9"],
            ["found 2 problem(s)", "rate-hz: expected", "samples: expected"],
        ),
    ],
    ids=["too many", "a half", "signals"],
)
def test_options_of_ingest_that_cannot_be_are_told_with_a_code_before_anything_is_read(
    tmp_path: Path, capsys: Any, options: list[str], words: list[str]
) -> None:
    assert main(["data", "ingest", str(tmp_path), "--out", str(tmp_path / "store"), *options]) == 3
    told = capsys.readouterr().err
    assert all(word in told for word in words), told
    assert not list(tmp_path.iterdir())
