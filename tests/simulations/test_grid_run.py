"""Grids that really run: each cell a process, failures recorded, kills survived, finished cells never run again."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tiny_studies import tiny_study

from fedecg.cli import main as fedecg
from fedecg.config import load_study, settings_sha256
from fedecg.errors import SettingsError
from fedecg_simulations.beforehand import starts_sha256
from fedecg_simulations.cli import main
from fedecg_simulations.grid_cells import Outcome, cell_folder, make_room, read_outcome, settle
from fedecg_simulations.grid_plan import Cell, load_grid
from fedecg_simulations.grid_run import check_cells

GRID = """
name = "tiny-grid"
base = "base.toml"
seeds = [100]
[axes.people]
some = {}
nobody = { "data.sites" = { rural = 1 }, "data.test-patients" = 5 }
[report]
baseline = { people = "some" }
"""
ENDLESS = """
name = "endless"
base = "base.toml"
seeds = [100]
[axes.rounds]
short = {}
long = { "survival.rounds" = 100000 }
"""
SOME, NOBODY = "people=some,seed=100", "people=nobody,seed=100"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def grid_file(folder: Path, store: Path, text: str) -> Path:
    (folder / "base.toml").write_text(tiny_study(store))
    (folder / "grid.toml").write_text(text)
    return folder / "grid.toml"


def written(file: Path) -> int:
    return file.stat().st_mtime_ns


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, store: Path) -> tuple[Path, int]:
    """Folder and exit status of a grid of two cells, of which one cannot be trained: it has no events."""
    folder = tmp_path_factory.mktemp("grid")
    file = grid_file(folder, store, GRID)
    return folder, main(["grid", str(file), "--out", str(folder / "out"), "--jobs", "2"])


def cells(folder: Path) -> dict[str, Cell]:
    return {cell.name: cell for cell in load_grid(folder / "grid.toml").cells}


def test_a_failing_cell_is_recorded_and_does_not_stop_the_rest(finished: tuple[Path, int]) -> None:
    folder, status = finished
    assert status == 5
    table = pd.read_parquet(folder / "out" / "table.parquet").set_index("people")
    assert table["status"].to_dict() == {"some": "completed", "nobody": "failed"}
    assert (table.loc["nobody", "code"], table.loc["nobody", "exit"]) == ("FECG-512", 1)
    failure = json.loads((folder / "out" / "cells" / NOBODY / "failed.json").read_text())
    assert failure["message"].startswith("FECG-512 training events: found 0")
    assert (
        "FECG-512 (no training events at any site), exit status 1"
        in (folder / "out" / "summary.md").read_text()
    )


def test_the_table_says_what_the_cells_summary_says(finished: tuple[Path, int]) -> None:
    out = finished[0] / "out"
    summary = json.loads((out / "cells" / SOME / "summary.json").read_text())
    row = pd.read_csv(out / "table.csv").set_index("people").loc["some"]
    assert row["federated.c-index-stratified"] == summary["columns"]["federated"]["c-index-stratified"]
    assert row["true-hazard.c-index"] == summary["columns"]["true-hazard"]["c-index"]
    assert row["test-events"] == summary["test"]["events"]
    assert row["settings-sha256"] == summary["settings-sha256"]
    assert row["code-fingerprint"] == summary["code-fingerprint"]
    assert row["outcomes"] == "simulated"
    assert "Outcomes are simulated." in (out / "summary.md").read_text()


def test_of_a_cell_that_has_ended_only_files_are_kept_and_its_study_can_be_run_by_hand(
    finished: tuple[Path, int],
) -> None:
    for name, cell in cells(finished[0]).items():
        folder = finished[0] / "out" / "cells" / name
        assert not [inside for inside in folder.iterdir() if inside.is_dir()]
        assert settings_sha256(load_study(folder / "study.toml")) == cell.sha256
        assert (folder / "run.log").stat().st_size > 0
    kept = {file.name for file in (finished[0] / "out" / "cells" / SOME).iterdir()}
    assert {"summary.json", "rounds.json", "result.json", "assessment.json"} <= kept


def test_a_cells_page_is_drawn_when_somebody_wants_it(finished: tuple[Path, int]) -> None:
    cell = finished[0] / "out" / "cells" / SOME
    assert not (cell / "report.html").exists()
    assert fedecg(["report", str(cell), "--out", str(finished[0] / "page.html")]) == 0
    assert "SIMULATED" in (finished[0] / "page.html").read_text()


def test_the_next_call_tries_the_failed_cell_again_and_no_other(
    finished: tuple[Path, int], capsys: Any
) -> None:
    folder, _ = finished
    done = folder / "out" / "cells" / SOME / "summary.json"
    failed = folder / "out" / "cells" / NOBODY / "failed.json"
    before, before_failed = written(done), written(failed)
    assert main(["grid", str(folder / "grid.toml"), "--out", str(folder / "out"), "--json"]) == 5
    assert written(done) == before
    assert written(failed) > before_failed
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert (document["grid"], document["outcomes"]) == ("tiny-grid", "simulated")
    assert [row["status"] for row in document["rows"]] == ["completed", "failed"]
    assert "2 cells, 1 finished, 1 failed earlier" in captured.err
    assert f"warning: {NOBODY} failed: FECG-512" in captured.err


def test_a_dry_run_says_how_cells_stand_and_writes_nothing(
    finished: tuple[Path, int], tmp_path: Path, capsys: Any
) -> None:
    file = str(finished[0] / "grid.toml")
    assert main(["grid", file, "--out", str(finished[0] / "out"), "--dry-run"]) == 0
    assert capsys.readouterr().out.split() == ["completed", SOME, "failed", NOBODY]
    assert main(["grid", file, "--out", str(tmp_path / "new"), "--dry-run"]) == 0
    assert capsys.readouterr().out.split() == ["waiting", SOME, "waiting", NOBODY]
    assert not (tmp_path / "new").exists()


def test_a_misspelt_key_is_a_message_and_nothing_runs(store: Path, tmp_path: Path, capsys: Any) -> None:
    file = grid_file(tmp_path, store, GRID.replace("some = {}", 'some = { "survival.ronds" = 1 }'))
    assert main(["grid", str(file), "--out", str(tmp_path / "out")]) == 3
    assert (
        "survival.ronds: unknown key; did you mean rounds? [people=some,seed=100]" in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ('"partition.by" = "iid", "partition.sites" = 1000', "FECG-626 partition: found 210 patients for 1000 sites"),
        ('"federation.quorum" = 3', "FECG-107 federation.quorum: found 3 with 2 virtual"),
        ('"data.source" = "ptbxl"', "FECG-106 data.path: found nothing"),
        ('"federation.algorithm" = "krum"', "FECG-506 updates for krum: found 2 site(s); expected at least 5"),
        ('"align.start" = "nowhere"', "FECG-306 model folder, model.json: found no such file"),
        ('"align.bank" = "nowhere"', "FECG-241 "),
        ('"site-defaults.text" = { encoder = "nowhere", sites = ["mars"] }', "FECG-117 site-defaults"),
    ],
)  # fmt: skip
def test_a_cell_that_cannot_be_is_refused_before_anything_runs(
    overrides: str, said: str, store: Path, tmp_path: Path, capsys: Any
) -> None:
    file = grid_file(tmp_path, store, GRID.replace("some = {}", f"some = {{ {overrides} }}"))
    with pytest.raises(SettingsError, match=r"FECG-114 cells: found 1 that cannot be") as caught:
        check_cells(load_grid(file).cells)
    assert f"{SOME}: {said}" in str(caught.value)
    assert main(["grid", str(file), "--out", str(tmp_path / "out")]) == 3
    assert not (tmp_path / "out").exists()


def test_two_grids_cannot_write_to_one_folder(store: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["grid", str(grid_file(tmp_path, store, GRID)), "--out", str(out)]) == 1
    assert "FECG-605 run folder: found another run" in capsys.readouterr().err


def test_fewer_than_one_job_is_wrong_use(store: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["grid", str(grid_file(tmp_path, store, GRID)), "--jobs", "0"])
    assert caught.value.code == 2


def test_a_cell_that_was_killed_and_one_with_other_settings_have_codes(store: Path, tmp_path: Path) -> None:
    grid_file(tmp_path, store, GRID)
    cell = cells(tmp_path)[SOME]
    make_room(cell, tmp_path)
    folder = cell_folder(cell, tmp_path)
    (folder / "run.log").write_text("warning: 3 of 9 recordings refused: FECG-213\n")
    killed = settle(cell, tmp_path, -9, 1.5)
    assert killed.failure is not None
    assert (killed.status, killed.failure["code"], killed.failure["exit"]) == ("failed", "FECG-631", -9)
    assert "found exit status -9 without a code; expected a finished study" in killed.failure["message"]
    assert read_outcome(cell, tmp_path) == killed
    (folder / "summary.json").write_text('{"settings-sha256": "other", "status": "completed"}')
    other = settle(cell, tmp_path, 0, 1.5)
    assert other.failure is not None
    assert other.failure["message"].startswith(
        "FECG-632 cell: found a summary of other settings than the grid's"
    )
    make_room(cell, tmp_path)
    assert read_outcome(cell, tmp_path).status == "waiting"
    assert [file.name for file in folder.iterdir()] == ["study.toml"]


def test_a_cell_whose_process_never_came_to_its_log_is_a_failed_one(store: Path, tmp_path: Path) -> None:
    grid_file(tmp_path, store, GRID)
    cell = cells(tmp_path)[SOME]
    make_room(cell, tmp_path)
    failure = settle(cell, tmp_path, -9, 0.1).failure
    assert failure is not None
    assert failure["code"] == "FECG-631"


def test_a_changed_grid_keeps_what_was_finished_unless_told_otherwise(
    finished: tuple[Path, int], tmp_path: Path, capsys: Any
) -> None:
    shutil.copytree(finished[0], tmp_path / "copy")
    out, file = tmp_path / "copy" / "out", tmp_path / "copy" / "grid.toml"
    file.write_text(file.read_text().replace("some = {}", 'some = { "survival.rounds" = 2 }'))
    before = (out / "cells" / SOME / "summary.json").read_bytes()
    assert main(["grid", str(file), "--out", str(out), "--dry-run"]) == 0
    assert capsys.readouterr().out.split() == ["changed", SOME, "failed", NOBODY]
    command = ["grid", str(file), "--out", str(out), "--only", "people=some"]
    assert main(command) == 3
    assert "FECG-118 cells: found 1 that were finished with other settings" in capsys.readouterr().err
    assert (out / "cells" / SOME / "summary.json").read_bytes() == before
    assert main([*command, "--replace"]) == 5  # the other one has failed before
    assert json.loads((out / "cells" / SOME / "summary.json").read_text())["rounds"]["survival"] == 2


def test_a_cell_that_began_with_another_model_is_not_taken_for_finished(store: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.json").write_text("{}")
    grid_file(tmp_path, store, GRID.replace("some = {}", f'some = {{ "align.start" = "{model}" }}'))
    cell = cells(tmp_path)[SOME]
    make_room(cell, tmp_path)
    began_with = starts_sha256(cell.settings)
    assert list(began_with) == ["align.start"]
    summary = {"settings-sha256": cell.sha256, "status": "completed", "starts-sha256": began_with}
    (cell_folder(cell, tmp_path) / "summary.json").write_text(json.dumps(summary))
    assert read_outcome(cell, tmp_path).finished
    (model / "model.json").write_text('{"another": "model"}')
    assert read_outcome(cell, tmp_path) == Outcome("waiting", other_settings=True)


def start_endless(
    folder: Path, store: Path, ctrl_c: signal.Handlers = signal.SIG_DFL
) -> subprocess.Popen[str]:
    """A grid whose second cell never ends; returns when that cell is in its rounds."""
    file, out = grid_file(folder, store, ENDLESS), folder / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "fedecg_simulations.cli", "grid", str(file), "--out", str(out)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A job in the background of a script ignores Ctrl-C, and its children inherit that: a terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, ctrl_c),
    )
    deadline = time.monotonic() + 120
    while (
        time.monotonic() < deadline and not (out / "cells" / "rounds=long,seed=100" / "rounds.json").exists()
    ):
        time.sleep(0.1)
    assert process.poll() is None
    return process


def resume_with_an_end(folder: Path, store: Path) -> None:
    """The finished cell is not run again; the one that was killed is."""
    short = folder / "out" / "cells" / "rounds=short,seed=100" / "summary.json"
    before = written(short)
    file = grid_file(folder, store, ENDLESS.replace("100000", "2"))
    assert main(["grid", str(file), "--out", str(folder / "out")]) == 0
    assert written(short) == before
    assert list(pd.read_csv(folder / "out" / "table.csv")["status"]) == ["completed", "completed"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "send", [os.kill, os.killpg], ids=["to the grid alone", "to all, as a terminal does"]
)
def test_ctrl_c_ends_the_grid_and_its_cell_and_the_next_call_goes_on(
    send: Callable[[int, int], None], store: Path, tmp_path: Path
) -> None:
    process = start_endless(tmp_path, store)
    try:
        send(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 1
    assert "FECG-604 run: found an interruption" in errors
    assert "Traceback" not in errors
    out = tmp_path / "out"
    with (out / ".lock").open("w") as lock:  # a cell that still ran would hold it
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert list(pd.read_csv(out / "table.csv")["status"]) == ["completed", "waiting"]
    assert not list(out.rglob("*.part"))
    assert not (out / "cells" / "rounds=long,seed=100" / "failed.json").exists()
    resume_with_an_end(tmp_path, store)


@pytest.mark.slow
def test_a_cell_of_a_grid_in_the_background_is_asked_to_end_and_not_killed(
    store: Path, tmp_path: Path
) -> None:
    process = start_endless(tmp_path, store, signal.SIG_IGN)
    try:
        process.terminate()
        process.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 1
    assert "FECG-604" in (tmp_path / "out" / "cells" / "rounds=long,seed=100" / "run.log").read_text()


@pytest.mark.slow
def test_a_grid_killed_in_mid_cell_goes_on_and_not_beside_a_cell_it_left_behind(
    store: Path, tmp_path: Path, capsys: Any
) -> None:
    process = start_endless(tmp_path, store)
    try:
        process.kill()  # the grid alone, as when memory runs out: its cell lives on
        process.wait(timeout=60)
        assert main(["grid", str(tmp_path / "grid.toml"), "--out", str(tmp_path / "out")]) == 1
        assert "FECG-605 run folder: found another run" in capsys.readouterr().err
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    out = tmp_path / "out"
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the cell is gone
    assert (out / "cells" / "rounds=long,seed=100" / "sites").is_dir()  # half-written
    assert list(pd.read_csv(out / "table.csv")["status"]) == ["completed", "waiting"]
    resume_with_an_end(tmp_path, store)


def test_a_part_of_a_grid_is_listed_and_checked_alone(
    tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other study cannot be: nobody would train there."""
    file = grid_file(tmp_path, store, GRID.replace("rural = 1", "nowhere = 1"))
    command = ["grid", str(file), "--out", str(tmp_path / "out"), "--dry-run"]
    assert main([*command, "--only", "people=some"]) == 0
    assert capsys.readouterr().out.split() == ["waiting", SOME]
    assert main(command) == 3
    assert "FECG-114" in capsys.readouterr().err
    assert main([*command, "--only", "people=many"]) == 3
    assert "FECG-116 --only" in capsys.readouterr().err
