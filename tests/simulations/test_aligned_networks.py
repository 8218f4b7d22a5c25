"""Alignment shared between studies: the bits of a study of one piece, made once, never for another alignment."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_studies import tiny_study

from fedecg.model import load_model
from fedecg_simulations.cli import main


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aligned")
    text = tiny_study(
        folder / "store",
        seed=100,
        data={"events": 4, "sites": {"city": 130, "coast": 90}},
        align={"rounds": 2, "local-steps": 2, "batch-size": 16},
        survival={"local-steps": 2},
    )
    (folder / "tiny.toml").write_text(text)
    return folder


def run(place: Path, name: str, *overrides: str) -> dict[str, Any]:
    """Run the study; returns its summary."""
    command = ["run", str(place / "tiny.toml"), "--out", str(place / name)]
    assert main([*command, "--set", *overrides] if overrides else command) == 0
    summary: dict[str, Any] = json.loads((place / name / "summary.json").read_text())
    return summary


def weights(place: Path, name: str) -> bytes:
    return (place / name / "model" / "weights.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(place: Path) -> dict[str, Any]:
    """A study of one piece."""
    return run(place, "whole")


@pytest.fixture(scope="module")
def shared(place: Path) -> dict[str, Any]:
    """The same one, which leaves its aligned network for others."""
    return run(place, "shared", f"data.aligned={place / 'networks'}")


def test_a_study_of_two_pieces_ends_with_the_bits_of_one_piece(
    place: Path, whole: dict[str, Any], shared: dict[str, Any]
) -> None:
    assert weights(place, "shared") == weights(place, "whole")
    assert shared["columns"] == whole["columns"]
    assert shared["rounds"] == whole["rounds"] == {"align": 2, "survival": 1}
    assert "aligned" not in whole
    assert (shared["aligned"]["reused"], shared["aligned"]["rounds"]) == (False, 2)
    assert set(shared["aligned"]["loss"]["last"]) == {"city", "coast"}


def test_only_train_outcomes_are_forgotten_and_the_summary_says_how_many(whole: dict[str, Any]) -> None:
    parts = [site["parts"] for site in whole["sites"]]
    assert sum(part["train"]["events"] for part in parts) == 4
    unknown = sum(part["align"]["patients"] for part in parts)
    assert unknown == whole["notes"]["training records without a known outcome"] > 0
    assert all(part["align"]["events"] == 0 for part in parts)
    assert sum(part[name]["patients"] for part in parts for name in ("train", "align")) == 176
    assert sum(site["patients"] for site in whole["sites"]) == 280 - unknown


def test_another_number_of_known_events_starts_from_the_same_network(
    place: Path, shared: dict[str, Any]
) -> None:
    more = run(place, "more", f"data.aligned={place / 'networks'}", "data.events=6", "survival.rounds=2")
    assert more["aligned"] == shared["aligned"] | {"reused": True}
    assert run(place, "more-whole", "data.events=6", "survival.rounds=2")["columns"] == more["columns"]
    assert weights(place, "more") == weights(place, "more-whole")


@pytest.mark.slow
@pytest.mark.parametrize("change", ["align.targets=shuffled", "seed=101", "align.rounds=1"])
def test_another_alignment_has_a_network_of_its_own(place: Path, shared: dict[str, Any], change: str) -> None:
    other = run(place, "other", f"data.aligned={place / 'networks'}", change, "survival.rounds=0")
    assert not other["aligned"]["reused"]
    assert other["aligned"]["network"] != shared["aligned"]["network"]


@pytest.mark.slow
def test_shuffled_statements_do_not_depend_on_whose_outcome_is_known(place: Path) -> None:
    changes = ("align.targets=shuffled", "survival.rounds=0")
    run(place, "four", *changes)
    run(place, "six", *changes, "data.events=6")
    rounds = [json.loads((place / name / "rounds.json").read_text()) for name in ("four", "six")]
    losses = [[entry["loss"] for entry in of if entry["stage"] == "align"] for of in rounds]
    assert losses[0] == losses[1]


def test_a_study_without_alignment_makes_no_network(place: Path) -> None:
    none = run(place, "none", f"data.aligned={place / 'no-networks'}", "align.rounds=0")
    assert "aligned" not in none
    assert not (place / "no-networks").exists()


SCHEDULES = {
    "survival.freeze-rounds=1": {"risk"},
    "survival.encoder-rate=0.1": {"encoder", "risk"},
    "survival.layer-decay=0.5": {"encoder", "risk"},
    "survival.alignment=0.3": {"encoder", "risk", "projection", "temperature_scale"},
}


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_federation_moves_only_what_its_schedule_trains(
    place: Path, shared: dict[str, Any], schedule: str
) -> None:
    rates = ("survival.learning-rate=0.01", "federation.threads=1")
    tuned = run(place, "tuned", f"data.aligned={place / 'networks'}", schedule, *rates)
    assert tuned["best-round"] == 1  # else the model would be the one before training
    aligned = place / "networks" / tuned["aligned"]["network"] / "model"
    states = [load_model(folder).network.state_dict() for folder in (aligned, place / "tuned" / "model")]
    moved = {name.split(".")[0] for name in states[0] if not torch.equal(states[0][name], states[1][name])}
    assert moved == SCHEDULES[schedule]
