"""A site that is killed while it trains alone goes on after its last round, and ends with the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedecg.federation.baselines import BaselinesTask
from fedecg.federation.documents import GridDocument
from fedecg.federation.tasks import TrainReply
from fedecg.training import Checkpoint, Watch
from fedecg_client import work
from fedecg_client.alone import Alone, baselines
from fedecg_client.alone_kept import AloneFile
from fedecg_client.opened import opened
from fedecg_client.workplace import Workplace, at_work
from fedecg_server.study import Study

Make = Callable[..., Study]
ROUNDS = 5  # two of alignment, three of survival training
GRID = GridDocument(time_cuts_days=[400.0, 900.0], risk_cuts=[-0.5, 0.0, 0.5])


class KilledError(BaseException):
    """No handler of the product sees it."""


@pytest.fixture
def task(study: Make) -> BaselinesTask:
    run = study()
    tree = run.settings.model_dump(by_alias=True)
    tree["align"]["rounds"], tree["survival"]["rounds"] = 2, 3
    return BaselinesTask(
        **run.consortium.task_fields("align", 0) | {"settings": tree}, part="test", grid=GRID
    )


@pytest.fixture
def start(study: Make) -> Any:
    return study()._vector("align")


def alone(site: Path, task: BaselinesTask, start: Any, kept: Path | None) -> Alone:
    """Trained to the end, if nothing happens on the way."""
    place = Workplace(site)
    if kept is not None:
        watch = Watch(Checkpoint(kept / "round.safetensors", "task", every_s=0.0))
        place = Workplace(site, watch, AloneFile(kept, "task"))
    data, _, _ = opened(site, task, start)
    made = Alone(place, task, "city", work.parts_of(data.cohort))
    made.train(start)
    return made


def dying(monkeypatch: pytest.MonkeyPatch, in_round: int) -> list[tuple[str, int]]:
    """Rounds that were begun; in the one of this number (0: in none) the process ends."""
    begun: list[tuple[str, int]] = []
    train = work.train

    def counted(place: Workplace, task: Any, weights: Any) -> tuple[TrainReply, Any]:
        begun.append((task.stage, task.round))
        if len(begun) == in_round:
            raise KilledError
        return train(place, task, weights)

    monkeypatch.setattr(work, "train", counted)
    return begun


@pytest.mark.parametrize("in_round", range(1, ROUNDS + 1))
def test_it_goes_on_with_the_round_that_it_was_killed_in(
    task: BaselinesTask, start: Any, sites: Path, tmp_path: Path, in_round: int
) -> None:
    whole = alone(sites / "city", task, start, None)
    with pytest.MonkeyPatch.context() as patch:
        dying(patch, in_round)
        with pytest.raises(KilledError):
            alone(sites / "city", task, start, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        begun = dying(patch, 0)
        again = alone(sites / "city", task, start, tmp_path)
    rounds = [("align", 1), ("align", 2), ("survival", 1), ("survival", 2), ("survival", 3)]
    assert begun == rounds[in_round - 1 :]
    assert again.standing.score == whole.standing.score
    np.testing.assert_array_equal(again.standing.best, whole.standing.best)
    np.testing.assert_array_equal(again.standing.cumulative, whole.standing.cumulative)


def test_what_was_kept_for_another_task_or_is_damaged_is_not_read(
    task: BaselinesTask, start: Any, sites: Path, tmp_path: Path
) -> None:
    alone(sites / "city", task, start, tmp_path)
    assert AloneFile(tmp_path, "another").read() is None
    standing = AloneFile(tmp_path, "task").read()
    assert standing is not None
    assert (standing.stage, standing.done) == ("survival", 3)
    file = tmp_path / "alone.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert AloneFile(tmp_path, "task").read() is None


def test_a_task_that_is_done_leaves_nothing_and_one_that_failed_what_it_had(
    task: BaselinesTask, start: Any, sites: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedecg_client.workplace.made_state", lambda _: tmp_path)
    kept = tmp_path / "checkpoint" / "alone.safetensors"
    dying(monkeypatch, ROUNDS)
    with pytest.raises(KilledError), at_work(sites / "city", task, "key", keep=True) as place:
        baselines(place, task, start)
    assert kept.is_file()
    monkeypatch.undo()
    monkeypatch.setattr("fedecg_client.workplace.made_state", lambda _: tmp_path)
    with at_work(sites / "city", task, "key", keep=True) as place:
        begun = dying(monkeypatch, 0)
        baselines(place, task, start)
    assert begun == [("survival", 3)]
    assert not kept.exists()
