"""Submits the study to the running SuperLink, and sees to it that no other run is alive there.

In:  the coordinator's folder; a SuperLink that answers. Out: the id of the one run. Called by the supervisor.
Uses Flower's own command line, `flwr list | stop | run ... --format json`, about a second each.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any

from fedecg.federation.bundle import bundle_files
from fedecg.files import write_whole
from fedecg_server.child import Child
from fedecg_server.coordinator import Coordinator
from fedecg_server.superlink import CONNECTION, flower_environment

__all__ = ["SUBMIT_S", "SubmissionError", "submit_study"]

SUBMIT_S, LOOK_EVERY_S = 120.0, 0.1  # for all commands together
FINISHED = "finished"


class SubmissionError(Exception):
    """Flower's command line did not do it; its argument says what, in a few words."""


def submit_study(coordinator: Coordinator, stopped: Callable[[], bool] = lambda: False) -> str:
    """Stop whatever run is alive, submit the bundle, return the new run's id.

    Args:
        coordinator: whose study.
        stopped: looked at while waiting; True ends the wait.

    Raises:
        SubmissionError: the SuperLink is away or refuses; submit again later.
        RunError: FECG-601.
    """
    until = time.monotonic() + SUBMIT_S
    for run in _flower(coordinator, stopped, until, "list", CONNECTION)["runs"]:
        if not str(run["status"]).startswith(FINISHED):
            _flower(coordinator, stopped, until, "stop", str(run["run-id"]), CONNECTION)
    shutil.rmtree(coordinator.bundle, ignore_errors=True)  # whatever lies there would get into the bundle
    for name, text in bundle_files().items():
        write_whole(coordinator.bundle / name, text)
    return str(_flower(coordinator, stopped, until, "run", str(coordinator.bundle), CONNECTION)["run-id"])


def _flower(
    coordinator: Coordinator, stopped: Callable[[], bool], until: float, *words: str
) -> dict[str, Any]:
    """What `flwr WORDS --format json` answers."""
    child = Child(
        ["flwr", *words, "--format", "json"],
        flower_environment(coordinator),
        coordinator.superlink_log,
        read=True,
    )
    output = b""
    while True:
        try:
            output, _ = child.process.communicate(timeout=LOOK_EVERY_S)
            break
        except subprocess.TimeoutExpired:
            if stopped() or time.monotonic() > until:
                child.stop(within_s=0.0)
                raise SubmissionError(
                    f"flwr {words[0]} was not done within {SUBMIT_S:.0f} s of a submission"
                ) from None
    try:
        answer = json.loads(output)
    except ValueError:
        answer = {}
    if not isinstance(answer, dict) or not answer.get("success"):
        raise SubmissionError(f"flwr {words[0]} failed with status {child.process.returncode}")
    return answer
