"""Log hazards of a site's patients, and the sums of them that may leave the site.

In:  a network, a `SiteData`, rows of its cohort. Out: log hazards (n,), sums by exit bin, the site's own baseline.
Called by `fedecg.training.local`, by the client (each round's sums) and by simulations (evaluation).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedecg.errors import ModelError
from fedecg.model import Network
from fedecg.objectives import (
    Baseline,
    breslow,
    event_counts,
    event_time_grid,
    exit_bin,
    first_bin,
    hazard_sums,
)
from fedecg.training.site_data import SiteData

__all__ = ["SurvivalSums", "log_hazards", "site_baseline", "survival_sums"]

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SurvivalSums:
    """What the baseline hazard is made of; both add up over sites.

    Attributes:
        events: (bins,) int64, events by exit bin.
        exp_sums: (bins,) float64, sums of exp(log hazard) by exit bin, less those of late entries.
    """

    events: NDArray[np.int64]
    exp_sums: Floats


def log_hazards(
    network: Network, site: SiteData, rows: Rows, batch_size: int = 256, *, finite: bool = True
) -> Floats:
    """Log hazards (n,) float64 in the order of `rows` (n,): dropout and lead masking off, no gradient.

    The network comes back in the mode (training or evaluation) in which it was. Each score depends on its own ECG
    alone; a batch of another size may change the last bits.

    Args:
        finite: False where a refusal would itself tell of a patient (differential privacy); whoever adds them up then
            says what such a number counts as.

    Raises:
        ModelError: FECG-326, log hazards that are not finite.
    """
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            scores = [
                network.log_hazard(network.embed(site.signals(rows[start : start + batch_size])))
                for start in range(0, len(rows), batch_size)
            ]
    finally:
        network.train(training)
    result = np.concatenate([np.zeros(0), *(part.double().numpy() for part in scores)])
    wrong = int(np.sum(~np.isfinite(result))) if finite else 0
    if wrong:
        raise ModelError(
            "FECG-326",
            "log hazards",
            found=f"{wrong} of {len(result)} that are not finite",
            expected="finite numbers",
            fix="Training has diverged: lower survival.learning-rate, or start again from an earlier round.",
        )
    return result


def survival_sums(
    network: Network,
    site: SiteData,
    rows: Rows,
    edges_days: Floats,
    exp_bound: float,
    scores: Floats | None = None,
) -> SurvivalSums:
    """Events and hazard sums of some patients by exit bin, under the network's present weights.

    Args:
        rows: (n,), as a rule `site.rows("train")`; validation patients for the baseline that ships.
        edges_days: (bins,), left edges, ascending from 0.
        exp_bound: as in the loss (`survival.exp-bound`).
        scores: (n,) `log_hazards` of these rows, where they are known already.

    Raises:
        ModelError: FECG-326, log hazards that are not finite.
    """
    event, last = site.events(rows), exit_bin(site.follow_up_days(rows), edges_days)
    first = first_bin(site.entry_days(rows), event, last, edges_days)
    scores = log_hazards(network, site, rows) if scores is None else scores
    sums = hazard_sums(scores, last, len(edges_days), exp_bound, first)
    return SurvivalSums(event_counts(event, last, len(edges_days)), sums)


def site_baseline(network: Network, site: SiteData, rows: Rows, exp_bound: float) -> Baseline:
    """The site's own Breslow baseline with a bin for every event time, under the network's present weights.

    It stays at the site, so nothing asks for coarser bins. Without events it is 0 everywhere.

    Raises:
        ModelError: FECG-326, log hazards that are not finite; FECG-322, all of them too small for exp.
    """
    edges_days = event_time_grid(site.events(rows), site.follow_up_days(rows))
    sums = survival_sums(network, site, rows, edges_days, exp_bound)
    return Baseline(edges_days, breslow(sums.events, sums.exp_sums))
