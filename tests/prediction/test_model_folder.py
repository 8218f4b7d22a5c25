"""What `verify` says of a folder, and what it refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import fedecg
from fedecg.errors import ModelError
from fedecg.prediction.folder import verify
from fedecg.prediction.outside import evaluate_outside, recalibrate

SETTINGS, WEIGHTS = "model.json", "weights.safetensors"


@pytest.fixture
def copy(model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / "copy"))


def edit(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    document = json.loads((folder / SETTINGS).read_text())
    change(document)
    (folder / SETTINGS).write_text(json.dumps(document))


def test_it_says_what_the_model_is(model_folder: Path) -> None:
    facts = verify(model_folder)
    assert (facts["preset"], facts["size"], facts["samples"], facts["rate-hz"]) == (
        "fedecg",
        "small",
        256,
        100,
    )
    assert facts["baseline"] == {"bins": 5, "follow-up-years": 4.11}
    assert facts["population"] == {"patients": 100}
    assert facts["recalibration"] is None
    assert facts["parameters"] == sum(
        parameter.numel() for parameter in fedecg.load(model_folder).saved.network.parameters()
    )


def test_an_aligned_model_is_sound_and_has_no_baseline(make_model: Callable[..., Path]) -> None:
    facts = verify(make_model(baseline=None, population=None))
    assert (facts["baseline"], facts["population"]) == (None, None)


def test_a_recalibrated_model_says_so(
    model_folder: Path, make_site: Callable[..., Path], tmp_path: Path
) -> None:
    model = fedecg.load(model_folder)
    recalibrate(model, evaluate_outside(model, make_site()), tmp_path / "own")
    told = verify(tmp_path / "own")["recalibration"]
    assert told["original-sha256"] == model.saved.settings_sha256
    assert told["observed"] == 14


def test_a_changed_weight_is_noticed(copy: Path) -> None:
    content = bytearray((copy / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (copy / WEIGHTS).write_bytes(content)
    with pytest.raises(ModelError, match="FECG-308 weights.safetensors: found sha256"):
        verify(copy)


def test_a_missing_file_is_noticed(copy: Path) -> None:
    (copy / WEIGHTS).unlink()
    with pytest.raises(ModelError, match="FECG-306 model folder, weights.safetensors"):
        verify(copy)


def test_an_unknown_key_is_another_format(copy: Path) -> None:
    edit(copy, lambda document: document.update({"surprise": 1}))
    with pytest.raises(ModelError, match="FECG-307 model.json"):
        verify(copy)


def test_a_hazard_that_falls_is_noticed(copy: Path) -> None:
    edit(copy, lambda document: document["baseline"].update({"cumulative-hazard": [0, 0.2, 0.1, 0.1, 0.1]}))
    with pytest.raises(ModelError, match="FECG-321|FECG-307"):
        verify(copy)
    edit(copy, lambda document: document["baseline"].update({"cumulative-hazard": [0.0, 0.2, 0.1, 0.1, 0.1]}))
    with pytest.raises(ModelError, match="FECG-321 baseline hazard"):
        verify(copy)


def test_weights_that_are_not_finite_are_noticed(make_model: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="FECG-304 weights: found 1 of [0-9]+ tensors that are not finite"):
        verify(make_model(poison=float("inf")))
