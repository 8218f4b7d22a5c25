"""What ECGs are said to show, from a column of the hospital's table to the cohort that alignment learns from."""

import ast
import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cohort_hospital import HOSPITAL, SETTINGS, tables, write_hospital

from fedecg.cli import main
from fedecg.cohort import read_cohort
from fedecg.cohort.build_faults import Faults
from fedecg.cohort.build_statements import read_statements
from fedecg.cohort.build_tables import read_table
from fedecg.errors import CohortError
from fedecg_simulations.own_cohort import load_own_cohort

WITH_CODES = SETTINGS.replace("[columns]", '[columns]\necgs = { codes = "scp" }', 1)
CELLS = {
    '{"LVH": 100, "NORM": 0}': {"LVH": 100.0, "NORM": 0.0},
    "{'NORM': 100.0, 'SR': 0.0}": {"NORM": 100.0, "SR": 0.0},
    "LVH; AFIB": {"LVH": 100.0, "AFIB": 100.0},
    "164889003|426783006": {"164889003": 100.0, "426783006": 100.0},
    "3AVB": {"3AVB": 100.0},
    "": {},
    "NULL": {},
}
NO_CODES = {
    "sinus rhythm, left axis",
    '{"LVH": 101}',
    '{"LVH": -1}',
    '{"LVH": "much"}',
    '{"LVH": NaN}',
    '["LVH"]',
    "{'LVH': 100",
    "{LVH}",
    '{"left axis": 100}',
    "LVH;;AFIB",
    "{" * 3000,
    "LVH;" * 3000 + "LVH",
    "__import__('os')",
}


def read(folder: Path, cells: list[str]) -> tuple[list[dict[str, float]], Faults]:
    with (folder / "ecgs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("who", "scp"), *((f"p{row}", cell) for row, cell in enumerate(cells))])
    faults = Faults()
    table = read_table(folder / "ecgs.csv", "ECGs", {"patient": "who", "codes": "scp"})
    return list(read_statements(table, faults)), faults


def test_objects_lists_and_blanks_are_read(tmp_path: Path) -> None:
    said, faults = read(tmp_path, list(CELLS))
    assert said == list(CELLS.values())
    assert faults.found == []


@pytest.mark.parametrize("cell", NO_CODES)
def test_a_cell_that_is_no_codes_is_a_fault_of_its_patient(cell: str, tmp_path: Path) -> None:
    said, faults = read(tmp_path, ["LVH", cell])
    assert said == [{"LVH": 100.0}, {}]
    assert faults.patients == {"p1"}
    with pytest.raises(
        CohortError,
        match=r'FECG-287 codes of ECGs: found 1 of 2 cells that are no codes; expected \{"LVH": 100, "NORM": 0\} with',
    ) as refused:
        faults.refuse()
    assert cell[:20] not in str(refused.value)


def with_codes(folder: Path) -> Path:
    """The hospital of thirty; p01 has hypertrophy, p06's second ECG is normal and its first is not."""
    made = tables(HOSPITAL)
    said = {"p01.hea": '"{""LVH"": 100, ""SR"": 0}"', "p06a": "AFIB;LVH", "p06b": "NORM"}
    made["ecgs.csv"] = [
        (*made["ecgs.csv"][0], "scp"),
        *((*row, said.get(row[2], "")) for row in made["ecgs.csv"][1:]),
    ]
    return write_hospital(folder, WITH_CODES, made)


def test_the_index_ecgs_codes_are_in_the_table_and_a_study_in_one_place_reads_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cohort", "build", str(with_codes(tmp_path)), "--out", str(tmp_path / "out")]) == 0
    assert "statements: 2 of 15 index ECGs have codes" in " ".join(capsys.readouterr().err.split())
    with (tmp_path / "out/cohort-files.csv").open(newline="") as file:
        said = {row["file"]: row["codes"] for row in csv.DictReader(file)}
    assert json.loads(said["p01.hea"]) == {"LVH": 100.0, "SR": 0.0}
    assert json.loads(said["p06a"]) == {"AFIB": 100.0, "LVH": 100.0}  # the index ECG's, not the later one's
    assert {cell for file, cell in said.items() if file not in ("p01.hea", "p06a")} == {""}
    cohort = load_own_cohort(tmp_path / "out/cohort-files.csv").cohort
    assert sorted(map(sorted, filter(None, cohort.codes))) == [["AFIB", "LVH"], ["LVH", "SR"]]


def test_a_study_in_one_place_reads_older_tables_and_refuses_codes_that_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cohort", "build", str(with_codes(tmp_path)), "--out", str(tmp_path / "out")]) == 0
    table = pd.read_csv(tmp_path / "out/cohort-files.csv")
    table.drop(columns="codes").to_csv(tmp_path / "older.csv", index=False)
    assert not any(load_own_cohort(tmp_path / "older.csv").cohort.codes)
    table.assign(codes="[1]").to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(
        CohortError, match=r"FECG-622 cohort-files\.csv: found cells of codes that are no JSON object"
    ):
        load_own_cohort(tmp_path / "other.csv")


def test_ptbxls_own_column_goes_into_a_cohort_with_a_store(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Published statements of 30 ECGs; the outcomes are invented here."""
    published = pd.read_csv(data_root / "ptbxl" / "ptbxl_database.csv").drop_duplicates("patient_id").head(30)
    records = [str(data_root / "ptbxl" / name) for name in published.filename_lr]
    assert main(["data", "ingest", *records, "--out", str(tmp_path / "store"), "--jobs", "1"]) == 0
    published.assign(date="2020-01-01").to_csv(tmp_path / "ecgs.csv", index=False)
    diagnoses = ["patient,date,code,version"]
    for number, patient in enumerate(published.patient_id):
        diagnoses += [f"{patient:.0f},2019-01-01,I10,10"] + [f"{patient:.0f},2021-01-01,I50.0,10"] * (
            number % 2
        )
    (tmp_path / "diagnoses.csv").write_text("\n".join(diagnoses) + "\n")
    (tmp_path / "cohort.toml").write_text(
        '[rules]\nbase = "paper-hyp"\n[ecgs]\ntable = "ecgs.parquet"\nstore = "store"\n'
        '[diagnoses]\ntable = "diagnoses.csv"\n[follow-up]\nend-date = 2022-01-01\n[split]\ntest = 0.2\n'
        '[columns]\necgs = { patient = "patient_id", file = "filename_lr", codes = "scp_codes" }\n'
    )
    pd.read_csv(tmp_path / "ecgs.csv").to_parquet(tmp_path / "ecgs.parquet")
    assert main(["cohort", "build", str(tmp_path / "cohort.toml"), "--out", str(tmp_path / "out")]) == 0
    cohort = read_cohort(tmp_path / "out/cohort.csv")
    wanted = [ast.literal_eval(cell) for cell in published.scp_codes]
    assert sorted(map(repr, cohort.codes)) == sorted(map(repr, wanted))
    assert np.all(cohort.event.sum() == 15)
    assert "statements: 30 of 30 index ECGs have codes" in " ".join(capsys.readouterr().err.split())
