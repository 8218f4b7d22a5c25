"""An outside hospital evaluates a model on its own record files and a table of outcomes: no store, no study's table."""

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fedecg
from fedecg.cli import main
from fedecg.cohort import Cohort
from fedecg.config import ModelSettings, SignalSettings
from fedecg.errors import CohortError, ModelError
from fedecg.model import BaselineFile, build_network, save_model
from fedecg.prediction.outside import evaluate_outside
from fedecg.prediction.own_patients import patients_of_table
from fedecg.signals import Recording, SignalStore

WriteRecord = Callable[..., Path]
Row = dict[str, object]


@pytest.fixture(scope="module")
def model(model_folder: Path):
    return fedecg.load(model_folder)


def write_table(path: Path, rows: list[Row]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def rows(cohort: Cohort, recordings: list[Recording], write_record: WriteRecord) -> list[Row]:
    """The hospital's own table: names for patients, files in its folder, nothing of a study."""
    return [
        {
            "patient": f"a/{number}",
            "file": write_record(recording, f"r{number}").name,
            "event": int(cohort.event[number]),
            "follow_up_days": float(cohort.follow_up_days[number]),
        }
        for number, recording in enumerate(recordings)
    ]


def test_files_and_a_store_of_the_same_ecgs_give_the_same_figures(
    model, rows: list[Row], tmp_path: Path, make_site: Callable[..., Path]
) -> None:
    own = evaluate_outside(model, write_table(tmp_path / "own.csv", rows), records=tmp_path)
    of_store = evaluate_outside(model, make_site())
    assert own.site == "this-hospital"
    assert own.document["concordance"] == pytest.approx(of_store.document["concordance"], nan_ok=True)
    assert own.expected == pytest.approx(of_store.expected, abs=1e-5)
    assert own.left_out == {}


def test_a_store_with_the_hospitals_own_table(
    model, rows: list[Row], store: SignalStore, tmp_path: Path, make_site: Callable[..., Path]
) -> None:
    table = [{**row, "record": number} for number, row in enumerate(rows)]
    own = evaluate_outside(model, write_table(tmp_path / "own.csv", table), store=store.folder)
    assert own.expected == pytest.approx(evaluate_outside(model, make_site()).expected)


def test_a_table_that_was_built_on_another_store_is_refused(
    model, rows: list[Row], store: SignalStore, tmp_path: Path, make_site: Callable[..., Path]
) -> None:
    table = [{**row, "record": number} for number, row in enumerate(rows)]
    own, site = write_table(tmp_path / "own.csv", table), make_site()
    for note in (own.with_suffix(".json"), site / "cohort.json"):
        note.write_text('{"store-key": "of other files"}')
    found = "FECG-292 cohort table and signal store: found a table that was built on another store"
    with pytest.raises(CohortError, match=found):
        evaluate_outside(model, own, store=store.folder)
    with pytest.raises(CohortError, match=found):
        evaluate_outside(model, site)


def test_a_record_that_cannot_be_used_leaves_its_patient_out_by_code_and_is_exit_status_5(
    model_folder: Path, rows: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "r3.dat"
    data.write_bytes(data.read_bytes()[:1000])
    rows[7]["file"] = "smith-1960"
    table = str(write_table(tmp_path / "own.csv", rows))
    assert main(["evaluate", str(model_folder), table, "--records", str(tmp_path), "--json"]) == 5
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert document["left-out"] == {"FECG-201": 1, "FECG-205": 1}
    assert document["concordance"]["patients"] == 38
    assert "1 of 40 patients left out: FECG-201 record missing" in told.err
    assert "smith" not in told.err + told.out


def test_only_records_that_cannot_be_used_are_exit_status_3(
    model_folder: Path, rows: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = str(write_table(tmp_path / "own.csv", rows))
    assert main(["evaluate", str(model_folder), table, "--records", str(tmp_path / "nowhere")]) == 3
    assert "FECG-266 patients to evaluate: found 40 patients, none of whom" in capsys.readouterr().err


def test_a_part_age_sex_and_death_are_read_where_the_table_has_them(
    model, rows: list[Row], tmp_path: Path
) -> None:
    for number, row in enumerate(rows):
        row |= {"part": "train" if number % 2 else "test", "age_years": 30 + number, "female": ""}
        row["died"] = int(number % 5 == 1 and not row["event"])
    table = write_table(tmp_path / "own.csv", rows)
    found = patients_of_table(model, table, "test", records=tmp_path)
    assert found.cohort.age_years.tolist() == list(range(30, 70, 2))
    assert np.isnan(found.cohort.female).all()
    assert evaluate_outside(model, table, records=tmp_path).document["deaths"] > 0


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("event", "yes", "FECG-269 column event: found 1 of 40 cells unreadable; expected 0 or 1"),
        ("event", "2", "FECG-269 column event: found 1 of 40"),
        ("follow_up_days", "", "FECG-269 column follow_up_days: found 1 of 40"),
        ("follow_up_days", "-3", "FECG-222 follow_up_days: found 1 of 40 values that are not in (0, 43,830]"),
        ("patient", "", "FECG-269 column patient: found 1 of 40"),
        ("patient", "a/1", "FECG-267 records to evaluate: found 1 of 40"),
    ],
)
def test_a_cell_that_cannot_be_is_counted_and_never_shown(
    model, rows: list[Row], tmp_path: Path, column: str, value: str, message: str
) -> None:
    rows[0][column] = value
    with pytest.raises(CohortError) as refused:
        evaluate_outside(model, write_table(tmp_path / "own.csv", rows), records=tmp_path)
    assert str(refused.value).startswith(message)


def test_a_table_without_a_column_uneven_or_absent_is_refused(model, rows: list[Row], tmp_path: Path) -> None:
    without = [{key: value for key, value in row.items() if key != "file"} for row in rows]
    table = write_table(tmp_path / "own.csv", without)
    with pytest.raises(
        CohortError, match=r"FECG-268 COHORT: found 1 column\(s\) missing: file; expected a csv"
    ):
        evaluate_outside(model, table, records=tmp_path)
    with pytest.raises(
        CohortError, match="FECG-268 COHORT: found a table, and neither --records nor --store"
    ):
        evaluate_outside(model, table)
    table.write_text("patient,file,event,follow_up_days\n1,a\n")
    with pytest.raises(CohortError, match="FECG-268 COHORT: found 1 of 1 rows with more or fewer cells"):
        evaluate_outside(model, table, records=tmp_path)
    with pytest.raises(
        CohortError, match=r"FECG-268 COHORT: found a file that cannot be read \(no such file\)"
    ):
        evaluate_outside(model, tmp_path / "absent.csv", records=tmp_path)


def test_records_and_a_store_at_once_are_wrong_use(
    model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        main(["evaluate", str(model_folder), "c.csv", "--records", "a", "--store", "b"])
    assert done.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err


def test_a_store_of_other_signals_names_the_way_without_one(
    model, rows: list[Row], recordings: list[Recording], tmp_path: Path
) -> None:
    from fedecg.signals import build_store

    other = build_store(
        tmp_path / "other",
        "q" * 64,
        SignalSettings(samples=256, highpass_hz=1.0),
        recordings,
        powerline="none",
    )
    table = write_table(tmp_path / "own.csv", [{**row, "record": at} for at, row in enumerate(rows)])
    with pytest.raises(ModelError, match="FECG-350 .* or name the files with --records"):
        evaluate_outside(model, table, store=other.folder)


def test_real_ecgs_with_simulated_outcomes_are_evaluated_and_recalibrated_to(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """PTB-XL's own WFDB files; whether and when an event came is drawn, and belongs to nobody."""
    folder = data_root / "ptbxl" / "records100"
    files = sorted(folder.rglob("*.hea"))[:40]
    if len(files) < 40:
        pytest.skip("no PTB-XL records at 100 Hz")
    draw = random.Random(5)
    table = write_table(
        tmp_path / "cohort.csv",
        [
            {
                "patient": number,
                "file": file.relative_to(folder).with_suffix(""),
                "event": int(draw.random() < 0.4),
                "follow_up_days": draw.randint(30, 1500),
            }
            for number, file in enumerate(files)
        ]
        + [{"patient": 99, "file": "00000/absent", "event": 0, "follow_up_days": 90}],
    )
    signals = SignalSettings()
    baseline = BaselineFile(
        edges_days=[0.0, 200.0, 1500.0], cumulative_hazard=[0.0, 0.1, 0.4], variance=[0.0, 0.001, 0.01]
    )
    network = build_network(ModelSettings(size="small"), signals.samples, 8, seed=3)
    save_model(tmp_path / "model", network, signals, "", baseline)
    own = tmp_path / "own"
    command = ["evaluate", str(tmp_path / "model"), str(table), "--records", str(folder)]
    assert main([*command, "--recalibrate", str(own)]) == 5
    told = capsys.readouterr()
    assert "40 patients" in told.out
    assert "1 of 41 patients left out: FECG-201" in told.err
    model = fedecg.load(own)
    again = evaluate_outside(model, table, records=folder)
    assert again.expected == pytest.approx(again.observed)
