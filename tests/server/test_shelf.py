"""Weights on disk come back as they were, leave nothing behind, and say so when there is no room."""

import gc
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fedecg.config import FederationSettings
from fedecg.errors import RunError
from fedecg.federation.aggregation import combine
from fedecg_server.shelf import SMALL_BYTES, ShelvedContents, shelve


def test_a_shelved_vector_comes_back_bit_for_bit_whole_and_by_slices(tmp_path: Path) -> None:
    vector = np.random.default_rng(1).normal(size=10_000).astype(np.float32)
    vector[17] = -0.0
    shelved = shelve(vector, tmp_path)
    assert len(shelved) == 10_000
    assert shelved.whole().tobytes() == vector.tobytes()
    assert shelved[9_990:20_000].tobytes() == vector[9_990:].tobytes()
    assert shelved[5:5].shape == (0,)
    assert shelved[3:700].tobytes() == vector[3:700].tobytes()


def test_the_file_has_no_name_and_is_gone_with_its_handle(tmp_path: Path) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    gc.collect()
    before = open_files()
    shelved = shelve(np.ones(50_000, np.float32), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert open_files() == before + 1
    del shelved
    gc.collect()
    assert open_files() == before


def test_contents_of_any_size_come_back_and_can_be_taken_away(tmp_path: Path) -> None:
    contents = ShelvedContents(tmp_path)
    wanted = {f"object {number}": os.urandom(number * SMALL_BYTES // 2) for number in range(6)}
    for name, content in wanted.items():
        contents[name] = content
    assert {name: contents[name] for name in contents} == wanted
    del contents["object 5"]
    assert "object 5" not in contents
    assert contents["object 4"] == wanted["object 4"]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told_with_what_is_needed_there(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    for put in (
        lambda: shelve(np.ones(3, np.float32), absent),
        lambda: ShelvedContents(absent).__setitem__("object", bytes(SMALL_BYTES + 1)),
    ):
        with pytest.raises(
            RunError,
            match=r"FECG-601 update of a site.*no such folder.*room for one model a site\. Was the run folder removed",
        ):
            put()


def test_a_file_that_ends_too_early_is_no_vector(tmp_path: Path) -> None:
    shelved = shelve(np.ones(100, np.float32), tmp_path)
    os.ftruncate(shelved._file.fileno(), 100)
    with pytest.raises(RunError, match="FECG-601.*a file that ends too early"):
        shelved.whole()


@pytest.mark.parametrize("algorithm", ["fedavg", "median", "trimmed-mean", "krum"])
def test_the_mean_of_twelve_shelved_updates_takes_less_memory_than_three_of_them(
    tmp_path: Path, algorithm: str
) -> None:
    size = 1_500_000
    draw = np.random.default_rng(2)
    updates = {
        f"site-{number}": shelve(draw.standard_normal(size, np.float32), tmp_path) for number in range(12)
    }
    settings = FederationSettings.model_validate({"algorithm": algorithm})
    tracemalloc.start()
    try:
        combine(settings, updates, dict.fromkeys(updates, 1.0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * 4 * size


IMPORTS = """
import sys
import fedecg_server.app, fedecg_server.runtime
heavy = {"pandas", "pyarrow", "wfdb", "scipy.stats", "scipy.signal", "matplotlib", "transformers", "ray"}
print(*sorted(heavy & set(sys.modules)))
"""


@pytest.mark.slow
def test_the_app_host_loads_nothing_that_it_does_not_need() -> None:
    """wfdb, pandas, pyarrow and scipy.stats took 100 MB of it."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == []
