"""Runs a study's two apps over virtual sites: in this process, or on Ray.

In:  settings, the folder with the site folders, the run folder. Out: what the ServerApp writes there.
Called by the runner for every column of the comparison.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from flwr.app import Context, RecordDict
from flwr.serverapp import Grid, ServerApp

from fedecg.config import StudySettings
from fedecg.errors import RunError
from fedecg_client.app import SITES_VARIABLE
from fedecg_client.app import app as client_app
from fedecg_server.app import app as server_app
from fedecg_simulations.grid import FIRST_NODE, RUN_ID, InProcessGrid

__all__ = ["run_federation", "server_context"]


def run_federation(settings: StudySettings, sites: Path, study: Path, run_folder: Path, label: str) -> None:
    """Run one federation over the sites of a folder.

    Args:
        settings: backend and threads are taken from here.
        sites: parent of the site folders.
        study: the study file that the ServerApp reads.
        run_folder: where the ServerApp writes.
        label: said before each line of progress.

    Raises:
        RunError: FECG-603 if Ray is asked for and not installed.
        FedecgError: whatever ends the study.
    """
    torch.set_num_threads(settings.federation.threads)
    run_config = {"study": str(study), "run-folder": str(run_folder), "label": label}
    folders = sorted(file.parent for file in sites.glob("*/site.toml"))
    if settings.federation.backend == "ray":
        _on_ray(run_config, sites, len(folders))
    else:
        nodes = {
            number: {"site-folder": str(folder)} for number, folder in enumerate(folders, start=FIRST_NODE)
        }
        server_app(InProcessGrid(client_app, nodes), server_context(run_config))


def server_context(run_config: Mapping[str, str]) -> Context:
    """What a SuperLink would give the ServerApp."""
    return Context(run_id=RUN_ID, node_id=0, node_config={}, state=RecordDict(), run_config=dict(run_config))


def _on_ray(run_config: dict[str, str], sites: Path, number: int) -> None:
    """The same apps on Flower's Ray backend; its contexts carry no settings, so ours bring them along."""
    try:
        import ray  # noqa: F401
    except ImportError:
        raise RunError(
            "FECG-603",
            "backend",
            found="ray is not installed",
            expected='federation.backend = "in-process"',
            fix="Or: pip install 'fedecg[ray]'.",
        ) from None
    from flwr.simulation import run_simulation

    app, failures = ServerApp(), []

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        context.run_config = dict(run_config)
        try:
            server_app(grid, context)
        except Exception as error:
            failures.append(error)

    os.environ[SITES_VARIABLE] = str(sites.resolve())
    try:
        run_simulation(app, client_app, number, backend_config={"client_resources": {"num_cpus": 1}})
    finally:
        del os.environ[SITES_VARIABLE]
    if failures:
        raise failures[0]
