"""How a run has ended, and whether there is anything left to run.

In:  the coordinator's folder: `run/result.json`, `run/failed.json`, `run/status.json`. Out: an exit status, or None for
a run that goes on; the earlier run put aside. Called by the supervisor; run_folder.py has these files too, but loads
torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from fedecg.codes import CODES
from fedecg.errors import RunError
from fedecg.progress import Progress
from fedecg.report.privacy_section import site_level_lines
from fedecg_server.coordinator import Coordinator
from fedecg_server.outcome import final_c_index
from fedecg_server.room import CHECKPOINT, no_room
from fedecg_server.run_view import Failure, Result, Status, read_document
from fedecg_server.unfinished import check_same_study

__all__ = ["FAILED", "RESULT", "STATUS", "final_words", "json_or_none", "opened", "put_aside", "verdict"]

STATUS, RESULT, FAILED, STUDY = "status.json", "result.json", "failed.json", "study.toml"
BEGUN = (STUDY, STATUS, FAILED)  # any of them: a run was begun
ASSESSMENT = "assessment.json"
BELOW_QUORUM, NOT_WRITTEN = "FECG-507", "FECG-601"
PARTIAL, PARTIAL_STATUS = "completed-partial", 5
NEEDS_A_PERSON = 3
STATUS_OF_CLASS = {"1": 3, "2": 3, "3": 3, "4": 4}  # first digit of a code -> exit status; else 1


def verdict(coordinator: Coordinator, progress: Progress | None) -> int | None:
    """How the run has ended: an exit status, said in a line; None if it has not.

    Args:
        coordinator: the folder.
        progress: where the line goes; None: nowhere.
    """
    result, failed = json_or_none(coordinator.run / RESULT), json_or_none(coordinator.run / FAILED)
    if isinstance(result, dict):
        status = str(result.get("status", "completed"))
        c_index = final_words(coordinator)
        line = f"{status}; everything is in {coordinator.run.name}/"
        line += f". C-index {c_index}" if c_index else ""
        spent = site_level_lines(result)
        code = PARTIAL_STATUS if status == PARTIAL else 0
    elif isinstance(failed, dict):
        line, spent = f"the study ended: {failed.get('message')}", ()
        code = STATUS_OF_CLASS.get(str(failed.get("code"))[5:6], 1)
    else:
        return None
    if progress:
        progress.say(line)
        for words in spent:
            progress.say(words)
        for words in _causes(coordinator, failed) if isinstance(failed, dict) else ():
            progress.say(words)
    return code


def final_words(coordinator: Coordinator) -> str:
    """The C-index of a finished study, or why there is none; "" for one that is not finished or not evaluated."""
    result, assessment = (json_or_none(coordinator.run / name) for name in (RESULT, ASSESSMENT))
    if not isinstance(result, dict):
        return ""
    return final_c_index(result, assessment if isinstance(assessment, dict) else None)


def _causes(coordinator: Coordinator, failed: dict[str, Any]) -> Iterator[str]:
    """What stopped a study that ended with a code, as far as the folder tells, and where it is mended."""
    status = None
    with suppress(RunError):  # a damaged one costs these lines, and no more
        status = read_document(Status, coordinator.run / STATUS)
    for site in status.sites if status and failed.get("code") == BELOW_QUORUM else ():
        if site.state in ("rejected", "refused") and site.code:
            yield f"{site.name}: {site.code} {CODES.get(site.code, '')}; at that site: fedecg-client doctor"
    if failed.get("code") == NOT_WRITTEN and (full := no_room(coordinator)):
        yield full


def opened(coordinator: Coordinator, resume: bool, new: bool, progress: Progress) -> int | None:
    """Make the run folder ready; the exit status if there is nothing left to run.

    Args:
        coordinator: the folder.
        resume: go on with a run, also with one that ended with a code. That code stays in the folder: it is for the
            supervisor to take away, once everything runs that the study needs.
        new: begin another run. An earlier one stays in the folder: the supervisor puts it aside once everything runs
            that the study needs, so that a start that comes to nothing leaves it.
        progress: where it is said how the run has ended.

    Raises:
        RunError: FECG-602 if it cannot be told whether, or how, a run has ended; FECG-686 if there is none to resume;
            FECG-520 if it cannot go on with study.toml as it is now.
    """
    if new:
        return None
    read_document(Result, coordinator.run / RESULT)
    read_document(Failure, coordinator.run / FAILED)
    begun = any((coordinator.run / name).exists() for name in BEGUN)
    finished = (coordinator.run / RESULT).exists()
    if resume and (finished or not begun):
        raise RunError(
            "FECG-686",
            "run to resume",
            found="one that is finished" if finished else "none that was begun",
            expected="an unfinished run, or one that ended with a code",
            fix="Begin one: fedecg-server start, or, beside a finished one, fedecg-server start --new.",
        )
    if not finished:
        check_same_study(coordinator.run, coordinator.study())
    coordinator.run.mkdir(mode=0o700, exist_ok=True)
    ended = None if resume else verdict(coordinator, progress)
    if ended is not None:
        progress.say("nothing to do; another run: fedecg-server start --new")
        if (coordinator.run / FAILED).exists():
            progress.say("when its cause is mended, it goes on with: fedecg-server resume")
            return max(ended, NEEDS_A_PERSON)  # a service manager must not begin it again and again
    elif begun and not (coordinator.run / CHECKPOINT).exists():
        progress.say(
            "no checkpoint of this run is there (run/state): the study begins anew, with its first round"
        )
    return ended


def put_aside(coordinator: Coordinator, progress: Progress) -> None:
    """Make room for a new run; an earlier one stays whole, under another name, which is said."""
    if any((coordinator.run / name).exists() for name in (*BEGUN, RESULT)):
        aside = coordinator.run.with_name(f"run-{datetime.now():%Y%m%d-%H%M%S}")
        coordinator.run.rename(aside)
        progress.say(f"the earlier run is in {aside.name}/")
    coordinator.run.mkdir(mode=0o700, exist_ok=True)


def json_or_none(path: Path) -> Any:
    """What a file of the run says, or None if it is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
