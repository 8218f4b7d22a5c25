"""Any table and the files that it names: columns by the study file, real ECGs, and what cannot be used."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedecg.config import DataColumns, DataSettings, load_study
from fedecg.errors import CohortError, SettingsError
from fedecg.signals import read_recording
from fedecg_simulations.cli import main
from fedecg_simulations.table_folder import load_table_folder

NAMES = DataColumns(
    file="ecg", patient="person", event="hf", follow_up_days="days", age_years="age", sex="sex", codes="scp",
    site="hospital", part="",
)  # fmt: skip


def row(person: str, ecg: str, **changes: Any) -> dict[str, Any]:
    """A woman of 60 without an event in 900 days."""
    return {
        "person": person, "ecg": ecg, "hf": 0, "days": 900, "age": 60, "sex": "F", "scp": "", "hospital": "north",
    } | changes  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, data_root: Path) -> Path:
    """Six real ECGs of PTB-XL below a folder, by name."""
    (tmp_path / "set" / "ecgs").mkdir(parents=True)
    source = data_root / "ptbxl" / "records100" / "00000"
    for number, header in enumerate(sorted(source.glob("*.hea"))[:6]):
        stem = f"e{number}"
        text = header.read_text().replace(header.stem, stem)
        (tmp_path / "set" / "ecgs" / f"{stem}.hea").write_text(text)
        (tmp_path / "set" / "ecgs" / f"{stem}.dat").write_bytes(header.with_suffix(".dat").read_bytes())
    return tmp_path / "set"


def write(folder: Path, rows: list[dict[str, Any]], name: str = "table.csv") -> str:
    with (folder / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return name


def some_rows() -> list[dict[str, Any]]:
    return [
        row("a", "ecgs/e0", hf=1, days=120.5, scp="LVH AFIB"),
        row("a", "ecgs/e1"),
        row("b", "ecgs/e2.hea", sex="male", age="", scp='{"NORM": 80}'),
        row("c", "ecgs/e3.dat", hospital="", sex=""),
        row("d", "ecgs/e4", hf=1, days=30),
    ]


def test_columns_are_read_under_their_own_names_and_outcomes_are_observed(folder: Path) -> None:
    dataset = load_table_folder(folder, write(folder, some_rows()), NAMES, seed=0, event_fraction=0.3)
    cohort = dataset.cohort
    assert dataset.outcomes == "observed"
    assert cohort.event.tolist() == [True, False, False, True]
    assert cohort.follow_up_days.tolist() == [120.5, 900.0, 900.0, 30.0]
    np.testing.assert_array_equal(cohort.age_years, [60, np.nan, 60, 60])
    np.testing.assert_array_equal(cohort.female, [1, 0, np.nan, 1])
    assert cohort.codes == ({"LVH": 100.0, "AFIB": 100.0}, {"NORM": 80.0}, {}, {})
    assert dataset.columns["site"].tolist() == ["north", "north", "folder", "north"]
    assert dataset.notes == {"records": 5, "later-ecgs-left-out": 1}
    for number, name in enumerate(("e0", "e2", "e3", "e4")):
        read = dataset.recordings[number]().signal_mv
        np.testing.assert_array_equal(read, read_recording(folder / "ecgs" / name).signal_mv)


def test_without_an_event_column_outcomes_are_simulated_and_parts_may_be_the_tables(folder: Path) -> None:
    parts = ("train", "train", "validation", "test", "test")
    rows = [row(str(number), f"ecgs/e{number}", split=part) for number, part in enumerate(parts)]
    columns = DataColumns(file="ecg", patient="person", part="split", snomed="dx")
    rows = [one | {"dx": "164889003;39732003"} for one in rows]
    dataset = load_table_folder(folder, write(folder, rows), columns, 0, 0.4)
    assert dataset.outcomes == "simulated"
    assert dataset.cohort.part.tolist() == ["train", "train", "validation", "test", "test"]
    assert dataset.cohort.codes[0] == {"AFIB": 100.0}
    assert dataset.folds == {"note": "parts as the table has them"}


def test_parquet_and_gzip_are_tables_too(folder: Path) -> None:
    frame = pd.DataFrame(some_rows()).astype(str)
    frame.to_parquet(folder / "table.parquet", index=False)
    frame.to_csv(folder / "table.tsv.gz", sep="\t", index=False)
    one = load_table_folder(folder, "table.parquet", NAMES, 0, 0.3)
    other = load_table_folder(folder, "table.tsv.gz", NAMES, 0, 0.3)
    assert one.cohort.codes == other.cohort.codes
    assert one.source == other.source


def test_all_cells_that_cannot_be_used_are_counted_at_once(folder: Path) -> None:
    rows = [
        row("a", "ecgs/e0", hf="perhaps", age=300, days=-5),
        row("b", "ecgs/e1", days="long", sex="x"),
        row("c", "", scp="NOPE", days="nan"),
        row("", "ecgs/e3"),
        row("", "ecgs/e4"),
    ]
    with pytest.raises(CohortError) as refused:
        load_table_folder(folder, write(folder, rows), NAMES, 0, 0.3)
    text = str(refused.value)
    assert text.startswith(
        "FECG-629 data.table: found 2 of 5 cells of patient that are blank; "
        "1 of 4 cells of file that are not the name of a file; "
    )
    assert "3 of 4 cells of follow-up-days that are not days, > 0" in text
    for column in ("codes", "age-years", "sex", "event"):
        assert f"1 of 4 cells of {column} that are not" in text
    assert not any(value in text for value in ("perhaps", "300", "NOPE", "long"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"file": "ecg", "patient": "person", "site": "clinic"},
            "FECG-629 data.table: found no column clinic;",
        ),
        ({"file": "ecg", "patient": "who"}, "FECG-629 data.table: found no column who;"),
    ],
)
def test_a_column_that_the_table_lacks_is_named(folder: Path, columns: dict[str, str], message: str) -> None:
    with pytest.raises(CohortError) as refused:
        load_table_folder(folder, write(folder, some_rows()), DataColumns(**columns), 0, 0.3)
    assert str(refused.value).startswith(message)
    assert "data.columns" in refused.value.fix
    assert "COHORT.toml" not in str(refused.value)


def test_a_table_files_and_patients_that_are_not_there_are_counted(folder: Path) -> None:
    with pytest.raises(
        CohortError, match=r"FECG-629 data.table: found a file that cannot be read \(no such file\)"
    ):
        load_table_folder(folder, "none.csv", NAMES, 0, 0.3)
    with pytest.raises(CohortError, match=r"FECG-623 signal files: found 2 of 3 that the table names"):
        load_table_folder(
            folder, write(folder, [row("a", "ecgs/e0"), row("b", "x"), row("c", "y#3")]), NAMES, 0, 0.3
        )
    with pytest.raises(
        CohortError, match=r"FECG-629 data.table: found 1 of 2 cells of patient that are blank"
    ):
        load_table_folder(folder, write(folder, [row("a", "ecgs/e0"), row("", "ecgs/e1")]), NAMES, 0, 0.3)
    simulated = NAMES.model_copy(update={"event": "", "follow_up_days": ""})
    with pytest.raises(CohortError, match=r"FECG-616 data set: found 1 ECG\(s\) that can be used"):
        load_table_folder(folder, write(folder, [row("a", "ecgs/e0")]), simulated, 0, 0.3)


def test_rules_of_cohorts_hold_for_the_tables_numbers(folder: Path) -> None:
    with pytest.raises(
        CohortError, match=r"FECG-222 follow_up_days: found 1 of 2 values that are not in \(0, 43,830\]"
    ):
        load_table_folder(
            folder, write(folder, [row("a", "ecgs/e0", days=50_000), row("b", "ecgs/e1")]), NAMES, 0, 0.3
        )


def test_another_file_is_another_data_set(folder: Path) -> None:
    table = write(folder, some_rows())
    one = load_table_folder(folder, table, NAMES, 0, 0.3).source
    assert load_table_folder(folder, table, NAMES, 0, 0.3).source == one
    (folder / "ecgs" / "e4.hea").write_text((folder / "ecgs" / "e4.hea").read_text() + "# more\n")
    assert load_table_folder(folder, table, NAMES, 0, 0.3).source != one


def test_study_files_say_the_names_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text(
        '[data]\nsource = "folder"\ntable = "t.csv"\n[data.columns]\nfile = "ecg"\nfollow-up-days = "t"\n'
    )
    with pytest.raises(SettingsError, match="expected event with follow-up-days, or neither"):
        load_study(study)
    study.write_text('[data]\nsource = "folder"\n')
    with pytest.raises(SettingsError, match='expected table = "NAME.csv" with source = folder'):
        load_study(study)
    with pytest.raises(ValueError, match="expected died and entry-days only with event"):
        DataColumns(died="dead")
    with pytest.raises(ValueError, match="expected table only with source = folder"):
        DataSettings(source="ptbxl", table="t.csv")


def test_sites_of_a_table_are_sites_of_a_study(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hospitals = ("north", "south") * 3
    rows = [
        row(str(number), f"ecgs/e{number}", hospital=name, split="train")
        for number, name in enumerate(hospitals)
    ]
    write(folder, rows)
    study = tmp_path / "study.toml"
    study.write_text(
        '[data]\nsource = "folder"\ntable = "table.csv"\n[data.columns]\nfile = "ecg"\npatient = "person"\n'
        'event = "hf"\nfollow-up-days = "days"\nsite = "hospital"\npart = "split"\n'
    )
    assert main(["partition", str(study), "--data", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["outcomes"] == "observed"
    assert {one["site"]: one["patients"] for one in told["sites"]} == {"north": 3, "south": 3}


def test_the_study_files_of_the_documentation_are_study_files(tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "datasets.md").read_text()
    written = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert len(written) == 3
    sources = []
    for number, document in enumerate(written):
        study = tmp_path / f"{number}.toml"
        study.write_text(document)
        sources.append(load_study(study).data.source)
    assert sources == ["cinc2021", "mimic-iv-ecg", "folder"]
