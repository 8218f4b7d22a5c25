"""The authors' checkpoints become model folders of ours: same outputs, no code run, and every misfit named.

Their outputs are those that `tests/references/authors_encoder.py` recorded once with their own code; the weights are
made here again by its formula.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import wfdb
from safetensors.torch import save_file
from torch import Tensor, nn

import fedecg
from fedecg.cli import main
from fedecg.config import ModelSettings, SignalSettings
from fedecg.errors import ModelError
from fedecg.model import (
    DualAttentionEncoder,
    build_network,
    import_checkpoint,
    load_aligned,
    load_model,
    save_model,
)
from fedecg.model.authors_layout import their_shapes
from fedecg.model.package import check_package
from fedecg.prediction.export import export_network
from fedecg.prediction.folder import verify
from fedecg.signals import LEADS

REFERENCE = Path(__file__).resolve().parents[1] / "references" / "authors_encoder.py"
State = dict[str, Tensor]


def load_reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("authors_encoder", REFERENCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = load_reference()
FACTS = json.loads(reference.FACTS.read_text())
OUTPUTS = dict(np.load(reference.OUTPUTS))


@pytest.fixture(scope="module")
def states() -> dict[int, State]:
    """T -> the authors' autoencoder with weights by the formula, as their `ECGAttentionAE` names them."""
    return {samples: reference.weights(FACTS["shapes"][str(samples)]) for samples in reference.LENGTHS}


@pytest.fixture
def state(states: dict[int, State]) -> State:
    return dict(states[608])


def encoder_of(state: State) -> State:
    """Their encoder alone, as `encoder.state_dict()` gives it."""
    return {name[8:]: tensor for name, tensor in state.items() if name.startswith("encoder.")}


def as_lightning(state: State) -> dict[str, Any]:
    """A checkpoint as their pretraining leaves it: prefix, projectors, optimiser, and a command line."""
    heads = {
        f"{head}_projector.{layer}.{kind}": torch.ones(3)
        for head in ("ecg", "text")
        for layer in (0, 2)
        for kind in ("weight", "bias")
    }
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.0.2",
        "state_dict": {f"network.{name}": tensor for name, tensor in state.items()} | heads,
        "optimizer_states": [
            {"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": [{"betas": (0.9, 0.95)}]}
        ],
        "hyper_parameters": {"args": argparse.Namespace(ae_type="ECG_attention_512", seed=72), "lr": 1e-3},
    }


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    def save(content: object, name: str = "authors.ckpt", **how: Any) -> Path:
        torch.save(content, tmp_path / name, **how)
        return tmp_path / name

    return save


@pytest.fixture(scope="module")
def folder(states: dict[int, State], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of an imported Lightning checkpoint, T = 608."""
    place = tmp_path_factory.mktemp("imported")
    torch.save(as_lightning(states[608]), place / "authors.ckpt")
    import_checkpoint(place / "authors.ckpt", place / "model")
    return place / "model"


def refusal(path: Path, out: Path, **signals: float) -> str:
    with pytest.raises(ModelError) as refused:
        import_checkpoint(path, out, signals)
    assert not out.exists()
    return str(refused.value)


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


class Program:
    """Unpickled by the ordinary reader it runs a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_checkpoint_that_needs_code_is_refused_and_runs_none(
    new_format: bool, state: State, saved: Callable[..., Path], tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    content = {"state_dict": state, "callback": Program(marker)}
    path = saved(content, _use_new_zipfile_serialization=new_format)
    assert refusal(path, tmp_path / "model") == (
        "FECG-312 checkpoint: found posix.system, which is no tensor and no plain container; expected tensors, "
        "numbers, text, lists and dictionaries. Nothing was run. Whoever trusts the file writes its state dict alone, "
        "elsewhere: torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'weights.pt')."
    )
    assert not marker.exists()
    torch.load(path, weights_only=False)  # the file would have done it
    assert marker.exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(tmp_path / "authors.ckpt"))
    text = refusal(tmp_path / "authors.ckpt", tmp_path / "model")
    assert text.startswith("FECG-312 checkpoint: found a program; expected tensors, numbers, text")


def test_a_whole_pickled_network_is_refused(saved: Callable[..., Path], tmp_path: Path) -> None:
    assert refusal(saved(nn.Linear(2, 2)), tmp_path / "model").startswith(
        "FECG-312 checkpoint: found torch.nn.modules.linear.Linear, which is no tensor"
    )


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "no such file"),
        (b"", "content that cannot be read (EOFError)"),
        (b"not a checkpoint", "content that cannot be read (UnpicklingError)"),
        ({"epoch": 3}, "no tensors with names"),
        ([torch.ones(2)], "no tensors with names"),
        ({"state_dict": {"a": torch.ones(2).to_sparse()}}, "no tensors with names"),
    ],
)
def test_a_file_without_readable_tensors_is_refused(content: Any, found: str, tmp_path: Path) -> None:
    path = tmp_path / "authors.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    assert refusal(path, tmp_path / "model") == (
        f"FECG-311 checkpoint: found {found}; expected a file of torch.save or a .safetensors file with named tensors. "
        "Download it again; a Lightning checkpoint (.ckpt) and a plain state dict will do."
    )


def test_a_checkpoint_cut_short_is_refused(state: State, saved: Callable[..., Path], tmp_path: Path) -> None:
    path = saved(state)
    path.write_bytes(path.read_bytes()[:-5000])
    assert refusal(path, tmp_path / "model").startswith(
        "FECG-311 checkpoint: found content that cannot be read"
    )


def test_weights_of_no_or_of_two_encoders_are_refused(
    state: State, saved: Callable[..., Path], tmp_path: Path
) -> None:
    other = {f"layer{number}.weight\n": torch.ones(2) for number in range(7)}
    assert refusal(saved(other), tmp_path / "model") == (
        "FECG-313 checkpoint: found 0 encoders in 7 tensors (layer0.weight?, layer1.weight?, layer2.weight?, "
        "layer3.weight?, layer4.weight?, and 2 more); expected one encoder of the authors: one tensor "
        "...input_conv.0.weight. Weights of another network cannot be imported; of several, save the state dict of one."
    )
    two = {f"{name}.{key}": tensor for name in ("teacher", "student") for key, tensor in state.items()}
    assert "found 2 encoders in 666 tensors (teacher.encoder., student.encoder.)" in refusal(
        saved(two), tmp_path / "model"
    )


def test_missing_unknown_and_misshaped_tensors_are_counted_and_named(
    state: State, saved: Callable[..., Path], tmp_path: Path
) -> None:
    for lead in range(12):
        del state[f"encoder.attention.time_mha.{lead}.in_proj_bias"]
    state["encoder.attention.lead_embedding"] = torch.ones(12)
    state["encoder.attention.norm2.bias"] = torch.ones(3)
    text = refusal(saved(state), tmp_path / "model")
    names = ", ".join(f"attention.time_mha.{lead}.in_proj_bias" for lead in range(5))
    assert text == (
        f"FECG-314 encoder of the checkpoint: found 12 missing ({names}, and 7 more), 1 unknown "
        "(attention.lead_embedding), 1 of another shape (attention.norm2.bias); expected the tensors of the authors' "
        "encoder for 608 samples (base_feature_dim 4, z_dims 512, downsample_factor 5, 12 leads). Networks of other "
        "options (no_lead_attention, add_time, other widths) cannot be imported."
    )


def test_a_network_without_attention_across_leads_is_refused(
    state: State, saved: Callable[..., Path], tmp_path: Path
) -> None:
    kept = {name: tensor for name, tensor in state.items() if ".lead_" not in name}
    assert "found 10 missing (attention.lead_mha.in_proj_weight," in refusal(saved(kept), tmp_path / "model")
    del kept["encoder.attention.norm2.weight"]  # nothing tells the length any more
    assert "found 11 missing (attention.norm2.weight," in refusal(saved(kept), tmp_path / "model")


def test_weights_that_are_not_finite_are_refused(
    state: State, saved: Callable[..., Path], tmp_path: Path
) -> None:
    state["encoder.attention.norm2.bias"] = torch.full((304,), torch.nan)
    assert refusal(saved(state), tmp_path / "model").startswith(
        "FECG-304 weights of the checkpoint: found 1 of 238 tensors that are not finite (attention.norm2.bias)"
    )


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


@pytest.mark.parametrize(
    ("signals", "found"),
    [
        ({"samples": 1024}, "samples 1024, and weights for 608"),
        ({"rate_hz": 20}, "rate_hz Input should be greater than or equal to 50"),
        ({"rate_hz": 60}, "expected highpass-hz < lowpass-hz < rate-hz / 2"),
    ],
)
def test_signal_settings_that_do_not_fit_are_refused(
    signals: dict[str, float], found: str, state: State, saved: Callable[..., Path], tmp_path: Path
) -> None:
    text = refusal(saved(state), tmp_path / "model", **signals)
    assert text.startswith(f"FECG-315 signal settings of the import: found {found}; expected a rate, a band")


def test_a_length_that_no_settings_allow_is_refused_before_memory_is_taken(
    state: State, saved: Callable[..., Path], tmp_path: Path
) -> None:
    state["encoder.attention.norm2.weight"] = torch.ones(1).expand(16 * 10**6)
    text = refusal(saved(state), tmp_path / "model")
    assert text.startswith("FECG-315 signal settings of the import: found samples Input should be less than")


def test_a_folder_that_is_not_empty_is_left_as_it_is(
    folder: Path, saved: Callable[..., Path], state: State
) -> None:
    before = check_package(folder)
    with pytest.raises(
        ModelError, match=r"FECG-317 folder of the import: found a folder that is not empty; expected a"
    ):
        import_checkpoint(saved(state), folder)
    assert check_package(folder) == before


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
