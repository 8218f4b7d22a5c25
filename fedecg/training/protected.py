"""The protected form of a stage's local steps: which losses may be, what follows from the step alone, a probe first.

In:  what `fedecg.training.local` hands `descend`, with a `Protection` in place of batches. Out: a mean loss for the
     site's own log. Called by `fedecg.training.local` under `privacy.mode = "sample"`.

Nothing here may depend on how many patients the site has or on what is known of them: the steps are the study's, also
where there is nobody to learn from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedecg.config import StudySettings
from fedecg.errors import ModelError
from fedecg.model import Network
from fedecg.objectives import Baseline
from fedecg.privacy.dp_steps import Patients, Protection, StepLoss, dp_descend
from fedecg.privacy.independence import refuse_coupled_patients
from fedecg.training.checkpoint import Watch
from fedecg.training.descent import optimiser_of
from fedecg.training.randomness import seeded_torch, site_generator
from fedecg.training.site_data import SiteData
from fedecg.training.stand_ins import stand_ins

__all__ = ["LossOf", "descend_protected", "noised_baseline", "refuse_coupled_losses"]

Rows = NDArray[np.int64]
Stage = Literal["align", "survival"]
LossOf = Callable[[Rows, np.random.Generator], Tensor]

# Settings with which no patient's share of the loss can be bounded, why, and what to take instead.
COUPLED = {
    "infonce": ("it contrasts the records of a batch with each other", 'align.loss = "bank"'),
    "shuffled": ("each record gets what another patient's states", 'align.targets = "stated"'),
    "cox-batch": ("its risk sets are the patients of a batch", 'survival.loss = "cox-pooled" or "grouped"'),
    "cox-site": ("its risk sets are the patients of the site", 'survival.loss = "cox-pooled" or "grouped"'),
}


def refuse_coupled_losses(settings: StudySettings, stage: Stage) -> None:
    """Refuse what is no sum over patients; in survival training also in the alignment loss that it keeps.

    Raises:
        ModelError: FECG-386.
    """
    aligns = stage == "align" or settings.survival.alignment > 0
    used: list[str] = [settings.survival.loss] if stage == "survival" else []
    if aligns:
        used += [settings.align.loss, settings.align.targets]
    for choice in used:
        if choice in COUPLED:
            reason, remedy = COUPLED[choice]
            raise ModelError(
                "FECG-386",
                f'"{choice}" with privacy.mode = "sample"',
                found=f"a loss that is no sum over patients: {reason}",
                expected="one in which each patient's share can be bounded",
                fix=f"Set {remedy}.",
            )


def noised_baseline(baseline: Baseline | None) -> Baseline:
    """The baseline hazard, which must come from noised sums: a site may not compute its own from its records.

    Raises:
        ModelError: FECG-387, there is none.
    """
    if baseline is None:
        raise ModelError(
            "FECG-387",
            'survival round with privacy.mode = "sample"',
            found="no baseline hazard",
            expected='one from noised sums, also with survival.baseline = "site"',
            fix="Hand it to train_survival: the exact one of the site's own records would tell of them.",
        )
    return baseline


def descend_protected(
    network: Network,
    names: Sequence[str],
    stage: Stage,
    site: SiteData,
    settings: StudySettings,
    round_index: int,
    rows: Rows,
    loss_on: Callable[[SiteData], LossOf],
    protection: Protection,
    watch: Watch,
) -> float:
    """`local-steps` protected steps of a stage, in place, after a look at whether the loss couples patients.

    The look is at patients who do not exist (`stand_ins`): whether the site goes on depends on none of its own.
    Dropout and the generator that the loss draws from start anew in every step, from a seed of its own: the same for
    all patients of a step, in whichever batch they are computed. The watch is shown how far it is; its checkpoint is
    not used, for noise must not be kept. Without a loss that reads it the temperature stays as it is.

    Args:
        rows: records that the stage may learn from.
        loss_on: of a site's data, or of stand-ins for them, the mean per-patient loss of some rows, with its graph; it
            draws from the generator.

    Returns:
        Mean loss of the patients drawn; it is not protected and stays at the site.

    Raises:
        ModelError: FECG-385, FECG-388, FECG-389 as `refuse_coupled_patients`; FECG-323 as `dp_descend`.
    """
    part = getattr(settings, stage)

    def in_step(loss_of: LossOf) -> StepLoss:
        def loss_in_step(step: int, batch: Rows) -> Tensor:
            name = f"{stage} step {step}"
            with seeded_torch(settings.seed, site.name, name, round_index):
                return loss_of(batch, site_generator(settings.seed, site.name, name, round_index))

        return loss_in_step

    invented = stand_ins(site)
    refuse_coupled_patients(network, names, in_step(loss_on(invented)), invented.rows("train"))
    if settings.align.loss == "paper":
        names = [name for name in names if not name.startswith("temperature_scale")]
    named = {name: weight for name, weight in network.named_parameters() if name in names}
    return dp_descend(
        network,
        names,
        optimiser_of(named, part),
        Patients(rows, site.cohort.patient[rows]),
        in_step(loss_on(site)),
        protection,
        steps=part.local_steps,
        divisor=part.batch_size,
        proximal_mu=settings.federation.proximal_mu,
        progress=watch.progress,
    )
