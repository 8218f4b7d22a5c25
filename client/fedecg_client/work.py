"""What a site does with each task: score, count, train; only sums, counts and the update come back.

In:  the site's workplace, a task, the weights it carries. Out: the reply and, after training, the new weights.
Called by the ClientApp. Data and network are opened once a process and reused from round to round.
"""

from __future__ import annotations

import copy
import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedecg.cohort import SUBGROUPS, Cohort, subgroup_members
from fedecg.config import (
    AlignSettings,
    ModelSettings,
    SignalSettings,
    SiteSettings,
    Stage,
    StudySettings,
    load_site,
    parse_settings,
)
from fedecg.errors import FederationError
from fedecg.evaluation import RiskTimeGrid, site_sums
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
from fedecg.federation.transfer import encoded
from fedecg.fingerprint import code_fingerprint
from fedecg.model import Network, build_network, load_vector, tensors_of_stage, to_vector
from fedecg.objectives import COLLAPSE_REMEDY, Baseline, public_grid
from fedecg.privacy.disclosure import Thresholds
from fedecg.privacy.withdrawal import read_site_cohort, withdrawn_state
from fedecg.text import Bank, frequencies_sha256, load_bank
from fedecg.text.left_out import shown_vectors
from fedecg.training import (
    SiteData,
    Trained,
    load_site_data,
    log_hazards,
    site_generator,
    survival_sums,
    train_align,
    train_survival,
)
from fedecg.training.randomness import repeated_seed
from fedecg_client import plain_sums
from fedecg_client.budget import budget_document
from fedecg_client.workplace import Workplace

__all__ = [
    "Weights",
    "alignment_figures",
    "assess",
    "baseline_of",
    "census",
    "concordance_counts",
    "evaluate",
    "evaluation_grid",
    "explain",
    "join",
    "opened",
    "parts_of",
    "settings_here",
    "state_of_data",
    "statements",
    "survey",
    "train",
    "trained_names",
]

Weights = NDArray[Any] | None  # float32; a trained update may be a change in 16 bits
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
State = tuple[tuple[str | int, ...], ...]  # of a site's files

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
    site, network, settings = opened(place.folder, task, weights)
    settings = _with_seed_of(task, settings)
    names, sums = trained_names(network, settings, task.stage), None
    received, limits = to_vector(network, names), plain_sums.thresholds_of(place.folder, settings)
    if task.stage == "align":
        trained = train_align(network, site, settings, task.round, statements(settings), place.watch)
    else:
        baseline = baseline_of(task.hazard)
        sums = _round_sums(network, site, settings, baseline, evaluation_grid(task.grid), limits)
        vectors = statements(settings)
        trained = train_survival(network, site, settings, task.round, baseline, place.watch, vectors)
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
    return reply, encoded(to_vector(network, names), received, settings.federation.transfer)


def alignment_figures(trained: Trained, settings: StudySettings) -> AlignmentFigures | None:
    """What is said of an alignment round; a collapse stands in the site's own log whether or not it may be said."""
    found = trained.ranks
    if found is not None and found.collapsed:
        log.warning(
            "embeddings fill %.1f directions and what they are pulled to fills %.1f: %s",
            found.embeddings,
            found.targets,
            COLLAPSE_REMEDY,
        )
    if not settings.privacy.tells_of_alignment:
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
    sums = survival_sums(
        network, plain_sums.coarse(site, limits), told, edges_days, settings.survival.exp_bound
    )
    reply = EvaluateReply(
        site=site.name,
        counts={
            part: concordance_counts(log_hazards(network, site, site.rows(part)), site, part, grid, limits)
            for part in task.parts
        },
        validation_events=sums.events.tolist(),
        validation_exp_sums=sums.exp_sums.tolist(),
        risk=RiskMoments.of(log_hazards(network, site, told)),
    )
    return reply, None


def assess(place: Workplace, task: AssessTask, weights: Weights) -> tuple[AssessReply, None]:
    """The sums of every figure of the evaluation, on the part asked for."""
    site, network, settings = opened(place.folder, task, weights)
    rows = _observed_from_the_ecg(site, task.part)
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


def explain(place: Workplace, task: ExplainTask, weights: Weights) -> tuple[ExplainReply, None]:
    """The sums of the tests of attention on some ECGs of the part asked for, and of groups of its patients.

    A sum over few patients speaks of each of them: below `FEWEST_PATIENTS` zeros leave, and nobody's groups.
    """
    study, *others = split_models(weights, task.models)
    site, network, settings = opened(place.folder, task, study)
    rows = _one_ecg_a_patient(site, _observed_from_the_ecg(site, task.part))
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
    groups = groups_of(log_hazards(network, site, rows), codes, task.risk_cuts, _bank(settings).codes)
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


def _observed_from_the_ecg(site: SiteData, part: Part) -> Rows:
    rows = site.rows(part)
    late = int(np.sum(site.entry_days(rows) > 0))
    if late:
        raise FederationError(
            "FECG-517",
            f"{part} part of the cohort",
            found=f"{late} of {len(rows)} patients who enter after their ECG",
            expected="patients observed from their ECG on: curves and weights do not know late entries",
            fix="Evaluate on patients with entry_days = 0; training takes late entries into account.",
        )
    return rows


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


def opened(folder: Path, task: Task, weights: Weights) -> tuple[SiteData, Network, StudySettings]:
    """The site's data and a network that holds the weights that came."""
    settings = settings_here(folder, task)
    torch.set_num_threads(settings.federation.threads)
    _refuse_another_bank(folder, task, settings)
    site = _site_data(folder, state_of_data(folder), settings.signals, settings.align, settings.seed)
    plain_sums.admit(folder, site.cohort, plain_sums.thresholds_of(folder, settings))
    network = _network(
        settings.model, settings.signals.samples, settings.align.bank, settings.survival.intercepts
    )
    if weights is None or weights.dtype != np.float32:
        raise FederationError(
            "FECG-504", f"{task.stage} task", found="no float32 weights", expected="one float32 vector"
        )
    load_vector(network, trained_names(network, settings, task.stage), weights)
    return site, network, settings


def _refuse_another_bank(folder: Path, task: Task, settings: StudySettings) -> None:
    """What the site's targets are made of must be what the study agreed on."""
    bank = _bank(settings)
    has_reports = load_site(folder / "site.toml").text is not None
    weighs = settings.align.class_weights == "public"
    other = {
        "code bank": task.bank_sha256 != bank.sha256,
        "code bank's space for reports": has_reports and task.space_sha256 != bank.space_sha256,
        "frequencies of codes": weighs and task.frequencies_sha256 != frequencies_sha256(),
    }
    for what, differs in other.items():
        if differs:
            raise FederationError(
                "FECG-514",
                what,
                found="another sha256 than the study's",
                expected="that which the coordinator uses",
                fix="Install the study's fedecg; copy its bank, both files, into banks/ of the site's folder.",
            )


def settings_here(folder: Path, task: Task) -> StudySettings:
    """The study's settings; a bank that is a file is looked for among the site's own, wherever the coordinator has it.

    A deployed site opens no other file because of a message.
    """
    settings = parse_settings(StudySettings, task.settings)
    bank = settings.align.bank
    if not bank.endswith(".safetensors") or load_site(folder / "site.toml").server is None:
        return settings
    own = str(folder / "banks" / Path(bank).name)
    return settings.model_copy(update={"align": settings.align.model_copy(update={"bank": own})})


def statements(settings: StudySettings) -> NDArray[np.float32]:
    """(K, D) statements that alignment is shown."""
    return shown_vectors(_bank(settings), settings.align.leave_out)


def _bank(settings: StudySettings) -> Bank:
    return _bank_of(settings.align.bank)


@lru_cache(maxsize=2)
def _bank_of(name: str) -> Bank:
    return load_bank(name)


@lru_cache(maxsize=1)
def _network(model: ModelSettings, samples: int, bank: str, intercepts: int) -> Network:
    """Room for weights: every task brings those that it needs."""
    return build_network(model, samples, _bank_of(bank).vectors.shape[1], seed=0, intercepts=intercepts)


def state_of_data(folder: Path) -> State:
    """Changes when the site's name or any file of its data is replaced, so that a mended table is read anew."""
    site = load_site(folder / "site.toml")
    files = [
        Path(site.cohort),
        Path(site.store) / "store.json",
        *([Path(site.text.reports)] if site.text else []),
    ]
    found = [(file.stat().st_mtime_ns, file.stat().st_size) if file.exists() else (0, 0) for file in files]
    text = site.text.model_dump_json() if site.text else ""
    return (site.name, site.cohort, site.store, text), *found, withdrawn_state(folder)


@lru_cache(maxsize=64)
def _site_data(
    folder: Path, state: State, signals: SignalSettings, align: AlignSettings, seed: int
) -> SiteData:
    del state  # part of the key alone
    settings = StudySettings(signals=signals, align=align, seed=seed)
    return load_site_data(folder, settings, _bank_of(align.bank))


def trained_names(network: Network, settings: StudySettings, stage: Stage) -> tuple[str, ...]:
    """Tensors that a stage trains and a message carries."""
    return tensors_of_stage(network, settings, stage)


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
