"""One local round: the weights that came, the site's training part, the study's settings; out come new weights.

In:  a network that holds the round's weights, a `SiteData`, `StudySettings`, the round; for alignment the bank,
     for survival the pooled baseline hazard. Out: the network changed in place, and `Trained`.
Called by the client and by the comparison columns of a simulation.

Both stages minimise (1 - r) * main + r * reconstruction, r = `reconstruction` of the stage. The main loss of survival
training is (1 - a) * survival + a * alignment, a = `survival.alignment`, of the same records. The survival losses:

    cox-batch    partial likelihood inside event-stratified batches, per event
    cox-site     risk set = the site's training part, per event. In one batch where it fits `batch-size`; else
                 mini-batches of the fixed-baseline form with the site's own Breslow hazard, made by a fresh pass
                 at the start of the round: at those weights its expected gradient is that of the whole risk set
                 (with Breslow ties), which no partial likelihood inside a mini-batch gives.
    cox-pooled   fixed-baseline form, per patient, with the pooled hazard (`baseline = "shared"`) or with the
                 site's own (`"site"`).
    grouped      discrete-time likelihood, per patient; its baseline is the survey's hazard times what the network's
                 `intercepts` have learned.

With a `Protection` (`privacy.mode = "sample"`) the steps are those of `fedecg.privacy.dp_steps`: losses that are sums
over patients only, exp(log hazard) clipped at `hazard-clip` in the gradient, the baseline hazard always from noised
sums. What `Trained` then says is not protected: it is for the site's own log and must not leave.

A site without training records, or without anything to learn from, makes 0 steps and leaves the network as it
was: weight decay alone must not move it. Nothing to learn from means no reconstruction and, in alignment, no
statements, in survival neither events nor a baseline of all sites. A protected site makes its steps all the same: that
it has nothing to learn from is nobody's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedecg.config import AlignSettings, StudySettings, SurvivalSettings
from fedecg.errors import CohortError, ModelError
from fedecg.model import Network, tensors_of_stage
from fedecg.objectives import (
    Baseline,
    bank_loss,
    cox_loss,
    grouped_loss,
    infonce_loss,
    interval_times,
    paper_loss,
    pooled_cox_loss,
    reconstruction_loss,
)
from fedecg.privacy.dp_steps import Protection
from fedecg.signals import LEADS
from fedecg.training.checkpoint import UNWATCHED, Watch
from fedecg.training.collapse import Ranks, ranks, ranks_are_due
from fedecg.training.descent import ENCODER, descend
from fedecg.training.protected import LossOf, descend_protected, noised_baseline, refuse_coupled_losses
from fedecg.training.randomness import seeded_torch, site_generator
from fedecg.training.sampling import event_stratified_batches, shuffled_batches
from fedecg.training.scoring import site_baseline
from fedecg.training.site_data import SiteData

__all__ = ["Trained", "train_align", "train_survival"]

Rows = NDArray[np.int64]
MainLoss = Callable[[Tensor, Rows], Tensor]  # of log hazards and the rows that they belong to

SMALLEST_STEP = (
    1e-12  # of the baseline hazard, where the survey's bin had no event; its intercept finds the rest
)


@dataclass(frozen=True)
class Trained:
    """What a site knows of its own round.

    Attributes:
        patients: records of the training part; in alignment those of the part "align", too.
        events: events among them.
        steps: optimiser steps made.
        loss: mean over the steps of the loss before each step; 0 without steps.
        stated: alignment: records that state something, by code or report; the others are reconstructed only.
        ranks: alignment: whether the embeddings have collapsed, in rounds in which that is looked at.
    """

    patients: int
    events: int
    steps: int
    loss: float
    stated: int = 0
    ranks: Ranks | None = None


def train_align(
    network: Network,
    site: SiteData,
    settings: StudySettings,
    round_index: int,
    bank_vectors: NDArray[np.float32],
    watch: Watch = UNWATCHED,
    dp: Protection | None = None,
    pull: Mapping[str, Tensor] | None = None,
) -> Trained:
    """`align.local-steps` steps of alignment pretraining, in place.

    `align.masked-leads` random leads, one draw a step for the whole batch, are hidden from the encoder; the
    reconstruction is compared with all leads.

    Args:
        bank_vectors: (K, D), the statements that `site.targets` points at.
        watch: sees every step; may continue a round that was killed.
        dp: protects every patient.
        pull: as in `descend`; read without `dp` only.

    Raises:
        ModelError: FECG-323, FECG-324 as `descend`; with `dp` FECG-386 as `refuse_coupled_losses`, FECG-385, FECG-388,
            FECG-389 as `descend_protected`.
    """
    stage = settings.align
    rows = site.rows_to_align()
    events = int(site.events(rows).sum())
    stated = int(site.targets[rows].any(axis=1).sum())
    if dp is None and not (stage.reconstruction or stated):
        return Trained(len(rows), events, 0, 0.0)
    rng = site_generator(settings.seed, site.name, "align", round_index)

    def loss_on(some: SiteData) -> LossOf:
        def loss_of(batch: Rows, draw: np.random.Generator) -> Tensor:
            signal_mv = some.signals(batch)
            embedding = network.embed(signal_mv, _lead_mask(stage.masked_leads, draw))
            network.observe(embedding)
            main = _alignment_loss(network, stage, embedding, some, batch, bank_vectors)
            return _with_reconstruction(main, network, embedding, signal_mv, stage.reconstruction)

        return loss_of

    names = tensors_of_stage(network, settings, "align")
    if dp is not None:
        refuse_coupled_losses(settings, "align")
        loss = descend_protected(
            network, names, "align", site, settings, round_index, rows, loss_on, dp, watch
        )
        steps = stage.local_steps
    else:
        batches = shuffled_batches(rows, stage.batch_size, stage.local_steps, rng)
        mu, loss_here = settings.federation.proximal_mu, loss_on(site)
        with seeded_torch(settings.seed, site.name, "align", round_index):
            loss = descend(
                network, names, stage, mu, batches, lambda rows: loss_here(rows, rng), rng, watch, pull
            )
        steps = len(batches)
    due = ranks_are_due(stage, round_index)
    found = ranks(network, site, bank_vectors, settings.seed) if due else None
    return Trained(len(rows), events, steps, loss, stated, found)


def train_survival(
    network: Network,
    site: SiteData,
    settings: StudySettings,
    round_index: int,
    baseline: Baseline | None,
    watch: Watch = UNWATCHED,
    bank_vectors: NDArray[np.float32] | None = None,
    dp: Protection | None = None,
    pull: Mapping[str, Tensor] | None = None,
) -> Trained:
    """`survival.local-steps` steps of Cox fine-tuning, in place.

    In the first `freeze-rounds` rounds the encoder is what it was: a fixed map, without dropout, that the risk head
    learns to read; afterwards it learns at `encoder-rate` times the learning rate of the rest.

    Args:
        baseline: the pooled baseline hazard; read only by cox-pooled with `baseline = "shared"`, and by grouped. With
            `dp` always read, from noised sums: with `baseline = "site"` those of this site alone.
        watch: sees every step; may continue a round that was killed.
        bank_vectors: (K, D), the statements that `site.targets` points at; read only with `survival.alignment`.
        dp: protects every patient.
        pull: as in `descend`; read without `dp` only.

    Raises:
        CohortError: FECG-231, a patient with several training records: they are not independent.
        ModelError: FECG-325 a shared baseline is needed and there is none; FECG-381 a bank; FECG-322, FECG-326 as
            `site_baseline`; FECG-323, FECG-324 as `descend`; with `dp` FECG-386 as `refuse_coupled_losses`, FECG-387 as
            `noised_baseline`, FECG-385, FECG-388, FECG-389 as `descend_protected`.

    Source: head first, encoder later: Kumar et al. 2022, arXiv 2202.10054.
    """
    stage = settings.survival
    rows = site.rows("train")
    _refuse_repeated_patients(site.cohort.patient[rows])
    events = int(site.events(rows).sum())
    if dp is None and not _teaches(site, settings, rows):
        return Trained(len(rows), events, 0, 0.0)
    rng = site_generator(settings.seed, site.name, "survival", round_index)
    batches: list[Rows] = []
    if dp is not None:
        refuse_coupled_losses(settings, "survival")
        main_on = partial(_sum_loss, network, stage, noised_baseline(baseline), exp_bound=dp.exp_bound)
    elif stage.loss == "cox-batch" or (stage.loss == "cox-site" and stage.batch_size >= len(rows)):
        batches = event_stratified_batches(rows, site.events(rows), stage.batch_size, stage.local_steps, rng)
        main_on = partial(_risk_set_loss, stage)
    else:
        batches = shuffled_batches(rows, stage.batch_size, stage.local_steps, rng)
        own = not _is_shared(stage)
        hazard = site_baseline(network, site, rows, stage.exp_bound) if own else _shared(baseline)
        # Per event, as the partial likelihood is, where the update is to be weighted by events.
        factor = len(rows) / max(events, 1) if stage.loss == "cox-site" else 1.0
        main_on = partial(_sum_loss, network, stage, hazard, factor=factor)

    kept = _bank_to_keep(bank_vectors) if stage.alignment else None
    fixed = round_index <= stage.freeze_rounds

    def loss_on(some: SiteData) -> LossOf:
        main_loss = main_on(site=some)

        def loss_of(batch: Rows, _draw: np.random.Generator) -> Tensor:
            signal_mv = some.signals(batch)
            embedding = _fixed_embedding(network, signal_mv) if fixed else network.embed(signal_mv)
            main = main_loss(network.log_hazard(embedding), batch)
            if kept is not None:
                alignment = _alignment_loss(network, settings.align, embedding, some, batch, kept)
                main = (1 - stage.alignment) * main + stage.alignment * alignment
            return _with_reconstruction(main, network, embedding, signal_mv, stage.reconstruction)

        return loss_of

    names = tensors_of_stage(network, settings, "survival")
    if fixed:
        names = tuple(name for name in names if not name.startswith(ENCODER))
    if dp is not None:
        loss = descend_protected(
            network, names, "survival", site, settings, round_index, rows, loss_on, dp, watch
        )
        return Trained(len(rows), events, stage.local_steps, loss)
    with seeded_torch(settings.seed, site.name, "survival", round_index):
        mu, loss_here = settings.federation.proximal_mu, loss_on(site)
        loss = descend(
            network, names, stage, mu, batches, lambda rows: loss_here(rows, rng), rng, watch, pull
        )
    return Trained(len(rows), events, len(batches), loss)


def _is_shared(stage: SurvivalSettings) -> bool:
    """Whether the loss reads the baseline hazard of all sites."""
    return stage.loss == "grouped" or (stage.loss == "cox-pooled" and stage.baseline == "shared")


def _teaches(site: SiteData, settings: StudySettings, rows: Rows) -> bool:
    """Whether there is anything to learn from."""
    stage = settings.survival
    stated = stage.alignment > 0 and bool(site.targets[rows].any())
    events = bool(site.events(rows).any())
    return len(rows) > 0 and (events or _is_shared(stage) or stage.reconstruction > 0 or stated)


def _alignment_loss(
    network: Network,
    stage: AlignSettings,
    embedding: Tensor,
    site: SiteData,
    batch: Rows,
    bank_vectors: NDArray[np.float32],
) -> Tensor:
    """How far embeddings (n, E) are from what the records of a batch (n,) state of the bank's (K, D) statements."""
    projected = network.project(embedding)
    stated, bank = _tensor_like(projected, site.targets[batch]), _tensor_like(projected, bank_vectors)
    if stage.loss == "bank":
        weights = None if site.class_weights is None else _tensor_like(projected, site.class_weights)
        return bank_loss(projected, bank, stated, network.temperature, weights)
    if stage.loss == "infonce":
        same = torch.from_numpy(site.state_the_same(batch))
        return infonce_loss(projected, stated @ bank, same, network.temperature)
    return paper_loss(projected, stated @ bank)


def _fixed_embedding(network: Network, signal_mv: Tensor) -> Tensor:
    """Embeddings of an encoder that does not learn: no dropout, no running statistics, no gradient."""
    network.encoder.eval()
    with torch.no_grad():
        return network.embed(signal_mv)


def _bank_to_keep(bank_vectors: NDArray[np.float32] | None) -> NDArray[np.float32]:
    if bank_vectors is None:
        raise ModelError(
            "FECG-381",
            "survival round",
            found="no code bank",
            expected="the study's (survival.alignment > 0)",
            fix="Hand it to train_survival, or set survival.alignment = 0.",
        )
    return bank_vectors


def _risk_set_loss(stage: SurvivalSettings, site: SiteData) -> MainLoss:
    """Partial likelihood of a batch: its patients are the risk set."""

    def main_loss(log_hazard: Tensor, batch: Rows) -> Tensor:
        event, days = torch.from_numpy(site.events(batch)), torch.from_numpy(site.follow_up_days(batch))
        return cox_loss(log_hazard, event, days, stage.ties, torch.from_numpy(site.entry_days(batch)))

    return main_loss


def _sum_loss(
    network: Network,
    stage: SurvivalSettings,
    hazard: Baseline,
    site: SiteData,
    factor: float = 1.0,
    exp_bound: float | None = None,
) -> MainLoss:
    """Mean of per-patient terms for a given baseline hazard; `exp_bound` None: the stage's."""
    bound = stage.exp_bound if exp_bound is None else exp_bound
    if stage.loss == "grouped":
        return _grouped_loss(network, site, stage, hazard, bound)
    return _fixed_baseline_loss(site, stage, hazard, factor, bound)


def _fixed_baseline_loss(
    site: SiteData, stage: SurvivalSettings, baseline: Baseline, factor: float, exp_bound: float
) -> MainLoss:
    """Mean per patient, times `factor`, with the baseline hazard held fixed for the round."""

    def main_loss(log_hazard: Tensor, batch: Rows) -> Tensor:
        event = site.events(batch)
        exposure = baseline.exposure(site.entry_days(batch), event, site.follow_up_days(batch))
        hazard = _tensor_like(log_hazard, exposure)
        seen = torch.from_numpy(event)
        return factor * pooled_cox_loss(log_hazard, seen, hazard, exp_bound, stage.exp_bound)

    return main_loss


def _grouped_loss(
    network: Network, site: SiteData, stage: SurvivalSettings, survey: Baseline, exp_bound: float
) -> MainLoss:
    """Mean per patient; the network's intercepts are departures from the survey's baseline, bin by bin."""
    steps = np.diff(survey.cumulative_hazard, prepend=0.0)
    log_steps = np.log(np.maximum(steps, SMALLEST_STEP))

    def main_loss(log_hazard: Tensor, batch: Rows) -> Tensor:
        times = interval_times(
            site.follow_up_days(batch), site.entry_days(batch), survey.edges_days, stage.horizon_days
        )
        log_baseline = _tensor_like(log_hazard, log_steps) + network.intercepts[..., : len(log_steps)]
        event = torch.from_numpy(site.events(batch))
        return grouped_loss(log_hazard, event, times, log_baseline, exp_bound)

    return main_loss


def _with_reconstruction(
    main: Tensor, network: Network, embedding: Tensor, signal_mv: Tensor, weight: float
) -> Tensor:
    if weight == 0:
        return main
    target = network.reconstruction_target(signal_mv)
    return (1 - weight) * main + weight * reconstruction_loss(network.reconstruct(embedding), target)


def _lead_mask(masked_leads: int, rng: np.random.Generator) -> Tensor | None:
    """(12,) bool, True = shown to the encoder."""
    if masked_leads == 0:
        return None
    mask = torch.ones(len(LEADS), dtype=torch.bool)
    mask[rng.choice(len(LEADS), size=masked_leads, replace=False)] = False
    return mask


def _tensor_like(model_output: Tensor, values: NDArray[np.floating]) -> Tensor:
    return torch.from_numpy(values).to(model_output.dtype)


def _shared(baseline: Baseline | None) -> Baseline:
    if baseline is None:
        raise ModelError(
            "FECG-325",
            "survival round",
            found="no baseline hazard",
            expected='that of all sites (survival.loss = "grouped", or "cox-pooled" with survival.baseline = "shared")',
            fix='Send it with the task, or set survival.baseline = "site".',
        )
    return baseline


def _refuse_repeated_patients(patient: NDArray[np.int64]) -> None:
    repeated = len(patient) - len(np.unique(patient))
    if repeated:
        raise CohortError(
            "FECG-231",
            "training part of the cohort",
            found=f"{repeated} of {len(patient)} records of patients who have another one there",
            expected="one index ECG a patient in survival training",
            fix="Keep each patient's index ECG only.",
        )
