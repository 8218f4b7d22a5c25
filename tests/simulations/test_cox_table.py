"""`fedecg-simulate cox` and the tables people have: no header, half a file, dates, identifiers, numbers too large."""

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedecg_simulations.cli import main

ROLES = ["--time", "days", "--event", "hf", "--site", "hospital"]


def patients() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "days": rng.integers(1, 900, 200),
            "hf": (rng.random(200) < 0.3).astype(int),
            "hospital": rng.choice(list("abc"), 200),
            "age": rng.normal(60, 10, 200),
            "beats": rng.integers(50, 110, 200),
        }
    )


def write(folder: Path, frame: pd.DataFrame, **how: object) -> str:
    frame.to_csv(folder / "patients.csv", index=False, **how)  # type: ignore[call-overload]
    return str(folder / "patients.csv")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main(["cox", *arguments, "--json"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return json.loads(said.out)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["cox", *arguments]) == 0
    return " ".join(capsys.readouterr().out.split())


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["cox", *arguments]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


def names(result: dict[str, object]) -> list[str]:
    return [row["name"] for row in result["coefficients"]]  # type: ignore[attr-defined]


# ---------------------------------------------------------------- the first line


@pytest.mark.parametrize("separator", [",", ";", "\t", " "])
def test_a_table_without_header_does_not_print_its_first_patient(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], separator: str
) -> None:
    frame = patients().assign(name="Smith", born="1951-04-12")
    said = refused(capsys, write(tmp_path, frame, header=False, sep=separator), *ROLES)
    columns = "7 columns" if separator == "," else "1 column"
    assert (
        f"FECG-254 columns of the table: found 3 absent: days, hf, hospital; expected names of the table's {columns}"
        in said
    )
    assert "not shown: some read like numbers or dates. Is the header missing" in said
    assert "Smith" not in said
    assert "1951" not in said
    assert str(frame["days"][0]) not in said


@pytest.mark.parametrize("cell", ["12.5", "-3", "57,9", "1e5", "nan", "2001-02-03", "3.2.2001", "3/2/01", "12 Mar 2001",
    "Mar 12, 2001", "2001-02-03T10:00", "10:30"])  # fmt: skip
def test_one_name_that_reads_like_a_cell_hides_them_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cell: str
) -> None:
    said = refused(capsys, write(tmp_path, patients().assign(**{cell: "x"})), *ROLES, "--columns", "sex")
    assert "expected names of the table's 6 columns, which are not shown" in said
    assert cell not in said


@pytest.mark.parametrize(
    "name", ["q1", "mar", "t2", "sex (0/1)", "6mwt", "prior, all", "nt-pro-bnp", "age at ECG"]
)
def test_names_are_shown_where_they_are_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    said = refused(capsys, write(tmp_path, patients().assign(**{name: "x"})), *ROLES, "--columns", "sex")
    assert f"found 1 absent: sex; expected names out of days, hf, hospital, age, beats, {name}." in said


# ---------------------------------------------------------------- files that are no table


def test_half_a_compressed_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = gzip.compress(Path(write(tmp_path, patients())).read_bytes())
    (tmp_path / "half.csv.gz").write_bytes(whole[: len(whole) // 2])
    said = refused(capsys, str(tmp_path / "half.csv.gz"), *ROLES)
    assert said.startswith(
        "FECG-239 table: found a file that ends too early; expected a CSV file with a header"
    )
    assert "that the file is whole" in said


@pytest.mark.parametrize("end", ["zip", "gz", "bz2", "xz", "tar"])
def test_a_file_of_another_kind_than_its_name_says_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], end: str
) -> None:
    (tmp_path / f"patients.csv.{end}").write_bytes(b"hello, this is plain text")
    assert refused(capsys, str(tmp_path / f"patients.csv.{end}"), *ROLES).startswith("FECG-239 table: found ")


@pytest.mark.parametrize("columns", ["age\nbeats", "", " ", "age,,beats", "\n"])
def test_columns_that_are_no_line_of_names_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], columns: str
) -> None:
    said = refused(capsys, write(tmp_path, patients()), *ROLES, "--columns", columns)
    assert "FECG-108 --columns: found no line of names, or an empty one; expected A,B,C." in said


# ---------------------------------------------------------------- dates


def dated(folder: Path) -> str:
    frame, day = patients(), pd.Timestamp("2001-01-01")
    length = pd.to_timedelta(frame["days"], "D")
    frame = frame.assign(last_seen=day + length, seen=length, month=(day + length).dt.tz_localize("UTC"))
    frame.to_parquet(folder / "patients.parquet")
    return str(folder / "patients.parquet")


@pytest.mark.parametrize("column", ["last_seen", "seen", "month"])
@pytest.mark.parametrize("option", ["--time", "--event", "--entry", "--columns"])
def test_dates_and_durations_are_not_taken_as_nanoseconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, column: str
) -> None:
    said = refused(capsys, dated(tmp_path), *ROLES, option, column)
    assert f"FECG-260 columns of the table: found 1 of dates or durations: {column}; expected numbers" in said
    assert "2001" not in said


def test_dates_and_durations_that_nobody_asked_for_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(capsys, dated(tmp_path), *ROLES)
    assert names(result) == ["age", "beats"]
    assert result["left-out"] == ["last_seen", "seen", "month"]


# ---------------------------------------------------------------- covariates by default


@pytest.mark.parametrize(
    "name",
    [
        "id",
        "ID",
        "pid",
        "patient_id",
        "patientId",
        "PatientID",
        "recordid",
        "ecg id",
        "MRN",
        "site_id",
        "uuid",
    ],
)
def test_a_column_named_like_an_identifier_is_left_out_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    table = write(tmp_path, patients().assign(**{name: np.arange(200) % 7}))
    result = run(capsys, table, *ROLES)
    assert (names(result), result["identifiers"], result["left-out"]) == (["age", "beats"], [name], [])
    assert f"warning: left out, as they look like identifiers: {name} (--columns takes them)" in printed(
        capsys, table, *ROLES
    )


@pytest.mark.parametrize(
    "name", ["covid", "COVID", "steroid", "lipid", "amyloid", "paid", "valid", "identity", "idh1"]
)
def test_a_word_that_ends_or_begins_like_an_identifier_is_a_covariate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    result = run(capsys, write(tmp_path, patients().assign(**{name: np.arange(200) % 2})), *ROLES)
    assert names(result) == ["age", "beats", name]
    assert result["identifiers"] == []


def test_whole_numbers_that_all_differ_look_like_an_identifier(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    number = 987650000 + np.random.default_rng(1).permutation(200)
    table = write(tmp_path, patients().assign(number=number))
    result = run(capsys, table, *ROLES)
    assert (names(result), result["identifiers"]) == (["age", "beats"], ["number"])
    twice = run(capsys, write(tmp_path, patients().assign(number=np.r_[number[1], number[1:]])), *ROLES)
    assert names(twice) == ["age", "beats", "number"]


def test_few_whole_numbers_or_large_ones_may_differ_and_be_covariates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = patients().head(19).assign(age=np.random.default_rng(2).permutation(19) + 60)
    assert names(run(capsys, write(tmp_path, few), *ROLES)) == ["age", "beats"]
    large = patients().assign(age=lambda rows: rows["age"] * 1e17)
    assert names(run(capsys, write(tmp_path, large), *ROLES)) == ["age", "beats"]


def test_covariates_taken_by_default_are_named_and_those_asked_for_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path, patients().assign(id=range(200)))
    taken = "covariates taken by default, as all other numeric columns: age, beats"
    assert taken in printed(capsys, table, *ROLES)
    assert run(capsys, table, *ROLES)["covariates-by-default"] is True
    asked = run(capsys, table, *ROLES, "--columns", "id,age")
    assert (names(asked), asked["covariates-by-default"], asked["identifiers"]) == (["id", "age"], False, [])
    assert "by default" not in printed(capsys, table, *ROLES, "--columns", "id,age")


def test_a_table_of_identifiers_alone_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write(tmp_path, patients().drop(columns=["age", "beats"]).assign(id=range(200)))
    said = refused(capsys, table, *ROLES)
    assert "found no numeric column beside days, hf, hospital, and what looks like identifiers: id;" in said
    assert "--columns takes any column" in said


# ---------------------------------------------------------------- numbers too large, and what the output says


def test_numbers_beyond_the_range_are_refused_without_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path, patients().assign(age=lambda rows: rows["age"] * 1e300))
    assert (
        "FECG-336 covariates of the Cox model: found 1 of 2 whose squares leave the range of numbers: age"
        in refused(capsys, table, *ROLES)
    )
    table = write(tmp_path, patients())
    assert "FECG-336 penalty of the Cox model" in refused(capsys, table, *ROLES, "--penalty", "1e308")


def test_late_entry_is_said_to_be_unknown_to_the_concordance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path, patients().assign(arrival=0.5))
    note = "the concordance does not know entry times: it compares everybody from day 0"
    assert run(capsys, table, *ROLES, "--entry", "arrival")["concordance-note"] == note
    assert note in printed(capsys, table, *ROLES, "--entry", "arrival")
    assert run(capsys, table, *ROLES, "--columns", "age")["concordance-note"] is None
    assert note not in printed(capsys, table, *ROLES, "--columns", "age")


def test_help_speaks_of_identifiers_and_of_entry_times(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["cox", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "less those that look like identifiers" in said
    assert "the concordance does not know entry times, it compares everybody from day 0" in said


def test_the_time_of_the_proportional_hazards_check_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = run(capsys, write(tmp_path, patients()), *ROLES)["proportional-hazards"]
    assert check["time"] == "1 - Kaplan-Meier just before the event"  # type: ignore[index]
