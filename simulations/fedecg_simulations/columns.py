"""The columns of the comparison: who trains on what, and the log hazards that each gives the test patients.

In:  a prepared simulation. Out: column name -> (models, n) log hazards. Called by the runner.
The pooled and the local columns are the same ServerApp and ClientApp as the federated one, with one site.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.config import PrivacySettings, StudySettings
from fedecg.errors import FederationError, ModelError
from fedecg.evaluation import age_sex_risk
from fedecg.federation.participation import taking_part
from fedecg.model import load_model
from fedecg.progress import Progress
from fedecg.text import load_bank
from fedecg.training import load_site_data, log_hazards
from fedecg_server.run_folder import RunFolder, read_json
from fedecg_simulations import more_columns
from fedecg_simulations.comparison import TestPart, site_only_risk
from fedecg_simulations.dataset import Dataset
from fedecg_simulations.engine import run_federation
from fedecg_simulations.sites import POOLED, write_sites

__all__ = ["Bench", "all_columns", "run_column"]

Floats = NDArray[np.float64]
Risks = dict[str, Floats | None]


class Bench:
    """A prepared simulation, with all its patients in one pooled site: what no real consortium has.

    Args:
        settings: the study.
        dataset: cohort and, where outcomes are simulated, the true hazard.
        parts: site name -> rows of the cohort.
        store: folder of the signal store.
        out: the run's folder; columns are trained under `columns/`.
    """

    def __init__(
        self,
        settings: StudySettings,
        dataset: Dataset,
        parts: dict[str, NDArray[np.int64]],
        store: Path,
        out: Path,
    ) -> None:
        self.settings, self.dataset, self.parts, self.store, self.out = settings, dataset, parts, store, out
        self.without_model: dict[str, str] = {}  # site that could not train alone -> code
        # One site has nobody to be drawn to or averaged with: plain steps, whatever the study's algorithm.
        alone = settings.federation.model_copy(
            update={"quorum": 1, "algorithm": "fedavg", "proximal_mu": 0.0}
        )
        # Attention is tested in the federated column only.
        self.evaluation = settings.evaluation.model_copy(update={"explain": False})
        self.one_site = settings.model_copy(
            update={
                "federation": alone,
                "evaluation": self.evaluation,
                "privacy": _of_one_site(settings.privacy),
            }
        )
        names = np.concatenate([np.full(len(rows), name) for name, rows in parts.items()])
        rows = np.concatenate(list(parts.values()))
        order = np.argsort(rows)
        self.rows, self.site = rows[order], names[order]
        folder = self.write_site(POOLED, self.rows)
        self.pooled = load_site_data(folder / POOLED, settings, load_bank(settings.align.bank))
        self.test = self.outcomes("test")

    def write_site(self, name: str, rows: NDArray[np.int64]) -> Path:
        """A consortium of one site; returns the parent of its site folder."""
        folder = self.out / "columns" / name / "sites"
        write_sites(self.dataset.cohort, self.store, {name: rows}, folder, self.settings.site_defaults)
        return folder

    def outcomes(self, part: str) -> TestPart:
        """Outcomes and site of all patients of a part."""
        rows = self.pooled.rows(part)
        cohort = self.pooled.cohort
        return TestPart(cohort.follow_up_days[rows], cohort.event[rows], self.site[rows])

    def score(self, run_folder: Path, part: str = "test", unseen: str | None = None) -> Floats:
        """Log hazards (n,) that a run's model gives all patients of a part.

        Args:
            unseen: site that the model is adapted to, where the algorithm has a way (`more_columns.adapted_to`).
        """
        network = load_model(run_folder / "model").network
        if unseen is not None:
            network = more_columns.adapted_to(self, network, unseen)
        return log_hazards(network, self.pooled, self.pooled.rows(part))


def _of_one_site(privacy: PrivacySettings) -> PrivacySettings:
    """A sum over one site hides nothing: it need not be masked, and there are no others to hide that site among."""
    if privacy.mode == "client":
        privacy = privacy.model_copy(update={"mode": "none"})
    return privacy.model_copy(update={"sums": "plain"}) if privacy.sums == "masked" else privacy


def run_column(settings: StudySettings, sites: Path, run_folder: Path, label: str) -> dict[str, Any]:
    """Run the two apps over the sites of a folder; returns the result that the ServerApp wrote."""
    RunFolder(run_folder).begin(settings)
    run_federation(settings, sites, run_folder / "study.toml", run_folder, label)
    result: dict[str, Any] = read_json(run_folder / "result.json")
    return result


def all_columns(bench: Bench, federated: Floats, progress: Progress) -> tuple[Risks, dict[str, float]]:
    """Column name -> (models, n) log hazards of the test patients, or None; and the seconds that training took."""
    risks: Risks = {
        "pooled": None,
        "federated": federated[None],
        "local-mean": None,
        "local-best": None,
        "local-own": None,
    }
    seconds: dict[str, float] = {}
    if bench.settings.evaluation.comparison:
        start = time.monotonic()
        risks["pooled"] = _pooled(bench)[None]
        seconds["pooled"] = round(time.monotonic() - start, 3)
    if bench.settings.evaluation.comparison and bench.settings.evaluation.local_models:
        start = time.monotonic()
        risks |= _local(bench, progress)
        seconds["local"] = round(time.monotonic() - start, 3)
    if bench.settings.evaluation.comparison and bench.settings.evaluation.leave_one_site_out:
        start = time.monotonic()
        risks["unseen-site"] = _unseen_site(bench)[None]
        seconds["unseen-site"] = round(time.monotonic() - start, 3)
    for name, column in _asked_for(bench, progress).items():
        start = time.monotonic()
        found = column()
        risks[name] = None if found is None else found[None]
        seconds[name] = round(time.monotonic() - start, 3)
    return risks | _controls(bench), seconds


def _asked_for(bench: Bench, progress: Progress) -> dict[str, Callable[[], Floats | None]]:
    """Column name -> what makes it, of those that not every study has."""
    settings = bench.settings
    asked: dict[str, Callable[[], Floats | None]] = {}
    if settings.federation.finetune_rounds:
        asked["finetuned"] = partial(more_columns.finetuned, bench, run_column, progress)
    if settings.federation.algorithm == "fedbn":
        asked["shared-norms"] = partial(bench.score, bench.out)
    if settings.evaluation.random_encoder:
        asked["random-encoder"] = partial(more_columns.random_encoder, bench, run_column)
    if settings.evaluation.measured:
        asked["age-sex-hr-qrs"] = partial(more_columns.measured, bench)
    return asked


def _pooled(bench: Bench) -> Floats:
    """All patients as one site, with as many optimiser steps a round as the sites of a round make together."""
    settings = bench.one_site
    number = len(taking_part(bench.parts, bench.settings.federation, bench.settings.seed, "align", 1))
    align, survival = (
        stage.model_copy(update={"local_steps": stage.local_steps * number})
        for stage in (settings.align, settings.survival)
    )
    folder = bench.out / "columns" / POOLED
    run_column(
        settings.model_copy(update={"align": align, "survival": survival}), folder / "sites", folder, "pooled"
    )
    return bench.score(folder)


def _unseen_site(bench: Bench) -> Floats:
    """Each test patient's log hazard from a federation that their own site had no part in.

    Scores of different sites come from different models: only pairs within a site may be compared.
    """
    unseen = np.full(len(bench.test.event), np.nan)
    for number, name in enumerate(sorted(bench.parts), start=1):
        others = {site: rows for site, rows in bench.parts.items() if site != name}
        folder = bench.out / "columns" / f"without-{name}"
        write_sites(bench.dataset.cohort, bench.store, others, folder / "sites", bench.settings.site_defaults)
        quorum = min(bench.settings.federation.quorum, len(others))
        federation = bench.settings.federation.model_copy(update={"quorum": quorum})
        settings = bench.settings.model_copy(
            update={
                "align": bench.one_site.align,  # from the public network where the study has one
                "federation": federation,
                "evaluation": bench.evaluation,
                # One site fewer than the study has is not fewer than it may have.
                "privacy": bench.settings.privacy.model_copy(update={"client_force": True}),
            }
        )
        run_column(settings, folder / "sites", folder, f"without {number}/{len(bench.parts)} ({name})")
        own = bench.test.site == name
        unseen[own] = bench.score(folder, unseen=name)[own]
    return unseen


def _local(bench: Bench, progress: Progress) -> Risks:
    """Each site alone.

    Returns:
        local-mean: of every model, for all sites' patients: what it is worth wherever it comes.
        local-best: of the model that validates best on all sites.
        local-own: each patient's from their own site's model, which is what that site has without the others; patients
            of a site that could train none are level. Only pairs within a site may be compared.
    """
    validation = bench.outcomes("validation")
    own = np.zeros(len(bench.test.event))
    risks, scores = [], []
    for number, (name, rows) in enumerate(sorted(bench.parts.items()), start=1):
        sites = bench.write_site(name, rows)
        try:
            run_column(bench.one_site, sites, sites.parent, f"local {number}/{len(bench.parts)} ({name})")
        except (FederationError, ModelError) as error:
            progress.warn(f"{name} alone cannot train a model, and is not among the local ones: {error.code}")
            bench.without_model[name] = error.code
            continue
        risks.append(bench.score(sites.parent))
        own[bench.test.site == name] = risks[-1][bench.test.site == name]
        scores.append(validation.stratified_c(bench.score(sites.parent, "validation")))
    if not risks:
        return dict.fromkeys(("local-mean", "local-best", "local-own"))
    best = risks[int(np.argmax(np.nan_to_num(scores)))]
    return {"local-mean": np.stack(risks), "local-best": best[None], "local-own": own[None]}


def _controls(bench: Bench) -> Risks:
    """What needs no network: age + sex, the site alone, and the hazard that made the outcomes."""
    cohort, train, test = bench.pooled.cohort, bench.pooled.rows("train"), bench.pooled.rows("test")
    age_sex = age_sex_risk(cohort.select(train), cohort.select(test))
    hazard = bench.dataset.true_log_hazard
    return {
        "age-sex": None if age_sex is None else age_sex[None],
        "site-only": site_only_risk(bench.site[train], cohort.select(train), bench.site[test])[None],
        "true-hazard": None if hazard is None else hazard[bench.rows][test][None],
    }
