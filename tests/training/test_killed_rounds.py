"""A round whose process was killed with SIGKILL in the middle ends with the bits of one that was not."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from killed_rounds import CASES, KILLED_IN_STEP, SLOW, STEPS

from fedecg.training import read_sealed

SCRIPT = Path(__file__).with_name("killed_rounds.py")


def run(folder: Path, cases: list[str]) -> Path:
    done = subprocess.run(
        [sys.executable, SCRIPT, folder, *cases], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def quick(tmp_path_factory) -> Path:
    """Folder of all rounds but those of large networks; beside them a process is killed while it writes."""
    return run(tmp_path_factory.mktemp("killed"), [case for case in CASES if case not in SLOW])


def assert_continued_bit_by_bit(folder: Path, case: str) -> None:
    (whole, said), (continued, says) = (read_sealed(folder / case / name) for name in ("whole", "continued"))
    assert said["made"] == said["steps"] == says["steps"] == STEPS
    assert says["made"] == STEPS - (KILLED_IN_STEP - 1)  # the steps before the kill were not made again
    assert says["loss"] == said["loss"] != 0.0
    assert continued.keys() == whole.keys()
    assert all(np.array_equal(continued[name], whole[name]) for name in whole)


@pytest.mark.parametrize("case", [case for case in CASES if case not in SLOW])
def test_a_killed_round_ends_with_the_same_bits(quick, case):
    assert_continued_bit_by_bit(quick, case)


@pytest.mark.slow
def test_a_killed_round_of_the_paper_preset_ends_with_the_same_bits(tmp_path):
    """Its BatchNorm keeps running statistics, in buffers."""
    folder = run(tmp_path, SLOW)
    for case in SLOW:
        assert_continued_bit_by_bit(folder, case)


def test_nothing_but_the_checkpoint_is_left_behind(quick):
    assert {file.name for file in (quick / "cox-pooled").iterdir()} == {"whole", "checkpoint", "continued"}


def test_a_file_is_whole_whenever_its_writer_is_killed(quick):
    arrays, document = read_sealed(quick / "writer" / "checkpoint")  # the script has looked after each kill
    assert (arrays["numbers"] == document["number"]).all()
    assert (
        len(list((quick / "writer").glob(".*"))) <= 1
    )  # what a kill left half-written, the next write removes
