"""A linear Cox model trained round by round by any of the federation's algorithms: what can be compared with FLamby.

In:  sites' patients with covariates, federation settings. Out: log hazard ratios per unit of each covariate.
Called by docs/bench.py and tests. The steps, the aggregation, and what an algorithm remembers are those of a study
(`descend`, `BetweenRounds`, `own_change`); only the network is one linear layer, and a step sees a whole site.

Loss: the pooled Cox model from sums, as `survival.loss = "cox-pooled"` with a bin for every event time and a baseline
hazard that is one round old at most. Covariates are standardised by their pooled mean and standard deviation, which
sums over sites give. The exact optimum of the same model is `fedecg.objectives.linear_cox`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedecg.config import FederationSettings, SurvivalSettings
from fedecg.federation.scaffold import own_change, parted
from fedecg.model import Piece, learned_pieces, load_vector, to_vector
from fedecg.objectives import (
    Baseline,
    breslow,
    event_counts,
    event_time_grid,
    exit_bin,
    hazard_sums,
    pooled_cox_loss,
)
from fedecg.objectives.linear_cox_sums import CoxPatients
from fedecg.training.descent import descend
from fedecg_server.between_rounds import BetweenRounds

__all__ = ["train_linear"]

Floats = NDArray[np.float64]
Vector = NDArray[np.float32]
Rows = NDArray[np.int64]

NAMES = ("weight",)


class LinearHazard(nn.Module):
    """log hazard = x w; no intercept, of which a Cox model knows nothing."""

    def __init__(self, covariates: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(covariates))

    def forward(self, x: Tensor) -> Tensor:
        """(n, covariates) -> (n,)."""
        return x @ self.weight


class LinearSite:
    """A site's training patients, and its own control variate.

    Args:
        patients: of the site. x: (n, covariates) standardised.
    """

    def __init__(self, patients: CoxPatients, x: Floats) -> None:
        self.days, self.event = patients.follow_up_days, patients.event
        self.x = torch.from_numpy(x.astype(np.float32))
        self.control: Vector = np.zeros(x.shape[1], np.float32)

    def sums(self, weights: Vector, edges_days: Floats, bound: float) -> Floats:
        """Sums of exp(log hazard) by exit bin."""
        scores = (self.x @ torch.from_numpy(weights)).double().numpy()
        return hazard_sums(scores, exit_bin(self.days, edges_days), len(edges_days), bound)

    def work(
        self,
        network: LinearHazard,
        stage: SurvivalSettings,
        federation: FederationSettings,
        carried: Vector,
        baseline: Baseline,
        number: int,
    ) -> Vector:
        """One local round; returns the weights after it."""
        sent, everybody = parted(carried) if federation.algorithm == "scaffold" else (carried, None)
        load_vector(network, NAMES, sent)
        hazard = torch.from_numpy(baseline.at(self.days).astype(np.float32))
        event = torch.from_numpy(self.event)
        pull = None if everybody is None else {"weight": torch.from_numpy(everybody - self.control)}

        def loss_of(_: Rows) -> Tensor:
            return pooled_cox_loss(network(self.x), event, hazard, stage.exp_bound)

        batches = [np.arange(len(self.days))] * stage.local_steps
        descend(network, NAMES, stage, federation.proximal_mu, batches, loss_of, pull=pull)
        trained = to_vector(network, NAMES)
        if everybody is not None:
            pieces = learned_pieces(network, NAMES, stage, number)
            for part, change in own_change(pieces, sent, everybody, trained, stage.local_steps):
                self.control[part] += change
        return trained


def train_linear(
    sites: Mapping[str, CoxPatients], stage: SurvivalSettings, federation: FederationSettings
) -> Floats:
    """Log hazard ratio per unit of each covariate (p,), after `stage.rounds` rounds from 0.

    Args:
        sites: name -> training patients, nobody with a late entry.
        stage: rounds, local steps, rate; `optimizer = "sgd"` where the algorithm is scaffold.
        federation: algorithm and its numbers; weights are patients.
    """
    x = np.concatenate([site.covariates for site in sites.values()])
    mean, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    members = {
        name: LinearSite(site, (site.covariates - mean) / spread) for name, site in sorted(sites.items())
    }
    event = np.concatenate([site.event for site in sites.values()])
    days = np.concatenate([site.follow_up_days for site in sites.values()])
    edges = event_time_grid(event, days)
    events = event_counts(event, exit_bin(days, edges), len(edges))
    network = LinearHazard(x.shape[1])

    def pieces(number: int) -> tuple[Piece, ...]:
        return learned_pieces(network, NAMES, stage, number)

    memory = BetweenRounds(federation, x.shape[1], pieces)
    shares = {name: float(len(site.days)) for name, site in members.items()}
    steps = dict.fromkeys(members, stage.local_steps)
    weights = np.zeros(x.shape[1], np.float32)
    for number in range(1, stage.rounds + 1):
        totals = sum(site.sums(weights, edges, stage.exp_bound) for site in members.values())
        baseline = Baseline(edges, breslow(events, np.asarray(totals)))
        carried = memory.to_send(weights, shares)
        updates = {
            name: site.work(network, stage, federation, carried, baseline, number)
            for name, site in members.items()
        }
        weights = memory.next_weights(number, weights, updates, shares, steps)
    return weights.astype(np.float64) / spread
