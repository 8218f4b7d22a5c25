"""How much of the reconstruction-only speed an alignment step keeps, with each of its losses.

Run: `python benchmarks/alignment.py [--seconds 60] [--loss bank]`. Out: one JSON line: speed ratios, milliseconds.

A round is `train_align` as a site runs it, without the look at collapse (one forward pass of at most 512 ECGs every
fifth round, told apart in `look_ms`): ECGs read from a signal store, lead masking, encoder, decoder, loss, backward,
AdamW; 64 records of 1024 samples, 2 threads, network `small`. Reconstruction only: the same round by the same `descend`
without projection and alignment loss. All take turns, so that other work on the machine slows all alike, and the
fastest round of each counts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedecg.config import StudySettings, parse_settings
from fedecg.model import build_network, tensors_of_stage
from fedecg.objectives import reconstruction_loss
from fedecg.signals import SignalStore, build_store
from fedecg.text import Bank, class_weights, load_bank, targets
from fedecg.training import SiteData, ranks, shuffled_batches, site_generator, train_align
from fedecg.training.descent import descend
from fedecg_simulations.sources import load_dataset

Rows = NDArray[np.int64]

RECORDS, BATCH, STEPS, THREADS = 256, 64, 2, 2
LEAST_TURNS = 5
RUNS = {
    "bank": {"loss": "bank"},
    "bank_weighted": {"loss": "bank", "class-weights": "public"},
    "paper": {"loss": "paper"},
    "infonce": {"loss": "infonce"},
}


def main() -> None:
    """Measure, print one JSON line."""
    parser = argparse.ArgumentParser(description="Speed of the alignment step against reconstruction alone.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to measure (default 60)")
    parser.add_argument("--loss", choices=[*RUNS, "all"], default="all", help="which losses (default all)")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    bank = load_bank("minilm-demo")
    with tempfile.TemporaryDirectory() as folder:
        site = _site(Path(folder), bank)
        asked = {name: keys for name, keys in RUNS.items() if options.loss in (name, "all")}
        rounds = {name: _round(site, bank, _settings(keys)) for name, keys in asked.items()}
        rounds["reconstruction"] = _reconstruction_round(site, bank)
        fastest_s = _fastest_s(rounds, options.seconds)
        look_s = _look_s(site, bank)
    alone = fastest_s["reconstruction"]
    result = {
        "benchmark": "alignment",
        **{f"{name}_over_reconstruction": round(alone / fastest_s[name], 3) for name in asked},
        "step_ms": {name: round(1e3 * fastest / STEPS, 2) for name, fastest in fastest_s.items()},
        "look_ms": round(1e3 * look_s, 1),
        "batch": BATCH,
        "threads": THREADS,
    }
    print(json.dumps(result))


def _settings(keys: dict[str, str]) -> StudySettings:
    align = {"batch-size": BATCH, "local-steps": STEPS, "reconstruction": 0.1, "rounds": 10**6, **keys}
    tree = {
        "data": {"sites": {"city": RECORDS}, "test-patients": 1},
        "model": {"size": "small"},
        "align": align,
    }
    return parse_settings(StudySettings, tree)


def _site(folder: Path, bank: Bank) -> SiteData:
    """Synthetic ECGs in a real store; codes as they are, all records in the training part."""
    settings = _settings(RUNS["bank"])
    dataset = load_dataset(settings)
    store = build_store(folder, "b" * 64, settings.signals, dataset.recordings, powerline="none")
    cohort = dataset.cohort.select(np.arange(RECORDS))
    cohort = replace(cohort, part=np.array(["train"] * RECORDS))
    stated = targets(cohort.codes, bank)
    return SiteData("city", cohort, SignalStore.open(store.folder), stated, None, class_weights(bank.codes))


def _round(site: SiteData, bank: Bank, settings: StudySettings) -> Callable[[], None]:
    """One local round from fresh weights of the same seed."""
    weighs = settings.align.class_weights == "public"
    data = site if weighs else replace(site, class_weights=None)
    network = build_network(settings.model, settings.signals.samples, bank.vectors.shape[1], 0)

    def run() -> None:
        train_align(network, data, settings, 1, bank.vectors)

    return run


def _reconstruction_round(site: SiteData, bank: Bank) -> Callable[[], None]:
    """As many steps on the same batches, with the same masks, of the reconstruction alone."""
    settings = _settings(RUNS["bank"])
    network = build_network(settings.model, settings.signals.samples, bank.vectors.shape[1], 0)
    names = [
        name
        for name in tensors_of_stage(network, settings, "align")
        if name.startswith(("encoder", "decoder"))
    ]

    def run() -> None:
        rng = site_generator(settings.seed, site.name, "align", 1)
        batches = shuffled_batches(site.rows("train"), BATCH, STEPS, rng)

        def loss_of(batch: Rows) -> Tensor:
            signal_mv, mask = site.signals(batch), torch.ones(12, dtype=torch.bool)
            mask[rng.choice(12, size=settings.align.masked_leads, replace=False)] = False
            drawn = network.reconstruct(network.embed(signal_mv, mask))
            return reconstruction_loss(drawn, network.reconstruction_target(signal_mv))

        descend(network, names, settings.align, 0.0, batches, loss_of, rng)

    return run


def _fastest_s(rounds: dict[str, Callable[[], None]], seconds: float) -> dict[str, float]:
    """Take turns for so many seconds (at least five turns, after one to warm up); the fastest round of each, in s."""
    for run in rounds.values():
        run()
    fastest_s = dict.fromkeys(rounds, float("inf"))
    turns, end = 0, time.monotonic() + seconds
    while turns < LEAST_TURNS or time.monotonic() < end:
        for name, run in rounds.items():
            start = time.perf_counter()
            run()
            fastest_s[name] = min(fastest_s[name], time.perf_counter() - start)
        turns += 1
    return fastest_s


def _look_s(site: SiteData, bank: Bank) -> float:
    settings = _settings(RUNS["bank"])
    network = build_network(settings.model, settings.signals.samples, bank.vectors.shape[1], 0)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        ranks(network, site, bank.vectors, 0)
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()
