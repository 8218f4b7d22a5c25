"""What a site refuses of a study with differential privacy, whatever the coordinator asks."""

import numpy as np
import pytest
from asking import lock_of, study, task_of

from fedecg.errors import FedecgError, PolicyError
from fedecg.federation.baselines import BaselinesTask
from fedecg.federation.documents import GridDocument
from fedecg.federation.noised import look_document, noised_edges
from fedecg.federation.tasks import EvaluateTask, SurveyTask, Task, TrainTask
from fedecg_client.agreed import refuse_more_than_agreed

STUDY = study(
    privacy={"mode": "sample", "sums": "noised", "time-bins": 4, "risk-bins": 4},
    evaluation={"explain": False, "baselines": True},
)
LOCK = lock_of(STUDY)
EDGES = noised_edges(STUDY).tolist()
GRID = GridDocument(time_cuts_days=[100.0, 200.0, 300.0], risk_cuts=[-1.0, 0.0, 1.0])
FINE = GridDocument(time_cuts_days=[100.0, 200.0, 300.0], risk_cuts=np.linspace(-1, 1, 4).tolist())


def evaluation(**changes: object) -> EvaluateTask:
    fields = {"stage": "survival", "grid": GRID, "edges_days": EDGES, "parts": ["test"], **changes}
    return task_of(LOCK, EvaluateTask, **fields)


def look(**changes: object) -> EvaluateTask:
    return evaluation(**{"grid": look_document(), "edges_days": [], "parts": ["validation"], **changes})


def is_let_in(task: Task) -> bool:
    try:
        refuse_more_than_agreed(task, STUDY)
    except FedecgError:
        return False
    return True


def test_what_the_protocol_asks_is_let_in() -> None:
    assert is_let_in(task_of(LOCK))
    assert is_let_in(task_of(LOCK, SurveyTask, stage="survival", round=0))
    assert is_let_in(evaluation())
    assert is_let_in(look())
    assert not is_let_in(evaluation(grid=FINE))


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (evaluation(grid=FINE), "a finer histogram"),
        (evaluation(edges_days=EDGES[:-1]), "other bins of the baseline hazard"),
        (evaluation(parts=["train"]), "an evaluation of the training part"),
        (evaluation(edges_days=[]), "a look at other patients, or through other bins"),
        (look(parts=["test"]), "a look at other patients, or through other bins"),
        (look(grid=FINE), "a look at other patients, or through other bins"),
        (task_of(LOCK, TrainTask, grid=GRID), "counts of validation patients"),
        (task_of(LOCK, BaselinesTask, round=0, grid=GRID, part="test"), "an exchange without noise"),
    ],
    ids=["histogram", "bins", "train", "no bins", "look at test", "another look", "round", "baselines"],
)
def test_what_would_leave_without_noise_or_finer_than_agreed_is_refused(task, said: str) -> None:
    with pytest.raises(PolicyError, match=f"FECG-420 .*{said}"):
        refuse_more_than_agreed(task, STUDY)
