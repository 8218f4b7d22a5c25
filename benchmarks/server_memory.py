"""How much memory a coordinator takes: ten sites, each with an update of 40 MB; real SuperLink, TLS, keys, commands.

    python benchmarks/server_memory.py [--size paper|base|small] [--sites 10] [--rounds 3] [--algorithm median]

`fedecg-server start` runs a whole study over loopback: greeting, alignment, survey, survival, evaluation, the end.
The sites are nodes on the agent's own line, all of them uploading at once. They have no ECGs and train nothing: an
update is what was sent plus noise, and the sums beside it are those of made-up patients, so that every check of the
coordinator is passed, and memory is all that is measured.
Prints one JSON line: the most resident memory of each of the coordinator's processes over its life (VmHWM), and the
bound of the app host, three models and 500 MB.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tomli_w
from deployment import prepared_coordinator, prepared_site
from flwr.app import Message

from fedecg.config import SiteSettings, StudySettings, load_site, parse_settings
from fedecg.evaluation import site_counts
from fedecg.federation.documents import CountsDocument, PartCounts, RiskMoments, RoundSums
from fedecg.federation.messages import pack, unpack
from fedecg.federation.tasks import (
    EvaluateReply,
    EvaluateTask,
    Failure,
    JoinReply,
    JoinTask,
    SurveyReply,
    SurveyTask,
    TrainReply,
    TrainTask,
)
from fedecg.fingerprint import code_fingerprint
from fedecg.objectives import public_grid
from fedecg_client.faults import LinkError, RunOverError, StoppedError
from fedecg_client.link import Link, load_credentials
from fedecg_client.wire import Received, deflate, inflate
from fedecg_client.work import evaluation_grid
from fedecg_server.child import Child
from fedecg_server.coordinator import Coordinator
from fedecg_server.superlink import flower_environment

MODELS, BEYOND_MODELS_MB = 3, 500.0
PATIENTS, MOST_DAYS, NOISE = 100, 4000.0, 1e-4
LOOK_S, MOST_S = 0.2, 1800.0


def main() -> None:
    """Measure and print the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=("paper", "base", "small"), default="paper")
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--algorithm", default="fedavg")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        line = measured(Path(folder), options.size, options.sites, options.rounds, options.algorithm)
    print(json.dumps(line))


def measured(folder: Path, size: str, sites: int, rounds: int, algorithm: str = "fedavg") -> dict[str, Any]:
    """Run the study and watch.

    Args:
        folder: for everything; the disk holds one model a site and more.
        size: "paper" (40 MB), or a size of our own network.
        sites: how many.
        rounds: of each stage.
        algorithm: of the average.

    Returns:
        The line: MB by process, the model's MB, the bound, seconds a round of each stage, how the study ended.
    """
    folder.mkdir(exist_ok=True)
    coordinator = prepared_coordinator(folder / "coordinator")
    settings = study(size, sites, rounds, algorithm)
    document = settings.model_dump(by_alias=True, exclude_none=True)
    coordinator.study_file.write_text(tomli_w.dumps(document))
    folders = [prepared_site(coordinator, folder / f"site-{number}") for number in range(sites)]
    nodes = [EffortlessSite(load_site(site / "site.toml"), number) for number, site in enumerate(folders)]
    with server(coordinator) as child, answering(nodes):
        peaks = peaks_mb(child)
        for node in nodes:
            node.ended.set()
    model_mb = (coordinator.run / "model" / "weights.safetensors").stat().st_size / 1e6
    book = json.loads((coordinator.run / "rounds.json").read_text())
    result = json.loads((coordinator.run / "result.json").read_text())
    return {
        "benchmark": "server-memory",
        "sites": sites,
        "model-mb": round(model_mb, 1),
        "peak-mb": {name: round(peak, 1) for name, peak in sorted(peaks.items())},
        "most-mb": round(MODELS * model_mb + BEYOND_MODELS_MB, 1),
        "seconds-a-round": {
            stage: [entry["seconds"] for entry in book if entry["stage"] == stage]
            for stage in ("align", "survival")
        },
        "answered": sorted({len(entry["answered"]) for entry in book}),
        "faults": dict(Counter(fault for node in nodes for fault in node.faults)),
        "status": result["status"],
    }


def study(size: str, sites: int, rounds: int, algorithm: str) -> StudySettings:
    """One of few steps, none of which anybody takes."""
    paper = size == "paper"
    tree = {
        "name": "study", "signals": {"samples": 1728 if paper else 1024},
        "model": {"preset": "paper"} if paper else {"size": size},
        "align": {"rounds": rounds, "local-steps": 1}, "survival": {"rounds": rounds, "local-steps": 1},
        "federation": {"quorum": sites, "patience-s": 120.0, "deadline-s": 600.0, "algorithm": algorithm},
        "evaluation": {"explain": False, "baselines": False},
    }  # fmt: skip
    settings: StudySettings = parse_settings(StudySettings, tree)
    return settings


@contextmanager
def server(coordinator: Coordinator) -> Iterator[Child]:
    """`fedecg-server start`; its output goes to the SuperLink's log folder."""
    log = coordinator.superlink_log.with_name("start.log")
    command = [sys.executable, "-P", "-m", "fedecg_server.cli", "start", str(coordinator.folder)]
    child = Child(command, flower_environment(coordinator), log)
    try:
        yield child
        assert (coordinator.run / "result.json").exists(), log.read_text()[-2000:]
    finally:
        child.ask_to_stop()
        child.stop(within_s=20.0)


@contextmanager
def answering(nodes: list[EffortlessSite]) -> Iterator[None]:
    """Sites that are there as long as the block lasts."""
    for node in nodes:
        node.thread.start()
    try:
        yield
    finally:
        for node in nodes:
            node.ended.set()
        for node in nodes:
            node.thread.join(10.0)


def peaks_mb(child: Child) -> dict[str, float]:
    """The most that each of the coordinator's processes has had in memory, once it has ended."""
    peaks: dict[str, float] = {}
    until = time.monotonic() + MOST_S
    while child.alive:
        assert time.monotonic() < until, f"not within {MOST_S:.0f} s"
        for name, pid in processes_of(child.pid).items():
            with suppress(OSError, KeyError):  # it has just ended
                peaks[name] = max(peaks.get(name, 0.0), peak_mb(pid))
        time.sleep(LOOK_S)
    return peaks


def processes_of(supervisor: int) -> dict[str, int]:
    """supervisor, superlink, app-host -> pid."""
    found = {"supervisor": supervisor}
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            if (
                entry.name.isdigit()
                and int((entry / "stat").read_text().rsplit(")")[-1].split()[1]) == supervisor
            ):
                words = (entry / "cmdline").read_bytes().decode()
                for name, sign in (("superlink", "flower-superlink"), ("app-host", "fedecg_server.app_host")):
                    if sign in words:
                        found[name] = int(entry.name)
    return found


def peak_mb(pid: int) -> float:
    """VmHWM of a process."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) / 1000


class EffortlessSite:
    """A registered node that answers every task of a study without having any ECGs.

    Args:
        settings: its site.toml.
        number: seeds its patients.
    """

    turn = threading.Lock()  # one at a time puts a reply together; they travel together

    def __init__(self, settings: SiteSettings, number: int) -> None:
        self.settings, self.name, self.ended = settings, settings.name, threading.Event()
        draw = np.random.default_rng(number)
        self.days, self.risk = draw.uniform(1.0, MOST_DAYS, PATIENTS), draw.normal(size=PATIENTS)
        self.event = draw.random(PATIENTS) < 0.3
        self.faults: list[str] = []  # of its line
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        assert self.settings.server is not None
        link = Link(self.settings.server.address, load_credentials(self.settings.server), self.ended)
        try:
            node = self._again(link, link.activate)
            while not self.ended.is_set():
                received = self._again(link, link.pull, node)
                if received is not None:
                    self._serve(link, node, received)
                self.ended.wait(0.2)
        except (StoppedError, RunOverError):
            pass
        finally:
            link.close()

    def _again(self, link: Link, call: Callable[[], Any], node: int = 0) -> Any:
        """A call until it is answered, over a new connection where it was not: what the agent does."""
        while True:
            try:
                return call()
            except LinkError as fault:
                if node:  # before, the server is still starting
                    self.faults.append(fault.error.found)
                if self.ended.wait(1.0):
                    raise StoppedError from fault
                link.reopen()
                if node:
                    with suppress(LinkError):
                        link.adopt(node)

    def _serve(self, link: Link, node: int, received: Received) -> None:
        with self.turn:
            contents = self._again(link, partial(link.fetch, received), node)
            reply = deflate(self._answer(inflate(received, contents)))
            gc.collect()
        self._again(link, partial(link.push, reply), node)
        self._again(link, partial(link.confirm, received), node)

    def _answer(self, message: Message) -> Message:
        kind = message.metadata.message_type.split(".")[-1]
        answers = {
            "join": self._join,
            "survey": self._survey,
            "train": self._train,
            "evaluate": self._evaluate,
        }
        answer = answers.get(kind)
        content = answer(message.content) if answer else pack(Failure(site=self.name, failed="FECG-599"))
        return Message(content, reply_to=message)

    def _join(self, content: Any) -> Any:
        task, _ = unpack(content, JoinTask)
        counts = PartCounts(patients=PATIENTS, events=int(self.event.sum()))
        reply = JoinReply(
            site=self.name, parts={"train": counts, "validation": counts},
            code_fingerprint=code_fingerprint(), lock_sha256=task.lock.sha256(),
        )  # fmt: skip
        return pack(reply)

    def _survey(self, content: Any) -> Any:
        task, _ = unpack(content, SurveyTask)
        survival = parse_settings(StudySettings, task.settings).survival
        edges = public_grid(survival.grid_days, survival.horizon_days)
        events, exp_sums = self._sums(edges)
        return pack(
            SurveyReply(site=self.name, train_events=events, train_exp_sums=exp_sums, risk=self._moments())
        )

    def _train(self, content: Any) -> Any:
        task, weights = unpack(content, TrainTask)
        sums = None
        if task.hazard is not None:
            _, exp_sums = self._sums(np.array(task.hazard.edges_days))
            sums = RoundSums(
                train_exp_sums=exp_sums, validation=self._counts(task.grid), risk=self._moments()
            )
        reply = TrainReply(
            site=self.name, round=task.round, patients=PATIENTS, events=int(self.event.sum()), steps=1, loss=1.0,
            code_fingerprint=code_fingerprint(), sums=sums,
        )  # fmt: skip
        draw = np.random.default_rng(task.round)
        return pack(reply, weights + NOISE * draw.standard_normal(len(weights), dtype=np.float32))

    def _evaluate(self, content: Any) -> Any:
        task, _ = unpack(content, EvaluateTask)
        events, exp_sums = self._sums(np.array(task.edges_days))
        reply = EvaluateReply(
            site=self.name, counts={part: self._counts(task.grid) for part in task.parts},
            validation_events=events, validation_exp_sums=exp_sums, risk=self._moments(),
        )  # fmt: skip
        return pack(reply)

    def _sums(self, edges_days: Any) -> tuple[list[int], list[float]]:
        """Events and sums of exp(log hazard) by the bin of exit."""
        bins = np.searchsorted(edges_days, self.days, side="right") - 1
        events = np.bincount(bins[self.event], minlength=len(edges_days))
        return events.tolist(), np.bincount(bins, np.exp(self.risk), minlength=len(edges_days)).tolist()

    def _counts(self, grid: Any) -> CountsDocument:
        return CountsDocument.of(site_counts(self.days, self.event, self.risk, evaluation_grid(grid)))

    def _moments(self) -> RiskMoments:
        return RiskMoments.of(self.risk)


if __name__ == "__main__":
    os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
