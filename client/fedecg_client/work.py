"""What a site does with each task: score, count, train; only sums, counts and the update come back.

In:  the site's workplace, a task, the weights it carries. Out: the reply and, after training, the new weights.
Called by the ClientApp.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedecg.cohort import SUBGROUPS, Cohort, subgroup_members
from fedecg.config import SiteSettings, StudySettings, load_site, parse_settings
from fedecg.errors import FederationError
from fedecg.evaluation import RiskTimeGrid, site_sums
from fedecg.federation.documents import (
    AlignmentFigures,
    CountsDocument,
    GridDocument,
    HazardDocument,
    JoinedPart,
    Part,
    PartCounts,
    RiskMoments,
    RoundSums,
)
from fedecg.federation.masked import CensusReply, CensusTask
from fedecg.federation.site_level import clipped
from fedecg.federation.sums import AssessReply, AssessTask
from fedecg.federation.tasks import (
    EvaluateReply,
    EvaluateTask,
    JoinReply,
    JoinTask,
    SurveyReply,
    SurveyTask,
    Task,
    TrainReply,
    TrainTask,
)
from fedecg.federation.transfer import decoded, encoded
from fedecg.fingerprint import code_fingerprint
from fedecg.model import Network, to_vector
from fedecg.objectives import COLLAPSE_REMEDY, Baseline, public_grid
from fedecg.privacy.disclosure import Thresholds
from fedecg.privacy.withdrawal import read_site_cohort
from fedecg.training import (
    SiteData,
    Trained,
    log_hazards,
    survival_sums,
    train_align,
    train_survival,
)
from fedecg.training.randomness import repeated_seed
from fedecg_client import plain_sums
from fedecg_client.budget import budget_document
from fedecg_client.opened import (
    Weights,
    observed_from_the_ecg,
    opened,
    settings_here,
    statements,
    trained_names,
)
from fedecg_client.own_control import control_of, weights_of
from fedecg_client.own_norms import keep_norms
from fedecg_client.workplace import Workplace

__all__ = [
    "alignment_figures",
    "assess",
    "baseline_of",
    "census",
    "concordance_counts",
    "evaluate",
    "evaluation_grid",
    "join",
    "parts_of",
    "survey",
    "train",
]

Floats = NDArray[np.float64]
log = logging.getLogger("fedecg.client")
PARTS: tuple[JoinedPart, ...] = ("train", "validation", "test", "align")


def join(place: Workplace, task: JoinTask, weights: Weights) -> tuple[JoinReply, None]:
    """Say who this site is: name, patients and events by part, code."""
    del weights
    settings = load_site(place.folder / "site.toml")
    privacy = parse_settings(StudySettings, task.lock.settings).privacy
    # Under masked sums nobody learns how many a single site has (`census`); under noised ones nobody at all.
    told = {} if privacy.sums in ("masked", "noised") else _parts_told(place.folder, task, settings)
    reply = JoinReply(
        site=settings.name,
        parts=told,
        budget=budget_document(settings) if privacy.mode == "sample" else None,
        code_fingerprint=code_fingerprint(),
        lock_sha256=task.lock.sha256(),
    )
    return reply, None


def _parts_told(folder: Path, task: JoinTask, settings: SiteSettings) -> dict[JoinedPart, PartCounts]:
    """Patients and events of the parts, without what is small; a site with hardly anybody to learn from stays away."""
    limits = plain_sums.thresholds_of(folder, parse_settings(StudySettings, task.lock.settings))
    cohort = read_site_cohort(folder, settings.cohort)
    parts = parts_of(cohort)
    plain_sums.refuse_few(cohort, limits)
    plain_sums.admit(folder, cohort, limits)
    return plain_sums.parts_told(parts, cohort, limits)


def parts_of(cohort: Cohort) -> dict[JoinedPart, PartCounts]:
    """Patients and events of the parts that there are."""
    return {
        part: PartCounts(patients=int(inside.sum()), events=int(cohort.event[inside].sum()))
        for part in PARTS
        if (inside := cohort.part == part).any()
    }


def census(place: Workplace, task: CensusTask, weights: Weights) -> tuple[CensusReply, None]:
    """Nothing by itself: patients and events of the parts travel with every masked reply."""
    del task, weights
    return CensusReply(site=load_site(place.folder / "site.toml").name), None


def survey(place: Workplace, task: SurveyTask, weights: Weights) -> tuple[SurveyReply, None]:
    """Events, exits and hazard sums of the training part on the public grid; nothing is trained."""
    site, network, settings = opened(place.folder, task, weights)
    edges = public_grid(settings.survival.grid_days, settings.survival.horizon_days)
    train, validation = site.rows("train"), site.rows("validation")
    limits = plain_sums.thresholds_of(place.folder, settings)
    sums = survival_sums(network, plain_sums.coarse(site, limits), train, edges, settings.survival.exp_bound)
    reply = SurveyReply(
        site=site.name,
        train_events=sums.events.tolist(),
        train_exp_sums=sums.exp_sums.tolist(),
        risk=plain_sums.moments_of(log_hazards(network, site, validation), site, "validation", limits),
    )
    return reply, None


def train(place: Workplace, task: TrainTask, weights: Weights) -> tuple[TrainReply, Weights]:
    """One local round. Sums and counts speak of the weights that came, the vector of those that go."""
    received, everybody = weights_of(settings_here(place.folder, task), weights)
    site, network, settings = opened(place.folder, task, received)
    settings = _with_seed_of(task, settings)
    names, sums = trained_names(network, settings, task.stage), None
    limits = plain_sums.thresholds_of(place.folder, settings)
    control = None if everybody is None else control_of(place.folder, task, site.name, everybody)
    pull = None if control is None else control.pull(network, names)
    if task.stage == "align":
        trained = train_align(
            network, site, settings, task.round, statements(settings), place.watch, pull=pull
        )
    else:
        baseline = baseline_of(task.hazard)
        sums = _round_sums(network, site, settings, baseline, evaluation_grid(task.grid), limits)
        vectors = statements(settings)
        trained = train_survival(
            network, site, settings, task.round, baseline, place.watch, vectors, pull=pull
        )
    reply = TrainReply(
        site=site.name,
        round=task.round,
        patients=plain_sums.learned_from(trained.patients, site.cohort, limits),
        events=trained.events,
        steps=trained.steps,
        loss=trained.loss,
        code_fingerprint=code_fingerprint(),
        sums=sums,
        alignment=alignment_figures(trained, settings) if task.stage == "align" else None,
    )
    assert received is not None  # `opened` has refused a task without weights
    leaving = to_vector(network, names)
    if settings.privacy.mode == "client":
        leaving = clipped(leaving, received, settings.privacy.client_clip)
    update = encoded(leaving, received, settings.federation.transfer)
    if control is not None:
        read = decoded(update, received, settings.federation.transfer)  # rounded as the coordinator gets it
        assert read is not None
        control.keep(network, settings, task, received, read, trained.steps)
    if settings.federation.algorithm == "fedbn":
        keep_norms(place.folder, task, network, names)
    return reply, update


def alignment_figures(trained: Trained, settings: StudySettings) -> AlignmentFigures | None:
    """What is said of an alignment round; a collapse that may not be said stands in the site's own log."""
    found = trained.ranks
    if not settings.privacy.tells_of_alignment:
        if found is not None and found.collapsed:
            log.warning(
                "embeddings fill %.1f directions and what they are pulled to fills %.1f: %s",
                found.embeddings,
                found.targets,
                COLLAPSE_REMEDY,
            )
        return None
    if found is None:
        return AlignmentFigures(stated=trained.stated)
    return AlignmentFigures(
        stated=trained.stated, records=found.records, rank=found.embeddings, target_rank=found.targets
    )


def evaluate(place: Workplace, task: EvaluateTask, weights: Weights) -> tuple[EvaluateReply, None]:
    """Concordance counts of the parts asked for, and the sums of the baseline hazard on validation patients."""
    site, network, settings = opened(place.folder, task, weights)
    grid, edges_days = evaluation_grid(task.grid), np.array(task.edges_days)
    limits = plain_sums.thresholds_of(place.folder, settings)
    told = plain_sums.rows_told(site, "validation", limits)
    scores = log_hazards(network, site, told)
    bound = settings.survival.exp_bound
    sums = survival_sums(network, plain_sums.coarse(site, limits), told, edges_days, bound, scores)

    def scores_of(part: Part) -> Floats:
        rows = site.rows(part)
        return scores if np.array_equal(rows, told) else log_hazards(network, site, rows)

    reply = EvaluateReply(
        site=site.name,
        counts={part: concordance_counts(scores_of(part), site, part, grid, limits) for part in task.parts},
        validation_events=sums.events.tolist(),
        validation_exp_sums=sums.exp_sums.tolist(),
        risk=RiskMoments.of(scores),
    )
    return reply, None


def assess(place: Workplace, task: AssessTask, weights: Weights) -> tuple[AssessReply, None]:
    """The sums of every figure of the evaluation, on the part asked for."""
    site, network, settings = opened(place.folder, task, weights)
    rows = observed_from_the_ecg(site, task.part)
    scores = log_hazards(network, site, rows)
    plan = task.plan.plan()
    if plan.subgroups != SUBGROUPS:
        raise FederationError(
            "FECG-503",
            "subgroups of a task",
            found=f"{len(plan.subgroups)} names",
            expected=", ".join(SUBGROUPS),
        )
    members = subgroup_members(site.cohort.select(rows))
    sums = site_sums(site.follow_up_days(rows), site.cause(rows), scores, members, plan)
    limits = plain_sums.thresholds_of(place.folder, settings)
    return AssessReply.of(site.name, *plain_sums.assessed(sums, scores, site, task.part, plan, limits)), None


def _with_seed_of(task: Task, settings: StudySettings) -> StudySettings:
    """The settings with the seed of a task, which is another where the study trains again.

    Raises:
        FederationError: FECG-359 more repetitions, or of another stage, than the settings say that there are.
    """
    evaluation = settings.evaluation
    stages = ("survival",) if evaluation.explain_seeds_from == "aligned" else ("align", "survival")
    most = evaluation.explain_seeds if evaluation.explain and task.stage in stages else 0
    if task.repeat > most:
        raise FederationError(
            "FECG-359",
            f"{task.stage} task",
            found=f"repetition {task.repeat}",
            expected=f"at most {most} (evaluation.explain-seeds)",
            fix="Tell the coordinator: the study that this site joined does not train again so often.",
        )
    return settings.model_copy(update={"seed": repeated_seed(settings.seed, task.repeat)})


def _round_sums(
    network: Network,
    site: SiteData,
    settings: StudySettings,
    baseline: Baseline,
    grid: RiskTimeGrid,
    limits: Thresholds,
) -> RoundSums:
    bound = settings.survival.exp_bound
    scores = log_hazards(network, site, site.rows("validation"))
    moved = plain_sums.coarse(site, limits)
    sums = survival_sums(network, moved, site.rows("train"), baseline.edges_days, bound)
    return RoundSums(
        train_exp_sums=sums.exp_sums.tolist(),
        validation=concordance_counts(scores, site, "validation", grid, limits),
        risk=plain_sums.moments_of(scores, site, "validation", limits),
        # Whose sums these are is not known to the coordinator: events of the same sites come with them.
        train_events=sums.events.tolist() if settings.privacy.sums == "masked" else None,
    )


def concordance_counts(
    scores: Floats, site: SiteData, part: Part, grid: RiskTimeGrid, limits: Thresholds
) -> CountsDocument:
    """What leaves of a part's concordance: cells of the grid, as large as they must be, and exact counts of pairs."""
    return plain_sums.counts_of(scores, site, part, grid, limits)


def baseline_of(document: HazardDocument | None) -> Baseline:
    if document is None:
        raise FederationError(
            "FECG-503", "survival task", found="no baseline hazard", expected="edges and hazard"
        )
    return Baseline(edges_days=np.array(document.edges_days), cumulative_hazard=np.array(document.cumulative))


def evaluation_grid(document: GridDocument | None) -> RiskTimeGrid:
    """The cuts that a task carries; FECG-503 without them."""
    if document is None:
        raise FederationError(
            "FECG-503", "survival task", found="no evaluation grid", expected="time and risk cuts"
        )
    return RiskTimeGrid(
        time_cuts_days=np.array(document.time_cuts_days), risk_cuts=np.array(document.risk_cuts)
    )
