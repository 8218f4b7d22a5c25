"""One process against Flower's Ray backend: what a round costs besides training, and a whole study on both.

    python benchmarks/simulation.py

Rounds: 10 virtual sites, no-op work. The same ServerApp and ClientApp run on both: `AlignRounds` packs tasks with a 6
kB vector, the sites unpack them and send the vector back, replies are checked and averaged. Start-up and two warm
rounds are not counted. Study: three synthetic sites, both stages, evaluation; wall time with Ray's start-up, and
whether both ended with the same weights to the last bit. Prints one JSON line: seconds a round on both and their ratio
(target: at most 0.6), seconds of the study on both, and whether they agree.
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import ray as ray_backend
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from fedecg.config import StudySettings, parse_settings
from fedecg.federation.documents import PartCounts
from fedecg.federation.messages import pack, unpack
from fedecg.federation.tasks import JoinReply, JoinTask, TrainReply, TrainTask
from fedecg.progress import Progress
from fedecg_server.consortium import Consortium
from fedecg_server.journal import Journal
from fedecg_server.lock import study_lock
from fedecg_server.run_folder import RunFolder
from fedecg_server.stage import AlignRounds
from fedecg_simulations.engine import run_federation, server_context
from fedecg_simulations.grid import FIRST_NODE, InProcessGrid
from fedecg_simulations.partitions import virtual_sites
from fedecg_simulations.runner import ingest
from fedecg_simulations.sites import write_sites
from fedecg_simulations.sources import load_dataset

STUDY = {
    "seed": 100,
    "data": {"sites": {"city": 300, "coast": 200, "valley": 100}, "test-patients": 150},
    "model": {"size": "small"},
    "align": {"rounds": 3, "local-steps": 8, "batch-size": 32},
    "survival": {"rounds": 3, "local-steps": 8, "batch-size": 32},
    "evaluation": {"explain": False},
}
SITES, WARM_ROUNDS, ROUNDS, VECTOR = 10, 2, 20, 1500
SAME_CODE = "0" * 64

client_app = ClientApp()


@client_app.train()
def echo(message: Message, context: Context) -> Message:
    """The site's side without training."""
    task, vector = unpack(message.content, TrainTask)
    reply = TrainReply(
        site=f"site-{context.node_config['partition-id']}",
        round=task.round,
        patients=10,
        events=1,
        steps=0,
        loss=0.0,
        code_fingerprint=SAME_CODE,
    )
    return Message(pack(reply, vector), reply_to=message)


@client_app.query("join")
def introduce(message: Message, context: Context) -> Message:
    """Tell the node's name."""
    site = f"site-{context.node_config['partition-id']}"
    parts = {"train": PartCounts(patients=10, events=1)}
    lock_sha256 = unpack(message.content, JoinTask)[0].lock.sha256()
    reply = JoinReply(site=site, parts=parts, code_fingerprint=SAME_CODE, lock_sha256=lock_sha256)
    return Message(pack(reply), reply_to=message)


def timed_server(seconds: list[float]) -> ServerApp:
    """A ServerApp that appends the seconds of each round."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        settings = StudySettings.model_validate({"federation": {"quorum": SITES}})
        with TemporaryDirectory() as folder:
            journal = Journal(Path(folder))
            lock = study_lock(settings, []).model_copy(update={"code_fingerprint": SAME_CODE})
            consortium = Consortium(grid, settings.federation, lock, journal, Progress())
            consortium.join()
            rounds = AlignRounds(settings, consortium, journal.keep, lambda *_: None)
            vector = np.zeros(VECTOR, dtype=np.float32)
            for number in range(1, WARM_ROUNDS + ROUNDS + 1):
                start = time.perf_counter()
                vector = rounds.run_round(number, vector)
                seconds.append(time.perf_counter() - start)

    return app


def timed_study(folder: Path, backend: str) -> tuple[float, bytes]:
    """Seconds of a study on a backend, its data prepared before, and the bytes of the weights that it ends with."""
    federation = {"backend": backend, "threads": 1, "quorum": 3}
    tree = {**STUDY, "federation": federation}
    settings = parse_settings(StudySettings, tree)
    settings = settings.model_copy(
        update={"data": settings.data.model_copy(update={"store": str(folder / "store")})}
    )
    dataset, parts = virtual_sites(load_dataset(settings), settings.partition, settings.seed)
    store = ingest(dataset, settings, Progress())
    run_folder = folder / backend
    write_sites(dataset.cohort, store.folder, parts, run_folder / "sites")
    RunFolder(run_folder).begin(settings)
    start = time.perf_counter()
    run_federation(settings, run_folder / "sites", run_folder / "study.toml", run_folder, backend)
    return time.perf_counter() - start, (run_folder / "model" / "weights.safetensors").read_bytes()


def main() -> None:
    """Measure both backends and print the line."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    here: list[float] = []
    nodes = {number + FIRST_NODE: {"partition-id": str(number)} for number in range(SITES)}
    timed_server(here)(InProcessGrid(client_app, nodes), server_context({}))
    ray: list[float] = []
    run_simulation(timed_server(ray), client_app, SITES, backend_config={"client_resources": {"num_cpus": 1}})
    ray_backend.shutdown()  # Flower leaves it behind
    ours, theirs = (float(np.median(times[WARM_ROUNDS:])) for times in (here, ray))
    with TemporaryDirectory() as folder:
        study_s, weights = timed_study(Path(folder), "in-process")
        study_ray_s, ray_weights = timed_study(Path(folder), "ray")
    line = {
        "benchmark": "simulation",
        "ratio-to-ray": ours / theirs,
        "in-process-s": ours,
        "ray-s": theirs,
        "study-in-process-s": study_s,
        "study-ray-s": study_ray_s,
        "study-same-weights": weights == ray_weights,
    }
    print(json.dumps({key: round(v, 4) if isinstance(v, float) else v for key, v in line.items()}))


if __name__ == "__main__":
    main()
