"""The paper's rules on real tables: the MIMIC-IV clinical demo, counted a second time by a pandas script that shares no
code with the builder. The demo has no ECGs: here every patient's first admission stands for one.
"""

import gzip
import json
import os
from pathlib import Path

import pandas as pd
import pytest

from fedecg.cli import main

DATA = (
    Path(os.environ.get("FEDECG_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "mimic_iv_demo"
)
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="needs the MIMIC-IV clinical demo (FEDECG_TEST_DATA)"
)

COHORT = """
[rules]
base = "{base}"
[ecgs]
table = "ecgs.parquet"
people = "{data}/patients.csv"
[diagnoses]
table = "diagnoses.csv.gz"
admissions = "{data}/admissions.csv"
[follow-up]
end-table = "{data}/admissions.csv"
death-table = "{data}/patients.csv"
[columns]
diagnoses = {{ patient = "subject_id", admission = "hadm_id", code = "icd_code", version = "icd_version" }}
admissions = {{ patient = "subject_id", admission = "hadm_id", admitted = "admittime", discharged = "dischtime" }}
follow-up = {{ patient = "subject_id", date = "dischtime" }}
deaths = {{ patient = "subject_id", date = "dod" }}
people = {{ patient = "subject_id", age = "anchor_age", age-year = "anchor_year", sex = "gender" }}
"""
HEART_FAILURE = (
    r"^(?:I50|I110|I130|I132|I0981)",
    r"^(?:428|39891|402[019]1|404[019][13])",
)
INCLUSION = {
    "paper-hyp": (r"^I1[0-5]", r"^40[1-5]"),
    "paper-mi": (r"^(?:I2[12]|I252)", r"^(?:410|412)"),
}


def of(diagnoses: pd.DataFrame, patterns: tuple[str, str]) -> pd.DataFrame:
    """Rows whose code fits the pattern of its version."""
    ten = (diagnoses.icd_version == 10) & diagnoses.icd_code.str.match(patterns[0])
    return diagnoses[ten | (diagnoses.icd_version == 9) & diagnoses.icd_code.str.match(patterns[1])]


def counted(base: str) -> dict[str, int | float]:
    """The same cohort by joins and groups."""
    admissions = pd.read_csv(DATA / "admissions.csv", parse_dates=["admittime", "dischtime"])
    codes = pd.read_csv(DATA / "diagnoses_icd.csv", dtype={"icd_code": str})
    diagnoses = codes.merge(admissions[["hadm_id", "admittime"]], on="hadm_id")
    diagnoses["day"] = diagnoses.admittime.dt.normalize()
    person = pd.read_csv(DATA / "patients.csv", parse_dates=["dod"]).set_index("subject_id")
    person["ecg"] = admissions.groupby("subject_id").admittime.min()
    person["end"] = admissions.groupby("subject_id").dischtime.max()
    person["ecg_day"] = person.ecg.dt.normalize()
    person["included"] = of(diagnoses, INCLUSION[base]).groupby("subject_id").day.min()
    failure = of(diagnoses, HEART_FAILURE).merge(person[["ecg_day"]], left_on="subject_id", right_index=True)
    person["first_failure"] = failure.groupby("subject_id").day.min()
    person["event"] = failure[failure.day > failure.ecg_day].groupby("subject_id").admittime.min()
    left = {"no-inclusion": person.included.isna()}
    left["inclusion-late"] = person.included > person.ecg_day
    left["heart-failure-before"] = person.first_failure < person.ecg_day
    left["heart-failure-on-day"] = person.first_failure == person.ecg_day
    left["no-follow-up"] = person.end <= person.ecg
    counts: dict[str, int | float] = {}
    for key, rule in left.items():
        leaves = rule.reindex(person.index)
        counts[key] = int(leaves.sum())
        person = person[~leaves]
    return counts | outcomes(person)


def outcomes(person: pd.DataFrame) -> dict[str, int | float]:
    """Events, deaths before them, and days, of those who remain."""
    event = person.event.notna() & (person.event <= person.end)
    died = ~event & person.dod.notna() & (person.dod <= person.end.dt.normalize())
    until = person.end.where(~event, person.event)
    days = (until - person.ecg) / pd.Timedelta(days=1)
    by_date = (person.dod - person.ecg_day) / pd.Timedelta(days=1)
    days = days.where(~died, by_date)
    return {
        "cohort": len(person),
        "events": int(event.sum()),
        "died": int(died.sum()),
        "days": float(days.sum()),
        "median": float(days.median()),
        "age": float((person.anchor_age + person.ecg.dt.year - person.anchor_year).sum()),
        "female": int((person.gender == "F").sum()),
    }


@pytest.mark.parametrize(
    ("base", "expected"), [("paper-hyp", (52, 9, 6)), ("paper-mi", (6, 1, 1))], ids=["hyp", "mi"]
)
def test_the_papers_rules_on_mimic_give_what_pandas_counts(
    base: str, expected: tuple[int, int, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    admissions = pd.read_csv(DATA / "admissions.csv", parse_dates=["admittime"])
    first = admissions.sort_values("admittime").groupby("subject_id").head(1)
    ecgs = pd.DataFrame(
        {"patient": first.subject_id, "date": first.admittime, "file": first.hadm_id.astype(str)}
    )
    ecgs.to_parquet(tmp_path / "ecgs.parquet", index=False)
    (tmp_path / "diagnoses.csv.gz").write_bytes(gzip.compress((DATA / "diagnoses_icd.csv").read_bytes()))
    (tmp_path / "cohort.toml").write_text(COHORT.format(base=base, data=DATA))
    out = tmp_path / "out"
    assert main(["cohort", "build", str(tmp_path / "cohort.toml"), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    script = counted(base)
    left = {step["key"]: step["left"] for step in told["steps"]}
    assert {key: left[key] for key in script if key in left} == {
        key: script[key] for key in script if key in left
    }
    assert len(set(script) & set(left)) == 5
    assert (told["cohort"], told["events"], told["died"]) == expected
    assert (script["cohort"], script["events"], script["died"]) == expected
    table = pd.read_csv(out / "fold-1" / "cohort-files.csv")
    assert table.follow_up_days.sum() == pytest.approx(script["days"], abs=1e-6)
    assert told["median_follow_up_days"] == pytest.approx(script["median"])
    assert table.age_years.sum() == script["age"]
    assert table.female.sum() == script["female"]
    assert (table.event.sum(), table.died.sum()) == expected[1:]
    other = pd.read_csv(out / "fold-2" / "cohort-files.csv")
    assert not set(table[table.part == "test"].patient) & set(other[other.part == "test"].patient)
    for name in ("flow.pdf", "flow.svg", "outside/flow.pdf"):
        assert (out / name).stat().st_size > 2000
