"""Mini-batches of a local round.

In:  rows of a site's cohort, batch size, number of steps, a generator. Out: one array of rows a step.
Called by `fedecg.training.local`. Pure.

An epoch is a shuffle cut into batches of nearly equal size; when it is used up, the rows are shuffled anew.
A batch never holds a row twice, and never a single row while there are more, since a normalisation over the batch
cannot use it; of a row that would be left over the next shuffle takes care.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["event_stratified_batches", "shuffled_batches"]

Rows = NDArray[np.int64]


def shuffled_batches(rows: Rows, batch_size: int, steps: int, rng: np.random.Generator) -> list[Rows]:
    """Batches for `steps` steps that run through shuffled epochs.

    Args:
        rows: (n,), each once.
        batch_size: most rows in a batch, >= 1; with n rows or more every batch is the whole site. A size of 1 is
            taken at its word.
        steps: number of batches.
        rng: decides the shuffles.

    Returns:
        `steps` arrays; none where there are no rows.
    """
    parts = -(-len(rows) // batch_size)

    def epoch() -> list[Rows]:
        return np.array_split(rng.permutation(rows), parts)

    return _run_epochs(epoch, len(rows), min(batch_size, 2), steps)


def event_stratified_batches(
    rows: Rows, event: NDArray[np.bool_], batch_size: int, steps: int, rng: np.random.Generator
) -> list[Rows]:
    """Batches that each hold events in proportion, and at least one while the site has any.

    Where there are fewer events than batches, events come back within an epoch: a risk set without an event would
    teach nothing.

    Args:
        rows: (n,), each once.
        event: (n,), bool, in the order of `rows`.
        batch_size: most rows in a batch; less than 2 counts as 2, the smallest risk set that teaches.
        steps: number of batches.
        rng: decides the shuffles.

    Returns:
        `steps` arrays; none where there are no rows.
    """
    size = max(batch_size, 2)
    cases, others = rows[event], rows[~event]
    if not len(cases):
        return shuffled_batches(rows, size, steps, rng)
    parts = -(-len(rows) // size)
    if len(cases) < parts:
        parts = max(parts, -(-len(others) // (size - 1)))  # each batch keeps one place for an event

    def epoch() -> list[Rows]:
        case_parts = np.array_split(np.resize(rng.permutation(cases), max(len(cases), parts)), parts)
        # Reversed: the larger parts of one kind meet the smaller parts of the other.
        other_parts = np.array_split(rng.permutation(others), parts)[::-1]
        return [np.concatenate(pair) for pair in zip(case_parts, other_parts, strict=True)]

    return _run_epochs(epoch, len(rows), 2, steps)


def _run_epochs(epoch: Callable[[], list[Rows]], available: int, smallest: int, steps: int) -> list[Rows]:
    batches: list[Rows] = []
    while available and len(batches) < steps:
        batches += [batch for batch in epoch() if len(batch) >= min(smallest, available)]
    return batches[:steps]
