"""Is there room on the coordinator's disk for what a round writes?

In:  the coordinator's folder. Out: what is wrong, in words, or nothing. Called by the supervisor when something failed:
a full disk shows itself as many faults (a study that ends, a SuperLink that stops), and should be told as one.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress

from fedecg.errors import FedecgError
from fedecg_server.array_file import DamagedError, array_bytes
from fedecg_server.coordinator import Coordinator
from fedecg_server.sites import read_sites

__all__ = ["CHECKPOINT", "no_room"]

CHECKPOINT = "state/checkpoint.safetensors"
BESIDE_BYTES = 4_000_000  # logs, book of rounds, the SuperLink's database
COPIES = 2  # of a model on the shelf, for every site
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def no_room(coordinator: Coordinator) -> str:
    """In words, if what the next round writes would not fit beside what the last has written; empty where it does.

    The kernel is asked for the room, and it is given back: quotas and limits count, too.
    """
    needed = _needed(coordinator)
    probe = coordinator.run / f".room.{os.getpid()}.part"
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, needed)
        finally:
            os.close(descriptor)
    except OSError as error:
        return _words(coordinator, needed) if error.errno in FULL else ""
    finally:
        with suppress(OSError):
            probe.unlink()
    return ""


def _needed(coordinator: Coordinator) -> int:
    """The next checkpoint, and of every site the reply as it comes and the update taken from it."""
    checkpoint, needed = coordinator.run / CHECKPOINT, BESIDE_BYTES
    with suppress(OSError, DamagedError, FedecgError):
        needed += checkpoint.stat().st_size
        needed += (
            COPIES * max(array_bytes(checkpoint).values(), default=0) * len(read_sites(coordinator).sites)
        )
    return needed


def _words(coordinator: Coordinator, needed: int) -> str:
    free = shutil.disk_usage(coordinator.folder).free
    return (
        f"the disk with {coordinator.folder} is full: {free / 1e6:.0f} MB free or allowed, "
        f"a round needs {max(needed / 1e6, 1):.0f} MB"
    )
