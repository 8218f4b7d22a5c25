"""What a round costs besides training: 10 virtual sites, no-op work, in one process against Flower's Ray backend.

    python benchmarks/simulation.py

The same ServerApp and ClientApp run on both: `AlignRounds` packs tasks with a 6 kB vector, the sites unpack them
and send the vector back, replies are checked and averaged. Start-up and two warm rounds are not counted.
Prints one JSON line: seconds a round on both and their ratio (target: at most 0.6).
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from fedecg.config import StudySettings
from fedecg.federation.documents import PartCounts
from fedecg.federation.messages import pack, unpack
from fedecg.federation.tasks import JoinReply, JoinTask, TrainReply, TrainTask
from fedecg.progress import Progress
from fedecg_server.consortium import Consortium
from fedecg_server.journal import Journal
from fedecg_server.lock import study_lock
from fedecg_server.stage import AlignRounds
from fedecg_simulations.engine import server_context
from fedecg_simulations.grid import FIRST_NODE, InProcessGrid

SITES, WARM_ROUNDS, ROUNDS, VECTOR = 10, 2, 20, 1500

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
        code_fingerprint="same",
    )
    return Message(pack(reply, vector), reply_to=message)


@client_app.query("join")
def introduce(message: Message, context: Context) -> Message:
    """Tell the node's name."""
    site = f"site-{context.node_config['partition-id']}"
    parts = {"train": PartCounts(patients=10, events=1)}
    lock_sha256 = unpack(message.content, JoinTask)[0].lock.sha256()
    reply = JoinReply(site=site, parts=parts, code_fingerprint="same", lock_sha256=lock_sha256)
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
            lock = study_lock(settings, []).model_copy(update={"code_fingerprint": "same"})
            consortium = Consortium(grid, settings.federation, lock, journal, Progress())
            consortium.join()
            rounds = AlignRounds(settings, consortium, journal.keep, lambda *_: None)
            vector = np.zeros(VECTOR, dtype=np.float32)
            for number in range(1, WARM_ROUNDS + ROUNDS + 1):
                start = time.perf_counter()
                vector = rounds.run_round(number, vector)
                seconds.append(time.perf_counter() - start)

    return app


def main() -> None:
    """Measure both backends and print the line."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    here: list[float] = []
    nodes = {number + FIRST_NODE: {"partition-id": str(number)} for number in range(SITES)}
    timed_server(here)(InProcessGrid(client_app, nodes), server_context({}))
    ray: list[float] = []
    run_simulation(timed_server(ray), client_app, SITES, backend_config={"client_resources": {"num_cpus": 1}})
    ours, theirs = (float(np.median(times[WARM_ROUNDS:])) for times in (here, ray))
    line = {"benchmark": "simulation", "ratio-to-ray": ours / theirs, "in-process-s": ours, "ray-s": theirs}
    print(json.dumps({key: round(v, 4) if isinstance(v, float) else v for key, v in line.items()}))


if __name__ == "__main__":
    main()
