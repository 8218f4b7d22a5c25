"""`fedecg explain`: the page and the pictures say what was measured, and name nobody."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb

from fedecg.cli import main
from fedecg.config import ModelSettings, SignalSettings
from fedecg.errors import ModelError
from fedecg.explanation import Explanation, explain
from fedecg.model import BaselineFile, build_network, save_model
from fedecg.prediction import load
from fedecg.report.ecg_layout import PaperOptions
from fedecg.report.explain import (
    explanation_html,
    explanation_lines,
    lead_caption,
    segment_caption,
    time_caption,
    write_explanation,
)
from fedecg.signals import LEADS, Recording

SIGNALS = SignalSettings(samples=256)


def recording() -> Recording:
    rng = np.random.default_rng(4)
    time_s = np.arange(0, 2.6, 0.01)
    beat = np.exp(-0.5 * (((time_s % 0.8) - 0.4) / 0.02) ** 2)
    signal_mv = rng.normal(0.8, 0.3, (12, 1)) * beat + 0.02 * rng.standard_normal((12, time_s.size))
    one, two = signal_mv[0], signal_mv[1]
    signal_mv[2:6] = two - one, -(one + two) / 2, one - two / 2, two - one / 2
    return Recording(signal_mv.astype(np.float32), 100.0)


def model_folder(folder: Path, preset: Any = "fedecg") -> Path:
    network = build_network(ModelSettings(preset=preset, size="small"), 256, 8, seed=1).eval()
    baseline = BaselineFile(
        edges_days=[0.0, 400.0, 2000.0], cumulative_hazard=[0.01, 0.05, 0.1], variance=[1e-6, 2e-6, 3e-6]
    )
    save_model(folder, network, SIGNALS, "", baseline)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def explained(folder: Path) -> Explanation:
    return explain(load(folder), recording())


def test_the_numbers_are_those_of_the_prediction_and_of_hiding(folder: Path, explained: Explanation) -> None:
    prediction = load(folder).predict(recording())
    assert explained.prediction == prediction
    lines = " ".join(explanation_lines(explained))
    assert f"Log hazard {prediction.log_hazard:.3f}." in lines
    assert f"within 1 year {100 * (prediction.risks[0].risk or 0):.1f} % (" in lines
    lead = int(np.abs(explained.lead_change).argmax())
    assert f"Hiding {LEADS[lead]} moves the log hazard most: by {explained.lead_change[lead]:+.3f}." in lines
    assert "Attention shows where the network looked, not why" in lines
    assert LEADS[int(explained.attention.bars.argmax())] in lead_caption(explained)
    assert f"{np.abs(explained.segment_change).max():.3f} in " in segment_caption(explained)


def test_a_model_without_a_baseline_is_explained_without_risks(tmp_path: Path) -> None:
    save_model(tmp_path, build_network(ModelSettings(size="small"), 256, 8, seed=1), SIGNALS, "")
    lines = explanation_lines(explain(load(tmp_path), recording()))
    assert len(lines) == 3
    assert not any("Risk" in line for line in lines)


def test_the_paper_preset_says_that_its_strips_mix_leads(explained: Explanation, tmp_path: Path) -> None:
    mixed = explain(load(model_folder(tmp_path, "paper")), recording())
    assert time_caption(mixed).endswith("so a strip under a lead says when, not in which lead.")
    assert "first layers mix all leads" in explanation_html(mixed, SIGNALS, "x")
    assert "first layers mix all leads" not in explanation_html(explained, SIGNALS, "x")


def test_the_page_needs_nothing_else_and_is_the_same_twice(explained: Explanation) -> None:
    page = explanation_html(explained, SIGNALS, "no device <script>alert(1)</script>")
    assert page == explanation_html(explained, SIGNALS, "no device <script>alert(1)</script>")
    assert "<script" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert page.count("<img ") == 5
    assert len(page) < 2_000_000


@pytest.mark.parametrize("suffix", [".html", ".png", ".pdf", ".svg"])
def test_every_kind_of_file_is_written(explained: Explanation, tmp_path: Path, suffix: str) -> None:
    target = write_explanation(explained, SIGNALS, tmp_path / f"e{suffix}", "x", PaperOptions("12x1"))
    begins = {".html": b"<!doctype html>", ".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix]
    assert target.read_bytes().startswith(begins)


def test_another_kind_of_file_is_refused(explained: Explanation, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"FECG-357 file for the explanation: found another suffix"):
        write_explanation(explained, SIGNALS, tmp_path / "e.txt", "x")


def test_the_command_writes_a_page_that_names_neither_record_nor_patient(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wfdb.wrsamp(
        "secret-4711",
        fs=100,
        units=["mV"] * 12,
        sig_name=list(LEADS),
        p_signal=recording().signal_mv.T.astype(np.float64),
        fmt=["16"] * 12,
        comments=["Jane Doe"],
        write_dir=str(tmp_path),
    )
    out = tmp_path / "e.html"
    assert main(["explain", str(folder), str(tmp_path / "secret-4711"), "--out", str(out)]) == 0
    assert "Log hazard" in capsys.readouterr().out
    text = out.read_text()
    assert not re.search("secret|4711|Jane", text)
    assert json.loads((folder / "model.json").read_text())["weights-sha256"] not in text


def test_the_command_refuses_a_suffix_before_it_reads_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(tmp_path), "nothing", "--out", "e.txt"]) == 3
    assert "FECG-357" in capsys.readouterr().err


def test_the_command_refuses_a_record_that_is_not_there(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "patient-12"
    assert main(["explain", str(folder), str(missing), "--out", str(tmp_path / "e.svg")]) == 3
    said = capsys.readouterr().err
    assert "FECG-201" in said
    assert "patient-12" not in said
    assert not (tmp_path / "e.svg").exists()
