"""The authors' network on median beats, from recordings to a prediction, through the command lines."""

import json
from pathlib import Path

import numpy as np
import pytest

import fedecg
from fedecg.config import SignalSettings
from fedecg.model.package import CARD
from fedecg.signals import SignalStore, read_recording
from fedecg_simulations.cli import main

CONFIG = """
name = "beats"
[data]
source = "ptbxl"
path = "{data}"
store = "{store}"
[signals]
input = "median"
rate-hz = 500
samples = 608
[model]
preset = "paper"
[align]
rounds = 1
local-steps = 1
batch-size = 8
[survival]
rounds = 1
local-steps = 1
batch-size = 8
[evaluation]
bootstrap = 0
comparison = false
explain = false
"""


@pytest.mark.slow
def test_the_paper_preset_trains_on_median_beats_and_predicts(data_root: Path, tmp_path: Path) -> None:
    config, run = tmp_path / "beats.toml", tmp_path / "run"
    config.write_text(CONFIG.format(data=data_root / "ptbxl", store=tmp_path / "store"))
    assert main(["run", str(config), "--out", str(run)]) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert len(summary["sites"]) == 4
    (folder,) = (tmp_path / "store").iterdir()
    store = SignalStore.open(folder)
    assert (store.samples, store.settings["input"]) == (608, "median")
    assert sum(code != "" for code in store.codes) <= 2
    beats = store.batch(np.flatnonzero(np.array(store.codes) == "")[:50])
    assert np.median(np.square(beats).sum(axis=1).argmax(axis=1)) == pytest.approx(204, abs=3)
    model = fedecg.load(run / "model")
    assert model.signals == SignalSettings(input="median", rate_hz=500, samples=608)
    record = next((data_root / "ptbxl" / "records500").rglob("*_hr.hea")).with_suffix("")
    prediction = model.predict(read_recording(record))
    assert np.isfinite(prediction.log_hazard)
    assert not any("lasts" in warning for warning in prediction.warnings)
    assert "the median of the beats (0.4 s before to 0.8 s after" in (run / "model" / CARD).read_text()
