"""What protecting every patient costs: a step of DP-SGD over a plain step, on the default network.

Run: `python benchmarks/privacy.py [--seconds 60]`. Out: one JSON line: for each stage the ratio of the two and
milliseconds a step, and the largest ratio; it is to be at most 2.5.

Both steps are those of training: alignment with reconstruction and hidden leads, survival with the pooled Cox loss; 64
records of 1024 samples from memory, 2 threads, float32, dropout, AdamW. The protected one draws, clips and adds noise;
every patient is in each of its steps, so that both work on 64. They take turns, so that other work on the machine slows
both alike, and the fastest of each counts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import fedecg  # noqa: F401  (sets how threads wait, before torch loads)

import torch  # isort: skip
import numpy as np
from torch import Tensor

from fedecg.config import StudySettings
from fedecg.model import Network, build_network, tensors_of_stage
from fedecg.objectives import bank_loss, pooled_cox_loss, reconstruction_loss
from fedecg.privacy.dp_steps import Patients, Protection, dp_descend
from fedecg.training.descent import descend, optimiser_of

BATCH, BANK_DIM, CODES, THREADS = 64, 384, 71, 2
LEAST_TURNS = 5
STEPS = 2  # of a turn: what a round does once is no part of a step
LIMIT = 2.5

Step = Callable[[], None]


class Everybody(np.random.Generator):
    """Lets every patient into every step; noise as usual."""

    def random(self, size=None, *_):  # type: ignore[no-untyped-def, override]
        """Zeros."""
        return np.zeros(size)


def main() -> None:
    """Measure, print one JSON line."""
    parser = argparse.ArgumentParser(description="A protected training step over a plain one.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to measure (default 60)")
    seconds = parser.parse_args().seconds
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    settings = StudySettings()
    fastest_s = {stage: _fastest_s(_steps(settings, stage), seconds / 2) for stage in ("align", "survival")}
    ratios = {stage: round(of["protected"] / of["plain"], 3) for stage, of in fastest_s.items()}
    result = {
        "benchmark": "privacy",
        "largest_ratio": max(ratios.values()),
        "limit": LIMIT,
        "ratio": ratios,
        "ms": {
            stage: {kind: round(1e3 * value, 1) for kind, value in of.items()}
            for stage, of in fastest_s.items()
        },
        "batch": BATCH,
        "threads": THREADS,
    }
    print(json.dumps(result))


def _steps(settings: StudySettings, stage: str) -> dict[str, Step]:
    """`STEPS` steps of either kind on the same records."""
    network = build_network(settings.model, settings.signals.samples, BANK_DIM, seed=0)
    loss, part = _loss(network, settings, stage), getattr(settings, stage)
    names = tensors_of_stage(network, settings, stage)  # type: ignore[arg-type]
    named = {name: weight for name, weight in network.named_parameters() if name in names}
    rows = np.arange(BATCH)
    noise = Protection(1.0, 0.5, 1.0, 10.0, BATCH, lambda: Everybody(np.random.Philox(key=1)))

    def plain() -> None:
        descend(network, names, part, 0.0, [rows] * STEPS, loss)

    def protected() -> None:
        dp_descend(
            network,
            names,
            optimiser_of(named, part),
            Patients(rows, rows),
            lambda _step, batch: loss(batch),
            noise,
            steps=STEPS,
            divisor=BATCH,
        )

    return {"plain": plain, "protected": protected}


def _loss(network: Network, settings: StudySettings, stage: str) -> Callable[[np.ndarray], Tensor]:
    """The stage's default loss of some of 64 made-up records."""
    draw = torch.Generator().manual_seed(1)
    signal_mv = 0.3 * torch.randn(BATCH, 12, settings.signals.samples, generator=draw)
    bank = torch.randn(CODES, BANK_DIM, generator=draw)
    targets = torch.softmax(torch.randn(BATCH, CODES, generator=draw), dim=1)
    event, exposure = torch.arange(BATCH) % 5 == 0, torch.rand(BATCH, generator=draw)
    mask = torch.arange(12) >= settings.align.masked_leads

    def align(rows: np.ndarray) -> Tensor:
        shown, share = signal_mv[rows], settings.align.reconstruction
        embedding = network.embed(shown, mask)
        main = bank_loss(network.project(embedding), bank, targets[rows], network.temperature)
        decoded = reconstruction_loss(network.reconstruct(embedding), network.reconstruction_target(shown))
        return (1 - share) * main + share * decoded

    def survival(rows: np.ndarray) -> Tensor:
        log_hazard = network.log_hazard(network.embed(signal_mv[rows]))
        return pooled_cox_loss(log_hazard, event[rows], exposure[rows], settings.survival.exp_bound)

    return align if stage == "align" else survival


def _fastest_s(turns: dict[str, Step], seconds: float) -> dict[str, float]:
    """Take turns for so many seconds (at least five, after one to warm up); the fastest step of each, in s."""
    for steps in turns.values():
        steps()
    fastest_s = dict.fromkeys(turns, float("inf"))
    taken, end = 0, time.monotonic() + seconds
    while taken < LEAST_TURNS or time.monotonic() < end:
        for kind, steps in turns.items():
            start = time.perf_counter()
            steps()
            fastest_s[kind] = min(fastest_s[kind], (time.perf_counter() - start) / STEPS)
        taken += 1
    return fastest_s


if __name__ == "__main__":
    main()
