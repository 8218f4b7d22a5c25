"""`fedecg-simulate cox`: the pooled result from a table, one JSON document, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from lifelines.datasets import load_rossi
from lifelines.utils import concordance_index

from fedecg_simulations.cli import main

NAMES = ["fin", "age", "race", "wexp", "mar", "paro", "prio"]
ROLES = ["--time", "week", "--event", "arrest", "--site", "hospital"]


def rossi() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    frame = load_rossi().sample(frac=1, random_state=4)
    return frame.assign(
        hospital=rng.choice(["north", "south", "a [b]"], len(frame), p=[0.6, 0.3, 0.1]),
        fold=rng.choice(["train", "test"], len(frame), p=[0.8, 0.2]),
    )


def write(folder: Path, frame: pd.DataFrame) -> str:
    frame.to_csv(folder / "patients.csv", index=False)
    return str(folder / "patients.csv")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main(["cox", *arguments, "--json"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return json.loads(said.out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["cox", *arguments]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


def column(result: dict[str, object], key: str) -> list[float]:
    return [row[key] for row in result["coefficients"]]  # type: ignore[attr-defined]


def test_json_is_the_pooled_result_of_lifelines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = rossi()
    result = run(capsys, write(tmp_path, frame), *ROLES)
    pooled = CoxPHFitter().fit(frame.drop(columns=["hospital", "fold"]), "week", "arrest")
    assert column(result, "name") == NAMES
    assert column(result, "log-hazard-ratio") == pytest.approx(pooled.params_.to_numpy(), rel=1e-6)
    assert column(result, "se") == pytest.approx(pooled.standard_errors_.to_numpy(), rel=1e-6)
    assert column(result, "p") == pytest.approx(pooled.summary["p"].to_numpy(), rel=1e-5)
    assert column(result, "ci-high") == pytest.approx(
        pooled.summary["exp(coef) upper 95%"].to_numpy(), rel=1e-6
    )
    assert result["concordance"] == pytest.approx(pooled.concordance_index_, abs=1e-12)
    assert result["concordance-ci-low"] < result["concordance"] < result["concordance-ci-high"]
    assert result["log-likelihood"] == pytest.approx(pooled.log_likelihood_, rel=1e-9)
    assert result["sites"] == [
        {"site": name, "patients": len(own), "events": int(own["arrest"].sum())}
        for name, own in frame.groupby("hospital")
    ]
    assert (result["patients"], result["events"], result["left-out"]) == (432, 114, ["fold"])
    assert result["gap-to-exact"] is None
    assert "one machine" in result["disclosure"]


def test_strata_penalty_columns_and_ties_reach_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = rossi().rename(columns={"prio": "prior, all"})
    result = run(
        capsys,
        *(write(tmp_path, frame), *ROLES),
        *("--columns", 'age, "prior, all",fin', "--strata", "site", "--penalty", "0.05"),
    )
    names = ["age", "prior, all", "fin"]
    pooled = CoxPHFitter(penalizer=0.05, strata=["hospital"])
    exactly = {"precision": 1e-20, "r_precision": 0.0}  # lifelines stops early otherwise
    pooled.fit(frame[[*names, "week", "arrest", "hospital"]], "week", "arrest", fit_options=exactly)
    assert column(result, "name") == names
    assert column(result, "log-hazard-ratio") == pytest.approx(pooled.params_[names].to_numpy(), rel=1e-9)
    assert result["stratified-concordance"] == pytest.approx(pooled.concordance_index_, abs=1e-12)
    breslow = run(capsys, str(tmp_path / "patients.csv"), *ROLES, "--columns", "age", "--ties", "breslow")
    efron = run(capsys, str(tmp_path / "patients.csv"), *ROLES, "--columns", "age")
    assert column(breslow, "log-hazard-ratio") != column(efron, "log-hazard-ratio")
    assert (breslow["ties"], efron["ties"], result["baseline"]) == ("breslow", "efron", "site")


def test_robust_errors_late_entry_and_parquet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = rossi()
    frame["arrival"] = np.minimum(np.arange(432) % 9, frame["week"] - 1)
    frame.to_parquet(tmp_path / "patients.parquet")
    arguments = (str(tmp_path / "patients.parquet"), *ROLES, "--entry", "arrival")
    model, patient, site = (
        run(capsys, *arguments, *more) for more in ([], ["--robust"], ["--robust", "site"])
    )
    pooled = CoxPHFitter().fit(
        frame.drop(columns=["hospital", "fold"]), "week", "arrest", entry_col="arrival"
    )
    assert column(model, "log-hazard-ratio") == pytest.approx(pooled.params_.to_numpy(), rel=1e-6)
    assert column(model, "log-hazard-ratio") == column(patient, "log-hazard-ratio")
    assert column(model, "se") == pytest.approx(column(patient, "se"), rel=0.3)
    assert column(site, "se") != column(patient, "se")
    assert site["standard-errors"] == "robust, by site"


def test_a_test_part_is_kept_out_of_the_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = rossi()
    result = run(capsys, write(tmp_path, frame), *ROLES, "--test-part", "fold=test")
    training, test = (
        frame[frame["fold"] == part].drop(columns=["hospital", "fold"]) for part in ("train", "test")
    )
    pooled = CoxPHFitter().fit(training, "week", "arrest")
    assert column(result, "log-hazard-ratio") == pytest.approx(pooled.params_.to_numpy(), rel=1e-6)
    risk = pooled.predict_log_partial_hazard(test)
    expected = concordance_index(test["week"], -risk, test["arrest"])
    assert result["test"]["concordance"] == pytest.approx(expected, abs=1e-12)
    assert result["patients"] == len(training)
    assert result["left-out"] == []


def test_a_public_grid_prints_its_gap_to_exact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write(tmp_path, rossi())
    result = run(capsys, table, *ROLES, "--grid", "4")
    assert 0 < result["gap-to-exact"] < 0.5
    assert result["bins"] == 14
    assert main(["cox", table, *ROLES, "--grid", "4"]) == 0
    assert f"gap to the exact grid: {result['gap-to-exact']:.3g} standard errors" in capsys.readouterr().out


def test_fed_tcga_brca_reaches_the_pooled_test_c(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = data_root / "survival" / "fed_tcga_brca"
    if not folder.is_dir():
        pytest.skip("no Fed-TCGA-BRCA in the folder of real data")
    split = pd.read_csv(folder / "train_test_split.csv")
    frame = pd.read_csv(folder / "brca.csv").merge(split, on="pid")
    frame["centre"] = frame["fold2"].str[-1]
    table = write(tmp_path, frame)
    roles = ["--time", "T", "--event", "E", "--site", "centre", "--test-part", "fold=test"]
    result = run(capsys, table, *roles, "--penalty", "0.001")
    assert len(result["coefficients"]) == 39
    assert len(result["sites"]) == 6
    assert result["test"]["concordance"] == pytest.approx(0.8396, abs=5e-5)
    assert result["newton-steps"] == 6


def test_the_printed_tables_name_sites_covariates_and_concordance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [write(tmp_path, rossi()), *ROLES, "--test-part", "fold=test", "--penalty", "0.01"]
    assert main(["cox", *arguments]) == 0
    said = capsys.readouterr().out
    for expected in (
        "a [b]",
        "north",
        "HR (95 % CI)",
        "prio",
        "concordance of the test part: 0.",
        "Newton steps",
    ):
        assert expected in said
    assert "with a penalty coefficients are pulled to 0" in said
    assert "such sums tell single patients' covariates" in " ".join(said.split())


def test_infinite_figures_are_null_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.DataFrame({"t": [1, 1, 2], "e": [1, 1, 0], "s": "a", "x": [1e-4, 0, 0]})
    table = write(tmp_path, frame)
    result = run(capsys, table, "--time", "t", "--event", "e", "--site", "s")
    assert result["coefficients"][0]["ci-high"] is None
    assert result["coefficients"][0]["proportional-hazards-p"] is None
    assert main(["cox", table, "--time", "t", "--event", "e", "--site", "s"]) == 0
    assert "∞" in capsys.readouterr().out


def test_a_robust_error_that_vanishes_is_a_dash_and_null(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Two sites of the same patients: their residuals are equal and add up to 0.
    frame = pd.concat([rossi().assign(hospital=name) for name in ("a", "b")])
    arguments = [write(tmp_path, frame), *ROLES, "--columns", "age", "--robust", "site"]
    (age,) = run(capsys, *arguments)["coefficients"]
    assert (age["se"], age["p"], age["ci-low"]) == (None, None, None)
    assert main(["cox", *arguments]) == 0
    assert "(–––)" in capsys.readouterr().out


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("content", [None, "", "a,b\n", 'a,b\n"1,2\n3'])
def test_an_unreadable_or_empty_table_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    if content is not None:
        (tmp_path / "patients.csv").write_text(content)
    said = refused(capsys, str(tmp_path / "patients.csv"), *ROLES)
    assert said.startswith("FECG-239 table: found ")
    assert str(tmp_path) not in said


def test_a_table_of_another_encoding_or_format_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "patients.csv").write_bytes("name\nMüller\n".encode("latin-1"))
    assert "FECG-239 table: found text that is not UTF-8" in refused(
        capsys, str(tmp_path / "patients.csv"), *ROLES
    )
    (tmp_path / "patients.parquet").write_text("no parquet")
    assert "FECG-239" in refused(capsys, str(tmp_path / "patients.parquet"), *ROLES)


def test_absent_columns_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write(tmp_path, rossi())
    roles = ["--time", "days", "--event", "arrest", "--site", "hospital"]
    said = refused(capsys, table, *roles, "--columns", "age,sex")
    assert (
        "FECG-254 columns of the table: found 2 absent: days, sex; expected names out of week, arrest" in said
    )


def test_a_column_of_two_roles_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, write(tmp_path, rossi()), *ROLES, "--columns", "age,week")
    assert "FECG-254 columns of the table: found 1 asked for more than once: week" in said


def test_a_table_without_numeric_covariates_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path, rossi()[["week", "arrest", "hospital", "fold"]])
    assert "FECG-254 covariates: found no numeric column beside week, arrest" in refused(
        capsys, table, *ROLES
    )


def spoilt(name: str, value: object, rows: int) -> pd.DataFrame:
    frame = rossi().astype({name: object})
    frame.iloc[:rows, frame.columns.get_loc(name)] = value
    return frame


def test_missing_covariates_are_counted_by_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = spoilt("age", None, 3)
    frame["prio"] = frame["prio"].astype(float)
    frame.iloc[5, frame.columns.get_loc("prio")] = np.inf
    said = refused(capsys, write(tmp_path, frame), *ROLES)
    assert (
        "FECG-255 covariates: found missing values or values that are not numbers, of 432 patients: " in said
    )
    assert "age 3, prio 1; expected a finite number in every row." in said


def test_text_in_a_covariate_that_was_asked_for_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path, spoilt("age", "ninety-nine", 2))
    said = refused(capsys, table, *ROLES, "--columns", "age,prio")
    assert "FECG-255" in said
    assert "age 2;" in said
    assert "ninety" not in said


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("week", -777, "FECG-256 week: found 4 of 432 values that are negative, missing or no numbers"),
        ("week", None, "FECG-256 week: found 4 of 432 values that are negative, missing or no numbers"),
        ("arrest", 777, "FECG-257 arrest: found 4 of 432 values that are neither 0 nor 1; expected 0 or 1"),
        ("arrest", None, "FECG-257 arrest: found 4 of 432 values that are neither 0 nor 1"),
        (
            "hospital",
            None,
            "FECG-258 hospital: found 4 of 432 values that are missing; expected a site's label",
        ),
    ],
)
def test_bad_cells_are_counted_and_never_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, value: object, message: str
) -> None:
    said = refused(capsys, write(tmp_path, spoilt(name, value, 4)), *ROLES)
    assert message in said
    assert "777" not in said


def test_entry_after_the_follow_up_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = rossi()
    frame["arrival"] = np.where(np.arange(432) < 5, frame["week"], 0)
    said = refused(capsys, write(tmp_path, frame), *ROLES, "--entry", "arrival")
    assert "FECG-259 arrival: found 5 of 432 values that are no days from 0 to before week" in said


def test_a_fit_that_cannot_be_is_refused_with_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = rossi().assign(years=lambda rows: rows["age"] * 2)
    assert "FECG-333" in refused(capsys, write(tmp_path, frame), *ROLES)
    assert "over age, years;" in refused(capsys, write(tmp_path, frame), *ROLES)
    assert "FECG-331" in refused(capsys, write(tmp_path, rossi().assign(arrest=0)), *ROLES)
    assert "FECG-332" in refused(capsys, write(tmp_path, rossi().assign(race=1)), *ROLES)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--penalty", "-1"], "FECG-108 --penalty: found a negative or infinite number"),
        (["--penalty", "nan"], "FECG-108 --penalty: found a negative or infinite number"),
        (["--grid", "0"], "FECG-108 --grid: found no width of a bin; expected exact, or days > 0"),
        (["--grid", "monthly"], "FECG-108 --grid: found no width of a bin"),
        (["--grid", "0.0001"], "FECG-108 --grid: found 520,000 bins up to the longest follow-up"),
        (["--test-part", "fold"], "FECG-109 --test-part: found no column and value; expected COL=VALUE"),
        (["--test-part", "fold=none"], "FECG-109 --test-part: found 0 of 432 rows with that value in fold"),
    ],
)
def test_options_out_of_range_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str], message: str
) -> None:
    assert message in refused(capsys, write(tmp_path, rossi()), *ROLES, *option)


def test_errors_clustered_by_a_single_site_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path, rossi().assign(hospital="one"))
    assert "FECG-108 --robust site: found 1 site; expected several" in refused(
        capsys, table, *ROLES, "--robust", "site"
    )


def test_follow_up_of_0_days_is_legal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = rossi()
    frame.iloc[:3, frame.columns.get_loc("week")] = 0
    result = run(capsys, write(tmp_path, frame), *ROLES)
    pooled = CoxPHFitter().fit(frame.drop(columns=["hospital", "fold"]), "week", "arrest")
    assert column(result, "log-hazard-ratio") == pytest.approx(pooled.params_.to_numpy(), rel=1e-6)


def test_help_says_what_each_option_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["cox", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert stopped.value.code == 0
    assert "days to the event or the last contact" in said
    assert "ridge, scaled as lifelines' penalizer (default: 0)" in said
