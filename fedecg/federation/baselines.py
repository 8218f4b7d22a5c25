"""What a site can say of training alone: the counts of its own model and of age and sex, on its own patients.

In:  a task with the weights that every site starts from, and the evaluation grid. Out: counts by model; no weights.
Called by both sides, once a study, after the model is safe.
"""

from __future__ import annotations

from fedecg.config import Section
from fedecg.federation.documents import CountsDocument, GridDocument, Part
from fedecg.federation.tasks import Task

__all__ = ["BaselinesReply", "BaselinesTask"]


class BaselinesTask(Task):
    """Train alone from the weights of the study's start, with its rounds and steps; then score a part."""

    grid: GridDocument
    part: Part


class BaselinesReply(Section):
    """Counts on the part asked for; None where a model could not be fitted, with its code."""

    site: str
    local: CountsDocument | None
    local_code: str = ""
    age_sex: CountsDocument | None
