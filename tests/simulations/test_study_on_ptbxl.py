"""Real records of PTB-XL through the command line, whole ones and damaged ones."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedecg_simulations.cli import main

ROOT = Path(__file__).resolve().parents[2]
SHORT = [
    "signals.samples=256", "align.rounds=1", "align.local-steps=2", "survival.rounds=2", "survival.local-steps=2",
    "evaluation.comparison=false", "evaluation.bootstrap=0", "evaluation.explain=false",
]  # fmt: skip


@pytest.fixture
def damaged(data_root: Path, tmp_path: Path) -> tuple[Path, list[str]]:
    """A copy of the excerpt, and the record names of four patients with one ECG each, from its training folds."""
    folder = tmp_path / "ptbxl"
    shutil.copytree(data_root / "ptbxl", folder, ignore=shutil.ignore_patterns("records500"))
    table = pd.read_csv(folder / "ptbxl_database.csv")
    single = table[~table["patient_id"].duplicated(keep=False) & (table["strat_fold"] < 7)]
    return folder, [str(name) for name in single["filename_lr"].head(4)]


def run(data: Path, out: Path) -> int:
    config = str(ROOT / "configs" / "ptbxl.toml")
    store = f"data.store={out.parent / 'store'}"
    return main(["run", config, "--data", str(data), "--out", str(out), "--set", store, *SHORT])


def read(out: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


def test_all_four_sites_take_part_and_folds_that_stand_in_are_named(data_root: Path, tmp_path: Path) -> None:
    assert run(data_root / "ptbxl", tmp_path / "out") == 0
    summary = read(tmp_path / "out")
    assert [site["name"] for site in summary["sites"]] == ["site-0", "site-1", "site-2", "site-3"]
    assert summary["outcomes"] == "simulated"
    assert "stand in" in summary["folds"]["note"]
    assert "SIMULATED" in (tmp_path / "out" / "report.html").read_text()
    events, patients = (sum(site[key] for site in summary["sites"]) for key in ("events", "patients"))
    assert 0.25 < events / patients < 0.35


def test_damaged_records_are_refused_counted_and_the_rest_go_on(
    damaged: tuple[Path, list[str]], tmp_path: Path, capsys: Any
) -> None:
    folder, (truncated, not_a_number, eleven_leads, flat) = damaged
    signal = folder / f"{truncated}.dat"
    signal.write_bytes(signal.read_bytes()[:1000])
    (folder / f"{not_a_number}.dat").write_bytes(np.full(12000, -32768, dtype="<i2").tobytes())
    _forget_checksums(folder / f"{not_a_number}.hea")
    header = folder / f"{eleven_leads}.hea"
    header.write_text(header.read_text().replace(" V6", " X9"))
    (folder / f"{flat}.dat").write_bytes(bytes(24000))
    _forget_checksums(folder / f"{flat}.hea")
    assert run(folder, tmp_path / "out") == 0
    messages = capsys.readouterr().err
    assert messages.count("recordings refused") >= 3
    for name in damaged[1]:
        assert Path(name).name not in messages
    assert sum(site["patients"] for site in read(tmp_path / "out")["sites"]) == 339 - 4
    assert sum(read(tmp_path / "out")["refused-recordings"].values()) == 4


def test_a_header_without_its_signal_file_is_said_before_anything_is_computed(
    damaged: tuple[Path, list[str]], tmp_path: Path, capsys: Any
) -> None:
    folder, names = damaged
    (folder / f"{names[0]}.dat").unlink()
    assert run(folder, tmp_path / "out") == 3
    assert "FECG-623 signal files: found 1 of 339 records" in capsys.readouterr().err
    assert not (tmp_path / "out" / "summary.json").exists()


def test_a_folder_that_is_not_ptbxl_is_said(tmp_path: Path, capsys: Any) -> None:
    assert run(tmp_path, tmp_path / "out") == 3
    assert "FECG-621 ptbxl_database.csv" in capsys.readouterr().err


def test_no_folder_at_all_names_the_option(capsys: Any) -> None:
    assert main(["run", str(ROOT / "configs" / "ptbxl.toml")]) == 3
    message = capsys.readouterr().err
    assert "FECG-106 data.path: found nothing" in message
    assert "--data PATH" in message


def _forget_checksums(header: Path) -> None:
    """A stated checksum of 0 counts as not stated."""
    lines = header.read_text().splitlines()
    words = [line.split() for line in lines]
    changed = [
        " ".join([*w[:6], "0", *w[7:]]) if len(w) >= 9 else line for w, line in zip(words, lines, strict=True)
    ]
    header.write_text("\n".join(changed) + "\n")
