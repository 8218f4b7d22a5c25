"""The command `fedecg` from the shell's side: help without torch, tables, JSON, files, exit statuses."""

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb

from fedecg.cli import main
from fedecg.config import ModelSettings, SignalSettings
from fedecg.intended_use import INTENDED_USE, NOT_INTENDED
from fedecg.model import BaselineFile, PopulationFile, build_network, save_model, state_outcomes
from fedecg.signals import LEADS

COMMANDS = ("predict", "explain", "evaluate", "verify", "export")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("command") / "model"
    signals = SignalSettings(samples=256)
    network = build_network(ModelSettings(size="small"), signals.samples, 8, seed=3)
    baseline = BaselineFile(
        edges_days=[0.0, 200.0, 1500.0], cumulative_hazard=[0.01, 0.02, 0.05], variance=[1e-5, 1e-4, 3e-4]
    )
    save_model(
        folder, network, signals, "", baseline, PopulationFile(risk_cuts=[-0.5, 0.5], patients=[1, 2, 1])
    )
    return str(folder)


@pytest.fixture
def records(tmp_path: Path) -> list[str]:
    """Two ECGs of noise on a slow wave, as WFDB files."""
    rng = np.random.default_rng(0)
    names = ["one", "two"]
    for name in names:
        eight = rng.normal(scale=0.2, size=(8, 1000)).cumsum(axis=1) / 5
        wfdb.wrsamp(
            name,
            fs=100,
            units=["mV"] * 8,
            sig_name=["I", "II", *LEADS[6:]],
            p_signal=eight.T,
            fmt=["16"] * 8,
            adc_gain=[1000.0] * 8,
            baseline=[0] * 8,
            write_dir=str(tmp_path),
        )
    return [str(tmp_path / name) for name in names]


def test_help_of_every_command_loads_no_torch_and_teaches() -> None:
    script = (
        "import sys, fedecg.cli as cli\n"
        f"for words in ([], {', '.join(repr([name]) for name in COMMANDS)}):\n"
        "    try: cli.main([*words, '--help'])\n"
        "    except SystemExit as done: assert done.code == 0\n"
        "heavy = {'torch', 'flwr', 'scipy', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert f"fedecg {name} runs/demo/model" in done.stdout
    help_of = " ".join(done.stdout.split())
    assert "Intended use: - Research on ranking patients by time to heart failure" in help_of
    assert "Not intended: - Diagnosis, treatment, triage" in help_of
    assert "weights.safetensors, SHA256SUMS" in help_of
    assert "fedecg report RUN writes it" in help_of


def test_importing_the_package_loads_no_torch() -> None:
    script = "import sys, fedecg; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_predictions_are_a_table_with_the_limits_said(
    model: str, records: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", model, *records]) == 0
    told = capsys.readouterr()
    assert "risk 1 y (95 %)" in told.out
    assert told.out.count(" %") >= 4
    assert "Not a medical device" in told.err
    assert "uncertainty of the baseline hazard alone" in told.err
    assert "No risk at 5, 10 years" in told.err


def test_json_and_both_kinds_of_file_agree(
    model: str, records: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", model, *records, "--json", "--out", str(tmp_path / "a.csv")]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert main(["predict", model, *records, "--out", str(tmp_path / "a.json")]) == 0
    assert capsys.readouterr().out == ""
    assert json.loads((tmp_path / "a.json").read_text()) == document
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == records
    for row, entry in zip(rows, document["rows"], strict=True):
        assert list(row) == [*entry, "outcomes", "note"]
        assert row["outcomes"] == document["outcomes"] == "not stated"
        assert "Not a medical device" in row["note"]
        assert float(row["risk-3y-high"]) == entry["risk-3y-high"]
        assert entry["risk-10y"] is None
        assert row["risk-10y"] == ""
    assert any("medical device" in note for note in document["notes"])


def test_some_bad_files_are_exit_status_5_and_only_bad_ones_3(
    model: str, records: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = str(tmp_path / "smith-1960")
    assert main(["predict", model, records[0], absent, records[1], "--json"]) == 5
    told = capsys.readouterr()
    assert [row["code"] for row in json.loads(told.out)["rows"]] == ["", "FECG-201", ""]
    assert "1 of 3 files not predicted: FECG-201" in told.err
    assert "smith" not in told.err
    assert main(["predict", model, absent]) == 3
    assert "FECG-201" in capsys.readouterr().out


def test_names_from_stdin_and_horizons(
    model: str, records: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from io import StringIO

    monkeypatch.setattr(sys, "stdin", StringIO("\n".join(records)))
    assert main(["predict", model, "-", "--horizons", "0.5,2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["file"] for row in rows] == records
    assert {"risk-0.5y", "risk-2y"} < set(rows[0])


@pytest.mark.parametrize(
    "words", [["--horizons", "3,1"], ["--horizons", "x"], ["--out", "risks.xlsx"]], ids=" ".join
)
def test_wrong_use_is_exit_status_2(model: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["predict", model, "r", *words])
    assert done.value.code == 2
    assert "expected" in capsys.readouterr().err


def test_verify_says_what_the_model_is_or_exits_with_3(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", model]) == 0
    text = capsys.readouterr().out
    for words in ("fedecg small", "256 samples at 100 Hz", "4.11 years", "4 validation patients"):
        assert words in text
    sums = hashlib.sha256((Path(model) / "SHA256SUMS").read_bytes()).hexdigest()
    assert f"SHA256SUMS   sha256 {sums}" in text
    assert "intended use Research on ranking patients" in text
    assert "not intended Diagnosis, treatment, triage" in text
    assert json.loads((Path(model) / "model.json").read_text())["intended-use"] == list(INTENDED_USE)
    assert main(["verify", model, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["samples"] == 256
    assert facts["files"]["SHA256SUMS"] == sums
    assert facts["intended-use"] == list(INTENDED_USE)
    assert facts["not-intended"] == list(NOT_INTENDED)
    assert main(["verify", str(tmp_path)]) == 3
    assert "FECG-306" in capsys.readouterr().err


def test_export_writes_a_program(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "model.pt2"
    assert main(["export", model, "--format", "torch-export", "--out", str(file)]) == 0
    assert file.stat().st_size > 0
    assert "from the network on random signals" in capsys.readouterr().out


def test_a_model_of_simulated_outcomes_says_so_with_every_prediction(
    model: str, records: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    state_outcomes(copy, "simulated")
    assert main(["predict", str(copy), *records]) == 0
    assert "trained on SIMULATED outcomes" in capsys.readouterr().err
    assert main(["verify", str(copy)]) == 0
    assert "SIMULATED" in capsys.readouterr().out


def test_a_folder_as_the_name_of_a_file_is_refused(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", model, "--format", "torch-export", "--out", "."]) == 1
    assert "FECG-601 file: found a folder; expected the name of a file" in capsys.readouterr().err


def test_a_wrong_site_folder_is_exit_status_3(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", model, str(tmp_path)]) == 3
    assert "FECG-101" in capsys.readouterr().err


def test_an_interruption_is_a_message(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(folder: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedecg.prediction.folder.load", interrupt)
    assert main(["verify", model]) == 1
    assert "FECG-604 run: found an interruption" in capsys.readouterr().err


def test_a_table_of_predictions_is_replaced_and_no_other_file(
    model: str, records: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "risks.csv"
    assert main(["predict", model, *records, "--out", str(out)]) == 0
    assert f"written: {out}" in capsys.readouterr().err
    assert main(["predict", model, *records, "--out", str(out)]) == 0
    assert f"replaced: {out}" in capsys.readouterr().err
    out.write_text("patient,event\nsmith,1\n")
    assert main(["predict", model, *records, "--out", str(out)]) == 3
    assert "FECG-275 --out: found another file of that name" in capsys.readouterr().err
    assert out.read_text() == "patient,event\nsmith,1\n"


def test_a_record_named_twice_is_said(
    model: str, records: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", model, *records, f"{records[0]}.hea", f"{records[0]}.dat"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert f"2 of {len(records) + 2} names are of a record named before" in told


def test_the_end_of_a_long_name_stays_in_the_table(
    model: str, records: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / ("long-" * 20)
    folder.symlink_to(Path(records[0]).parent)
    name = str(folder / Path(records[0]).name)
    assert main(["predict", model, name]) == 0
    assert f"ong-/{Path(records[0]).name} " in capsys.readouterr().out


@pytest.mark.parametrize(("name", "code"), [("rec.pdf", "FECG-273"), ("", "FECG-274")])
def test_a_vendors_file_and_a_folder_say_what_they_are(
    model: str, tmp_path: Path, name: str, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rec.pdf").write_bytes(b"%PDF-1.7")
    assert main(["predict", model, str(tmp_path / name)]) == 3
    told = capsys.readouterr().err
    assert code in told
    assert ("it reads WFDB, and PhysioNet .mat" in " ".join(told.split())) == (code == "FECG-273")
