"""Local rounds killed with SIGKILL in the middle, and continued by another process; run by test_killed_rounds.py.

In:  a folder, names of cases. Out: in it, for every case, CASE/whole and CASE/continued (sealed files: weights, loss,
     steps of that process), CASE/checkpoint, and for the writer that is killed at any moment, writer/checkpoint.

Every part runs in a child of its own. This process never computes with torch: children of a process that has may
hang in their first parallel loop.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import fedecg  # noqa: F401  (sets how threads wait, before torch loads)

import numpy as np  # isort: skip
import torch  # isort: skip
import torch._dynamo  # isort: skip  (an optimiser loads it, which takes a second: once here, not in every child)
from planted_site import LinearNetwork, planted_bank, planted_site, planted_store, study_of

from fedecg.config import ModelSettings
from fedecg.model import build_network
from fedecg.signals import SignalStore
from fedecg.training import (
    Checkpoint,
    Watch,
    read_sealed,
    site_baseline,
    train_align,
    train_survival,
    write_sealed,
)

STEPS, KILLED_IN_STEP = 6, 4
SGD = {"optimizer": "sgd", "learning-rate": 0.05}
PULL = {"algorithm": "fedprox", "proximal-mu": 0.5}
SLOW = ["paper-preset-align", "paper-preset-survival"]
CASES = {
    "align-bank": ("linear", "align", {"align": {"loss": "bank"}}),
    "align-paper": ("linear", "align", {"align": {"loss": "paper"}}),
    "align-bank-alone": ("linear", "align", {"align": {"reconstruction": 0.0, "masked-leads": 0}}),
    "align-sgd-fedprox": ("linear", "align", {"align": SGD, "federation": PULL}),
    "cox-batch": ("linear", "survival", {"survival": {"loss": "cox-batch"}}),
    "cox-batch-reconstruction": ("linear", "survival", {"survival": {"loss": "cox-batch", "reconstruction": 0.5}}),
    "cox-site-minibatch": ("linear", "survival", {"survival": {"loss": "cox-site"}}),
    "cox-site-whole": ("linear", "survival", {"survival": {"loss": "cox-site", "batch-size": 500}}),
    "cox-pooled": ("linear", "survival", {"survival": {"loss": "cox-pooled"}}),
    "cox-pooled-own-baseline": ("linear", "survival", {"survival": {"baseline": "site"}}),
    "cox-pooled-fedprox": ("linear", "survival", {"federation": PULL}),
    "cox-pooled-sgd-fedprox": ("linear", "survival", {"survival": SGD, "federation": PULL}),
    "grouped": ("linear", "survival", {"survival": {"loss": "grouped"}}),
    "small-align": ("small", "align", {}),
    "small-survival": ("small", "survival", {"survival": {"reconstruction": 0.3}}),
    "paper-preset-align": ("paper", "align", {}),
    "paper-preset-survival": ("paper", "survival", {}),
}  # fmt: skip


def network_of(kind: str) -> torch.nn.Module:
    if kind == "linear":
        return LinearNetwork(dropout=0.3)
    settings = ModelSettings(preset="paper") if kind == "paper" else ModelSettings(size="small")
    return build_network(settings, 256, bank_dim=6, seed=0)


def train(store: SignalStore, case: str, watch: Watch, die_in_step: int | None, out: Path | None) -> None:
    """One round of a case; in the middle of the given step the process kills itself."""
    kind, stage, sections = CASES[case]
    common = {"local-steps": STEPS, "batch-size": 16}
    tree = {**sections, stage: {**common, **sections.get(stage, {})}}
    site, network, settings = planted_site(store, range(48)), network_of(kind), study_of(**tree)
    baseline = site_baseline(network, site, site.rows("train"), 10.0)
    steps, embed = 0, network.embed

    def embed_or_die(*arguments):
        nonlocal steps
        steps += network.training
        if network.training and steps == die_in_step:
            os.kill(os.getpid(), signal.SIGKILL)
        return embed(*arguments)

    network.embed = embed_or_die
    if stage == "align":
        trained = train_align(network, site, settings, 1, planted_bank(), watch)
    else:
        trained = train_survival(network, site, settings, 1, baseline, watch)
    if out:
        arrays = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
        write_sealed(out, arrays, {"loss": trained.loss, "steps": trained.steps, "made": steps})


def in_child(work: Callable[[], None], until: Callable[[], bool] | None = None) -> int:
    """Exit status of a child that does the work, and is killed once `until` holds; -9 if it was killed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if until is not None:
        while not until():
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_and_continued(folder: Path, case: str) -> None:
    def watch() -> Watch:
        return Watch(Checkpoint(folder / case / "checkpoint", case, every_s=0.0))

    def store() -> SignalStore:
        return SignalStore.open(next((folder / "store").rglob("store.json")).parent)

    whole, continued = folder / case / "whole", folder / case / "continued"
    assert in_child(lambda: train(store(), case, Watch(), None, whole)) == 0
    assert in_child(lambda: train(store(), case, watch(), KILLED_IN_STEP, None)) == -signal.SIGKILL
    assert in_child(lambda: train(store(), case, watch(), None, continued)) == 0


def killed_while_writing(folder: Path, times: int) -> None:
    """A process that writes one file after the other, killed at arbitrary moments; after each the file is whole."""
    file = folder / "writer" / "checkpoint"

    def write_for_ever() -> None:
        number = 0
        while True:
            number += 1
            write_sealed(file, {"numbers": np.full(100_000, number)}, {"number": number})

    pauses = np.random.default_rng(0).uniform(0.01, 0.06, times)
    for pause in pauses:
        started = time.monotonic()

        def over(end: float = started + pause) -> bool:
            return time.monotonic() > end and file.exists()

        assert in_child(write_for_ever, over) == -signal.SIGKILL
        kept = read_sealed(file)
        assert kept is not None
        assert (kept[0]["numbers"] == kept[1]["number"]).all()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    assert in_child(lambda: planted_store(target / "store")) == 0
    for name in sys.argv[2:]:
        killed_and_continued(target, name)
    killed_while_writing(target, times=10)
