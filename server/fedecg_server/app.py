"""The ServerApp: reads which study to run and where to write it, and runs it.

In:  run settings `study` (a TOML file), `run-folder` and, if wanted, a `label` for progress.
Out: files in the run folder.
Run by Flower (`flwr run`), by the coordinator's server, or by a simulation.
"""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedecg.config import load_study
from fedecg.progress import Progress
from fedecg_server.run_folder import RunFolder
from fedecg_server.study import run_study

__all__ = ["app"]

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the study that the run settings name."""
    settings = load_study(str(context.run_config["study"]))
    progress = Progress(str(context.run_config.get("label", "")))
    run_study(grid, settings, RunFolder(Path(str(context.run_config["run-folder"]))), progress)
