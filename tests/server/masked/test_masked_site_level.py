"""Differential privacy of sites under masks: the coordinator adds noise to a sum of which it knows no part."""

from pathlib import Path

import numpy as np
import pytest
from masked_study import NAMES, WatchedGrid

from fedecg.config import StudySettings
from fedecg.progress import Progress
from fedecg_server import site_releases
from fedecg_server.run_folder import RunFolder
from fedecg_server.study import Study
from fedecg_simulations.grid import FIRST_NODE


def aligned(settings: StudySettings, folder: Path, out: Path, sums: str) -> tuple[np.ndarray, Study]:
    chosen = {"mode": "client", "sums": sums, "client_force": True, "client_clip": 0.02, "client_noise": 2.0}
    survival = settings.survival.model_copy(update={"baseline": "site"})
    privacy = settings.privacy.model_copy(update=chosen)
    changed = settings.model_copy(update={"privacy": privacy, "survival": survival})
    nodes = {FIRST_NODE + NAMES.index(name): {"site-folder": str(folder / name)} for name in NAMES}
    run_folder = RunFolder(out)
    run_folder.begin(changed)
    study = Study(WatchedGrid(nodes), changed, run_folder, Progress())
    study.resume_or_begin()
    study.join()
    study.align()
    return study.trained["align"].whole(), study


def test_the_masked_mean_is_the_plain_one_with_the_same_noise(
    settings: StudySettings, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_releases, "secret_generator", lambda: np.random.default_rng(3))
    (masked, study), (plain, _) = (
        aligned(settings, folder, tmp_path / sums, sums) for sums in ("masked", "plain")
    )
    # Noise covers the rounding of masks, too, and is wider by a few parts in a thousand.
    assert np.abs(masked - plain).max() < 1e-4
    assert study.initial is not None
    assert np.abs(plain - study.initial.whole()).max() > 1e-2
    assert study.releases.entry()["releases"] == 1
    assert study.releases.entry()["sums"] == "masked"
