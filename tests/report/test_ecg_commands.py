"""`fedecg draw`, the paper's options, and the pages of `fedecg predict --explain`."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import wfdb

from fedecg.cli import main
from fedecg.config import ModelSettings, SignalSettings
from fedecg.model import BaselineFile, PopulationFile, build_network, save_model
from fedecg.report.ecg_layout import paper_layout
from fedecg.report.ecg_paper import draw_ecg
from fedecg.report.ecg_traces import LABEL_IN_MM, label_place_mm
from fedecg.signals import LEADS, read_recording


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    wave = np.random.default_rng(0).normal(scale=0.2, size=(8, 1000)).cumsum(axis=1) / 5
    wfdb.wrsamp(
        "smith-1960",
        fs=100,
        units=["mV"] * 8,
        sig_name=["I", "II", *LEADS[6:]],
        p_signal=wave.T,
        fmt=["16"] * 8,
        adc_gain=[1000.0] * 8,
        baseline=[0] * 8,
        write_dir=str(folder),
    )
    return folder / "smith-1960"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command") / "model"
    signals = SignalSettings(samples=256)
    network = build_network(ModelSettings(size="small"), signals.samples, 8, seed=3)
    baseline = BaselineFile(
        edges_days=[0.0, 500.0, 800.0, 1500.0],
        cumulative_hazard=[0.0, 0.0, 0.02, 0.05],
        variance=[0.0, 0.0, 1e-4, 3e-4],
    )
    population = PopulationFile(risk_cuts=[-90.0, -80.0], patients=[10, 20, 11])
    save_model(folder, network, signals, "", baseline, population)
    return folder


def test_an_ecg_is_drawn_without_a_model_and_without_its_name(
    record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ecg.svg"
    assert main(["draw", str(record), "--out", str(out)]) == 0
    assert "smith" not in out.read_text()
    assert "written: " in capsys.readouterr().err


def test_the_options_of_the_paper_reach_the_drawing(record: Path, tmp_path: Path) -> None:
    words = ["--layout", "12x1", "--speed", "50", "--gain", "5", "--order", "cabrera"]
    assert main(["draw", str(record), "--out", str(tmp_path / "a.pdf"), *words]) == 0
    from fedecg.report.ecg_paper import save_ecg

    figure = draw_ecg(read_recording(record), layout="12x1", speed_mm_s=50, gain_mm_mv=5, order="cabrera")
    save_ecg(figure, tmp_path / "b.pdf")
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
    assert main(["draw", str(record), "--out", str(tmp_path / "c.pdf")]) == 0
    assert (tmp_path / "c.pdf").read_bytes() != (tmp_path / "a.pdf").read_bytes()


@pytest.mark.parametrize(
    "words", [["--speed", "30"], ["--gain", "7"], ["--order", "other"], ["--layout", "2x6"]], ids=" ".join
)
def test_another_scale_is_wrong_use(
    record: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        main(["draw", str(record), "--out", "x.svg", *words])
    assert done.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


def test_a_record_that_is_not_there_and_another_suffix_are_exit_status_3(
    record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["draw", str(tmp_path / "absent"), "--out", str(tmp_path / "a.svg")]) == 3
    assert "FECG-201" in capsys.readouterr().err
    assert main(["draw", str(record), "--out", str(tmp_path / "a.txt")]) == 3
    assert "FECG-263" in capsys.readouterr().err


def test_a_lead_name_moves_aside_where_its_r_wave_would_cross_it() -> None:
    panel = paper_layout("3x4").panel("V3")
    x = np.arange(panel.left_mm, panel.left_mm + 60, 0.25)
    flat = np.full_like(x, panel.baseline_mm)
    assert label_place_mm(panel, x, flat) == panel.left_mm + LABEL_IN_MM
    spike = flat.copy()
    at = int(np.argmin(np.abs(x - panel.left_mm - 3)))
    spike[at] = panel.label_mm + 6  # up and down again through the name
    moved = label_place_mm(panel, x, spike)
    assert x[at] < moved < panel.left_mm + 10
    everywhere = np.full_like(x, panel.label_mm + 1)
    assert label_place_mm(panel, x, everywhere) == panel.left_mm + LABEL_IN_MM
    gap = spike.copy()
    gap[at - 1 : at + 2] = np.nan
    assert label_place_mm(panel, x, gap) == panel.left_mm + LABEL_IN_MM


def test_the_name_of_v3_in_ptb_xl_317_is_free_of_its_r_wave(data_root: Path) -> None:
    files = list((data_root / "ptbxl").rglob("00317_lr.hea"))
    if not files:
        pytest.skip("no PTB-XL record 317")
    axes = draw_ecg(read_recording(files[0])).axes[0]
    (label,) = [text for text in axes.texts if text.get_text() == "V3"]
    (line,) = [line for line in axes.lines if line.get_label() == "trace V3"]
    left, low = label.get_position()
    x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    near = (x[1:] > left) & (x[:-1] < left + 5)
    crossed = (np.maximum(y[1:], y[:-1]) > low) & (np.minimum(y[1:], y[:-1]) < low + 2.5)
    assert not np.any(near & crossed)


def test_a_page_for_each_predicted_record_named_by_its_row(
    model: Path, record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages, out = tmp_path / "pages", tmp_path / "risks.csv"
    names = [str(record), str(tmp_path / "absent"), str(record)]
    command = ["predict", str(model), *names, "--explain", str(pages), "--out", str(out), "--json"]
    assert main(command) == 5
    told = capsys.readouterr()
    rows = json.loads(told.out)["rows"]
    assert [row["explanation"] for row in rows] == [str(pages / "0001.html"), "", str(pages / "0003.html")]
    assert sorted(path.name for path in pages.iterdir()) == ["0001.html", "0003.html"]
    for page in pages.iterdir():
        assert "smith" not in page.read_text()
        assert f"Log hazard {rows[0]['log-hazard']:.3f}" in page.read_text()
    with out.open(newline="") as file:
        assert [row["explanation"] for row in csv.DictReader(file)] == [row["explanation"] for row in rows]


def test_an_upper_limit_and_an_open_percentile_are_said_as_such(
    model: Path, record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(model), str(record), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (row,) = told["rows"]
    assert (row["risk-1y"], row["risk-1y-low"]) == (None, 0.0)
    assert 0 < row["risk-1y-high"] < 1
    assert (row["percentile"], row["percentile-bound"]) == (pytest.approx(100 * 30 / 41), "at least")
    notes = " ".join(told["notes"])
    assert "At 1 years an upper limit (97.5 %) and no risk: no event seen by then in the validation" in notes
    assert "Percentile: of 41 validation patients of the study." in notes
    assert any("not a medical device" in line for line in told["not-intended"])
    assert main(["predict", str(model), str(record)]) == 0
    printed = capsys.readouterr().out
    assert "below" in printed
    assert "at least 73" in printed


def test_explain_gives_the_same_as_json_and_takes_the_papers_options(
    model: Path, record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["explain", str(model), str(record), "--out", str(tmp_path / "e.html")]
    assert main([*command, "--speed", "50", "--gain", "20", "--order", "cabrera", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "file" not in told
    assert told["explanation"] == str(tmp_path / "e.html")
    assert set(told["lead-change"]) == set(LEADS)
    assert told["percentile-bound"] == "at least"
    lines = " ".join(told["lines"])
    assert "higher than that of at least 73 % of the study's validation patients" in lines
    assert "within 1 year below " in lines
    assert "no event seen by then in the validation patients" in lines
    usual = (tmp_path / "e.html").read_bytes()
    assert main(command) == 0
    assert (tmp_path / "e.html").read_bytes() != usual
