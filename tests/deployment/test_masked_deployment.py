"""Secure sums between real processes: keys in the lock, two messages a sum, the bits of one process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from whole_study import Deployment, Outcome, make_hospitals, nothing_left, run_in_one_process, tiny_study

from fedecg.config import PrivacySettings


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_three_hospitals_add_up_under_masks_to_the_bits_of_one_process(tmp_path: Path) -> None:
    tiny = tiny_study(name="masked", quorum=3)
    sites = tiny.data.model_copy(update={"sites": {"city": 60, "coast": 50, "valley": 40}})
    settings = tiny.model_copy(update={"data": sites, "privacy": PrivacySettings(sums="masked")})
    hospitals = make_hospitals(settings, tmp_path / "hospitals")
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
    expected = run_in_one_process(hospitals, tmp_path / "reference")
    assert deployed.status == "completed"
    assert deployed.weights == expected.weights
    assert deployed.evaluation == expected.evaluation
    assert deployed.assessment == expected.assessment
    # Signatures differ in length by a byte or two, and so do messages.
    assert [record | {"bytes": 0} for record in deployed.rounds] == [
        record | {"bytes": 0} for record in expected.rounds
    ]
