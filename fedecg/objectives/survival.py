"""Survival objectives: how badly a risk score orders patients in time.

In:  log hazards (N,) from `fedecg.model`, events (N,) bool, follow-up (N,) in days or H0 there (N,).
Out: one scalar that `fedecg.training` minimises. Nothing here knows of sites or of Flower.

Two forms of one model. `cox_loss` couples the patients of a risk set; `pooled_cox_loss` takes the baseline
hazard as given (`fedecg.objectives.hazard`) and is then a sum over patients with the same gradient.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

__all__ = ["cox_loss", "linear_exp", "pooled_cox_loss"]


def cox_loss(
    log_hazard: Tensor,
    event: Tensor,
    follow_up_days: Tensor,
    ties: Literal["efron", "breslow"] = "efron",
    entry_days: Tensor | None = None,
) -> Tensor:
    """Negative log partial likelihood of the patients given, per event.

    Assumes that censoring is independent of the hazard, given the ECG. A patient censored at the time of an
    event is still at risk at that time.

    Args:
        log_hazard: (N,), no unit; larger means earlier event. Values of +-50 are safe in float32.
        event: (N,), bool; True = event seen, False = censored.
        follow_up_days: (N,), days > 0 to the event or the last contact.
        ties: how events at the same time share a risk set.
        entry_days: (N,), days >= 0 from which each patient is observed (left truncation): at risk at the event times
            after it. None: all from the start.

    Returns:
        Scalar, nats per event. Without events it is exactly 0, and so is its gradient.

    Source: Cox 1972; ties: Breslow 1974, doi 10.2307/2529620, and Efron 1977,
    doi 10.1080/01621459.1977.10480613.
    """
    events = int(event.sum())
    if events == 0:
        return (log_hazard * 0).sum()
    if entry_days is not None and bool(entry_days.any()):
        return _truncated_cox_loss(log_hazard, event, follow_up_days, ties, entry_days)
    order = torch.argsort(follow_up_days, descending=True, stable=True)
    log_hazard, event, follow_up_days = log_hazard[order], event[order], follow_up_days[order]
    _, tie, size = torch.unique_consecutive(follow_up_days, return_inverse=True, return_counts=True)
    # Patients run from the longest follow-up down, so the risk set of a time ends with the last of its ties.
    log_risk = torch.logcumsumexp(log_hazard, dim=0)[size.cumsum(0) - 1]
    tie, log_hazard = tie[event], log_hazard[event]
    log_sums = log_risk[tie]
    if ties == "efron":
        log_sums = log_sums + _efron_term(log_hazard - log_sums, tie, len(size))
    return (log_sums - log_hazard).sum() / events


def _truncated_cox_loss(
    log_hazard: Tensor,
    event: Tensor,
    follow_up_days: Tensor,
    ties: Literal["efron", "breslow"],
    entry_days: Tensor,
) -> Tensor:
    """The same with late entries: each event's risk set by itself, since sums of log hazards cannot be taken apart."""
    seen = torch.nonzero(event).squeeze(1)
    seen = seen[torch.argsort(follow_up_days[seen], stable=True)]
    moment, tie = torch.unique(follow_up_days[seen], return_inverse=True)
    at_risk = (entry_days < moment[:, None]) & (follow_up_days >= moment[:, None])
    log_sums = torch.where(at_risk, log_hazard, -torch.inf).logsumexp(dim=1)[tie]
    if ties == "efron":
        log_sums = log_sums + _efron_term(log_hazard[seen] - log_sums, tie, len(moment))
    return (log_sums - log_hazard[seen]).sum() / len(tie)


def _efron_term(log_share: Tensor, tie: Tensor, ties: int) -> Tensor:
    """What Efron adds to the log risk sum of each event: log(1 - (rank / tied events) * share of the tied).

    `log_share` (E,) is each event's log share of its risk set, <= 0, so nothing here overflows; `tie` (E,) is
    the number of its time, ascending, below `ties`. Inside a tie the ranks run from 0 to its events - 1.
    """
    tied = torch.bincount(tie, minlength=ties)
    first = tied.cumsum(0) - tied
    rank = torch.arange(len(tie), device=tie.device) - first[tie]
    share = torch.zeros(ties, dtype=log_share.dtype, device=tie.device).index_add(0, tie, log_share.exp())
    # Rounding may put the share of a tie that is the whole risk set above 1; its gradient is 0 there anyway.
    return torch.log1p(-(rank / tied[tie]).to(log_share.dtype) * share.clamp(max=1)[tie])


def pooled_cox_loss(
    log_hazard: Tensor,
    event: Tensor,
    cumulative_hazard: Tensor,
    exp_bound: float,
    exposure_bound: float | None = None,
) -> Tensor:
    """Mean per-patient Cox loss for a fixed baseline cumulative hazard.

    With H0 from `hazard.breslow` at these log hazards and a bin for every event time, its gradient, times the
    patients and summed over all sites, is that of the pooled partial likelihood with Breslow ties.

    Args:
        log_hazard: (N,), no unit; larger means earlier event.
        event: (N,), bool; True = event seen, False = censored.
        cumulative_hazard: (N,), H0 at each patient's own follow-up time, finite and >= 0 (`Baseline.at`).
        exp_bound: exp(log hazard) is continued linearly beyond this log hazard: in the gradient, exp(log hazard) is
            then min(exp(log hazard), exp(exp_bound)).
        exposure_bound: H0 beyond the exp of it counts as that, so a stale H0 cannot make one patient's gradient grow
            without limit; None: `exp_bound`.

    Returns:
        Scalar, nats per patient; a mean over patients, so mini-batches are unbiased and per-patient clipping
        is sound. A patient without event still teaches. Of no patients at all it is 0.

    Source: Breslow 1972, discussion of Cox 1972; design.md section 5.
    """
    most = math.exp(exp_bound if exposure_bound is None else exposure_bound)
    exposure = cumulative_hazard.clamp(max=most)  # a baseline gone astray must not overflow
    per_patient = linear_exp(log_hazard, exp_bound) * exposure - event * log_hazard
    return per_patient.sum() / max(len(log_hazard), 1)


def linear_exp(x: Tensor, bound: float) -> Tensor:
    """exp(x) up to `bound`, and its tangent there beyond: continuous with a continuous derivative.

    Args:
        x: any shape, no unit.
        bound: where exp ends and the straight line starts.

    Returns:
        Tensor of the shape of `x`, > 0.
    """
    return x.clamp(max=bound).exp() * (1 + torch.relu(x - bound))
