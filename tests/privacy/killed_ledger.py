"""A site that spends and then releases, in a loop, killed with SIGKILL at random instants.

In:  a folder, how many kills, a seed. Out: on stdout what was counted, as JSON. Run by test_ledger_kills.py in a process
of its own: it forks, and nothing of torch may run in it. A release is one line in a file, on the disk.

Every second kill hits a new folder, so that the making of key and book is killed, too.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from fedecg.privacy.accountant import Spend
from fedecg.privacy.ledger import Purpose, open_ledger

BUDGET = {"epsilon": 1e6, "delta": 1e-5}
LONGEST_LIFE_S = 0.04


def spends_and_releases(folder: Path) -> None:
    """For ever: an entry, then the release that it is of."""
    while True:
        with open_ledger(folder) as ledger:
            purpose = Purpose("killed", "run", "survival", len(ledger.entries))
            head = ledger.spend(purpose, [Spend("hazard", "train", 5.0)], {"train": ledger.pseudonyms(["7"])}, **BUDGET)
        release(folder, head.sequence)


def release(folder: Path, number: int) -> None:
    with (folder / "released").open("a") as file:
        file.write(f"{number}\n")
        file.flush()
        os.fsync(file.fileno())


def killed_after(folder: Path, life_s: float) -> None:
    child = os.fork()
    if child == 0:
        try:
            spends_and_releases(folder)
        finally:
            os._exit(1)
    time.sleep(life_s)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the child ended by itself"


def main(parent: Path, kills: int, seed: int) -> dict[str, int]:
    chance = random.Random(seed)
    told = {"kills": 0, "entries": 0, "released": 0, "lost": 0, "unreleased": 0, "most_unreleased_a_kill": 0}
    folders: dict[Path, int] = {}
    for number in range(kills):
        folder = parent / ("old" if number % 2 else f"new-{number}")
        folder.mkdir(exist_ok=True)
        killed_after(folder, chance.uniform(0.0, LONGEST_LIFE_S))
        told["kills"] += 1
        with open_ledger(folder) as ledger:  # every entry is checked
            counted = {entry.sequence for entry in ledger.entries}
        lines = (folder / "released").read_text().split("\n")[:-1] if (folder / "released").exists() else []
        released = {int(line) for line in lines}
        told["lost"] += len(released - counted)
        unreleased = len(counted - released)
        told["most_unreleased_a_kill"] = max(told["most_unreleased_a_kill"], unreleased - folders.get(folder, 0))
        folders[folder] = unreleased
        told["entries"] += len(counted) if number % 2 == 0 else 0
    with open_ledger(parent / "old") as ledger:
        told["entries"] += len(ledger.entries)
    told["unreleased"] = sum(folders.values())
    told["released"] = sum(len((folder / "released").read_text().split()) for folder in folders if (folder / "released").exists())
    return told


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
