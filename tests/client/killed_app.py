"""The app of a site killed with SIGKILL in the middle of a round, then asked again by another process.

In:  a site's folder, a second one with the same files, a file with the message's weights.
Out: on stdout the reply's hash of the site that was killed and of the one that was not, what was shown before the kill,
     and the step from which the round went on. Run by test_outbox.py; the parent never computes with torch.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import fedecg  # noqa: F401  (sets how threads wait, before torch loads)

import numpy as np  # isort: skip
import torch._dynamo  # noqa: F401  # isort: skip  (an optimiser loads it, which takes a second: once here, not in every child)
from asking import join, lock_of, study, task_of, train

import fedecg_client.workplace
from fedecg.federation.messages import reply_sha256
from fedecg.training import Checkpoint, read_sealed

STEPS = 24
SECTIONS = {
    "signals": {"samples": 256},
    "model": {"size": "small"},
    "align": {"local-steps": STEPS, "batch-size": 16},
}


def in_child(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(killed: Path, whole: Path, weights: Path) -> None:
    # Half a minute is too long for a test; all else is as at a site.
    fedecg_client.workplace.Checkpoint = partial(Checkpoint, every_s=0.05)
    lock = lock_of(study(**SECTIONS))

    def reply_of(folder: Path) -> None:
        logging.basicConfig(filename=folder / "log", level=logging.INFO)
        join(folder, lock)
        content = train(folder, task_of(lock), np.load(weights))
        (folder / "reply").write_text(reply_sha256(content))

    first = in_child(partial(reply_of, killed))
    kept = killed / "state/checkpoint/round.safetensors"
    while not kept.exists():
        assert os.waitpid(first, os.WNOHANG) == (0, 0), "the round ended before it was killed"
        time.sleep(0.002)
    shown = json.loads((killed / "state/progress.json").read_text())
    os.kill(first, signal.SIGKILL)
    assert ended(first) == -signal.SIGKILL
    step = read_sealed(kept)[1]["step"]
    assert ended(in_child(partial(reply_of, killed))) == 0
    assert ended(in_child(partial(reply_of, whole))) == 0
    replies = [(folder / "reply").read_text() for folder in (killed, whole)]
    print(json.dumps({"replies": replies, "shown": shown, "step": step}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
