"""Weights on disk come back as they were, leave nothing behind, and say so when there is no room."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from fedecg.errors import RunError
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
        with pytest.raises(RunError, match=r"FECG-601 update of a site.*no such file.*room for one model a site"):
            put()


def test_a_file_that_ends_too_early_is_no_vector(tmp_path: Path) -> None:
    shelved = shelve(np.ones(100, np.float32), tmp_path)
    os.ftruncate(shelved._file.fileno(), 100)
    with pytest.raises(RunError, match="FECG-601.*a file that ends too early"):
        shelved.whole()
