"""A study that tests its model's attention: the same bytes twice, whatever the order of its sites."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_studies import tiny_study

from fedecg.explanation.verdicts import read_verdicts
from fedecg.model import load_model
from fedecg.model.package import check_package
from fedecg_simulations.cli import main

SITES = {"city": 60, "coast": 40, "rural": 2}


def run(folder: Path, sites: dict[str, int] = SITES, *overrides: str) -> Path:
    """Run the study; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "study.toml"
    tested = {"explain": True, "explain-ecgs": 12}
    store = folder.parent / "store"
    file.write_text(tiny_study(store, name="explained", seed=100, data={"sites": sites}, evaluation=tested))
    arguments = ["run", str(file), "--out", str(folder / "out")]
    assert main([*arguments, "--set", *overrides] if overrides else arguments) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("explained") / "first")


def test_a_study_says_whether_its_attention_is_true(first: Path) -> None:
    entry: dict[str, Any] = json.loads((first / "explanation.json").read_text())
    assert [verdict["test"] for verdict in entry["verdicts"]] == [
        "weight randomisation",
        "weight randomisation",
        "deletion",
        "insertion",
        "lead occlusion",
        "stability over seeds",
        "stability over seeds",
    ]
    assert max(entry["sites"].values()) == 12
    assert entry["sites"]["rural"] == 0  # fewer than ten test patients
    assert all(verdict["tested"] for verdict in entry["verdicts"])
    assert {"high risk", "low risk"} & set(entry["groups"])
    summary = json.loads((first / "summary.json").read_text())
    assert summary["explanation"]["verdicts"] == entry["verdicts"]
    assert "moved" not in summary["explanation"]["occlusion"]
    page = (first / "report.html").read_text()
    assert "<h2>Is the attention true?</h2>" in page
    assert "Not tested, too few patients (below 10): rural." in page
    stages = {entry["stage"] for entry in json.loads((first / "rounds.json").read_text())}
    assert stages == {"survival", "validation", "survival, seed 1", "validation, seed 1"}


def test_the_model_knows_what_its_tests_found(first: Path) -> None:
    assert "explanation.json" in check_package(first / "model")
    verdicts = read_verdicts(first / "model", load_model(first / "model").weights_sha256)
    assert verdicts is not None
    assert verdicts.captions == json.loads((first / "explanation.json").read_text())["captions"]


def test_a_second_run_with_the_sites_in_another_order_gives_the_same_bytes(first: Path) -> None:
    again = run(first.parent.parent / "again", {"rural": 2, "city": 60, "coast": 40})
    assert (again / "explanation.json").read_bytes() == (first / "explanation.json").read_bytes()


def test_an_earlier_explanation_is_not_taken_for_that_of_a_run_that_has_none(first: Path) -> None:
    folder = first.parent.parent / "without"
    (folder / "out").mkdir(parents=True)
    shutil.copy(first / "explanation.json", folder / "out")
    out = run(folder, SITES, "evaluation.explain=false")
    assert not (out / "explanation.json").exists()
    assert json.loads((out / "summary.json").read_text())["explanation"] is None
    assert not (out / "model" / "explanation.json").exists()
    page = " ".join((out / "report.html").read_text().split())
    assert "<h2>Is the attention true?</h2> <p>Not tested: this study did not ask its sites" in page
