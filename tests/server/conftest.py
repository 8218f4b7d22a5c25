"""A small real consortium on disk: three sites, the real ClientApp, and a way to make one site misbehave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from coordinator_process import make_coordinator
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedecg.config import DataSettings, ModelSettings, SignalSettings, StudySettings, parse_settings
from fedecg.progress import Progress
from fedecg.signals import build_store, store_key
from fedecg_client.app import app as client_app
from fedecg_server.coordinator import Coordinator
from fedecg_server.run_folder import RunFolder
from fedecg_server.study import Study
from fedecg_simulations.grid import FIRST_NODE, InProcessGrid
from fedecg_simulations.partitions import partition
from fedecg_simulations.sites import write_sites
from fedecg_simulations.sources import load_dataset

Tamper = Callable[[Message], Message]


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    """A coordinator's folder with sites, of the test's own."""
    return make_coordinator(tmp_path / "coordinator")


@pytest.fixture(scope="session")
def settings() -> StudySettings:
    tree = {
        "seed": 101,
        "align": {"rounds": 1, "local-steps": 1, "batch-size": 16},
        "survival": {"rounds": 2, "local-steps": 1, "batch-size": 16},
    }
    return parse_settings(StudySettings, tree).model_copy(
        update={
            "data": DataSettings(sites={"city": 60, "coast": 50, "valley": 40}, test_patients=30),
            "model": ModelSettings(size="small"),
            "signals": SignalSettings(samples=256),
        }
    )


@pytest.fixture(scope="session")
def sites(settings: StudySettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parent of three site folders."""
    return written_sites(settings, tmp_path_factory.mktemp("consortium"))


@pytest.fixture(scope="session")
def tested_sites(settings: StudySettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with 90 test patients, enough for tests of attention at every site."""
    data = settings.data.model_copy(update={"test_patients": 90})
    return written_sites(settings.model_copy(update={"data": data}), tmp_path_factory.mktemp("tested"))


def written_sites(settings: StudySettings, folder: Path) -> Path:
    """Generate the consortium of a study; returns the parent of its site folders."""
    dataset = load_dataset(settings)
    key = store_key(settings.signals, dataset.source, "none")
    store = build_store(folder / "store", key, settings.signals, dataset.recordings, powerline="none")
    parts = partition(dataset, settings.partition, settings.seed)
    write_sites(dataset.cohort, store.folder, parts, folder / "sites")
    return folder / "sites"


@pytest.fixture
def study(settings: StudySettings, sites: Path, tmp_path: Path) -> Callable[..., Study]:
    """Make a study over the sites; `tamper` may change the replies of one site to one kind of message."""

    def make(
        tamper: Tamper | None = None,
        kind: str = "train",
        node: int = FIRST_NODE + 1,
        quorum: int = 1,
        folder: Path = sites,
        explain_ecgs: int = 0,
        explain_seeds: int = 0,
        seeds_from: str = "aligned",
    ) -> Study:
        waits = {"quorum": quorum, "deadline_s": 1.0, "patience_s": 0.0}
        federation = settings.federation.model_copy(update=waits)
        asked = {
            "explain": explain_ecgs > 0,
            "explain_ecgs": explain_ecgs or 100,
            "explain_seeds": explain_seeds,
            "explain_seeds_from": seeds_from,
        }
        evaluation = settings.evaluation.model_copy(update=asked)
        changed = settings.model_copy(update={"federation": federation, "evaluation": evaluation})
        app = client_app if tamper is None else _tampering(tamper, kind, node)
        names = sorted(file.parent for file in folder.glob("*/site.toml"))
        nodes = {number: {"site-folder": str(name)} for number, name in enumerate(names, start=FIRST_NODE)}
        run_folder = RunFolder(tmp_path / "run")
        run_folder.begin(changed)
        return Study(InProcessGrid(app, nodes), changed, run_folder, Progress())

    return make


def _tampering(tamper: Tamper, kind: str, node: int) -> ClientApp:
    """The real app, but one node's replies to one kind of message pass through `tamper`."""
    app = ClientApp()

    def handle(message: Message, context: Context) -> Message:
        hit = context.node_id == node and message.metadata.message_type.startswith(kind)
        reply = client_app(message, context)
        return tamper(reply) if hit else reply

    app.train()(handle)
    app.evaluate()(handle)
    app.query("join")(handle)
    app.query("survey")(handle)
    app.query("assess")(handle)
    app.query("explain")(handle)
    app.query("baselines")(handle)
    return app
