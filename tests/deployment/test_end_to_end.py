"""A study from hospitals' folders to a model, with the real processes: the same bits as in one process."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from whole_study import (
    Deployment,
    Outcome,
    make_hospitals,
    nothing_left,
    run_in_one_process,
    tiny_study,
    wait_until,
)


def in_mid_round(deployment: Deployment, site: str) -> int:
    """Wait until a site trains in the survival stage; its worker."""

    def trains() -> bool:
        said = deployment.site_state(site, "progress.json")
        return said.get("phase") == "survival" and said.get("steps", 0) > 0

    def look() -> int:
        deployment.tend()
        return deployment.worker(site) if trains() else 0

    return int(wait_until(look, 120.0, deployment.describe))


@pytest.mark.timeout(280)
def test_two_hospitals_train_to_the_bits_of_one_process_although_a_worker_is_killed_in_mid_round(
    tmp_path: Path,
) -> None:
    hospitals = make_hospitals(tiny_study(), tmp_path / "hospitals")
    deployment = Deployment(hospitals, tmp_path / "deployment")
    began = time.monotonic()
    with nothing_left(deployment):
        deployment.start()
        worker = in_mid_round(deployment, "city")
        os.kill(worker, signal.SIGKILL)
        assert deployment.run_to_the_end(200.0) == 0
        events = (deployment.members["city"].folder / "state" / "events.jsonl").read_text()
        assert '"worker-died"' in events
        deployed = Outcome.of(deployment.run)
    print(f"deployed in {time.monotonic() - began:.1f} s")
    assert deployed.status == "completed"
    assert deployed == run_in_one_process(hospitals, tmp_path / "reference")
