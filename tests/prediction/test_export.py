"""The exported program gives the network's log hazards: of real ECGs, for a batch of any size, in another runtime."""

import importlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedecg
from fedecg.cli import main
from fedecg.config import ModelSettings, SignalSettings
from fedecg.errors import ModelError
from fedecg.model import build_network, save_model
from fedecg.prediction import Model, export
from fedecg.prediction.export import export_network
from fedecg.signals import counts_in_mv, read_recording

PRESETS = ("fedecg", "paper")
BATCHES = (1, 2, 7, 64)
RHYTHM, MEDIAN = SignalSettings(), SignalSettings(rate_hz=500, samples=608, lowpass_hz=150.0)
Run = Callable[[np.ndarray], np.ndarray]


def signals(size: int) -> np.ndarray:
    return np.random.default_rng(size).normal(size=(size, 12, 256)).astype(np.float32)


def expected(model: Model, signal_mv: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        network = model.saved.network
        return network.log_hazard(network.embed(torch.from_numpy(signal_mv))).numpy()


def open_onnx(file: Path) -> Any:
    return importlib.import_module("onnxruntime").InferenceSession(
        str(file), providers=["CPUExecutionProvider"]
    )


def onnx_run(file: Path) -> Run:
    session = open_onnx(file)
    return lambda signal_mv: session.run(["log_hazard"], {"signal_mv": signal_mv})[0]


def torch_run(file: Path) -> Run:
    program = torch.export.load(file).module()
    return lambda signal_mv: program(torch.from_numpy(signal_mv)).detach().numpy()


def real_counts(model: Model, files: list[Path]) -> np.ndarray:
    """Real ECGs the way that `fedecg predict` takes: read, judged, filtered, in counts of 1 µV."""
    prepared = [model.prepare(read_recording(file)) for file in files]
    return np.stack([one.counts for one in prepared if one.counts is not None])


@pytest.fixture(scope="module")
def models(make_model: Callable[..., Path]) -> dict[str, Path]:
    return {preset: make_model(preset=preset) for preset in PRESETS}


@pytest.fixture(scope="module")
def onnx_files(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One export a preset, as a user makes it; exporting takes seconds."""
    folder = tmp_path_factory.mktemp("onnx")
    files = {preset: folder / f"{preset}.onnx" for preset in PRESETS}
    for preset, file in files.items():
        assert main(["export", str(models[preset]), "--format", "onnx", "--out", str(file)]) == 0
    return files


@pytest.mark.parametrize("preset", PRESETS)
def test_the_onnx_program_gives_the_networks_log_hazards(
    preset: str, models: dict[str, Path], onnx_files: dict[str, Path]
) -> None:
    model, run = fedecg.load(models[preset]), onnx_run(onnx_files[preset])
    for size in BATCHES:
        signal_mv = signals(size)
        found = run(signal_mv)
        assert found.shape == (size,)
        np.testing.assert_allclose(found, expected(model, signal_mv), rtol=0, atol=1e-4)
    assert np.ptp(found) > 1e-3


@pytest.mark.parametrize("preset", PRESETS)
def test_real_ecgs_have_the_same_log_hazard_in_onnx(
    preset: str, models: dict[str, Path], onnx_files: dict[str, Path], data_root: Path
) -> None:
    model = fedecg.load(models[preset])
    files = sorted((data_root / "cinc2020").glob("*.hea"))[:12]
    counts = real_counts(model, files)
    assert len(counts) >= 8
    found = onnx_run(onnx_files[preset])(counts_in_mv(counts))
    np.testing.assert_allclose(found, model.log_hazards(counts), rtol=0, atol=1e-4)
    assert np.ptp(found) > 1e-3


def test_the_onnx_file_says_what_goes_in_and_what_it_is(
    models: dict[str, Path], onnx_files: dict[str, Path]
) -> None:
    model, session = fedecg.load(models["fedecg"]), open_onnx(onnx_files["fedecg"])
    (given,), (result,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("signal_mv", "tensor(float)", ["batch", 12, 256])
    assert (result.name, result.type, result.shape) == ("log_hazard", "tensor(float)", ["batch"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["fedecg"])
    assert about["signals"] == model.signals.model_dump(by_alias=True)
    assert about["weights-sha256"] == model.saved.weights_sha256
    assert about["baseline"]["cumulative-hazard"] == model.saved.baseline.cumulative_hazard
    document = importlib.import_module("onnx").load(onnx_files["fedecg"])
    assert [(one.domain, one.version) for one in document.opset_import] == [("", export.OPSET)]
    assert not document.functions  # plain operators: no runtime needs anything of ours
    assert not any(tensor.external_data for tensor in document.graph.initializer)


@pytest.mark.parametrize("preset", ["fedecg", pytest.param("paper", marks=pytest.mark.slow)])
def test_the_torch_program_gives_the_networks_log_hazards(
    preset: str, models: dict[str, Path], tmp_path: Path
) -> None:
    model, file = fedecg.load(models[preset]), tmp_path / "model.pt2"
    assert export_network(model, "torch-export", file) <= 1e-4
    about = {"about.json": ""}
    torch.export.load(file, extra_files=about)
    run = torch_run(file)
    for size in BATCHES:
        signal_mv = signals(size)
        found = run(signal_mv)
        assert found.shape == (size,)
        np.testing.assert_allclose(found, expected(model, signal_mv), rtol=0, atol=1e-4)
    assert np.ptp(found) > 1e-3
    told = json.loads(about["about.json"])
    assert told["signals"] == model.signals.model_dump(by_alias=True)
    assert told["weights-sha256"] == model.saved.weights_sha256
    assert told["baseline"]["edges-days"] == model.saved.baseline.edges_days
    assert_no_paths(file)


def test_an_onnx_file_tells_no_path_of_the_machine_that_made_it(onnx_files: dict[str, Path]) -> None:
    for file in onnx_files.values():
        assert_no_paths(file)


def assert_no_paths(file: Path) -> None:
    content = file.read_bytes()  # the JSON inside a .pt2 is stored, not packed
    assert b"signal_mv" in content
    for path in (Path(export.__file__).parent, Path(torch.__file__).parent.parent, Path.home()):
        assert str(path).encode() not in content
    assert not re.search(rb"\w\.py\b", content)


@pytest.mark.parametrize(
    ("absent", "told"), [(("onnx", "onnxscript", "onnxruntime"),) * 2, (("onnxruntime",),) * 2]
)
def test_without_the_extra_onnx_is_refused_with_what_to_install(
    absent: tuple[str, ...],
    told: tuple[str, ...],
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in absent:
        monkeypatch.setitem(sys.modules, name, None)  # Python's own way to say that an import finds nothing
    file = tmp_path / "model.onnx"
    assert main(["export", str(models["fedecg"]), "--format", "onnx", "--out", str(file)]) == 3
    error = capsys.readouterr().err
    assert f"FECG-348 export to ONNX: found {', '.join(told)} not installed; expected the packages" in error
    assert "pip install 'fedecg[onnx]', or --format torch-export." in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda log_hazard: log_hazard + 1e-3, r"1\.0e-03"),
        (lambda log_hazard: log_hazard * np.nan, "nan"),
        (lambda log_hazard: log_hazard[:, None], "inf"),
    ],
    ids=["other", "not finite", "another shape"],
)
def test_a_program_that_differs_is_not_written(
    spoil: Callable[[np.ndarray], np.ndarray],
    found: str,
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An exporter that makes wrong programs is made up here; the comparison must see it."""
    model = fedecg.load(models["fedecg"])
    wrong = b"program", lambda signal_mv: spoil(expected(model, signal_mv))
    monkeypatch.setattr(export, "_torch_export", lambda *_: wrong)
    message = f"FECG-349 exported program: found log hazards up to {found} from the network's"
    with pytest.raises(ModelError, match=f"{message}.*See whether fedecg verify"):
        export_network(model, "torch-export", tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow  # a whole export; what is not finite is refused above, too
def test_a_diverged_network_is_not_exported(make_model: Callable[..., Path], tmp_path: Path) -> None:
    model = fedecg.load(make_model(poison=float("inf")))
    with pytest.raises(
        ModelError, match="FECG-349 .*found log hazards up to nan .*See whether fedecg verify"
    ):
        export_network(model, "torch-export", tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("kind", [RHYTHM, MEDIAN], ids=["rhythm", "median"])
@pytest.mark.parametrize(("preset", "size"), [("fedecg", "base"), ("fedecg", "small"), ("paper", "base")])
def test_every_network_and_input_agrees_on_real_ecgs_in_both_formats(
    preset: str, size: str, kind: SignalSettings, data_root: Path, tmp_path: Path
) -> None:
    """At full length, for 32 PTB-XL records at 500 Hz; batch statistics are those of the ECGs, as after training."""
    settings = ModelSettings.model_validate({"preset": preset, "size": size, "dropout": 0.0})
    network = build_network(settings, kind.samples, 8, seed=3)
    save_model(tmp_path / "raw", network, kind, "")
    files = sorted((data_root / "ptbxl" / "records500").rglob("*_hr.hea"))[:32]
    counts = real_counts(fedecg.load(tmp_path / "raw"), files)
    assert len(counts) >= 24
    signal_mv = counts_in_mv(counts)
    network.train()
    with torch.no_grad():
        for _ in range(40):
            network.log_hazard(network.embed(torch.from_numpy(signal_mv)))
    save_model(tmp_path / "model", network.eval(), kind, "")
    model = fedecg.load(tmp_path / "model")
    told = model.log_hazards(counts)
    assert np.ptp(told) > 1e-2
    for form, name, opened in (("onnx", "x.onnx", onnx_run), ("torch-export", "x.pt2", torch_run)):
        file = tmp_path / name
        assert main(["export", str(tmp_path / "model"), "--format", form, "--out", str(file)]) == 0
        run = opened(file)
        for n in (1, 2, len(counts)):
            np.testing.assert_allclose(run(signal_mv[:n]), told[:n], rtol=0, atol=1e-4)
