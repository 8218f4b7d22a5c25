"""One simulated study from data to report: store, virtual sites, every column, summary.

In:  settings and an output folder. Out: `partition.json`, `summary.json`, `model/`, the run's own files and, unless
it is to have none, `report.html` and `figures/`.
Called by `fedecg-simulate run`. `summary.json` is removed first and written last.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedecg.codes import CODES
from fedecg.cohort import ALIGN
from fedecg.config import StudySettings, settings_sha256
from fedecg.errors import CohortError, some_of
from fedecg.explanation.entry import without_arrays
from fedecg.fingerprint import code_fingerprint
from fedecg.model import state_outcomes
from fedecg.progress import Progress
from fedecg.report import save_figures, without_curves, write_model_card, write_report
from fedecg.signals import SignalStore, build_store, store_key
from fedecg_server.run_folder import read_json, write_json
from fedecg_simulations.aligned import with_aligned_network
from fedecg_simulations.beforehand import refuse_impossible, refuse_wrong_start, starts_sha256
from fedecg_simulations.columns import Bench, all_columns, run_column
from fedecg_simulations.comparison import column_entry, difference_entry
from fedecg_simulations.dataset import Dataset
from fedecg_simulations.lock import only_one
from fedecg_simulations.more_columns import own_norms_risk
from fedecg_simulations.partition_report import partition_document, write_partition
from fedecg_simulations.partitions import partition_table, virtual_sites
from fedecg_simulations.public import from_public, public_study
from fedecg_simulations.sites import with_reports, write_sites
from fedecg_simulations.sources import load_dataset

__all__ = ["run_simulation"]

CODE = code_fingerprint(
    "fedecg_simulations"
)  # of what this process has imported, whatever becomes of the files
COMPARED = (
    "local-own",
    "finetuned",
    "shared-norms",
    "random-encoder",
    "age-sex-hr-qrs",
)  # where a study has them

Parts = dict[str, NDArray[np.int64]]


def run_simulation(
    settings: StudySettings, out: Path, progress: Progress, with_report: bool = True
) -> dict[str, Any]:
    """Run a simulation and write its folder, which no other run may be using; returns the summary.

    Without a report `fedecg report` draws it later, from what the folder holds.

    Raises:
        RunError: FECG-605 another run is writing there.
        FedecgError: whatever makes the study impossible; then no summary.json is left in `out`, unless it is that
            of an earlier run and the input could not even be read.
    """
    with only_one(out):
        return _run(settings, out, progress, with_report)


def _run(settings: StudySettings, out: Path, progress: Progress, with_report: bool) -> dict[str, Any]:
    """The run itself, from data to report."""
    started = time.monotonic()
    refuse_wrong_start(settings)
    dataset = load_dataset(settings)
    dataset, parts = virtual_sites(
        dataset, settings.partition, settings.seed, settings.data.events, settings.drift
    )
    dataset = with_reports(dataset, parts, settings.site_defaults)
    unseen = len(dataset.cohort) - sum(len(rows) for rows in parts.values())
    if unseen:
        progress.say(
            f"{unseen} records lie outside their site's window (partition.follow-up) and are left out"
        )
    refuse_impossible(settings, len(parts))
    warn_of_sites_without_events(dataset, parts, progress)
    store = ingest(dataset, settings, progress)
    refused = refused_recordings(dataset, store, progress)
    parts = without_refused(dataset, store, parts)
    for earlier in ("summary.json", "report.html"):  # only now: bad input must not cost a finished result
        (out / earlier).unlink(missing_ok=True)
    write_partition(partition_document(settings, dataset, parts), out, with_report)
    write_sites(dataset.cohort, store.folder, parts, out / "sites", settings.site_defaults)
    prepared = time.monotonic() - started
    if from_public(settings):
        federation, aligned = with_public_network(settings, out, progress)
    else:
        federation, aligned = with_aligned_network(settings, dataset, parts, store.folder, out)
    federated = run_column(federation, out / "sites", out, "federated")
    state_outcomes(out / "model", dataset.outcomes)
    bench = Bench(settings, dataset, parts, store.folder, out)
    if from_public(settings):  # what is public is there for every column
        bench.one_site = bench.one_site.model_copy(update={"align": federation.align})
    summary = summarise(bench, federated, progress)
    if aligned is not None:
        summary["aligned"], summary["rounds"]["align"] = aligned, aligned["rounds"]
        if aligned["status"] != "completed":
            summary["status"] = aligned["status"]
    summary["refused-recordings"] = refused
    summary["quality"] = quality_counts(dataset, store)
    summary["seconds"]["data"] = round(prepared, 3)
    rounds = read_json(out / "rounds.json")
    assessment = read_json(out / "assessment.json") if (out / "assessment.json").exists() else None
    summary["assessment"] = None if assessment is None else without_curves(assessment)
    explanation = read_json(out / "explanation.json") if (out / "explanation.json").exists() else None
    summary["explanation"] = None if explanation is None else without_arrays(explanation)
    if with_report:
        save_figures(summary, rounds, out / "figures", assessment)
        write_report(summary, rounds, out / "report.html", assessment, explanation, settings)
    write_model_card(out / "model", summary, assessment, settings)
    write_json(out / "summary.json", summary)
    return summary


def with_public_network(
    settings: StudySettings, out: Path, progress: Progress
) -> tuple[StudySettings, dict[str, Any] | None]:
    """Settings that start from a network aligned on public patients, made first where there is none; and what is told.

    Raises:
        FedecgError: whatever ends that alignment.
    """
    public = public_study(settings, out)
    dataset, parts = virtual_sites(load_dataset(public), public.partition, public.seed)
    store = ingest(dataset, public, progress)
    aligned, told = with_aligned_network(
        public, dataset, without_refused(dataset, store, parts), store.folder, out
    )
    return settings.model_copy(update={"align": aligned.align}), told


def ingest(dataset: Dataset, settings: StudySettings, progress: Progress) -> SignalStore:
    """Preprocess every recording once; a store of the same data and settings is reused."""
    root = Path(settings.data.store)
    key = store_key(settings.signals, dataset.source, settings.signals.powerline)
    with progress.task("preparing ECGs", len(dataset.recordings)) as advance:
        return build_store(
            root,
            key,
            settings.signals,
            dataset.recordings,
            powerline=settings.signals.powerline,
            progress=lambda done, _: advance(done),
        )


def warn_of_sites_without_events(dataset: Dataset, parts: Parts, progress: Progress) -> None:
    """A site without an event to learn from takes part, and its steps of survival training say little."""
    learning = dataset.cohort.part == "train"
    without = [name for name, rows in parts.items() if not (dataset.cohort.event & learning)[rows].any()]
    if without:
        progress.warn(f"{len(without)} of {len(parts)} sites have no event to learn from: {some_of(without)}")


def refused_recordings(dataset: Dataset, store: SignalStore, progress: Progress) -> dict[str, int]:
    """How many recordings of the cohort were refused, by code; said aloud."""
    refused = Counter(code for code in _codes(dataset, store).tolist() if code)
    for code, number in sorted(refused.items()):
        progress.warn(
            f"{number} of {len(dataset.cohort)} recordings refused and left out: {code} ({CODES[code]})"
        )
    return dict(sorted(refused.items()))


def quality_counts(dataset: Dataset, store: SignalStore) -> dict[str, int]:
    """For each quality rule the leads that break it (for `too_short` the records, for `clipped` the samples)."""
    return {rule: int(counts[dataset.cohort.record].sum()) for rule, counts in store.quality.items()}


def without_refused(dataset: Dataset, store: SignalStore, parts: Parts) -> Parts:
    """Leave out patients whose recording was refused.

    Raises:
        CohortError: FECG-633 that leaves a site without anybody to learn from.
    """
    codes, part = _codes(dataset, store), dataset.cohort.part
    usable = {site: rows[codes[rows] == ""] for site, rows in parts.items()}
    without = [site for site, rows in usable.items() if not np.isin(part[rows], ("train", ALIGN)).any()]
    if without:
        raise CohortError(
            "FECG-633",
            "virtual sites",
            found=f"{len(without)} whose training recordings were all refused: {some_of(without)}",
            expected="at least one usable training recording a site",
            fix="The lines above say why recordings were refused. Use fewer sites, or another [partition] or [drift].",
        )
    return usable


def _codes(dataset: Dataset, store: SignalStore) -> NDArray[np.str_]:
    return np.array(store.codes)[dataset.cohort.record]


def summarise(bench: Bench, federated: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Train and score the other columns; returns everything that summary.json says."""
    settings, dataset = bench.settings, bench.dataset
    own_norms = settings.federation.algorithm == "fedbn"
    federated_risk = own_norms_risk(bench, federated) if own_norms else bench.score(bench.out)
    risks, seconds = all_columns(bench, federated_risk, progress)
    columns = {name: None if risk is None else column_entry(bench.test, risk) for name, risk in risks.items()}
    by_another_model = {"unseen-site", "finetuned", "local-own"} | ({"federated"} if own_norms else set())
    for name in sorted(by_another_model):  # at each site: there is no C over all pairs
        if by_site := columns.get(name):
            by_site.update({"c-index": None, "ci-low": None, "ci-high": None})
    generator = np.random.default_rng([settings.seed, *b"bootstrap"])
    differences = {
        f"federated-minus-{name}": difference_entry(
            bench.test, federated_risk, others, settings.evaluation.bootstrap, generator
        )
        for name in ("pooled", "local-mean", "local-best", "age-sex", *COMPARED)
        if (others := risks.get(name)) is not None
    }
    reference = column_entry(bench.test, federated_risk[None])["c-index"]
    return {
        "study": settings.name,
        "seed": settings.seed,
        "status": federated["status"],
        "outcomes": dataset.outcomes,
        "endpoint": dataset.endpoint,
        "sites": site_entries(bench, federated),
        "folds": dataset.folds,
        "notes": dataset.notes,
        "columns": columns,
        "local-models-left-out": bench.without_model,
        "test": bench.test.entry(),
        "differences": differences,
        "federated-c-index": federated["evaluation"]["test"] | {"pooled-reference": reference},
        "rounds": federated["rounds"],
        "best-round": federated["best-round"],
        "alignment": federated.get("alignment"),
        "privacy": federated["privacy"],
        "bytes-per-round": federated["bytes-per-round"],
        "seconds": federated["seconds"] | seconds,
        "code-fingerprint": CODE,
        "federation-code-fingerprint": federated["code-fingerprint"],
        "settings-sha256": settings_sha256(settings),
        "starts-sha256": starts_sha256(settings),
    }


def site_entries(bench: Bench, federated: dict[str, Any]) -> list[dict[str, Any]]:
    """What the sites said of themselves when they joined, and the label mix that only a simulation sees."""
    mix = {row["site"]: row for row in partition_table(bench.dataset, bench.parts)}
    told = [{key: value for key, value in site.items() if value is not None} for site in federated["sites"]]
    return [mix[site["name"]] | site for site in told]
