"""Secure sums between real processes: keys in the lock, two messages a sum, the bits of one process, kills included."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from whole_study import (
    Deployment,
    Hospitals,
    Outcome,
    make_hospitals,
    nothing_left,
    run_in_one_process,
    tiny_study,
    wait_until,
    without_times,
)

from fedecg.config import PrivacySettings


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Hospitals:
    """Three, for a study under masks that needs all of them."""
    tiny = tiny_study(name="masked", quorum=3)
    sites = tiny.data.model_copy(update={"sites": {"city": 60, "coast": 50, "valley": 40}})
    settings = tiny.model_copy(update={"data": sites, "privacy": PrivacySettings(sums="masked")})
    return make_hospitals(settings, tmp_path_factory.mktemp("masked") / "hospitals")


@pytest.fixture(scope="module")
def expected(hospitals: Hospitals, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Of the same study in one process."""
    return run_in_one_process(hospitals, tmp_path_factory.mktemp("reference"))


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_three_hospitals_add_up_under_masks_to_the_bits_of_one_process(
    hospitals: Hospitals, expected: Outcome, tmp_path: Path
) -> None:
    deployment = Deployment(hospitals, tmp_path / "deployment")
    with nothing_left(deployment):
        deployment.start()
        assert deployment.run_to_the_end(400.0) == 0
        deployed = Outcome.of(deployment.run)
        for name in hospitals.names:
            state = deployment.members[name].folder / "state"
            lock = json.loads((state / "locks" / "masked.json").read_text())
            assert sorted(lock["site-keys"]) == hospitals.names
            (file,) = (state / "masks").glob("masked-*.json")
            assert file.stat().st_mode & 0o077 == 0
    assert deployed.status == "completed"
    assert deployed.weights == expected.weights
    assert deployed.evaluation == expected.evaluation
    assert deployed.assessment == expected.assessment
    # Signatures differ in length by a byte or two, and so do messages.
    assert [record | {"bytes": 0} for record in deployed.rounds] == [
        record | {"bytes": 0} for record in expected.rounds
    ]


@pytest.mark.slow
@pytest.mark.timeout(500)
@pytest.mark.parametrize("victim", ["coordinator", "app host", "site"])
def test_a_kill_in_the_middle_costs_neither_the_study_nor_a_bit(
    hospitals: Hospitals, expected: Outcome, tmp_path: Path, victim: str
) -> None:
    deployment = Deployment(hospitals, tmp_path / "deployment")

    def pid() -> int:
        if victim == "app host":
            return deployment.children().get("host", 0)
        return (deployment.server if victim == "coordinator" else deployment.sites["coast"]).pid

    with nothing_left(deployment):
        deployment.start()
        wait_until(lambda: len(deployment.rounds()) >= 2, 300.0, deployment.describe)
        booked = deployment.rounds()
        os.kill(pid(), signal.SIGKILL)
        assert deployment.run_to_the_end(400.0) == 0
        deployed = Outcome.of(deployment.run)
    assert without_times(deployment.rounds())[: len(booked)] == without_times(booked)
    assert deployed.status == "completed"
    assert deployed.weights == expected.weights
    assert deployed.evaluation == expected.evaluation
