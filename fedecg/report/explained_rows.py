"""A page for each record of `fedecg predict --explain`, named by the row's number and never by the record's name.

In:  a model, the rows of a prediction, a folder. Out: the rows with the names of their pages.
Called by `commands`, which `fedecg.cli` hands to the room of predictions: that one may not look this way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fedecg.explanation.single import explain
from fedecg.explanation.verdicts import read_verdicts
from fedecg.prediction.files import FileRow
from fedecg.prediction.predictor import Model
from fedecg.progress import Progress
from fedecg.report.explain import write_explanation
from fedecg.signals import read_recording

__all__ = ["write_row_pages"]

LEAST_DIGITS = 4


def write_row_pages(
    model: Model, model_folder: Path, rows: Sequence[FileRow], folder: Path, progress: Progress
) -> list[FileRow]:
    """Write 0001.html, 0002.html, ... for the rows that were predicted.

    Args:
        model, model_folder: of `load`, and where it lies: beside it may lie what tests said of its attention.
        folder: made if absent; pages of the same names are replaced.

    Returns:
        The rows, with their page, or "" where a record could not be used.

    Raises:
        ModelError: FECG-361, the model's tests. RunError: FECG-601, a page cannot be written.
    """
    verdicts = read_verdicts(model_folder, model.saved.weights_sha256)
    digits = max(LEAST_DIGITS, len(str(len(rows))))
    explained = []
    with progress.task("pages", len(rows)) as advance:
        for number, row in enumerate(rows, start=1):
            page = folder / f"{number:0{digits}}.html"
            if not row.prediction.code:
                explanation = explain(model, read_recording(row.file), verdicts)
                write_explanation(explanation, model.signals, page, model.disclaimer)
            explained.append(replace(row, explanation="" if row.prediction.code else str(page)))
            advance(number)
    return explained
