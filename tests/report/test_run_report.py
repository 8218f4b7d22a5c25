"""`fedecg report`: the pages of a run folder, of a simulation and of a coordinator who has only what left the sites."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from fedecg.cli import main
from fedecg.config import StudySettings
from fedecg.report.run import read_run

Entry = dict[str, Any]


@pytest.fixture
def run(tmp_path: Path, rounds: list[Entry], assessment: Entry, summary: Entry) -> Path:
    """What a coordinator's run leaves."""
    folder = tmp_path / "run"
    (folder / "model").mkdir(parents=True)
    result = {
        "status": "completed-partial",
        "sites": [
            {"name": site["name"], "patients": site["patients"], "events": site["events"],
             "parts": {"train": {"patients": site["train"], "events": 3}}}
            for site in summary["sites"]
        ],
        "rounds": {"align": 4, "survival": 12},
        "best-round": 9,
        "evaluation": {"test": {"global": 0.7, "lower": 0.69, "upper": 0.71, "few-events": False}},
        "bytes-per-round": 5_140_000.0,
        "seconds": {"align": 2.0},
        "code-fingerprint": "3f0c" * 16,
        "settings-sha256": "9be1" * 16,
    }  # fmt: skip
    files = {"result.json": result, "rounds.json": rounds, "assessment.json": assessment}
    files["model/model.json"] = {"weights-sha256": "ab12" * 16, "bank-sha256": ""}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    settings = StudySettings(name="north", seed=7)
    (folder / "study.toml").write_text(tomli_w.dumps(settings.model_dump(by_alias=True, exclude_none=True)))
    return folder


def test_a_coordinators_folder_gives_the_report_without_the_other_columns(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(run), "--outcomes", "observed"]) == 0
    page = (run / "report.html").read_text()
    assert "simulated" not in page.lower()
    assert "north: was federation worth it?" in page
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "pooled – – –" in text
    assert re.search(r"federated 0\.\d{3} \(0\.\d{3}–0\.\d{3}\)", text)
    assert "there is no pooled model to compare with" in text
    assert page.count("<figure>") == 7
    assert "written: " in capsys.readouterr().out
    assert (run / "model" / "model_card.md").exists()
    assert (run / "model" / "tripod.md").exists()


def test_a_folder_that_does_not_say_that_outcomes_were_observed_is_labelled_simulated(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(run), "--out", str(tmp_path / "usb" / "page.html"), "--json"]) == 0
    told = capsys.readouterr()
    assert "labelled SIMULATED" in told.err
    assert [Path(name).name for name in json.loads(told.out)["written"]] == [
        "page.html", "page.json", "model_card.md", "tripod.md",
    ]  # fmt: skip
    assert "Outcomes are SIMULATED" in (tmp_path / "usb" / "page.html").read_text()
    assert not (run / "report.html").exists()


def test_the_summary_of_a_simulation_is_used_as_it_is_and_not_contradicted(
    run: Path, summary: Entry, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "summary.json").write_text(json.dumps(summary))
    assert read_run(run).summary == summary | {"federation-code-fingerprint": "3f0c" * 16}
    assert main(["report", str(run)]) == 0
    assert "kept 95 % of pooled" in (run / "report.html").read_text()
    assert main(["report", str(run), "--outcomes", "observed"]) == 1
    assert (
        "FECG-606 --outcomes: found observed, where the run's summary.json says simulated"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("name", ["result.json", "rounds.json"])
def test_an_unfinished_run_is_a_message(run: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (run / name).unlink()
    assert main(["report", str(run)]) == 3
    assert f"FECG-602 {name}: found no such file" in capsys.readouterr().err
    (run / name).write_text('"text"')
    assert main(["report", str(run)]) == 3
    assert f"FECG-602 {name}: found JSON of another kind (str)" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "nope")]) == 3
    assert "FECG-602" in capsys.readouterr().err
    assert not (tmp_path / "nope").exists()


def test_a_coordinators_report_has_settings_privacy_and_withholds_small_sites(run: Path) -> None:
    assert main(["report", str(run), "--outcomes", "observed"]) == 0
    told = json.loads((run / "report.json").read_text())
    assert (told["schema"], told["version"], told["study"]) == ("fedecg-report", 1, "north")
    assert dict(told["settings"]["rows"])["study"] == "name north*; seed 7*"
    assert "partition" not in dict(told["settings"]["rows"])
    assert "No differential privacy in this run" in told["privacy"]["lines"][0]
    rows = {row[0]: row[1:] for row in told["sites"]["rows"]}
    assert rows["clinic-hill"][:2] == ["11", "fewer than 5"]
    assert rows["harbour-general"][0] == "2,140"
    text = " ".join(re.sub(r"<[^>]+>", " ", (run / "report.html").read_text()).split())
    assert "Disclosure control: of a site" in text
    assert "code fingerprint " + "3f0c" * 16 in text


def test_an_assessment_of_another_version_is_a_message(
    run: Path, assessment: Entry, capsys: pytest.CaptureFixture[str]
) -> None:
    del assessment["decision"]
    (run / "assessment.json").write_text(json.dumps(assessment))
    assert main(["report", str(run)]) == 3
    assert "FECG-602 assessment.json: found 1 missing parts: decision" in capsys.readouterr().err


def test_no_assessment_and_no_model_is_still_a_report(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "assessment.json").unlink()
    (run / "model" / "model.json").unlink()
    assert main(["report", str(run), "--outcomes", "observed"]) == 0
    told = capsys.readouterr().err
    assert "no assessment.json" in told
    assert "no model card" in told
    assert "No federated model was scored" in (run / "report.html").read_text()
    assert not list((run / "model").iterdir())


def test_a_model_card_without_assessment_says_so(run: Path) -> None:
    (run / "assessment.json").unlink()
    assert main(["report", str(run)]) == 0
    card = (run / "model" / "model_card.md").read_text()
    assert "The run has no final evaluation." in card
    assert "No figures by sex or age." in card


def test_help_loads_neither_torch_nor_matplotlib() -> None:
    script = (
        "import sys, fedecg.cli as cli\n"
        "for words in ([], ['report']):\n"
        "    try: cli.main([*words, '--help'])\n"
        "    except SystemExit as done: assert done.code == 0\n"
        "heavy = {'torch', 'flwr', 'scipy', 'matplotlib', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "fedecg report runs/demo" in done.stdout
