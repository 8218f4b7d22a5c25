"""What is no checkpoint of the authors is refused, every misfit is named, and no code of a file is run."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from authors_checkpoint import State, refusal
from torch import nn

from fedecg.errors import ModelError
from fedecg.model import import_checkpoint
from fedecg.model.package import check_package


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


def test_a_file_in_the_folders_place_is_left_as_it_is(
    saved: Callable[..., Path], state: State, tmp_path: Path
) -> None:
    place = tmp_path / "model"
    place.write_text("somebody's")
    with pytest.raises(
        ModelError, match="FECG-317 folder of the import: found a file of that name; expected a"
    ):
        import_checkpoint(saved(state), place)
    assert place.read_text() == "somebody's"
