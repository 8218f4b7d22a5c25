"""Differential privacy of sites between real processes: clipped at the site, counted on disk, noised, told; a kill."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from whole_study import Deployment, Hospitals, make_hospitals, nothing_left, tiny_study, wait_until

from fedecg.config import PrivacySettings
from fedecg.privacy.accountant import Spend, epsilon_of, least_noise

MEANS = 4  # two rounds of each stage
TARGET = 8.0


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Hospitals:
    """Two, forced: what is tried is the way over the line, not how many it hides."""
    privacy = PrivacySettings(mode="client", client_force=True, client_clip=0.05, client_epsilon=TARGET)
    tiny = tiny_study(name="of-sites")
    survival = tiny.survival.model_copy(update={"baseline": "site"})
    settings = tiny.model_copy(update={"privacy": privacy, "survival": survival})
    return make_hospitals(settings, tmp_path_factory.mktemp("of-sites") / "hospitals")


def told_and_counted(deployment: Deployment) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What result.json says, and what stood on the disk before each mean was made."""
    result = json.loads((deployment.run / "result.json").read_text())
    counted = json.loads((deployment.run / "state" / "releases.json").read_text())["releases"]
    return result["privacy"], list(counted)


@pytest.mark.slow
@pytest.mark.timeout(500)
@pytest.mark.parametrize("killed", [False, True], ids=["undisturbed", "coordinator killed"])
def test_hospitals_learn_together_and_epsilon_counts_every_mean_that_was_made(
    hospitals: Hospitals, tmp_path: Path, killed: bool
) -> None:
    deployment = Deployment(hospitals, tmp_path / "deployment")
    with nothing_left(deployment):
        deployment.start()
        if killed:
            wait_until(lambda: len(deployment.rounds()) >= 1, 300.0, deployment.describe)
            os.kill(deployment.server.pid, signal.SIGKILL)
        assert deployment.run_to_the_end(400.0) == 0
        told, counted = told_and_counted(deployment)
        said = deployment.server.log.read_text()
        lock = deployment.members["city"].folder / "state" / "locks" / "of-sites.txt"
        agreed = lock.read_text()
    noise = least_noise(MEANS + 1, TARGET, 1e-5)
    assert {one["noise"] for one in counted} == {noise}
    assert MEANS <= len(counted) <= MEANS + (1 if killed else 0)  # at most the one in hand is counted twice
    assert (told["releases"], told["of-sites"], told["forced"]) == (len(counted), 2, True)
    spent = epsilon_of([Spend("aggregate", "train", noise, steps=len(counted))], 1e-5)
    assert told["epsilon"] == pytest.approx(spent, rel=1e-12)
    assert told["epsilon"] <= TARGET
    assert f"Differential privacy of sites: epsilon {spent:.3g} at delta 1e-05 for a site" in said
    assert "Forced with 2 sites" in said
    assert f"is planned, over {MEANS} aggregates with noise of {noise:.3g} x the clip" in said
    assert "this site's update is clipped to a norm of 0.05 before it leaves" in agreed
    assert f"the coordinator adds noise of {noise:.3g} x that" in agreed
