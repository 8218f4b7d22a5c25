"""The verdicts ship with the model that was tested, under its sums, and with no other."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedecg.config import SignalSettings
from fedecg.errors import ModelError
from fedecg.explanation import faithfulness_sums
from fedecg.explanation.entry import explanation_entry
from fedecg.explanation.verdicts import read_verdicts, write_verdicts
from fedecg.model import Network, load_model, save_model
from fedecg.model.package import check_package


@pytest.fixture(scope="module")
def entry(network: Network, ecgs: Any) -> dict[str, Any]:
    part = slice(20)
    sums = faithfulness_sums(network, ecgs.signal_mv[part], ecgs.time[part], ecgs.event[part], seed=4)
    return explanation_entry("test", {"city": sums}, mixes_leads=False)


@pytest.fixture
def folder(tmp_path: Path, network: Network, entry: dict[str, Any]) -> Path:
    save_model(tmp_path / "model", network, SignalSettings(samples=256), "")
    write_verdicts(tmp_path / "model", entry)
    return tmp_path / "model"


def weights_of(folder: Path) -> str:
    return load_model(folder).weights_sha256


def test_what_was_written_is_read_and_stands_among_the_models_sums(
    folder: Path, entry: dict[str, Any]
) -> None:
    assert "explanation.json" in check_package(folder)
    verdicts = read_verdicts(folder, weights_of(folder))
    assert verdicts is not None
    assert verdicts.captions == entry["captions"]
    assert (verdicts.ecgs, verdicts.sites, verdicts.part) == (20, 1, "test")
    assert [(one.test, one.passed, one.tested) for one in verdicts.verdicts] == [
        (one["test"], one["passed"], one["tested"]) for one in entry["verdicts"]
    ]


def test_a_model_that_was_not_tested_has_no_verdicts(tmp_path: Path, network: Network) -> None:
    save_model(tmp_path, network, SignalSettings(samples=256), "")
    assert read_verdicts(tmp_path, weights_of(tmp_path)) is None


def test_a_model_that_replaces_another_does_not_inherit_its_verdicts(folder: Path, network: Network) -> None:
    save_model(folder, network, SignalSettings(samples=256), "")
    assert read_verdicts(folder, weights_of(folder)) is None
    check_package(folder)


def test_verdicts_that_were_changed_or_lost_are_noticed(folder: Path) -> None:
    weights, file = weights_of(folder), folder / "explanation.json"
    text = file.read_text()
    file.write_text(text.replace("is not an explanation", "is an explanation"))
    with pytest.raises(ModelError, match=r"FECG-308 explanation\.json: found sha256"):
        read_verdicts(folder, weights)
    file.unlink()
    with pytest.raises(ModelError, match=r"FECG-306 model folder, explanation\.json: found no such file"):
        read_verdicts(folder, weights)


def test_verdicts_of_another_kind_or_of_other_weights_are_refused(folder: Path) -> None:
    with pytest.raises(
        ModelError, match=r"FECG-361 model folder, explanation\.json: found tests of other weights; exp"
    ):
        read_verdicts(folder, "0" * 64)
    (folder / "SHA256SUMS").unlink()  # a model of before there were sums
    file = folder / "explanation.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps(document | {"format": 2, "more": 1}))
    with pytest.raises(
        ModelError, match=r"FECG-361 .* found 2 problem\(s\); expected the tests of this model's attention"
    ):
        read_verdicts(folder, weights_of(folder))
