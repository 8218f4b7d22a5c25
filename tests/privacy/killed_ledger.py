"""A site that spends and then releases, in a loop, killed with SIGKILL at random instants.

In:  a folder, how many kills, a seed. Out: what was counted. Run by test_ledger_kills.py; the children compute nothing
with torch. A release is one line in a file, on the disk.

Every second kill hits a new folder, so that the making of key and book is killed, too.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import opacus.accountants.analysis.rdp  # noqa: F401  (here once, not in every child)

from fedecg.privacy.accountant import Spend
from fedecg.privacy.ledger import Ledger, Purpose, open_ledger

BUDGET = {"epsilon": 1e6, "delta": 1e-5}
LIVES = 6  # the longest life, in spends: disks differ


def spends_and_releases(folder: Path) -> None:
    """For ever: an entry, then the release that it is of."""
    while True:
        with open_ledger(folder) as ledger:
            number = spend(ledger)
        release(folder, number)


def spend(ledger: Ledger) -> int:
    purpose = Purpose("killed", "run", "survival", ledger.head.sequence)
    patients = {"train": ledger.pseudonyms(["7"])}
    return ledger.spend(purpose, [Spend("hazard", "train", 5.0)], patients, **BUDGET).sequence


def release(folder: Path, number: int) -> None:
    with (folder / "released").open("a") as file:
        file.write(f"{number}\n")
        file.flush()
        os.fsync(file.fileno())


def releases_first(folder: Path) -> None:
    """The same the wrong way round: what the kills must catch."""
    while True:
        with open_ledger(folder) as ledger:
            release(folder, ledger.head.sequence + 1)
            spend(ledger)


def seconds_of_a_spend(folder: Path, times: int = 4) -> float:
    """On this disk, now; the first one is not counted: it computes what the children then find computed."""
    for _ in range(times):
        start = time.monotonic()
        with open_ledger(folder) as ledger:
            number = spend(ledger)
        release(folder, number)
    return time.monotonic() - start


def killed_after(folder: Path, life_s: float, work: Callable[[Path], None]) -> None:
    """Its life begins when it has spent once elsewhere: the child of a large process is slow until it has its pages."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            seconds_of_a_spend(folder.parent / "timed", times=1)
            os.write(tell, b".")
            work(folder)
        finally:
            os._exit(1)
    os.close(tell)
    assert os.read(ready, 1) == b"."
    os.close(ready)
    time.sleep(life_s)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the child ended by itself"


@dataclass
class Counted:
    """Over all kills; `entries` and `released` of the folders as they are in the end."""

    lost: int = 0
    most_unreleased_a_kill: int = 0
    entries: dict[Path, int] = field(default_factory=dict)
    released: dict[Path, int] = field(default_factory=dict)
    unreleased: dict[Path, int] = field(default_factory=dict)


def kills(
    parent: Path, number: int, seed: int, work: Callable[[Path], None] = spends_and_releases
) -> Counted:
    """Kill so often, and look after every kill."""
    chance, told, longest_s = random.Random(seed), Counted(), LIVES * seconds_of_a_spend(parent / "timed")
    for kill in range(number):
        folder = parent / ("old" if kill % 2 else f"new-{kill}")
        folder.mkdir(exist_ok=True)
        killed_after(folder, chance.uniform(0.0, longest_s), work)
        with open_ledger(folder) as ledger:  # every entry is checked
            counted = {entry.sequence for entry in ledger.entries}
        file = folder / "released"
        lines = file.read_text().split("\n")[:-1] if file.exists() else []
        released = {int(line) for line in lines}
        told.lost += len(released - counted)
        unreleased = len(counted - released)
        before = told.unreleased.get(folder, 0)
        told.most_unreleased_a_kill = max(told.most_unreleased_a_kill, unreleased - before)
        told.entries[folder], told.released[folder] = len(counted), len(released)
        told.unreleased[folder] = unreleased
    return told
