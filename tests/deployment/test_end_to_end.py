"""A study from hospitals' folders to a model, with the real processes: the same bits as in one process."""

from __future__ import annotations

import os
import shutil
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

from fedecg.config import load_study

ROOT = Path(__file__).resolve().parents[2]
SHORT = [
    "name=ptbxl-development", "signals.samples=256",
    "align.rounds=2", "align.local-steps=3", "survival.rounds=3", "survival.local-steps=3",
    "federation.quorum=3", "federation.threads=1", "evaluation.explain-seeds=0", "evaluation.baselines=true",
]  # fmt: skip
TOO_SMALL = "site-2"  # 11 patients


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


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_three_sites_of_ptb_xl_train_evaluate_explain_and_compare_to_the_bits_of_one_process(
    data_root: Path, tmp_path: Path
) -> None:
    path = f"data.path={data_root / 'ptbxl'}"
    settings = load_study(ROOT / "configs" / "ptbxl.toml", [*SHORT, path])
    hospitals = make_hospitals(settings, tmp_path / "hospitals")
    shutil.rmtree(hospitals.folder / TOO_SMALL)
    deployment = Deployment(hospitals, tmp_path / "deployment")
    began = time.monotonic()
    with nothing_left(deployment):
        deployment.start()
        assert deployment.run_to_the_end(900.0) == 0
        deployed = Outcome.of(deployment.run)
    print(f"deployed in {time.monotonic() - began:.1f} s")
    expected = run_in_one_process(hospitals, tmp_path / "reference")
    assert [site["name"] for site in deployed.evaluation["sites"]] == ["site-0", "site-1", "site-3"]
    assert deployed.status == "completed"
    assert deployed.weights == expected.weights
    assert deployed.rounds == expected.rounds
    assert deployed.evaluation == expected.evaluation
    assert deployed.assessment == expected.assessment
    assert deployed.baselines == expected.baselines != {}
    assert deployed.explanation == expected.explanation != {}
