"""What a round costs besides training: 10 virtual sites, no-op work, in one process against Flower's Ray backend.

    python benchmarks/simulation.py

The same ServerApp and ClientApp run on both: `AlignStrategy` packs tasks with a 6 kB vector, the sites unpack them
and send the vector back, replies are checked and averaged. Start-up and two warm rounds are not counted.
Prints one JSON line: seconds a round on both and their ratio (target: at most 0.6).
"""

from __future__ import annotations

import json
import logging
import time

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from fedecg.config import StudySettings
from fedecg.federation.messages import JoinReply, PartCounts, TrainReply, TrainTask, pack, to_record, unpack
from fedecg_server.exchange import wait_for_nodes
from fedecg_server.strategy import AlignStrategy, Member
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
    return Message(pack(JoinReply(site=site, parts=parts, code_fingerprint="same")), reply_to=message)


def timed_server(seconds: list[float]) -> ServerApp:
    """A ServerApp that appends the seconds of each round."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        nodes = wait_for_nodes(grid, SITES, 60.0)
        asked = [Message(RecordDict(), node, "query.join") for node in nodes]
        sites = {}
        for reply in grid.send_and_receive(asked):
            joined, _ = unpack(reply.content, JoinReply)
            sites[joined.site] = Member(reply.metadata.src_node_id, joined)
        strategy = AlignStrategy(StudySettings(), sites, "same", lambda _: None)
        arrays = to_record(np.zeros(VECTOR, dtype=np.float32))
        for number in range(1, WARM_ROUNDS + ROUNDS + 1):
            start = time.perf_counter()
            arrays = strategy.run_round(grid, number, arrays, ConfigRecord(), 60.0)
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
