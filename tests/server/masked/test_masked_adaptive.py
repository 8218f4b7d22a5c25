"""fedadam under masks: the server steps on the sum that it opens, as it would on the plain average."""

from pathlib import Path

import numpy as np
from masked_study import NAMES, WatchedGrid

from fedecg.config import StudySettings
from fedecg.progress import Progress
from fedecg_server.run_folder import RunFolder
from fedecg_server.study import Study
from fedecg_simulations.grid import FIRST_NODE


def aligned(settings: StudySettings, folder: Path, out: Path, sums: str, algorithm: str) -> np.ndarray:
    """Weights after the alignment stage."""
    changed = settings.model_copy(
        update={
            "privacy": settings.privacy.model_copy(update={"sums": sums}),
            "federation": settings.federation.model_copy(
                update={"algorithm": algorithm, "server_rate": 0.05}
            ),
        }
    )
    nodes = {FIRST_NODE + NAMES.index(name): {"site-folder": str(folder / name)} for name in NAMES}
    run_folder = RunFolder(out)
    run_folder.begin(changed)
    study = Study(WatchedGrid(nodes), changed, run_folder, Progress())
    study.resume_or_begin()
    study.join()
    study.align()
    return study.trained["align"].whole()


def test_fedadam_under_masks_ends_where_the_plain_one_does(
    settings: StudySettings, folder: Path, tmp_path: Path
) -> None:
    masked, plain, average = (
        aligned(settings, folder, tmp_path / f"{sums}-{algorithm}", sums, algorithm)
        for sums, algorithm in (("masked", "fedadam"), ("plain", "fedadam"), ("plain", "fedavg"))
    )
    # The rounding of masked sums, times rate / tau = 50 and the correction of the first round's moments.
    rounding, step = np.abs(masked - plain).max(), np.abs(plain - average).max()
    assert rounding < 1e-3
    assert step > 20 * rounding
