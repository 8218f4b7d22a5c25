"""Freed memory is kept for the next batch instead of going back to the system and being fetched again.

In:  nothing. Out: settings of this process's allocator. Called once, when `fedecg` is imported.
A training step of 64 ECGs frees and takes about 100 MB. glibc gives large blocks back at once, and every page that is
then touched again is a fault: 14,000 to 34,000 a step, 15 to 30 % of its processor time (2 threads, base and small
network, November 2026). The peak stays what it was; the process only keeps it. Elsewhere than on glibc nothing is done.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

# Names and numbers of glibc's malloc.h; an environment variable of the user (MALLOC_TRIM_THRESHOLD_ ...) is overruled.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
KEPT_BYTES, PAD_BYTES = 1 << 30, 64 << 20


def keep_freed_memory() -> bool:
    """Tell the allocator; returns whether there was one that listens."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent where the C library is not glibc
    if mallopt is None:
        return False
    wanted = {M_MMAP_THRESHOLD: KEPT_BYTES, M_TRIM_THRESHOLD: KEPT_BYTES, M_TOP_PAD: PAD_BYTES}
    return all(mallopt(option, value) == 1 for option, value in wanted.items())
