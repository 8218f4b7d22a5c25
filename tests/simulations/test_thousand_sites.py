"""Many small sites on one machine: memory that grows neither with rounds nor with sites, and one store for all."""

import gc
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from fedecg.config import SignalSettings, load_study
from fedecg.report.figures import sites_figure
from fedecg.signals import Recording, SignalStore, build_store
from fedecg_simulations.cli import main
from fedecg_simulations.grid import InProcessGrid
from fedecg_simulations.partitions import virtual_sites
from fedecg_simulations.sources import load_dataset

THOUSAND = Path(__file__).parents[2] / "configs" / "thousand-sites.toml"
SMALLER = [
    "data.test-patients=240", "partition.sites=120", "federation.fraction=0.25", "federation.quorum=10",
    "data.sites.university=900", "data.sites.city=500", "data.sites.coast=400", "data.sites.valley=300",
    "data.sites.cardiac=200", "data.sites.rural=100", "align.rounds=6", "survival.rounds=6", "align.local-steps=2",
    "survival.local-steps=2", "signals.samples=256", "evaluation.bootstrap=0",
]  # fmt: skip


def resident_mb(process: int) -> float:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) / 1024


def test_the_thousand_sites_are_a_thousand_of_about_twenty_patients() -> None:
    settings = load_study(THOUSAND)
    dataset, parts = virtual_sites(load_dataset(settings), settings.partition, settings.seed)
    learned = [int(np.sum(dataset.cohort.part[rows] != "test")) for rows in parts.values()]
    assert len(parts) == 1000
    assert sum(learned) == 20_000
    assert {len(rows) for rows in parts.values()} == {22}
    assert min(learned) >= 12


@pytest.mark.slow
def test_a_thousand_sites_are_drawn_in_a_picture(tmp_path: Path) -> None:
    assert main(["partition", str(THOUSAND), "--out", str(tmp_path), "--json"]) == 0
    document = json.loads((tmp_path / "partition.json").read_text())
    assert len(document["sites"]) == 1000
    assert document["label-divergence-bits"] > document["label-divergence-bits-by-chance"] > 0.1


def test_the_reports_figure_of_sites_has_rows_for_the_largest_alone() -> None:
    sites = [
        {"name": f"site-{number:04d}", "patients": 5 + number % 300, "events": 1} for number in range(1000)
    ]
    figure = sites_figure({"outcomes": "simulated", "sites": sites})
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert figure.get_suptitle() == "The 40 largest of 1,000 sites"
    assert len(names) == 40
    assert min(int(name.removeprefix("site-")) % 300 for name in names) >= 286
    few = sites_figure({"outcomes": "simulated", "sites": sites[:40]})
    assert few.get_suptitle() == "Sites"


def test_sites_that_share_a_store_share_what_was_read_of_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    recordings = [Recording(rng.normal(0, 0.3, (12, 1000)), 100.0) for _ in range(3)]
    folder = build_store(tmp_path, "key", SignalSettings(samples=256), recordings, powerline="none").folder
    one, other = SignalStore.open(folder), SignalStore.open(folder)
    assert one.codes is other.codes
    assert all(one.quality[rule] is other.quality[rule] for rule in one.quality)
    assert one._counts is not other._counts  # each maps what it reads, and lets go of it
    with pytest.raises(ValueError, match="read-only"):
        one.quality["flat"][0] = 1


def test_one_reply_of_many_is_in_memory_at_a_time() -> None:
    app, alive = ClientApp(), []

    @app.train()
    def answer(message: Message, context: Context) -> Message:
        del context
        gc.collect()
        alive.append(sum(type(item) is ArrayRecord for item in gc.get_objects()))
        content = RecordDict({"vector": ArrayRecord([np.zeros(1000)])})
        return Message(content, reply_to=message)

    nodes = {number: {"site-folder": str(number)} for number in range(2, 22)}
    grid = InProcessGrid(app, nodes)
    identities = list(grid.push_messages([Message(RecordDict(), node, MessageType.TRAIN) for node in nodes]))
    assert alive == []  # nobody has worked yet
    for number, reply in enumerate(grid.pull_messages(identities), start=1):
        assert len(alive) == number
        del reply
    assert len(alive) == 20
    assert max(alive) <= alive[0] + 2


@pytest.mark.slow
def test_memory_does_not_grow_with_rounds(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "fedecg_simulations.cli", "run", str(THOUSAND), "--out", str(out)]
    process = subprocess.Popen([*command, "--set", *SMALLER, f"data.store={tmp_path / 'store'}"])
    after: dict[int, float] = {}  # rounds -> MB
    deadline = time.monotonic() + 900
    try:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                rounds = len(json.loads((out / "rounds.json").read_text()))
                after.setdefault(rounds, resident_mb(process.pid))
            except (OSError, ValueError, KeyError):  # no round yet, or the process has just ended
                pass
            time.sleep(0.05)
    finally:
        process.kill()
    assert process.wait() == 0
    assert {2, 6, 8, 12} <= set(after)
    assert after[6] - after[2] < 16
    assert after[12] - after[8] < 16
    records = json.loads((out / "rounds.json").read_text())
    assert all(
        len(record["answered"]) == 30 for record in records if record["stage"] in ("align", "survival")
    )
    summary = json.loads((out / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert len(summary["sites"]) == 120
    # Replies that have come wait on disk, and a site is closed after its turn: 120 sites need no more than 4 would.
    assert max(after.values()) < 1200
