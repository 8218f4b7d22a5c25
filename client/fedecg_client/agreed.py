"""Does a task ask for more than the lock says? What a site agreed to bounds rounds, phases, parts and grids, too.

In:  a task, the lock's settings. Out: nothing, or a refusal. Called by the gate.
A grid that is finer than agreed would make rows of patients out of counts; the training part is never evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator

from fedecg.config import StudySettings
from fedecg.errors import PolicyError
from fedecg.explanation.documents import ExplainTask
from fedecg.federation.baselines import BaselinesTask
from fedecg.federation.documents import GridDocument
from fedecg.federation.noised import is_look, look_document, noised_edges
from fedecg.federation.sums import AssessTask
from fedecg.federation.tasks import EvaluateTask, Task, TrainTask
from fedecg.objectives import public_grid

__all__ = ["refuse_more_than_agreed"]


def refuse_more_than_agreed(task: Task, study: StudySettings) -> None:
    """Hold a task to the study's settings.

    Raises:
        PolicyError: FECG-420 with what is beyond them.
    """
    beyond = list(_beyond(task, study))
    if beyond:
        raise PolicyError(
            "FECG-420",
            f"task of study {study.name}",
            found="; ".join(beyond),
            expected="what the study's lock says",
            fix="Tell the coordinator: no site should accept this task.",
        )


def _beyond(task: Task, study: StudySettings) -> Iterator[str]:
    evaluation = study.evaluation
    if task.round > getattr(study, task.stage).rounds:
        yield "a round after the last"
    if task.repeat > evaluation.explain_seeds or (task.repeat and not evaluation.explain):
        yield "another training than agreed"
    if isinstance(task, ExplainTask) and (
        not evaluation.explain or task.models > 1 + evaluation.explain_seeds
    ):
        yield "explanations beyond evaluation.explain"
    if isinstance(task, BaselinesTask) and not evaluation.baselines:
        yield "a training alone without evaluation.baselines"
    if "train" in _parts(task):
        yield "an evaluation of the training part"
    yield from _private(task, study) if study.privacy.mode == "sample" else _fine_grids(task, study)


def _private(task: Task, study: StudySettings) -> Iterator[str]:
    """What differential privacy allows: an update, and sums whose bins and cells are as few as agreed."""
    if isinstance(task, (AssessTask, BaselinesTask, ExplainTask)):
        yield "an exchange without noise"
    if isinstance(task, TrainTask) and (task.grid is not None or task.repeat):
        yield "counts of validation patients"
    if isinstance(task, EvaluateTask) and is_look(task):
        if task.parts != ["validation"] or task.grid != look_document():
            yield "a look at other patients, or through other bins"
    elif isinstance(task, EvaluateTask):
        cuts, privacy = task.grid, study.privacy
        if len(cuts.time_cuts_days) >= privacy.time_bins or len(cuts.risk_cuts) >= privacy.risk_bins:
            yield "a finer histogram"
        if task.edges_days != noised_edges(study).tolist():
            yield "other bins of the baseline hazard"


def _parts(task: Task) -> list[str]:
    if isinstance(task, EvaluateTask):
        return list(task.parts)
    if isinstance(task, (AssessTask, ExplainTask, BaselinesTask)):
        return [task.part]
    return []


def _fine_grids(task: Task, study: StudySettings) -> Iterator[str]:
    grid: GridDocument | None = None
    if isinstance(task, (TrainTask, EvaluateTask, BaselinesTask)):
        grid = task.grid
    elif isinstance(task, AssessTask):
        grid = task.plan.grid
    evaluation = study.evaluation
    if grid is not None and (
        len(grid.time_cuts_days) >= evaluation.time_bins or len(grid.risk_cuts) >= evaluation.risk_bins
    ):
        yield "a finer evaluation grid"
    months = len(public_grid(study.survival.grid_days, study.survival.horizon_days))
    edges = months + len(evaluation.horizons_years)
    if isinstance(task, TrainTask) and task.hazard and len(task.hazard.edges_days) > study.survival.bins:
        yield "more bins of the baseline hazard"
    if isinstance(task, EvaluateTask) and len(task.edges_days) > edges:
        yield "a finer baseline hazard"
    if isinstance(task, AssessTask) and max(len(task.plan.edges_days), len(task.plan.horizons_days)) > edges:
        yield "finer curves"
