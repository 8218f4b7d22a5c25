"""Discrete-time proportional hazards: a likelihood that knows events by time bin, with the baseline in the weights.

In:  log hazards (N,), events (N,), where each patient leaves (`IntervalTimes`), the log baseline hazard of each bin.
Out: one scalar that `fedecg.training` minimises. Like `pooled_cox_loss` a sum over patients, but it needs nothing of
the other sites: the baseline is learned with the network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedecg.objectives.hazard import exit_bin
from fedecg.objectives.survival import linear_exp

__all__ = ["IntervalTimes", "grouped_loss", "interval_times"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class IntervalTimes:
    """Where patients leave on a grid of time bins.

    Attributes:
        bin: (N,) int64, bin in which each patient leaves.
        share: (N,) float64, 0..1, how much of that bin has passed by then.
        entry_bin, entry_share: (N,), the same of the day from which each patient is observed; 0 and 0 from the start.
    """

    bin: NDArray[np.int64]
    share: Floats
    entry_bin: NDArray[np.int64]
    entry_share: Floats


def interval_times(
    follow_up_days: Floats, entry_days: Floats, edges_days: Floats, horizon_days: float
) -> IntervalTimes:
    """Place follow-up times on the grid.

    Args:
        follow_up_days: (N,), days > 0.
        entry_days: (N,), days >= 0, before the end of follow-up.
        edges_days: (bins,), left edges, ascending from 0; the last bin is taken to end at the horizon.
        horizon_days: end of the study's public grid.
    """
    ends = np.append(edges_days[1:], max(horizon_days, edges_days[-1] + 1.0))

    def place(days: Floats) -> tuple[NDArray[np.int64], Floats]:
        at = exit_bin(days, edges_days)
        return at, np.minimum((days - edges_days[at]) / (ends - edges_days)[at], 1.0)

    return IntervalTimes(*place(follow_up_days), *place(entry_days))


def grouped_loss(
    log_hazard: Tensor, event: Tensor, times: IntervalTimes, log_baseline: Tensor, exp_bound: float
) -> Tensor:
    """Mean per-patient negative log likelihood of a complementary log-log model.

    An event in bin b has probability 1 - exp(-exp(log hazard + log_baseline[b])) for who is at risk at its start. A
    censored patient has survived the bins before and its share of the last one: inside a bin the hazard is constant,
    so that wide bins do not take the time up to censoring as not lived.

    Args:
        log_hazard: (N,), no unit; larger means earlier event. Values of +-50 are safe in float32.
        event: (N,), bool; True = event seen, False = censored.
        times: where each patient leaves.
        log_baseline: (bins,), log of the baseline hazard of each whole bin; gradients reach it. Or (N, bins), a copy of
            it for each patient, which then gets the gradient of that patient alone.
        exp_bound: exp(log hazard) is continued linearly beyond this log hazard.

    Returns:
        Scalar, nats per patient; a mean over patients, so mini-batches are unbiased. Of no patients it is 0.

    Source: Prentice, Gloeckler 1978, doi 10.2307/2529588 (grouped data of a proportional-hazards model).
    """
    hazard, increment = linear_exp(log_hazard, exp_bound), log_baseline.exp()
    at, entered = torch.from_numpy(times.bin), torch.from_numpy(times.entry_bin)
    share, entry_share = (
        torch.from_numpy(values).to(log_hazard.dtype) for values in (times.share, times.entry_share)
    )
    start = increment.cumsum(-1) - increment
    same_bin = entered == at
    # What has passed of the last bin before the patient came counts neither for the event nor for the time lived.
    missed = torch.where(same_bin, entry_share, 0.0)
    before = torch.where(
        same_bin,
        0.0,
        _of_bin(start, at) - _of_bin(start, entered) - entry_share * _of_bin(increment, entered),
    )
    last = _of_bin(increment, at)
    in_last = hazard * last * (1 - missed)
    lived_in_last = hazard * last * (share - missed)
    # log(1 - exp(-x)) through expm1, which keeps its digits where x is small; a lower bound keeps log's slope finite.
    happened = torch.log(-torch.expm1(-in_last.clamp(min=torch.finfo(log_hazard.dtype).tiny)))
    per_patient = hazard * before + torch.where(event, -happened, lived_in_last)
    return per_patient.sum() / max(len(log_hazard), 1)


def _of_bin(values: Tensor, at: Tensor) -> Tensor:
    """Each patient's bin (N,) of values (bins,) that all share, or of each patient's own (N, bins)."""
    return values[at] if values.dim() == 1 else values.gather(1, at.unsqueeze(1)).squeeze(1)
