"""The commands that take an ECG take one of any format: a cardiograph's XML, one ECG of many in a file."""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from fedecg.cli import main
from fedecg.config import ModelSettings, SignalSettings
from fedecg.model import build_network, save_model

sys.path.insert(0, str(Path(__file__).parent / "signals"))
from writers_vendor import cardiosoft, whole_counts


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """The same ECG in CardioSoft XML and as the second of a part of CODE-15 %, and a broken file."""
    counts = whole_counts(4096)
    (tmp_path / "ecg.xml").write_bytes(cardiosoft(counts, rate='<SampleRate units="Hz">400</SampleRate>'))
    with h5py.File(tmp_path / "part.hdf5", "w") as file:
        file["tracings"] = np.stack([counts.T * 0.001, counts.T * 0.005]).astype(np.float32)
        file["exam_id"] = np.array([7, 8])
    (tmp_path / "broken.xml").write_bytes(cardiosoft(counts)[:5000])
    return [str(tmp_path / name) for name in ("ecg.xml", "part.hdf5#1", "broken.xml")]


def test_predict_takes_files_of_any_format_and_one_ecg_of_many(files, tmp_path, capsys):
    signals = SignalSettings(samples=256)
    network = build_network(ModelSettings(size="small"), signals.samples, 8, seed=3)
    save_model(tmp_path / "model", network, signals, "")
    assert main(["predict", str(tmp_path / "model"), *files, "--json"]) == 5  # partial: one is refused
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["code"] for row in rows] == ["", "", "FECG-277"]
    assert rows[0]["log-hazard"] == pytest.approx(rows[1]["log-hazard"], abs=1e-4)


@pytest.mark.parametrize("place", [0, 1])
def test_draw_takes_files_of_any_format(files, tmp_path, place):
    assert main(["draw", files[place], "--out", str(tmp_path / "ecg.svg")]) == 0
    assert (tmp_path / "ecg.svg").read_text().lstrip().startswith("<?xml")
