"""The exported program gives the network's log hazards, for a batch of any size."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fedecg
from fedecg.errors import ModelError
from fedecg.prediction import export
from fedecg.prediction.export import export_network

ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not ONNX, reason="the extra fedecg[onnx] is not installed")
PRESETS = ("fedecg", "paper")


def signals(size: int) -> np.ndarray:
    return np.random.default_rng(size).normal(size=(size, 12, 256)).astype(np.float32)


def expected(model, signal_mv: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        network = model.saved.network
        return network.log_hazard(network.embed(torch.from_numpy(signal_mv))).numpy()


@pytest.mark.parametrize("preset", PRESETS)
def test_the_torch_program_gives_the_networks_log_hazards(
    preset: str, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    model = fedecg.load(make_model(preset=preset))
    file = tmp_path / "model.pt2"
    assert export_network(model, "torch-export", file) <= 1e-4
    about = {"about.json": ""}
    program = torch.export.load(file, extra_files=about).module()
    for size in (1, 2, 7, 64):
        signal_mv = signals(size)
        found = program(torch.from_numpy(signal_mv)).detach().numpy()
        assert found.shape == (size,)
        np.testing.assert_allclose(found, expected(model, signal_mv), atol=1e-4)
    assert preset == "paper" or np.ptp(found) > 1e-3
    told = json.loads(about["about.json"])
    assert told["signals"] == model.signals.model_dump(by_alias=True)
    assert told["weights-sha256"] == model.saved.weights_sha256
    assert told["baseline"]["edges-days"] == model.saved.baseline.edges_days


@needs_onnx
@pytest.mark.parametrize("preset", PRESETS)
def test_the_onnx_program_gives_the_networks_log_hazards(
    preset: str, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    runtime = importlib.import_module("onnxruntime")
    model = fedecg.load(make_model(preset=preset))
    file = tmp_path / "model.onnx"
    assert export_network(model, "onnx", file) <= 1e-4
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1:] == [12, 256]
    for size in (1, 2, 7, 64):
        signal_mv = signals(size)
        (found,) = session.run(["log_hazard"], {"signal_mv": signal_mv})
        np.testing.assert_allclose(found, expected(model, signal_mv), atol=1e-4)
    assert "fedecg" in session.get_modelmeta().custom_metadata_map


@pytest.mark.skipif(ONNX, reason="the extra fedecg[onnx] is installed")
def test_without_the_extra_onnx_is_refused_with_what_to_install(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"FECG-348 export to ONNX: found onnx, onnxscript.*fedecg\[onnx\]"):
        export_network(fedecg.load(model_folder), "onnx", tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_program_that_differs_is_not_written(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A torch that reads its own programs wrongly is made up here; the comparison must see it."""
    model = fedecg.load(model_folder)
    load = torch.export.load

    def wrong(buffer):
        program = load(buffer).module()
        return SimpleNamespace(module=lambda: lambda signal_mv: program(signal_mv) + 1e-3)

    monkeypatch.setattr(export.torch.export, "load", wrong)
    with pytest.raises(ModelError, match="FECG-349 exported program: found log hazards up to 1.0e-03"):
        export_network(model, "torch-export", tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())
