"""A study with three real sites over TLS, run by the supervisor to its end: undisturbed, and with everything killed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import tomli_w
from coordinator_process import Running, Site, is_alive, make_coordinator, taken_runs, until

from fedecg.config import StudySettings
from fedecg_server.coordinator import Coordinator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROUNDS = 6


@contextmanager
def consortium(settings: StudySettings, sites: Path, folder: Path) -> Iterator[Coordinator]:
    """A coordinator, and three sites whose agents run."""
    coordinator = make_coordinator(folder / "coordinator")
    federation = settings.federation.model_copy(
        update={"quorum": 3, "deadline_s": 120.0, "patience_s": 240.0}
    )
    survival = settings.survival.model_copy(update={"rounds": ROUNDS})
    evaluation = settings.evaluation.model_copy(update={"explain": False})  # too few ECGs to explain
    changes = {"name": "three", "federation": federation, "survival": survival, "evaluation": evaluation}
    study = settings.model_copy(update=changes)
    coordinator.study_file.write_text(tomli_w.dumps(study.model_dump(by_alias=True, exclude_none=True)))
    shutil.copytree(sites.parent, folder / "consortium")
    folders = sorted(file.parent for file in (folder / "consortium" / "sites").glob("*/site.toml"))
    members = [Site(coordinator, folder) for folder in folders]
    try:
        for site in members:
            site.start()
        yield coordinator
    finally:
        for site in members:
            if site.process is not None:
                site.process.terminate()
        for site in members:
            site.stop()


@dataclass(frozen=True)
class End:
    """What a run has come to."""

    status: int
    said: str
    result: str
    survival_rounds: list[int]
    weights_sha256: str
    runs: int


def end_of(coordinator: Coordinator, status: int, said: str) -> End:
    rounds = json.loads((coordinator.run / "rounds.json").read_text())
    return End(
        status,
        said,
        json.loads((coordinator.run / "result.json").read_text())["status"],
        [entry["round"] for entry in rounds if entry["stage"] == "survival"],
        hashlib.sha256((coordinator.run / "model" / "weights.safetensors").read_bytes()).hexdigest(),
        len(taken_runs(coordinator)),
    )


def rounds(coordinator: Coordinator) -> int:
    try:
        return len(json.loads((coordinator.run / "rounds.json").read_text()))
    except (OSError, ValueError):
        return 0


@pytest.fixture(scope="module")
def undisturbed(settings: StudySettings, sites: Path, tmp_path_factory: pytest.TempPathFactory) -> End:
    """A run that nobody disturbs; when it has ended, none of its processes is left."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with consortium(settings, sites, folder) as coordinator, Running(coordinator) as running:
        until(lambda: running.children() and rounds(coordinator), 120.0, running.text())
        status = running.process.wait(240.0)
        assert not any(map(is_alive, running.seen))
        return end_of(coordinator, status, running.text())


def test_a_study_runs_to_its_end(undisturbed: End) -> None:
    assert (undisturbed.status, undisturbed.result) == (0, "completed"), undisturbed.said
    assert undisturbed.survival_rounds == list(range(1, ROUNDS + 1))
    assert "completed; everything is in run/" in undisturbed.said
    assert f"survival round 1 of {ROUNDS}" in undisturbed.said
    assert undisturbed.runs == 1


def test_superlink_app_host_and_supervisor_are_killed_and_it_ends_with_the_same_bits(
    undisturbed: End, settings: StudySettings, sites: Path, tmp_path: Path
) -> None:
    with consortium(settings, sites, tmp_path) as coordinator:
        with Running(coordinator) as running:
            until(lambda: rounds(coordinator) >= 1, 120.0, running.text())
            running.kill("superlink")
            until(lambda: rounds(coordinator) >= 3, 120.0, running.text())
            assert len(taken_runs(coordinator)) == 1  # the app host waited for the SuperLink
            running.kill("host")
            until(lambda: len(taken_runs(coordinator)) == 2, 60.0, running.text())
            until(lambda: rounds(coordinator) >= 4, 120.0, running.text())
        with Running(coordinator, "resume") as again:
            status = again.process.wait(240.0)
            end = end_of(coordinator, status, again.text())
    assert (end.status, end.result) == (0, "completed"), end.said
    assert end.survival_rounds == undisturbed.survival_rounds
    assert end.weights_sha256 == undisturbed.weights_sha256
    assert end.runs == 3
