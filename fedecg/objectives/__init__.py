"""Objectives: pure functions on tensors (losses) and on numpy sums (the baseline hazard).

In:  embeddings, log hazards, targets, events, follow-up.
Out: scalars to minimise, sums that may leave a site. Called by `fedecg.training` and `fedecg.federation`.
"""

from fedecg.objectives.alignment import COLLAPSE_REMEDY, COLLAPSED_BELOW, bank_loss, infonce_loss, paper_loss
from fedecg.objectives.grouped import IntervalTimes, grouped_loss, interval_times
from fedecg.objectives.hazard import (
    Baseline,
    breslow,
    breslow_variance,
    event_counts,
    event_time_grid,
    exit_bin,
    first_bin,
    hazard_sums,
    merge_bins,
    pooled_ratio,
    public_grid,
)
from fedecg.objectives.reconstruction import reconstruction_loss
from fedecg.objectives.survival import cox_loss, linear_exp, pooled_cox_loss

__all__ = [
    "COLLAPSED_BELOW",
    "COLLAPSE_REMEDY",
    "Baseline",
    "IntervalTimes",
    "bank_loss",
    "breslow",
    "breslow_variance",
    "cox_loss",
    "event_counts",
    "event_time_grid",
    "exit_bin",
    "first_bin",
    "grouped_loss",
    "hazard_sums",
    "infonce_loss",
    "interval_times",
    "linear_exp",
    "merge_bins",
    "paper_loss",
    "pooled_cox_loss",
    "pooled_ratio",
    "public_grid",
    "reconstruction_loss",
]
