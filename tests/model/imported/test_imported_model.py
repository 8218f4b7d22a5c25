"""An imported model says what it is, gives no risks, and a study may begin with it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wfdb
from authors_checkpoint import State, as_lightning

import fedecg
from fedecg.cli import main
from fedecg.config import ModelSettings, SignalSettings
from fedecg.errors import ModelError
from fedecg.model import build_network, load_aligned, load_model, save_model
from fedecg.prediction.export import export_network
from fedecg.prediction.folder import verify
from fedecg.signals import LEADS


def test_verify_accepts_the_folder_and_says_what_it_is(folder: Path, capsys: Any) -> None:
    facts = verify(folder)
    assert set(facts["files"]) == {"model.json", "weights.safetensors", "SHA256SUMS"}
    assert facts["imported"]["parts"] == ["encoder", "decoder"]
    assert facts["bank-sha256"] == ""
    assert main(["verify", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "baseline     none (the risk head is untrained: fedecg predict refuses this model)" in told
    assert "imported     encoder and decoder of chen-2025, source sha256 " in told


@pytest.fixture
def record(tmp_path: Path) -> str:
    noise = np.random.default_rng(0).normal(scale=0.2, size=(8, 1000)).cumsum(axis=1) / 5
    options = {"fmt": ["16"] * 8, "adc_gain": [1000.0] * 8, "baseline": [0] * 8, "write_dir": str(tmp_path)}
    wfdb.wrsamp(
        "one", fs=100, units=["mV"] * 8, sig_name=["I", "II", *LEADS[6:]], p_signal=noise.T, **options
    )
    return str(tmp_path / "one")


REFUSED = (
    "FECG-316 model: found imported weights (encoder, decoder) and an untrained risk head; expected a model that a "
    "study trained. Use fedecg.load(MODEL).encoder, or begin a study with it: --set align.start=MODEL."
)


@pytest.mark.parametrize("command", ["predict", "explain", "export"])
def test_no_command_gives_risks_of_an_untrained_head(
    command: str, folder: Path, record: str, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out.html"
    words = {
        "predict": [record],
        "explain": [record, "--out", str(out)],
        "export": ["--format", "torch-export", "--out", str(out)],
    }
    assert main([command, str(folder), *words[command]]) == 3
    told = capsys.readouterr()
    assert REFUSED in told.err
    assert not told.out
    assert not out.exists()


def test_no_function_gives_risks_of_an_untrained_head(folder: Path, tmp_path: Path) -> None:
    model = fedecg.load(folder)
    with pytest.raises(ModelError, match="FECG-316"):
        model.log_hazards(np.zeros((1, 12, 608), dtype=np.int16))
    with pytest.raises(ModelError, match="FECG-316"):
        export_network(model, "torch-export", tmp_path / "model.pt2")


def test_a_study_may_begin_with_it_whatever_its_bank(folder: Path) -> None:
    earlier = load_model(folder)
    network = build_network(ModelSettings(preset="paper"), 608, 384, seed=5)
    fresh = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    load_aligned(network, folder, earlier.signals, "the study's bank")
    for name, tensor in network.state_dict().items():
        imported = name.split(".")[0] in ("encoder", "decoder") and tensor.is_floating_point()
        expected = earlier.network.state_dict() if imported else fresh
        assert torch.equal(tensor, expected[name]), name


def test_a_study_with_other_signals_or_another_network_may_not(folder: Path) -> None:
    signals = SignalSettings(samples=608, rate_hz=500, lowpass_hz=100)
    network = build_network(ModelSettings(preset="paper", dropout=0.1), 608, 384, seed=5)
    with pytest.raises(
        ModelError,
        match=r"FECG-310 .*found another \[model\], another \[signals\] than .*\(imported: its model.json\)",
    ):
        load_aligned(network, folder, signals, "")


def test_a_model_that_a_study_trained_from_it_predicts(folder: Path, tmp_path: Path) -> None:
    network = build_network(ModelSettings(preset="paper"), 608, 384, seed=5)
    signals = load_model(folder).signals
    load_aligned(network, folder, signals, "abc")
    save_model(tmp_path / "trained", network, signals, "abc")
    assert fedecg.load(tmp_path / "trained").log_hazards(np.zeros((2, 12, 608), dtype=np.int16)).shape == (2,)


def test_the_command_says_what_it_took_and_what_it_is_for(
    states: dict[int, State], saved: Callable[..., Path], tmp_path: Path, capsys: Any
) -> None:
    path, out = saved(as_lightning(states[1024])), tmp_path / "model"
    assert main(["import-checkpoint", str(path), "--out", str(out), "--lowpass-hz", "45"]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        f"333 tensors (encoder and decoder) for 1024 samples at 100 Hz: {out}",
        "not imported: ecg_projector (4 tensors)",
        "not imported: text_projector (4 tensors)",
    ]
    assert "No trained risk head, no baseline hazard" in told.err
    assert fedecg.load(out).signals.lowpass_hz == 45
    assert main(["import-checkpoint", str(path), "--out", str(out)]) == 3
    assert "FECG-317" in capsys.readouterr().err


def test_help_of_the_import_loads_no_torch_and_teaches() -> None:
    script = (
        "import sys, fedecg.cli as cli\n"
        "try: cli.main(['import-checkpoint', '--help'])\n"
        "except SystemExit: sys.exit('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'fedecg.load("authors").encoder' in done.stdout
