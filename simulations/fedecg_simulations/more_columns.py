"""Columns that a study may ask for: fine-tuned at each site, own norms, a random encoder, what cardiographs print.

In:  a prepared simulation (`Bench`) and what its federation wrote. Out: log hazards of the test patients.
Called by `columns`. What a site tunes for itself is judged on its own test patients: scores of different sites then
come from different models, and only pairs within a site may be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedecg.config import StudySettings
from fedecg.errors import FederationError, ModelError
from fedecg.evaluation.controls import covariate_risk
from fedecg.model import Network, load_model
from fedecg.progress import Progress
from fedecg.signals.measures import heart_rate_bpm, qrs_ms
from fedecg.training import SiteData, log_hazards, recalibrated
from fedecg_client.own_norms import own_norms
from fedecg_simulations.sites import write_sites

if TYPE_CHECKING:
    from fedecg_simulations.columns import Bench

__all__ = ["adapted_to", "finetuned", "measured", "own_norms_risk", "random_encoder"]

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Run = Callable[..., dict[str, Any]]  # as `columns.run_column`


def own_norms_risk(bench: Bench, federated: dict[str, Any]) -> Floats:
    """fedbn: each test patient's log hazard with the norms of their own site, after the round that was chosen.

    Args:
        federated: the federation's result.
    """
    risk = bench.score(bench.out)  # of a site that never took part: the mean norms
    test = bench.pooled.rows("test")
    for name in sorted(bench.parts):
        network = load_model(bench.out / "model").network
        _put(
            network,
            own_norms(bench.out / "sites" / name, federated["run"], "survival", federated["best-round"]),
        )
        own = bench.test.site == name
        risk[own] = log_hazards(network, bench.pooled, test[own])
    return risk


def _put(network: Network, norms: dict[str, NDArray[np.float32]]) -> None:
    state = network.state_dict()
    with torch.no_grad():
        for name, values in norms.items():
            if name in state:
                state[name].copy_(torch.from_numpy(values))


def adapted_to(bench: Bench, network: Network, name: str) -> Network:
    """The network for a site that had no part in its training: with fedbn, statistics from its own training ECGs."""
    if bench.settings.federation.algorithm == "fedbn":
        train = bench.pooled.rows("train")
        recalibrated(network, bench.pooled, train[bench.site[train] == name])
    return network


def finetuned(bench: Bench, run_column: Run, progress: Progress) -> Floats:
    """Each test patient's log hazard from their own site's model: the final one, trained on by that site alone.

    Rounds are `federation.finetune-rounds`, steps those of the survival stage; the site's own validation chooses among
    them, the model that it began with too. A site that cannot go on (no event) keeps the federated model.
    """
    risk = bench.score(bench.out)
    for number, name in enumerate(sorted(bench.parts), start=1):
        folder = bench.out / "columns" / f"finetuned-{name}"
        write_sites(
            bench.dataset.cohort,
            bench.store,
            {name: bench.parts[name]},
            folder / "sites",
            bench.settings.site_defaults,
        )
        label = f"fine-tuned {number}/{len(bench.parts)} ({name})"
        try:
            run_column(going_on(bench), folder / "sites", folder, label)
        except (FederationError, ModelError) as error:
            progress.warn(f"{name} cannot go on alone, and keeps the federated model: {error.code}")
            continue
        own = bench.test.site == name
        risk[own] = bench.score(folder)[own]
    return risk


def going_on(bench: Bench) -> StudySettings:
    """Settings of a site that goes on alone from the federation's model."""
    settings = bench.one_site
    survival = {
        "start": str(bench.out / "model"),
        "rounds": bench.settings.federation.finetune_rounds,
        "freeze_rounds": 0,
    }
    return settings.model_copy(
        update={
            "align": settings.align.model_copy(update={"rounds": 0, "start": ""}),
            "survival": settings.survival.model_copy(update=survival),
        }
    )


def random_encoder(bench: Bench, run_column: Run) -> Floats:
    """Log hazards of a federation whose encoder stays as it was drawn: what the risk head alone can learn."""
    settings = bench.settings.model_copy(update={"evaluation": bench.evaluation})
    survival = settings.survival.model_copy(
        update={"start": "", "freeze_rounds": settings.survival.rounds, "reconstruction": 0.0}
    )
    align = settings.align.model_copy(update={"rounds": 0, "start": ""})
    folder = bench.out / "columns" / "random-encoder"
    write_sites(bench.dataset.cohort, bench.store, bench.parts, folder / "sites", settings.site_defaults)
    update = {"align": align, "survival": survival}
    run_column(settings.model_copy(update=update), folder / "sites", folder, "random encoder")
    return bench.score(folder)


def measured(bench: Bench) -> Floats | None:
    """Log hazards of a pooled Cox model of age, sex, heart rate and QRS duration; None where it cannot be fitted.

    With `signals.input = "median"` there is one beat a record, and no rate.
    """
    pooled = bench.pooled
    train, test = pooled.rows("train"), pooled.rows("test")
    signals = bench.settings.signals
    of_train, of_test = (
        _measures(pooled, rows, float(signals.rate_hz), signals.input == "rhythm") for rows in (train, test)
    )
    return covariate_risk(pooled.cohort.select(train), pooled.cohort.select(test), of_train, of_test)


def _measures(site: SiteData, rows: Rows, rate_hz: float, several_beats: bool) -> dict[str, Floats]:
    """Name -> (n,), NaN where there is no beat."""
    measures: dict[str, list[float]] = {"qrs-ms": [], "heart-rate-bpm": []}
    for row in rows:
        signal_mv = site.signals(np.array([row]))[0].numpy()
        measures["qrs-ms"].append(qrs_ms(signal_mv, rate_hz))
        measures["heart-rate-bpm"].append(
            heart_rate_bpm(signal_mv, rate_hz) if several_beats else float("nan")
        )
    return {name: np.array(values) for name, values in measures.items()}
