"""What ships with a model beside its weights: the baseline hazard, and where its patients stood.

In:  what the sites answered to the last evaluation, as sums. Out: records of `fedecg.model`. Called by `study` once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedecg.federation.hazard import HazardState
from fedecg.federation.tasks import EvaluateReply
from fedecg.model import BaselineFile, PopulationFile
from fedecg.objectives import breslow, breslow_variance

__all__ = ["merged_population", "shipped_baseline", "shipped_population"]


LEAST_PATIENTS = 10  # of a bin that ships with the model, which whoever has the model can read


def shipped_population(hazard: HazardState, replies: Mapping[str, EvaluateReply]) -> PopulationFile | None:
    """Validation patients by bin of their log hazard, at least 10 in each; None where there are not so many.

    The bins are those of the evaluation's grid, merged: 2 % of a normal log hazard each, or more.
    """
    cells = [
        np.array(reply.counts["validation"].cells).reshape(hazard.grid.shape) for reply in replies.values()
    ]
    patients = np.sum(cells, axis=(0, 1, 3))
    return merged_population(hazard.grid.risk_cuts.tolist(), patients.tolist())


def merged_population(risk_cuts: Sequence[float], patients: Sequence[int]) -> PopulationFile | None:
    """Merge neighbouring bins until each holds 10 patients, the highest first: there a percentile matters most.

    Args:
        risk_cuts: (bins - 1,) rising. patients: (bins,).

    Returns:
        None where all bins together hold fewer than 10.
    """
    if sum(patients) < LEAST_PATIENTS:
        return None
    cuts: list[float] = []
    merged: list[int] = []
    waiting, left = 0, sum(patients)
    for place in reversed(range(len(patients))):
        waiting += patients[place]
        left -= patients[place]
        if waiting >= LEAST_PATIENTS and left >= LEAST_PATIENTS:
            merged.append(waiting)
            cuts.append(risk_cuts[place - 1])
            waiting = 0
    return PopulationFile(risk_cuts=cuts[::-1], patients=[waiting, *merged[::-1]])


def shipped_baseline(hazard: HazardState, replies: Mapping[str, EvaluateReply]) -> BaselineFile:
    """The baseline that ships with the model: of validation patients, whom the network was not fitted to."""
    events = np.array([reply.validation_events for reply in replies.values()], dtype=np.int64).sum(axis=0)
    exp_sums = np.sum([reply.validation_exp_sums for reply in replies.values()], axis=0)
    return BaselineFile(
        edges_days=hazard.shipped_edges_days.tolist(),
        cumulative_hazard=breslow(events, exp_sums).tolist(),
        variance=breslow_variance(events, exp_sums).tolist(),
    )
