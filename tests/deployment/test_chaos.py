"""Every case of the table of chaos, one test each: kills, lines, disks, clocks, databases (`chaos.py` says what holds).

About 40 s a case on two cores; `python -m tests.deployment.chaos --shard 1/4 --out FOLDER` runs a part of them and goes
on where it was stopped.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from chaos import BOOK, CASES, Bench, main, run_case

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


def test_a_case_that_this_machine_cannot_do_is_not_taken_for_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mount").write_text("#!/bin/sh\nexit 32\n")  # as where nobody may mount
    (tmp_path / "mount").chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), os.environ["PATH"]]))
    words = ["--out", str(tmp_path), "--only", "disk full at a site for a round"]
    assert main(words) == 1
    assert "not tested: no right to mount a small disk" in capsys.readouterr().out
    assert not (tmp_path / BOOK).exists()
    assert main([*words, "--allow-untested"]) == 0
    assert "1 cases, 0 failed, 1 not tested; 0 were in the book" in capsys.readouterr().out
