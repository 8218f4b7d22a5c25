"""Preflight of the site's data: table, ECGs, and whether they belong together."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from site_checks import SECRET, Captured, MakeFolder, agreed, by_name, cohort, recording

from fedecg.codes import CODES
from fedecg.cohort import write_cohort
from fedecg.config import SignalSettings
from fedecg.signals import build_store
from fedecg_client.cli import main
from fedecg_client.pinned import pin
from fedecg_client.preflight.check import Check


def outcome(folder: Path) -> dict[str, Check]:
    from fedecg_client.folder import open_site
    from fedecg_client.preflight import data_checks

    return by_name(data_checks(open_site(folder)))


def test_a_cell_that_cannot_be_read_is_counted_and_never_shown(
    make_folder: MakeFolder, capsys: Captured, tmp_path: Path
) -> None:
    folder = make_folder("127.0.0.1:1")
    table = tmp_path / SECRET / "cohort.csv"
    lines = table.read_text().splitlines()
    for row in (3, 9):
        cells = lines[row].split(",")
        cells[4] = f"{SECRET} days"
        lines[row] = ",".join(cells)
    table.write_text("\n".join(lines) + "\n")
    assert main(["preflight", str(folder), "--share", str(tmp_path / "out.json")]) == 3
    told = "".join(capsys.readouterr())
    assert "FECG-228 column follow_up_days: found 2 of 114 cells unreadable" in told
    rows = "rows 4, 10 of the table, whose header is row 1"  # for whoever mends them at the site, and for nobody else
    assert rows in told
    assert rows in (folder / "state/preflight.json").read_text()
    assert json.loads((tmp_path / "out.json").read_text())["checks"]["cohort"] == "FECG-228"
    assert "row" not in (tmp_path / "out.json").read_text()
    for text in (told.replace(str(tmp_path), ""), (folder / "state/preflight.json").read_text(),
                 (tmp_path / "out.json").read_text()):  # fmt: skip
        assert SECRET not in text


@pytest.mark.parametrize(
    "break_it",
    [
        lambda table: table.unlink(),
        lambda table: (table.unlink(), os.mkfifo(table)),
        lambda table: (table.unlink(), table.mkdir()),
        lambda table: table.write_text(f"{SECRET},x\n1,2\n"),
        lambda table: table.write_bytes(b"\xff\xfe\x00" + SECRET.encode()),
        lambda table: table.write_text(""),
        lambda table: table.write_text(table.read_text().replace('"{""NORM"": 100.0}"', "[" * 90_000, 1)),
        lambda table: table.write_text(table.read_text().replace('"{""NORM"": 100.0}"', f'"{SECRET}"', 1)),
        lambda table: table.write_text(table.read_text() + '"unended' + SECRET * 100_000),
    ],
)
def test_a_hostile_table_is_a_failed_check_without_its_content(
    make_folder: MakeFolder, tmp_path: Path, break_it: Callable[[Path], object]
) -> None:
    folder = make_folder("127.0.0.1:1")
    break_it(tmp_path / SECRET / "cohort.csv")
    checks = outcome(folder)
    assert checks["cohort"].ok is False
    assert checks["cohort"].code in CODES
    assert checks["data"].ok is None
    assert SECRET not in json.dumps([check.__dict__ for check in checks.values()])


@pytest.mark.parametrize(
    ("columns", "code", "found"),
    [
        ({"part": np.repeat(["train"], 114)}, "FECG-665", "no patient in test"),
        ({"part": np.repeat(["test"], 114)}, "FECG-665", "no patient in train"),
        ({"patient": np.repeat(np.arange(57), 2)}, "FECG-231", "30 patients of train with several ECGs"),
    ],
)
def test_a_table_that_would_end_the_first_round_is_told(
    make_folder: MakeFolder, tmp_path: Path, columns: dict[str, Any], code: str, found: str
) -> None:
    folder = make_folder("127.0.0.1:1")
    write_cohort(cohort(**columns), tmp_path / SECRET / "cohort.csv")
    check = outcome(folder)["cohort"]
    assert (check.ok, check.code) == (False, code)
    assert check.found.startswith(found)


def test_a_site_that_only_aligns_may_have_several_ecgs_of_a_patient(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = make_folder("127.0.0.1:1")
    write_cohort(cohort(patient=np.repeat(np.arange(57), 2)), tmp_path / SECRET / "cohort.csv")
    text = (folder / "site.toml").read_text()
    (folder / "site.toml").write_text(re.sub(r"phases = \[.*\]", 'phases = ["align"]', text))
    assert outcome(folder)["cohort"].ok


def test_units_that_look_wrong_are_asked_about(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder("127.0.0.1:1")
    years = cohort(follow_up_days=np.full(114, 6.0), event=np.zeros(114, dtype=bool))
    write_cohort(years, tmp_path / SECRET / "cohort.csv")
    records = [recording(seed, size_mv=1e-3) for seed in range(114)]  # volts, say
    store = build_store(tmp_path / SECRET, "v" * 64, SignalSettings(samples=256), records, powerline="none")
    shutil.rmtree(tmp_path / SECRET / "store")
    store.folder.rename(tmp_path / SECRET / "store")
    checks = outcome(folder)
    assert "is the unit of follow_up_days days?" in checks["cohort"].found
    assert "no event at all" in checks["cohort"].found
    assert checks["store"].ok is False or "is the unit millivolt?" in checks["store"].found


def test_a_table_and_a_store_of_different_builds_are_told(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder("127.0.0.1:1")
    assert outcome(folder)["data"].ok
    write_cohort(cohort(record=np.arange(114) + 1), tmp_path / SECRET / "cohort.csv")
    check = outcome(folder)["data"]
    assert (check.code, check.ok) == ("FECG-232", False)
    assert "1 of 114 records that are not in the signal store" in check.found
    signals = tmp_path / SECRET / "store" / "signals.npy"
    signals.write_bytes(signals.read_bytes()[:-1])
    checks = outcome(folder)
    assert (checks["store"].code, checks["data"].ok) == ("FECG-216", None)


def test_a_store_that_a_joined_study_cannot_use_is_told(make_folder: MakeFolder) -> None:
    folder = make_folder("127.0.0.1:1")
    pin(folder, agreed(signals={"samples": 1024}))
    check = outcome(folder)["data"]
    assert (check.code, check.ok) == ("FECG-327", False)
    pin(folder, agreed(signals={"samples": 256}))
    assert outcome(folder)["data"].found.endswith("and the 1 studies joined")
