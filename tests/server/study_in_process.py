"""A study in the test's own process: made over a consortium's folders, and run from wherever it stands to its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedecg.config import StudySettings
from fedecg.progress import Progress
from fedecg_client.app import app as client_app
from fedecg_server.run_folder import RunFolder
from fedecg_server.study import Study
from fedecg_simulations.grid import FIRST_NODE, InProcessGrid


class Killed(BaseException):
    """What no `except Exception` stops."""


def study_over(sites: Path, settings: StudySettings, folder: Path, resumable: bool = True) -> Study:
    """A study of every site below a folder, whose own folder keeps a checkpoint."""
    folders = sorted(file.parent for file in sites.glob("*/site.toml"))
    nodes = {number: {"site-folder": str(site)} for number, site in enumerate(folders, start=FIRST_NODE)}
    return Study(
        InProcessGrid(client_app, nodes), settings, RunFolder(folder, resumable=resumable), Progress()
    )


def to_the_end(run: Study) -> dict[str, Any]:
    """The result of a study that begins or goes on, as `run_study` does it."""
    run.resume_or_begin()
    run.join()
    run.align()
    return run.conclude(*run.survive())


def without_times(tree: Any) -> Any:
    """A result without what differs between any two runs."""
    if isinstance(tree, dict):
        return {key: without_times(value) for key, value in tree.items() if key not in ("seconds", "run")}
    return [without_times(item) for item in tree] if isinstance(tree, list) else tree
