"""`fedecg explain`: the page and the pictures say what was measured, and name nobody."""

import base64
import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb

from fedecg.cli import main
from fedecg.config import ModelSettings, SignalSettings
from fedecg.errors import ModelError
from fedecg.explanation import Explanation, explain, faithfulness_sums
from fedecg.explanation.entry import explanation_entry
from fedecg.explanation.verdicts import ModelVerdicts, VerdictEntry, write_verdicts
from fedecg.model import BaselineFile, build_network, save_model
from fedecg.prediction import load
from fedecg.report.attention_figures import lead_attention_figure, lead_change_figure
from fedecg.report.ecg_layout import PaperOptions
from fedecg.report.explain import (
    explanation_html,
    explanation_lines,
    lead_caption,
    segment_caption,
    time_caption,
    write_explanation,
)
from fedecg.report.figures import figure_svg
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


@pytest.fixture(scope="module")
def page(explained: Explanation) -> str:
    """Of a model without tests; drawn once, as it takes a second."""
    return explanation_html(explained, SIGNALS, "x")


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


def test_the_paper_preset_says_that_its_strips_mix_leads(page: str, tmp_path: Path) -> None:
    mixed = explain(load(model_folder(tmp_path, "paper")), recording())
    assert time_caption(mixed).endswith("so a strip under a lead says when, not in which lead.")
    assert mixed.attention.early_samples == 6
    assert "first layers mix all leads" in explanation_html(mixed, SIGNALS, "x")
    assert "first layers mix all leads" not in page


def verdicts(*, passed: bool | None = False) -> ModelVerdicts:
    about = ("time attention", "lead attention")
    return ModelVerdicts(
        weights_sha256="0" * 64,
        part="test",
        ecgs=450,
        sites=6,
        captions={name: f"{name} caption of the study." for name in about},
        verdicts=[
            VerdictEntry(test="deletion", about=name, passed=passed, sentence="x", tested=True)
            for name in about
        ]
        + [
            VerdictEntry(test="stability over seeds", about=about[0], passed=None, sentence="y", tested=False)
        ],
    )


def test_the_page_of_a_model_that_failed_its_tests_says_so_at_its_head_and_under_its_maps(
    explained: Explanation,
) -> None:
    page = explanation_html(replace(explained, verdicts=verdicts()), SIGNALS, "x")
    failed = (
        "In this model it failed 2 of 2 tests on 450 ECGs of 6 sites: do not read its maps as an explanation."
    )
    assert failed in page
    assert page.count("<figcaption>") == 5
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert [("Tests of this model: time attention caption" in one) for one in captions].count(True) == 2
    assert [("Tests of this model: lead attention caption" in one) for one in captions].count(True) == 1
    assert "not tested" not in page
    passed = " ".join(explanation_lines(replace(explained, verdicts=verdicts(passed=True))))
    assert "In this model it failed none of the 2 tests made on 450 ECGs of 6 sites." in passed
    open_ = " ".join(explanation_lines(replace(explained, verdicts=verdicts(passed=None))))
    assert "This model was tested on 450 ECGs: too few to say whether its maps explain anything." in open_


def test_the_page_of_a_model_without_tests_says_that_it_was_not_tested(page: str) -> None:
    assert re.search(r"looked, not why\. This model was not tested: nothing says that", page)
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert ["This model was not tested" in one for one in captions] == [True, False, False, True, True]


def test_the_command_reads_the_verdicts_that_ship_with_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, wave = model_folder(tmp_path / "model"), recording().signal_mv.T.astype(np.float64)
    wfdb.wrsamp("r", 100, ["mV"] * 12, list(LEADS), wave, fmt=["16"] * 12, write_dir=str(tmp_path))
    ask = ["explain", str(folder), str(tmp_path / "r"), "--out", str(tmp_path / "e.html")]
    assert main(ask) == 0
    assert "This model was not tested" in capsys.readouterr().out
    network = load(folder).saved.network
    rng = np.random.default_rng(0)
    signal_mv = rng.normal(0, 0.3, (20, 12, 256)).astype(np.float32)
    sums = faithfulness_sums(network, signal_mv, rng.exponential(900, 20), rng.random(20) < 0.6, seed=1)
    entry = explanation_entry("test", {"city": sums}, mixes_leads=False)
    write_verdicts(folder, entry)
    assert main(ask) == 0
    assert re.search(r"In this model it failed \d of 5 tests on 20 ECGs of 1 site", capsys.readouterr().out)
    page = unescape((tmp_path / "e.html").read_text())
    assert f"Tests of this model: {entry['captions']['time attention']}" in page


def test_no_figure_of_the_page_repeats_the_heading_above_it(page: str, explained: Explanation) -> None:
    titled = []
    for figure in (
        lead_attention_figure(explained.attention, title=""),
        lead_change_figure(explained.lead_change, title=""),
    ):
        titled += [text.get_text() for text in figure.texts if text.get_text()]
    pictures = [base64.b64decode(data).decode() for data in re.findall(r"svg\+xml;base64,([^\"]+)", page)]
    assert not titled
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert len(headings) == len(set(headings)) == len(pictures) == 5
    for number in (2, 3):  # a title would be the only text in bold
        assert "DejaVuSans-Bold" not in pictures[number]
    assert "DejaVuSans-Bold" in figure_svg(lead_attention_figure(explained.attention)).decode()


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
