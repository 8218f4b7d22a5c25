"""Five small sites with real data, and a study over them once in plain and once under masks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from masked_study import NAMES, Make, WatchedGrid, trained

from fedecg.config import DataSettings, ModelSettings, SignalSettings, StudySettings, parse_settings
from fedecg.federation.tasks import SurveyTask
from fedecg.progress import Progress
from fedecg.signals import build_store, store_key
from fedecg_server.run_folder import RunFolder
from fedecg_server.study import Study
from fedecg_simulations.grid import FIRST_NODE
from fedecg_simulations.partitions import partition
from fedecg_simulations.sites import write_sites
from fedecg_simulations.sources import load_dataset


@pytest.fixture(scope="session")
def settings() -> StudySettings:
    tree = {
        "seed": 11,
        "align": {"rounds": 1, "local-steps": 1, "batch-size": 16},
        "survival": {"rounds": 1, "local-steps": 1, "batch-size": 16},
        "evaluation": {"explain": False},
        "federation": {"quorum": 1, "deadline-s": 0.2, "patience-s": 0.0, "grace-s": 0.1},
    }
    people = {"city": 50, "coast": 40, "university": 36, "rural": 40, "valley": 30}
    return parse_settings(StudySettings, tree).model_copy(
        update={
            "data": DataSettings(sites=people, test_patients=40),
            "model": ModelSettings(size="small"),
            "signals": SignalSettings(samples=256),
        }
    )


@pytest.fixture(scope="session")
def folder(settings: StudySettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parent of five site folders."""
    root = tmp_path_factory.mktemp("masked")
    dataset = load_dataset(settings)
    key = store_key(settings.signals, dataset.source, "none")
    store = build_store(root / "store", key, settings.signals, dataset.recordings, powerline="none")
    write_sites(
        dataset.cohort, store.folder, partition(dataset, settings.partition, settings.seed), root / "sites"
    )
    return root / "sites"


@pytest.fixture(scope="session")
def study(settings: StudySettings, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A study over the five sites, or some of them, that nobody has joined yet."""

    def make(sums: str = "masked", sites: Iterable[str] = NAMES) -> tuple[Study, WatchedGrid]:
        privacy = settings.privacy.model_copy(update={"sums": sums})
        changed = settings.model_copy(update={"privacy": privacy})
        nodes = {
            FIRST_NODE + NAMES.index(name): {"site-folder": str(folder / name)} for name in sorted(sites)
        }
        grid, run_folder = WatchedGrid(nodes), RunFolder(tmp_path_factory.mktemp("run"))
        run_folder.begin(changed)
        return Study(grid, changed, run_folder, Progress()), grid

    return make


@pytest.fixture(scope="session")
def plain(study: Make) -> tuple[Study, dict[str, Any]]:
    made, _ = study("plain")
    return made, trained(made)


@pytest.fixture(scope="session")
def masked(study: Make) -> tuple[Study, dict[str, Any], WatchedGrid]:
    made, grid = study()
    result = trained(made)
    grid.watching = False
    return made, result, grid


@pytest.fixture
def survey_task(masked: tuple[Study, dict[str, Any], WatchedGrid]) -> SurveyTask:
    study = masked[0]
    return SurveyTask(**study.consortium.task_fields("survival", 0))
