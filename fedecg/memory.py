"""Freed memory is kept for the next batch instead of going back to the system and being fetched again.

In:  nothing. Out: settings of this process's allocator. Called once, when `fedecg` is imported.
A training step of 64 ECGs frees and takes about 100 MB. glibc gives large blocks back at once, and every page that is
then touched again is a fault: 14,000 to 34,000 a step, 15 to 30 % of its processor time (2 threads, base and small
network, November 2026). The peak stays what it was; the process only keeps it. Elsewhere than on glibc nothing is done.

`return_freed_memory` is the reverse, for a process that trains nothing and holds large vectors for moments only.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory", "return_freed_memory"]

# Names and numbers of glibc's malloc.h; an environment variable of the user (MALLOC_TRIM_THRESHOLD_ ...) is overruled.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
KEPT_BYTES, PAD_BYTES = 1 << 30, 64 << 20
GLIBC_BYTES = 128 << 10  # its own thresholds, which setting them keeps from growing


def keep_freed_memory() -> bool:
    """Tell the allocator; returns whether there was one that listens."""
    return _set({M_MMAP_THRESHOLD: KEPT_BYTES, M_TRIM_THRESHOLD: KEPT_BYTES, M_TOP_PAD: PAD_BYTES})


def return_freed_memory() -> bool:
    """Large blocks go back to the system when they are freed; returns whether there was an allocator that listens."""
    return _set({M_MMAP_THRESHOLD: GLIBC_BYTES, M_TRIM_THRESHOLD: GLIBC_BYTES, M_TOP_PAD: GLIBC_BYTES})


def _set(wanted: dict[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent where the C library is not glibc
    if mallopt is None:
        return False
    return all(mallopt(option, value) == 1 for option, value in wanted.items())
