"""What a round costs besides training: 3 sites over TLS with keys, a no-op task; ours against Flower's own processes.

    python benchmarks/deployment.py [--rounds N]

Both run the installed ClientApp of fedecg, which answers the same task (a 6 kB vector and a document that is none of
its tasks) at once with a code. Stock: flower-superlink, three flower-supernode and the ServerApp's
`grid.send_and_receive`, all with Flower's defaults. Ours: the same SuperLink, three agents, the app host's grid and
the looks of the consortium. Start-up and one warm round are not counted.
Prints one JSON line: seconds a round on both (median) and their ratio; then ends with 1 if that is above 0.25. The
other benchmarks have no such bound: seconds are the machine's, while both sides of this ratio ran on the same one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import tomli_w
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedecg.federation.bundle import bundle_files
from fedecg_server.app_host import Host
from fedecg_server.child import Child
from fedecg_server.coordinator import Coordinator, create_coordinator, open_coordinator
from fedecg_server.exchange import FIRST_LOOK_S, LONGEST_LOOK_S, SHARE_OF_ELAPSED
from fedecg_server.runtime import Desk
from fedecg_server.sites import add_site, register_all
from fedecg_server.submit import submit_study
from fedecg_server.superlink import CONNECTION, SuperLink, flower_environment

SITES, VECTOR = ("city", "coast", "valley"), 1500
READY_S = 120.0
MOST_RATIO = 0.25  # of a round of ours to one of Flower's own processes
AGENT = "import sys, pathlib, fedecg_client.agent as a; sys.exit(a.run_agent(pathlib.Path(sys.argv[1])))"
TASK = """
import numpy as np
from flwr.app import Message
from fedecg.federation.messages import pack
from fedecg.federation.tasks import Failure

def tasks(nodes):
    content = lambda: pack(Failure(site="nobody", failed="FECG-501"), np.zeros({vector}, np.float32))
    return [Message(content(), node, "train") for node in sorted(nodes)]
"""
STOCK = """
import json, pathlib, time
from flwr.serverapp import ServerApp

app = ServerApp()

@app.main()
def main(grid, context):
    while len(nodes := list(grid.get_node_ids())) < {sites}:
        time.sleep(0.5)
    seconds = []
    for _ in range({rounds} + 1):
        start = time.perf_counter()
        replies = list(grid.send_and_receive(tasks(nodes), timeout=300))
        assert len(replies) == {sites} and not any(reply.has_error() for reply in replies)
        seconds.append(time.perf_counter() - start)
    pathlib.Path({out!r}).write_text(json.dumps(seconds))
"""


def main() -> int:
    """Measure both and print the line; the exit status: 1 if ours is too slow."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with TemporaryDirectory() as folder:
        ours = measured_ours(Path(folder) / "ours", rounds)
        stock = measured_stock(Path(folder) / "stock", rounds)
    line = {"benchmark": "deployment", "ratio-to-stock": ours / stock, "agents-s": ours, "stock-s": stock}
    print(
        json.dumps({key: round(v, 4) if isinstance(v, float) else v for key, v in line.items()}), flush=True
    )
    if ours > MOST_RATIO * stock:
        print(f"too slow: a ratio of {ours / stock:.3f}, at most {MOST_RATIO}", file=sys.stderr)
        return 1
    return 0


def measured_ours(folder: Path, rounds: int) -> float:
    """Median seconds of a round with agents and the app host."""
    coordinator, sites = prepared(folder)
    seconds: list[float] = []
    link = SuperLink(coordinator)
    with ExitStack() as stack:
        stack.callback(link.stop)
        link.start()
        register_all(coordinator)
        for site in sites:
            stack.enter_context(process([sys.executable, "-c", AGENT, str(site)], coordinator))
        submit_study(coordinator)
        desk = Desk(coordinator.settings.control_address, coordinator.tls.ca, coordinator.secret)
        task = desk.take()
        assert task is not None
        with redirect_stdout(sys.stderr):
            Host(coordinator, report=None).run(timed_server(seconds, rounds), task)
    return statistics.median(seconds[1:])


def timed_server(seconds: list[float], rounds: int) -> ServerApp:
    """The ServerApp of our side: pushes, and looks for replies as often as the consortium does."""
    app, names = ServerApp(), {}
    exec(TASK.format(vector=VECTOR), names)  # the very lines that the stock app has

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        until = time.monotonic() + READY_S
        while len(nodes := list(grid.get_node_ids())) < len(SITES):
            assert time.monotonic() < until, "the agents did not come"
            time.sleep(FIRST_LOOK_S)
        for _ in range(rounds + 1):
            start = time.perf_counter()
            pending = set(grid.push_messages(names["tasks"](nodes)))
            while pending:
                for reply in grid.pull_messages(pending):
                    assert not reply.has_error(), reply.error
                    pending.discard(reply.metadata.reply_to_message_id)
                elapsed = time.perf_counter() - start
                if pending:
                    time.sleep(min(LONGEST_LOOK_S, max(FIRST_LOOK_S, SHARE_OF_ELAPSED * elapsed)))
            seconds.append(time.perf_counter() - start)

    return app


def measured_stock(folder: Path, rounds: int) -> float:
    """Median seconds of a round with Flower's own processes."""
    coordinator, sites = prepared(folder)
    link, out = SuperLink(coordinator), folder / "seconds.json"
    command = link._command()
    command[command.index("process")] = "subprocess"
    with ExitStack() as stack:
        link.check()
        stack.enter_context(process(command, coordinator))
        until(link.answers)
        register_all(coordinator)
        for site in sites:
            stack.enter_context(process(supernode(coordinator, site), coordinator))
        app = stock_app(folder, rounds, out)
        environment = flower_environment(coordinator)
        flwr = ["flwr", "run", str(app), CONNECTION]
        subprocess.run(flwr, env=environment, check=True, stdout=subprocess.DEVNULL)
        until(out.exists, READY_S + 40.0 * rounds)
    return statistics.median(json.loads(out.read_text())[1:])


def supernode(coordinator: Coordinator, site: Path) -> list[str]:
    """Flower's own node, with its defaults."""
    return [
        "flower-supernode",
        *("--superlink", f"127.0.0.1:{coordinator.settings.port}"),
        *("--root-certificates", str(coordinator.tls.ca)),
        *("--auth-supernode-private-key", str(site / "node.key")),
        *("--node-config", f'site-folder="{site}"'),
        *("--port", str(free_port())),
    ]


def stock_app(folder: Path, rounds: int, out: Path) -> Path:
    """A Flower app whose server code travels in the bundle, as Flower means it."""
    app = folder / "stock"
    app.mkdir()
    settings = bundle_files()["pyproject.toml"].replace("fedecg_server.app:app", "stock_server:app")
    (app / "pyproject.toml").write_text(settings)
    code = TASK.format(vector=VECTOR) + STOCK.format(sites=len(SITES), rounds=rounds, out=str(out))
    (app / "stock_server.py").write_text(code)
    return app


def prepared(folder: Path) -> tuple[Coordinator, list[Path]]:
    """A coordinator's folder and three site folders with keys that it knows."""
    coordinator = prepared_coordinator(folder / "coordinator")
    return coordinator, [prepared_site(coordinator, folder / name) for name in SITES]


def prepared_coordinator(folder: Path) -> Coordinator:
    """A coordinator's folder with ports that are free, and without pages."""
    made = create_coordinator(folder, "127.0.0.1", free_port())
    ports = f"control-port = {free_port()}\ndashboard-port = 0\nmetrics-port = 0\n"
    lines = [
        line
        for line in made.server_file.read_text().splitlines()
        if not line.startswith(("control-port", "dashboard-port", "metrics-port"))
    ]
    made.server_file.write_text("\n".join([*lines, ports]))
    return open_coordinator(made.folder)


def prepared_site(coordinator: Coordinator, site: Path) -> Path:
    """A site's folder; it has no data, and no task asks for any."""
    site.mkdir()
    key = ec.generate_private_key(ec.SECP384R1())
    openssh, plain = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    (site / "node.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, openssh, plain))
    (site / "node.key").chmod(0o600)
    public = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    (site / "node.pub").write_bytes(key.public_key().public_bytes(*public))
    shutil.copy(coordinator.tls.ca, site / "ca.crt")
    server = {"address": f"127.0.0.1:{coordinator.settings.port}"}
    document = {"name": site.name, "store": "store", "cohort": "cohort.csv", "server": server}
    (site / "site.toml").write_text(
        tomli_w.dumps(document | {"policy": {"studies": ["study"], "consent": "first"}})
    )
    add_site(coordinator, site.name, site / "node.pub")
    return site


@contextmanager
def process(command: list[str], coordinator: Coordinator) -> Iterator[None]:
    """One that runs as long as it is needed."""
    child = Child(command, flower_environment(coordinator), coordinator.superlink_log)
    try:
        yield
    finally:
        child.ask_to_stop()
        child.stop(within_s=5.0)


def until(condition: Callable[[], bool], within_s: float = READY_S) -> None:
    """Wait until a function says yes."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, f"not within {within_s:.0f} s"
        time.sleep(0.1)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
