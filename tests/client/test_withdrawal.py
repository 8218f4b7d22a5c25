"""Who withdraws is in nothing from the next task on, the store forgets them; a few changed patients are noticed."""

from __future__ import annotations

import io
import json
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from asking import join, lock_of, said, study, task_of, train
from killed_app import SECTIONS
from prepared_site import first_weights, many_events, prepared_site

from fedecg.codes import CODES
from fedecg.cohort import read_cohort
from fedecg.errors import PolicyError
from fedecg.federation.tasks import Failure, TrainReply
from fedecg.privacy.withdrawal import admit_cohort, read_site_cohort, withdraw, withdrawn_state
from fedecg.signals import SignalStore
from fedecg.signals.purge import PURGED, purge_rows
from fedecg_client.cli import main

STUDY = study(**{**SECTIONS, "align": {"local-steps": 1, "batch-size": 16}})
LOCK = lock_of(STUDY)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with the usual thresholds."""
    return many_events(prepared_site(tmp_path_factory.mktemp("prepared"), STUDY, 120, tested=20, privacy=""))


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return first_weights(STUDY)


@pytest.fixture
def north(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "north"))


def learned(folder: Path, weights: np.ndarray, number: int = 1) -> str:
    return said(train(folder, task_of(LOCK, round=number), weights))


def some_of_train(folder: Path, number: int) -> list[str]:
    cohort = read_cohort(folder / "cohort.csv")
    return [str(patient) for patient in cohort.patient[cohort.part == "train"][:number]]


def written(folder: Path, names: list[str]) -> Path:
    file = folder.parent / "patients.txt"
    file.write_text("# who withdrew in November\n\n" + "\n".join(names) + "\n")
    return file


def test_they_are_in_nothing_from_the_next_task_on(
    north: Path, weights: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    join(north, LOCK)
    before = TrainReply.model_validate_json(learned(north, weights))
    gone = some_of_train(north, 3)
    assert main(["withdraw", str(north), str(written(north, gone)), "--yes"]) == 0
    told = capsys.readouterr().out
    assert "3 patients are named; 3 of them are in the table, with 3 ECGs" in told
    assert (
        "They are fewer than 10: whoever has this site's plain sums from before and after can subtract"
        in told
    )
    assert not any(name in told.split() for name in gone if len(name) > 1)
    after = TrainReply.model_validate_json(learned(north, weights))  # the kept reply of before does not go
    assert after.patients == before.patients - 3
    assert TrainReply.model_validate_json(learned(north, weights, 2)).patients == after.patients
    assert json.loads(join(north, LOCK))["parts"]["train"]["patients"] == after.patients


def test_their_signals_are_overwritten_and_the_store_stays_whole(north: Path) -> None:
    cohort = read_cohort(north / "cohort.csv")
    rows = cohort.record[:2]
    kept = SignalStore.open(north / "store").batch(cohort.record[2:9])
    assert SignalStore.open(north / "store").batch(rows).any()
    names = [str(patient) for patient in cohort.patient[:2]]
    assert main(["withdraw", str(north), str(written(north, names)), "--yes"]) == 0
    store = SignalStore.open(north / "store")
    assert not store.batch(rows).any()
    assert [store.codes[row] for row in rows] == [PURGED, PURGED]
    assert PURGED in CODES
    assert np.array_equal(store.batch(cohort.record[2:9]), kept)
    assert purge_rows(north / "store", rows.tolist()) == 0  # once is enough


def test_a_note_stands_in_the_record_and_no_name_anywhere(
    north: Path, weights: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    table = (north / "cohort.csv").read_text().splitlines()
    fields = table[1].split(",")
    named = [
        ",".join([row.split(",")[0], f"hospital-{row.split(',')[1]}", *row.split(",")[2:]])
        for row in table[1:]
    ]
    (north / "cohort.csv").write_text("\n".join([table[0], *named]) + "\n")
    name = f"hospital-{fields[1]}"
    join(north, LOCK)
    assert main(["withdraw", str(north), str(written(north, [name])), "--yes"]) == 0
    learned(north, weights)
    assert main(["egress", str(north)]) == 0
    shown = capsys.readouterr().out
    assert "1 patients withdrew, 1 of those named are in the table" in shown
    for file in (north / "state").rglob("*"):
        if file.is_file():
            assert name.encode() not in file.read_bytes(), file
    for file in ("withdrawn.json", "patients.key", "released-cohorts.json"):
        assert stat.S_IMODE((north / "state" / file).stat().st_mode) == 0o600


def test_nothing_happens_without_a_yes_or_without_a_patient(
    north: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("no\n"))
    assert main(["withdraw", str(north), str(written(north, some_of_train(north, 1)))]) == 1
    assert withdrawn_state(north) == (0, 0)
    assert main(["withdraw", str(north), str(written(north, []))]) == 4
    assert (
        "FECG-451 patients who withdraw: found no patient in it; expected a text file"
        in capsys.readouterr().err
    )
    assert main(["withdraw", str(north), str(north / "none.txt")]) == 4
    assert "found no such file" in capsys.readouterr().err


def test_who_is_not_in_the_table_yet_is_left_out_when_he_comes(north: Path) -> None:
    withdraw(north, ["987654"])
    rows = (north / "cohort.csv").read_text().splitlines()
    unused = len(SignalStore.open(north / "store"))
    cells = rows[1].split(",")
    (north / "cohort.csv").write_text(
        "\n".join([*rows, ",".join([str(unused), "987654", *cells[2:]])]) + "\n"
    )
    assert len(read_site_cohort(north, north / "cohort.csv")) == len(rows) - 1


def test_who_has_withdrawn_stays_out_when_a_spreadsheet_writes_the_numbers_otherwise(
    north: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = some_of_train(north, 3)
    padded = [f"00{name}" for name in gone]
    assert main(["withdraw", str(north), str(written(north, padded)), "--yes"]) == 0
    assert "3 patients are named; 3 of them are in the table" in capsys.readouterr().out
    table = north / "cohort.csv"
    whole = read_cohort(table)
    before = read_site_cohort(north, table)
    assert len(whole) - len(before) == 3
    header, *lines = table.read_text().splitlines()
    at = header.split(",").index("patient")
    rows = [line.split(",", at + 1) for line in lines]
    table.write_text(
        "\n".join([header, *(",".join([*row[:at], row[at] + ".0", *row[at + 1 :]]) for row in rows)])
    )
    assert len(read_site_cohort(north, table)) == len(before)


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b"\xff"])
def test_a_list_that_cannot_be_read_stops_the_site(north: Path, damage: bytes) -> None:
    withdraw(north, some_of_train(north, 1))
    (north / "state/withdrawn.json").write_bytes(damage)
    assert Failure.model_validate_json(join(north, LOCK)).failed == "FECG-450"


def test_without_the_key_nobody_is_forgotten_in_silence(north: Path) -> None:
    withdraw(north, some_of_train(north, 1))
    (north / "state/patients.key").unlink()
    with pytest.raises(PolicyError, match=r"FECG-450 patients.key in the site's state folder: found no key"):
        read_site_cohort(north, north / "cohort.csv")


def test_a_table_that_changes_by_a_few_patients_is_refused_and_by_many_is_not(
    north: Path, weights: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    join(north, LOCK)
    first = TrainReply.model_validate_json(learned(north, weights))
    whole = (north / "cohort.csv").read_text().splitlines()
    train_rows = [row for row in whole if ",train," in row]

    def without(number: int) -> None:
        kept = [row for row in whole if row not in train_rows[:number]]
        (north / "cohort.csv").write_text("\n".join(kept) + "\n")

    without(4)
    assert Failure.model_validate_json(learned(north, weights)).failed == "FECG-452"
    assert (
        "FECG-452 train part of the cohort: found a set of patients that differs by fewer than 10 from 1 of which sums"
        in caplog.text
    )
    without(0)
    assert TrainReply.model_validate_json(learned(north, weights)).patients == first.patients
    without(12)
    assert TrainReply.model_validate_json(learned(north, weights)).patients == first.patients - 12
    without(15)  # only three fewer than a released one
    assert Failure.model_validate_json(learned(north, weights)).failed == "FECG-452"


def alive(names: Iterable[str]) -> dict[str, str]:
    """The same of each."""
    return dict.fromkeys(names, "no event")


def test_who_has_withdrawn_does_not_count_as_a_difference(tmp_path: Path) -> None:
    everybody = [str(number) for number in range(40)]
    admit_cohort(tmp_path, {"train": alive(everybody)}, 10)
    withdraw(tmp_path, everybody[:3])
    admit_cohort(tmp_path, {"train": alive(everybody[3:])}, 10)
    with pytest.raises(PolicyError, match="FECG-452"):
        admit_cohort(tmp_path, {"train": alive(everybody[4:])}, 10)
    with pytest.raises(PolicyError, match="FECG-452"):
        admit_cohort(tmp_path, {"train": alive([*everybody[3:], "new"])}, 10)
    admit_cohort(tmp_path, {"train": alive([*everybody[3:], *map(str, range(100, 110))])}, 10)


def test_an_outcome_that_changed_counts_as_a_difference_of_its_patient(tmp_path: Path) -> None:
    everybody = alive(map(str, range(40)))
    admit_cohort(tmp_path, {"train": everybody}, 10)
    for changed in (1, 9):
        dead = dict.fromkeys(list(everybody)[:changed], "event on day 200")
        with pytest.raises(PolicyError, match="FECG-452"):
            admit_cohort(tmp_path, {"train": {**everybody, **dead}}, 10)
    admit_cohort(tmp_path, {"train": {**everybody, **dict.fromkeys(map(str, range(10)), "event")}}, 10)
    kept = (tmp_path / "state/released-cohorts.json").read_text()
    assert "event" not in kept
    withdraw(tmp_path, ["11"])
    admit_cohort(tmp_path, {"train": {name: told for name, told in everybody.items() if name != "11"}}, 10)


def test_a_table_in_which_one_patient_has_had_the_event_meanwhile_is_refused(tmp_path: Path) -> None:
    """Else the events of two replies differ by that patient's."""
    site = many_events(prepared_site(tmp_path, STUDY, patients=200, tested=40, privacy=""))
    lock = lock_of(STUDY)
    assert "parts" in json.loads(join(site, lock))
    table = site / "cohort.csv"
    lines = table.read_text().splitlines()
    at = lines[0].split(",").index("event")
    here = next(
        number for number, line in enumerate(lines) if ",train," in line and line.split(",")[at] == "0"
    )
    cells = lines[here].split(",")
    changed = ",".join([*cells[:at], "1", *cells[at + 1 :]])
    table.write_text("\n".join([*lines[:here], changed, *lines[here + 1 :]]) + "\n")
    assert json.loads(join(site, lock))["failed"] == "FECG-452"
    table.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")  # as it was, in another order
    assert "parts" in json.loads(join(site, lock))


def test_a_table_that_changes_by_one_patient_is_refused_though_all_numbers_are_written_otherwise(
    tmp_path: Path,
) -> None:
    told = {str(number): "[0.0, 100.0]" for number in range(40)}
    admit_cohort(tmp_path, {"train": told}, 10)
    padded = {f"{int(name):05d}": counted for name, counted in told.items()}
    admit_cohort(tmp_path, {"train": padded}, 10)  # the same
    padded["00007"] = "[1.0, 80.0]"
    with pytest.raises(PolicyError, match="FECG-452"):
        admit_cohort(tmp_path, {"train": padded}, 10)
