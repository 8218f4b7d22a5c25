"""The ServerApp: reads which study to run and where to write it, and runs it.

In:  run settings `study` (a TOML file), `run-folder`, if wanted a `label` for progress, and `sites`, the coordinator's
list of sites: with it only those take part, under the names they stand there with, and a killed run goes on.
Out: files in the run folder.
Run by Flower (`flwr run`), by the coordinator's server, or by a simulation.
"""

from __future__ import annotations

import json
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedecg.config import load_study
from fedecg.progress import Progress
from fedecg_server.attendance import Names
from fedecg_server.run_folder import RunFolder
from fedecg_server.study import run_study

__all__ = ["app"]

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the study that the run settings name."""
    config = {key: str(value) for key, value in context.run_config.items()}
    settings = load_study(config["study"])
    sites = config.get("sites", "")
    folder = RunFolder(Path(config["run-folder"]), resumable=bool(sites))
    names = registered(sites)
    run_study(grid, settings, folder, Progress(config.get("label", "")), names, fingerprints(sites))


def fingerprints(sites: str) -> dict[str, str]:
    """Name -> fingerprint of the key under which the site was added; empty without a list."""
    if not sites:
        return {}
    entries = json.loads(Path(sites).read_text(encoding="utf-8"))["sites"]
    return {name: entry["fingerprint"] for name, entry in entries.items()}


def registered(sites: str) -> Names | None:
    """Node id -> name, read anew at every call: sites are added and removed while a study runs."""
    if not sites:
        return None

    def names() -> dict[int, str]:
        entries = json.loads(Path(sites).read_text(encoding="utf-8"))["sites"]
        return {int(entry["node-id"]): name for name, entry in entries.items() if entry["node-id"]}

    return names
