"""Objectives: pure functions on tensors (losses) and on numpy sums (the baseline hazard).

In:  embeddings, log hazards, targets, events, follow-up.
Out: scalars to minimise, sums that may leave a site. Called by `fedecg.training` and `fedecg.federation`.
"""

from fedecg.objectives.alignment import bank_loss, paper_loss
from fedecg.objectives.hazard import (
    Baseline,
    breslow,
    event_counts,
    event_time_grid,
    exit_bin,
    hazard_sums,
    merge_bins,
    pooled_ratio,
    public_grid,
)
from fedecg.objectives.reconstruction import reconstruction_loss
from fedecg.objectives.survival import cox_loss, linear_exp, pooled_cox_loss

__all__ = [
    "Baseline",
    "bank_loss",
    "breslow",
    "cox_loss",
    "event_counts",
    "event_time_grid",
    "exit_bin",
    "hazard_sums",
    "linear_exp",
    "merge_bins",
    "paper_loss",
    "pooled_cox_loss",
    "pooled_ratio",
    "public_grid",
    "reconstruction_loss",
]
