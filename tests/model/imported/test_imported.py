"""The authors' checkpoints become model folders of ours: same outputs, and whatever wraps them is left and listed.

Their outputs are those that `tests/references/authors_encoder.py` recorded once with their own code; the weights are
made here again by its formula.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from authors_checkpoint import FACTS, OUTPUTS, State, as_lightning, encoder_of, reference
from safetensors.torch import save_file

import fedecg
from fedecg.cli import main
from fedecg.config import ModelSettings, SignalSettings
from fedecg.model import DualAttentionEncoder, build_network, import_checkpoint, load_model
from fedecg.model.authors_layout import their_shapes


@pytest.mark.parametrize("samples", reference.LENGTHS)
def test_same_input_same_output_as_the_authors_code(
    states: dict[int, State], samples: int, saved: Callable[..., Path], tmp_path: Path
) -> None:
    taken = import_checkpoint(saved(as_lightning(states[samples])), tmp_path / "model")
    assert (taken.samples, taken.parts, taken.tensors) == (
        samples,
        ("encoder", "decoder"),
        len(states[samples]),
    )
    model = fedecg.load(tmp_path / "model")
    assert isinstance(model.encoder, DualAttentionEncoder)
    assert not model.encoder.training
    with torch.inference_mode():
        signals = reference.signals(samples)
        embedding = model.encoder(signals)
        found = {
            "embedding": embedding,
            "lead_attention": model.encoder.attention(signals).lead.mean(dim=1),
            "time_attention": model.encoder.attention(signals).time.mean(dim=2)[0],
            "reconstruction": model.saved.network.reconstruct(embedding)[:, :, :: reference.EVERY],
        }
    compared = [name for name in found if f"{name}_{samples}" in OUTPUTS]
    assert len(compared) >= 3
    for name in compared:
        np.testing.assert_allclose(
            found[name].numpy(), OUTPUTS[f"{name}_{samples}"], rtol=0, atol=1e-4, err_msg=name
        )


def test_the_recorded_embeddings_depend_on_every_tensor_of_the_encoder(
    states: dict[int, State], folder: Path
) -> None:
    encoder, signals = load_model(folder).network.encoder, reference.signals(608)[:1]
    unmoved = []
    with torch.inference_mode():
        before = encoder(signals)
        for name, tensor in encoder.state_dict().items():
            if tensor.is_floating_point():
                parts = (tensor[11],) if name.startswith("temporal") else (tensor,)
                for part in parts:
                    kept = part.clone()
                    part.copy_(1.05 * kept + 0.05)
                    if (encoder(signals) - before).abs().max() < 1e-3:
                        unmoved.append(name)
                    part.copy_(kept)
    assert not unmoved


def test_the_formula_gives_the_same_numbers_on_every_machine() -> None:
    found = reference.uniform("encoder.input_conv.0.bias", 3)
    start = int.from_bytes(hashlib.sha256(b"encoder.input_conv.0.bias").digest()[:8], "little")
    for place, value in enumerate(found, 1):
        mixed = (start + place * 0x9E3779B97F4A7C15) % 2**64
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % 2**64
        assert value == ((mixed ^ mixed >> 31) >> 11) / 2**52 - 1


def test_the_names_and_shapes_that_are_expected_are_those_of_the_authors_code() -> None:
    for samples in reference.LENGTHS:
        network = build_network(ModelSettings(preset="paper"), samples, 1, seed=0)
        expected = {}
        for part in ("encoder", "decoder"):
            shapes = {name: tuple(one.shape) for name, one in getattr(network, part).state_dict().items()}
            expected |= {f"{part}.{name}": list(shape) for name, shape in their_shapes(part, shapes).items()}
        assert expected == FACTS["shapes"][str(samples)]


@pytest.mark.parametrize(
    "kind", ["encoder", "autoencoder", "data parallel", "survival", "safetensors", "legacy"]
)
def test_weights_are_found_under_any_prefix_and_in_any_wrapping(
    kind: str, state: State, saved: Callable[..., Path], folder: Path, tmp_path: Path
) -> None:
    if kind == "encoder":
        path = saved(encoder_of(state))
    elif kind == "autoencoder":
        path = saved(state)
    elif kind == "data parallel":
        path = saved({"model_state_dict": {f"module.{name}": tensor for name, tensor in state.items()}})
    elif kind == "survival":
        path = saved({"state_dict": state | {"downsteam_net.model.0.weight": torch.ones(512)}})
    elif kind == "legacy":
        path = saved(state, _use_new_zipfile_serialization=False)
    else:
        path = tmp_path / "authors.safetensors"
        save_file(state, path)
    taken = import_checkpoint(path, tmp_path / "model")
    assert taken.left == ({"downsteam_net": 1} if kind == "survival" else {})
    assert taken.parts == (("encoder",) if kind == "encoder" else ("encoder", "decoder"))
    signals = reference.signals(608)[:1]
    with torch.inference_mode():
        embeddings = [fedecg.load(one).encoder(signals) for one in (folder, tmp_path / "model")]
    assert torch.equal(*embeddings)


def test_heads_are_left_and_listed(
    state: State, saved: Callable[..., Path], tmp_path: Path, capsys: Any
) -> None:
    state |= {name: torch.ones(shape) for name, shape in FACTS["extra-with-linear"].items()}
    path = saved(as_lightning(state))
    assert main(["import-checkpoint", str(path), "--out", str(tmp_path / "model"), "--json"]) == 0
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert document["left"] == {"network.encoder.linear": 2, "ecg_projector": 4, "text_projector": 4}
    assert document["parts"] == ["encoder", "decoder"]
    assert "Their encoder ends in a linear layer that the preset has not" in " ".join(told.err.split())


def test_a_decoder_of_another_layout_is_left(
    state: State, saved: Callable[..., Path], tmp_path: Path
) -> None:
    del state["decoder.linear.1.weight"], state["decoder.linear.1.bias"]  # their num_linear_in_D = 1
    taken = import_checkpoint(saved(as_lightning(state)), tmp_path / "model")
    decoder = sum(name.startswith("decoder.") for name in state)
    assert taken.parts == ("encoder",)
    assert taken.left["network.decoder"] == decoder
    fresh = build_network(ModelSettings(preset="paper"), 608, 1, seed=0).decoder.state_dict()
    found = load_model(tmp_path / "model").network.decoder.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in fresh.items())


def test_half_precision_becomes_float32(state: State, saved: Callable[..., Path], tmp_path: Path) -> None:
    halves = {name: one.half() if one.is_floating_point() else one for name, one in state.items()}
    import_checkpoint(saved(halves), tmp_path / "model")
    found = fedecg.load(tmp_path / "model").encoder.state_dict()
    assert {tensor.dtype for tensor in found.values()} == {torch.float32, torch.int64}


def test_signal_settings_follow_the_weights_unless_stated(
    states: dict[int, State], saved: Callable[..., Path], tmp_path: Path
) -> None:
    paths = {samples: saved(encoder_of(one), f"{samples}.pt") for samples, one in states.items()}
    for samples, rate_hz, kind in ((608, 500, "median"), (1024, 100, "rhythm")):
        import_checkpoint(paths[samples], tmp_path / f"{samples}")
        assert fedecg.load(tmp_path / f"{samples}").signals == SignalSettings(
            input=kind, samples=samples, rate_hz=rate_hz
        )
    import_checkpoint(paths[608], tmp_path / "middle", {"input": "rhythm"})
    assert fedecg.load(tmp_path / "middle").signals == SignalSettings(samples=608, rate_hz=500)
    stated = {"rate_hz": 250, "samples": 608, "highpass_hz": 0.67, "lowpass_hz": 100.0}
    import_checkpoint(paths[608], tmp_path / "stated", stated)
    assert fedecg.load(tmp_path / "stated").signals == SignalSettings(**stated)
