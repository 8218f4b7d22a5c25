"""What ships with a model beside its weights: the baseline hazard, and where its patients stood.

In:  what the sites answered to the last evaluation, as sums. Out: records of `fedecg.model`. Called by `study` once.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedecg.federation.messages import EvaluateReply
from fedecg.model import BaselineFile, PopulationFile
from fedecg.objectives import breslow, breslow_variance
from fedecg_server.hazard import HazardState

__all__ = ["shipped_baseline", "shipped_population"]


def shipped_population(hazard: HazardState, replies: Mapping[str, EvaluateReply]) -> PopulationFile:
    """Validation patients by bin of their log hazard."""
    cells = [
        np.array(reply.counts["validation"].cells).reshape(hazard.grid.shape) for reply in replies.values()
    ]
    patients = np.sum(cells, axis=(0, 1, 3))
    return PopulationFile(risk_cuts=hazard.grid.risk_cuts.tolist(), patients=patients.tolist())


def shipped_baseline(hazard: HazardState, replies: Mapping[str, EvaluateReply]) -> BaselineFile:
    """The baseline that ships with the model: of validation patients, whom the network was not fitted to."""
    events = np.array([reply.validation_events for reply in replies.values()], dtype=np.int64).sum(axis=0)
    exp_sums = np.sum([reply.validation_exp_sums for reply in replies.values()], axis=0)
    return BaselineFile(
        edges_days=hazard.shipped_edges_days.tolist(),
        cumulative_hazard=breslow(events, exp_sums).tolist(),
        variance=breslow_variance(events, exp_sums).tolist(),
    )
