"""A training step does not fetch its memory from the system anew."""

import subprocess
import sys

import pytest

from fedecg.memory import keep_freed_memory

STEPS = """
import resource, sys
import fedecg
import numpy as np
if sys.argv[1] == "system":
    from ctypes import CDLL
    CDLL(None).mallopt(-1, 128 << 10); CDLL(None).mallopt(-2, 0); CDLL(None).mallopt(-3, 128 << 10)
def step():
    return [np.ones(1 << 20) for _ in range(4)]
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(allocator: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", STEPS, allocator], capture_output=True, text=True, check=True, timeout=60
    )
    return int(done.stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library is not glibc")
def test_memory_that_was_freed_is_used_again() -> None:
    assert faults("kept") < 100
    assert faults("system") > 1000  # 320 MB in pages of 4 kB, or far fewer huge ones


HELD = """
import sys
import fedecg
from fedecg.memory import return_freed_memory
if sys.argv[1] == "returned":
    assert return_freed_memory()
blocks = [bytes(1 << 20) for _ in range(200)]
for block in blocks:
    memoryview(block)[0]
del blocks
fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(fields["VmRSS"].split()[0]) // 1000)
"""


def held_mb(freed: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", HELD, freed], capture_output=True, text=True, check=True, timeout=60
    )
    return int(done.stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library is not glibc")
def test_a_process_that_trains_nothing_gives_freed_memory_back() -> None:
    assert held_mb("returned") < 100
    assert held_mb("kept") > 200
