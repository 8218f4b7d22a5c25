"""Weights as one vector, models as folders: what is written is what is read, and what was altered is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fedecg.config import ModelSettings, SignalSettings
from fedecg.errors import ModelError, RunError
from fedecg.model import (
    Network,
    build_network,
    layout,
    load_aligned,
    load_model,
    load_vector,
    save_model,
    stage_tensors,
    state_outcomes,
    to_vector,
)
from fedecg.model.package import check_package, write_sums

SIGNALS = SignalSettings(samples=320)
MODEL = ("SHA256SUMS", "model.json", "weights.safetensors")


def small(seed: int, preset: str = "fedecg") -> Network:
    settings = ModelSettings.model_validate({"preset": preset, "size": "small"})
    return build_network(settings, SIGNALS.samples, 8, seed)


@pytest.mark.parametrize("preset", ["fedecg", "paper"])
def test_a_vector_carries_all_weights_of_a_stage_and_nothing_else(preset: str) -> None:
    sender, receiver = small(1, preset), small(2, preset)
    before = {name: tensor.clone() for name, tensor in receiver.state_dict().items()}
    names = stage_tensors(sender, "align", True)
    vector = to_vector(sender, names)
    assert (vector.dtype, vector.ndim) == (np.float32, 1)
    load_vector(receiver, names, vector)
    for name, tensor in receiver.state_dict().items():
        assert torch.equal(tensor, (sender.state_dict() if name in names else before)[name])
    assert np.array_equal(to_vector(receiver, names), vector)


def test_the_layout_names_each_tensor_in_the_order_of_the_vector() -> None:
    network = small(1)
    names = stage_tensors(network, "survival", False)
    found = layout(network, names)
    assert [name for name, _ in found] == list(names)
    vector = to_vector(network, names)
    assert sum(int(np.prod(shape)) for _, shape in found) == len(vector)
    first, shape = found[0]
    size = int(np.prod(shape))
    assert np.array_equal(vector[:size].reshape(shape), network.state_dict()[first].numpy())
    assert found == layout(small(9), names)


def test_a_vector_is_a_copy() -> None:
    network = small(1)
    names = stage_tensors(network, "survival", False)
    vector = to_vector(network, names)
    before = vector.copy()
    with torch.no_grad():
        network.encoder.pooling.mean.weight.zero_()
    assert np.array_equal(vector, before)


@pytest.mark.parametrize("wrong", [lambda vector: vector[:-1], lambda vector: vector[None]])
def test_a_vector_of_another_shape_is_refused(wrong: Callable[[np.ndarray], np.ndarray]) -> None:
    network = small(1)
    names = stage_tensors(network, "survival", False)
    vector = to_vector(network, names)
    with pytest.raises(
        ModelError, match=rf"FECG-303 weight vector: found shape .*; expected \({len(vector)},\), "
    ):
        load_vector(network, names, wrong(vector))


def test_a_vector_with_nan_is_refused_and_changes_nothing() -> None:
    network = small(1)
    names = stage_tensors(network, "survival", False)
    vector = to_vector(network, names)
    broken = vector + 1
    broken[[3, 5]] = np.nan, np.inf
    with pytest.raises(ModelError, match=rf"FECG-304 .*found 2 of {len(vector)} values that are not finite"):
        load_vector(network, names, broken)
    assert np.array_equal(to_vector(network, names), vector)


@pytest.mark.parametrize("preset", ["fedecg", "paper"])
def test_a_model_folder_gives_back_the_same_network(tmp_path: Path, preset: str) -> None:
    network = small(1, preset).eval()
    save_model(tmp_path / "model", network, SIGNALS, "abc")
    saved = load_model(tmp_path / "model")
    assert (saved.signals, saved.bank_sha256, saved.network.settings) == (SIGNALS, "abc", network.settings)
    assert not saved.network.training
    signal_mv = torch.randn(3, 12, 320)
    assert torch.equal(saved.network.embed(signal_mv), network.embed(signal_mv))
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "SHA256SUMS",
        "model.json",
        "weights.safetensors",
    ]


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_model(tmp_path / name, small(1), SIGNALS, "")
    for file in ("SHA256SUMS", "model.json", "weights.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path, small(1), SIGNALS, "abc")
    return tmp_path


def test_a_changed_byte_of_the_weights_is_refused(folder: Path) -> None:
    weights = bytearray((folder / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(weights)
    with pytest.raises(
        ModelError, match=r"FECG-308 weights.safetensors: found sha256 \w{12}\.\.\.; expected \w{12}"
    ):
        load_model(folder)


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"FECG-306 model folder, {name}: found no such file"):
        load_model(folder)


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', "\xff"])
def test_settings_of_another_kind_are_refused(folder: Path, text: str) -> None:
    (folder / "model.json").write_text(text, encoding="latin-1")
    write_sums(folder, ["model.json"])
    with pytest.raises(ModelError, match=r"FECG-307 model.json: found .*; expected JSON of format 1"):
        load_model(folder)


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    described = json.loads((folder / "model.json").read_text())
    described["model"]["size"] = "base"
    (folder / "model.json").write_text(json.dumps(described))
    write_sums(folder, ["model.json"])
    with pytest.raises(
        ModelError, match=r"FECG-309 weights.safetensors: found RuntimeError; expected the tensors"
    ):
        load_model(folder)


def test_a_model_that_is_replaced_leaves_no_card_of_its_own(folder: Path) -> None:
    for name in ("model_card.md", "tripod.md"):
        (folder / name).write_text("of the earlier model")
    write_sums(folder, ["model_card.md", "tripod.md"])
    assert set(check_package(folder)) == {"model_card.md", "tripod.md", *MODEL}
    save_model(folder, small(2), SIGNALS, "abc")
    assert set(check_package(folder)) == {path.name for path in folder.iterdir()} == set(MODEL)


def test_what_a_model_was_trained_on_travels_with_it(folder: Path) -> None:
    before = load_model(folder)
    assert before.outcomes == "not stated"
    state_outcomes(folder, "simulated")
    after = load_model(folder)
    assert after.outcomes == "simulated"
    check_package(folder)
    assert after.weights_sha256 == before.weights_sha256


def test_an_earlier_model_gives_all_but_its_risk_head(folder: Path) -> None:
    earlier, network = small(1).state_dict(), small(2)
    head = {name: tensor.clone() for name, tensor in network.state_dict().items() if name.startswith("risk.")}
    load_aligned(network, folder, SIGNALS, "abc")
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, head[name] if name in head else earlier[name])


def test_a_model_of_another_kind_is_no_start(folder: Path) -> None:
    longer = SIGNALS.model_copy(update={"lowpass_hz": 30.0})
    with pytest.raises(
        ModelError, match=r"FECG-310 .*another \[signals\], another code bank than the study's"
    ):
        load_aligned(small(2), folder, longer, "abd")


def test_intercepts_of_a_discrete_time_loss_do_not_enter_the_file(tmp_path: Path) -> None:
    network = build_network(ModelSettings(size="small"), SIGNALS.samples, 8, 1, intercepts=5)
    assert "intercepts" in stage_tensors(network, "survival", False)
    save_model(tmp_path, network, SIGNALS, "")
    assert "intercepts" not in load_model(tmp_path).network.state_dict()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        RunError, match=r"FECG-601 file weights.safetensors: found a path that leads through a file"
    ):
        save_model(tmp_path / "file", small(1), SIGNALS, "")
