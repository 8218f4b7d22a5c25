"""Runs a study's two apps over virtual sites: in this process, or on Ray.

In:  settings, the folder with the site folders, the run folder. Out: what the ServerApp writes there.
Called by the runner for every column of the comparison.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
        RunError: FECG-603 Ray is asked for and not installed; FECG-634 it has no room for a site.
        FedecgError: whatever ends the study.
    """
    torch.set_num_threads(settings.federation.threads)
    run_config = {"study": str(study), "run-folder": str(run_folder), "label": label}
    folders = sorted(file.parent for file in sites.glob("*/site.toml"))
    if settings.federation.backend == "ray":
        _on_ray(settings, run_config, sites, len(folders))
    else:
        nodes = {
            number: {"site-folder": str(folder)} for number, folder in enumerate(folders, start=FIRST_NODE)
        }
        server_app(InProcessGrid(client_app, nodes), server_context(run_config))


def server_context(run_config: Mapping[str, str]) -> Context:
    """What a SuperLink would give the ServerApp."""
    return Context(run_id=RUN_ID, node_id=0, node_config={}, state=RecordDict(), run_config=dict(run_config))


def _on_ray(settings: StudySettings, run_config: dict[str, str], sites: Path, number: int) -> None:
    """The same apps on Flower's Ray backend; its contexts carry no settings, so ours bring them along."""
    cpus, gpus = settings.federation.ray_cpus, settings.federation.ray_gpus
    app, failures = ServerApp(), []

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        context.run_config = dict(run_config)
        try:
            server_app(grid, context)
        except Exception as error:
            failures.append(error)

    with _ray_with_room({"CPU": cpus, "GPU": gpus}, sites):
        from flwr.simulation import run_simulation

        config: dict[str, Any] = {"client_resources": {"num_cpus": cpus, "num_gpus": gpus}}
        run_simulation(app, client_app, number, backend_config=config)
    if failures:
        raise failures[0]


@contextmanager
def _ray_with_room(wanted: Mapping[str, float], sites: Path) -> Iterator[None]:
    """Ray with room for at least one site at work, where `RAY_ADDRESS` says or on this machine; ended afterwards.

    Started here and not by Flower, whose Ray stays behind: the next column's sites are in another folder, which worker
    processes learn from the environment that they are born with.

    Raises:
        RunError: FECG-634 it has no room.
    """
    import ray

    born_with = {SITES_VARIABLE: str(sites.resolve()), "PYTHONPATH": os.pathsep.join(sys.path)}
    ray.init(include_dashboard=False, runtime_env={"env_vars": born_with})
    try:
        machines: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        _refuse_without_room([machine["Resources"] for machine in machines if machine["Alive"]], wanted)
        yield
    finally:
        ray.shutdown()


def _refuse_without_room(machines: Sequence[Mapping[str, float]], wanted: Mapping[str, float]) -> None:
    """A site takes its cores and its share of a GPU on one machine; Flower would wait for ever for such a machine."""
    for there in machines:
        if all(there.get(kind, 0.0) >= amount for kind, amount in wanted.items()):
            return
    found = [f"{sum(there.get(kind, 0.0) for there in machines):g} {kind}s" for kind in wanted]
    needed = [f"{amount:g} {kind}s" for kind, amount in wanted.items()]
    raise RunError(
        "FECG-634",
        "Ray",
        found=f"{' and '.join(found)} on {len(machines)} machine(s)",
        expected=f"one machine with {' and '.join(needed)} for a site at work",
        fix="Lower federation.ray-cpus or federation.ray-gpus, or name a larger cluster by RAY_ADDRESS.",
    )
