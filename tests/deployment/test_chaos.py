"""Every case of the table of chaos, one test each: kills, lines, disks, clocks, databases (`chaos.py` says what holds).

About 40 s a case on two cores; `python -m tests.deployment.chaos --shard 1/4 --out FOLDER` runs a part of them and goes
on where it was stopped.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos import CASES, Bench, run_case

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Hospitals, and what an undisturbed study comes to."""
    return Bench.at(tmp_path_factory.mktemp("bench"))


@pytest.mark.parametrize("name", CASES)
def test_a_disturbed_study_ends_as_if_nothing_had_been(name: str, bench: Bench, tmp_path: Path) -> None:
    line = run_case(name, bench, tmp_path / "case")
    print(line)
    if line["outcome"].startswith("not tested"):
        pytest.skip(line["outcome"])
    assert line["outcome"] == "completed"
