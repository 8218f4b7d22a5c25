"""Differential privacy of patients between real processes: a killed worker pays from the reserve, and what leaves."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from whole_study import Deployment, Hospitals, make_hospitals, nothing_left, tiny_study, wait_until

from fedecg.config import PrivacySettings, load_site
from fedecg.privacy.accountant import epsilon_of
from fedecg.privacy.egress import EgressRecord
from fedecg.privacy.ledger import Entry, open_ledger

EPSILON, DELTA = 200.0, 1e-5  # with less, noise leaves no event of so few
PUBLIC = {"site", "round", "code-fingerprint", "lock-sha256", "failed"}
FROM_LOCK_AND_LEDGER = ("spends.", "noised.spends.", "ledger.", "budget.")
NOISED = ("train-e", "noised.train-exp-sums", "validation-e", "cells.")  # events, sums of exp; histograms
NOTHING: tuple[Any, ...] = (None, 0, [], {}, "")


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Hospitals:
    """Two, each with a budget of its own in its site.toml."""
    tiny = tiny_study(name="private")
    privacy = PrivacySettings(mode="sample", sums="noised", sampling_rate=0.2, sums_share=0.5)
    survival = tiny.survival.model_copy(update={"horizon_days": 3653.0})
    settings = tiny.model_copy(update={"privacy": privacy, "survival": survival})
    made = make_hospitals(settings, tmp_path_factory.mktemp("private") / "hospitals")
    for name in made.names:
        file = made.folder / name / "site.toml"
        document = load_site(file).model_dump(by_alias=True, exclude_none=True, exclude_defaults=True)
        document["privacy"] = {"epsilon": EPSILON, "delta": DELTA}
        kept = {key: document[key] for key in ("name", "privacy")} | {"cohort": "cohort.csv"}
        (store,) = (made.folder / name / "store").iterdir()
        file.write_text(tomli_w.dumps(kept | {"store": f"store/{store.name}"}))
    return made


def spent(entries: tuple[Entry, ...], part: str) -> float:
    return epsilon_of([entry.spend for entry in entries if entry.spend.part == part], DELTA)


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_hospitals_spend_what_they_planned_and_a_killed_worker_pays_from_the_reserve(
    hospitals: Hospitals, tmp_path: Path
) -> None:
    deployment = Deployment(hospitals, tmp_path / "deployment")
    with nothing_left(deployment):
        deployment.start()
        wait_until(lambda: len(deployment.rounds()) >= 1, 300.0, deployment.describe)
        worker = wait_until(lambda: deployment.worker("coast"), 60.0, deployment.describe)
        os.kill(worker, signal.SIGKILL)
        assert deployment.run_to_the_end(400.0) == 0
        result = json.loads((deployment.run / "result.json").read_text())
        told = {site["name"]: site for site in result["privacy"]["sites"]}
        for name in hospitals.names:
            folder = deployment.members[name].folder
            with open_ledger(folder) as ledger:
                entries, head = ledger.entries, ledger.head
            most = max(spent(entries, part) for part in ("train", "validation", "test"))
            assert most <= EPSILON
            assert told[name]["epsilon"] <= most * (1 + 1e-9)
            assert head.sequence == len(entries) > 6
            lines = [line for line in EgressRecord(folder / "state" / "egress").read() if line["kind"]]
            assert {line["kind"] for line in lines} >= {
                "JoinReply",
                "TrainReply",
                "SurveyReply",
                "EvaluateReply",
            }
            for line in lines:
                for key, value in line["values"].items():
                    free = key in PUBLIC or key.startswith(FROM_LOCK_AND_LEDGER) or value in NOTHING
                    assert free or key.startswith(NOISED), key
                    if not free:
                        assert all(number != round(number) for number in value), key
        agreed = (deployment.members["city"].folder / "state" / "locks" / "private.txt").read_text()
    assert result["status"] in ("completed", "completed-partial")
    assert "Differential privacy of patients: in each of 18 steps" in agreed
