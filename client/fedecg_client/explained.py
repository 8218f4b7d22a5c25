"""The tests of attention at a site: sums over some of its ECGs, and of groups of its patients.

In:  the site's workplace, an `ExplainTask`, the weights of one model or several. Out: the reply; nothing is trained.
Called by the ClientApp.
"""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray

from fedecg.config import StudySettings
from fedecg.explanation import faithfulness_sums
from fedecg.explanation.documents import ExplainReply, ExplainTask, split_models, sums_of_nobody
from fedecg.explanation.groups import (
    FEWEST_PATIENTS,
    GROUP_ECGS,
    GroupSums,
    group_sums,
    groups_of,
    may_leave,
)
from fedecg.model import Network, load_vector
from fedecg.training import SiteData, log_hazards, site_generator
from fedecg_client.opened import Rows, Weights, bank_of, observed_from_the_ecg, opened, trained_names
from fedecg_client.workplace import Workplace

__all__ = ["explain"]


def explain(place: Workplace, task: ExplainTask, weights: Weights) -> tuple[ExplainReply, None]:
    """The sums of the tests of attention on some ECGs of the part asked for, and of groups of its patients.

    A sum over few patients speaks of each of them: below `FEWEST_PATIENTS` zeros leave, and nobody's groups.
    """
    study, *others = split_models(weights, task.models)
    site, network, settings = opened(place.folder, task, study)
    rows = _one_ecg_a_patient(site, observed_from_the_ecg(site, task.part))
    order = site_generator(settings.seed, site.name, "explain", task.round).permutation(rows)
    chosen = order[: settings.evaluation.explain_ecgs]
    if len(chosen) < FEWEST_PATIENTS:
        nobody = sums_of_nobody(network, settings.seed, task.models)
        return ExplainReply.of(site.name, nobody), None
    sums = faithfulness_sums(
        network,
        site.signals(chosen).numpy(),
        site.follow_up_days(chosen),
        site.events(chosen),
        settings.seed,
        [_copy_with(network, trained_names(network, settings, task.stage), vector) for vector in others],
    )
    return ExplainReply.of(site.name, sums, _groups(network, site, settings, task, order)), None


def _groups(
    network: Network, site: SiteData, settings: StudySettings, task: ExplainTask, order: Rows
) -> dict[str, GroupSums]:
    """Sums of the groups that may leave the site; the ECGs of the tests, whose sums leave, too, come first."""
    rows = order[:GROUP_ECGS]
    codes = [site.cohort.codes[row] for row in rows]
    groups = groups_of(log_hazards(network, site, rows), codes, task.risk_cuts, bank_of(settings).codes)
    tested = np.arange(len(rows)) < settings.evaluation.explain_ecgs
    signal_mv = site.signals(rows).numpy()
    return group_sums(network, signal_mv, float(settings.signals.rate_hz), may_leave(groups, tested))


def _one_ecg_a_patient(site: SiteData, rows: Rows) -> Rows:
    _, first = np.unique(site.cohort.patient[rows], return_index=True)
    return rows[np.sort(first)]


def _copy_with(network: Network, names: tuple[str, ...], vector: NDArray[np.float32]) -> Network:
    """Another model of the same study."""
    other = copy.deepcopy(network)
    load_vector(other, names, vector)
    return other
